"""Confusion matrices against boolean arithmetic, class by class; parts added up against the whole."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from segment_slide.pipeline.errors import InputError
from segment_slide.pipeline.scoring.pixel_scores import (
    IGNORE,
    Confusion,
    as_probability,
    count_confusion,
    pixel_error,
    score_pixels,
)

class_maps = hnp.arrays(np.uint8, (7, 9), elements=st.sampled_from([0, 1, 2, 7, IGNORE]))


@given(truth=class_maps, predicted=class_maps)
def test_scores_are_those_of_boolean_masks_class_by_class(truth, predicted):
    kept = truth != IGNORE
    confusion = count_confusion(truth, predicted)
    assert confusion.n_pixels == kept.sum()
    assert confusion.n_ignored == (~kept).sum()
    if not kept.any():
        return
    assert confusion.accuracy == (truth[kept] == predicted[kept]).mean()
    assert confusion.accuracy + confusion.pixel_error == pytest.approx(1)
    for found in confusion.classes():
        mine, theirs = (truth == found.value) & kept, (predicted == found.value) & kept
        assert found.iou == (mine & theirs).sum() / (mine | theirs).sum()
        assert found.dice == 2 * (mine & theirs).sum() / (mine.sum() + theirs.sum())
    listed = set(truth[kept].tolist()) | set(predicted[kept].tolist())
    assert {found.value for found in confusion.classes()} == listed - {IGNORE}


@given(truth=class_maps, predicted=class_maps, row=st.integers(1, 6), column=st.integers(1, 8))
def test_parts_add_up_to_the_whole(truth, predicted, row, column):
    parts = [
        count_confusion(truth[rows, columns], predicted[rows, columns])
        for rows in (slice(0, row), slice(row, None))
        for columns in (slice(0, column), slice(column, None))
    ]
    total = sum(parts, Confusion(np.zeros((256, 256), np.int64)))
    whole = count_confusion(truth, predicted)
    assert (total.counts == whole.counts).all()
    assert total.n_ignored == whole.n_ignored


def test_ignored_pixels_change_nothing_and_without_ignoring_they_do():
    truth, predicted = np.array([0, 1, 1, IGNORE]), np.array([0, 1, 0, 1])
    other = np.array([0, 1, 0, 0])
    assert (count_confusion(truth, predicted).counts == count_confusion(truth, other).counts).all()
    kept = count_confusion(truth, predicted, None), count_confusion(truth, other, None)
    assert not (kept[0].counts == kept[1].counts).all()


def test_a_prediction_of_the_ignored_value_is_wrong_and_no_class():
    confusion = count_confusion(np.array([1, 1]), np.array([1, IGNORE]))
    assert (confusion.accuracy, [found.value for found in confusion.classes()]) == (0.5, [1])


def test_a_class_that_is_nowhere_agrees_with_itself():
    empty = np.zeros((3, 3), int)
    assert (score_pixels(empty, empty).iou, score_pixels(empty, empty).dice) == (1, 1)


def test_masks_score_as_before_for_bool_and_integers():
    truth, predicted = np.array([0, 1, 1, 1]), np.array([0, 0, 1, 1])
    assert score_pixels(truth, predicted) == score_pixels(truth > 0, predicted > 0)
    assert score_pixels(truth > 0, truth > 0).iou == 1
    assert score_pixels(truth > 0, truth < 0).dice == 0


def test_all_pixels_ignored_is_an_error_and_not_a_score():
    confusion = count_confusion(np.full((2, 2), IGNORE), np.ones((2, 2), int))
    for score in ("accuracy", "pixel_error", "mean_iou", "mean_dice"):
        with pytest.raises(InputError, match="nothing to compare"):
            getattr(confusion, score)


@pytest.mark.parametrize(
    ("truth", "predicted", "words"),
    [
        (np.zeros((2, 3), int), np.zeros((3, 2), int), "same pixels"),
        (np.zeros((0, 3), int), np.zeros((0, 3), int), "no pixels"),
        (np.zeros((2, 2)), np.zeros((2, 2), int), "truth: dtype=float64"),
        (np.zeros((2, 2), int), np.full((2, 2), -1), "predicted: value -1"),
        (np.full((2, 2), 256), np.zeros((2, 2), int), "compared as instances"),
    ],
)
def test_what_are_no_class_maps_is_refused(truth, predicted, words):
    with pytest.raises(InputError, match=words):
        count_confusion(truth, predicted)


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 1.0])
def test_the_pixel_error_counts_what_differs_after_thresholding(threshold):
    random = np.random.default_rng(0)
    truth, probability = random.random((20, 30)) > 0.4, random.random((20, 30)).round(1)
    expected = ((probability > threshold) != truth).mean()
    assert pixel_error(truth, probability, threshold) == expected
    assert 0 < expected < 1


def test_foreground_lies_above_the_threshold_and_not_on_it():
    assert pixel_error(np.ones((1, 1), int), np.ones((1, 1)), 1.0) == 1
    assert pixel_error(np.ones((1, 1), int), np.ones((1, 1)), 0.9) == 0
    assert pixel_error(np.zeros((1, 1), int), np.zeros((1, 1)), 0.0) == 0


def test_bytes_are_probabilities_in_255ths():
    values = np.arange(256, dtype=np.uint8)
    assert (as_probability(values) == np.arange(256) / 255).all()


@pytest.mark.parametrize("bad", [np.nan, -0.1, 1.1, np.inf])
def test_a_probability_that_is_none_is_refused_with_its_place(bad):
    probability = np.full((2, 3), 0.5)
    probability[1, 2] = bad
    with pytest.raises(InputError, match=r"1 value\(s\).*\(1, 2\)"):
        pixel_error(np.ones((2, 3), int), probability)
    with pytest.raises(InputError, match="dtype=int64"):
        as_probability(np.ones((2, 3), int))
