"""Damaged input, a full disk: what can be done is done and kept, the same command goes on, the bytes end up equal."""

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import segment_slide.flows.segment
from segment_slide.unet.checkpoint import Normalisation
from tests.flows.support import (
    brake,
    can_mount,
    finish,
    mounted,
    noise,
    remount,
    run_here,
    run_installed,
    run_without_workers,
    shards,
    start,
    tree,
    wait_until,
    write_array,
    write_model,
)

SHAPE, CHUNK, BLOCK, HALO = (200, 260), 56, 32, 8
BAD_CHUNK = (2, 1)
PAGE_BYTES = 4096  # what a memory file system gives a file at a time


def arguments(slide: Path, model: Path, output: Path, *options: object) -> list[object]:
    return [
        "segment",
        slide,
        "-m",
        model,
        "-o",
        output,
        "--axes",
        "yx",
        "--block",
        BLOCK,
        "--precision",
        "float32",
        *options,
    ]


# -- a damaged chunk -------------------------------------------------------------------------------------------


def blocks_that_read(chunk: tuple[int, int]) -> set[tuple[int, int]]:
    """Oracle: read boxes [32 i - 8, 32 i + 40) that meet the chunk's [56 c, 56 c + 56); inner chunk, no mirroring."""
    axes = []
    for position, size in zip(chunk, SHAPE, strict=True):
        first, end = position * CHUNK, (position + 1) * CHUNK
        starts = range(0, size, BLOCK)
        axes.append([i for i, s in enumerate(starts) if s - HALO < end and s + BLOCK + HALO > first])
    return {(i, j) for i in axes[0] for j in axes[1]}


@contextlib.contextmanager
def rotten(path: Path) -> Iterator[None]:
    """Other bytes in a file, as a failing disk returns them: size and time stay; then the right ones again."""
    whole, status = path.read_bytes(), path.stat()
    path.write_bytes(np.random.default_rng(7).bytes(len(whole)))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    try:
        yield
    finally:
        path.write_bytes(whole)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.fixture(scope="module")
def slide(tmp_path_factory) -> Path:
    return write_array(tmp_path_factory.mktemp("slide") / "slide.zarr", noise(*SHAPE), chunk=CHUNK)


def test_a_damaged_chunk_costs_only_the_blocks_that_read_it(slide, model, tmp_path, warm):
    output, reference = tmp_path / "out.ome.zarr", tmp_path / "reference.ome.zarr"
    assert run_here(*arguments(slide, model, reference)).exit_code == 0
    with rotten(slide / "c" / "2" / "1"):
        outcome = run_here(*arguments(slide, model, output))
        again = run_here(*arguments(slide, model, output))

    expected = blocks_that_read(BAD_CHUNK)
    assert 0 < len(expected) <= 10  # all of them fit the message
    check_incomplete(outcome, expected)
    stored = shards(output / "labels/segmentation/0")
    assert set(stored) == set(np.ndindex(7, 9)) - expected
    check_incomplete(again, expected)  # trying again does not mend it

    before = {index: path.stat().st_mtime_ns for index, path in stored.items()}
    assert run_here(*arguments(slide, model, output)).exit_code == 2  # the input has other content now
    repaired = run_here(*arguments(slide, model, output), "--input-repaired")
    assert repaired.exit_code == 0, repaired
    assert f"Went on: {63 - len(expected)} of 63 blocks were already done." in repaired.out
    assert {index: path.stat().st_mtime_ns for index, path in stored.items()} == before
    made, expected_tree = tree(output), tree(reference)
    assert {name for name in made.keys() | expected_tree.keys() if made.get(name) != expected_tree.get(name)} == {
        "labels/segmentation/zarr.json"  # it says that the input was repaired
    }


