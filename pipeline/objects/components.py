"""Connected components of one array, as runs of pixels along its last axis (knows nothing of blocks or stores).

A run is a stretch of equal values in one line. A line of a slide has far fewer runs than pixels, so finding, joining
and storing runs costs much less than doing so with pixels::

    line    0 0 3 3 3 0 0 3 0        runs (start, stop, value): (2, 5, 3) (7, 8, 3)
"""

import itertools
from dataclasses import dataclass

import numpy as np

from segment_slide.unet.compiled import compiled


@dataclass(frozen=True)
class Components:
    """Objects of an array as runs, numbered from 1 in raster order of each object's first pixel.

    Attributes
    ----------
    shape : tuple of int
        Shape of the array. Lines lie along its last axis, in C order.
    line : ndarray of int64, (lines + 1,)
        Runs ``line[k]`` to ``line[k + 1]`` lie in line k.
    start, stop : ndarray of uint32, (runs,)
        First pixel of a run in its line, and the one after its last.
    number : ndarray of uint32, (runs,)
        Object number of each run.
    first_run : ndarray of int64, (objects,)
        Index of each object's first run.
    """

    shape: tuple[int, ...]
    line: np.ndarray
    start: np.ndarray
    stop: np.ndarray
    number: np.ndarray
    first_run: np.ndarray

    @property
    def count(self) -> int:
        """Number of objects."""
        return len(self.first_run)

    @property
    def first_line(self) -> np.ndarray:
        """Line of each object's first pixel, int64, ascending."""
        return np.searchsorted(self.line, self.first_run, side="right") - 1

    @property
    def first_pixel(self) -> np.ndarray:
        """Linear index (C order) of each object's first pixel, int64, ascending."""
        return self.first_line * self.shape[-1] + self.start[self.first_run]

    @property
    def sizes(self) -> np.ndarray:
        """Pixels of each object, int64."""
        sizes = np.zeros(self.count, np.int64)
        _count_pixels(self.start, self.stop, self.number, sizes)
        return sizes

    def paint(self, values: np.ndarray, onto: np.ndarray | None = None) -> np.ndarray:
        """Draw the objects into an array, each with a value of its own.

        Parameters
        ----------
        values : ndarray, (objects,)
            Value of each object.
        onto : ndarray, optional
            C-contiguous array of the same dtype to paint the objects onto. By default a new array of zeros.

        Returns
        -------
        ndarray
            `onto`, or a new array of the dtype of `values`.
        """
        if onto is None:
            onto = np.zeros(self.shape, values.dtype)
        _paint(self.line, self.start, self.stop, self.number, values, onto.reshape(-1, self.shape[-1]))
        return onto


def label_components(values: np.ndarray, connectivity: int, *, planes: int = 0) -> Components:
    """Connected components of equal value.

    Parameters
    ----------
    values : ndarray of any integer dtype, 1 to 5 axes
        0 belongs to no object. Pixels of different values are never connected.
    connectivity : int
        Pixels are connected if their positions differ by one along at most this many axes: in 2D, 1 means 4 neighbours
        and 2 means 8, as in `scipy.ndimage.generate_binary_structure`.
    planes : int
        Number of leading axes along which pixels are not connected.

    Returns
    -------
    Components
        If `values` holds only 0 and one other value, the numbers equal those of `scipy.ndimage.label`.

    Examples
    --------
    >>> found = label_components(np.array([[0, 1, 0, 1], [0, 1, 1, 1], [2, 0, 0, 0]], np.uint8), 1)
    >>> found.paint(np.arange(1, found.count + 1)).tolist()
    [[0, 1, 0, 1], [0, 1, 1, 1], [2, 0, 0, 0]]
    >>> found.sizes.tolist(), found.first_pixel.tolist()
    ([5, 1], [1, 8])
    """
    line, start, stop, value = _find_runs(_as_lines(values))
    parent = np.arange(len(start), dtype=np.int64)
    steps, reaches = _previous_lines(values.ndim, connectivity, planes)
    lines_shape = np.array(values.shape[:-1], np.int64)
    _join_runs(line, start, stop, value, lines_shape, steps, reaches, parent)
    number, first_run = _number_roots(parent)
    return Components(values.shape, line, start, stop, number, first_run)


