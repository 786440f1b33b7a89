"""Touching objects apart: a watershed of the distance to the edge, in the read box of one block.

What ImageJ's "Watershed", CellProfiler and scikit-image's example do, made so that blocks agree: an object that lies
wholly in the read box is split by what it alone looks like. Knows arrays and faces; nothing of Dask, Zarr or blocks.

Why an object's pieces do not depend on what else is in the box:

- Its distances are its own. A pixel q of another object is never the nearest that is not its own: unless a pixel
  that is not of the class lay between p and q, no farther than q, the two would be one object. And an open face is
  farther away than the pixel before it, which is not of the object, or the object would be cut.
- All loops go through pixels in an order without ties, by (distance, place in raster order) or (distance, age). What
  comes first is known of any two pixels without looking at a third, and cropping keeps raster order.
- Nothing crosses from an object to another: they have no neighbours in common.

An object that is cut by an open face gets the same pieces where what is beyond does not matter: as a rule, some cells
away from the face. Distances beside the face are too small there; markers on such distances are dropped.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.ndimage import generate_binary_structure

from segment_slide.pipeline.errors import PlanError
from segment_slide.pipeline.objects import split_kernels as kernels
from segment_slide.pipeline.objects.edge_distance import squared_distances

_MAX_PIXELS = 2**31 - 1  # indices share 64 bits with a float32


@dataclass(frozen=True)
class Pieces:
    """Pieces of all objects in a read box, numbered by their first pixel in raster order.

    Attributes
    ----------
    labels : ndarray of uint32
        Of the shape of the read box; 0 is background, 1 to n pieces. Whole objects are pieces too.
    seed : ndarray of int64, (n,)
        Linear index in the read box (C order) of the first pixel of the piece's marker; -1 without a marker.
    cut : ndarray of bool, (n,)
        The object that it is a piece of touches an open face.
    classes : ndarray of uint8, (n,)
        Its class.
    """

    labels: np.ndarray
    seed: np.ndarray
    cut: np.ndarray
    classes: np.ndarray


def split_touching(
    classes: np.ndarray,
    *,
    depth_px: float,
    spacing: Sequence[float],
    connectivity: int,
    open_faces: Sequence[tuple[bool, bool]],
) -> Pieces:
    """Split objects at their necks, by a watershed of the distance to their edge from its h-maxima.

    Two cores are told apart if the neck between them is narrower, in radius, by at least `depth_px` than the smaller
    core: a maximum M is a marker if each way to a higher one goes down to M - depth_px or below, and M >= depth_px
    (Soille 2003, "Morphological Image Analysis", Sec. 6.3.4: the h-maxima transform). Maxima of equal height with
    less than that between them are one marker. Objects with fewer than two markers stay whole. Pixels are flooded by
    their distance, those of one distance by age, never below the level of the neck that they were reached by, as in
    scikit-image with all other maxima removed.

    Parameters
    ----------
    classes : ndarray of uint8, (y, x) or (z, y, x)
        The read box: a block with its halo. 0 is background; an object is connected pixels of one other value.
    depth_px : float
        In pixels of the last axis, above 0.
    spacing : sequence of float
        Size of a pixel on each axis, as a multiple of that on the last.
    connectivity : int
        1 for neighbours across faces to ``classes.ndim`` for those across corners too.
    open_faces : sequence of (bool, bool)
        For the low and the high face of each axis, whether the image goes on beyond. Beyond the image itself is
        neither object nor background: it limits no distance.

    Returns
    -------
    Pieces
        Of an object wholly in the read box the same in every read box. Of one that an open face cuts, maxima as far
        from the edge as from an open face are no markers: the object might be wider than is seen. So a blob that
        fills the box has none, and stays whole.

    Raises
    ------
    PlanError
        If a setting is out of range or does not fit the array.

    Examples
    --------
    >>> two = np.pad(np.array([[1, 1, 1, 0, 1, 1, 1], [1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 1, 1, 1]], np.uint8), 1)
    >>> found = split_touching(two, depth_px=1, spacing=(1, 1), connectivity=1, open_faces=[(True, True)] * 2)
    >>> found.labels[2].tolist(), found.seed.tolist(), found.cut.tolist()
    ([0, 1, 1, 1, 1, 2, 2, 2, 0], [20, 24], [False, False])
    """
    steps, faces = _check(classes, depth_px, spacing, connectivity, open_faces)
    classes = np.ascontiguousarray(classes)  # all arrays are flattened as views
    # one pixel of background around everything, so that no loop has to look where the array ends
    padded, squares = np.pad(classes, 1), np.pad(squared_distances(classes, steps, faces), 1)
    labels = np.zeros(padded.shape, np.uint32)
    flat = (padded.ravel(), squares.ravel(), labels.ravel(), _strides(padded, connectivity))
    basins = _Basins(*kernels.grow_basins(_descending(*flat[:2]), *flat, float(depth_px)))
    inner = labels[(slice(1, -1),) * classes.ndim]
    cut = np.zeros(len(basins.whole), np.bool_)
    for axis, side in np.argwhere(faces):
        cut[basins.whole[inner.take(-side, axis)]] = True

    pixels, markers = _certain_markers(padded.shape, flat[1], flat[2], basins, steps, faces)
    n_markers = np.bincount(basins.whole[np.unique(markers)], minlength=len(cut))[basins.whole]
    names = np.where(n_markers > 1, 0, basins.whole).astype(np.uint32)  # 0: its pixels are still to be flooded
    owners = np.where(n_markers[markers] > 1, markers, basins.whole[markers])
    kernels.flood(*flat, names, pixels, owners)

    seeds = np.full(len(cut), -1, np.int64)
    places = [at[::-1] - 1 for at in np.unravel_index(pixels, padded.shape)]  # from the last, so that the first stays
    seeds[owners[::-1]] = np.ravel_multi_index(places, classes.shape)
    labels = inner.copy()
    found, first = kernels.number(labels.ravel(), len(cut))
    return Pieces(labels, seeds[found], cut[basins.whole[found]], classes.ravel()[first])


class _Basins(NamedTuple):
    """What was found around each maximum of the distance; entry 0 stands for background."""

    whole: np.ndarray  # the basin that stands for its object, int64
    same: np.ndarray  # the basin that stands for its marker: maxima of equal height with no neck between them
    peak: np.ndarray  # squared distance at its maximum, float32
    is_core: np.ndarray  # of those in `same`: no higher maximum without a neck between them


def _check(
    classes: np.ndarray,
    depth_px: float,
    spacing: Sequence[float],
    connectivity: int,
    open_faces: Sequence[tuple[bool, bool]],
) -> tuple[tuple[float, ...], np.ndarray]:
    """Steps per axis and open faces (axis, side)."""
    if classes.dtype != np.uint8 or classes.ndim not in (2, 3) or classes.size > _MAX_PIXELS:
        raise PlanError(
            f"classes are {classes.dtype} of shape {classes.shape}, expected uint8 with 2 or 3 axes and at most "
            f"{_MAX_PIXELS} pixels."
        )
    if not (math.isfinite(depth_px) and depth_px > 0):
        raise PlanError(f"depth_px={depth_px}, expected a number above 0: every maximum would be an object.")
    if not 1 <= connectivity <= classes.ndim:
        raise PlanError(f"connectivity={connectivity}, expected 1 to {classes.ndim} for {classes.ndim} axes.")
    steps, faces = tuple(map(float, spacing)), np.array(open_faces, np.bool_)
    if len(steps) != classes.ndim or not all(math.isfinite(step) and step > 0 for step in steps):
        raise PlanError(f"spacing={tuple(spacing)}, expected {classes.ndim} numbers above 0.")
    if faces.shape != (classes.ndim, 2):
        raise PlanError(f"open_faces={open_faces}, expected (low, high) for each of {classes.ndim} axes.")
    return steps, faces


def _strides(padded: np.ndarray, connectivity: int) -> np.ndarray:
    """Where a pixel's neighbours lie in the flattened array, the nearest first, then in raster order."""
    offsets = np.argwhere(generate_binary_structure(padded.ndim, connectivity)) - 1
    nearest_first = offsets[np.argsort(np.abs(offsets).sum(axis=1), kind="stable")[1:]]
    return (nearest_first @ np.array(padded.strides, np.int64)).astype(np.int64)


