"""The errors of the EM segmentation challenge (ISBI 2012), each at its best threshold."""

from collections.abc import Iterable
from dataclasses import dataclass, fields

import numpy as np

from segment_slide.pipeline.errors import InputError
from segment_slide.pipeline.scoring.contingency import as_ids, check_same_shape, count_pairs
from segment_slide.pipeline.scoring.pixel_scores import as_probability, pixel_error
from segment_slide.pipeline.scoring.rand_scores import label_components, score_rand, thin_borders
from segment_slide.pipeline.scoring.warping import warping_error

THRESHOLDS = tuple(step / 10 for step in range(11))
_ERRORS = ("pixel_error", "rand_error", "warping_error")  # smaller is better; for the other scores, larger


@dataclass(frozen=True)
class Best:
    """A score at its best threshold; at the lowest of these, if several thresholds are equally good."""

    value: float
    threshold: float


@dataclass(frozen=True)
class MembraneScores:
    """Scores of a probability map of cells (white) compared with cells and membranes, each at its best threshold.

    Attributes
    ----------
    pixel_error, rand_error, warping_error : Best
        See `pixel_error`, `RandScores.error` (of 4-connected components) and `warping_error`.
    rand_f_score : Best
        Foreground-restricted Rand F-score; 1 - this is the "Rand error" that the challenge's site listed.
    v_rand, v_info : Best
        After thinning of the proposal's borders (2013 on).
    """

    pixel_error: Best
    rand_error: Best
    warping_error: Best
    rand_f_score: Best
    v_rand: Best
    v_info: Best


def score_membranes(truth: np.ndarray, probability: np.ndarray) -> MembraneScores:
    """Score a slice or a stack as the EM challenge did: thresholds 0.0 to 1.0 in steps of 0.1, the best for each error.

    Parameters
    ----------
    truth : ndarray of int or bool, (y, x) or (z, y, x)
        Cells are above 0, membranes are 0.
    probability : ndarray of float in [0, 1] or of uint8, the same shape
        Probability of cells.

    Returns
    -------
    MembraneScores
        For a stack, scores are averaged over slices at each threshold, and the best of these means is taken.

    Raises
    ------
    InputError
        If shapes differ, a probability is NaN or outside [0, 1], or a slice of the truth has no cell.

    Examples
    --------
    >>> truth = np.array([[1, 1, 0, 1, 1]])
    >>> score_membranes(truth, np.array([[0.9, 0.9, 0.35, 0.9, 0.8]])).pixel_error
    Best(value=0.0, threshold=0.4)
    """
    check_same_shape(truth, probability)
    if truth.ndim not in (2, 3):
        raise InputError(f"truth has shape {truth.shape}, expected (y, x) or (z, y, x).")
    slices = zip(np.atleast_3d(truth.T).T, np.atleast_3d(probability.T).T, strict=True)
    return best_scores([score_thresholds(true, found) for true, found in slices])


def score_thresholds(truth: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """All scores of one slice at all thresholds.

    Returns
    -------
    ndarray of float64, (11, 6)
        One row per threshold, columns as `MembraneScores`.
    """
    probability = as_probability(probability)
    if not as_ids(truth, "truth").any():
        raise InputError(
            "a slice of the truth has no cell (nothing above 0): there is no pair of pixels for the Rand error. "
            "Is the truth empty, or are its values inverted?"
        )
    components = label_components(truth > 0)
    return np.array([_score_threshold(truth, components, probability, threshold) for threshold in THRESHOLDS])


def _score_threshold(
    truth: np.ndarray, components: np.ndarray, probability: np.ndarray, threshold: float
) -> tuple[float, ...]:
    found = label_components(probability > threshold)
    rand = score_rand(count_pairs(components, found))
    thinned = score_rand(count_pairs(components, thin_borders(found)))
    return (
        pixel_error(truth, probability, threshold),
        rand.error,
        warping_error(truth, probability, threshold),
        rand.f_score,
        thinned.v_rand,
        thinned.v_info,
    )


def best_scores(slices: Iterable[np.ndarray]) -> MembraneScores:
    """The best mean over slices of each score, from the results of `score_thresholds`."""
    means = np.mean(list(slices), axis=0)
    found = {}
    for field, values in zip(fields(MembraneScores), means.T, strict=True):
        best = int(np.argmin(values) if field.name in _ERRORS else np.argmax(values))
        found[field.name] = Best(float(values[best]), THRESHOLDS[best])
    return MembraneScores(**found)
