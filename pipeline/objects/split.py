"""Split touching objects by a watershed of the distance to the edge, in the read box of one block.

ImageJ's "Watershed", CellProfiler and scikit-image's example use this method. Here it gives the same result in every
block: the split of an object that lies wholly in the read box depends on that object alone. Knows arrays and faces;
nothing of Dask, Zarr or blocks.

Why an object's pieces do not depend on what else is in the box:

- An object's distances depend on the object alone. Let p be a pixel of the object and q a pixel of another object of
  its class. Between p and q, no farther from p than q, lies a pixel that is not of the class; otherwise the two would
  be one object. So q never decides the distance of p. If no open face cuts the object, the pixel in front of an open
  face is not of the object and is nearer than the face, so the face does not decide the distance either.
- All loops visit pixels in an order without ties: by (distance, place in raster order) or by (distance, age). The order
  of two pixels does not depend on any third pixel, and cropping keeps raster order.
- Nothing passes from one object to another, because they are not neighbours.

An object that is cut by an open face gets the same pieces wherever the part beyond the face has no influence: usually,
a few cells away from the face. Distances near the face are too small; markers on such distances are dropped.
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

_MAX_PIXELS = 2**31 - 1  # a pixel's index and its float32 distance share 64 bits


@dataclass(frozen=True)
class Pieces:
    """Pieces of all objects in a read box, numbered by their first pixel in raster order.

    Attributes
    ----------
    labels : ndarray of uint32
        Same shape as the read box; 0 is background, 1 to n are pieces. Objects that stay whole are pieces too.
    seed : ndarray of int64, (n,)
        Linear index in the read box (C order) of the first pixel of the piece's marker; -1 if it has no marker.
    cut : ndarray of bool, (n,)
        Whether the whole object that the piece belongs to touches an open face.
    classes : ndarray of uint8, (n,)
        Class of the piece.
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
    """Split objects at their necks, by a watershed of the distance to their edge, with its h-maxima as markers.

    Two cores are separated if the radius of the neck between them is at least `depth_px` smaller than the radius of the
    smaller core: a maximum M is a marker if every path to a higher one goes down to M - depth_px or below, and
    M >= depth_px (Soille 2003, "Morphological Image Analysis", Sec. 6.3.4: the h-maxima transform). Maxima of equal
    height that no such neck separates are one marker. Objects with fewer than two markers stay whole. Pixels are
    flooded in the order of their distance, and of their age if distances are equal, never below the level of the neck
    through which they were reached, as in scikit-image with all other maxima removed.

    Parameters
    ----------
    classes : ndarray of uint8, (y, x) or (z, y, x)
        The read box: a block with its halo. 0 is background; an object is connected pixels of one other value.
    depth_px : float
        Depth of a neck in pixels of the last axis, above 0.
    spacing : sequence of float
        Size of a pixel on each axis, as a multiple of the size on the last axis.
    connectivity : int
        From 1 (neighbours across faces only) to ``classes.ndim`` (across corners too).
    open_faces : sequence of (bool, bool)
        For the low and the high face of each axis: whether the image continues beyond it. Outside the image there is
        neither object nor background, so the image's own border limits no distance.

    Returns
    -------
    Pieces
        An object that lies wholly in the read box gets the same pieces in every read box. In an object that an open
        face cuts, a maximum that is as far from the edge as from an open face is no marker, because the object may be
        wider than the box shows. So an object that fills the box has no marker and stays whole.

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
    # A border of one background pixel, so that no loop has to check for the end of the array.
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
    places = [at[::-1] - 1 for at in np.unravel_index(pixels, padded.shape)]  # reversed: the first pixel wins
    seeds[owners[::-1]] = np.ravel_multi_index(places, classes.shape)
    labels = inner.copy()
    found, first = kernels.number(labels.ravel(), len(cut))
    return Pieces(labels, seeds[found], cut[basins.whole[found]], classes.ravel()[first])


class _Basins(NamedTuple):
    """One entry per maximum of the distance (its basin); entry 0 stands for background."""

    whole: np.ndarray  # the basin that represents the whole object, int64
    same: np.ndarray  # the basin that represents the marker: maxima of equal height with no neck between them
    peak: np.ndarray  # squared distance at the basin's maximum, float32
    is_core: np.ndarray  # for basins in `same`: a neck separates them from every higher maximum


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
    """Offsets to a pixel's neighbours in the flattened array, nearest first, then in raster order."""
    offsets = np.argwhere(generate_binary_structure(padded.ndim, connectivity)) - 1
    nearest_first = offsets[np.argsort(np.abs(offsets).sum(axis=1), kind="stable")[1:]]
    return (nearest_first @ np.array(padded.strides, np.int64)).astype(np.int64)


def _descending(classes: np.ndarray, squares: np.ndarray) -> np.ndarray:
    """Indices of object pixels by decreasing distance, then in raster order: the lower 32 bits of each uint64."""
    keys = np.flatnonzero(classes).view(np.uint64)
    # non-negative floats have the same order as their bits
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
    """Pixels of markers (linear, raster order) and the basin of each; markers too close to an open face are dropped."""
    pixels = kernels.marker_pixels(squares, labels, *basins)
    markers = basins.same[labels[pixels]]
    limit = np.full(pixels.shape, np.inf, np.float32)
    places = np.unravel_index(pixels, padded_shape)
    for axis, side in np.argwhere(faces):
        way = (padded_shape[axis] - 1 - places[axis] if side else places[axis]) * steps[axis]
        limit = np.minimum(limit, (way * way).astype(np.float32))
    certain = ~np.isin(markers, markers[squares[pixels] >= limit])
    return pixels[certain], markers[certain]
