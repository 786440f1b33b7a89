"""What a segmentation makes of whole-image statistics: large offsets, runs that were begun with other statistics."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr

from segment_slide.unet.checkpoint import Normalisation
from tests.flows.support import noise, run_without_workers, tree, write_array, write_model

LABELS = "labels/segmentation"


def segment(folder: Path, pixels: np.ndarray, kind: str = "mean-std") -> np.ndarray:
    if not (folder / "slide.zarr").exists():
        write_array(folder / "slide.zarr", pixels)
        write_model(folder / "cells.safetensors", normalisation=Normalisation(kind))
    arguments = ["segment", folder / "slide.zarr", "-m", folder / "cells.safetensors", "-o", folder / "out.ome.zarr"]
    outcome = run_without_workers(*arguments, "--axes", "yx", "--block", 64, "--precision", "float32")
    assert outcome.exit_code == 0, outcome
    return zarr.open_array(folder / "out.ome.zarr" / LABELS / "0", mode="r")[:]


def record_of(folder: Path) -> Path:
    return folder / "out.ome.zarr" / LABELS / "zarr.json"


@pytest.mark.parametrize(
    ("dtype", "offset", "kind"),
    [("int32", 2 * 10**9, "mean-std"), ("uint64", 2**40, "percentiles"), ("float32", -60_000, "mean-std")],
)
def test_an_offset_that_is_added_to_all_pixels_changes_no_label(
    tmp_path: Path, dtype: str, offset: int, kind: str
) -> None:
    pixels = noise(130, 100)
    expected = segment(tmp_path / "plain", pixels, kind)
    assert 0.2 < expected.mean() < 0.8  # a constant map would prove nothing
    moved = segment(tmp_path / "moved", pixels.astype(dtype) + np.array(offset, dtype), kind)
    assert (moved != expected).mean() < 1e-3


def test_a_run_that_was_begun_with_other_statistics_goes_on_with_these(tmp_path: Path) -> None:
    """As version 0.1.0 recorded them: other numbers, and the offset subtracted in float32."""
    folder = tmp_path / "old"
    segment(folder, noise(130, 100).astype(np.int32) + 10**9)
    record = json.loads(record_of(folder).read_text())
    used = record["attributes"]["segment_slide"]["normalisation"]
    assert used.pop("is_exact") is True
    used["scale"] = [2 * used["scale"][0]]
    record_of(folder).write_text(json.dumps(record))
    for files in ("0", "1"):
        shutil.rmtree(folder / "out.ome.zarr" / LABELS / files / "c", ignore_errors=True)
    segment(folder, noise(130, 100))
    whole = tree(folder / "out.ome.zarr")
    assert json.loads(record_of(folder).read_text())["attributes"]["segment_slide"]["normalisation"] == used
    (folder / "out.ome.zarr" / LABELS / "0/c/1/0").unlink()
    segment(folder, noise(130, 100))
    assert tree(folder / "out.ome.zarr") == whole
