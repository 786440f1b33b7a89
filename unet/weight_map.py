"""Weight of each pixel in the loss: rare classes count more, gaps between close objects count most.

Ronneberger 2015, Sec. 3, Eq. 2: ``w(x) = w_c(x) + w0 * exp(-(d1(x) + d2(x))^2 / (2 sigma^2))``, with d1 and d2 the
distances to the nearest and the second-nearest object. Where the paper leaves details open, we follow the authors'
later code: distances are Euclidean, between pixel centres, to the objects after ridges were cut between touching ones;
the second term is added on background only; pixels without annotation have weight 0.

Whole arrays, and blocks with a halo (`halo`), give the same bits: pixels beyond the reach have no influence in either.
"""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from segment_slide.unet.errors import TrainingDataError
from segment_slide.unet.sample import IGNORE
from segment_slide.unet.two_nearest import find_ridges, separation_term, two_nearest
from segment_slide.unet.weight_settings import WeightSettings, halo, ridge_halo

__all__ = [
    "WeightMap",
    "WeightSettings",
    "border_weights",
    "count_class_weights",
    "cut_ridges",
    "halo",
    "nearest_two",
    "ridge_halo",
    "ridge_offsets",
    "weight_map",
]


class WeightMap(NamedTuple):
    """What training needs from an annotation.

    Attributes
    ----------
    classes : ndarray of uint8
        Classes after cutting ridges; 255 without annotation.
    weights : ndarray of float32
        Weights of Eq. 2; 0 without annotation.
    """

    classes: np.ndarray
    weights: np.ndarray


def ridge_offsets(ridge_px: int, ndim: int) -> np.ndarray:
    """Offsets at which an object pixel looks for other objects, (n, ndim): see `cut_ridges`.

    >>> ridge_offsets(1, 2).tolist()
    [[-1, -1], [-1, 0], [-1, 1], [0, -1]]
    >>> [len(ridge_offsets(width, 2)) for width in range(4)], len(ridge_offsets(1, 3))
    ([0, 4, 8, 16], 13)
    """
    around, ahead = ridge_px // 2, -(-ridge_px // 2)
    zero = (0,) * ndim
    chosen = [
        offset
        for offset in itertools.product(range(-ahead, ahead + 1), repeat=ndim)
        if offset != zero and (max(map(abs, offset)) <= around or offset < zero)
    ]
    return np.array(chosen, np.int64).reshape(-1, ndim)


def cut_ridges(instances: np.ndarray, ridge_px: int = 1) -> np.ndarray:
    """Turn object pixels that touch another object into background, so that the network can learn to separate them.

    An object pixel becomes background if another object has a pixel within ``ridge_px // 2`` px (along each axis). If
    `ridge_px` is odd, this also holds for pixels within ``ridge_px // 2 + 1`` px that come before it in raster order.
    1 is the rule of the authors' later code (W, NW, N and NE neighbours; 13 in a volume). All pixels are compared with
    the given objects, so the result does not depend on the order. Even widths cut both objects equally.

    An object of one pixel that touches another may vanish, as with the authors' rule.

    Parameters
    ----------
    instances : ndarray of any integer dtype, 1 to 3 axes
        0 is background, any other value an object.
    ridge_px : int
        Width of the ridge; 0 cuts nothing.

    Returns
    -------
    ndarray
        Of the same dtype.

    Examples
    --------
    >>> cut_ridges(np.array([[1, 1, 2, 2]])).tolist()
    [[1, 1, 0, 2]]
    >>> cut_ridges(np.array([[1, 1, 2, 2]]), 2).tolist()
    [[1, 0, 0, 2]]
    """
    _check_integers(instances, "instances")
    offsets = ridge_offsets(ridge_px, instances.ndim)
    if not len(offsets):
        return instances
    padded = np.pad(offsets, ((0, 0), (3 - instances.ndim, 0)))
    ids = _compact(instances).reshape((1,) * (3 - instances.ndim) + instances.shape)
    return np.where(find_ridges(ids, padded).reshape(instances.shape), instances.dtype.type(0), instances)


