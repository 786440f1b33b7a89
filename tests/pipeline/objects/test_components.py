"""Runs of one array against scipy and scikit-image; faces of two against both arrays in one."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import ndimage
from skimage.measure import label as label_values

from segment_slide.pipeline.objects.components import label_components, number_pieces
from segment_slide.pipeline.objects.faces import previous_offsets, touching_pairs
from tests.tiers import exhaustive

SHAPES = [(1,), (9,), (1, 1), (1, 7), (7, 1), (40, 33), (5, 6, 7), (3, 4, 5, 6)]


def noise(shape: tuple[int, ...], density: float, n_values: int = 1) -> np.ndarray:
    rng = np.random.default_rng(round(100 * density))
    return ((rng.random(shape) < density) * rng.integers(1, n_values + 1, shape)).astype(np.uint8)


def numbers(count: int) -> np.ndarray:
    return np.arange(1, count + 1, dtype=np.uint32)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("density", [0, 0.1, 0.4, 0.6, 0.9, 1])
def test_numbers_are_scipys(shape: tuple[int, ...], density: float) -> None:
    values = noise(shape, density)
    for connectivity in range(1, values.ndim + 1):
        found = label_components(values, connectivity)
        expected, count = ndimage.label(values, ndimage.generate_binary_structure(values.ndim, connectivity))
        assert found.count == count
        np.testing.assert_array_equal(found.paint(numbers(count)), expected)
        np.testing.assert_array_equal(found.sizes, np.bincount(expected.ravel(), minlength=count + 1)[1:])
        first = [np.flatnonzero(expected == number)[0] for number in range(1, count + 1)]
        assert found.first_pixel.tolist() == first


@given(
    arrays(np.uint8, array_shapes(min_dims=2, max_dims=3, max_side=9), elements=st.integers(0, 3)), st.integers(1, 3)
)
def test_values_stay_apart_as_in_scikit_image(values: np.ndarray, connectivity: int) -> None:
    connectivity = min(connectivity, values.ndim)
    found = label_components(values, connectivity)
    expected = label_values(values, background=0, connectivity=connectivity)
    _, first, inverse = np.unique(expected[values > 0], return_index=True, return_inverse=True)
    in_raster_order = np.argsort(np.argsort(first)) + 1  # scikit-image's ids are not, where an axis has one pixel
    objects = found.paint(numbers(found.count))[values > 0]
    np.testing.assert_array_equal(objects, in_raster_order[inverse] if objects.size else objects)


@pytest.mark.parametrize(
    "dtype", ["bool", "uint8", exhaustive("uint16"), exhaustive("int32"), exhaustive("int64"), "uint64"]
)
def test_any_integer_dtype_will_do(dtype: str) -> None:
    values = noise((13, 11), 0.5).astype(dtype)
    found = label_components(values, 1)
    np.testing.assert_array_equal(found.paint(numbers(found.count)), ndimage.label(values)[0])


def test_leading_planes_do_not_hang_together() -> None:
    values = noise((4, 9, 8), 0.6)
    found = label_components(values, 2, planes=1)
    counts = [ndimage.label(plane, np.ones((3, 3)))[1] for plane in values]
    assert found.count == sum(counts) > ndimage.label(values, np.ones((3, 3, 3)))[1]


def test_pieces_are_numbered_by_their_first_pixel_even_if_they_do_not_hang_together() -> None:
    pieces = np.array([[0, 7, 7, 0, 2], [2, 0, 7, 5, 5]])
    found, names = number_pieces(pieces)
    assert names.tolist() == [7, 2, 5]
    np.testing.assert_array_equal(found.paint(names), pieces)


def test_painting_onto_an_array_leaves_the_rest_of_it() -> None:
    background = np.array([[3, 0, 0, 4]], np.uint8)
    holes = label_components(background == 0, 1)
    assert holes.paint(np.array([9], np.uint8), onto=background).tolist() == [[3, 9, 9, 4]]


@pytest.mark.parametrize("ndim", [2, 3])
def test_pairs_across_a_border_are_those_of_both_blocks_in_one_array(ndim: int) -> None:
    """Every neighbour, every connectivity, by brute force over pixels."""
    size = 4
    for offset, connectivity in itertools.product(previous_offsets(0, ndim, ndim), range(1, ndim + 1)):
        one, other = noise((size,) * ndim, 0.5, 9), noise((size,) * ndim, 0.6, 9)
        expected = set()
        for p in np.ndindex(one.shape):
            for step in itertools.product((-1, 0, 1), repeat=ndim):
                q = tuple(a + b - size * o for a, b, o in zip(p, step, offset, strict=True))
                near = 0 < sum(map(abs, step)) <= connectivity and all(0 <= position < size for position in q)
                if near and one[p] and other[q]:
                    expected.add((int(one[p]), int(other[q])))
        faces = [{(a, s): block.take(-s, axis=a) for a in range(ndim) for s in (0, 1)} for block in (one, other)]
        assert set(map(tuple, touching_pairs(*faces, offset, connectivity).tolist())) == expected
