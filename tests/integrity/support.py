"""Small outputs of every kind, and ways to damage their files."""

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile
from scipy import ndimage

import segment_slide.flows.instances
import segment_slide.flows.measure
import segment_slide.flows.segment
import segment_slide.flows.training_data
import segment_slide.flows.weight_maps
from segment_slide.pipeline.blocks.progress import QuietStages
from segment_slide.pipeline.integrity.run import Report, verify
from tests.flows.support import noise, run_here, write_model

SHAPE = (96, 600)  # two levels
FLOWS = (
    segment_slide.flows.instances,
    segment_slide.flows.measure,
    segment_slide.flows.segment,
    segment_slide.flows.training_data,
    segment_slide.flows.weight_maps,
)

#: Kinds of files: pattern below the folder of outputs.
SEGMENTED = {
    "image": "slide.ome.zarr/0/c/**/*",
    "overview": "slide.ome.zarr/1/c/**/*",
    "labels": "out.ome.zarr/labels/segmentation/0/c/**/*",
    "coarser labels": "out.ome.zarr/labels/segmentation/1/c/**/*",
    "probabilities": "out.ome.zarr/probability/segmentation/0/c/**/*",
    "coarser probabilities": "out.ome.zarr/probability/segmentation/1/c/**/*",
    "ids": "out.ome.zarr/labels/segmentation-instances/0/c/**/*",
    "coarser ids": "out.ome.zarr/labels/segmentation-instances/1/c/**/*",
    "table": "out.ome.zarr/tables/**/*.parquet",
    "metadata": "*.ome.zarr/**/zarr.json",
    "manifest": "*.ome.zarr/_manifest/files.json",
}
TRAINED = {
    "classes": "set.zarr/*/classes/c/**/*",
    "weights": "set.zarr/*/weights/c/**/*",
    "counts": "set.zarr/*/counts/c/**/*",
    "sources": "set.zarr/sources/**/c/**/*",
    "samples": "samples.zarr/*/*/c/**/*",
    "training metadata": "s*.zarr/**/zarr.json",
    "training manifest": "s*.zarr/_manifest/files.json",
    "model": "trained.safetensors",
    "state": "trained.training/state.safetensors",
}


@contextlib.contextmanager
def no_workers() -> Iterator[None]:
    """Commands work in this process, block by block."""
    with pytest.MonkeyPatch.context() as patch:
        for flow in FLOWS:
            patch.setattr(flow, "open_cluster", lambda *_, **__: contextlib.nullcontext())
        yield


def run(*arguments: object) -> None:
    """Run a command that must succeed."""
    with no_workers():
        told = run_here(*arguments)
    assert told.exit_code == 0, told.err


def make_segmentation(folder: Path) -> Path:
    """A slide that was converted, segmented, numbered and measured."""
    pixels = ndimage.gaussian_filter(noise(*SHAPE).astype(float), 3)
    pixels = ((pixels - pixels.mean()) * 8 + 127).clip(0, 255).astype(np.uint8)
    tifffile.imwrite(folder / "slide.tif", pixels, tile=(64, 64))
    model = write_model(folder / "cells.safetensors")
    run("ingest", folder / "slide.tif", folder / "slide.ome.zarr")
    sizes = ("--block", 128, "--tile", 64, "--precision", "float32", "--probabilities", "uint8")
    out = folder / "out.ome.zarr"
    run("segment", folder / "slide.ome.zarr", "-m", model, "-o", out, *sizes)
    run("instances", out, "--block", 128, "--min-size", 10)
    run("measure", out)
    return folder


def make_training(folder: Path) -> Path:
    """A training set, samples, and a network trained on them."""
    for name in ("images", "masks"):
        (folder / name).mkdir()
    for number in range(2):
        pixels = noise(64, 96, seed=number)
        tifffile.imwrite(folder / "images" / f"{number}.tif", pixels)
        tifffile.imwrite(folder / "masks" / f"{number}.tif", (pixels > 128).astype(np.uint8) * 255)
    masks = ("--labels", folder / "masks", "--kind", "binary", "--sigma", 2, "--block", 32)
    run("weight-maps", folder / "images", *masks, "-o", folder / "set.zarr")
    small = ("--n", 40, "--tile", 16, "--depth", 1)
    run("training-data", folder / "set.zarr", "-o", folder / "samples.zarr", *small)
    few = ("--steps", 4, "--base-channels", 2, "--device", "cpu")
    run("train", folder / "samples.zarr", "-o", folder / "trained.safetensors", *few)
    return folder


# -- damages: each takes the files of a kind and returns those that a report must name ------------------------------

Damage = Callable[[list[Path], np.random.Generator], list[Path]]


def flip(files: list[Path], chance: np.random.Generator) -> list[Path]:
    """Flip one bit."""
    file = files[chance.integers(len(files))]
    flip_bit(file, int(chance.integers(8 * file.stat().st_size)))
    return [file]


def flip_bit(file: Path, bit: int) -> None:
    """Flip a certain bit of a file."""
    content = bytearray(file.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    file.write_bytes(content)


def truncate(files: list[Path], chance: np.random.Generator) -> list[Path]:
    """Cut the end off."""
    file = files[chance.integers(len(files))]
    file.write_bytes(file.read_bytes()[: int(chance.integers(file.stat().st_size))])
    return [file]


def swap(files: list[Path], _: np.random.Generator) -> list[Path]:
    """Exchange two files; if there is only one of a kind, or all are equal, write it twice."""
    first, last = files[0], files[-1]
    one, other = first.read_bytes(), last.read_bytes()
    if one == other:
        return []
    first.write_bytes(other)
    last.write_bytes(one)
    return [first, last]


def remove(files: list[Path], chance: np.random.Generator) -> list[Path]:
    """Delete a file."""
    file = files[chance.integers(len(files))]
    file.unlink()
    return [file]


def add(files: list[Path], _: np.random.Generator) -> list[Path]:
    """Put a copy beside a file, called like a shard or a part that does not exist."""
    file = files[-1]
    beside = file.with_name("part-00077.parquet" if file.suffix == ".parquet" else "77")
    shutil.copy(file, beside)
    return [beside]


DAMAGES: dict[str, Damage] = {
    "flipped": flip,
    "truncated": truncate,
    "swapped": swap,
    "missing": remove,
    "surplus": add,
}


def files_of(folder: Path, pattern: str) -> list[Path]:
    """Files of a kind, in order."""
    return sorted(path for path in folder.glob(pattern) if path.is_file())


def check(path: Path) -> Report:
    """Verify in this process."""
    return verify(str(path), QuietStages())


def named(report: Report) -> set[Path]:
    """Files that a report names."""
    return {Path(finding.path) for finding in report.findings}
