"""Scores of objects that were found correctly, from one table of overlaps (`pipeline.scoring.contingency`)."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from scipy import ndimage

from segment_slide.pipeline.errors import InputError
from segment_slide.pipeline.scoring.contingency import Areas, Contingency, count_common, count_pairs
from segment_slide.pipeline.scoring.options import IOU_THRESHOLDS
from segment_slide.unet.boxes import Box

TOUCHING_PX = 2  # a ridge of one pixel separates touching objects
_EXACT_IN_FLOAT64 = 2**53
_DENOMINATOR = 1000  # thresholds are exact to three decimals, so that 0.55 means 55 of 100


@dataclass(frozen=True)
class ObjectScores:
    """Number of objects that were found correctly: matched one to one with IoU above a threshold.

    Attributes
    ----------
    n_truth, n_predicted, n_matched : int
        Number of true, predicted and matched objects.
    n_touching, n_touching_matched : int
        Number of true objects that touch another one, and how many of them are matched. Two cells that were merged into
        one object match nothing.
    iou : float
        The IoU threshold.
    """

    n_truth: int
    n_predicted: int
    n_matched: int
    n_touching: int
    n_touching_matched: int
    iou: float = 0.5

    @property
    def precision(self) -> float:
        """Share of predicted objects that match; 0 if there are none."""
        return self.n_matched / max(1, self.n_predicted)

    @property
    def recall(self) -> float:
        """Share of true objects that match; 0 if there are none."""
        return self.n_matched / max(1, self.n_truth)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; 0 if there are no objects at all."""
        return 2 * self.n_matched / max(1, self.n_truth + self.n_predicted)

    @property
    def average_precision(self) -> float:
        """TP / (TP + FP + FN), as the Data Science Bowl 2018 calls it; 0 if there are no objects at all."""
        return self.n_matched / max(1, self.n_truth + self.n_predicted - self.n_matched)

    @property
    def touching_recall(self) -> float:
        """Share of touching true objects that match; 0 if none touch."""
        return self.n_touching_matched / max(1, self.n_touching)


def score_objects(truth: np.ndarray, predicted: np.ndarray, iou: float = 0.5) -> ObjectScores:
    """Match objects of one image one to one.

    Parameters
    ----------
    truth, predicted : ndarray of int, (y, x) or (z, y, x)
        Object ids, 0 outside. Objects at most two pixels apart count as touching.
    iou : float
        Two objects match if their intersection over union is above this. From 0.5 on, matches are unique.

    Raises
    ------
    InputError
        If the threshold is below 0.5, or if the labels are not ids on the same pixels.

    Examples
    --------
    >>> truth = np.array([[1, 1, 0, 2, 2, 0, 0, 0, 3, 3]])
    >>> found = np.array([[1, 1, 1, 1, 1, 0, 0, 0, 2, 2]])
    >>> scores = score_objects(truth, found)
    >>> scores.n_truth, scores.n_predicted, scores.n_matched, scores.n_touching, scores.n_touching_matched
    (3, 2, 1, 2, 0)
    """
    table = count_pairs(truth, predicted)
    return score_matches(table, [iou], as_areas(0, find_touching(truth)))[0]


def score_matches(
    table: Contingency, ious: Sequence[float] = IOU_THRESHOLDS, touching: Areas | None = None
) -> tuple[ObjectScores, ...]:
    """Match the objects of all frames one to one, at several thresholds.

    Parameters
    ----------
    table : Contingency
        Table of the whole image, or of all frames.
    ious : sequence of float
        Thresholds. A pair matches if its intersection over union is above the threshold.
    touching : Areas, optional
        The true objects that touch another one.

    Raises
    ------
    InputError
        If a threshold is below 0.5, or not below 1.

    Notes
    -----
    If two objects both matched the same third object, each would cover more than half of it, which is impossible. So
    matches are unique without any assignment. With a threshold below 0.5 they need not be, and scores would depend on
    the choice of matches; therefore such thresholds are refused.

    Examples
    --------
    >>> table = count_pairs(np.array([1, 1, 1, 2, 0]), np.array([7, 7, 0, 8, 0]))
    >>> [scores.n_matched for scores in score_matches(table, [0.5, 2 / 3, 0.9])]
    [2, 1, 1]
    """
    check_ious(ious)
    n_truth, n_predicted = len(table.areas("truth")), len(table.areas("predicted"))
    touching = as_areas(0, np.zeros(0, np.uint64)) if touching is None else touching
    both, either, pairs = _overlaps(table)
    scores = []
    for iou in ious:
        exact = Fraction(iou).limit_denominator(_DENOMINATOR)
        matched = pairs.rows(both * exact.denominator > either * exact.numerator)
        found = Areas(matched.frame, matched.truth, matched.n_pixels)
        n_separated = count_common(found, touching)
        scores.append(ObjectScores(n_truth, n_predicted, len(found), len(touching), n_separated, float(iou)))
    return tuple(scores)


