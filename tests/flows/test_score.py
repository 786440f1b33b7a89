"""Scores of class maps and objects."""

import numpy as np
import pytest
from scipy import ndimage

from flows.score import find_touching, score_objects, score_pixels


def matches_one_by_one(truth, predicted, iou):
    """All pairs, compared as sets of pixels."""
    found = []
    for number in set(truth.ravel()) - {0}:
        for other in set(predicted.ravel()) - {0}:
            mine, theirs = truth == number, predicted == other
            if (mine & theirs).sum() > iou * (mine | theirs).sum():
                found.append((number, other))
    return found


@pytest.mark.parametrize("iou", [0.5, 0.8])
@pytest.mark.parametrize("seed", range(3))
def test_objects_match_as_sets_of_pixels_compared_pair_by_pair_do(seed, iou):
    random = np.random.default_rng(seed)
    truth = ndimage.label(ndimage.gaussian_filter(random.random((60, 60)), 1.5) > 0.5)[0]
    predicted = ndimage.label(np.roll(truth > 0, 1, axis=seed % 2) & (random.random(truth.shape) > 0.02))[0]
    scores = score_objects(truth, predicted, iou)
    expected = matches_one_by_one(truth, predicted, iou)
    assert 0 < scores.n_matched < scores.n_truth or iou == 0.8
    assert scores.n_matched == len(expected) == len({number for number, _ in expected})
    assert (scores.n_truth, scores.n_predicted) == (truth.max(), predicted.max())


def test_a_perfect_result_scores_one_and_an_empty_one_zero():
    truth = np.kron(np.array([[1, 0, 2], [0, 3, 0]]), np.ones((4, 4), int))
    perfect, empty = score_objects(truth, truth * 7), score_objects(truth, np.zeros_like(truth))
    assert (perfect.f1, perfect.precision, perfect.recall) == (1, 1, 1)
    assert (empty.f1, empty.precision, empty.recall, empty.touching_recall) == (0, 0, 0, 0)
    assert score_pixels(truth > 0, truth > 0).iou == 1
    assert score_pixels(truth > 0, truth < 0).dice == 0


def test_two_touching_cells_that_became_one_object_count_as_not_separated():
    truth = np.zeros((10, 30), int)
    truth[2:8, 2:8], truth[2:8, 9:15], truth[2:8, 20:26] = 1, 2, 3
    merged = ndimage.label(ndimage.binary_closing(truth > 0, np.ones((1, 3))))[0]
    scores = score_objects(truth, merged)
    assert (scores.n_touching, scores.n_touching_matched, scores.n_matched) == (2, 0, 1)
    assert score_objects(truth, truth).n_touching_matched == 2


def test_cells_touch_across_a_ridge_of_one_pixel_and_not_across_a_gap_of_two():
    truth = np.zeros((5, 12), np.uint32)
    truth[1, 1], truth[3, 3], truth[:, 6], truth[:, 9] = 1, 2, 3, 4
    assert find_touching(truth).tolist() == [1, 2]


def test_a_threshold_at_which_matches_are_not_unique_is_refused():
    with pytest.raises(ValueError, match=r"iou=0\.4"):
        score_objects(np.zeros((2, 2), int), np.zeros((2, 2), int), iou=0.4)


def test_a_class_that_is_nowhere_agrees_with_itself():
    empty = np.zeros((3, 3), int)
    assert (score_pixels(empty, empty).iou, score_pixels(empty, empty).dice) == (1, 1)