def _descending(classes: np.ndarray, squares: np.ndarray) -> np.ndarray:
    """Indices of object pixels by decreasing distance, then in raster order: the lower 32 bits of each uint64."""
    keys = np.flatnonzero(classes).view(np.uint64)
    # floats that are not negative are ordered as their bits are
    keys |= (~squares.view(np.uint32)[keys]).astype(np.uint64) << np.uint64(32)
    keys.sort()
    return keys


def _certain_markers(
    padded_shape: tuple[int, ...],
    squares: np.ndarray,
    labels: np.ndarray,
    basins: _Basins,
    steps: tuple[float, ...],
    faces: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Pixels of markers (linear, raster order) and the basin that stands for each; none as far from an open face."""
    pixels = kernels.marker_pixels(squares, labels, *basins)
    markers = basins.same[labels[pixels]]
    limit = np.full(pixels.shape, np.inf, np.float32)
    places = np.unravel_index(pixels, padded_shape)
    for axis, side in np.argwhere(faces):
        way = (padded_shape[axis] - 1 - places[axis] if side else places[axis]) * steps[axis]
        limit = np.minimum(limit, (way * way).astype(np.float32))
    certain = ~np.isin(markers, markers[squares[pixels] >= limit])
    return pixels[certain], markers[certain]