def check_ious(ious: Sequence[float]) -> None:
    """Refuse thresholds at which matches are not unique or not possible.

    Raises
    ------
    InputError
        If there is such a threshold. The message names the first one.
    """
    if not ious:
        raise InputError("no IoU threshold was given, expected at least one, for example 0.5.")
    for iou in ious:
        if not 0.5 <= iou < 1:
            raise InputError(
                f"iou={iou}, expected at least 0.5 and less than 1. Below 0.5, two objects may match the same "
                f"one; at 1, no object can match."
            )


def mean_average_precision(scores: Sequence[ObjectScores]) -> float:
    """Mean over thresholds of TP / (TP + FP + FN) (Data Science Bowl 2018, Caicedo 2019; there for one image).

    For several frames, TP, FP and FN are added up first, so that each object has the same weight.

    Examples
    --------
    >>> mean_average_precision([ObjectScores(2, 2, 2, 0, 0), ObjectScores(2, 2, 1, 0, 0)])
    0.6666666666666666
    """
    return float(np.mean([found.average_precision for found in scores]))


def _overlaps(table: Contingency) -> tuple[np.ndarray, np.ndarray, Contingency]:
    """Intersection and union (pixels) of each overlapping pair of objects, and the pairs."""
    are_objects = (table.truth > 0) & (table.predicted > 0)
    total = table.area_of_rows("truth") + table.area_of_rows("predicted")
    pairs = table.rows(are_objects)
    return pairs.n_pixels, total[are_objects] - pairs.n_pixels, pairs


def score_seg(table: Contingency) -> float:
    """SEG of the Cell Tracking Challenge (Ulman 2017): mean Jaccard index over all true objects of all frames.

    A true object G is matched by the found object R that covers strictly more than half of it. Its score is
    ``|G & R| / |G | R|``, or 0 if it is not matched. The mean is over objects, not over frames. False positives do not
    lower it.

    Parameters
    ----------
    table : Contingency
        Table of all frames.

    Raises
    ------
    InputError
        If the truth has no object, so that there is no mean.

    Examples
    --------
    Half of an object is not more than half:

    >>> score_seg(count_pairs(np.array([1, 1, 2, 2]), np.array([5, 0, 6, 6])))
    0.5
    """
    n_truth = len(table.areas("truth"))
    if not n_truth:
        raise InputError("the truth has no object in any frame: SEG is a mean over true objects.")
    both, either, _ = _overlaps(table)
    areas = table.area_of_rows("truth")[(table.truth > 0) & (table.predicted > 0)]
    is_match = 2 * both > areas
    return float((both[is_match] / either[is_match]).sum() / n_truth)


def as_areas(frame: int, ids: np.ndarray) -> Areas:
    """List objects of one frame by their ids, each with one pixel."""
    return Areas(np.full(len(ids), frame, np.int64), ids.astype(np.uint64), np.ones(len(ids), np.int64))


def find_touching(ids: np.ndarray, inside: Box | None = None) -> np.ndarray:
    """Ids of objects with another one at most two pixels away (a ridge of one pixel lies between them).

    Parameters
    ----------
    ids : ndarray of unsigned int
        Object ids, 0 outside.
    inside : tuple of slice, optional
        Box in `ids` whose pixels are examined. `ids` must include two pixels around it, as far as the image reaches.

    Examples
    --------
    >>> find_touching(np.array([[1, 0, 2, 0, 0, 0, 3]])).tolist()
    [1, 2]
    """
    values = None
    if ids.max() > _EXACT_IN_FLOAT64:  # the filters compute in float64
        values, numbers = np.unique(ids, return_inverse=True)
        values = np.append(np.zeros(1, values.dtype), values)
        ids = np.where(ids > 0, numbers + 1, 0).astype(np.uint32)
    size = 2 * TOUCHING_PX + 1
    highest = ndimage.maximum_filter(ids, size, mode="nearest")
    lowest = ndimage.minimum_filter(np.where(ids, ids, ids.max()), size, mode="nearest")
    touching = np.where(highest != lowest, ids, 0)[inside or ...]
    found = np.unique(touching[touching > 0])
    return found if values is None else values[found]
