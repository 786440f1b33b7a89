"""Weight maps of arrays against Eq. 2 as it is written: one distance transform per cell."""

import itertools
import math

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt

from segment_slide.unet.errors import TrainingDataError
from segment_slide.unet.sample import IGNORE
from segment_slide.unet.two_nearest import two_nearest
from segment_slide.unet.weight_map import (
    border_weights,
    count_class_weights,
    cut_ridges,
    nearest_two,
    ridge_offsets,
    weight_map,
)
from segment_slide.unet.weight_settings import WeightSettings, halo, ridge_halo

PAPER = WeightSettings()
ANISOTROPIC = WeightSettings(spacing=(2.5, 1, 1), sigma_px=2)


def draw_cells(seed: int, shape=(70, 83), cells: int = 14) -> np.ndarray:
    """Label image with touching, nested and single objects, some cut by the border, some of one pixel."""
    random = np.random.default_rng(seed)
    labels = np.zeros(shape, np.int32)
    for cell in random.permutation(cells) + 1:
        centre = random.integers(0, shape)
        radius = int(random.choice([0, 0, 2, 4, 7, 12]))
        grid = np.ogrid[tuple(map(slice, shape))]
        distance = sum((axis - at) ** 2 for axis, at in zip(grid, centre, strict=True))
        labels[distance <= radius**2] = cell
        if radius > 6:
            labels[distance <= (radius - 4) ** 2] = cell + 100  # nested: an object in an object, touching it
    labels[0, : shape[1] // 4] = 99  # along the border
    return labels


def cut_slowly(labels: np.ndarray, ridge_px: int) -> np.ndarray:
    """The rule of `cut_ridges`, neighbour by neighbour."""
    around, ahead = ridge_px // 2, math.ceil(ridge_px / 2)
    padded, touches = np.pad(labels, ahead), np.zeros(labels.shape, bool)
    for offset in itertools.product(range(-ahead, ahead + 1), repeat=labels.ndim):
        comes_before = next((step < 0 for step in offset if step), False)
        if max(map(abs, offset)) <= around or comes_before:
            part = tuple(slice(ahead + step, ahead + step + n) for step, n in zip(offset, labels.shape, strict=True))
            touches |= (padded[part] != 0) & (padded[part] != labels)
    return np.where(touches, 0, labels)


def distances_slowly(labels: np.ndarray, spacing=None) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and second-smallest of the distance transforms of all objects."""
    transforms = [distance_transform_edt(labels != cell, sampling=spacing) for cell in np.unique(labels[labels != 0])]
    transforms += [np.full(labels.shape, np.inf)] * 2
    return tuple(np.partition(transforms, 1, axis=0)[:2])


def weigh_slowly(labels, settings: WeightSettings, ignored=None) -> np.ndarray:
    ignored = np.zeros(labels.shape, bool) if ignored is None else ignored
    cut = cut_slowly(np.where(ignored, 0, labels), settings.ridge_px)
    d1, d2 = distances_slowly(cut, settings.spacing or None)
    border = settings.w0 * np.exp(-((d1 + d2) ** 2) / (2 * settings.sigma_px**2))
    classes = (cut > 0)[~ignored]
    present = [value for value in (False, True) if (classes == value).any()]
    w_c = {value: classes.size / (len(present) * (classes == value).sum()) for value in present}
    if not settings.balance:
        w_c = dict.fromkeys(w_c, 1.0)
    weights = np.where(cut > 0, w_c.get(True, 0), w_c.get(False, 0) + border)
    return np.where(ignored, 0, weights)


# -- the oracle ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(24))
def test_weights_equal_a_distance_transform_per_cell_within_1e_5(seed):
    labels = draw_cells(seed)
    found = weight_map(labels, PAPER)
    assert found.weights.dtype == np.float32
    assert np.abs(found.weights - weigh_slowly(labels, PAPER)).max() <= 1e-5


@pytest.mark.parametrize("block", [(19, 31), (33, 33), (70, 20)], ids=str)
@pytest.mark.parametrize("seed", range(8))
def test_blocks_with_their_halo_give_the_bits_of_the_whole(seed, block):
    labels = draw_cells(seed)
    whole = weight_map(labels, PAPER)
    tiled = weigh_in_blocks(labels, PAPER, block, halo(PAPER, 2)[0])
    np.testing.assert_array_equal(tiled.view(np.uint32), whole.weights.view(np.uint32))


def weigh_in_blocks(labels, settings, block, around):
    counts = np.bincount((cut_ridges(labels, settings.ridge_px) > 0).ravel())
    result = np.zeros(labels.shape, np.float32)
    padded = np.pad(labels, around)
    for start in itertools.product(*(range(0, size, step) for size, step in zip(labels.shape, block, strict=True))):
        part = padded[tuple(slice(s, s + step + 2 * around) for s, step in zip(start, block, strict=True))]
        weights = weight_map(part, settings, class_weights=count_class_weights(counts)).weights
        inner = weights[(slice(around, weights.shape[0] - around), slice(around, weights.shape[1] - around))]
        owned = tuple(slice(s, s + step) for s, step in zip(start, block, strict=True))
        result[owned] = inner
    return result


def test_a_halo_that_is_too_small_is_noticed():
    labels = draw_cells(3)
    tiled = weigh_in_blocks(labels, PAPER, (19, 31), 12)
    assert np.abs(tiled - weight_map(labels, PAPER).weights).max() > 1e-5


@pytest.mark.parametrize("spacing", [(), (2.5, 1.0, 1.0), (0.5, 2.0, 1.0)], ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_volumes_equal_a_distance_transform_per_cell(seed, spacing):
    labels = draw_cells(seed, shape=(11, 24, 27), cells=9)
    settings = WeightSettings(sigma_px=3, spacing=spacing)
    assert np.abs(weight_map(labels, settings).weights - weigh_slowly(labels, settings)).max() <= 1e-5


@pytest.mark.parametrize("seed", range(3))
def test_distances_without_a_limit_are_exact(seed):
    labels = draw_cells(seed, cells=5)
    background = labels == 0
    for found, expected in zip(nearest_two(labels), distances_slowly(labels), strict=True):
        np.testing.assert_allclose(found[background], expected[background], rtol=1e-6)
        assert np.isnan(found[~background]).all()


def test_the_second_distance_belongs_to_another_object_and_not_to_another_part_of_the_nearest():
    labels = np.array([[7, 0, 7, 0, 0, 0, 9]])
    assert nearest_two(labels)[1][0, 1] == 5


def test_what_lies_beyond_the_reach_is_not_looked_for():
    d1, d2 = nearest_two(np.array([[7, 0, 0, 0, 9]]), reach=2)
    np.testing.assert_array_equal(d1[0, 1:4], [1, 2, 1])
    np.testing.assert_array_equal(d2[0, 1:4], [np.inf, 2, np.inf])


def test_the_reach_leaves_out_less_than_float32_resolves():
    gap = PAPER.w0 * np.exp(-(PAPER.reach_px**2) / (2 * PAPER.sigma_px**2))
    assert PAPER.reach_px == 32
    assert np.float32(0.5) + np.float32(gap) == np.float32(0.5)
    nearer = PAPER.w0 * np.exp(-((PAPER.reach_px - 2) ** 2) / (2 * PAPER.sigma_px**2))
    assert np.float32(0.5) + np.float32(nearer) > np.float32(0.5)


def test_a_huge_sigma_reaches_across_the_whole_image():
    labels = np.zeros((9, 400), np.uint8)
    labels[4, 0], labels[4, -1] = 1, 2
    settings = WeightSettings(sigma_px=1000.0)
    assert settings.reach_px > 6000
    assert np.abs(weight_map(labels, settings).weights - weigh_slowly(labels, settings)).max() <= 1e-5


def test_candidates_do_not_depend_on_how_ids_are_numbered():
    labels = draw_cells(1)
    numbers = np.random.default_rng(0).permutation(300).astype(np.int32) + 1
    renamed = np.where(labels > 0, numbers[labels], 0).astype(np.int32)
    for one, other in zip(two_nearest(labels, (1, 1), 50), two_nearest(renamed, (1, 1), 50), strict=True):
        background = labels == 0
        np.testing.assert_array_equal(one[background], other[background])


# -- ridges ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ridge_px", range(6))
@pytest.mark.parametrize("seed", range(3))
def test_ridges_are_cut_where_the_rule_says(seed, ridge_px):
    labels = draw_cells(seed, shape=(40, 44))
    np.testing.assert_array_equal(cut_ridges(labels, ridge_px), cut_slowly(labels, ridge_px))


@pytest.mark.parametrize("ridge_px", [1, 2, 3])
def test_ridges_in_volumes_are_cut_where_the_rule_says(ridge_px):
    labels = draw_cells(5, shape=(9, 20, 22), cells=9)
    np.testing.assert_array_equal(cut_ridges(labels, ridge_px), cut_slowly(labels, ridge_px))


def test_the_authors_ridge_looks_at_west_north_west_north_and_north_east():
    assert ridge_offsets(1, 2).tolist() == [[-1, -1], [-1, 0], [-1, 1], [0, -1]]
    np.testing.assert_array_equal(cut_ridges(np.array([[1, 1], [2, 2]])), [[1, 1], [0, 0]])


def test_objects_no_longer_touch_after_a_ridge_was_cut():
    labels = draw_cells(2)
    assert count_contacts(labels) > 0
    assert count_contacts(cut_ridges(labels)) == 0


def count_contacts(labels) -> int:
    pairs = [(labels[1:], labels[:-1]), (labels[:, 1:], labels[:, :-1]), (labels[1:, 1:], labels[:-1, :-1])]
    pairs.append((labels[1:, :-1], labels[:-1, 1:]))
    return sum(int(((a != b) & (a > 0) & (b > 0)).sum()) for a, b in pairs)


def test_an_object_of_one_pixel_beside_another_vanishes():
    labels = np.array([[1, 1, 0], [1, 2, 0], [0, 0, 0]])
    assert 2 not in cut_ridges(labels)
    assert weight_map(labels).weights.shape == labels.shape


def test_without_a_ridge_nothing_is_cut_and_touching_objects_stay_foreground():
    labels = np.array([[1, 1, 2, 2]])
    found = weight_map(labels, WeightSettings(ridge_px=0))
    assert found.classes.tolist() == [[1, 1, 1, 1]]


# -- class weights and ignored pixels --------------------------------------------------------------------------


def test_class_weights_are_one_on_average_over_all_annotated_pixels():
    counts = [700, 0, 250, 50]
    weights = count_class_weights(counts)
    assert math.isclose(sum(w * n for w, n in zip(weights, counts, strict=True)) / sum(counts), 1)
    assert [w * n for w, n in zip(weights, counts, strict=True) if n] == pytest.approx([1000 / 3] * 3)


def test_counts_beyond_32_bits_do_not_overflow():
    assert count_class_weights(np.array([3 << 40, 1 << 40])) == (2 / 3, 2.0)


@pytest.mark.parametrize("seed", range(4))
def test_ignored_pixels_weigh_nothing_and_are_no_foreground(seed):
    labels, ignored = draw_cells(seed), draw_cells(seed + 50, cells=4) > 0
    classes = np.where(ignored, IGNORE, labels != 0).astype(np.uint8)
    found = weight_map(labels, PAPER, classes=classes)
    np.testing.assert_array_equal(found.classes == IGNORE, ignored)
    assert not found.weights[ignored].any()
    assert np.abs(found.weights - weigh_slowly(labels, PAPER, ignored)).max() <= 1e-5


def test_classes_of_more_than_one_kind_keep_their_weights():
    labels = np.array([[5, 5, 0, 0, 6, 6]])
    classes = np.array([[1, 1, 0, 0, 2, 2]], np.uint8)
    found = weight_map(labels, WeightSettings(w0=0), classes=classes, class_weights=(0.5, 2.0, 3.0))
    np.testing.assert_array_equal(found.weights, np.float32([[2, 2, 0.5, 0.5, 3, 3]]))


def test_without_balance_a_class_weighs_one():
    found = weight_map(draw_cells(0), WeightSettings(balance=False))
    assert set(found.weights[found.classes == 1]) == {1.0}


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (np.zeros((4, 5), np.uint8), 1.0),  # no foreground at all
        (np.ones((4, 5), np.uint8), 1.0),  # a single class
        (np.ones((1, 1), np.uint8), 1.0),
        (np.zeros((1, 1), np.uint8), 1.0),
    ],
    ids=["no foreground", "no background", "one pixel of an object", "one pixel of background"],
)
def test_one_class_alone_weighs_one(labels, expected):
    assert (weight_map(labels).weights == expected).all()


def test_with_a_single_object_there_is_no_border_term():
    labels = np.zeros((20, 20), np.uint8)
    labels[5:9, 5:9] = 3
    assert not border_weights(labels, PAPER).any()


def test_everything_ignored_weighs_nothing():
    found = weight_map(np.ones((3, 3), np.uint8), classes=np.full((3, 3), IGNORE, np.uint8))
    assert not found.weights.any()


# -- input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int8", "uint16", "int32", "uint32", "int64", "uint64"])
def test_every_integer_dtype_gives_the_same_weights(dtype):
    labels = np.zeros((6, 8), dtype)
    labels[2, 1:3] = 1
    np.testing.assert_array_equal(weight_map(labels).weights, weight_map(labels.astype(np.int32)).weights)


def test_ids_beyond_32_bits_stay_distinct_objects():
    labels = np.zeros((5, 9), np.uint64)
    labels[2, 1], labels[2, 6] = 2**63 + 1, 2**33 + 1  # equal in their last 32 bits
    expected = np.where(labels == 0, 0, np.where(labels > 2**62, 1, 2))
    np.testing.assert_array_equal(weight_map(labels).weights, weight_map(expected).weights)
    full = np.full((1, 2), 2**40, np.uint64)  # no background in it
    assert cut_ridges(full).tolist() == [[2**40, 2**40]]


def test_views_that_are_not_contiguous_and_read_only_arrays_are_fine():
    labels = draw_cells(0)
    labels.flags.writeable = False
    np.testing.assert_array_equal(weight_map(labels.T).weights, weight_map(labels.T.copy()).weights)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros((3, 3)), "float64, expected whole numbers"),
        (np.array([[0, -3]]), "hold -3; ids are positive"),
        (np.zeros((0, 3), np.uint8), r"shape \(0, 3\)"),
        (np.zeros((1, 1, 1, 1), np.uint8), "expected 1 to 3 axes"),
    ],
    ids=["float", "negative", "empty", "too many axes"],
)
@pytest.mark.parametrize("function", [weight_map, cut_ridges, nearest_two], ids=lambda function: function.__name__)
def test_labels_that_cannot_be_used_are_refused(labels, message, function):
    with pytest.raises(TrainingDataError, match=message):
        function(labels)


def test_classes_of_another_shape_or_dtype_are_refused():
    labels = np.zeros((3, 4), np.uint8)
    with pytest.raises(TrainingDataError, match=r"expected uint8 of shape \(3, 4\)"):
        weight_map(labels, classes=np.zeros((4, 3), np.uint8))
    with pytest.raises(TrainingDataError, match="classes are int64"):
        weight_map(labels, classes=np.zeros((3, 4), np.int64))


@pytest.mark.parametrize(
    "change",
    [
        {"w0": -1.0},
        {"w0": math.nan},
        {"sigma_px": 0.0},
        {"sigma_px": math.inf},
        {"ridge_px": -1},
        {"ridge_px": 16},
        {"spacing": (0.0, 1.0)},
    ],
    ids=str,
)
def test_settings_out_of_range_are_refused(change):
    with pytest.raises(TrainingDataError, match=next(iter(change))):
        WeightSettings(**change)


def test_spacing_of_another_number_of_axes_is_refused():
    with pytest.raises(TrainingDataError, match="expected 2 distances"):
        weight_map(np.zeros((4, 4), np.uint8), ANISOTROPIC)


def test_the_halo_covers_reach_and_ridge_on_each_axis():
    assert halo(PAPER, 2) == (33, 33)
    assert halo(WeightSettings(w0=0, ridge_px=0), 2) == (0, 0)
    assert halo(ANISOTROPIC, 3) == (math.ceil(ANISOTROPIC.reach_px / 2.5) + 1, *[ANISOTROPIC.reach_px + 1] * 2)
    assert [ridge_halo(WeightSettings(ridge_px=n)) for n in (0, 1, 2, 3)] == [0, 1, 1, 2]
