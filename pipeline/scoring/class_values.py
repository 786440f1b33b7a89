"""What the values of class maps and masks mean, decided for the whole image from the counts of all its blocks.

Masks of 0 and 255 are common, and so are class maps in which 255 marks what nobody annotated. A block may show either,
so blocks only count values, and `resolve` decides once all are counted.
"""

from dataclasses import dataclass

import numpy as np

from segment_slide.pipeline.errors import InputError
from segment_slide.pipeline.scoring.contingency import as_ids
from segment_slide.pipeline.scoring.pixel_scores import IGNORE, Confusion, count_confusion

_DARK, _BRIGHT = 8, 248  # JPEG moves 0 and 255 by a few values
_MANY = 8


@dataclass(frozen=True)
class ValueCounts:
    """Pixels per (true value, predicted value) of two images, or of a part of them.

    Attributes
    ----------
    counts : ndarray of int64, (256, 256)
        Number of pixels. A value above 255 is counted as 255 if it is the only one beside 0, as in a mask of 0 and
        65535.
    truth_above, predicted_above : frozenset of int
        The values from 255 that are counted as 255, on each side.
    """

    counts: np.ndarray
    truth_above: frozenset[int] = frozenset()
    predicted_above: frozenset[int] = frozenset()

    @staticmethod
    def none() -> "ValueCounts":
        """The counts of no pixels."""
        return ValueCounts(np.zeros((IGNORE + 1, IGNORE + 1), np.int64))

    def __add__(self, other: "ValueCounts") -> "ValueCounts":
        truth, predicted = self.truth_above | other.truth_above, self.predicted_above | other.predicted_above
        return ValueCounts(self.counts + other.counts, truth, predicted)


def count_values(truth: np.ndarray, predicted: np.ndarray) -> ValueCounts:
    """Count the pixels of each pair of values in one block.

    Raises
    ------
    InputError
        If shapes differ, labels are not integers, or a side has values that are no classes and no mask.

    Examples
    --------
    >>> found = count_values(np.array([0, 65535, 65535]), np.array([0, 1, 0]))
    >>> found.counts[255, :2].tolist(), found.truth_above
    ([1, 1], frozenset({65535}))
    """
    (truth, truth_above), (predicted, predicted_above) = _as_bytes(truth, "truth"), _as_bytes(predicted, "predicted")
    return ValueCounts(count_confusion(truth, predicted, None).counts, truth_above, predicted_above)


def resolve(found: ValueCounts) -> Confusion:
    """Decide what 255 means in the whole image, and return the confusion of classes with notes on the decision.

    A truth of 0 and 255 only is a mask: whatever is not 0 is class 1, in the prediction too. With other values in the
    truth, 255 marks pixels that are ignored. A prediction of 0 and 255 only is a mask if the truth has no class but 1.

    Raises
    ------
    InputError
        If all pixels are ignored, or a side has values that are no classes and no mask.

    Examples
    --------
    >>> mask = resolve(count_values(np.array([0, 255, 255]), np.array([0, 1, 0])))
    >>> mask.counts[:2, :2].tolist(), mask.n_ignored
    ([[1, 0], [1, 1]], 0)
    >>> partly = resolve(count_values(np.array([0, 1, 255]), np.array([0, 1, 0])))
    >>> partly.counts[:2, :2].tolist(), partly.n_ignored
    ([[1, 0], [0, 1]], 1)
    """
    counts = found.counts
    truth, predicted = (set(np.flatnonzero(counts.sum(axis)).tolist()) for axis in (1, 0))
    _check_above(truth, found.truth_above, "truth")
    _check_above(predicted, found.predicted_above, "predicted")
    if truth == {IGNORE}:
        raise InputError(
            f"truth: all {int(counts.sum()):,} pixels have the value {_top(found.truth_above)}, which marks pixels "
            f"that nobody annotated: there is nothing to compare. If it is foreground, compare with `binary`."
        )
    if truth == {0, IGNORE}:
        return Confusion(_fold(_fold(counts, 0), 1), notes=(_mask_note(found, predicted),))
    n_ignored, notes = int(counts[IGNORE].sum()), []
    if n_ignored:
        share = n_ignored / int(counts.sum())
        notes.append(f"{n_ignored:,} pixels ({share:.1%}) are ignored: their truth is {IGNORE}")
    notes += _note_smoothed(counts.sum(1))
    counts = counts.copy()
    counts[IGNORE] = 0
    top = _top(found.predicted_above)
    if IGNORE in predicted and predicted <= {0, IGNORE} and truth <= {0, 1, IGNORE}:
        counts = _fold(counts, 1)
        notes.append(f"the prediction holds only 0 and {top}: {top} is compared as class 1")
    elif top > IGNORE:
        raise InputError(_no_class(top, "predicted"))
    return Confusion(counts, n_ignored, tuple(notes))


