"""OME-Zarr metadata: read back what was written, compose as matrices do, accepted by ome-zarr-models."""

import copy
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import ome_zarr_models.v04.image
import ome_zarr_models.v05.image
import ome_zarr_models.v05.image_label
import pytest
import zarr

from segment_slide.pipeline.errors import InputError
from segment_slide.pipeline.storage import ome
from segment_slide.pipeline.storage.ome import (
    Level,
    Multiscale,
    label_attributes,
    multiscale_attributes,
    parse_multiscale,
    within,
)

AXES = ["yx", "cyx", "zyx", "czyx", "tcyx", "tczyx"]
UNITS = {"t": "second", "c": None, "z": "micrometer", "y": "micrometer", "x": "nanometer"}


def image(axes: str, n_levels: int = 3) -> Multiscale:
    """A different number in every place."""
    numbers = itertools.count(1)
    levels = tuple(
        Level(str(level), tuple(next(numbers) / 8 for _ in axes), tuple(float(next(numbers)) for _ in axes))
        for level in range(n_levels)
    )
    return Multiscale(axes, tuple(UNITS[axis] for axis in axes), levels, "a slide")


def attributes_of_version_04(described: Multiscale) -> dict[str, Any]:
    """The same metadata as OME-Zarr 0.4 wrote them: the version inside, nothing around."""
    (content,) = multiscale_attributes(described)["multiscales"]
    return {"multiscales": [{**content, "version": "0.4"}], "omero": {"channels": [{"label": "DAPI"}, {"color": "FF"}]}}


# --- round trips -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axes", AXES)
def test_what_is_written_as_version_05_is_read_back_unchanged(axes: str) -> None:
    assert parse_multiscale({"ome": multiscale_attributes(image(axes))}, "here") == image(axes)


@pytest.mark.parametrize("axes", AXES)
def test_version_04_is_read_with_its_channel_names(axes: str) -> None:
    parsed = parse_multiscale(attributes_of_version_04(image(axes)), "here")
    assert parsed is not None
    assert parsed.channel_names == ("DAPI", "1")  # a channel without a label is called by its position
    assert (parsed.axes, parsed.units, parsed.levels, parsed.name) == (
        axes,
        image(axes).units,
        image(axes).levels,
        "a slide",
    )


def test_channel_names_of_version_05_stand_beside_the_multiscales() -> None:
    attributes = {
        "ome": {**multiscale_attributes(image("cyx")), "omero": {"channels": [{"label": "R"}, {"label": "G"}]}}
    }
    parsed = parse_multiscale(attributes, "here")
    assert parsed is not None
    assert parsed.channel_names == ("R", "G")


def test_what_is_not_said_is_the_identity_without_units() -> None:
    content = {"axes": [{"name": "y"}, {"name": "x"}], "datasets": [{"path": "full"}]}
    parsed = parse_multiscale({"ome": {"version": "0.5", "multiscales": [content]}}, "here")
    assert parsed == Multiscale("yx", (None, None), (Level("full", (1.0, 1.0), (0.0, 0.0)),))


@pytest.mark.parametrize("attributes", [{}, {"plate": {}}, {"ome": {}}, {"ome": {"version": "0.5", "multiscales": []}}])
def test_attributes_without_multiscales_describe_no_image(attributes: dict[str, Any]) -> None:
    assert parse_multiscale(attributes, "here") is None


# --- transformations -------------------------------------------------------------------------------------------


def matrix(scale: np.ndarray, translation: np.ndarray) -> np.ndarray:
    """Homogeneous matrix of: first scale, then translate."""
    result = np.diag([*scale, 1.0])
    result[:-1, -1] = translation
    return result


