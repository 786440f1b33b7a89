"""A file of the input that changes while it is read: no command calls its result complete; a touch changes nothing.

The change is a real one, made while a real command is at work in this process, after so many of its tasks.
"""

import contextlib
import importlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from segment_slide.pipeline.storage.label_records import read_record
from tests.flows.support import Outcome, noise, run_here, shards, tree, write_array, write_model, write_ome

SHAPE, CHUNK, BLOCK = (96, 160), 32, 32
LABELS = "labels/segmentation/0"
FLOWS = ("instances", "measure", "segment", "training_data", "weight_maps")
PIPELINE = "segment_slide.pipeline"


@pytest.fixture(autouse=True, scope="module")
def without_workers() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for flow in FLOWS:
            module = importlib.import_module(f"segment_slide.flows.{flow}")
            patch.setattr(module, "open_cluster", lambda *_, **__: contextlib.nullcontext())
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "cells.safetensors")


def command(folder: Path, model: Path, out: str = "out.ome.zarr") -> tuple[object, ...]:
    sizes = ("--block", BLOCK, "--precision", "float32", "--axes", "yx")
    return ("segment", folder / "slide.zarr", "-m", model, "-o", folder / out, *sizes)


def disturbed(function: str, after: int, act: Callable[[], None], *arguments: object) -> Outcome:
    """Run a command; `act` once a function of ours has been called so often."""
    module, _, name = f"{PIPELINE}.{function}".rpartition(".")
    owner = importlib.import_module(module)
    original, n_calls = getattr(owner, name), 0

    def wrapped(*given: object, **named: object) -> object:
        nonlocal n_calls
        n_calls += 1
        result = original(*given, **named)
        if n_calls == after:
            act()
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, wrapped)
        outcome = run_here(*arguments)
    assert n_calls >= after, (n_calls, outcome)  # else nothing was disturbed
    return outcome


def give_other_content(chunk: Path, *, seed: int = 7) -> None:
    """Other pixels in a chunk: that of another image."""
    aside = write_array(chunk.parents[3] / f"aside-{seed}.zarr", noise(*SHAPE, seed=seed), chunk=CHUNK)
    shutil.copyfile(aside / "c" / chunk.parent.name / chunk.name, chunk)
    shutil.rmtree(aside)


def flip(file: Path) -> Callable[[], None]:
    """Change the last byte of a file, or only its times."""

    def act() -> None:
        content = file.read_bytes()
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))

    return act


def labels_of(out: Path) -> dict[str, str]:
    return {name: found for name, found in tree(out / "labels").items() if "/c/" in name}


def test_a_chunk_that_changes_while_a_slide_is_segmented_is_noticed_and_what_touched_it_is_redone(
    model, tmp_path
) -> None:
    slide = write_array(tmp_path / "slide.zarr", noise(*SHAPE), chunk=CHUNK)
    chunk, out = slide / "c/1/2", tmp_path / "out.ome.zarr"
    at_work = disturbed(
        "segmentation.block.store_block", 9, lambda: give_other_content(chunk), *command(tmp_path, model)
    )
    assert at_work.exit_code == 3, at_work
    assert str(chunk) in at_work.err
    assert "--input-repaired" in at_work.err
    assert "Traceback" not in at_work.err
    assert read_record(str(out), "segmentation").input.changed == ("c/1/2",)
    early = run_here("instances", out)
    assert (early.exit_code, "not complete" in early.err) == (2, True), early
    assert run_here(*command(tmp_path, model)).exit_code == 2

    before = {index: path.stat().st_mtime_ns for index, path in shards(out / LABELS).items()}
    repaired = run_here(*command(tmp_path, model), "--input-repaired")
    assert repaired.exit_code == 0, repaired
    after = {index: path.stat().st_mtime_ns for index, path in shards(out / LABELS).items()}
    redone = {index for index in after if after[index] != before[index]}
    assert redone == {(y, x) for y in (0, 1, 2) for x in (1, 2, 3)}  # the halo reaches the neighbours
    assert run_here(*command(tmp_path, model, "reference.ome.zarr")).exit_code == 0
    assert labels_of(out) == labels_of(tmp_path / "reference.ome.zarr")
    assert not (out / "labels/segmentation/work").exists()
    assert run_here("instances", out).exit_code == 0


def test_a_touch_changes_nothing(model, tmp_path) -> None:
    slide = write_array(tmp_path / "slide.zarr", noise(*SHAPE), chunk=CHUNK)
    assert run_here(*command(tmp_path, model, "reference.ome.zarr")).exit_code == 0
    touch = lambda: [os.utime(path) for path in slide.rglob("*")]  # noqa: E731
    outcome = disturbed("segmentation.block.store_block", 9, touch, *command(tmp_path, model))
    assert outcome.exit_code == 0, outcome
    assert tree(tmp_path / "out.ome.zarr") == tree(tmp_path / "reference.ome.zarr")


class Killed(BaseException):
    """Ends a command as SIGKILL does: no handler of Exception sees it."""


def end() -> None:
    raise Killed