def note_on_values(confusion: Confusion) -> tuple[str, ...]:
    """A note if both sides have one value beside 0, and not the same one: then no foreground pixel can be right.

    >>> counts = np.zeros((256, 256), np.int64)
    >>> counts[128, 1] = 5
    >>> note_on_values(Confusion(counts))
    ('the truth holds 0 and 128, the prediction 0 and 1: if both are masks, compare them with `binary`',)
    """
    truth, predicted = (np.flatnonzero(confusion.counts.sum(axis)[1:]) + 1 for axis in (1, 0))
    if len(predicted) == 1 and predicted[0] == IGNORE and len(truth) > 1:
        return (f"the prediction holds only 0 and {IGNORE}, but the truth has {len(truth)} classes beside 0",)
    if len(truth) != 1 or len(predicted) != 1 or truth[0] == predicted[0]:
        return ()
    held = f"the truth holds 0 and {truth[0]}, the prediction 0 and {predicted[0]}"
    return (f"{held}: if both are masks, compare them with `binary`",)


def _note_smoothed(pixels: np.ndarray) -> list[str]:
    """A note if a truth looks like a mask with smoothed edges: white is frequent, and there are many values between.

    Parameters
    ----------
    pixels : ndarray of int, (256,)
        Pixels of each value.
    """
    between, bright = int(pixels[_DARK:_BRIGHT].sum()), int(pixels[_BRIGHT:].sum())
    n_values = np.count_nonzero(pixels[_DARK:_BRIGHT])
    if n_values < _MANY or bright < between / _MANY:  # ids have about as many pixels each
        return []
    share = between / int(pixels.sum())
    note = (
        f"the truth looks like a mask of 0 and {IGNORE} whose edges were smoothed: it has {n_values} values between, "
        f"in {share:.1%} of the pixels, and each is compared as a class. Smoothing comes from resizing and from JPEG; "
        f"save the mask again without it"
    )
    return [note]


def _mask_note(found: ValueCounts, predicted: set[int]) -> str:
    top = _top(found.truth_above)
    also = ", also in the prediction" if predicted - {0, 1} else ""
    return f"the truth holds only 0 and {top}: it is compared as a mask, every value above 0 is class 1{also}"


def _fold(counts: np.ndarray, axis: int) -> np.ndarray:
    """Counts with all values above 0 of one side added up as class 1."""
    rows = np.moveaxis(counts, axis, 0)
    folded = np.zeros_like(rows)
    folded[0], folded[1] = rows[0], rows[1:].sum(0)
    return np.moveaxis(folded, 0, axis)


def _as_bytes(labels: np.ndarray, name: str) -> tuple[np.ndarray, frozenset[int]]:
    if labels.dtype in (np.uint8, np.bool_):
        return labels, frozenset({IGNORE} if (labels == IGNORE).any() else ())
    ids = as_ids(labels, name)
    top = int(ids.max(initial=0))
    if top > IGNORE and ((ids != 0) & (ids != top)).any():
        raise InputError(_no_class(top, name))
    return np.minimum(ids, IGNORE).astype(np.uint8), frozenset({top} if top >= IGNORE else ())


def _check_above(present: set[int], above: frozenset[int], name: str) -> None:
    if len(above) > 1 or (above - {IGNORE} and not present <= {0, IGNORE}):
        raise InputError(_no_class(max(above), name))


def _top(above: frozenset[int]) -> int:
    return max(above, default=IGNORE)


def _no_class(value: int, name: str) -> str:
    return (
        f"{name}: value {value}, expected classes from 0 to {IGNORE}, or a mask of 0 and one other value; ids of "
        f"objects are compared as instances."
    )
