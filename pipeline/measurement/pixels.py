"""The pixels and objects of one block, and the sweeps over the pixels that several sums share.

Works on arrays only and knows no store. A fragment is the part of an object that one block owns.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from segment_slide.pipeline.measurement import kernels
from segment_slide.pipeline.storage.work_folder import Arrays

REACH = {2: 2, 3: 1}  # context (px) that perimeters (2D) and faces (3D) need


@dataclass(frozen=True)
class BlockPixels:
    """Pixels of one block.

    Parameters
    ----------
    ids : ndarray of uint32 or uint64, (*planes, *spatial)
        Ids with `REACH` pixels of context on both sides of each spatial axis; 0 is background and beyond the image.
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


class BlockObjects:
    """The m objects of one block, numbered from 1 in rising order of their ids.

    Each sweep runs once, when a sum first asks for it.

    Parameters
    ----------
    pixels : BlockPixels
        Pixels of the block.

    Attributes
    ----------
    ids : ndarray, (m,)
        Ids in rising order, with the dtype of the label image.
    numbers : ndarray of int32, (pixels,)
        Number of each pixel's object, 0 for background: flat, without context, in the order of a channel's pixels.
    """

    def __init__(self, pixels: BlockPixels) -> None:
        self.pixels = pixels
        d, reach = pixels.n_spatial, REACH[pixels.n_spatial]
        self._planes, inner = _four_axes(pixels.ids, d)
        depth = reach if d == 3 else 0
        owned = (slice(None), slice(depth, inner.shape[1] - depth), slice(reach, -reach), slice(reach, -reach))
        self.ids = kernels.find_ids(inner[owned])
        self._with_context = kernels.number_pixels(inner, self.ids)
        self._owned = np.ascontiguousarray(self._with_context[owned])
        self.numbers = self._owned.reshape(-1)

    @property
    def n_objects(self) -> int:
        """Number of objects of which the block holds a part."""
        return len(self.ids)

    @functools.cached_property
    def shapes(self) -> Arrays:
        """Counts, planes, boxes and moments: ``count``, ``plane``, ``box_min``, ``box_max``, ``first``, ``second``."""
        return _sum_shapes(self._owned, self.n_objects, self.pixels.origin, self._planes, self.pixels.n_spatial)

    @functools.cached_property
    def edges(self) -> np.ndarray:
        """Border pixels by class in 2D, faces per axis in 3D: (m, 3), int64."""
        return _count_edges(self._with_context, self.n_objects, self.pixels.n_spatial)

    @functools.cached_property
    def values(self) -> Arrays:
        """For each channel: ``value_sum``, ``value_min``, ``value_max``, ``value_squares``."""
        return _sum_channels(self.numbers, self.pixels.channels, self.shapes["count"])

    @property
    def classes(self) -> np.ndarray:
        """Largest value of the class map: (m,), uint8."""
        return _sum_channel(self.numbers, self.pixels.classes, self.n_objects)[2]

    @property
    def scores(self) -> np.ndarray:
        """Sum of each class's probabilities: (m, classes), int64 or float64."""
        sums = [_sum_channel(self.numbers, score, self.n_objects)[0] for score in self.pixels.scores]
        return _columns(sums, self.n_objects, np.dtype(np.int64))

    def over_channels(self, sweep: Callable[[np.ndarray], np.ndarray], dtype: "np.dtype[Any]") -> np.ndarray:
        """Apply a function to each channel and put the results side by side: (m, c).

        Parameters
        ----------
        sweep : callable
            Takes the values of one channel, flat as `numbers`, and returns one number per object: (m,).
        dtype : dtype
            Dtype of the result if there is no channel.
        """
        parts = [sweep(_countable(values)) for values in self.pixels.channels]
        return _columns(parts, self.n_objects, dtype)


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
    """Counts, boxes and moments. Coordinates are relative to the object's own corner, so that they stay small."""
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
        with np.errstate(invalid="ignore"):
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
    """Flat pixels: integers of a type whose sums are exact in 64 bits, or real numbers."""
    flat = np.ascontiguousarray(values).reshape(-1)
    if flat.dtype.kind == "b":
        return flat.view(np.uint8)
    if flat.dtype.kind == "f":
        return flat.astype(np.float32) if flat.dtype.itemsize == 2 else flat
    return flat if flat.dtype.itemsize <= 4 else flat.astype(np.float64)


def _columns(parts: list[np.ndarray], n: int, dtype: "np.dtype[Any]") -> np.ndarray:
    return np.stack(parts, axis=1) if parts else np.zeros((n, 0), dtype)
