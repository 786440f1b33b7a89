"""How many objects lie in each bin of a coarse grid, and which places are worth a closer look."""

from dataclasses import dataclass

import numpy as np

from segment_slide.pipeline.pictures.layer import Frame

_BINS_PER_SIDE = 4  # bins per side of the smallest window that is searched
_FEWEST_BINS, _MOST_BINS = 64, 2048  # along the longer side


@dataclass(frozen=True, eq=False)
class CountMap:
    """Objects (or pixels of objects) per square bin of the plane.

    Attributes
    ----------
    counts : ndarray of int64, (y, x)
        Counts per bin. The last bins of a row or column may reach beyond the image.
    bin_px : int
        Side of a bin.
    size : (int, int)
        Height and width of the image (px).
    """

    counts: np.ndarray
    bin_px: int
    size: tuple[int, int]

    def per_px(self, rows: int) -> np.ndarray:
        """Counts per pixel in larger bins, at most `rows` along a side; the last bins may be narrower."""
        step = -(-max(self.counts.shape) // rows)
        sums = self.counts
        extents = []
        for axis, size in enumerate(self.size):
            starts = np.arange(0, sums.shape[axis], step)
            sums = np.add.reduceat(sums, starts, axis=axis)
            ends = np.minimum((starts + step) * self.bin_px, size)
            extents.append(ends - starts * self.bin_px)
        return sums / np.outer(*extents)


def plan_map(size: tuple[int, int], window_px: int) -> CountMap:
    """Make an empty map that is fine enough to place windows of a given size.

    >>> empty = plan_map((10000, 3000), 512)
    >>> empty.bin_px, empty.counts.shape
    (128, (79, 24))
    """
    longest = max(size)
    bin_px = max(1, min(window_px // _BINS_PER_SIDE, longest // _FEWEST_BINS), -(-longest // _MOST_BINS))
    shape = tuple(-(-side // bin_px) for side in size)
    return CountMap(np.zeros(shape, np.int64), bin_px, size)


def count_points(empty: CountMap, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Count points per bin (y, x); positions are in pixels from the centre of the first pixel.

    >>> empty = CountMap(np.zeros((2, 2), np.int64), 4, (8, 8))
    >>> count_points(empty, np.array([0.0, 7.4, 3.5]), np.array([3.4, 3.6, 0.0])).tolist()
    [[1, 0], [1, 1]]
    """
    rows, columns = empty.counts.shape
    at_y, at_x = (
        np.clip(np.floor((values + 0.5) / empty.bin_px).astype(np.int64), 0, n - 1)
        for values, n in ((y, rows), (x, columns))
    )
    return np.bincount(at_y * columns + at_x, minlength=rows * columns).reshape(rows, columns)


def densest(found: CountMap, window_px: int) -> Frame | None:
    """The window with the largest count; of equal ones the first in raster order; None if all counts are 0.

    Windows begin at bins, so a window shifted by part of a bin may hold a few more.
    """
    sums = _window_sums(found, window_px)
    if not sums.any():
        return None
    return _frame(found, np.unravel_index(int(sums.argmax()), sums.shape), window_px)


def typical(found: CountMap, window_px: int) -> Frame | None:
    """Of the windows that hold anything, one with the median count; of equal ones the nearest to the centre."""
    sums = _window_sums(found, window_px)
    if not sums.any():
        return None
    median = np.sort(sums[sums > 0])[(np.count_nonzero(sums) - 1) // 2]
    places = np.argwhere(sums == median)
    centre = (np.array(sums.shape) - 1) / 2
    return _frame(found, places[int(((places - centre) ** 2).sum(axis=1).argmin())], window_px)


def around(inner: Frame, side_px: int, size: tuple[int, int]) -> Frame:
    """A larger window around a smaller one, moved so that it lies in the image.

    >>> around({"y": (0.0, 10.0), "x": (45.0, 55.0)}, 30, (100, 60))
    {'y': (0.0, 30.0), 'x': (30.0, 60.0)}
    """
    frame: Frame = {}
    for (axis, (start, stop)), whole in zip(inner.items(), size, strict=True):
        side = min(side_px, whole)
        first = min(max(round((start + stop - side) / 2), 0), whole - side)
        frame[axis] = (float(first), float(first + side))
    return frame


def _window_sums(found: CountMap, window_px: int) -> np.ndarray:
    """Counts in all windows that begin at a bin and lie completely in the map."""
    sums = found.counts
    for axis, size in enumerate(sums.shape):
        n_bins = min(size, max(1, window_px // found.bin_px))
        ends = np.insert(np.cumsum(sums, axis=axis), 0, 0, axis=axis)
        upper = np.take(ends, np.arange(n_bins, size + 1), axis=axis)
        sums = upper - np.take(ends, np.arange(size + 1 - n_bins), axis=axis)
    return sums


def _frame(found: CountMap, place: "tuple[np.intp, ...] | np.ndarray", window_px: int) -> Frame:
    y, x = (int(at) * found.bin_px for at in place)
    height, width = (min(window_px, size) for size in found.size)
    top, left = min(y, found.size[0] - height), min(x, found.size[1] - width)
    return {"y": (float(top), float(top + height)), "x": (float(left), float(left + width))}
