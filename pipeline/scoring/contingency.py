"""The contingency table: the number of pixels that each pair of (true id, found id) shares, as a sparse table.

All scores of objects are computed from it. Tables of blocks add up to the table of the whole image, exactly and in any
order, because counts are integers and rows are sorted. Knows nothing of scores or storage.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from segment_slide.pipeline.errors import InputError


@dataclass(frozen=True)
class Contingency:
    """Pixels per (frame, true id, found id), each triple once, sorted; id 0 is background.

    Attributes
    ----------
    frame : ndarray of int64, (n,)
        Number of the plane. Equal ids in different frames are different objects.
    truth, predicted : ndarray of uint64, (n,)
        Ids of the pair.
    n_pixels : ndarray of int64, (n,)
        Number of shared pixels, at least 1.
    """

    frame: np.ndarray
    truth: np.ndarray
    predicted: np.ndarray
    n_pixels: np.ndarray

    def __len__(self) -> int:
        return len(self.n_pixels)

    @property
    def overlaps(self) -> "Contingency":
        """Rows in which an object overlaps an object, not background."""
        return self.rows((self.truth > 0) & (self.predicted > 0))

    def rows(self, chosen: np.ndarray) -> "Contingency":
        """Some rows, chosen by a mask or by indices."""
        return Contingency(self.frame[chosen], self.truth[chosen], self.predicted[chosen], self.n_pixels[chosen])

    def areas(self, side: str) -> "Areas":
        """Pixels of each object of one side ("truth" or "predicted"), summed over all its rows."""
        ids = self.truth if side == "truth" else self.predicted
        frame, ids, n_pixels = _add_up((self.frame, ids), self.n_pixels)
        kept = ids > 0
        return Areas(frame[kept], ids[kept], n_pixels[kept])

    def area_of_rows(self, side: str) -> np.ndarray:
        """For each row: pixels of the whole object (or background) of one side that it belongs to; int64, (n,)."""
        ids = self.truth if side == "truth" else self.predicted
        order, starts = _sort((self.frame, ids))
        n_rows = np.diff(starts, append=len(order))
        areas = np.empty(len(order), np.int64)
        areas[order] = np.repeat(_sum_groups(self.n_pixels[order], starts), n_rows)
        return areas

    def frames(self) -> list["Contingency"]:
        """One table per frame that has pixels, in order."""
        starts = np.flatnonzero(np.diff(self.frame, prepend=-1))
        stops = np.append(starts[1:], len(self.frame))
        return [self.rows(np.arange(start, stop)) for start, stop in zip(starts, stops, strict=True)]


@dataclass(frozen=True)
class Areas:
    """Objects of one side: frame, id above 0, pixels; sorted by frame and id."""

    frame: np.ndarray
    ids: np.ndarray
    n_pixels: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)


def count_pairs(truth: np.ndarray, predicted: np.ndarray, frame: int = 0, ignore: int | None = None) -> Contingency:
    """Count the pixels of each pair of ids in one array, or in one block of it.

    Parameters
    ----------
    truth, predicted : ndarray of int or bool, the same shape
        Ids; 0 is background.
    frame : int
        Number of the plane that these pixels belong to.
    ignore : int, optional
        Pixels whose truth has this value are left out.

    Raises
    ------
    InputError
        If shapes differ, or labels are not integers of 0 or more.

    Examples
    --------
    >>> table = count_pairs(np.array([0, 1, 1, 1]), np.array([0, 0, 5, 5]))
    >>> table.truth.tolist(), table.predicted.tolist(), table.n_pixels.tolist()
    ([0, 1, 1], [0, 0, 5], [1, 1, 2])
    """
    check_same_shape(truth, predicted)
    truth, predicted = as_ids(truth, "truth").ravel(), as_ids(predicted, "predicted").ravel()
    if ignore is not None:
        kept = truth != ignore
        truth, predicted = truth[kept], predicted[kept]
    # Label maps are piecewise constant. So only runs of equal pairs are sorted, at most a tenth of the pixels.
    changes = (truth[1:] != truth[:-1]) | (predicted[1:] != predicted[:-1])
    starts = np.append(np.zeros(min(1, truth.size), np.int64), np.flatnonzero(changes) + 1)
    n_pixels = np.diff(starts, append=truth.size)
    columns = (np.full(len(starts), frame, np.int64), truth[starts], predicted[starts])
    return Contingency(*_add_up(columns, n_pixels))


def merge_tables(tables: Sequence[Contingency]) -> Contingency:
    """Merge the tables of parts to the table of all pixels.

    Examples
    --------
    >>> halves = [count_pairs(np.array([1, 1]), np.array([2, 0])), count_pairs(np.array([1]), np.array([2]))]
    >>> merge_tables(halves).n_pixels.tolist()
    [1, 2]
    """
    frame, n_pixels = _join(tables, "frame", np.int64), _join(tables, "n_pixels", np.int64)
    columns = (frame, _join(tables, "truth", np.uint64), _join(tables, "predicted", np.uint64))
    return Contingency(*_add_up(columns, n_pixels))


def _join(parts: "Sequence[Contingency] | Sequence[Areas]", name: str, dtype: type) -> np.ndarray:
    """Join one column of all parts. The dtype is the same without any part, and never becomes float64."""
    return np.concatenate([np.zeros(0, dtype), *(getattr(part, name) for part in parts)])


def _add_up(columns: tuple[np.ndarray, ...], n_pixels: np.ndarray) -> tuple[np.ndarray, ...]:
    """Distinct rows in order, and the sum of the pixels of each."""
    order, starts = _sort(columns)
    return *(column[order][starts] for column in columns), _sum_groups(n_pixels[order], starts)


def _sort(columns: tuple[np.ndarray, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The order that sorts rows by the first column, then the next; and the starts of distinct rows in that order."""
    order = np.lexsort(columns[::-1])
    is_new = np.ones(len(order), bool)
    is_new[1:] = np.any([column[order][1:] != column[order][:-1] for column in columns], axis=0)
    return order, np.flatnonzero(is_new)


