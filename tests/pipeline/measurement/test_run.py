"""Tables of whole stores against scikit-image's measures of the whole image, whatever the blocks."""

import math
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy import ndimage

from segment_slide.pipeline.errors import BlockError, IncompleteError
from segment_slide.pipeline.measurement import run as passes
from segment_slide.pipeline.measurement.options import ImageChoice
from segment_slide.pipeline.measurement.plan import begin
from segment_slide.pipeline.measurement.run import ROWS, measure_blocks, write_table
from segment_slide.pipeline.measurement.table import part_path
from tests.flows.support import tree
from tests.pipeline.measurement.support import (
    CLASSES,
    NO_IMAGE,
    classes_of,
    draw_objects,
    expected_of,
    measure,
    plan_of,
    write_store,
)
from tests.tiers import exhaustive

SHAPE = (61, 75)
BLOCK = (24, 32)
BLOCKS = [(20, 32), (61, 75), (13, 75), (64, 10)]


def pixels_of(n_channels: int, dtype: str, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    random = np.random.default_rng(3)
    if np.dtype(dtype).kind == "f":
        return random.normal(1000, 3, (n_channels, *shape)).astype(dtype)
    return random.integers(0, np.iinfo(dtype).max, (n_channels, *shape), dtype, endpoint=True)


def check_shapes_2d(found, ids, spacing=(1.0, 1.0)):
    names = ("area", "bbox", "centroid", "eccentricity", "axis_major_length", "axis_minor_length")
    pixel = expected_of(ids, (*names, "perimeter", "equivalent_diameter_area"))
    scaled = expected_of(ids, names, spacing=spacing)
    np.testing.assert_array_equal(found["id"], pixel["label"])
    np.testing.assert_array_equal(found["area_px"], pixel["area"])
    ends = ("min_y", "min_x", "max_y", "max_x")
    for k, end in enumerate(ends):
        np.testing.assert_array_equal(found[f"bbox_{end}_px"], pixel[f"bbox-{k}"])
    for k, axis in enumerate("yx"):
        np.testing.assert_allclose(found[f"centroid_{axis}_px"], pixel[f"centroid-{k}"], rtol=1e-12)
        np.testing.assert_allclose(found[f"centroid_{axis}_um"], scaled[f"centroid-{k}"], rtol=1e-12)
    np.testing.assert_allclose(found["perimeter_px"], pixel["perimeter"], rtol=1e-12)
    np.testing.assert_allclose(found["equivalent_diameter_px"], pixel["equivalent_diameter_area"], rtol=1e-12)
    for unit, of in (("px", pixel), ("um", scaled)):
        np.testing.assert_allclose(found[f"major_axis_{unit}"], of["axis_major_length"], rtol=1e-9)
        # both take the root of a difference that is 0 for a line: 1e-16 of the longer axis' square is left
        np.testing.assert_allclose(found[f"minor_axis_{unit}"], of["axis_minor_length"], rtol=1e-9, atol=1e-5)
    np.testing.assert_allclose(found["eccentricity"], scaled["eccentricity"], rtol=1e-9)


@pytest.mark.parametrize(
    ("n_channels", "dtype", "block"),
    [
        (pytest.param if number % 3 == channels else exhaustive)(channels + 1, dtype, block, id=f"{dtype}-{block}")
        for channels, dtype in enumerate(("uint8", "uint16", "float32"))
        for number, block in enumerate(BLOCKS)
    ],
)
def test_rows_are_those_of_the_whole_image(tmp_path, n_channels, dtype, block):
    ids, image = draw_objects(SHAPE), pixels_of(n_channels, dtype)
    location = write_store(tmp_path, ids, block, image=image, image_axes="cyx", scale=(0.5, 0.5))
    found = measure(location, rows=7)
    assert ids.max() > 20
    check_shapes_2d(found, ids, spacing=(0.5, 0.5))
    np.testing.assert_allclose(found["perimeter_um"], expected_of(ids, ["perimeter"])["perimeter"] / 2, rtol=1e-12)
    np.testing.assert_allclose(found["area_um2"], found["area_px"] * 0.25)
    for channel, values in enumerate(image.astype(np.float64)):
        index = np.arange(1, ids.max() + 1)
        for name, function in (("mean", ndimage.mean), ("min", ndimage.minimum), ("max", ndimage.maximum)):
            column = found[f"intensity_{name}_{channel}"]
            np.testing.assert_allclose(column, function(values, ids, index), rtol=0 if name != "mean" else 1e-12)
        std = [np.std(values[ids == i]) for i in index]
        np.testing.assert_allclose(found[f"intensity_std_{channel}"], std, rtol=1e-9, atol=1e-9)


def test_regionprops_and_the_table_agree_on_intensities(tmp_path):
    ids, image = draw_objects(SHAPE), pixels_of(1, "uint16")[0]
    found = measure(write_store(tmp_path, ids, BLOCK, image=image))
    names = {name: f"intensity_{name}" for name in ("mean", "min", "max", "std")}
    expected = expected_of(ids, tuple(names.values()), intensity_image=image)
    for name, column in names.items():
        np.testing.assert_allclose(found[f"intensity_{name}_0"], expected[column], rtol=1e-9)


def test_sums_of_integers_are_exact_where_floats_are_not(tmp_path):
    ids = np.ones((64, 64), np.uint32)
    image = np.full((64, 64), 2**32 - 1, np.uint32)
    image[0, 0] = 2**32 - 2
    found = measure(write_store(tmp_path, ids, BLOCK, image=image))
    assert found["intensity_mean_0"][0] == (4096 * (2**32 - 1) - 1) / 4096
    assert found["intensity_min_0"][0] == 2**32 - 2


def test_the_spread_on_a_bright_background_keeps_its_digits(tmp_path):
    random = np.random.default_rng(0)
    image = np.stack([60000 + random.integers(-1, 2, SHAPE), random.integers(0, 3, SHAPE)]).astype(np.uint16)
    ids = draw_objects(SHAPE)
    found = measure(write_store(tmp_path, ids, BLOCK, image=image, image_axes="cyx"))
    for channel, values in enumerate(image.astype(np.int64)):
        exact = [np.std(values[ids == i] - values[0, 0]) for i in range(1, ids.max() + 1)]
        np.testing.assert_allclose(found[f"intensity_std_{channel}"], exact, rtol=1e-9, atol=1e-12)


def test_moments_far_from_the_origin_keep_their_digits(tmp_path):
    ids = np.zeros((40, 70_000), np.uint32)
    ids[5:30, 60_010:60_040] = draw_objects((25, 30))[:25, :30] > 0
    found = measure(write_store(tmp_path, ids, (16, 16 * 1024), scale=(1.0, 1.0)), NO_IMAGE)
    near = expected_of(ids[:, 60_000:], ["eccentricity", "axis_major_length", "axis_minor_length"])
    np.testing.assert_allclose(found["eccentricity"], near["eccentricity"], rtol=1e-9)
    np.testing.assert_allclose(found["minor_axis_px"], near["axis_minor_length"], rtol=1e-12)


def test_anisotropic_pixels_are_measured_in_um(tmp_path):
    ids = draw_objects(SHAPE)
    scale, start = (0.2, 0.5), (100.0, -7.0)
    found = measure(write_store(tmp_path, ids, BLOCK, scale=scale, translation=start), NO_IMAGE)
    for k, axis in enumerate("yx"):  # away from scikit-image's origin
        found[f"centroid_{axis}_um"] = found[f"centroid_{axis}_um"] - start[k]
    shifted = {name: found[name] for name in found}
    centroids = expected_of(ids, ["centroid"], spacing=scale)
    for k, axis in enumerate("yx"):
        np.testing.assert_allclose(shifted.pop(f"centroid_{axis}_um"), centroids[f"centroid-{k}"], atol=1e-12)
        found[f"centroid_{axis}_um"] = centroids[f"centroid-{k}"]
    check_shapes_2d(found, ids, spacing=scale)
    np.testing.assert_allclose(found["perimeter_um"], found["perimeter_px"] * math.sqrt(0.1), rtol=1e-12)
    area = expected_of(ids, ["area", "equivalent_diameter_area"], spacing=scale)
    np.testing.assert_allclose(found["area_um2"], area["area"], rtol=1e-12)
    np.testing.assert_allclose(found["equivalent_diameter_um"], area["equivalent_diameter_area"], rtol=1e-12)


@pytest.mark.parametrize(("unit", "factor"), [("nanometer", 1e-3), ("millimeter", 1e3)])
def test_other_units_become_um(tmp_path, unit, factor):
    ids = draw_objects(SHAPE)
    found = measure(write_store(tmp_path, ids, BLOCK, scale=(2.0, 2.0), unit=unit), NO_IMAGE)
    np.testing.assert_allclose(found["area_um2"], found["area_px"] * (2 * factor) ** 2)


@pytest.mark.parametrize("unit", [None, "second"])
def test_without_a_known_pixel_size_columns_in_um_are_null(tmp_path, unit):
    ids = draw_objects(SHAPE)
    location = write_store(tmp_path, ids, BLOCK, scale=(2.0, 3.0), unit=unit)
    found = measure(location, NO_IMAGE)
    table = pq.read_table(Path(location, "tables", "cells-instances.parquet"))
    in_um = [name for name in table.column_names if "_um" in name]
    assert len(in_um) == 7
    assert all(table[name].null_count == ids.max() for name in in_um)
    np.testing.assert_allclose(found["eccentricity"], expected_of(ids, ["eccentricity"])["eccentricity"], rtol=1e-9)


def test_classes_and_probabilities_are_the_objects_own(tmp_path):
    ids = draw_objects(SHAPE)
    classes = classes_of(ids)
    assert ((classes == 0) & (ids > 0)).any()
    for dtype, unit in (("uint8", 255), ("float32", 1)):
        random = np.random.default_rng(0).random((3, *SHAPE))
        scores = (random * unit).astype(dtype)
        location = write_store(tmp_path / dtype, ids, BLOCK, scores=scores)
        found = measure(location, NO_IMAGE, rows=10)
        np.testing.assert_array_equal(found["class"], [1 + i % 2 for i in found["id"]])
        assert found["class_name"].tolist() == [CLASSES[1 + i % 2] for i in found["id"]]
        own = [scores[1 + i % 2][ids == i].mean(dtype=np.float64) / unit for i in found["id"]]
        np.testing.assert_allclose(found["probability_mean"], own, rtol=1e-12)


def test_objects_that_the_image_border_cuts_are_told(tmp_path):
    ids = draw_objects(SHAPE)
    found = measure(write_store(tmp_path, ids, BLOCK), NO_IMAGE)
    rim = ids.copy()
    rim[1:-1, 1:-1] = 0
    assert found["id"][found["touches_image_border"]].tolist() == np.unique(rim[rim > 0]).tolist()


@pytest.mark.parametrize(("axes", "ranges"), [("zyx", {"z": (1, 4)}), ("tzyx", {"t": (1, 3), "z": (0, 2)})])
def test_planes_of_a_stack_are_measured_one_by_one(tmp_path, axes, ranges):
    sizes = tuple(stop - start for start, stop in ranges.values())
    ids, above = np.zeros((*sizes, 40, 50), np.uint32), 0
    for seed, plane in enumerate(np.ndindex(sizes)):
        drawn = draw_objects((40, 50), seed=seed)
        ids[plane] = np.where(drawn > 0, drawn + above, 0)
        above = int(ids.max())
    full = tuple(size + 2 for size in sizes)
    stored_axes = axes.replace("t", "tc") if "t" in axes else "c" + axes
    where = stored_axes.index("c")
    image = np.random.default_rng(0).integers(0, 60000, (*full[:where], 2, *full[where:], 40, 50)).astype(np.uint16)
    location = write_store(
        tmp_path, ids, (*(1,) * len(sizes), *BLOCK), axes=axes, image=image, image_axes=stored_axes, ranges=ranges,
        channels=("DAPI", "Alexa 488"),
    )  # fmt: skip
    found = measure(location)
    chosen = np.moveaxis(image, where, 0)[(slice(None), *(slice(*ends) for ends in ranges.values()))]
    for plane in np.ndindex(sizes):
        rows = np.all([found[axis] == k for axis, k in zip(axes, plane, strict=False)], axis=0)
        assert rows.sum() == len(np.unique(ids[plane])) - 1
        check_shapes_2d({name: column[rows] for name, column in found.items()}, ids[plane])
        means = ndimage.mean(chosen[(1, *plane)].astype(float), ids[plane], found["id"][rows])
        np.testing.assert_allclose(found["intensity_mean_Alexa_488"][rows], means, rtol=1e-12)


def faces_of(mask: np.ndarray) -> list[int]:
    padded = np.pad(mask, 1).astype(int)
    return [int(np.abs(np.diff(padded, axis=axis)).sum()) for axis in range(3)]


@pytest.mark.parametrize(
    ("block", "ranges"),  # of z, where each plane was segmented by itself
    [((12, 13, 16), {}), ((20, 25, 30), {}), ((7, 25, 11), {"z": (0, 20)})],
    ids=str,
)
def test_volumes_are_those_of_the_whole_image(tmp_path, block, ranges):
    ids = draw_objects((20, 25, 30), sigma=1.5)
    spacing = (1.5, 0.5, 0.25)
    image = pixels_of(1, "uint16", ids.shape)[0]
    location = write_store(
        tmp_path, ids, block, axes="zyx", ndim=3, scale=spacing, image=image, image_axes="zyx", ranges=ranges
    )
    found = measure(location, rows=9)
    names = ("area", "centroid", "bbox", "equivalent_diameter_area", "axis_major_length", "axis_minor_length")
    pixel, scaled = expected_of(ids, names), expected_of(ids, names, spacing=spacing)
    np.testing.assert_array_equal(found["volume_px"], pixel["area"])
    np.testing.assert_allclose(found["volume_um3"], scaled["area"], rtol=1e-12)
    for k, axis in enumerate("zyx"):
        np.testing.assert_allclose(found[f"centroid_{axis}_um"], scaled[f"centroid-{k}"], rtol=1e-12)
        np.testing.assert_array_equal(found[f"bbox_min_{axis}_px"], pixel[f"bbox-{k}"])
        np.testing.assert_array_equal(found[f"bbox_max_{axis}_px"], pixel[f"bbox-{k + 3}"])
    for unit, of in (("px", pixel), ("um", scaled)):
        np.testing.assert_allclose(found[f"equivalent_diameter_{unit}"], of["equivalent_diameter_area"], rtol=1e-12)
        # scikit-image's axes come as differences of moments of inertia
        np.testing.assert_allclose(found[f"major_axis_{unit}"], of["axis_major_length"], rtol=1e-9)
        np.testing.assert_allclose(found[f"minor_axis_{unit}"], of["axis_minor_length"], rtol=1e-9, atol=1e-5)
    faces = np.array([faces_of(ids == i) for i in found["id"]])
    for k, axis in enumerate("zyx"):
        np.testing.assert_array_equal(found[f"faces_{axis}"], faces[:, k])
    areas = np.array([0.5 * 0.25, 1.5 * 0.25, 1.5 * 0.5])
    np.testing.assert_allclose(found["surface_um2"], faces @ areas * 2 / 3, rtol=1e-12)
    means = ndimage.mean(image.astype(float), ids, found["id"])
    np.testing.assert_allclose(found["intensity_mean_0"], means, rtol=1e-12)


def test_volumes_of_a_time_series_are_measured_one_by_one(tmp_path):
    first, second = (draw_objects((12, 14, 16), seed=seed, sigma=1.5) for seed in (0, 1))
    ids = np.stack([first, np.where(second > 0, second + first.max(), 0)]).astype(np.uint32)
    image = np.random.default_rng(0).integers(0, 255, (2, 1, 12, 14, 16)).astype(np.uint8)
    location = write_store(
        tmp_path, ids, (1, 8, 8, 8), axes="tzyx", ndim=3, image=image, image_axes="tczyx", ranges={"t": (0, 2)}
    )
    found = measure(location)
    assert found["t"].tolist() == [0] * first.max() + [1] * second.max()
    np.testing.assert_array_equal(found["volume_px"], np.bincount(ids.ravel())[1:])
    np.testing.assert_allclose(found["intensity_mean_0"], ndimage.mean(image[:, 0].astype(float), ids, found["id"]))
    assert "z" not in found


def test_the_surface_of_a_ball_is_a_balls(tmp_path):
    z, y, x = np.ogrid[-20:21, -20:21, -20:21]
    ball = (z * z + y * y + x * x <= 18**2).astype(np.uint32)
    found = measure(write_store(tmp_path, ball, (16, 16, 16), axes="zyx", ndim=3), NO_IMAGE)
    assert found["surface_um2"][0] == pytest.approx(4 * math.pi * 18**2, rel=0.02)
    assert found["eccentricity"][0] == pytest.approx(0, abs=1e-6)


def test_an_image_without_objects_gives_a_table_without_rows(tmp_path):
    image = pixels_of(2, "uint16")
    with_objects = write_store(tmp_path / "some", draw_objects(SHAPE), BLOCK, image=image, image_axes="cyx")
    nothing = np.zeros(SHAPE, np.uint32)
    without = write_store(tmp_path / "none", nothing, BLOCK, image=image, image_axes="cyx")
    measure(with_objects)
    assert len(measure(without)["id"]) == 0
    some, none = (pq.read_schema(part_path(x, "tables/cells-instances.parquet", 0)) for x in (with_objects, without))
    assert some.remove_metadata() == none.remove_metadata()
    assert (some.types, some.names) == (none.types, none.names)


def test_the_schema_says_units_and_what_was_measured(tmp_path):
    plan = plan_of(write_store(tmp_path, draw_objects(SHAPE), BLOCK, image=pixels_of(1, "uint8")[0]))
    begin(plan)
    write_table(plan, measure_blocks(plan))
    schema = pq.read_schema(part_path(plan.location, plan.table, 0))
    assert schema.field("area_um2").metadata == {b"unit": b"um2"}
    assert schema.field("centroid_y_px").metadata == {b"unit": b"px"}
    assert plan.record.input.instances.encode() in schema.metadata[b"segment_slide"]
    assert str(tmp_path).encode() not in schema.metadata[b"segment_slide"]


# -- negative controls -------------------------------------------------------------------------------------------


def test_without_context_perimeters_and_faces_at_block_borders_are_wrong(tmp_path, monkeypatch):
    ids = draw_objects(SHAPE)
    location = write_store(tmp_path, ids, (16, 16))
    whole = type(plan_of(location, NO_IMAGE).source)._read_ids
    monkeypatch.setattr(
        "segment_slide.pipeline.measurement.input.MeasureInput._read_ids",
        lambda self, index: np.pad(whole(self, index)[2:-2, 2:-2], 2),
    )
    found = measure(location, NO_IMAGE)["perimeter_px"]
    expected = expected_of(ids, ["perimeter"])["perimeter"]
    assert (np.abs(found - expected) > 0.5).sum() > 5


def test_without_merging_objects_on_two_blocks_are_wrong(tmp_path):
    ids = draw_objects(SHAPE)
    plan = plan_of(write_store(tmp_path, ids, BLOCK), NO_IMAGE)
    needed = measure_blocks(plan)
    rows = [plan.work.load(ROWS, index) for index in needed[0]]
    fragments = sum(len(part["ids"]) for part in rows)
    assert fragments > ids.max()
    largest = {i: max(int(p["count"][p["ids"] == i].max(initial=0)) for p in rows) for i in range(1, ids.max() + 1)}
    assert any(largest[i] < (ids == i).sum() for i in largest)


# -- going on ----------------------------------------------------------------------------------------------------


def test_what_is_missing_is_made_again_with_equal_bytes(tmp_path):
    ids = draw_objects(SHAPE)
    location = write_store(tmp_path, ids, (16, 16), image=pixels_of(2, "float32"), image_axes="cyx")
    plan = plan_of(location, rows=5)
    begin(plan)
    write_table(plan, measure_blocks(plan))
    before = tree(Path(location, "tables"))
    assert len(list(Path(location, plan.table).iterdir())) == plan.n_parts > 5
    rows = sorted(Path(location, plan.work.path, ROWS).iterdir())
    for file in (*rows[::3], *sorted(Path(location, plan.table).iterdir())[1::2]):
        file.unlink()
    Path(part_path(location, plan.table, 0)).write_bytes(b"")  # a power cut
    again, told = plan_of(location, rows=5), []
    write_table(again, measure_blocks(again, on_block=told.append))
    assert len(told) == len(rows[::3])
    assert tree(Path(location, "tables")) == before


def test_a_block_that_fails_once_is_measured_at_the_second_attempt(tmp_path, monkeypatch):
    location = write_store(tmp_path, draw_objects(SHAPE), (16, 16))
    calls, real = [], passes.measure_place

    def fail_once(plan, place):
        calls.append(place[1])
        if place[1] == (1, 2) and calls.count((1, 2)) == 1:
            raise BlockError("a bad moment")
        return real(plan, place)

    monkeypatch.setattr(passes, "measure_place", fail_once)
    assert len(measure(location, NO_IMAGE)["id"]) == draw_objects(SHAPE).max()
    assert calls.count((1, 2)) == 2


def test_a_block_that_fails_twice_is_named_and_the_others_are_kept(tmp_path):
    location = write_store(tmp_path, draw_objects(SHAPE), (16, 16))
    damaged = Path(location, "labels/cells-instances/0/c/3/4")
    content = damaged.read_bytes()
    damaged.write_bytes(content[: len(content) // 2])
    plan = plan_of(location, NO_IMAGE)
    with pytest.raises(IncompleteError, match=r"(?s)block \(3, 4\): a file of .*labels/cells-instances/0 is damaged"):
        measure_blocks(plan)
    # neighbours read the damaged file too, as context
    assert len(plan.work.stored(ROWS)) == plan.source.grid.n_blocks - 4


def test_rows_that_are_damaged_are_named_and_the_file_says_what_to_do(tmp_path):
    plan = plan_of(write_store(tmp_path, draw_objects(SHAPE), (16, 16)), NO_IMAGE)
    needed = measure_blocks(plan)
    Path(plan.location, plan.work.path, ROWS, "0.0.npz.zst").write_bytes(b"nonsense")
    with pytest.raises(IncompleteError, match="part 0 of the table.*0.0.npz.zst is missing or damaged.*delete it"):
        write_table(plan, needed)


@pytest.mark.parametrize(
    ("dtype", "worst"), [("float32", np.nan), ("float64", np.inf), ("float16", -np.inf), ("float64", np.nan)]
)
def test_values_that_are_not_finite_are_null_for_their_object_and_channel_alone(tmp_path, dtype, worst):
    ids = draw_objects(SHAPE)
    image = pixels_of(2, dtype)
    bad = int(np.median(ids[ids > 0]))
    image[0][ids == 0] = worst
    image[1].flat[np.flatnonzero(ids == bad)[-1]] = worst
    location = write_store(tmp_path, ids, (16, 16), image=image, image_axes="cyx")
    plan = plan_of(location, rows=20)
    begin(plan)
    counts = write_table(plan, measure_blocks(plan))
    found = pq.read_table(f"{location}/{plan.table}")
    others = np.setdiff1d(np.unique(ids), [0, bad])
    finite = np.where(ids == bad, 0, image[1].astype(np.float64))
    for what, function in (("mean", ndimage.mean), ("min", ndimage.minimum), ("std", ndimage.standard_deviation)):
        assert found[f"intensity_{what}_0"].null_count == 0
        nulls = found[f"intensity_{what}_1"].is_null().to_numpy(zero_copy_only=False)
        assert found["id"].to_numpy()[nulls].tolist() == [bad]
        wanted = function(finite, ids, others)
        np.testing.assert_allclose(found[f"intensity_{what}_1"].drop_null().to_numpy(), wanted, rtol=1e-4)
    assert counts.n_not_finite == 1
    assert write_table(plan, []).n_not_finite == 1, "also when parts are read back"


def test_ids_that_are_not_those_that_were_recorded_are_refused(tmp_path):
    ids = draw_objects(SHAPE)
    high = write_store(tmp_path / "high", ids, (61, 75), n_objects=int(ids.max()) - 1)
    with pytest.raises(IncompleteError, match="objects are recorded"):
        measure(high, NO_IMAGE)
    gap = write_store(tmp_path / "gap", np.where(ids == 3, 0, ids), (61, 75), n_objects=int(ids.max()))
    with pytest.raises(IncompleteError, match="object 3 has no pixel"):
        measure(gap, NO_IMAGE)


def test_a_moved_image_is_measured_where_it_is_now(tmp_path):
    image = pixels_of(1, "uint8")[0]
    location = write_store(tmp_path, draw_objects(SHAPE), BLOCK, image=image)
    expected = measure(location)
    shutil.rmtree(Path(location, "tables"))
    (tmp_path / "image.ome.zarr").rename(tmp_path / "elsewhere.ome.zarr")
    found = measure(location, ImageChoice(str(tmp_path / "elsewhere.ome.zarr")))
    np.testing.assert_array_equal(found["intensity_mean_0"], expected["intensity_mean_0"])
    assert not any(name.startswith("intensity") for name in read_without_image(location))


def read_without_image(location):
    shutil.rmtree(Path(location, "tables"))
    return measure(location, NO_IMAGE)
