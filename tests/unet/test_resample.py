"""Resampling beside scipy, PIL and plain sums; nothing is read that was not asked for."""

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from segment_slide.unet.errors import TrainingDataError
from segment_slide.unet.resample import REACH_PX, find_ends, interpolate, pick_nearest

RANDOM = np.random.default_rng(0)


def positions(shape, size, margin=REACH_PX, seed=1):
    """Random places in an image, far enough from its ends."""
    random = np.random.default_rng(seed)
    return np.stack([random.uniform(margin, n - 1 - margin, size) for n in shape]).astype(np.float32)


def cubic_by_hand(row, at):
    """Keys 1981, Eq. 15: a sum over all pixels of a row with the kernel written out by distance."""
    s = np.abs(np.arange(len(row)) - at)
    near, far = 1.5 * s**3 - 2.5 * s**2 + 1, -0.5 * s**3 + 2.5 * s**2 - 4 * s + 2
    return (row * np.where(s < 1, near, np.where(s < 2, far, 0))).sum()


def test_one_row_is_the_kernel_of_keys_summed_by_hand():
    row = RANDOM.normal(size=20).astype(np.float32)
    image = np.broadcast_to(row, (1, 5, 20)).copy()
    at = np.linspace(2, 17, 50, dtype=np.float32)
    found = interpolate(image, np.stack([np.full((1, 50), 2, np.float32), at[None]]), np.zeros(2))
    np.testing.assert_allclose(found[0, 0], [cubic_by_hand(row, float(x)) for x in at], atol=1e-5)


def test_an_enlarged_image_is_what_pil_makes_of_it():
    image = RANDOM.normal(size=(24, 24)).astype(np.float32)
    expected = np.asarray(Image.fromarray(image).resize((96, 96), Image.Resampling.BICUBIC))
    steps = (np.arange(96) + 0.5) / 4 - 0.5
    inner = steps[12:-12]
    at = np.stack(np.meshgrid(inner, inner, indexing="ij")).astype(np.float32)
    np.testing.assert_allclose(interpolate(image[None], at, np.zeros(2))[0], expected[12:-12, 12:-12], atol=1e-5)


@pytest.mark.parametrize("shape", [(30, 40), (12, 14, 16)])
def test_planes_and_their_squares_are_met_exactly(shape):
    """Cubic convolution reproduces polynomials of degree 2; so does the spline of scipy."""
    grid = np.meshgrid(*map(np.arange, shape), indexing="ij")
    image = sum((i + 1) * axis + 0.1 * axis**2 for i, axis in enumerate(grid)).astype(np.float32)
    at = positions(shape, (9, 10)[: len(shape)] if len(shape) == 2 else (4, 5, 6))
    expected = sum((i + 1) * axis + 0.1 * axis**2 for i, axis in enumerate(at.astype(np.float64)))
    np.testing.assert_allclose(interpolate(image[None], at, np.zeros(len(shape)))[0], expected, rtol=1e-5)


@pytest.mark.parametrize("shape", [(60, 70), (24, 26, 28)])
def test_a_smooth_image_agrees_with_the_spline_of_scipy_and_noise_does_not(shape):
    size = (50, 50) if len(shape) == 2 else (10, 10, 10)
    noise = np.random.default_rng(2).normal(size=shape)
    at = positions(shape, size, margin=6)
    found = {}
    for name, image in (("smooth", ndimage.gaussian_filter(noise, 3)), ("noise", noise)):
        image = (image / image.std()).astype(np.float32)
        expected = ndimage.map_coordinates(image, at, order=3, mode="mirror")
        found[name] = np.abs(interpolate(image[None], at, np.zeros(len(shape)))[0] - expected).max()
    assert found["smooth"] < 0.01 < 0.1 < found["noise"]


@pytest.mark.parametrize("shape", [(30, 40), (9, 11, 13)])
def test_classes_and_weights_are_scipys_of_order_0(shape):
    classes = RANDOM.integers(0, 4, shape).astype(np.uint8)
    weights = RANDOM.uniform(1, 2, shape).astype(np.float32)
    at = positions(shape, (20, 20) if len(shape) == 2 else (5, 6, 7), margin=0)
    found = pick_nearest(classes, weights, at, np.zeros(len(shape)))
    for values, picked in zip((classes, weights), found, strict=True):
        np.testing.assert_array_equal(picked, ndimage.map_coordinates(values, at, order=0))


def test_a_class_of_255_weighs_nothing_whatever_is_stored():
    at = np.zeros((2, 1, 1), np.float32)
    _, weights = pick_nearest(np.array([[255]], np.uint8), np.array([[3]], np.float32), at, np.zeros(2))
    assert weights == 0


def test_channels_are_interpolated_one_by_one():
    image = RANDOM.normal(size=(4, 20, 20)).astype(np.float32)
    at = positions((20, 20), (7, 8))
    found = interpolate(image, at, np.zeros(2))
    for channel in range(4):
        np.testing.assert_array_equal(found[channel], interpolate(image[channel : channel + 1], at, np.zeros(2))[0])


@pytest.mark.parametrize("ndim", [2, 3])
def test_a_larger_box_gives_the_same_bits(ndim):
    image = RANDOM.normal(size=(1, *(40,) * ndim)).astype(np.float32)
    at = positions((20,) * ndim, (6,) * ndim)
    shift = np.full(ndim, 8.25)
    whole = interpolate(image, at, shift)
    first, last = find_ends(at, shift)
    first, last = first - 1, last + REACH_PX
    part = image[(slice(None), *(slice(a, b + 1) for a, b in zip(first, last, strict=True)))]
    np.testing.assert_array_equal(interpolate(part, at, shift - first), whole)


@pytest.mark.parametrize(("at", "side"), [(0.9, "before"), (17.1, "after")])
def test_a_position_too_near_to_the_end_is_refused_because_the_loop_would_read_beyond_it(at, side):
    coordinates = np.array([[[10.0]], [[at]]], np.float32)
    with pytest.raises(TrainingDataError, match=rf"more {'before' if side == 'before' else 'after'}|expected 1 more"):
        interpolate(np.zeros((1, 20, 19), np.float32), coordinates, np.zeros(2))


def test_a_class_beyond_the_annotation_is_refused():
    coordinates = np.array([[[0.0]], [[4.6]]], np.float32)
    with pytest.raises(TrainingDataError, match="positions reach"):
        pick_nearest(np.zeros((5, 5), np.uint8), np.zeros((5, 5), np.float32), coordinates, np.zeros(2))


def test_noise_loses_less_than_by_linear_interpolation():
    noise = np.random.default_rng(3).normal(size=(1, 300, 300)).astype(np.float32)
    at = positions((300, 300), (200, 200), margin=3)
    linear = ndimage.map_coordinates(noise[0], at, order=1).std()
    assert linear < 0.70 < 0.78 < interpolate(noise, at, np.zeros(2)).std() < 0.84
