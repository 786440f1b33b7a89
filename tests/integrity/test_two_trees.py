"""Two runs of the whole chain on two copies, in two folders, are equal byte for byte: identity is content.

Not compared are HTML pages, which hold times, and locks.
"""

import contextlib
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
from scipy import ndimage

from tests.flows.support import raw_tree, run_here, write_model

STORED = "--block 128 --probabilities uint8 --precision float32"
CHAIN = (
    "ingest {folder}/slide.tif {folder}/slide.ome.zarr",
    f"segment {{folder}}/slide.ome.zarr -m {{folder}}/cells.safetensors -o {{folder}}/out.ome.zarr {STORED}",
    "instances {folder}/out.ome.zarr --min-size 9",
    "measure {folder}/out.ome.zarr",
)


def draw_cells() -> np.ndarray:
    smooth = ndimage.gaussian_filter(np.random.default_rng(0).random((200, 260)), 3)
    return np.where(smooth > 0.5, 160, 60).astype(np.uint8)


def write_inputs(folder: Path, pixels: np.ndarray) -> Path:
    folder.mkdir(parents=True)
    tifffile.imwrite(folder / "slide.tif", pixels)
    write_model(folder / "cells.safetensors")
    return folder


def run_chain(folder: Path, chain: tuple[str, ...] = CHAIN) -> Path:
    """Run the commands one after the other, in this process and without workers."""
    with pytest.MonkeyPatch.context() as patch:
        for flow in ("instances", "measure", "segment"):
            patch.setattr(f"segment_slide.flows.{flow}.open_cluster", lambda *_, **__: contextlib.nullcontext())
        for command in chain:
            outcome = run_here(*(word.format(folder=folder) for word in command.split()))
            assert outcome.exit_code == 0, outcome
    return folder


def compared(folder: Path) -> dict[str, str]:
    """Hashes of all files but pages and locks."""
    return {
        name: digest for name, digest in raw_tree(folder).items() if not name.endswith((".html", ".segment-slide.lock"))
    }


def differing(one: Path, other: Path) -> list[str]:
    """Files that one folder lacks or whose bytes differ."""
    return sorted({name for name, _ in compared(one).items() ^ compared(other).items()})


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    return write_inputs(tmp_path_factory.mktemp("inputs") / "pristine", draw_cells())


@pytest.fixture(scope="module")
def finished(inputs, tmp_path_factory) -> Path:
    """A folder in which the chain has run."""
    return run_chain(copy(inputs, tmp_path_factory.mktemp("first") / "slides"))


def copy(folder: Path, target: Path) -> Path:
    """A copy whose files have times of their own, as `cp -r` gives them."""
    shutil.copytree(folder, target, copy_function=shutil.copyfile)
    for number, path in enumerate(sorted(target.rglob("*"))):
        os.utime(path, ns=(number, 10**18 + number))
    return target


def test_two_runs_on_two_copies_in_two_folders_are_equal(inputs, finished, tmp_path):
    other = run_chain(copy(inputs, tmp_path / "elsewhere" / "the same slides"))
    assert len(compared(finished)) > 20
    assert any(name.endswith(".parquet") for name in compared(finished))
    assert not differing(finished, other)


def test_the_chain_goes_on_in_a_copy_of_what_the_first_half_left(inputs, finished, tmp_path):
    half = run_chain(copy(inputs, tmp_path / "half"), CHAIN[:2])
    other = run_chain(copy(half, tmp_path / "elsewhere" / "copied"))
    assert not differing(finished, other)


def test_another_run_of_all_commands_changes_nothing_in_a_copy(finished, tmp_path):
    other = copy(finished, tmp_path / "copied")
    stored = {path: path.stat().st_mtime_ns for path in other.rglob("*") if "/c/" in str(path)}
    run_chain(other)
    assert not differing(finished, other)
    assert {path: path.stat().st_mtime_ns for path in stored} == stored, "blocks were written again"


def test_one_pixel_more_makes_the_trees_differ(finished, tmp_path):
    """The control: the comparison sees what a single pixel changes."""
    pixels = draw_cells()
    pixels[100, 100] ^= 255
    other = run_chain(write_inputs(tmp_path / "other", pixels))
    found = differing(finished, other)
    assert any(name.startswith("slide.ome.zarr/0/c/") for name in found)
    assert any(name.startswith("out.ome.zarr/labels/segmentation/0/c/") for name in found)
