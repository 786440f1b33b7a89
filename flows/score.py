"""How well a segmentation fits the truth, by pixels and by objects; whole arrays in memory."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage


@dataclass(frozen=True)
class PixelScores:
    """Agreement of two class maps on one class.

    Attributes
    ----------
    accuracy : float
        Share of pixels with the same class.
    iou, dice : float
        Intersection over union, and 2 * intersection over the sum of both; 1 if the class is in neither.
    """

    accuracy: float
    iou: float
    dice: float


def score_pixels(truth: np.ndarray, predicted: np.ndarray, value: int = 1) -> PixelScores:
    """Compare two class maps.

    Parameters
    ----------
    truth, predicted : ndarray of the same shape
        Classes.
    value : int
        Class that IoU and Dice are about.

    Examples
    --------
    >>> score_pixels(np.array([0, 1, 1, 1]), np.array([0, 0, 1, 1]))
    PixelScores(accuracy=0.75, iou=0.6666666666666666, dice=0.8)
    """
    in_truth, in_predicted = truth == value, predicted == value
    both = int(np.count_nonzero(in_truth & in_predicted))
    total = int(np.count_nonzero(in_truth)) + int(np.count_nonzero(in_predicted))
    accuracy = int(np.count_nonzero(truth == predicted)) / truth.size
    return PixelScores(accuracy, both / (total - both) if total else 1.0, 2 * both / total if total else 1.0)


@dataclass(frozen=True)
class ObjectScores:
    """How many objects were found as themselves: matched one to one with IoU above a threshold.

    Attributes
    ----------
    n_truth, n_predicted, n_matched : int
        Objects.
    n_touching, n_touching_matched : int
        Objects of the truth that another one touches, and how many of them are matched: two cells that became one
        object match nothing.
    """

    n_truth: int
    n_predicted: int
    n_matched: int
    n_touching: int
    n_touching_matched: int

    @property
    def precision(self) -> float:
        """Share of predicted objects that match."""
        return self.n_matched / max(1, self.n_predicted)

    @property
    def recall(self) -> float:
        """Share of true objects that match."""
        return self.n_matched / max(1, self.n_truth)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        return 2 * self.n_matched / max(1, self.n_truth + self.n_predicted)

    @property
    def touching_recall(self) -> float:
        """Share of touching true objects that match."""
        return self.n_touching_matched / max(1, self.n_touching)


def score_objects(truth: np.ndarray, predicted: np.ndarray, iou: float = 0.5) -> ObjectScores:
    """Match objects one to one.

    Parameters
    ----------
    truth, predicted : ndarray of unsigned int, (y, x)
        Object ids, 0 outside; touching objects are at most two pixels apart.
    iou : float
        An object matches if the intersection over union is above this; from 0.5 on no two can match the same.

    Examples
    --------
    >>> truth = np.array([[1, 1, 0, 2, 2, 0, 0, 0, 3, 3]])
    >>> found = np.array([[1, 1, 1, 1, 1, 0, 0, 0, 2, 2]])
    >>> scores = score_objects(truth, found)
    >>> scores.n_truth, scores.n_predicted, scores.n_matched, scores.n_touching, scores.n_touching_matched
    (3, 2, 1, 2, 0)
    """
    if iou < 0.5:
        raise ValueError(f"iou={iou}, expected at least 0.5: below, two objects may match the same one.")
    true_ids, true_areas = _areas(truth)
    found_ids, found_areas = _areas(predicted)
    overlaps = (truth > 0) & (predicted > 0)
    rows = np.searchsorted(true_ids, truth[overlaps]).astype(np.int64)
    columns = np.searchsorted(found_ids, predicted[overlaps])
    pairs, both = np.unique(rows * (len(found_ids) + 1) + columns, return_counts=True)
    row, column = pairs // (len(found_ids) + 1), pairs % (len(found_ids) + 1)
    matched = true_ids[row[both > iou * (true_areas[row] + found_areas[column] - both)]]
    touching = find_touching(truth)
    return ObjectScores(
        len(true_ids), len(found_ids), len(matched), len(touching), len(np.intersect1d(matched, touching))
    )


def _areas(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ids above 0 in rising order, and their pixels."""
    return np.unique(ids[ids > 0], return_counts=True)


def find_touching(ids: np.ndarray) -> np.ndarray:
    """Ids of objects with another one at most two pixels away (a ridge of one pixel parts them).

    >>> find_touching(np.array([[1, 0, 2, 0, 0, 0, 3]])).tolist()
    [1, 2]
    """
    highest = ndimage.maximum_filter(ids, 5, mode="nearest")
    lowest = ndimage.minimum_filter(np.where(ids, ids, ids.max()), 5, mode="nearest")
    return np.unique(ids[(ids > 0) & (highest != lowest)])