@pytest.mark.parametrize("seed", range(20))
def test_the_levels_and_the_groups_transformations_compose_as_matrices_do(seed: int) -> None:
    rng = np.random.default_rng(seed)
    level, group = ((rng.uniform(0.1, 9, 2), rng.normal(0, 50, 2)) for _ in range(2))

    def transformations(scale: np.ndarray, translation: np.ndarray) -> list[dict[str, Any]]:
        return [
            {"type": "scale", "scale": scale.tolist()},
            {"type": "translation", "translation": translation.tolist()},
        ]

    content = {
        "axes": [{"name": "y"}, {"name": "x"}],
        "datasets": [{"path": "0", "coordinateTransformations": transformations(*level)}],
        "coordinateTransformations": transformations(*group),
    }
    parsed = parse_multiscale({"ome": {"version": "0.5", "multiscales": [content]}}, "here")
    assert parsed is not None
    found = matrix(np.array(parsed.levels[0].scale), np.array(parsed.levels[0].translation))
    np.testing.assert_allclose(found, matrix(*group) @ matrix(*level), rtol=1e-12)
    assert not np.allclose(found, matrix(*level) @ matrix(*group))  # the other order is another place


# --- ome-zarr-models -------------------------------------------------------------------------------------------


def stored_group(folder: Path, described: Multiscale, attributes: dict[str, Any], dtype: str) -> zarr.Group:
    group = zarr.create_group(folder, attributes={"ome": attributes})
    for level in described.levels:
        group.create_array(
            level.path, shape=(4,) * len(described.axes), dtype=dtype, dimension_names=tuple(described.axes)
        )
    return group


@pytest.mark.parametrize("axes", AXES)
def test_ome_zarr_models_accepts_an_image(tmp_path: Path, axes: str) -> None:
    described = image(axes)
    group = stored_group(tmp_path, described, multiscale_attributes(described), "uint16")
    ome_zarr_models.v05.image.Image.from_zarr(group)


@pytest.mark.parametrize("axes", [axes for axes in AXES if "c" not in axes])
@pytest.mark.parametrize("n_classes", [0, 1, 2, 3, 9, 255])
def test_ome_zarr_models_accepts_a_label_image(tmp_path: Path, axes: str, n_classes: int) -> None:
    described = image(axes, n_levels=1)
    attributes = label_attributes(described, [f"class {value}" for value in range(n_classes)])
    group = stored_group(tmp_path, described, attributes, "uint8")
    label = ome_zarr_models.v05.image_label.ImageLabel.from_zarr(group).attributes.ome.image_label
    assert label is not None
    assert len(label.colors or ()) == n_classes


def test_ome_zarr_models_and_the_writers_of_ome_zarr_refuse_channels_after_space(tmp_path: Path) -> None:
    described = image("yxc")
    with pytest.raises(ValueError, match="must come after 'channel'"):
        multiscale_attributes(described)
    attributes = multiscale_attributes(image("cyx"))
    shown = attributes["multiscales"][0]
    shown["axes"] = [*shown["axes"][1:], shown["axes"][0]]
    group = stored_group(tmp_path, described, attributes, "uint8")
    with pytest.raises(ValueError, match="order"):
        ome_zarr_models.v05.image.Image.from_zarr(group)


@pytest.mark.parametrize("axes", AXES)
def test_the_version_04_of_these_tests_is_one_that_ome_zarr_models_accepts(axes: str) -> None:
    attributes = attributes_of_version_04(image(axes))
    del attributes["omero"]
    ome_zarr_models.v04.image.ImageAttrs.model_validate(attributes)


# --- labels ----------------------------------------------------------------------------------------------------


def test_each_class_gets_its_name_and_only_the_background_is_transparent() -> None:
    label = label_attributes(image("yx"), ["glass", "tumour", "stroma"])["image-label"]
    assert label["source"] == {"image": "../../"}
    assert [item["class"] for item in label["properties"]] == ["glass", "tumour", "stroma"]
    assert [item["label-value"] for item in label["properties"]] == [0, 1, 2]
    assert [item["rgba"][3] for item in label["colors"]] == [0, 255, 255]
    assert label["colors"][1]["rgba"] != label["colors"][2]["rgba"]


def test_objects_have_neither_names_nor_colours() -> None:
    assert label_attributes(image("yx"))["image-label"] == {"source": {"image": "../../"}}


