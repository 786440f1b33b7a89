"""Copies of inputs and outputs are what they are copies of, wherever they lie; another image at their place is not."""

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import zarr

import segment_slide.flows.measure
from segment_slide.pipeline.errors import InputError
from segment_slide.pipeline.measurement.open import open_input
from segment_slide.pipeline.measurement.options import ImageChoice
from segment_slide.pipeline.pictures.layer import Layer
from segment_slide.pipeline.pictures.thumbnail import find_image
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.fingerprint import ALL, SAMPLED, fingerprint, is_same
from segment_slide.pipeline.storage.image import describe_image
from segment_slide.pipeline.storage.label_records import read_record
from segment_slide.pipeline.storage.names import find_location, say_location
from tests.flows.support import noise, raw_tree, run_here, run_without_workers, shards, write_model, write_ome

LABELS = "labels/segmentation/0"
EXEMPT = (".html", ".segment-slide-lock")  # pages hold times


def steps(folder: Path) -> list[tuple[object, ...]]:
    """Commands that make everything of an output, with paths below a folder."""
    out = folder / "out.ome.zarr"
    segment = ("segment", folder / "slide.ome.zarr", "-m", folder / "cells.safetensors", "-o", out)
    return [(*segment, "--block", 32, "--precision", "float32"), ("instances", out), ("measure", out)]


@pytest.fixture(autouse=True, scope="module")
def without_workers() -> Iterator[None]:
    """Commands work in this process, which is quicker."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segment_slide.flows.measure, "open_cluster", lambda *_, **__: contextlib.nullcontext())
        yield


def make_all(folder: Path) -> None:
    for step in steps(folder):
        assert (outcome := run_without_workers(*step)).exit_code == 0, outcome


def files_of(folder: Path) -> dict[str, str]:
    return {name: found for name, found in raw_tree(folder).items() if not name.endswith(EXEMPT)}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Slide, model, and all that is made of them."""
    folder = tmp_path_factory.mktemp("made")
    write_ome(folder / "slide.ome.zarr", noise(96, 130), "yx")
    write_model(folder / "cells.safetensors")
    make_all(folder)
    return folder


def copy(made: Path, folder: Path, *names: str) -> Path:
    """A copy with times of its own."""
    folder.mkdir(parents=True)
    for name in names or sorted(os.listdir(made)):
        subprocess.run(["cp", "-r", str(made / name), str(folder)], check=True)
    return folder


def test_two_runs_on_two_copies_in_two_folders_are_equal_byte_for_byte(made, tmp_path, monkeypatch) -> None:
    folder = copy(made, tmp_path / "else" / "where", "slide.ome.zarr", "cells.safetensors")
    monkeypatch.chdir(tmp_path)  # places are not relative to where a command runs
    make_all(folder)
    assert files_of(folder) == files_of(made)
    assert len(files_of(folder)) > 30
    text = json.dumps(json.loads((folder / "out.ome.zarr/labels/segmentation/zarr.json").read_text()))
    assert '"../slide.ome.zarr"' in text
    assert '"cells.safetensors"' in text
    assert str(tmp_path) not in text
    slide = zarr.open_array(folder / "slide.ome.zarr" / "0")  # negative control
    slide[0, 0] = int(slide[0, 0]) ^ 1
    shutil.rmtree(folder / "out.ome.zarr")
    make_all(folder)
    assert files_of(folder / "out.ome.zarr") != files_of(made / "out.ome.zarr")


def test_a_copy_is_gone_on_with_elsewhere_and_a_removed_file_comes_back_as_it_was(made, tmp_path) -> None:
    """Objects and table of the copy stay valid: labels that are made again are the same labels."""
    folder = copy(made, tmp_path / "copy")
    first = shards(folder / "out.ome.zarr" / LABELS)[1, 1]
    kept = {name: path.stat().st_mtime_ns for name, path in shards(folder / "out.ome.zarr" / LABELS).items()}
    first.unlink()
    for step in steps(folder):
        assert (outcome := run_without_workers(*step)).exit_code == 0, outcome
    assert files_of(folder) == files_of(made)
    again = {name: path.stat().st_mtime_ns for name, path in shards(folder / "out.ome.zarr" / LABELS).items()}
    assert [name for name in kept if kept[name] != again[name]] == [(1, 1)]


def test_a_half_done_copy_is_gone_on_with_and_another_slide_at_its_place_is_not(made, tmp_path) -> None:
    folder = copy(made, tmp_path / "half")
    for index, path in shards(folder / "out.ome.zarr" / LABELS).items():
        if sum(index) % 2:
            path.unlink()
    for name in ("tables", "labels/segmentation-instances"):
        shutil.rmtree(folder / "out.ome.zarr" / name)
    other = copy(folder, tmp_path / "other")
    shutil.rmtree(other / "slide.ome.zarr")
    write_ome(other / "slide.ome.zarr", noise(96, 130, seed=1), "yx")
    assert (refused := run_without_workers(*steps(other)[0])).exit_code == 2
    assert "input.fingerprint" in refused.err
    for step in steps(folder):
        assert (outcome := run_without_workers(*step)).exit_code == 0, outcome
    assert files_of(folder / "out.ome.zarr" / "labels/segmentation") == files_of(
        made / "out.ome.zarr" / "labels/segmentation"
    )


