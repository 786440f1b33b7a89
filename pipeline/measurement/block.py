"""What one block says of the objects in it: rows of exact sums that `measurement.fragments` adds up over blocks.

Knows arrays only, no store. A fragment is the part of an object that one block owns; its row is found by position in
`ids`, which rise. Arrays of a block with m objects, d spatial axes and c channels:

=================  =======================  ============================================================================
ids                (m,) uint64              of the objects
count              (m,) int64               pixels
plane              (m, planes) int64        where the object is on plane axes
box_min, box_max   (m, d) int64             its bounding box in image coordinates, `box_max` exclusive
first              (m, d) int64             sums of coordinates relative to `box_min`
second             (m, d (d + 1) / 2) int64  sums of their products: yy, yx, xx, or zz, zy, zx, yy, yx, xx
edges              (m, 3) int64             2D: border pixels by class (`count_corners`); 3D: faces per axis
class              (m,) uint8               largest value of the class map
value_sum          (m, c) int64 or float64  of the image, exact for integers
value_min, _max    (m, c), dtype of image
value_squares      (m, c) float64           sum of squared differences from the fragment's mean
score_sum          (m, classes)             of the probabilities, if they are stored: int64 or float64
=================  =======================  ============================================================================
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from segment_slide.pipeline.measurement import kernels
from segment_slide.pipeline.storage.work_folder import Arrays

REACH = {2: 2, 3: 1}  # px of context that perimeters and faces need


@dataclass(frozen=True)
class BlockPixels:
    """Pixels of one block.

    Parameters
    ----------
    ids : ndarray of uint32 or uint64, (*planes, *spatial)
        With `REACH` pixels of context on both sides of each spatial axis; 0 is background, as is beyond the image.
    origin : tuple of int
        Image coordinates of the first pixel that the block owns.
    n_spatial : int
        2 or 3.
    classes : ndarray of uint8, (*planes, *spatial)
        Class map, without context.
    channels : ndarray, (c, *planes, *spatial)
        Intensities, without context; no channel if they are not measured.
    scores : ndarray of uint8 or float32, (classes, *planes, *spatial)
        Probabilities, without context; none if they are not stored.
    """

    ids: np.ndarray
    origin: tuple[int, ...]
    n_spatial: int
    classes: np.ndarray
    channels: np.ndarray = field(default_factory=lambda: np.zeros((0, 1), np.uint8))
    scores: np.ndarray = field(default_factory=lambda: np.zeros((0, 1), np.uint8))


def measure_block(pixels: BlockPixels) -> Arrays:
    """Rows of all objects of a block, as the module's table says.

    Examples
    --------
    >>> ids = np.pad(np.array([[0, 5, 5]], np.uint32), 2)
    >>> rows = measure_block(BlockPixels(ids, (10, 20), 2, np.array([[0, 1, 1]], np.uint8)))
    >>> rows["ids"].tolist(), rows["count"].tolist(), rows["box_min"].tolist(), rows["first"].tolist()
    ([5], [2], [[10, 21]], [[0, 1]])
    """
    d, reach = pixels.n_spatial, REACH[pixels.n_spatial]
    planes, inner = _four_axes(pixels.ids, d)
    depth = reach if d == 3 else 0
    owned = inner[:, depth : inner.shape[1] - depth, reach:-reach, reach:-reach]
    known = kernels.find_ids(owned)
    numbers = kernels.number_pixels(inner, known)
    edges = _count_edges(numbers, len(known), d)
    numbers = np.ascontiguousarray(numbers[:, depth : inner.shape[1] - depth, reach:-reach, reach:-reach])
    rows = {"ids": known.astype(np.uint64), "edges": edges}
    rows |= _sum_shapes(numbers, len(known), pixels.origin, planes, d)
    numbers = numbers.reshape(-1)
    rows["class"] = _sum_channel(numbers, pixels.classes, len(known))[2]
    rows |= _sum_channels(numbers, pixels.channels, rows["count"])
    sums = [_sum_channel(numbers, score, len(known))[0] for score in pixels.scores]
    return rows | {"score_sum": _columns(sums, len(known), np.dtype(np.int64))}


def _four_axes(ids: np.ndarray, n_spatial: int) -> tuple[tuple[int, ...], np.ndarray]:
    """Sizes of the plane axes, and the pixels as (plane, z, y, x)."""
    planes = ids.shape[: ids.ndim - n_spatial]
    spatial = (1,) * (3 - n_spatial) + ids.shape[ids.ndim - n_spatial :]
    return planes, np.ascontiguousarray(ids).reshape(-1, *spatial)


def _count_edges(numbers: np.ndarray, n: int, d: int) -> np.ndarray:
    counts = np.zeros((n, 3), np.int64)
    if d == 3:
        kernels.count_faces(numbers, REACH[3], counts)
    else:
        flat = numbers[:, 0]
        border = np.zeros(flat.shape, np.bool_)
        kernels.mark_borders(flat, border)
        kernels.count_corners(flat, border, REACH[2], counts)
    return counts


def _sum_shapes(numbers: np.ndarray, n: int, origin: tuple[int, ...], planes: tuple[int, ...], d: int) -> Arrays:
    """Counts, boxes and moments; coordinates are counted from the object's own corner, so that they stay small."""
    sums = np.zeros((n, 10), np.int64)
    lows, highs = np.full((n, 3), max(numbers.shape), np.int64), np.zeros((n, 3), np.int64)
    at = np.zeros(n, np.int64)
    kernels.sum_coordinates(numbers, sums, lows, highs, at)
    count, first, second = sums[:, kernels.COUNT], sums[:, kernels.FIRST], sums[:, kernels.SECOND]
    for column, (a, b) in enumerate(kernels.PAIRS):
        products = lows[:, a] * first[:, b] + lows[:, b] * first[:, a]
        second[:, column] += count * lows[:, a] * lows[:, b] - products
    first = first - count[:, None] * lows
    start = np.array(origin[len(planes) :], np.int64)
    pairs = [column for column, (a, _) in enumerate(kernels.PAIRS) if a >= 3 - d]
    plane = np.stack(np.unravel_index(at, planes), axis=1) if planes else np.zeros((n, 0), np.int64)
    return {
        "count": count.copy(),
        "plane": plane + np.array(origin[: len(planes)], np.int64),
        "box_min": lows[:, 3 - d :] + start,
        "box_max": highs[:, 3 - d :] + start,
        "first": first[:, 3 - d :].copy(),
        "second": second[:, pairs],
    }