def test_within_a_folder_only_the_paths_change() -> None:
    inner = Multiscale("yx", (None, "micrometer"), image("yx").levels, "cells", ("a", "b"))
    outer = within(inner, "labels/cells")
    assert [level.path for level in outer.levels] == ["labels/cells/0", "labels/cells/1", "labels/cells/2"]
    back = tuple(
        Level(level.path.removeprefix("labels/cells/"), level.scale, level.translation) for level in outer.levels
    )
    assert Multiscale(outer.axes, outer.units, back, outer.name, outer.channel_names) == inner


# --- damage ----------------------------------------------------------------------------------------------------


def damaged(path: list[Any], value: Any) -> dict[str, Any]:
    """Good attributes with one thing replaced, or removed if the value is `...`."""
    attributes: Any = copy.deepcopy({"ome": {**multiscale_attributes(image("yx")), "omero": {"channels": [{}]}}})
    parent = attributes
    for key in path[:-1]:
        parent = parent[key]
    if value is ...:
        del parent[path[-1]]
    else:
        parent[path[-1]] = value
    return dict(attributes)


CONTENT = ["ome", "multiscales", 0]
TRANSFORM = [*CONTENT, "datasets", 0, "coordinateTransformations", 0]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["ome"], "nonsense"),
        (["ome"], [1, 2]),
        (["ome", "multiscales"], {"axes": []}),
        (["ome", "multiscales"], "yx"),
        (["ome", "multiscales"], 7),
        (["ome", "multiscales"], [None]),
        (["ome", "omero"], "red"),
        (["ome", "omero", "channels"], ["red"]),
        (["ome", "omero", "channels"], 3),
        ([*CONTENT, "axes"], ...),
        ([*CONTENT, "axes"], None),
        ([*CONTENT, "axes", 0, "name"], ...),
        ([*CONTENT, "datasets"], ...),
        ([*CONTENT, "datasets"], []),
        ([*CONTENT, "datasets"], [None]),
        ([*CONTENT, "datasets", 0, "path"], ...),
        (TRANSFORM, "scale"),
        ([*TRANSFORM, "scale"], [1.0]),
        ([*TRANSFORM, "scale"], [1.0, 1.0, 1.0]),
        ([*TRANSFORM, "scale"], ["wide", 1.0]),
        ([*TRANSFORM, "scale"], None),
        ([*TRANSFORM, "type"], ...),
    ],
    ids=lambda value: "/".join(map(str, value)) if isinstance(value, list) else repr(value),
)
def test_damaged_metadata_are_refused_naming_the_place(path: list[Any], value: Any) -> None:
    with pytest.raises(
        InputError, match=r"/data/slide\.zarr: (OME-Zarr metadata are damaged|channels is 3, expected a list)"
    ):
        parse_multiscale(damaged(path, value), "/data/slide.zarr")


def test_the_undamaged_metadata_of_these_tests_are_accepted() -> None:
    assert parse_multiscale(damaged(["ome", "unknown"], 1), "here") is not None


@pytest.mark.parametrize("version", ["0.0", "0.6", "0.10", "1.0", 5])
def test_other_versions_are_refused_with_a_way_out(version: Any) -> None:
    with pytest.raises(InputError, match=rf"version {version}, expected one of .*'0\.5'.*`axes`"):
        parse_multiscale(damaged(["ome", "version"], version), "here")


def test_metadata_without_a_version_are_those_of_a_version_that_is_read() -> None:
    assert parse_multiscale(damaged(["ome", "version"], ...), "here") == parse_multiscale(damaged(["x"], 1), "here")


@pytest.mark.parametrize("axes", ["y", "zy", "yy", "yxx", "ayx", "YX", "", "rgbyx"])
def test_axes_that_are_not_distinct_letters_with_y_and_x_are_refused(axes: str) -> None:
    with pytest.raises(InputError, match="expected distinct letters of 'tczyx' with y and x"):
        ome.check_axes(axes, "here")


@pytest.mark.parametrize("axes", [*AXES, "yxc", "xy", "zcyx"])
def test_bare_arrays_may_have_their_axes_in_any_order(axes: str) -> None:
    ome.check_axes(axes, "here")