@pytest.mark.slow
def test_a_chunk_copied_anew_is_taken_when_the_user_says_that_it_was_a_repair(model, tmp_path, warm):
    """A restored file has other content, so the input counts as changed until the user says why."""
    slide = write_array(tmp_path / "slide.zarr", noise(*SHAPE), chunk=CHUNK)
    output, reference = tmp_path / "out.ome.zarr", tmp_path / "reference.ome.zarr"
    chunk = slide / "c" / "2" / "1"
    with rotten(chunk):
        assert run_here(*arguments(slide, model, output)).exit_code == 3
    os.utime(chunk)
    refused = run_here(*arguments(slide, model, output))
    assert refused.exit_code == 2
    assert "input.fingerprint" in refused.err
    assert "--input-repaired" in refused.err
    began = record_of(output)["input"]
    before = {index: path.stat().st_mtime_ns for index, path in shards(output / "labels/segmentation/0").items()}
    assert run_here(*arguments(slide, model, output), "--input-repaired").exit_code == 0
    after = {index: path.stat().st_mtime_ns for index, path in shards(output / "labels/segmentation/0").items()}
    assert {index: after[index] for index in before} == before
    assert run_here(*arguments(slide, model, reference)).exit_code == 0
    assert record_of(output)["input"] == {**record_of(reference)["input"], "repaired_from": [began["fingerprint"]]}
    made, expected = tree(output), tree(reference)
    assert [name for name in expected if made[name] != expected[name]] == ["labels/segmentation/zarr.json"]
    assert made.keys() == expected.keys()


def record_of(output: Path) -> dict[str, Any]:
    return json.loads((output / "labels/segmentation/zarr.json").read_text())["attributes"]["segment_slide"]


def check_incomplete(outcome, expected) -> None:
    assert outcome.exit_code == 3, outcome
    assert "Traceback" not in outcome.err
    assert f"{len(expected)} of 63 blocks could not be done; all others are stored" in outcome.err
    named = re.findall(r"block \((\d+), (\d+)\): unreadable chunk 2/1 of", outcome.err)
    assert {(int(i), int(j)) for i, j in named} == expected
    assert "would fail again: mend it first. Then the same command goes on." in outcome.err


@pytest.mark.slow
def test_a_chunk_that_is_cut_off_is_named_by_the_real_command_without_a_stack(model, tmp_path):
    """What the workers print is seen only from outside."""
    slide = write_array(tmp_path / "slide.zarr", noise(*SHAPE), chunk=CHUNK)
    chunk = slide / "c" / "2" / "1"
    chunk.write_bytes(chunk.read_bytes()[:1000])
    outcome = run_installed(*arguments(slide, model, tmp_path / "out.ome.zarr"))
    check_incomplete(outcome, blocks_that_read(BAD_CHUNK))
    assert len(outcome.err.splitlines()) == 1 + len(blocks_that_read(BAD_CHUNK)) + 1


def test_an_image_that_cannot_be_measured_is_refused_before_anything_is_created(tmp_path, warm):
    """Without the whole image there is no mean of the whole image."""
    slide = write_array(tmp_path / "slide.zarr", noise(*SHAPE), chunk=CHUNK)
    model = write_model(tmp_path / "cells.safetensors", normalisation=Normalisation("mean-std"))
    with rotten(slide / "c" / "2" / "1"):
        outcome = run_here(*arguments(slide, model, tmp_path / "out.ome.zarr"))
    assert outcome.exit_code == 2, outcome
    assert "cannot be measured: unreadable chunk 2/1 of" in outcome.err
    assert not (tmp_path / "out.ome.zarr").exists()


# -- a full disk -----------------------------------------------------------------------------------------------


