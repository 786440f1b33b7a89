"""Rows of single blocks against scikit-image and numpy, and what merging makes of them."""

import math

import numpy as np
import pytest

from segment_slide.pipeline.errors import BlockError
from segment_slide.pipeline.measurement.columns import CORNER_WEIGHTS, TableSpec
from segment_slide.pipeline.measurement.fragments import IdRange, merge_fragments
from segment_slide.pipeline.measurement.pixels import REACH, BlockPixels
from segment_slide.pipeline.measurement.sums import measure_block
from segment_slide.pipeline.measurement.table import make_columns
from tests.pipeline.measurement.support import expected_of


def block_of(ids: np.ndarray, box: tuple[slice, ...], **pixels: np.ndarray) -> BlockPixels:
    """One block of a whole image."""
    reach = REACH[ids.ndim]
    around = tuple(slice(part.start, part.stop + 2 * reach) for part in box)
    origin = tuple(part.start for part in box)
    return BlockPixels(np.pad(ids, reach)[around], origin, ids.ndim, (ids[box] > 0).astype(np.uint8), **pixels)


def rows_of(ids: np.ndarray, step: int) -> list[dict[str, np.ndarray]]:
    """Rows of all blocks of an image."""
    grid = np.ndindex(*(-(-size // step) for size in ids.shape))
    boxes = [
        tuple(slice(i * step, min((i + 1) * step, size)) for i, size in zip(index, ids.shape, strict=True))
        for index in grid
    ]
    return [measure_block(block_of(ids, box)) for box in boxes]


@pytest.mark.parametrize("n_ids", [1, 2, 40])
@pytest.mark.parametrize("seed", range(6))
def test_every_configuration_of_border_pixels_counts_as_in_scikit_image(seed, n_ids):
    ids = np.random.default_rng(seed).integers(0, n_ids + 1, (23, 31)).astype(np.uint32)
    merged = merge_fragments(IdRange(1, n_ids), rows_of(ids, 7))
    expected = expected_of(ids, ["perimeter", "area"])
    np.testing.assert_allclose(merged["edges"] @ np.array(CORNER_WEIGHTS), expected["perimeter"], rtol=1e-12)
    np.testing.assert_array_equal(merged["count"], expected["area"])


@pytest.mark.parametrize("first", [1, 2**32 - 3, 2**63])
def test_ids_of_any_height_keep_their_digits(first):
    small = np.random.default_rng(0).integers(0, 6, (20, 20)).astype(np.uint64)
    ids = np.where(small > 0, small + np.uint64(first - 1), np.uint64(0))
    found = merge_fragments(IdRange(first, first + 4), rows_of(ids, 6))
    expected = merge_fragments(IdRange(1, 5), rows_of(small, 6))
    assert found.pop("ids").tolist() == [first + k for k in range(5)]
    expected.pop("ids")
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)


def test_rows_of_a_block_are_in_rising_order_of_ids():
    ids = np.array([[9, 9, 2], [7, 0, 2]], np.uint32)
    assert measure_block(block_of(ids, (slice(0, 2), slice(0, 3))))["ids"].tolist() == [2, 7, 9]


def test_coordinates_far_away_are_exact_integers():
    ids = np.ones((3, 4), np.uint32)
    pixels = BlockPixels(np.pad(ids, 2), (2**40, 2**41), 2, ids.astype(np.uint8))
    rows = measure_block(pixels)
    assert rows["box_min"].tolist() == [[2**40, 2**41]]
    assert rows["first"].tolist() == [[12, 18]]
    assert rows["second"].tolist() == [[4 * (1 + 4), 3 * 6, 3 * (1 + 4 + 9)]]


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint32", "int64", "uint64", "float16", "float64"])
def test_pixels_of_any_type_are_summed(dtype):
    values = np.random.default_rng(0).integers(0, 2, (8, 9)).astype(np.dtype(dtype).newbyteorder("="))
    ids = np.random.default_rng(1).integers(0, 3, (8, 9)).astype(np.uint32)
    rows = measure_block(block_of(ids, (slice(0, 8), slice(0, 9)), channels=values[None]))
    assert rows["value_sum"][:, 0].tolist() == [float(values[ids == i].astype(float).sum()) for i in (1, 2)]
    assert rows["value_max"][:, 0].tolist() == [1, 1]
    assert rows["value_min"][:, 0].tolist() == [0, 0]


def test_the_order_of_unrelated_blocks_does_not_change_integers():
    ids = np.random.default_rng(0).integers(0, 4, (20, 20)).astype(np.uint32)
    rows = rows_of(ids, 6)
    one, other = merge_fragments(IdRange(1, 3), rows), merge_fragments(IdRange(1, 3), rows[::-1])
    for name in ("count", "box_min", "box_max", "first", "edges", "class"):
        np.testing.assert_array_equal(one[name], other[name])
    np.testing.assert_allclose(one["second"], other["second"], rtol=1e-12)


def test_parts_of_ids_are_the_whole_cut():
    ids = np.random.default_rng(0).integers(0, 20, (30, 30)).astype(np.uint32)
    rows = rows_of(ids, 8)
    whole = merge_fragments(IdRange(1, 19), rows)
    parts = [merge_fragments(IdRange(first, min(first + 4, 19)), rows) for first in range(1, 20, 5)]
    for name, values in whole.items():
        np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), values)


def test_an_object_in_two_planes_is_refused():
    def rows(plane: int) -> dict[str, np.ndarray]:
        ids = np.zeros((1, 5, 5), np.uint32)
        ids[0, 2, 2] = 1
        return measure_block(BlockPixels(ids, (plane, 0, 0), 2, np.ones((1, 1, 1), np.uint8)))

    assert merge_fragments(IdRange(1, 1), [rows(3)])["plane"].tolist() == [[3]]
    with pytest.raises(BlockError, match=r"object 1 lies in two planes, \[3\] and \[4\]"):
        merge_fragments(IdRange(1, 1), [rows(3), rows(4)])


def test_lines_are_ellipses_without_width():
    ids = np.zeros((40, 40), np.uint32)
    ids[3, 5:25] = 1
    ids[np.arange(10, 30), np.arange(10, 30)] = 2
    ids[35, 35] = 3
    objects = merge_fragments(IdRange(1, 3), rows_of(ids, 16))
    columns = {c.name: c.values for c in make_columns(TableSpec("yx", ids.shape, 2), objects)}
    np.testing.assert_allclose(columns["eccentricity"], [1, 1, 0], atol=1e-12)
    np.testing.assert_allclose(columns["minor_axis_px"], 0, atol=1e-6)
    np.testing.assert_allclose(columns["major_axis_px"][0], 4 * math.sqrt((20**2 - 1) / 12), rtol=1e-12)
    assert columns["area_um2"] is None
