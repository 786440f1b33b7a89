"""Simple points against labelled neighbourhoods; the compiled warp against a plain one; the challenge's rule."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from segment_slide.pipeline.errors import InputError
from segment_slide.pipeline.scoring.membrane_scores import THRESHOLDS, score_membranes, score_thresholds
from segment_slide.pipeline.scoring.pixel_scores import pixel_error
from segment_slide.pipeline.scoring.warping import NEIGHBOURS, simple_points, warp, warping_error

EIGHT = np.ones((3, 3), int)
FOUR = ndimage.generate_binary_structure(2, 1)


def is_simple(patch):
    """Topological numbers by labelling: one 4-component of foreground at an edge, one 8-component of background."""
    around = EIGHT.astype(bool)
    around[1, 1] = False
    components = ndimage.label(patch.astype(bool) & around, FOUR)[0]
    at_edges = {int(components[1 + dy, 1 + dx]) for dy, dx in NEIGHBOURS[::2]} - {0}
    return len(at_edges) == 1 and ndimage.label(~patch.astype(bool) & around, EIGHT)[1] == 1


def warp_plainly(truth, probability, threshold):
    """Passes over mismatches, the most confident first, until one flips nothing."""
    warped, proposal = np.pad(truth > 0, 1).astype(int), probability > threshold
    while True:
        mismatches = [tuple(p) for p in np.argwhere((warped[1:-1, 1:-1] > 0) != proposal)]
        mismatches.sort(key=lambda p: -abs(probability[p] - threshold))
        n_flipped = 0
        for y, x in mismatches:
            if is_simple(warped[y : y + 3, x : x + 3]):
                warped[y + 1, x + 1] ^= 1
                n_flipped += 1
        if not n_flipped:
            return warped[1:-1, 1:-1] > 0


def membranes(seed, size=40):
    """Cells with thin membranes, and a noisy map of them that is shifted by a pixel."""
    random = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(random.random((size, size)), 3)
    truth = np.abs(noise - noise.mean()) > 0.2 * noise.std()
    probability = ndimage.gaussian_filter(np.roll(truth, 1, 0).astype(float), 0.7) + random.normal(0, 0.15, truth.shape)
    return truth, probability.clip(0, 1).round(2)


# --- simple points -----------------------------------------------------------------------------------------------


def test_all_256_neighbourhoods_are_simple_where_labelling_says_so():
    for code in range(256):
        patch = np.zeros((3, 3), int)
        for bit, (dy, dx) in enumerate(NEIGHBOURS):
            patch[1 + dy, 1 + dx] = code >> bit & 1
        assert simple_points()[code] == is_simple(patch), patch
    assert 0 < simple_points().sum() < 256


def test_an_eight_connected_foreground_would_be_another_table():
    swapped = simple_points()[255 - np.arange(256)]
    assert (swapped != simple_points()).any()


# --- warping -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threshold", [0.2, 0.5])
@pytest.mark.parametrize("seed", range(3))
def test_the_compiled_warp_is_the_plain_one(seed, threshold):
    truth, probability = membranes(seed)
    expected = warp_plainly(truth, probability, threshold)
    assert (warp(truth, probability, threshold) == expected).all()
    assert (expected != truth).any()


@given(
    truth=hnp.arrays(bool, (6, 7)),
    probability=hnp.arrays(np.float64, (6, 7), elements=st.sampled_from([0.0, 0.3, 0.5, 0.7, 1.0])),
)
def test_the_compiled_warp_is_the_plain_one_for_anything_with_ties(truth, probability):
    assert (warp(truth, probability) == warp_plainly(truth, probability, 0.5)).all()


@pytest.mark.parametrize("seed", range(3))
def test_warping_keeps_the_number_of_cells_and_of_holes(seed):
    truth, probability = membranes(seed)
    warped = warp(truth, probability)
    assert (warped != truth).any()
    for mask in (truth, warped):
        counts = ndimage.label(np.pad(mask, 1), FOUR)[1], ndimage.label(~np.pad(mask, 1), EIGHT)[1]
        assert counts == (ndimage.label(np.pad(truth, 1), FOUR)[1], ndimage.label(~np.pad(truth, 1), EIGHT)[1])


def test_a_membrane_that_is_one_pixel_off_costs_nothing_and_a_gap_costs():
    truth = np.ones((9, 9), int)
    truth[:, 4] = 0
    shifted, broken = np.ones((9, 9)), np.ones((9, 9))
    shifted[:, 5] = 0
    broken[np.arange(9) != 4, 4] = 0
    assert pixel_error(truth, shifted) > 0
    assert warping_error(truth, shifted) == 0
    assert warping_error(truth, broken) == pixel_error(truth, broken) == 1 / 81


def test_beyond_the_image_is_background():
    truth, probability = np.ones((3, 3), int), np.ones((3, 3))
    probability[0, 1] = 0
    assert warping_error(truth, probability) == 0  # opens to the outside: no hole
    probability[0, 1], probability[1, 1] = 1, 0
    assert warping_error(truth, probability) == 1 / 9


@pytest.mark.parametrize("found", [0.0, 1.0])
@pytest.mark.parametrize("true", [0, 1])
def test_one_pixel_cannot_appear_or_vanish(true, found):
    assert warping_error(np.full((1, 1), true), np.full((1, 1), found)) == (true != found)


@pytest.mark.parametrize(("true", "found", "left"), [(0, 1.0, 1), (1, 0.0, 1 / 25), (0, 0.0, 0), (1, 1.0, 0)])
def test_all_foreground_shrinks_to_one_pixel_and_nothing_grows_from_nothing(true, found, left):
    assert warping_error(np.full((5, 5), true), np.full((5, 5), found)) == left


def test_inputs_are_left_as_they_were():
    truth, probability = membranes(0)
    before = truth.copy(), probability.copy()
    warp(truth, probability)
    assert (truth == before[0]).all()
    assert (probability == before[1]).all()


def test_a_slice_of_the_challenge_takes_no_more_than_two_seconds():
    truth, probability = membranes(0, 512)
    warping_error(truth[:8, :8], probability[:8, :8])  # compiles
    began = time.process_time()
    warping_error(truth, probability)
    assert time.process_time() - began < 2


def test_volumes_and_probabilities_that_are_none_are_refused():
    with pytest.raises(InputError, match=r"expected \(y, x\)"):
        warp(np.ones((2, 2, 2), int), np.ones((2, 2, 2)))
    with pytest.raises(InputError, match="not within"):
        warp(np.ones((2, 2), int), np.array([[0.5, np.nan], [0, 1]]))
    with pytest.raises(InputError, match="same pixels"):
        warp(np.ones((2, 2), int), np.ones((2, 3)))


# --- the challenge's rule ----------------------------------------------------------------------------------------


def test_each_error_is_the_smallest_over_thresholds_with_its_own_threshold():
    truth, probability = membranes(1)
    table = score_thresholds(truth, probability)
    scores = score_membranes(truth, probability)
    assert table.shape == (11, 6)
    assert scores.pixel_error.value == min(pixel_error(truth, probability, t) for t in THRESHOLDS)
    assert scores.warping_error.value == min(warping_error(truth, probability, t) for t in THRESHOLDS)
    assert (scores.rand_error.value, scores.v_rand.value) == (table[:, 1].min(), table[:, 4].max())
    assert scores.pixel_error.value == pixel_error(truth, probability, scores.pixel_error.threshold)
    assert table[:, 0].max() > scores.pixel_error.value


def test_of_a_stack_the_mean_over_slices_is_minimised():
    stack = [membranes(seed) for seed in (1, 2)]
    truth, probability = map(np.stack, zip(*stack, strict=True))
    probability[1] = 1 - (1 - probability[1]) / 3  # best at another threshold than the first
    means = np.mean([score_thresholds(t, p) for t, p in zip(truth, probability, strict=True)], axis=0)
    scores = score_membranes(truth, probability)
    assert scores.pixel_error.value == means[:, 0].min()
    own = [score_membranes(t, p).pixel_error.value for t, p in zip(truth, probability, strict=True)]
    assert scores.pixel_error.value > np.mean(own)


def test_a_perfect_map_has_no_error_at_its_first_threshold():
    truth = membranes(3)[0]
    scores = score_membranes(truth, truth.astype(np.float32))
    assert (scores.pixel_error.value, scores.rand_error.value, scores.warping_error.value) == (0, 0, 0)
    assert scores.pixel_error.threshold == 0
    assert (scores.rand_f_score.value, scores.v_rand.value) == (1, 1)
    assert scores.v_info.value == pytest.approx(1)


def test_one_pixel_is_scored():
    scores = score_membranes(np.ones((1, 1), int), np.full((1, 1), 0.35))
    assert (scores.pixel_error.value, scores.warping_error.value, scores.rand_error.value) == (0, 0, 0)


def test_all_foreground_is_scored_and_all_background_refused():
    found = np.full((4, 4), 0.9)
    assert score_membranes(np.ones((4, 4), int), found).rand_error.value == 0
    with pytest.raises(InputError, match="no cell"):
        score_membranes(np.zeros((4, 4), int), found)
