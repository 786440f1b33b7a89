"""Ridges given back to objects, against the rule written in plain Python."""

import itertools

import numpy as np
import pytest
from scipy.spatial import cKDTree

from segment_slide.pipeline.errors import PlanError
from segment_slide.pipeline.objects.regrow import regrow_ridges
from segment_slide.unet.weight_map import cut_ridges
from tests.tiers import exhaustive

ORDER_2D = [(0, 1), (1, 0), (1, 1), (1, -1), (0, -1), (-1, 0), (-1, -1), (-1, 1)]  # E S SE SW W N NW NE


def regrow_slowly(ids: np.ndarray, reach_px: int) -> np.ndarray:
    """The rule, pixel by pixel; an image is a volume whose z does not count."""
    result = ids[(slice(reach_px, -reach_px),) * ids.ndim].copy()
    for place in np.argwhere(result == 0):
        centre = place + reach_px
        near = [ids[tuple(centre + step)] for step in order_of(ids.ndim)]
        first = next((value for value in near if value), 0)
        around = ids[tuple(slice(at - reach_px, at + reach_px + 1) for at in centre)]
        if first and set(around.ravel().tolist()) - {0, int(first)}:
            result[tuple(place)] = first
    return result


def order_of(ndim: int) -> list[tuple[int, ...]]:
    if ndim == 2:
        return ORDER_2D
    after = [step for step in itertools.product((-1, 0, 1), repeat=3) if step > (0, 0, 0)]
    after.sort(key=lambda step: (np.abs(step).sum(), tuple(np.abs(step)), tuple(-way for way in step)))
    return after + [tuple(-way for way in step) for step in after]


def draw_speckles(shape, seed: int, dtype="uint16") -> np.ndarray:
    random = np.random.default_rng(seed)
    return np.where(random.random(shape) < 0.2, random.integers(1, 5, shape), 0).astype(dtype)


def draw_polygons(shape, width: int, gap: float = 0.0) -> np.ndarray:
    """Voronoi cells of some width; what is farther than `gap` widths from their centres is background."""
    random = np.random.default_rng(width)
    centres = random.random((int(np.prod(shape) / width ** len(shape)), len(shape))) * shape
    distance, cell = cKDTree(centres).query(np.moveaxis(np.indices(shape), 0, -1))
    return np.where((gap > 0) & (distance > gap * width), 0, cell + 1).astype(np.uint32)


@pytest.mark.parametrize("reach_px", [1, 2])
@pytest.mark.parametrize("shape", [(23, 31), (9, 10, 11), (5, 30), (30, 5)], ids=str)
def test_ridges_are_filled_as_the_rule_says(shape, reach_px):
    for seed in range(3):
        ids = draw_speckles(shape, seed)
        np.testing.assert_array_equal(regrow_ridges(ids, reach_px), regrow_slowly(ids, reach_px))


@pytest.mark.parametrize(("width", "reach_px", "low", "high"), [(25, 1, 0.43, 0.46), (25, 2, 0.97, 0.99)])
def test_touching_cells_get_back_the_share_that_the_docstring_states(width, reach_px, low, high):
    cells = draw_polygons((400, 400), width)
    cut = cut_ridges(cells)
    found = regrow_ridges(np.pad(cut, reach_px), reach_px)
    lost = (cut == 0) & (cells != 0)
    assert low < (found == cells)[lost].mean() < high
    np.testing.assert_array_equal(found[cut != 0], cut[cut != 0])  # no object loses a pixel


def test_touching_cells_in_a_volume_get_back_the_share_that_the_docstring_states():
    cells = draw_polygons((50, 50, 50), 20)
    cut = cut_ridges(cells)
    lost = (cut == 0) & (cells != 0)
    shares = [(regrow_ridges(np.pad(cut, reach), reach) == cells)[lost].mean() for reach in (1, 2)]
    assert 0.22 < shares[0] < 0.30
    assert shares[1] > 0.94


