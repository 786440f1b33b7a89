"""Squared distances from every pixel to its two nearest objects: exact, axis by axis, compiled by numba.

A distance transform per object would cost pixels x objects. Instead, every pixel carries its two best candidates, of
*distinct* objects. Each axis takes one pass, which offers each pixel the candidates of the other pixels in its line:

- The squared Euclidean distance is a sum over axes. So the best candidate in a plane is the best among the best of its
  lines (Saito & Toriwaki 1994, "New algorithms for Euclidean distance transformation").
- Two per line are enough: if an object is third in a line, two others are nearer there. They stay nearer for every
  pixel that looks at that line, because all three gain the same distance on the way.
- A pass looks outwards from a pixel. It stops where the way alone is as long as the distance to the second candidate.

The cost is pixels x min(reach, distance to the second object), whatever the number, shape or nesting of objects. Sums
are rounded to float32 in a fixed order, and rounding keeps the order of distances. So a pixel's result depends only on
pixels within reach, not on other parts of the array.
"""

import math
from collections.abc import Sequence

import numpy as np

from segment_slide.unet.compiled import compiled

_STRIP_PX = 64  # lines processed at a time, so that their candidates stay in the processor's cache


def two_nearest(ids: np.ndarray, spacing: Sequence[float], reach: float) -> tuple[np.ndarray, np.ndarray]:
    """Squared distances of each background pixel to its nearest and second-nearest object.

    Parameters
    ----------
    ids : ndarray of int32, 1 to 3 axes
        0 is background, any other value an object.
    spacing : sequence of float
        Distance of neighbouring pixels per axis.
    reach : float
        Objects farther away than this are ignored; in the unit of `spacing`.

    Returns
    -------
    nearest, second : ndarray of float32
        Squared distances of pixel centres, infinite beyond the reach. At an object's own pixels, the nearest is 0 and
        the second is undefined: no caller needs it, and the last pass skips it.

    Examples
    --------
    >>> nearest, second = two_nearest(np.array([7, 0, 0, 0, 9, 9], np.int32), (1.0,), 3.0)
    >>> nearest.tolist()
    [0.0, 1.0, 4.0, 1.0, 0.0, 0.0]
    >>> second[1:4].tolist()
    [9.0, 4.0, 9.0]
    """
    nearest, second = (np.full(ids.shape, np.inf, np.float32) for _ in range(2))
    nearest_id, second_id = (np.zeros(ids.shape, np.int32) for _ in range(2))
    limit = np.float32(reach * reach)
    candidates = (nearest, second, nearest_id, second_id)
    a, b, a_id, b_id = (array.reshape(-1, ids.shape[-1]) for array in candidates)
    _scan_rows(ids.reshape(a.shape), a, b, a_id, b_id, float(spacing[-1]), limit)
    for axis in range(ids.ndim - 2, -1, -1):
        lines = (math.prod(ids.shape[:axis]), ids.shape[axis], math.prod(ids.shape[axis + 1 :]))
        c, d, c_id, d_id = (array.reshape(lines) for array in candidates)
        _merge_lines(c, d, c_id, d_id, float(spacing[axis]), limit, axis == 0)
    return nearest, second


@compiled
def _scan_rows(ids, nearest, second, nearest_id, second_id, spacing, limit):  # type: ignore[no-untyped-def]
    """First pass: along a row, the nearest objects are the last two met from the left or from the right."""
    n_rows, n = ids.shape
    for row in range(n_rows):
        for direction in (1, -1):
            last_id, last_at, other_id, other_at = 0, 0, 0, 0
            for step in range(n):
                i = step if direction == 1 else n - 1 - step
                here = ids[row, i]
                if here != 0:
                    if here != last_id:
                        other_id, other_at, last_id = last_id, last_at, here
                    last_at = i
                for candidate_id, at in ((last_id, last_at), (other_id, other_at)):
                    way = (i - at) * spacing
                    distance = np.float32(way * way)
                    if candidate_id == 0 or distance > limit or distance >= second[row, i]:
                        continue
                    if candidate_id == nearest_id[row, i]:
                        nearest[row, i] = min(distance, nearest[row, i])
                    elif distance < nearest[row, i]:
                        second[row, i], second_id[row, i] = nearest[row, i], nearest_id[row, i]
                        nearest[row, i], nearest_id[row, i] = distance, candidate_id
                    else:
                        second[row, i], second_id[row, i] = distance, candidate_id


