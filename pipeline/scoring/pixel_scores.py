"""Scores of class maps, pixel by pixel. All are computed from one matrix of counts, which adds up over blocks."""

from dataclasses import dataclass

import numpy as np

from segment_slide.pipeline.errors import InputError
from segment_slide.pipeline.scoring.contingency import as_ids, check_same_shape

IGNORE = 255  # class maps are uint8 with at most 255 classes; this value marks pixels that nobody annotated
_N_VALUES = 256


@dataclass(frozen=True)
class PixelScores:
    """Agreement of two class maps for one class.

    Attributes
    ----------
    accuracy : float
        Share of pixels with the same class.
    iou, dice : float
        Intersection over union, and 2 * intersection over the sum of both sizes; 1 if the class is in neither.
    """

    accuracy: float
    iou: float
    dice: float


@dataclass(frozen=True)
class ClassScores:
    """One class: its pixels in the truth, in the prediction and in both."""

    value: int
    n_truth: int
    n_predicted: int
    n_both: int

    @property
    def iou(self) -> float:
        """Intersection over union; 1 if the class is in neither."""
        union = self.n_truth + self.n_predicted - self.n_both
        return self.n_both / union if union else 1.0

    @property
    def dice(self) -> float:
        """Twice the intersection over the sum of both sizes; 1 if the class is in neither."""
        total = self.n_truth + self.n_predicted
        return 2 * self.n_both / total if total else 1.0


@dataclass(frozen=True)
class Confusion:
    """Pixels per (true class, predicted class) of a class map, or of a part of it.

    Attributes
    ----------
    counts : ndarray of int64, (256, 256)
        Number of pixels, with the true class along the first axis. Ignored pixels are not counted.
    n_ignored : int
        Number of pixels left out.
    notes : tuple of str
        How values were read, if that was decided from the values themselves. Sums have none.
    """

    counts: np.ndarray
    n_ignored: int = 0
    notes: tuple[str, ...] = ()

    def __add__(self, other: "Confusion") -> "Confusion":
        return Confusion(self.counts + other.counts, self.n_ignored + other.n_ignored)

    @property
    def n_pixels(self) -> int:
        """Number of pixels compared."""
        return int(self.counts.sum())

    @property
    def accuracy(self) -> float:
        """Share of pixels with the same class.

        Raises
        ------
        InputError
            If all pixels are ignored.
        """
        return int(np.trace(self.counts)) / self._check()

    @property
    def pixel_error(self) -> float:
        """Share of pixels with another class; raises as `accuracy` does."""
        n_pixels = self._check()
        return (n_pixels - int(np.trace(self.counts))) / n_pixels

    def _check(self) -> int:
        if not self.n_pixels:
            raise InputError(f"all {self.n_ignored} pixels of the truth are ignored: there is nothing to compare.")
        return self.n_pixels

    def score_class(self, value: int) -> ClassScores:
        """Scores of one class."""
        truth, predicted = int(self.counts[value].sum()), int(self.counts[:, value].sum())
        return ClassScores(value, truth, predicted, int(self.counts[value, value]))

    def classes(self) -> tuple[ClassScores, ...]:
        """Scores of each class that is in the truth or in the prediction.

        `IGNORE` is no class. A predicted `IGNORE` is wrong wherever the truth is not ignored.
        """
        present = self.counts.sum(0) + self.counts.sum(1) > 0
        present[IGNORE] &= self.counts[IGNORE].any()
        return tuple(self.score_class(int(value)) for value in np.flatnonzero(present))

    @property
    def mean_iou(self) -> float:
        """Mean over `classes`, each weighing the same; raises as `accuracy` does."""
        self._check()
        return float(np.mean([found.iou for found in self.classes()]))

    @property
    def mean_dice(self) -> float:
        """Mean over `classes`, each weighing the same; raises as `accuracy` does."""
        self._check()
        return float(np.mean([found.dice for found in self.classes()]))


