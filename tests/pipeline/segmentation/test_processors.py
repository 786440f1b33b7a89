"""A run that goes on with another kind of processor: refused, accepted, and recorded block by block."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from segment_slide.pipeline.segmentation.prepare import _warn_about_precision
from segment_slide.pipeline.segmentation.processors import as_begun, is_known, note_processor, processor_of
from segment_slide.pipeline.storage.label_records import ProcessorUse, SegmentationRecord, SegmentParameters
from segment_slide.pipeline.storage.record import Code
from segment_slide.unet import device
from segment_slide.unet.device_facts import DeviceFacts
from tests.flows.support import noise, run_without_workers, shards, write_array, write_model

COUNTS = (3, 4)
A, B, C = (ProcessorUse("cpu", name, "2.13.0") for name in ("AVX2", "AVX512 bf16", "AVX512 bf16 amx"))
BEGUN = SegmentationRecord(
    code=Code(torch="2.13.0"), parameters=SegmentParameters(block=64, device="cpu", processor="AVX2")
)


def blocks(*numbers: int) -> set[tuple[int, int]]:
    return {divmod(number, COUNTS[1]) for number in numbers}


def test_the_record_says_which_blocks_came_from_which_processor_at_any_time() -> None:
    assert processor_of(BEGUN) == A
    done = [0, 1, 2, 5]
    assert note_processor(BEGUN, A, blocks(*done), COUNTS) == BEGUN
    second = note_processor(BEGUN, B, blocks(*done), COUNTS)
    assert second.processors == (replace(A, blocks=((0, 3), (5, 6))), B)
    # killed before the first block, and begun again, once and by another one
    assert note_processor(second, B, blocks(*done), COUNTS) == second
    assert note_processor(second, A, blocks(*done), COUNTS) == BEGUN
    third = note_processor(second, C, blocks(*done, 3, 4), COUNTS)
    assert third.processors == (replace(A, blocks=((0, 3), (5, 6))), replace(B, blocks=((3, 5),)), C)
    back = note_processor(third, A, blocks(*done, 3, 4, 11), COUNTS)
    assert back.processors == (replace(B, blocks=((3, 5),)), replace(C, blocks=((11, 12),)), A)
    # a block that was deleted is made by the one that goes on
    assert note_processor(back, A, blocks(*done, 4), COUNTS).processors == (replace(B, blocks=((4, 5),)), A)
    assert note_processor(second, B, blocks(5), COUNTS).processors == (replace(A, blocks=((5, 6),)), B)
    assert note_processor(second, B, set(), COUNTS).processors == (B,)


def test_a_finished_run_is_left_as_it_is() -> None:
    assert note_processor(BEGUN, B, blocks(*range(12)), COUNTS) == BEGUN


def test_a_record_of_a_slide_of_millions_of_blocks_stays_small() -> None:
    counts = (1500, 1500)
    done = {(row, column) for row in range(700) for column in range(1500)}
    done |= {(row, column) for row in range(700, 732) for column in range(400)}  # windows of a band that is not full
    (first, _) = note_processor(BEGUN, B, done, counts).processors
    assert first.blocks is not None
    assert len(first.blocks) == 32
    assert sum(stop - start for start, stop in first.blocks) == len(done)


def test_kinds_that_were_accepted_are_known_and_what_was_not_recorded_counts_as_equal() -> None:
    assert is_known(BEGUN, A)
    assert not is_known(BEGUN, B)
    assert not is_known(BEGUN, replace(A, torch="2.14.0"))
    noted = note_processor(BEGUN, B, blocks(0), COUNTS)
    assert is_known(noted, A)
    assert is_known(noted, B)
    assert not is_known(noted, C)
    assert is_known(replace(BEGUN, code=None), replace(A, torch="2.14.0"))
    wanted = replace(BEGUN, parameters=replace(BEGUN.parameters, processor="AVX512 bf16", block=32))
    assert as_begun(wanted, BEGUN).parameters == replace(BEGUN.parameters, block=32)


@pytest.mark.parametrize(
    ("facts", "is_warned"),
    [
        (DeviceFacts("cpu", "AVX2", "bfloat16"), True),
        (DeviceFacts("cpu", "AVX2", "float32"), False),
        (DeviceFacts("cpu", "AVX512 bf16 amx", "bfloat16"), False),
        (DeviceFacts("cpu", "", "bfloat16"), False),  # workers that are not known yet
        (DeviceFacts("cuda", "Tesla T4", "bfloat16"), False),
    ],
)
def test_a_run_that_goes_on_in_bfloat16_where_it_is_emulated_is_warned_of(
    facts: DeviceFacts, is_warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    _warn_about_precision(facts)
    assert ("no instructions for bfloat16" in caplog.text) == is_warned


@pytest.fixture
def begun(tmp_path: Path) -> list[object]:
    """Arguments of a run that another processor began: half of its blocks are there."""
    write_array(tmp_path / "slide.zarr", noise(128, 256))
    write_model(tmp_path / "cells.safetensors")
    out = tmp_path / "out.ome.zarr"
    arguments = ["segment", tmp_path / "slide.zarr", "-m", tmp_path / "cells.safetensors", "-o", out, "--axes", "yx"]
    arguments += ["--block", 64, "--precision", "float32", "--probabilities", "uint8"]
    assert run_without_workers(*arguments).exit_code == 0
    for group in ("labels", "probability"):
        path = out / group / "segmentation/zarr.json"
        content = json.loads(path.read_text())
        record = content["attributes"]["segment_slide"]
        record["parameters"]["processor"], record["code"]["torch"] = "AVX2 of yore", "2.0.0"
        path.write_text(json.dumps(content))
    for index, path in shards(out / "labels/segmentation/0").items():
        if index[0] == 1:
            path.unlink()
    return arguments


def record_of(arguments: list[object], group: str = "labels") -> dict[str, object]:
    content = json.loads(Path(str(arguments[5]), group, "segmentation/zarr.json").read_text())
    return content["attributes"]["segment_slide"]


def test_another_processor_goes_on_if_it_is_accepted_and_then_without_being_asked_again(begun: list[object]) -> None:
    before = record_of(begun)
    refused = run_without_workers(*begun)
    assert refused.exit_code == 2
    assert "parameters.processor: begun with 'AVX2 of yore', now" in refused.err
    assert "code.torch: begun with '2.0.0', now" in refused.err
    assert "add --accept-processor" in refused.err
    assert record_of(begun) == before
    other = run_without_workers(*begun, "--accept-processor", "--tta", "flips")
    assert other.exit_code == 2  # nothing else is accepted
    assert "parameters.tta" in other.err
    assert "--accept-processor" not in other.err
    assert run_without_workers(*begun, "--accept-processor").exit_code == 0
    here = device.describe_device("cpu", "float32").processor
    for group in ("labels", "probability"):
        first, last = record_of(begun, group)["processors"]
        assert (first["processor"], first["torch"], first["blocks"]) == ("AVX2 of yore", "2.0.0", [[0, 4]])
        assert (last["processor"], last["blocks"]) == (here, None)
        assert record_of(begun, group)["parameters"] == before["parameters"]
    next(iter(shards(Path(str(begun[5])) / "labels/segmentation/0").values())).unlink()
    assert run_without_workers(*begun).exit_code == 0
    shown = run_without_workers("info", begun[5])
    assert "3 blocks: AVX2 of yore, torch 2.0.0; all other blocks:" in " ".join(shown.out.split())


def test_a_finished_run_is_not_refused_on_another_processor(begun: list[object]) -> None:
    assert run_without_workers(*begun, "--accept-processor").exit_code == 0
    finished = record_of(begun)
    path = Path(str(begun[5]), "labels/segmentation/zarr.json")
    content = json.loads(path.read_text())
    del content["attributes"]["segment_slide"]["processors"]
    path.write_text(json.dumps(content))
    assert run_without_workers(*begun).exit_code == 0
    assert "processors" in finished
    assert "processors" not in record_of(begun)
    assert os.path.exists(path)
