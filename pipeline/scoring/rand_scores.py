"""Rand error, V_Rand and V_Info: agreement of two partitions of the same pixels, from their table of overlaps.

The meaning of these scores depends on how background is handled. In the *truth*, background (membrane) pixels are left
out: a score is over pairs of pixels that are both foreground in the truth. In the *proposal*, background pixels are
kept, and each is a segment of its own, in which there is no other pixel. The organisers' program of 2012 does the same
(Fiji, trainableSegmentation.metrics.RandError, `randIndex`; V_Rand: `foregroundRestrictedStatsN2`; Arganda-Carreras
2015). The "Rand error" on their site was 1 - F (`RandScores.f_score`), minimised over thresholds; the paper's 0.0382
is of that kind.

Sums of squares are Python integers, so they are exact for any number of pixels. `skimage.metrics.adapted_rand_error`
and `variation_of_information` add floats and treat the proposal's background as one segment. The tests compare with
them after giving each such pixel an id.
"""

from collections.abc import Sequence
from dataclasses import astuple, dataclass

import numpy as np
from scipy import ndimage

from segment_slide.pipeline.errors import InputError
from segment_slide.pipeline.scoring.contingency import Contingency, sum_of_squares


@dataclass(frozen=True)
class RandScores:
    """Agreement of two partitions; of several frames, the mean over frames.

    Attributes
    ----------
    error : float
        1 - Rand index over pairs of foreground pixels of the truth (EM challenge 2012): pairs on which the partitions
        disagree / all pairs.
    precision, recall, f_score : float
        Precision: share of the pairs joined by the proposal that the truth joins too. Recall: share of the pairs joined
        by the truth that the proposal joins too. F-score: harmonic mean of both.
    v_rand : float
        The same F-score over pairs with repetition (each pixel also pairs with itself): the main score of 2015,
        alpha = 0.5.
    v_info : float
        Mutual information divided by the mean of both entropies, on the same pixels, alpha = 0.5.
    error_with_background : float
        1 - the Rand index of textbooks: over all pixels, with background as one more object on both sides.
    """

    error: float
    precision: float
    recall: float
    f_score: float
    v_rand: float
    v_info: float
    error_with_background: float


def score_rand(table: Contingency) -> RandScores:
    """Rand scores of a table: the mean over frames that have true foreground, as the challenge averaged slices.

    Parameters
    ----------
    table : Contingency
        Table of components or instances (ids), with background as id 0.

    Raises
    ------
    InputError
        If no frame has true foreground, so that there is no pair of pixels.

    Examples
    --------
    Two objects of two pixels were merged into one of four. Of 6 pairs, the 4 between the two objects are wrong.

    >>> from segment_slide.pipeline.scoring.contingency import count_pairs
    >>> round(score_rand(count_pairs(np.array([0, 1, 1, 2, 2]), np.array([0, 1, 1, 1, 1]))).error, 4)
    0.6667
    """
    scores = [_score_frame(frame) for frame in table.frames() if (frame.truth > 0).any()]
    if not scores:
        raise InputError(
            "the truth has no foreground: Rand scores are over pairs of true foreground pixels. "
            "Is the truth empty, or are its values inverted?"
        )
    return mean_scores(scores)


def mean_scores(scores: Sequence[RandScores]) -> RandScores:
    """Mean of each score."""
    return RandScores(*np.mean([astuple(frame) for frame in scores], axis=0).tolist())


def _score_frame(table: Contingency) -> RandScores:
    inside = table.rows(table.truth > 0)
    n, n_alone = int(inside.n_pixels.sum()), int(inside.n_pixels[inside.predicted == 0].sum())
    together = inside.overlaps.n_pixels
    truth, predicted = inside.areas("truth").n_pixels, inside.areas("predicted").n_pixels
    # Sums of squares. Minus the number of pixels, they are numbers of ordered pairs of different pixels.
    both, true, found = map(sum_of_squares, (together, truth, predicted))
    both_pairs, true_pairs, found_pairs = both - (n - n_alone), true - n, found - (n - n_alone)
    return RandScores(
        error=_ratio(true_pairs + found_pairs - 2 * both_pairs, n * (n - 1), 0.0),
        precision=_ratio(both_pairs, found_pairs, 1.0),
        recall=_ratio(both_pairs, true_pairs, 1.0),
        f_score=_ratio(2 * both_pairs, true_pairs + found_pairs, 1.0),
        v_rand=2 * (both + n_alone) / (true + found + n_alone),
        v_info=_v_info(together, truth, predicted, n_alone),
        error_with_background=_error_with_background(table),
    )


def _ratio(part: int, whole: int, otherwise: float) -> float:
    """Quotient of exact integers; `otherwise` if there are no pairs to divide by."""
    return part / whole if whole else otherwise


def _v_info(together: np.ndarray, truth: np.ndarray, predicted: np.ndarray, n_alone: int) -> float:
    """2 I(S; T) / (H(S) + H(T)), in nats; 1 if both are one segment."""
    n = int(truth.sum())
    alone = n_alone / n * float(np.log(n))  # each of these pixels is a segment of size 1 / n
    of_truth, of_found = _entropy(truth, n), _entropy(predicted, n) + alone
    joint = _entropy(together, n) + alone
    return 2 * (of_truth + of_found - joint) / (of_truth + of_found) if of_truth + of_found else 1.0


def _entropy(n_pixels: np.ndarray, n: int) -> float:
    share = n_pixels / n
    return float(-(share * np.log(share)).sum())


def _error_with_background(table: Contingency) -> float:
    n = int(table.n_pixels.sum())
    sides = [
        np.append(table.areas(side).n_pixels, table.n_pixels[ids == 0].sum())
        for side, ids in (("truth", table.truth), ("predicted", table.predicted))
    ]
    disagreeing = sum(map(sum_of_squares, sides)) - 2 * sum_of_squares(table.n_pixels)
    return _ratio(disagreeing, n * (n - 1), 0.0)


def label_components(foreground: np.ndarray) -> np.ndarray:
    """Components of the foreground, connected by edges (4-connected in 2D) and numbered in raster order.

    >>> label_components(np.array([[1, 0], [0, 1]])).tolist()
    [[1, 0], [0, 2]]
    """
    return np.asarray(ndimage.label(foreground)[0])


def thin_borders(components: np.ndarray) -> np.ndarray:
    """Grow components into the background until the borders between different ones are one pixel wide.

    Parameters
    ----------
    components : ndarray of int, (y, x)
        Ids; 0 is border.

    Returns
    -------
    ndarray of int, (y, x)
        The same ids. 0 remains only between two components.

    Notes
    -----
    The challenge says "thinned to 1-pixel width" but not how. Growing by a watershed of the distance never merges or
    removes a segment, not even at the image's edge. A skeleton would become shorter there and open gaps.

    Examples
    --------
    >>> thin_borders(np.array([[1, 0, 0, 0, 2]])).tolist()
    [[1, 1, 0, 2, 2]]
    """
    from skimage.segmentation import watershed

    if not components.any():
        return components
    distance = ndimage.distance_transform_edt(components == 0)
    return np.asarray(watershed(distance, components, watershed_line=True))