def count_confusion(truth: np.ndarray, predicted: np.ndarray, ignore: int | None = IGNORE) -> Confusion:
    """Count the pixels of each pair of classes.

    Parameters
    ----------
    truth, predicted : ndarray of int or bool, the same shape
        Classes, 0 to 255.
    ignore : int, optional
        Pixels whose truth has this value are left out; None compares all.

    Raises
    ------
    InputError
        If shapes differ, labels are not integers, or a value is no class.

    Examples
    --------
    >>> found = count_confusion(np.array([0, 1, 1, 255]), np.array([0, 0, 1, 1]))
    >>> found.counts[:2, :2].tolist(), found.n_ignored, found.accuracy
    ([[1, 0], [1, 1]], 1, 0.6666666666666666)
    """
    check_same_shape(truth, predicted)
    truth, predicted = as_classes(truth, "truth"), as_classes(predicted, "predicted")
    # One bin per pair of classes: always 65,536 bins.
    bins = np.bincount(truth.ravel() * np.intp(_N_VALUES) + predicted.ravel(), minlength=_N_VALUES**2)
    counts = bins.reshape(_N_VALUES, _N_VALUES).astype(np.int64)
    if ignore is None:
        return Confusion(counts)
    n_ignored = int(counts[ignore].sum())
    counts[ignore] = 0
    return Confusion(counts, n_ignored)


def as_classes(labels: np.ndarray, name: str) -> np.ndarray:
    """Convert labels to classes, uint8.

    Raises
    ------
    InputError
        If they are not integers from 0 to 255.

    Examples
    --------
    >>> as_classes(np.array([[0, 2]], np.int64), "truth").dtype
    dtype('uint8')
    """
    if labels.dtype == np.uint8:
        return labels
    ids = as_ids(labels, name)
    if ids.size and ids.max() >= _N_VALUES:
        raise InputError(
            f"{name}: value {ids.max()}, expected classes from 0 to {_N_VALUES - 1}; "
            f"ids of objects are compared as instances."
        )
    return ids.astype(np.uint8)


def score_pixels(truth: np.ndarray, predicted: np.ndarray, value: int = 1) -> PixelScores:
    """Compare two class maps for one class. No pixel is ignored.

    Parameters
    ----------
    truth, predicted : ndarray of the same shape
        Classes.
    value : int
        Class of IoU and Dice.

    Examples
    --------
    >>> score_pixels(np.array([0, 1, 1, 1]), np.array([0, 0, 1, 1]))
    PixelScores(accuracy=0.75, iou=0.6666666666666666, dice=0.8)
    """
    confusion = count_confusion(truth, predicted, ignore=None)
    found = confusion.score_class(value)
    return PixelScores(confusion.accuracy, found.iou, found.dice)


def pixel_error(truth: np.ndarray, probability: np.ndarray, threshold: float = 0.5) -> float:
    """Fraction of pixels that differ after thresholding (EM challenge 2012).

    Parameters
    ----------
    truth : ndarray of int or bool
        Foreground (cells; white) where above 0.
    probability : ndarray of float in [0, 1], or of uint8 (255 is 1), the same shape
        Probability of the foreground.
    threshold : float
        Foreground is strictly above the threshold, so at 1.0 there is none.

    Raises
    ------
    InputError
        If shapes differ, or a probability is NaN or outside [0, 1].

    Examples
    --------
    >>> pixel_error(np.array([0, 1, 1, 0]), np.array([0.2, 0.5, 0.9, 0.1]))
    0.25
    """
    check_same_shape(truth, probability)
    found = as_probability(probability) > float(threshold)
    return int(np.count_nonzero(found != (as_ids(truth, "truth") > 0))) / truth.size


def as_probability(values: np.ndarray) -> np.ndarray:
    """Convert a probability map to floats from 0 to 1. float32 stays float32, also when compared with thresholds.

    Parameters
    ----------
    values : ndarray
        Floats in [0, 1]; bool; or uint8, as `segment-slide` stores probabilities, where 255 is 1.

    Raises
    ------
    InputError
        If values are of another type, NaN, or outside [0, 1].

    Examples
    --------
    >>> as_probability(np.array([0, 51, 255], np.uint8)).tolist()
    [0.0, 0.2, 1.0]
    """
    if values.dtype == np.uint8:
        return values / 255.0
    if values.dtype.kind not in "bf":
        raise InputError(f"probability: dtype={values.dtype}, expected floats from 0 to 1, or uint8 (0 to 255).")
    values = values.astype(np.float32) if values.dtype.kind == "b" else values
    outside = ~((values >= 0) & (values <= 1))  # true for NaN as well
    if outside.any():
        place = tuple(int(i) for i in np.argwhere(outside)[0])
        raise InputError(
            f"probability: {int(outside.sum())} value(s) are not within [0, 1], "
            f"the first is {values[place]} at {place}."
        )
    return values
