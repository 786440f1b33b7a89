"""Metadata that leave something out, or say more than is specified: pixels and sizes are right, or noted."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from segment_slide.pipeline.errors import InputError
from segment_slide.pipeline.storage.calibration import note_sizes, pixel_um
from segment_slide.pipeline.storage.image import describe_image
from segment_slide.pipeline.storage.store import open_array
from segment_slide.pipeline.viewer.describe import describe_view
from segment_slide.pipeline.viewer.export import export
from tests.flows.support import noise, run_here, write_group, write_ome
from tests.pipeline.viewer.web import web_server

PIXELS = noise(50, 70)


def write(folder: Path, separator: str = "/", **content: Any) -> Path:
    """An image of format 2 whose metadata do not say how chunks are named."""
    group = zarr.create_group(str(folder), zarr_format=2)
    encoding = {"name": "v2", "separator": separator}
    group.create_array("0", data=PIXELS, chunks=(32, 32), chunk_key_encoding=encoding)  # type: ignore[arg-type]
    described = json.loads((folder / "0/.zarray").read_text())
    assert described.pop("dimension_separator", ".") == separator
    (folder / "0/.zarray").write_text(json.dumps(described))
    axes = [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "yx"]
    image = {"version": "0.4", "axes": axes, "datasets": [{"path": "0"}], **content}
    (folder / ".zattrs").write_text(json.dumps({"multiscales": [image]}))
    return folder


@pytest.mark.parametrize("separator", ["/", "."])
@pytest.mark.parametrize("place", ["folder", "archive", "web"])
def test_chunks_are_found_whatever_separator_their_names_have(tmp_path: Path, separator: str, place: str) -> None:
    location = write(tmp_path / "a.zarr", separator)
    assert (location / "0" / separator.join("01")).is_file()
    if place == "archive":
        location = Path(shutil.make_archive(str(location), "zip", location))
    with web_server(tmp_path) as web:
        where = f"{web.address}/a.zarr" if place == "web" else str(location)
        np.testing.assert_array_equal(describe_image(where).array()[...], PIXELS)
        np.testing.assert_array_equal(open_array(where, "0")[...], PIXELS)


@pytest.mark.parametrize("separator", ["/", "."])
def test_the_viewer_finds_them_too(tmp_path: Path, separator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segment_slide.pipeline.viewer.export_plan.client_files", dict)
    site = describe_view(str(write(tmp_path / "a.zarr", separator)))
    export(site, tmp_path / "out")
    (path,) = site.stores
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "out/v/view" / path / "0", mode="r")[...], PIXELS)


def test_what_the_metadata_say_comes_first(tmp_path: Path) -> None:
    location = write(tmp_path / "a.zarr")
    content = json.loads((location / "0/.zarray").read_text())
    (location / "0/.zarray").write_text(json.dumps({**content, "dimension_separator": "."}))
    assert not describe_image(location).array()[...].any()


@pytest.mark.parametrize("path", ["0", "/0", "0/", "./0", "0//"])
def test_a_level_is_found_however_its_path_is_written(tmp_path: Path, path: str) -> None:
    image = describe_image(write(tmp_path / "a.zarr", datasets=[{"path": path}]))
    np.testing.assert_array_equal(image.array()[...], PIXELS)
    assert image.array_path == "0"


SCALE = {"type": "scale", "scale": [0.5, 0.25]}
AFFINE = {"type": "affine", "affine": [[0.5, 0, 3], [0, 0.25, 4]]}


@pytest.mark.parametrize(
    ("transformations", "start"),
    [
        ([SCALE], (0, 0)),
        ([{"type": "identity"}, SCALE, {"type": "translation", "translation": [3, 4]}], (3, 4)),
        ([{"type": "sequence", "transformations": [SCALE, {"type": "translation", "translation": [3, 4]}]}], (3, 4)),
        ([{"type": "translation", "translation": [6, 16]}, SCALE], (3, 4)),
        ([{"type": "scale", "scale": [0.25, 0.25]}, {"type": "scale", "scale": [2, 1]}], (0, 0)),
        ([AFFINE], (3, 4)),
        ([{**AFFINE, "affine": [*AFFINE["affine"], [0, 0, 1]]}], (3, 4)),
    ],
)
@pytest.mark.parametrize("of_group", [False, True])
def test_transformations_that_are_scales_and_translations_are_used(
    tmp_path: Path, transformations: list[Any], start: tuple[float, ...], of_group: bool
) -> None:
    stated = {"coordinateTransformations": transformations}
    content = stated if of_group else {"datasets": [{"path": "0", **stated}]}
    image = describe_image(write(tmp_path / "a.zarr", **content))
    assert (pixel_um(image, "y"), pixel_um(image, "x")) == (0.5, 0.25)
    assert image.multiscale.levels[0].translation == start
    assert note_sizes(image) == []


@pytest.mark.parametrize(
    "transformation",
    [
        {"type": "affine", "affine": [[0.5, 0.1, 0], [0, 0.25, 0]]},
        {"type": "affine", "path": "matrix"},
        {"type": "rotation", "rotation": [[0, 1], [1, 0]]},
        {"type": "sequence", "transformations": [SCALE, {"type": "mapAxis", "mapAxis": {"x": "y", "y": "x"}}]},
        {"type": "scale", "path": "scales"},
    ],
)
def test_other_transformations_leave_the_size_unknown_and_are_noted(tmp_path: Path, transformation: Any) -> None:
    stated = {"coordinateTransformations": [SCALE, transformation]}
    location = write(tmp_path / "a.zarr", datasets=[{"path": "0", **stated}])
    image = describe_image(location)
    assert pixel_um(image, "y") is None
    (note,) = note_sizes(image)
    assert f"of type '{transformation['type']}' that is no plain scale or translation; not used" in note
    assert "no plain scale" in " ".join(run_here("info", location).out.split())


def test_images_two_folders_down_are_named(tmp_path: Path) -> None:
    """As SpatialData lays them out."""
    write_group(tmp_path / "s.zarr", {"spatialdata_attrs": {"version": "0.2"}})
    for folder in ("images", "labels", "points"):
        write_group(tmp_path / "s.zarr" / folder, {})
    for name in ("images/he", "labels/cells"):
        write_ome(tmp_path / "s.zarr" / name, PIXELS, "yx")
    with pytest.raises(InputError, match=r"holds images; name one of them, for example (\S+), (\S+)\.$") as caught:
        describe_image(tmp_path / "s.zarr")
    found = str(caught.value).rpartition("for example ")[2].rstrip(".").split(", ")
    assert [describe_image(path).shape for path in found] == [PIXELS.shape] * 2