def _sum_groups(n_pixels: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Sums from each start to the next, in int64, which is exact up to 9e18 pixels."""
    return np.add.reduceat(n_pixels.astype(np.int64), starts) if len(starts) else np.zeros(0, np.int64)


def merge_areas(areas: Sequence[Areas]) -> Areas:
    """All objects of several lists. Each occurs once, with its pixels added up."""
    columns = (_join(areas, "frame", np.int64), _join(areas, "ids", np.uint64))
    return Areas(*_add_up(columns, _join(areas, "n_pixels", np.int64)))


def count_common(areas: Areas, others: Areas) -> int:
    """Number of objects in both lists. Each list has an object only once."""
    frame, ids = np.append(areas.frame, others.frame), np.append(areas.ids, others.ids)
    return int(np.count_nonzero(_add_up((frame, ids), np.ones(len(ids)))[-1] == 2))


def sum_of_squares(counts: np.ndarray) -> int:
    """Exact sum of squares of counts of any size.

    The squares of 10^12 pixels do not fit in 64 bits, so they are added as Python integers. Equal counts are squared
    only once: counts that add up to n have at most about sqrt(2 n) distinct values.

    Examples
    --------
    >>> sum_of_squares(np.array([3, 3, 10**12]))
    1000000000000000000000018
    """
    values, times = np.unique(counts, return_counts=True)
    return sum(value * value * n for value, n in zip(values.tolist(), times.tolist(), strict=True))


def as_ids(labels: np.ndarray, name: str) -> np.ndarray:
    """Convert labels to uint64, which holds every id that a store can hold.

    Raises
    ------
    InputError
        If they are not integers, or one is negative.

    Examples
    --------
    >>> as_ids(np.array([True, False]), "truth").tolist()
    [1, 0]
    """
    if labels.dtype.kind not in "bui":
        raise InputError(
            f"{name}: dtype={labels.dtype}, expected integers: labels are classes or ids; a probability map is "
            f"scored after a threshold."
        )
    if labels.dtype.kind == "i" and labels.size and labels.min() < 0:
        raise InputError(f"{name}: value {labels.min()}, expected classes or ids from 0.")
    return labels.astype(np.uint64)


def check_same_shape(truth: np.ndarray, predicted: np.ndarray) -> None:
    """Refuse arrays that do not cover the same pixels.

    Raises
    ------
    InputError
        If shapes differ, or there are no pixels.
    """
    if truth.shape != predicted.shape:
        raise InputError(
            f"truth has shape {truth.shape} (px), predicted {predicted.shape}: scores compare the same pixels; "
            f"crop or resample one of them."
        )
    if not truth.size:
        raise InputError(f"truth and predicted have shape {truth.shape}: there are no pixels to compare.")
