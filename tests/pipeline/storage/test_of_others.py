"""OME-Zarr as other programs and older versions write it, read by value and compared with what was written."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from segment_slide.pipeline.errors import InputError
from segment_slide.pipeline.pictures.layer import Layer
from segment_slide.pipeline.segmentation.background import coarse_source
from segment_slide.pipeline.storage.image import describe_image
from segment_slide.pipeline.storage.source import select_source
from segment_slide.pipeline.viewer.describe import describe_view
from tests.flows.support import noise, run_here, write_array, write_group, write_ome

SHAPE = (2, 3, 4, 20, 24)  # t, c, z, y, x
PIXELS = np.random.default_rng(0).integers(0, 60000, SHAPE).astype(np.uint16)


def write(folder: Path, pixels: np.ndarray, attributes: dict[str, Any], zarr_format: int = 2) -> Path:
    """One level, written by zarr-python; the group's attributes by hand."""
    group = zarr.create_group(str(folder), zarr_format=zarr_format)
    group.create_array("0", data=pixels, chunks=tuple(min(size, 8) for size in pixels.shape))
    if zarr_format == 2:
        (folder / ".zattrs").write_text(json.dumps(attributes))
    else:
        write_group(folder, attributes)
    return folder


def level(scale: list[float] | None = None) -> dict[str, Any]:
    return {"path": "0"} | ({"coordinateTransformations": [{"type": "scale", "scale": scale}]} if scale else {})


def read_all(location: Path) -> tuple[str, np.ndarray]:
    """Axes of a read, and all pixels that a network would get."""
    source = select_source(image := describe_image(location), n_spatial=2, n_channels=image.size("c"))
    return source.plane_axes, source.read(tuple(slice(0, size) for size in source.shape))


def axis(name: str, kind: str | None = None) -> dict[str, str]:
    return {"name": name} | ({"type": kind} if kind else {})


TIME, CHANNEL, SPACE = "time", "channel", "space"
CAPITALS = [axis("T", TIME), axis("C", CHANNEL), axis("Z", SPACE), axis("Y", SPACE), axis("X", SPACE)]


@pytest.mark.parametrize(
    "axes",
    [
        CAPITALS,
        [axis("T"), axis("C"), axis("Z"), axis("Y"), axis("X")],
        [axis("time", TIME), axis("channel", CHANNEL), axis("z", SPACE), axis("y", SPACE), axis("x", SPACE)],
        [axis("frames", TIME), axis("wavelength", CHANNEL), axis("z", SPACE), axis("y", SPACE), axis("x", SPACE)],
        [axis("Time"), axis("Channel"), axis("z"), axis("y"), axis("x")],
        ["T", "C", "Z", "Y", "X"],
        ["t", "c", "z", "y", "x"],
    ],
)
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_axes_are_recognised_however_they_are_spelled(tmp_path: Path, axes: list[Any], zarr_format: int) -> None:
    version = {2: "0.4", 3: "0.5"}[zarr_format]
    content = {"axes": axes, "datasets": [level([1.0, 1.0, 2.0, 0.5, 0.5])]}
    if zarr_format == 2:
        attributes: dict[str, Any] = {"multiscales": [{"version": version, **content}]}
    else:
        attributes = {"ome": {"version": version, "multiscales": [content]}}
    location = write(tmp_path / "a.zarr", PIXELS, attributes, zarr_format)
    planes, found = read_all(location)
    assert planes == "tz"
    np.testing.assert_array_equal(found, PIXELS.transpose(0, 2, 1, 3, 4))
    assert describe_image(location).multiscale.levels[0].scale == (1.0, 1.0, 2.0, 0.5, 0.5)


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ([axis("z", CHANNEL), axis("y"), axis("x")], "axis 'z' has the type 'channel', so it may be z or c"),
        ([axis("phi"), axis("y"), axis("x")], "axis 'phi' is none of t, c, z, y and x"),
        ([axis("channel"), axis("c"), axis("y"), axis("x")], "axes='ccyx', expected distinct letters"),
        ([], "no axes"),
        (7, "damaged"),
    ],
)
def test_axes_that_may_be_two_or_none_are_refused(tmp_path: Path, axes: Any, message: str) -> None:
    attributes = {"multiscales": [{"version": "0.4", "axes": axes, "datasets": [level()]}]}
    with pytest.raises(InputError, match=message):
        describe_image(write(tmp_path / "a.zarr", PIXELS[0, :, 0], attributes))


