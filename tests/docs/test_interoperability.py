"""What the pages say of other programs, and no other test shows."""

import warnings

import numpy as np
import pytest
import tifffile

from tests.flows.support import run_installed

IDS = np.zeros((96, 96), np.int64)
IDS[10:30, 10:30], IDS[10:30, 30:50], IDS[60:80, 60:80] = 1, 2, 300


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["int64", "uint16"])
def test_labels_that_napari_saves_are_taken_as_annotation(dtype, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # napari's own
        from napari_builtins.io import napari_write_labels

        for folder in ("images", "annotations"):
            (tmp_path / folder).mkdir()
        assert napari_write_labels(str(tmp_path / "annotations/a.tif"), IDS.astype(dtype), {"name": "cells"})
    tifffile.imwrite(tmp_path / "images/a.tif", (IDS > 0).astype(np.uint8) * 200)
    outcome = run_installed(
        "weight-maps", tmp_path / "images", "--labels", tmp_path / "annotations", "-o", tmp_path / "set.zarr"
    )
    assert outcome.exit_code == 0, outcome