def nearest_two(
    instances: np.ndarray, reach: float = math.inf, spacing: Sequence[float] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """Distances d1 and d2 of Eq. 2: from each background pixel to its nearest and second-nearest object.

    Parameters
    ----------
    instances : ndarray of any integer dtype, 1 to 3 axes
        0 is background, any other value an object.
    reach : float
        Objects farther away are ignored; in the unit of `spacing`.
    spacing : sequence of float
        Distance of neighbouring pixels per axis, 1 by default.

    Returns
    -------
    d1, d2 : ndarray of float64
        Between pixel centres; infinite beyond the reach, NaN on objects.

    Examples
    --------
    >>> d1, d2 = nearest_two(np.array([[7, 0, 0, 9]]))
    >>> d1.tolist(), d2.tolist()
    ([[nan, 1.0, 1.0, nan]], [[nan, 2.0, 2.0, nan]])
    """
    _check_integers(instances, "instances")
    squares = two_nearest(_compact(instances), tuple(spacing) or (1.0,) * instances.ndim, reach)
    d1, d2 = (np.where(instances == 0, np.sqrt(square, dtype=np.float64), np.nan) for square in squares)
    return d1, d2


def border_weights(instances: np.ndarray, settings: WeightSettings) -> np.ndarray:
    """The second term of Eq. 2: large in gaps between close objects, 0 on objects and where no two objects are near.

    Parameters
    ----------
    instances : ndarray of any integer dtype, 1 to 3 axes
        0 is background, any other value an object; ridges must be cut already.
    settings : WeightSettings
        w0, sigma and spacing.

    Returns
    -------
    ndarray of float32
        The same bits for any part of an array that is given with a halo of `settings.reach_px`.

    Examples
    --------
    >>> border_weights(np.array([[7, 7, 0, 9, 9, 0, 0]]), WeightSettings()).astype(float).round(2).tolist()
    [[0.0, 0.0, 9.23, 0.0, 0.0, 6.07, 3.75]]
    """
    _check_integers(instances, "instances")
    ids = _compact(instances)
    if settings.reach_px == 0:
        return np.zeros(ids.shape, np.float32)
    squares = two_nearest(ids, settings.steps(ids.ndim), settings.reach_px)
    return separation_term(ids, *squares, float(settings.w0), float(settings.sigma_px))


def count_class_weights(counts: Sequence[int] | np.ndarray, *, balance: bool = True) -> tuple[float, ...]:
    """w_c of Eq. 2 for each class: inversely proportional to its frequency, 1 on average over all annotated pixels.

    The paper says "to balance the class frequencies". Here each class that occurs gets the same share of the weight.

    Parameters
    ----------
    counts : sequence of int
        Annotated pixels of each class in the whole data set.
    balance : bool
        If False, each class gets 1.

    Examples
    --------
    >>> count_class_weights([3, 1]), count_class_weights([3, 0, 1])
    ((0.6666666666666666, 2.0), (0.6666666666666666, 0.0, 2.0))
    """
    if not balance:
        return (1.0,) * len(counts)
    present, total = sum(1 for count in counts if count), sum(map(int, counts))
    return tuple(total / (present * int(count)) if count else 0.0 for count in counts)


def weight_map(
    instances: np.ndarray,
    settings: WeightSettings | None = None,
    *,
    classes: np.ndarray | None = None,
    class_weights: Sequence[float] | None = None,
) -> WeightMap:
    """Compute classes and weights of an annotation that is completely in memory, or of a block with its halo.

    Parameters
    ----------
    instances : ndarray of any integer dtype, 1 to 3 axes
        0 is background, any other value an object.
    settings : WeightSettings, optional
        By default the paper's.
    classes : ndarray of uint8, optional
        Class of each pixel, 255 without annotation (objects must not reach there); by default 1 on objects.
    class_weights : sequence of float, optional
        w_c of each class, counted over a whole data set; by default it is counted over this array.

    Returns
    -------
    WeightMap
        Classes after cutting ridges, and weights. With a single class w_c is 1; without objects the second term is 0.

    Raises
    ------
    TrainingDataError
        If the arrays differ in shape, are not integers, or ids are negative.

    Examples
    --------
    >>> found = weight_map(np.array([[0, 0, 1, 2, 2, 0]]))
    >>> found.classes.tolist(), found.weights.astype(float).round(2).tolist()
    ([[0, 0, 1, 0, 1, 0]], [[5.62, 8.01, 1.5, 9.98, 1.5, 8.01]])
    """
    settings = settings or WeightSettings()
    _check_integers(instances, "instances")
    classes = (instances != 0).astype(np.uint8) if classes is None else classes
    if classes.shape != instances.shape or classes.dtype != np.uint8:
        raise TrainingDataError(
            f"classes are {classes.dtype} of shape {classes.shape}, expected uint8 of shape {instances.shape}."
        )
    ids = _compact(instances)
    ids = cut_ridges(np.where(classes == IGNORE, np.int32(0), ids), settings.ridge_px)
    classes = np.where((ids == 0) & (classes != IGNORE), np.uint8(0), classes)
    if class_weights is None:
        counts = np.bincount(classes.ravel(), minlength=IGNORE + 1)[:IGNORE]
        class_weights = count_class_weights(counts, balance=settings.balance)
    table = np.zeros(IGNORE + 1, np.float32)
    table[: len(class_weights)] = class_weights
    weights = table[classes]
    weights += np.where(classes == IGNORE, np.float32(0), border_weights(ids, settings))
    return WeightMap(classes, weights)


def _check_integers(ids: np.ndarray, name: str) -> None:
    if ids.dtype.kind not in "bui":
        raise TrainingDataError(
            f"{name} are {ids.dtype}, expected whole numbers; round them and convert them: labels.astype('int32')."
        )
    if ids.size == 0 or not 1 <= ids.ndim <= 3:
        raise TrainingDataError(f"{name} have shape {ids.shape}, expected 1 to 3 axes with at least one pixel.")
    if ids.dtype.kind == "i" and ids.min() < 0:
        raise TrainingDataError(f"{name} hold {ids.min()}; ids are positive, and 0 is background.")


def _compact(ids: np.ndarray) -> np.ndarray:
    """Return the same objects as int32; ids that do not fit get new numbers."""
    if ids.dtype.itemsize < 4 or ids.max() <= np.iinfo(np.int32).max:
        return np.ascontiguousarray(ids, np.int32)
    values, numbers = np.unique(ids, return_inverse=True)
    return (numbers + (values[0] != 0)).astype(np.int32).reshape(ids.shape)