@compiled
def _merge_lines(nearest, second, nearest_id, second_id, spacing, limit, is_last):  # type: ignore[no-untyped-def]
    """Pass along one more axis (the middle one), in place: each pixel is offered the candidates of its line."""
    n_outer, n, n_inner = nearest.shape
    for outer in range(n_outer):
        for first in range(0, n_inner, _STRIP_PX):
            end = min(first + _STRIP_PX, n_inner)
            # the candidates of the lines before this pass
            distance_a, distance_b = nearest[outer, :, first:end].copy(), second[outer, :, first:end].copy()
            id_a, id_b = nearest_id[outer, :, first:end].copy(), second_id[outer, :, first:end].copy()
            for i in range(n):
                for x in range(end - first):
                    if is_last and distance_a[i, x] == 0:
                        continue
                    best = _look_along(distance_a, distance_b, id_a, id_b, i, x, spacing, limit)
                    nearest[outer, i, first + x], second[outer, i, first + x] = best[0], best[1]
                    nearest_id[outer, i, first + x], second_id[outer, i, first + x] = best[2], best[3]


@compiled
def _look_along(distance_a, distance_b, id_a, id_b, i, x, spacing, limit):  # type: ignore[no-untyped-def]
    """The two best candidates (a, b) of a pixel among those of its line, nearest pixels first."""
    n = distance_a.shape[0]
    best_a, best_b, best_id_a, best_id_b = distance_a[i, x], distance_b[i, x], id_a[i, x], id_b[i, x]
    for offset in range(1, max(i, n - 1 - i) + 1):
        way = (offset * spacing) ** 2
        if way >= best_b or way > limit:
            break
        for j in (i - offset, i + offset):
            if j < 0 or j >= n:
                continue
            for candidate, candidate_id in ((distance_a[j, x], id_a[j, x]), (distance_b[j, x], id_b[j, x])):
                distance = np.float32(candidate + way)
                if distance >= best_b or distance > limit:
                    break  # the second candidate is no nearer
                if candidate_id == best_id_a:
                    best_a = min(distance, best_a)
                elif distance < best_a:
                    best_b, best_id_b = best_a, best_id_a
                    best_a, best_id_a = distance, candidate_id
                else:
                    best_b, best_id_b = distance, candidate_id
    return best_a, best_b, best_id_a, best_id_b


@compiled
def find_ridges(ids, offsets):  # type: ignore[no-untyped-def]
    """Object pixels that have a pixel of another object at one of the given offsets.

    Parameters
    ----------
    ids : ndarray of int32, (z, y, x)
        0 is background, any other value an object.
    offsets : ndarray of int64, (n, 3)
        Offsets from a pixel; positions outside the array count as background.

    Returns
    -------
    ndarray of bool, (z, y, x)

    Examples
    --------
    >>> find_ridges(np.array([[[7, 7, 9, 9]]], np.int32), np.array([[0, 0, -1]])).tolist()
    [[[False, False, True, False]]]
    """
    depth, height, width = ids.shape
    found = np.zeros(ids.shape, np.bool_)
    for z in range(depth):
        for y in range(height):
            for x in range(width):
                here = ids[z, y, x]
                if here == 0:
                    continue
                for n in range(offsets.shape[0]):
                    k, j, i = z + offsets[n, 0], y + offsets[n, 1], x + offsets[n, 2]
                    if 0 <= k < depth and 0 <= j < height and 0 <= i < width:
                        there = ids[k, j, i]
                        if there != 0 and there != here:
                            found[z, y, x] = True
                            break
    return found


@compiled
def separation_term(ids, nearest, second, w0, sigma):  # type: ignore[no-untyped-def]
    """The second term of Eq. 2 (Ronneberger 2015, Sec. 3) on background pixels with two objects within reach.

    It is compiled, because numpy's vector and scalar exponentials may differ in the last bit, and a pixel's value must
    not depend on its position in an array.

    Parameters
    ----------
    ids : ndarray of int32
        0 is background, any other value an object.
    nearest, second : ndarray of float32
        Squared distances from `two_nearest`.
    w0, sigma : float
        Constants of Eq. 2; sigma is in the unit of the distances.

    Returns
    -------
    ndarray of float32
        0 on objects.

    Examples
    --------
    >>> row = np.array([7, 0, 9], np.int32)
    >>> separation_term(row, *two_nearest(row, (1.0,), 9.0), 10.0, 5.0).astype(float).round(3).tolist()
    [0.0, 9.231, 0.0]
    """
    term = np.zeros(ids.shape, np.float32)
    for i in range(ids.size):
        if ids.flat[i] == 0 and second.flat[i] < np.inf:
            both = math.sqrt(nearest.flat[i]) + math.sqrt(second.flat[i])
            term.flat[i] = w0 * math.exp(-(both * both) / (2 * sigma * sigma))
    return term