def pages(folder: Path, *, without: str = "nothing") -> int:
    """Pages that a memory file system needs for the files below a folder."""
    files = (path for path in folder.rglob("*") if path.is_file() and without not in str(path))
    return sum(-(-path.stat().st_size // PAGE_BYTES) for path in files)


@pytest.fixture(scope="module")
def tall(tmp_path_factory) -> Path:
    """34 blocks and a pyramid of two levels."""
    return write_array(tmp_path_factory.mktemp("tall") / "slide.zarr", noise(520, 40))


@pytest.fixture(scope="module")
def tall_reference(tall, model, tmp_path_factory) -> Path:
    """What an undisturbed run makes of it."""
    reference = tmp_path_factory.mktemp("tall_reference") / "reference.ome.zarr"
    assert run_without_workers(*arguments(tall, model, reference)).exit_code == 0
    return reference


@pytest.mark.skipif(not can_mount(), reason="needs the right to mount a file system")
@pytest.mark.parametrize("stage", ["creation", "segmentation", "pyramid"])
def test_a_full_disk_leaves_nothing_half_written_and_the_run_goes_on_with_more_space(
    stage, tall, tall_reference, model, tmp_path, warm
):
    reference = tall_reference
    room = {
        "creation": 2,
        "segmentation": pages(reference, without="/0/c/") + 10,
        "pyramid": pages(reference, without="/1/c/") + 4,  # two of them for the list of what was read
    }[stage]
    with mounted(tmp_path / "disk", f"size={room * PAGE_BYTES}") as disk:
        output = disk / "out.ome.zarr"
        outcome = run_here(*arguments(tall, model, output))
        assert outcome.exit_code == (2 if stage == "creation" else 3), outcome
        assert "No space left on device" in outcome.err
        assert "Traceback" not in outcome.err
        files = [path.name for path in disk.rglob("*") if path.is_file()]
        assert not [name for name in files if name.endswith((".partial", ".lock"))]
        n_done = {level: len(shards(output / f"labels/segmentation/{level}")) for level in (0, 1)}
        assert n_done[0] in {"creation": [0], "segmentation": range(1, 34), "pyramid": [34]}[stage]
        assert n_done[1] < 9

        remount(disk, "size=4m")
        again = run_here(*arguments(tall, model, output))
        assert again.exit_code == 0, again
        # a task of the refused run that was still at work may store its block once there is space again
        went_on = re.search(r"Went on: (\d+) of 34", again.out)
        assert (went_on is not None) == (n_done[0] > 0)
        assert int(went_on[1] if went_on else 0) >= n_done[0]
        assert tree(output) == tree(reference)


# -- an output that somebody else touches ------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_whose_output_is_taken_away_ends_soon_and_goes_on_when_it_is_back(model, tmp_path):
    """As when a disk is unmounted: a run that went on would compute every block for nothing."""
    slide, output = write_array(tmp_path / "slide.zarr", noise(600, 600)), tmp_path / "out.ome.zarr"
    slowly = brake(tmp_path / "brake", output / "labels/segmentation/0/c", 5)
    process = start(*arguments(slide, model, output), **slowly)
    wait_until(lambda: len(shards(output / "labels/segmentation/0")) >= 5, process)
    output.rename(tmp_path / "away")
    outcome = finish(process)
    assert outcome.exit_code == 3, outcome
    assert f"{output}/labels/segmentation/0" in outcome.err
    assert "cannot be written" in outcome.err
    n_done = len(shards(tmp_path / "away/labels/segmentation/0"))
    assert n_done < 300

    shutil.rmtree(output, ignore_errors=True)  # what a write that was under way has made anew
    (tmp_path / "away").rename(output)
    again = run_installed(*arguments(slide, model, output))
    assert again.exit_code == 0, again
    assert f"Went on: {n_done} of 361" in again.out


def test_an_output_that_another_run_began_meanwhile_is_not_begun_again(slide, model, tmp_path, monkeypatch, warm):
    """Between the checks of a run and its lock, another run begins and ends."""
    output = tmp_path / "out.ome.zarr"
    prepare = segment_slide.flows.segment.resolve_segment_request

    def prepare_slowly(request):
        prepared = prepare(request)
        monkeypatch.setattr(segment_slide.flows.segment, "resolve_segment_request", prepare)
        assert run_here(*arguments(slide, model, output, "--tile", 16)).exit_code == 0
        return prepared

    monkeypatch.setattr(segment_slide.flows.segment, "resolve_segment_request", prepare_slowly)
    outcome = run_here(*arguments(slide, model, output, "--tile", 32))
    assert outcome.exit_code == 2, outcome
    assert "was begun by another run in the meantime; run the same command again" in outcome.err
    after = run_here(*arguments(slide, model, output, "--tile", 16))
    assert "Went on: 63 of 63" in after.out
