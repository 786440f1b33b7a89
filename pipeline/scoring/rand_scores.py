"""Rand error, V_Rand and V_Info: how two partitions of the same pixels agree, from their table of overlaps.

Background decides what these mean, so it is said here once. Of the *truth*, background (membrane) pixels are left out:
a score is over pairs of pixels that are both foreground in the truth. Of the *proposal*, background pixels stay, and
each is a segment of its own: it is together with no other pixel. This is what the organisers' program of 2012 does
(Fiji, trainableSegmentation.metrics.RandError, `randIndex`; V_Rand: `foregroundRestrictedStatsN2`; Arganda-Carreras
2015). Their site reported as "Rand error" 1 - F (`RandScores.f_score`), minimised over thresholds; the
paper's 0.0382 is of that kind.

Sums of squares are Python integers: exact for any number of pixels. `skimage.metrics.adapted_rand_error` and
`variation_of_information` add floats and take the proposal's background for one segment: the tests compare with them
after giving each such pixel an id.
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
        Of the pairs that the proposal puts together, those that the truth does; the other way round; harmonic mean.
    v_rand : float
        The same F-score over pairs with repetition (a pixel pairs with itself): 2015's main score, alpha = 0.5.
    v_info : float
        Mutual information over the mean of both entropies, on the same pixels, alpha = 0.5.
    error_with_background : float
        1 - the textbook's Rand index: over all pixels, background one more object on both sides.
    """

    error: float
    precision: float
    recall: float
    f_score: float
    v_rand: float
    v_info: float
    error_with_background: float


def score_rand(table: Contingency) -> RandScores:
    """Rand scores of a table; the mean over its frames that have true foreground, as the challenge averaged slices.

    Parameters
    ----------
    table : Contingency
        Of components or instances (ids), with background as id 0.

    Raises
    ------
    InputError
        If no frame has true foreground: there is no pair to look at.

    Examples
    --------
    Two objects of two pixels became one of four: of 6 pairs, the 4 across are wrong.

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
    # sums of squares; less the pixels themselves they are ordered pairs of different pixels
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
    """Quotient of exact integers; `otherwise` where there is no pair to agree or disagree on."""
    return part / whole if whole else otherwise


def _v_info(together: np.ndarray, truth: np.ndarray, predicted: np.ndarray, n_alone: int) -> float:
    """2 I(S; T) / (H(S) + H(T)), in nats; 1 if both are one segment."""
    n = int(truth.sum())
    alone = n_alone / n * float(np.log(n))  # each of them a segment of 1 / n
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
    """Components of the foreground that hang together by edges (4-connected in 2D), numbered in raster order.

    >>> label_components(np.array([[1, 0], [0, 1]])).tolist()
    [[1, 0], [0, 2]]
    """
    return np.asarray(ndimage.label(foreground)[0])


def thin_borders(components: np.ndarray) -> np.ndarray:
    """Grow components into the background until the borders between different ones are one pixel wide.

    Parameters
    ----------
    components : ndarray of int, (y, x)
        Ids, 0 is border.

    Returns
    -------
    ndarray of int, (y, x)
        The same ids; 0 is left only between two of them.

    Notes
    -----
    The challenge says "thinned to 1-pixel width" and not how. Growing by a watershed of the distance neither merges nor
    removes a segment, at the image's edge neither, where a skeleton retracts and opens gaps.

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
