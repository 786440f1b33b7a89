"""Units of OME-Zarr images, in any spelling, give um; what we write has OME-Zarr's names and finite numbers."""

import json
from pathlib import Path

import numpy as np
import pytest
import zarr
from ome_zarr.axes import KNOWN_SPATIAL_UNITS

from segment_slide.pipeline.metadata.units import um_per
from segment_slide.pipeline.storage import ome
from segment_slide.pipeline.storage.calibration import calibrate_um, note_sizes, pixel_um
from segment_slide.pipeline.storage.image import StoredImage, describe_image
from segment_slide.pipeline.storage.pyramid import calibrate


def write_image(folder: Path, unit: str | None, scale: object, version: str = "0.5") -> StoredImage:
    """An image of 4 x 6 px with one unit and scale along y and x, written by hand."""
    axes = [{"name": axis, "type": "space", **({"unit": unit} if unit else {})} for axis in "yx"]
    dataset = {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [scale, scale]}]}
    content = [{"version": version, "axes": axes, "datasets": [dataset]}]
    is_new = version == "0.5"
    group = zarr.open_group(folder, mode="w", zarr_format=3 if is_new else 2)
    group.create_array("0", data=np.zeros((4, 6), np.uint8))
    group.attrs.update({"ome": {"version": version, "multiscales": content}} if is_new else {"multiscales": content})
    return describe_image(folder)


@pytest.mark.parametrize(
    "unit", [*KNOWN_SPATIAL_UNITS, "um", "µm", "microns", "in", "Å", "thou", "li", "pt", "ua", "ly"]
)
def test_every_unit_gives_um(tmp_path: Path, unit: str) -> None:
    image = write_image(tmp_path / "a.zarr", unit, 2.0)
    found = calibrate_um(image, 2)
    assert found is not None
    assert found.scale == pytest.approx((2.0 * um_per(unit),) * 2)
    assert pixel_um(image, "x") == found.scale[1]
    assert note_sizes(image) == []


def test_an_image_of_0_4_in_angstrom_gives_um(tmp_path: Path) -> None:
    found = calibrate_um(write_image(tmp_path / "a.zarr", "angstrom", 5000.0, "0.4"), 2)
    assert found is not None
    assert found.voxel == pytest.approx(0.25)


@pytest.mark.parametrize("unit", ["pixel", "reference frame", "furlong", None])
def test_a_unit_that_is_no_length_gives_none_and_is_noted_unless_it_says_pixels(
    tmp_path: Path, unit: str | None
) -> None:
    image = write_image(tmp_path / "a.zarr", unit, 2.0)
    assert calibrate_um(image, 2) is None
    assert len(note_sizes(image)) == (2 if unit in ("reference frame", "furlong") else 0)


@pytest.mark.parametrize("scale", [float("nan"), float("inf"), float("-inf"), -0.5, 0.0])
def test_a_scale_that_is_no_size_gives_none_is_noted_and_never_written(tmp_path: Path, scale: float) -> None:
    image = write_image(tmp_path / "a.zarr", "micrometer", scale)
    assert calibrate_um(image, 2) is None
    assert len(note_sizes(image)) == 2
    level = image.multiscale.levels[0]
    written = calibrate("a", "yx", image.multiscale.units, level, 3, "local_mean", "yx")
    json.dumps(ome.multiscale_attributes(written), allow_nan=False)
    assert written.levels[0].scale == ((1.0, 1.0) if scale != -0.5 else (-0.5, -0.5))  # a mirrored image stays in place


@pytest.mark.parametrize(
    ("unit", "name", "factor"),
    [("um", "micrometer", 1), ("nm", "nanometer", 1), ("in", "inch", 1), ("thou", "micrometer", 25.4),
     ("furlong", None, 1), ("parsec", "parsec", 1), ("dam", "micrometer", 1e7), (None, None, 1)],
)  # fmt: skip
def test_what_is_written_has_ome_zarrs_names(unit: str | None, name: str | None, factor: float) -> None:
    finest = ome.Level("0", (1.0, 2.0, 0.5), (0.0, 1.0, 4.0))
    written = calibrate("a", "tyx", ("min", unit, unit), finest, 2, "nearest", "yx")
    assert written.units == ("minute", name, name)
    assert written.levels[1].scale == pytest.approx((1.0, 4.0 * factor, 1.0 * factor))
    assert written.levels[1].translation == pytest.approx((0.0, factor, 4.0 * factor))