def test_a_moved_output_does_not_take_another_slide_at_the_recorded_place(made, tmp_path) -> None:
    folder = copy(made, tmp_path / "moved", "out.ome.zarr")
    out = str(folder / "out.ome.zarr")
    record = read_record(out, "segmentation")
    labels = Layer(describe_image(store.join(out, "labels/segmentation")), {"t": 0, "z": 0})
    write_ome(folder / "slide.ome.zarr", noise(96, 130, seed=1), "yx")
    assert find_image(out, record.input, labels) is None
    with pytest.raises(InputError, match="has changed since it was segmented"):
        open_input(out, "segmentation", ImageChoice())
    shutil.rmtree(folder / "slide.ome.zarr")
    shutil.copytree(made / "slide.ome.zarr", folder / "slide.ome.zarr")  # positive control
    assert find_image(out, record.input, labels).base.location == str(folder / "slide.ome.zarr")
    assert open_input(out, "segmentation", ImageChoice()).source.image.location == str(folder / "slide.ome.zarr")


def test_places_are_relative_to_the_output_also_through_links(tmp_path) -> None:
    out, real = tmp_path / "a/b/out.zarr", tmp_path / "deep/er/b"
    real.mkdir(parents=True)
    (tmp_path / "slide.zarr").mkdir()
    (tmp_path / "a").mkdir()
    (tmp_path / "a/b").symlink_to(real)
    for slide in (tmp_path / "slide.zarr", real / "slide.zarr", tmp_path / "a/b/slide.zarr"):
        said = say_location(str(slide), str(out))
        assert not os.path.isabs(said)
        assert os.path.realpath(find_location(said, str(out))) == os.path.realpath(slide)
    assert say_location("s3://bucket/slide.zarr", str(out)) == "s3://bucket/slide.zarr"
    assert find_location("", str(out)) == ""
    if Path("/dev/shm").is_dir() and os.stat("/dev/shm").st_dev != os.stat(tmp_path).st_dev:
        assert say_location("/dev/shm/slide.zarr", str(out)) == "/dev/shm/slide.zarr"


def test_every_byte_counts_where_all_are_read_and_sizes_do_always(tmp_path) -> None:
    """Negative control: samples do not see what lies between them."""
    path = write_ome(tmp_path / "slide.zarr", np.zeros((64, 64), np.uint8), "yx")
    shutil.rmtree(path / "0")
    pixels = noise(8, 1 << 17)
    zarr.create_array(path / "0", shape=pixels.shape, chunks=pixels.shape, dtype="uint8", compressors=None)[...] = (
        pixels
    )
    image = describe_image(path)
    sampled, full = fingerprint(image), fingerprint(image, full=True)
    assert (sampled.partition(":")[0], full.partition(":")[0]) == (SAMPLED, ALL)
    chunk = path / "0/c/0/0"
    content = bytearray(chunk.read_bytes())
    content[200_000] ^= 1
    chunk.write_bytes(content)
    assert is_same(image, sampled) is True
    assert is_same(image, full) is False
    chunk.write_bytes(content[:-1])
    assert is_same(image, sampled) is False


def test_an_input_identified_by_all_of_its_bytes_stays_so(tmp_path) -> None:
    write_ome(tmp_path / "slide.ome.zarr", noise(64, 64), "yx")
    write_model(tmp_path / "cells.safetensors")
    segment = steps(tmp_path)[0]
    assert (outcome := run_without_workers(*segment, "--full-fingerprint")).exit_code == 0, outcome
    record = read_record(str(tmp_path / "out.ome.zarr"), "segmentation")
    assert record.input.fingerprint.startswith(f"{ALL}:")
    assert run_without_workers(*segment).exit_code == 0
    assert read_record(str(tmp_path / "out.ome.zarr"), "segmentation") == record
    assert run_here("info", tmp_path / "out.ome.zarr").exit_code == 0


def test_objects_that_were_moved_without_their_classes_say_what_is_missing(tmp_path) -> None:
    write_ome(tmp_path / "slide.ome.zarr", noise(64, 64), "yx")
    write_model(tmp_path / "cells.safetensors")
    assert (outcome := run_without_workers(*steps(tmp_path)[0])).exit_code == 0, outcome
    here, there = tmp_path / "ids.ome.zarr", tmp_path / "moved" / "ids.ome.zarr"
    assert run_without_workers("instances", tmp_path / "out.ome.zarr", "-o", here).exit_code == 0
    shutil.copytree(here, there)
    outcome = run_without_workers("measure", there)
    assert outcome.exit_code == 2
    assert "Put that store back there" in " ".join(outcome.err.split())
    shutil.copytree(tmp_path / "out.ome.zarr", tmp_path / "moved" / "out.ome.zarr")
    shutil.copytree(tmp_path / "slide.ome.zarr", tmp_path / "moved" / "slide.ome.zarr")
    assert (outcome := run_without_workers("measure", there)).exit_code == 0, outcome