def test_a_horizontal_border_is_one_pixel_wide_and_comes_back_whole():
    cells = np.repeat(np.array([1, 2], np.uint8), 4)[:, None].repeat(9, axis=1)
    np.testing.assert_array_equal(regrow_ridges(np.pad(cut_ridges(cells), 1)), cells)


def test_a_vertical_border_is_two_pixels_wide_and_needs_a_reach_of_2():
    cells = np.repeat(np.array([1, 2], np.uint8), 4)[None].repeat(9, axis=0)
    cut = cut_ridges(cells)
    assert (cut[4] == 0).sum() == 2
    assert (regrow_ridges(np.pad(cut, 1))[4] == cut[4]).all()
    np.testing.assert_array_equal(regrow_ridges(np.pad(cut, 2), 2), cells)


@pytest.mark.parametrize("reach_px", [1, 2])
@pytest.mark.parametrize("shape", [(40, 37), (11, 13, 12)], ids=str)
def test_tiles_with_their_context_give_the_whole(shape, reach_px):
    padded = np.pad(cut_ridges(draw_polygons(shape, 6, 0.55)), reach_px)
    whole = regrow_ridges(padded, reach_px)
    assert (whole != padded[(slice(reach_px, -reach_px),) * len(shape)]).any()
    for start in itertools.product(*(range(0, size, 7) for size in shape)):
        stop = [min(s + 7, size) for s, size in zip(start, shape, strict=True)]
        read = padded[tuple(slice(s, e + 2 * reach_px) for s, e in zip(start, stop, strict=True))]
        owned = tuple(map(slice, start, stop))
        np.testing.assert_array_equal(regrow_ridges(read, reach_px), whole[owned])


def test_with_too_little_context_tiles_differ():
    padded = np.pad(cut_ridges(draw_polygons((40, 40), 6)), 2)
    inner, whole = padded[2:-2, 2:-2], regrow_ridges(padded, 2)
    assert (regrow_ridges(np.pad(inner[:7, :7], 2), 2) != whole[:7, :7]).any()


@pytest.mark.parametrize("reach_px", [1, 2])
def test_concavities_of_one_object_are_not_filled(reach_px):
    y, x = np.mgrid[:30, :40]
    ring = (np.abs(np.hypot(y - 15, x - 15) - 9) < 3).astype(np.uint64)
    ring[15, 20:30] = 0  # a slit of one pixel
    ring[2, 39] = 7  # another object, far away
    np.testing.assert_array_equal(regrow_ridges(np.pad(ring, reach_px), reach_px), ring)


@pytest.mark.parametrize("dtype", [exhaustive("uint8"), exhaustive("uint16"), "uint32", "uint64"])
def test_ids_of_every_unsigned_dtype_are_kept(dtype):
    top = np.iinfo(dtype).max
    ids = np.pad(np.array([[top, 0, top - 1]], dtype), 1)
    ids.flags.writeable = False
    found = regrow_ridges(ids)
    assert found.dtype == dtype
    assert found.tolist() == [[top, top - 1, top - 1]]


def test_an_array_of_context_alone_gives_an_empty_one():
    assert regrow_ridges(np.zeros((2, 5), np.uint8)).shape == (0, 3)


@pytest.mark.parametrize(
    ("ids", "reach_px", "message"),
    [
        (np.zeros((4, 4), np.int32), 1, "int32 of shape"),
        (np.zeros(4, np.uint8), 1, "2 or 3 axes"),
        (np.zeros((3, 5), np.uint8), 2, "2 px of context"),
        (np.zeros((9, 9), np.uint8), 3, "reach_px=3, expected 1 or 2"),
    ],
    ids=["signed", "one axis", "no context", "reach"],
)
def test_arrays_that_cannot_be_used_are_refused(ids, reach_px, message):
    with pytest.raises(PlanError, match=message):
        regrow_ridges(ids, reach_px)
