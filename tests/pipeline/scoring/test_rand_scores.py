"""Rand scores against pairs counted one by one, and against scikit-image after giving lone pixels ids."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from skimage.metrics import adapted_rand_error, variation_of_information

from segment_slide.pipeline.errors import InputError
from segment_slide.pipeline.scoring.contingency import Contingency, count_pairs, merge_tables
from segment_slide.pipeline.scoring.rand_scores import label_components, score_rand, thin_borders

small = hnp.arrays(np.uint8, (4, 5), elements=st.integers(0, 3))


def pairs_one_by_one(truth, predicted):
    """Over all pairs of true foreground pixels: together in both, in the truth, in the proposal; all."""
    pixels = [(a, b) for a, b in zip(truth.ravel().tolist(), predicted.ravel().tolist(), strict=True) if a]
    both = true = found = total = 0
    for (a, b), (c, d) in itertools.combinations(pixels, 2):
        in_truth, in_found = a == c, b == d and b > 0
        both, true, found, total = both + (in_truth and in_found), true + in_truth, found + in_found, total + 1
    return both, true, found, total


def give_ids_to_background(predicted):
    """Each background pixel as a segment of its own."""
    ids = predicted.astype(np.int64)
    alone = ids == 0
    ids[alone] = ids.max() + 1 + np.arange(alone.sum())
    return ids


@given(truth=small, predicted=small)
def test_the_scores_are_those_of_pairs_counted_one_by_one(truth, predicted):
    if not truth.any():
        return
    both, true, found, total = pairs_one_by_one(truth, predicted)
    scores = score_rand(count_pairs(truth, predicted))
    assert scores.error == ((true + found - 2 * both) / total if total else 0)
    assert scores.precision == (both / found if found else 1)
    assert scores.recall == (both / true if true else 1)
    assert scores.f_score == (2 * both / (true + found) if true + found else 1)


@given(truth=small, predicted=small)
def test_with_background_it_is_the_textbooks_rand_index(truth, predicted):
    if not truth.any():
        return
    pixels = list(zip(truth.ravel().tolist(), predicted.ravel().tolist(), strict=True))
    disagree = sum((a == c) != (b == d) for (a, b), (c, d) in itertools.combinations(pixels, 2))
    expected = disagree / (len(pixels) * (len(pixels) - 1) // 2)
    assert score_rand(count_pairs(truth, predicted)).error_with_background == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize("seed", range(3))
def test_f_and_v_scores_are_those_of_scikit_image(seed):
    random = np.random.default_rng(seed)
    truth = label_components(ndimage.gaussian_filter(random.random((50, 60)), 1.5) > 0.49)
    predicted = label_components(np.roll(truth > 0, 1, axis=1) & (random.random(truth.shape) > 0.1))
    scores = score_rand(count_pairs(truth, predicted))
    ids = give_ids_to_background(predicted)
    error, recall, precision = adapted_rand_error(truth, ids)  # it returns these two in the order opposite to its help
    assert (1 - scores.f_score, scores.precision, scores.recall) == pytest.approx((error, precision, recall))
    kept = truth > 0
    split, merge = variation_of_information(truth, ids, ignore_labels=(0,))
    of_truth, of_found = (
        -sum(p * np.log2(p) for p in np.unique(labels[kept], return_counts=True)[1] / kept.sum())
        for labels in (truth, ids)
    )
    expected = (of_truth + of_found - split - merge) / (of_truth + of_found)
    assert scores.v_info == pytest.approx(expected)
    assert 0 < scores.v_info < 1
    squares = [np.unique(labels[kept], return_counts=True)[1] for labels in (truth, ids, truth * 10**6 + ids)]
    a, b, both = ((n.astype(float) ** 2).sum() for n in squares)
    assert scores.v_rand == pytest.approx(2 * both / (a + b))


def test_background_of_the_proposal_matters_and_that_of_the_truth_does_not():
    truth = np.array([[1, 1, 1, 0, 2, 2, 2]])
    perfect = score_rand(count_pairs(truth, truth))
    wider = score_rand(count_pairs(truth, np.array([[1, 1, 0, 0, 0, 2, 2]])))
    filled = score_rand(count_pairs(truth, np.array([[1, 1, 1, 1, 2, 2, 2]])))
    assert perfect.error == filled.error == 0
    assert perfect.v_rand == filled.v_rand == 1
    assert wider.error > 0
    assert wider.v_rand < 1


def test_a_merge_of_everything_and_a_split_of_everything_are_told_apart():
    truth = np.array([[1, 1, 1, 2, 2, 2]])
    merged, split = (score_rand(count_pairs(truth, found)) for found in (np.ones((1, 6), int), np.zeros((1, 6), int)))
    assert (merged.recall, split.precision, split.recall) == (1, 1, 0)
    assert merged.precision == 6 / 15
    assert (merged.v_info, split.error) == (0, 6 / 15)


@pytest.mark.parametrize("value", [0, 1])
def test_one_true_pixel_has_no_pair_to_disagree_on(value):
    scores = score_rand(count_pairs(np.ones((1, 1), int), np.full((1, 1), value)))
    assert (scores.error, scores.f_score, scores.v_rand, scores.v_info) == (0, 1, 1, 1)


def test_frames_are_averaged_and_those_without_foreground_left_out():
    truth, found = np.array([[1, 1, 2, 2]]), np.array([[1, 1, 1, 1]])
    empty = np.zeros_like(truth)
    tables = [count_pairs(*pair, frame=n) for n, pair in enumerate([(truth, truth), (truth, found), (empty, found)])]
    single = score_rand(tables[1])
    assert single.error > 0
    assert score_rand(merge_tables(tables)).error == single.error / 2


def test_a_truth_without_foreground_is_refused():
    with pytest.raises(InputError, match="no foreground"):
        score_rand(count_pairs(np.zeros((2, 2), int), np.ones((2, 2), int)))


def test_a_trillion_pixels_are_scored_exactly():
    n = 10**12
    column = np.array([0, 0]), np.array([1, 1], np.uint64), np.array([1, 2], np.uint64)
    scores = score_rand(Contingency(*column, np.array([n, 1])))
    assert scores.error == 2 * n / ((n + 1) * n)
    assert scores.v_rand == 2 * (n * n + 1) / ((n + 1) ** 2 + n * n + 1)


# --- components and borders ------------------------------------------------------------------------------------------


def test_components_hang_together_by_edges_and_not_by_corners():
    assert label_components(np.eye(3, dtype=bool)).max() == 3


@pytest.mark.parametrize("seed", range(3))
def test_thinning_keeps_every_segment_and_leaves_borders_of_one_pixel(seed):
    random = np.random.default_rng(seed)
    found = label_components(ndimage.gaussian_filter(random.random((70, 80)), 2) > 0.5)
    thinned = thin_borders(found)
    assert (thinned[found > 0] == found[found > 0]).all()
    assert 0 < (thinned == 0).sum() < (found == 0).sum() / 2
    assert label_components(thinned > 0).max() == found.max()  # no two grew together, the image's edge included
    assert not ndimage.binary_erosion(thinned == 0, np.ones((3, 3))).any()


def test_thinning_nothing_or_everything_changes_nothing():
    assert not thin_borders(np.zeros((3, 3), int)).any()
    assert thin_borders(np.ones((3, 3), int)).all()


def test_thinning_forgives_the_width_of_borders_and_not_their_absence():
    truth = np.array([[1, 1, 1, 1, 0, 2, 2, 2, 2]] * 3)
    wide = np.array([[1, 1, 1, 0, 0, 0, 2, 2, 2]] * 3)
    assert score_rand(count_pairs(truth, wide)).v_rand < 1
    assert score_rand(count_pairs(truth, thin_borders(wide))).v_rand == 1
    assert score_rand(count_pairs(truth, thin_borders(np.ones_like(truth)))).v_rand < 1