@pytest.mark.parametrize("version", ["0.1", "0.2", "0.3", "0.4"])
def test_every_earlier_version_is_read_as_ome_zarr_py_reads_it(tmp_path: Path, version: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own
        from ome_zarr.io import parse_url
        from ome_zarr.reader import Reader

    group = zarr.create_group(str(tmp_path / "a.zarr"), zarr_format=2)
    separator = {"name": "v2", "separator": "." if version == "0.1" else "/"}
    for name, data in (("0", PIXELS), ("1", PIXELS[..., ::2, ::2])):
        group.create_array(name, data=data, chunks=(1, 1, 1, 8, 8), chunk_key_encoding=separator)
    axes = {"0.1": {}, "0.2": {}, "0.3": {"axes": list("tczyx")}, "0.4": {"axes": CAPITALS}}[version]
    content = {"version": version, "name": "x", "datasets": [{"path": "0"}, {"path": "1"}], **axes}
    channels = [{"label": name, "color": "FFFFFF"} for name in "ABC"]
    attributes = {"multiscales": [content], "omero": {"id": 1, "version": version, "channels": channels}}
    (tmp_path / "a.zarr" / ".zattrs").write_text(json.dumps(attributes))

    planes, found = read_all(tmp_path / "a.zarr")
    assert planes == "tz"
    np.testing.assert_array_equal(found, PIXELS.transpose(0, 2, 1, 3, 4))
    assert describe_image(tmp_path / "a.zarr").multiscale.channel_names == ("A", "B", "C")
    assert describe_image(tmp_path / "a.zarr", level=1).shape == (2, 3, 4, 10, 12)
    assert run_here("info", tmp_path / "a.zarr").exit_code == 0
    if version != "0.4":  # the reader does not know capitals
        (node,) = Reader(parse_url(str(tmp_path / "a.zarr")))()
        np.testing.assert_array_equal(np.asarray(node.data[0]).transpose(0, 2, 1, 3, 4), found)


@pytest.mark.parametrize("missing", ["version", "ome", "version and ome", "scale"])
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_metadata_without_a_version_a_scale_or_the_key_ome_are_read(
    tmp_path: Path, missing: str, zarr_format: int
) -> None:
    axes = [axis("z", SPACE), axis("y", SPACE), axis("x", SPACE)]
    content = {"axes": axes, "datasets": [level(None if missing == "scale" else [2.0, 0.5, 0.5])]}
    stated = {} if "version" in missing else {"version": {2: "0.4", 3: "0.5"}[zarr_format]}
    if zarr_format == 2:
        attributes: dict[str, Any] = {"multiscales": [content | stated]}
    elif "ome" in missing:
        attributes = {"multiscales": [content], **stated}
    else:
        attributes = {"ome": {"multiscales": [content], **stated}}
    location = write(tmp_path / "a.zarr", PIXELS[0, 0], attributes, zarr_format)
    np.testing.assert_array_equal(read_all(location)[1][:, 0], PIXELS[0, 0])
    scale = describe_image(location).multiscale.levels[0].scale
    assert scale == ((1.0, 1.0, 1.0) if missing == "scale" else (2.0, 0.5, 0.5))


@pytest.mark.parametrize("version", ["0.6", "0.6.dev1", "0.10", "1.0", "latest", 0.9])
def test_a_later_version_is_refused_and_its_level_is_named(tmp_path: Path, version: Any) -> None:
    content = {"version": version, "axes": ["y", "x"], "datasets": [{"path": "0"}]}
    location = write(tmp_path / "a.zarr", PIXELS[0, 0, 0], {"multiscales": [content]})
    with pytest.raises(
        InputError, match=rf"OME-Zarr version {version}, .* \(for example (\S+)\) and its `axes`"
    ) as caught:
        describe_image(location)
    assert f"(for example {location}/0)" in str(caught.value)
    assert describe_image(location / "0", axes="yx").shape == SHAPE[3:]


NATIVE = ("bool", "int8", "int64", "uint64", "float16", "float64")


@pytest.mark.parametrize(
    ("dtype", "zarr_format"), [*((d, f) for d in NATIVE for f in (2, 3)), (">u2", 2), (">f4", 2), (">i8", 2)]
)
def test_every_dtype_is_read(tmp_path: Path, dtype: str, zarr_format: int) -> None:
    pixels = (PIXELS[0, 0] % 2 if dtype == "bool" else PIXELS[0, 0] % 100).astype(dtype)
    axes = [axis("z", SPACE), axis("y", SPACE), axis("x", SPACE)]
    content = {"version": "0.4", "axes": axes, "datasets": [level()]}
    location = write(tmp_path / "a.zarr", pixels, {"multiscales": [content]}, zarr_format)
    np.testing.assert_array_equal(read_all(location)[1][:, 0], pixels)


class TestMissingLevels:
    @pytest.fixture
    def image(self, tmp_path: Path) -> Path:
        path = write_ome(tmp_path / "a.zarr", noise(600, 700), "yx", scale=(0.5, 0.5), n_levels=3)
        (path / "2" / "zarr.json").unlink()
        return path

    def test_a_coarse_one_does_not_matter(self, image):
        assert run_here("info", image).exit_code == 0
        source = select_source(describe_image(image), n_spatial=2, n_channels=1)
        assert coarse_source(source).image.level in (0, 1)
        frame_level = Layer(source.image, {}).base.level
        assert frame_level == 0
        assert describe_view(str(image)).files

    def test_the_one_that_is_asked_for_is_refused_and_the_others_are_named(self, image):
        with pytest.raises(InputError, match=r"level 2 names the array '2', which is missing.* with `level`: 0, 1\."):
            describe_image(image, level=2)


class TestCollections:
    def plate(self, folder: Path, fields: int = 2) -> Path:
        """A plate as ome-zarr-py describes it."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from ome_zarr.writer import write_plate_metadata, write_well_metadata

            root = zarr.open_group(str(folder), mode="w", zarr_format=3)
            write_plate_metadata(root, ["A", "B"], ["1", "2"], ["A/1", "B/2"])
            well = root.require_group("B").require_group("2")
            write_well_metadata(well, [str(k) for k in range(fields)])
        for k in range(fields):
            write_ome(folder / "B" / "2" / str(k), noise(16, 16), "yx")
        return folder

    def refused(self, location: Path) -> str:
        outcome = run_here("info", location)
        assert outcome.exit_code == 2
        assert "Traceback" not in outcome.err
        return " ".join(outcome.err.split())

    def test_a_plate_and_a_well_name_fields_that_exist(self, tmp_path):
        plate = self.plate(tmp_path / "plate.zarr")
        for location in (plate, plate / "B" / "2"):
            said = self.refused(location)
            assert "name one field of view, for example" in said
            named = said.partition("for example ")[2].rstrip(".").split(", ")
            assert named == [f"{plate}/B/2/0", f"{plate}/B/2/1"]
            assert all(describe_image(path).shape == (16, 16) for path in named)

    def test_a_plate_without_fields_says_so(self, tmp_path):
        said = self.refused(self.plate(tmp_path / "plate.zarr", fields=0))
        assert "is a plate; name one field of view, but none of them is there" in said

    def test_a_collection_names_its_images(self, tmp_path):
        root = write_group(tmp_path / "a.zarr", {"ome": {"version": "0.5", "bioformats2raw.layout": 3}})
        write_group(root / "OME", {"ome": {"version": "0.5", "series": ["0", "second"]}})
        for name in ("0", "second"):
            write_ome(root / name, noise(16, 16), "yx")
        assert f"name one of them, for example {root}/0, {root}/second." in self.refused(root)

    @pytest.mark.parametrize("listed", [True, False])
    def test_a_collection_of_one_image_is_this_image(self, tmp_path, listed):
        root = write_group(tmp_path / "a.zarr", {"bioformats2raw.layout": 3})
        if listed:
            write_group(root / "OME", {"series": ["0"]})
        write_ome(root / "0", noise(16, 18), "yx")
        image = describe_image(root)
        assert (image.location, image.shape) == (f"{root}/0", (16, 18))
        assert run_here("info", root).exit_code == 0

    def test_a_group_of_label_images_names_them(self, tmp_path):
        image = write_ome(tmp_path / "a.zarr", noise(16, 16), "yx")
        write_group(image / "labels", {"ome": {"version": "0.5", "labels": ["cells", "gone"]}})
        write_ome(image / "labels" / "cells", noise(16, 16), "yx")
        said = self.refused(image / "labels")
        assert f"holds label images; name one of them, for example {image}/labels/cells." in said

    def test_a_group_names_the_images_or_arrays_in_it(self, tmp_path):
        group = write_group(tmp_path / "a.zarr", {})
        write_array(group / "raw", noise(16, 16))
        assert f"name the array inside it and its `axes`, for example {group}/raw." in self.refused(group)
        write_ome(group / "image", noise(16, 16), "yx")
        assert f"holds images; name one of them, for example {group}/image." in self.refused(group)