@pytest.mark.parametrize("has_list", [True, False])
def test_every_block_that_touched_a_repaired_chunk_is_redone_not_only_that_of_the_error(
    model, tmp_path, has_list, caplog
) -> None:
    """Without a list (older versions wrote none) it cannot be told, and the command says so: the negative control."""
    slide = write_array(tmp_path / "slide.zarr", noise(*SHAPE), chunk=CHUNK)
    out = tmp_path / "out.ome.zarr"
    with pytest.raises(Killed):
        disturbed("segmentation.block.store_block", 11, end, *command(tmp_path, model))
    assert len(shards(out / LABELS)) == 11
    give_other_content(slide / "c/0/0")
    give_other_content(slide / "c/1/4", seed=8)
    give_other_content(slide / "c/2/4", seed=9)  # of a block that is not done
    if not has_list:
        shutil.rmtree(out / "labels/segmentation/work")
    refused = run_here(*command(tmp_path, model))
    assert (refused.exit_code, "--input-repaired" in refused.err) == (2, True), refused
    repaired = run_here(*command(tmp_path, model), "--input-repaired")
    assert repaired.exit_code == 0, repaired
    assert ("cannot be told" in caplog.text) is not has_list
    assert run_here(*command(tmp_path, model, "reference.ome.zarr")).exit_code == 0
    assert (labels_of(out) == labels_of(tmp_path / "reference.ome.zarr")) is has_list


def test_a_change_beyond_the_sample_is_refused_when_a_run_goes_on(model, tmp_path, monkeypatch) -> None:
    """What was read is compared too, not the fingerprint alone."""
    monkeypatch.setattr(f"{PIPELINE}.storage.fingerprint._N_SAMPLES", 1)
    slide = write_array(tmp_path / "slide.zarr", noise(*SHAPE), chunk=CHUNK)
    with pytest.raises(Killed):
        disturbed("segmentation.block.store_block", 11, end, *command(tmp_path, model))
    chunk = slide / "c/1/1"
    content = chunk.read_bytes()
    flip(chunk)()
    refused = run_here(*command(tmp_path, model))
    assert (refused.exit_code, str(chunk) in refused.err) == (2, True), refused
    chunk.write_bytes(content)  # positive control: other times, the same content
    assert run_here(*command(tmp_path, model)).exit_code == 0


# -- the other commands ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(model, tmp_path_factory) -> Path:
    """Everything that commands read: a segmentation with objects, annotated images, samples."""
    folder = tmp_path_factory.mktemp("finished")
    write_ome(folder / "image.ome.zarr", noise(*SHAPE), "yx")
    segment = ("segment", folder / "image.ome.zarr", "-m", model, "-o", folder / "out.ome.zarr", "--block", BLOCK)
    cells = np.zeros(SHAPE, np.uint8)
    cells[8:40, 8:40] = 1
    cells[50:80, 60:120] = 2
    write_ome(folder / "truth.ome.zarr", cells, "yx")
    weights = (
        "weight-maps",
        folder / "image.ome.zarr",
        "--labels",
        folder / "truth.ome.zarr",
        "-o",
        folder / "set.zarr",
    )
    drawn = ("training-data", folder / "set.zarr", "-o", folder / "samples.zarr", "-n", 4, "--tile", 16, "--depth", 1)
    for step in (segment, ("instances", folder / "out.ome.zarr", "--block", BLOCK), (*weights, "--block", 64), drawn):
        assert (outcome := run_here(*step)).exit_code == 0, outcome
    return folder


CASES = {
    "instances": ("objects.run.find_objects", 3, "out.ome.zarr/labels/segmentation/0/c/0/0"),
    "measure": ("measurement.run.measure_place", 3, "image.ome.zarr/0/c/0/0"),
    "weight-maps": ("training.weights_run._run_item", 6, "truth.ome.zarr/0/c/0/0"),
    "training-data": ("training.samples_run.write_shard", 1, "image.ome.zarr/0/c/0/0"),
    "evaluate": ("scoring.run.read_part", 2, "truth.ome.zarr/0/c/0/0"),
}


def words(name: str, folder: Path) -> tuple[object, ...]:
    image, out, truth = (folder / f"{name}.ome.zarr" for name in ("image", "out", "truth"))
    return {
        "instances": ("instances", out, "--block", BLOCK),
        "measure": ("measure", out),
        "weight-maps": ("weight-maps", image, "--labels", truth, "-o", folder / "new.zarr", "--block", 64),
        "training-data": ("training-data", folder / "set.zarr", "-o", folder / "new.zarr", "-n", 4, "--tile", 16),
        "evaluate": ("evaluate", out / "labels/segmentation", truth, "--kind", "classes"),
    }[name]


@pytest.mark.parametrize("is_touch", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_every_command_notices_a_change_and_no_touch(name, is_touch, finished, tmp_path) -> None:
    folder = shutil.copytree(finished, tmp_path / "work")
    if name == "instances":
        shutil.rmtree(folder / "out.ome.zarr/labels/segmentation-instances")
    function, after, file = CASES[name]
    act = (lambda: os.utime(folder / file)) if is_touch else flip(folder / file)
    outcome = disturbed(function, after, act, *words(name, folder))
    if is_touch:
        assert outcome.exit_code == 0, outcome
        return
    assert outcome.exit_code == 3, outcome
    assert str(folder / file) in outcome.err
    records = {path: json.loads(path.read_text()) for path in folder.rglob("segmentation-instances/zarr.json")}
    if name == "instances":
        assert not records
    if name == "measure":
        assert not list((folder / "out.ome.zarr/tables").rglob("*.parquet"))
    if name in ("weight-maps", "training-data"):
        following = ("training-data", folder / "new.zarr", "-o", folder / "more.zarr")
        if name == "training-data":
            following = ("train", folder / "new.zarr", "-o", folder / "new.safetensors", "--steps", 1)
        refused = run_here(*following)
        assert (refused.exit_code, "missing" in refused.err) == (2, True), refused