def _sum_channels(numbers: np.ndarray, channels: np.ndarray, count: np.ndarray) -> Arrays:
    found = []
    for values in channels:
        total, low, high = _sum_channel(numbers, values, len(count))
        squares = np.zeros(len(count), np.float64)
        kernels.sum_squares(numbers, _countable(values), total / np.maximum(count, 1), squares)
        found.append((total, low, high, squares))
    names = ("value_sum", "value_min", "value_max", "value_squares")
    dtypes = (np.dtype(np.int64), channels.dtype, channels.dtype, np.dtype(np.float64))
    parts = list(zip(*found, strict=True)) or [()] * len(names)
    return {
        name: _columns(list(part), len(count), dtype) for name, part, dtype in zip(names, parts, dtypes, strict=True)
    }


def _sum_channel(numbers: np.ndarray, values: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sum, smallest and largest value per object."""
    flat = _countable(values)
    if flat.dtype.kind == "f":
        sums, smallest, largest = np.zeros(n, np.float64), -np.inf, np.inf
    else:
        limits = np.iinfo(flat.dtype)
        sums, smallest, largest = np.zeros(n, np.int64), limits.min, limits.max
    low, high = np.full(n, largest, flat.dtype), np.full(n, smallest, flat.dtype)
    kernels.sum_values(numbers, flat, sums, low, high)
    return sums, low, high


def _countable(values: np.ndarray) -> np.ndarray:
    """Flat pixels of a type whose sums are exact in 64 bits, or real numbers."""
    flat = np.ascontiguousarray(values).reshape(-1)
    if flat.dtype.kind == "b":
        return flat.view(np.uint8)
    if flat.dtype.kind == "f":
        return flat.astype(np.float32) if flat.dtype.itemsize == 2 else flat
    return flat if flat.dtype.itemsize <= 4 else flat.astype(np.float64)


def _columns(parts: list[np.ndarray], n: int, dtype: "np.dtype[Any]") -> np.ndarray:
    return np.stack(parts, axis=1) if parts else np.zeros((n, 0), dtype)
