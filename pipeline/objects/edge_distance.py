"""Exact squared Euclidean distances to the edge of objects. Works on arrays only.

Saito & Toriwaki 1994, "New algorithms for Euclidean distance transformation of an n-dimensional digitized picture":
one pass per axis. The result for an object is the same to the last bit wherever the object lies in the array.
`scipy.ndimage.distance_transform_edt` does not promise that if pixels are not square.
"""

import math
from collections.abc import Sequence

import numpy as np

from segment_slide.unet.compiled import compiled

_STRIP_PX = 64  # lines processed at a time, so that they stay in the processor's cache


def squared_distances(classes: np.ndarray, steps: Sequence[float], faces: np.ndarray) -> np.ndarray:
    """Squared Euclidean distance of each object pixel to the nearest pixel that is not of its class.

    Exact, computed axis by axis (Saito & Toriwaki 1994, "New algorithms for Euclidean distance transformation"). Unlike
    in scipy, a pixel's value depends only on the offsets to the pixels around it, to the last bit, for any spacing.
    All classes are processed in one call.

    Parameters
    ----------
    classes : ndarray of uint8, 2 or 3 axes
        0 is background.
    steps : sequence of float
        Size of a pixel on each axis.
    faces : ndarray of bool, (axis, side)
        True: background lies beyond this face. False: nothing lies beyond it, so it limits no distance.

    Returns
    -------
    ndarray of float32
        0 on background; infinite if the array holds nothing but this class. Whole numbers up to 2^24 (4096 px) are
        exact.

    Examples
    --------
    >>> row = np.array([[1, 1, 1, 2, 2, 0]], np.uint8)
    >>> squared_distances(row, (1, 1), np.zeros((2, 2), bool)).tolist()
    [[9.0, 4.0, 1.0, 1.0, 1.0, 0.0]]
    >>> squared_distances(row, (1, 1), np.array([[False, False], [True, False]])).tolist()
    [[1.0, 4.0, 1.0, 1.0, 1.0, 0.0]]
    """
    squares = np.where(classes == 0, np.float32(0), np.float32(np.inf))
    for axis in range(classes.ndim - 1, -1, -1):
        shape = classes.shape
        lines = (math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :]))
        _pass_along(classes.reshape(lines), squares.reshape(lines), float(steps[axis]), *map(bool, faces[axis]))
    return squares


@compiled
def _pass_along(classes: np.ndarray, squares: np.ndarray, step: float, is_low_open: bool, is_high_open: bool) -> None:
    """One axis (the middle one) of the distance transform, in place."""
    n_outer, n, n_inner = squares.shape
    for outer in range(n_outer):
        for strip in range(0, n_inner, _STRIP_PX):
            end = min(strip + _STRIP_PX, n_inner)
            before = np.ascontiguousarray(squares[outer, :, strip:end].T)
            kinds = np.ascontiguousarray(classes[outer, :, strip:end].T)
            after = before.copy()
            for x in range(end - strip):
                low = 0
                while low < n:  # runs of one class
                    high = low + 1
                    while high < n and kinds[x, high] == kinds[x, low]:
                        high += 1
                    if kinds[x, low] != 0:
                        if low > 0 or is_low_open:
                            _spread(before[x], after[x], low - 1, np.float32(0), 1, high, step)
                        if high < n or is_high_open:
                            _spread(before[x], after[x], high, np.float32(0), -1, low - 1, step)
                        for i in range(low, high):
                            _spread(before[x], after[x], i, before[x, i], 1, high, step)
                            _spread(before[x], after[x], i, before[x, i], -1, low - 1, step)
                    low = high
            squares[outer, :, strip:end] = after.T


@compiled
def _spread(
    before: np.ndarray, after: np.ndarray, at: int, value: np.float32, direction: int, stop: int, step: float
) -> None:
    """Lower the distances of the pixels on one side to the distance through one pixel, where that is shorter."""
    if value == np.inf:
        return
    for i in range(at + direction, stop, direction):
        way = (i - at) * step
        offered = np.float32(value + way * way)
        if offered >= before[i]:
            break  # for all pixels beyond, the distance through i is shorter
        after[i] = min(after[i], offered)