def number_pieces(pieces: np.ndarray) -> tuple[Components, np.ndarray]:
    """Number pieces that already have distinct values, in raster order of each piece's first pixel.

    Parameters
    ----------
    pieces : ndarray of any integer dtype
        0 belongs to no piece.

    Returns
    -------
    components : Components
        Pieces, whether their pixels are connected or not.
    value : ndarray, (pieces,)
        Value of each piece in `pieces`.

    Examples
    --------
    >>> found, value = number_pieces(np.array([[9, 0, 4], [4, 0, 9]]))
    >>> found.number.tolist(), value.tolist()
    ([1, 2, 2, 1], [9, 4])
    """
    line, start, stop, value = _find_runs(_as_lines(pieces))
    names, first, inverse = np.unique(value, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty(len(names), np.uint32)
    rank[order] = np.arange(1, len(names) + 1, dtype=np.uint32)
    return Components(pieces.shape, line, start, stop, rank[inverse], first[order].astype(np.int64)), names[order]


def _as_lines(values: np.ndarray) -> np.ndarray:
    values = values.view(np.uint8) if values.dtype == np.bool_ else values
    return np.ascontiguousarray(values).reshape(-1, values.shape[-1])


def _previous_lines(ndim: int, connectivity: int, planes: int) -> tuple[np.ndarray, np.ndarray]:
    """Earlier lines whose runs may connect to a line's runs: steps per leading axis, and how far runs may be apart."""
    steps, reaches = [], []
    for step in itertools.product((-1, 0, 1), repeat=ndim - 1):
        along = sum(map(abs, step))
        if 0 < along <= connectivity and step < (0,) * (ndim - 1) and not any(step[:planes]):
            steps.append(step)
            reaches.append(int(along < connectivity))
    return np.array(steps, np.int64).reshape(len(steps), ndim - 1), np.array(reaches, np.int64)


@compiled
def _find_runs(lines: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Offsets per line, and starts, stops and values of all runs whose value is not 0."""
    n_lines, width = lines.shape
    line = np.zeros(n_lines + 1, np.int64)
    for k in range(n_lines):
        row = lines[k]
        count = 0
        last = row[0] * 0
        for x in range(width):
            value = row[x]
            count += (value != last) & (value != 0)
            last = value
        line[k + 1] = line[k] + count
    start, stop = np.empty(line[n_lines], np.uint32), np.empty(line[n_lines], np.uint32)
    found = np.empty(line[n_lines], lines.dtype)
    for k in range(n_lines):
        row = lines[k]
        run = line[k]
        if run == line[k + 1]:
            continue
        last = row[0] * 0
        for x in range(width):
            value = row[x]
            if value != last:
                if last != 0:
                    stop[run] = x
                    run += 1
                if value != 0:
                    start[run] = x
                    found[run] = value
                last = value
        if last != 0:
            stop[run] = width
    return line, start, stop, found


@compiled
def _join_runs(
    line: np.ndarray,
    start: np.ndarray,
    stop: np.ndarray,
    value: np.ndarray,
    lines_shape: np.ndarray,
    steps: np.ndarray,
    reaches: np.ndarray,
    parent: np.ndarray,
) -> None:
    """Unite connected runs of equal value. Each object's root is its first run."""
    ndim = len(lines_shape)
    for k in range(len(line) - 1):
        if line[k] == line[k + 1]:
            continue
        for s in range(len(steps)):
            rest, other, stride, inside = k, 0, 1, True
            for axis in range(ndim - 1, -1, -1):
                position = rest % lines_shape[axis] + steps[s, axis]
                rest //= lines_shape[axis]
                inside &= 0 <= position < lines_shape[axis]
                other += position * stride
                stride *= lines_shape[axis]
            if not inside:
                continue
            reach = reaches[s]
            i, j, i_end, j_end = line[k], line[other], line[k + 1], line[other + 1]
            while i < i_end and j < j_end:
                i_stop, j_stop = np.int64(stop[i]), np.int64(stop[j])
                if start[i] < j_stop + reach and start[j] < i_stop + reach and value[i] == value[j]:
                    unite(parent, i, j)
                if i_stop < j_stop:
                    i += 1
                    continue
                # Both end at the same pixel: the next run of this line may touch the other line's run at its corner.
                if i_stop == j_stop and i + 1 < i_end and start[i + 1] < j_stop + reach and value[i + 1] == value[j]:
                    unite(parent, i + 1, j)
                j += 1


@compiled
def find_root(parent: np.ndarray, node: int) -> int:
    """Root of a node's tree. Halves the path to the root on the way (path halving)."""
    while parent[node] != node:
        parent[node] = parent[parent[node]]
        node = parent[node]
    return node


@compiled
def unite(parent: np.ndarray, a: int, b: int) -> None:
    """Join two trees. The smaller of their roots becomes the root."""
    a, b = find_root(parent, a), find_root(parent, b)
    if a < b:
        parent[b] = a
    elif b < a:
        parent[a] = b


@compiled
def _number_roots(parent: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Object number of each run (from 1, in the order of roots), and the first run of each object."""
    number = np.empty(len(parent), np.uint32)
    first_run = np.empty(len(parent), np.int64)
    count = 0
    for run in range(len(parent)):
        root = find_root(parent, run)
        if root == run:
            first_run[count] = run
            count += 1
            number[run] = count
        else:
            number[run] = number[root]
    return number, first_run[:count].copy()


@compiled
def _count_pixels(start: np.ndarray, stop: np.ndarray, number: np.ndarray, sizes: np.ndarray) -> None:
    for run in range(len(start)):
        sizes[number[run] - 1] += np.int64(stop[run]) - np.int64(start[run])


@compiled
def _paint(
    line: np.ndarray, start: np.ndarray, stop: np.ndarray, number: np.ndarray, values: np.ndarray, lines: np.ndarray
) -> None:
    for k in range(len(line) - 1):
        for run in range(line[k], line[k + 1]):
            value = values[number[run] - 1]
            for x in range(start[run], stop[run]):
                lines[k, x] = value
