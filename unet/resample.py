"""Intensities between the pixels of an image, and classes at the nearest pixel: the loops behind `unet.augment`.

numba compiles them: each output pixel costs only its own multiplications, without intermediate arrays. All sums have a
fixed order, without fast-math, so equal input gives equal bits in every thread and process.

Intensities are interpolated by cubic convolution (Keys 1981, a = -1/2); the paper does not say how. It uses 4 pixels
per axis and no others, so the result does not depend on the box that was read, as a spline's would. It keeps 0.81 of
the standard deviation of an image's noise; linear interpolation keeps 0.67.
"""

import math
from typing import Any

import numpy as np

from segment_slide.unet.compiled import compiled
from segment_slide.unet.errors import TrainingDataError
from segment_slide.unet.sample import IGNORE

REACH_PX = 2  # distance from a coordinate to the farthest pixel that is used, per side


def interpolate(image: np.ndarray, coordinates: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Intensities at any positions, by cubic convolution; at the centre of a pixel exactly the pixel's value.

    Parameters
    ----------
    image : ndarray of float32, (c, *spatial)
        Pixels; they must reach at least `REACH_PX` beyond all positions.
    coordinates : ndarray of float32, (ndim, *size)
        Position of each output pixel (px).
    shift : ndarray of float64, (ndim,)
        Added to all positions (px): the place in `image` of the coordinates' origin.

    Returns
    -------
    ndarray of float32, (c, *size)
        Interpolated intensities.

    Raises
    ------
    TrainingDataError
        If a position is too near to the edge of the pixels.

    Examples
    --------
    >>> row = np.array([[[0, 0, 4, 8, 8]] * 5], np.float32)
    >>> at = np.array([[[0, 0]], [[0, 0.5]]], np.float32)
    >>> interpolate(row, at, np.array([2.0, 2.0])).tolist()
    [[[4.0, 6.25]]]
    """
    _check_inside(image.shape[1:], coordinates, shift, 1, REACH_PX)
    out = np.empty((image.shape[0], *coordinates.shape[1:]), np.float32)
    loop = _cubic_2d if len(coordinates) == 2 else _cubic_3d
    loop(np.ascontiguousarray(image), np.ascontiguousarray(coordinates), shift, out)  # one layout: compiled once
    return out


def pick_nearest(
    classes: np.ndarray, weights: np.ndarray, coordinates: np.ndarray, shift: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Classes and weights of the pixel nearest to each position; both are taken from the same pixel.

    Parameters
    ----------
    classes, weights : ndarray of uint8 and of float32, (*spatial)
        Annotation; it must contain the pixel nearest to each position.
    coordinates, shift : ndarray
        As for `interpolate`.

    Returns
    -------
    classes, weights : ndarray of uint8 and of float32, (*size)
        The weight is 0 exactly where the class is 255.

    Raises
    ------
    TrainingDataError
        If a position lies beyond the annotation.

    Examples
    --------
    >>> at = np.array([[[0, 0]], [[0.4, 0.6]]], np.float32)
    >>> pick_nearest(np.array([[0, 1]], np.uint8), np.array([[1, 2]], np.float32), at, np.zeros(2))
    (array([[0, 1]], dtype=uint8), array([[1., 2.]], dtype=float32))
    """
    _check_inside(classes.shape, coordinates, shift + 0.5, 0, 0)
    size = coordinates.shape[1:]
    out = np.empty(size, np.uint8), np.empty(size, np.float32)
    planes = coordinates if len(size) == 3 else np.stack((np.zeros_like(coordinates[0]), *coordinates))[:, None]
    depth = (1,) * (3 - len(size))
    start = np.concatenate((np.zeros(3 - len(size)), shift))
    _nearest(
        np.ascontiguousarray(classes).reshape(depth + classes.shape),
        np.ascontiguousarray(weights).reshape(depth + classes.shape),
        np.ascontiguousarray(planes),
        start,
        *(part.reshape(depth + size) for part in out),
    )
    return out


def find_ends(coordinates: np.ndarray, shift: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First and last pixel at or below any of the positions, per axis.

    >>> first, last = find_ends(np.array([[[-0.5, 7.25]]], np.float32), np.array([1.0]))
    >>> first.tolist(), last.tolist()
    ([0], [8])
    """
    flat = coordinates.reshape(len(coordinates), -1)
    ends = (np.floor(end.astype(np.float64) + shift).astype(np.int64) for end in (flat.min(axis=1), flat.max(axis=1)))
    first, last = ends
    return first, last


def _check_inside(size: tuple[int, ...], coordinates: np.ndarray, shift: np.ndarray, before: int, after: int) -> None:
    """Check that all positions lie inside, because compiled loops do not check where they read."""
    first, last = find_ends(coordinates, shift)
    if (first < before).any() or (last + after >= np.array(size)).any():
        raise TrainingDataError(
            f"positions reach from pixel {first.tolist()} to {last.tolist()}, the pixels read are {list(size)}; "
            f"expected {before} more before and {after} more after them."
        )


@compiled
def _weigh(t: float) -> tuple[float, float, float, float]:
    """Weights of four pixels in a row; the position lies at share `t` between the second and the third."""
    u = 1.0 - t
    return -0.5 * t * u * u, 1.0 + t * t * (1.5 * t - 2.5), 1.0 + u * u * (1.5 * u - 2.5), -0.5 * u * t * t


@compiled
def _cubic_2d(image: Any, coordinates: Any, shift: Any, out: Any) -> None:
    for i in range(out.shape[1]):
        for j in range(out.shape[2]):
            y, x = coordinates[0, i, j] + shift[0], coordinates[1, i, j] + shift[1]
            above, left = math.floor(y), math.floor(x)
            wy, wx = _weigh(y - above), _weigh(x - left)
            first, k = int(above) - 1, int(left) - 1
            for c in range(image.shape[0]):
                total = 0.0
                for a in range(4):
                    row = image[c, first + a]
                    total += wy[a] * (wx[0] * row[k] + wx[1] * row[k + 1] + wx[2] * row[k + 2] + wx[3] * row[k + 3])
                out[c, i, j] = total


@compiled
def _cubic_3d(image: Any, coordinates: Any, shift: Any, out: Any) -> None:
    for h in range(out.shape[1]):
        for i in range(out.shape[2]):
            for j in range(out.shape[3]):
                z = coordinates[0, h, i, j] + shift[0]
                y = coordinates[1, h, i, j] + shift[1]
                x = coordinates[2, h, i, j] + shift[2]
                below, above, left = math.floor(z), math.floor(y), math.floor(x)
                wz, wy, wx = _weigh(z - below), _weigh(y - above), _weigh(x - left)
                plane, first, k = int(below) - 1, int(above) - 1, int(left) - 1
                for c in range(image.shape[0]):
                    total = 0.0
                    for b in range(4):
                        if wz[b] == 0.0:  # without movement along z, planes are not interpolated
                            continue
                        part = 0.0
                        for a in range(4):
                            row = image[c, plane + b, first + a]
                            part += wy[a] * (
                                wx[0] * row[k] + wx[1] * row[k + 1] + wx[2] * row[k + 2] + wx[3] * row[k + 3]
                            )
                        total += wz[b] * part
                    out[c, h, i, j] = total


@compiled
def _nearest(classes: Any, weights: Any, coordinates: Any, shift: Any, out_classes: Any, out_weights: Any) -> None:
    for h in range(out_classes.shape[0]):
        for i in range(out_classes.shape[1]):
            for j in range(out_classes.shape[2]):
                z = math.floor(coordinates[0, h, i, j] + shift[0] + 0.5)
                y = math.floor(coordinates[1, h, i, j] + shift[1] + 0.5)
                x = math.floor(coordinates[2, h, i, j] + shift[2] + 0.5)
                found = classes[z, y, x]
                out_classes[h, i, j] = found
                out_weights[h, i, j] = 0.0 if found == IGNORE else weights[z, y, x]


@compiled
def place_pixels(matrix: Any, vectors: Any, wz: Any, wy: Any, wx: Any, out: Any) -> None:
    """Positions of a deformed box: ``matrix @ (p - middle)`` plus displacements interpolated between control points.

    Parameters
    ----------
    matrix : ndarray of float64, (3, 3)
        Rotation and flips, on (z, y, x).
    vectors : ndarray of float64, (3, gz, gy, gx)
        Displacement (px) at each control point.
    wz, wy, wx : ndarray of float64, (n, g)
        Share of each control point in the displacement of each pixel, per axis.
    out : ndarray of float32, (3, nz, ny, nx)
        Filled with positions (px) relative to the box's middle.
    """
    middle = (wz.shape[0] - 1) / 2, (wy.shape[0] - 1) / 2, (wx.shape[0] - 1) / 2
    along_x = np.empty((3, vectors.shape[3]))
    for h in range(wz.shape[0]):
        for i in range(wy.shape[0]):
            along_x[:] = 0.0
            for d in range(3):
                for a in range(vectors.shape[1]):
                    for b in range(vectors.shape[2]):
                        share = wz[h, a] * wy[i, b]
                        for g in range(vectors.shape[3]):
                            along_x[d, g] += share * vectors[d, a, b, g]
            for d in range(3):
                start = matrix[d, 0] * (h - middle[0]) + matrix[d, 1] * (i - middle[1])
                for j in range(wx.shape[0]):
                    moved = 0.0
                    for g in range(vectors.shape[3]):
                        moved += wx[j, g] * along_x[d, g]
                    out[d, h, i, j] = start + matrix[d, 2] * (j - middle[2]) + moved
