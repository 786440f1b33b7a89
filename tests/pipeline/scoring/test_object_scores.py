"""Matches against all pairs of objects compared as sets of pixels; SEG against its definition, word by word."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from segment_slide.pipeline.errors import InputError
from segment_slide.pipeline.scoring.contingency import count_pairs, merge_tables, sum_of_squares
from segment_slide.pipeline.scoring.object_scores import (
    find_touching,
    mean_average_precision,
    score_matches,
    score_objects,
    score_seg,
)
from segment_slide.pipeline.scoring.options import IOU_THRESHOLDS

maps_of_ids = hnp.arrays(np.uint16, (6, 7), elements=st.sampled_from([0, 1, 2, 3, 9]))


def objects_of(ids):
    return {number: ids == number for number in set(ids.ravel().tolist()) - {0}}


def matches_one_by_one(truth, predicted, iou):
    """All pairs, compared as sets of pixels."""
    return [
        (number, other)
        for number, mine in objects_of(truth).items()
        for other, theirs in objects_of(predicted).items()
        if Fraction(int((mine & theirs).sum()), int((mine | theirs).sum())) > iou
    ]


def seg_by_definition(frames):
    """Mean over all true objects of all frames of the Jaccard index with the object that holds more than half."""
    scores = []
    for truth, predicted in frames:
        for mine in objects_of(truth).values():
            matches = [other for other in objects_of(predicted).values() if (mine & other).sum() > 0.5 * mine.sum()]
            assert len(matches) <= 1
            scores.append(max(((mine & o).sum() / (mine | o).sum() for o in matches), default=0.0))
    return sum(scores) / len(scores)


def table_of(frames):
    return merge_tables([count_pairs(*pair, frame=number) for number, pair in enumerate(frames)])


def cells(seed, shift=1):
    random = np.random.default_rng(seed)
    truth = ndimage.label(ndimage.gaussian_filter(random.random((60, 60)), 1.5) > 0.5)[0]
    predicted = ndimage.label(np.roll(truth > 0, shift, axis=seed % 2) & (random.random(truth.shape) > 0.02))[0]
    return truth, predicted


# --- matching ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("iou", [0.5, 0.8])
@pytest.mark.parametrize("seed", range(3))
def test_objects_match_as_sets_of_pixels_compared_pair_by_pair_do(seed, iou):
    truth, predicted = cells(seed)
    scores = score_objects(truth, predicted, iou)
    expected = matches_one_by_one(truth, predicted, iou)
    assert 0 < scores.n_matched < scores.n_truth or iou == 0.8
    assert scores.n_matched == len(expected) == len({number for number, _ in expected})
    assert (scores.n_truth, scores.n_predicted) == (truth.max(), predicted.max())


@given(truth=maps_of_ids, predicted=maps_of_ids)
def test_matches_of_any_two_maps_are_unique_and_those_of_the_brute_force(truth, predicted):
    for scores in score_matches(count_pairs(truth, predicted)):
        expected = matches_one_by_one(truth, predicted, Fraction(scores.iou).limit_denominator(1000))
        assert scores.n_matched == len(expected) == len({a for a, _ in expected}) == len({b for _, b in expected})


def test_an_iou_on_the_threshold_is_no_match_whatever_the_rounding():
    truth = np.ones(100, int)
    for percent in range(50, 100):
        found = (np.arange(100) < percent).astype(int)
        below, above = score_matches(count_pairs(truth, found), [percent / 100, percent / 100 - 0.001 * (percent > 50)])
        assert below.n_matched == 0
        assert above.n_matched == (percent > 50)


def test_a_perfect_result_scores_one_and_an_empty_one_zero():
    truth = np.kron(np.array([[1, 0, 2], [0, 3, 0]]), np.ones((4, 4), int))
    perfect, empty = score_objects(truth, truth * 7), score_objects(truth, np.zeros_like(truth))
    assert (perfect.f1, perfect.precision, perfect.recall, perfect.average_precision) == (1, 1, 1, 1)
    assert (empty.f1, empty.precision, empty.recall, empty.touching_recall, empty.average_precision) == (0,) * 5
    nothing = score_objects(np.zeros_like(truth), np.zeros_like(truth))
    assert (nothing.n_truth, nothing.f1) == (0, 0)


def test_precision_counts_false_objects_and_recall_missed_ones():
    truth, found = np.array([[1, 1, 0, 2, 2, 0, 3, 3]]), np.array([[4, 4, 0, 5, 0, 6, 0, 0]])
    scores = score_objects(truth, found)
    assert (scores.n_matched, scores.precision, scores.recall) == (1, 1 / 3, 1 / 3)
    assert (scores.f1, scores.average_precision) == (1 / 3, 1 / 5)


def test_equal_ids_in_different_frames_are_different_objects():
    truth, found = np.array([[1, 1, 0]]), np.array([[0, 1, 1]])
    frames = [(truth, truth), (truth, found)]
    scores = score_matches(table_of(frames), [0.5])[0]
    assert (scores.n_truth, scores.n_predicted, scores.n_matched) == (2, 2, 1)
    as_one = score_matches(count_pairs(*map(np.stack, zip(*frames, strict=True))), [0.5])[0]
    assert (as_one.n_truth, as_one.n_matched) == (1, 1)


def test_the_mean_average_precision_is_that_of_the_data_science_bowl():
    truth, predicted = cells(1)
    expected = []
    for iou in IOU_THRESHOLDS:
        n = len(matches_one_by_one(truth, predicted, Fraction(iou).limit_denominator(1000)))
        expected.append(n / (truth.max() + predicted.max() - n))
    assert mean_average_precision(score_matches(count_pairs(truth, predicted))) == pytest.approx(np.mean(expected))
    assert 0 < np.mean(expected) < 1


@pytest.mark.parametrize("iou", [0.4, 0, 1, -1, float("nan")])
def test_a_threshold_at_which_matches_are_not_unique_is_refused(iou):
    with pytest.raises(ValueError, match=f"iou={iou}"):
        score_objects(np.zeros((2, 2), int), np.zeros((2, 2), int), iou=iou)


def test_below_half_two_objects_would_match_the_same_one():
    truth, found = np.array([[1, 1, 2, 2]]), np.array([[5, 5, 5, 5]])
    assert len(matches_one_by_one(truth, found, Fraction(2, 5))) == 2


# --- SEG ---------------------------------------------------------------------------------------------------------


@given(pairs=st.lists(st.tuples(maps_of_ids, maps_of_ids), min_size=1, max_size=3))
def test_seg_is_its_definition_over_all_objects_of_all_frames(pairs):
    if any(truth.any() for truth, _ in pairs):
        assert score_seg(table_of(pairs)) == pytest.approx(seg_by_definition(pairs), abs=1e-12)


def test_half_of_an_object_is_no_match_and_one_pixel_more_is():
    truth = np.array([[1, 1, 1, 1]])
    assert score_seg(count_pairs(truth, np.array([[3, 3, 0, 0]]))) == 0
    assert score_seg(count_pairs(truth, np.array([[3, 3, 3, 0]]))) == 0.75


def test_false_positives_cost_nothing_in_seg():
    truth = np.array([[1, 1, 0, 0]])
    assert score_seg(count_pairs(truth, np.array([[1, 1, 2, 3]]))) == 1


def test_seg_weighs_objects_and_not_frames():
    one, three = np.array([[1, 0, 0]]), np.array([[1, 2, 3]])
    frames = [(one, one), (three, np.zeros_like(three))]
    assert score_seg(table_of(frames)) == 1 / 4


def test_one_found_object_matches_two_true_ones_in_seg():
    truth, found = np.array([[1, 1, 2, 2]]), np.array([[5, 5, 5, 5]])
    assert score_seg(count_pairs(truth, found)) == 0.5


def test_a_truth_without_objects_has_no_seg():
    with pytest.raises(InputError, match="no object in any frame"):
        score_seg(count_pairs(np.zeros((1, 1), int), np.ones((1, 1), int)))


# --- touching ----------------------------------------------------------------------------------------------------


def test_two_touching_cells_that_became_one_object_count_as_not_separated():
    truth = np.zeros((10, 30), int)
    truth[2:8, 2:8], truth[2:8, 9:15], truth[2:8, 20:26] = 1, 2, 3
    merged = ndimage.label(ndimage.binary_closing(truth > 0, np.ones((1, 3))))[0]
    scores = score_objects(truth, merged)
    assert (scores.n_touching, scores.n_touching_matched, scores.n_matched) == (2, 0, 1)
    assert score_objects(truth, truth).n_touching_matched == 2


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.uint64])
def test_cells_touch_across_a_ridge_of_one_pixel_and_not_across_a_gap_of_two(dtype):
    truth = np.zeros((5, 12), dtype)
    truth[1, 1], truth[3, 3], truth[:, 6], truth[:, 9] = 1, 2, 3, 4
    assert find_touching(truth).tolist() == [1, 2]


def test_large_ids_that_floats_confuse_are_told_apart():
    big = 2**60
    assert float(big) == float(big + 1)
    ids = np.array([[big, big + 1, 0, 0, 0, 5]], np.uint64)
    assert find_touching(ids).tolist() == [big, big + 1]
    assert score_objects(ids, np.where(ids == big + 1, big, ids)).n_matched == 1


@given(ids=maps_of_ids)
def test_touching_objects_of_a_box_and_its_surroundings_are_those_of_the_whole(ids):
    parts = set()
    for rows in (slice(0, 3), slice(3, 6)):
        wide = slice(max(0, rows.start - 2), min(6, rows.stop + 2))
        own = (slice(rows.start - wide.start, rows.stop - wide.start), slice(0, 7))
        parts |= set(find_touching(ids[wide], own).tolist())
    assert parts == set(find_touching(ids).tolist())


# --- tables ------------------------------------------------------------------------------------------------------


@given(truth=maps_of_ids, predicted=maps_of_ids, ignore=st.sampled_from([None, 9]))
def test_a_table_counts_each_pair_of_ids(truth, predicted, ignore):
    table = count_pairs(truth, predicted, ignore=ignore)
    expected = {}
    for pair in zip(truth.ravel().tolist(), predicted.ravel().tolist(), strict=True):
        if pair[0] != ignore:
            expected[pair] = expected.get(pair, 0) + 1
    rows = zip(table.truth.tolist(), table.predicted.tolist(), table.n_pixels.tolist(), strict=True)
    assert [((a, b), n) for a, b, n in rows] == sorted(expected.items())
    areas = table.areas("truth")
    assert dict(zip(areas.ids.tolist(), areas.n_pixels.tolist(), strict=True)) == {
        number: mine.sum() for number, mine in objects_of(truth).items() if number != ignore
    }


def test_squares_of_a_trillion_pixels_are_exact():
    counts = np.array([10**12, 10**12 + 1, 3, 3])
    assert sum_of_squares(counts) == 10**24 + (10**12 + 1) ** 2 + 18
    assert int((counts.astype(np.int64) ** 2).sum()) != sum_of_squares(counts)


def test_merging_nothing_is_an_empty_table_of_ids():
    nothing = merge_tables([])
    some = count_pairs(np.array([2**63 + 1], np.uint64), np.array([0]))
    assert (len(nothing), nothing.truth.dtype) == (0, np.uint64)
    assert merge_tables([nothing, some]).truth.tolist() == [2**63 + 1]
