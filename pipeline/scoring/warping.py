"""Warping error (Jain 2010; EM challenge 2012): the difference that remains after deforming shapes, not topology.

The truth is warped toward the proposal by flipping pixels whose flip does not change connectivity ("simple" points;
foreground 4-connected, background 8-connected). A border that is shifted by one pixel is no error. For a gap in a
border, every pixel that cannot be flipped without merging two objects counts as an error.
"""

import functools

import numpy as np

from segment_slide.pipeline.errors import InputError
from segment_slide.pipeline.scoring.contingency import as_ids, check_same_shape
from segment_slide.pipeline.scoring.pixel_scores import as_probability
from segment_slide.unet.compiled import compiled

# The neighbours of a pixel counter-clockwise from the right, as (dy, dx); bit k of a code is neighbour k.
NEIGHBOURS = ((0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1), (1, 0), (1, 1))


@functools.cache
def simple_points() -> np.ndarray:
    """For each of the 256 neighbourhoods: whether the centre can flip without changing connectivity.

    Returns
    -------
    ndarray of bool, (256,)
        Indexed by code: bit k of the code is set if neighbour k of `NEIGHBOURS` is foreground.

    Notes
    -----
    A pixel is simple if Yokoi's crossing number for a 4-connected foreground is 1: on the circle of its neighbours,
    exactly one run of foreground touches it by an edge, and one run of background.

    Examples
    --------
    >>> simple_points()[0b00000001], simple_points()[0b00010001], simple_points()[0]
    (np.True_, np.False_, np.False_)
    """
    bits = (np.arange(256)[:, None] >> np.arange(8)) & 1
    edges = bits[:, 0::2]
    crossing = (edges - edges * bits[:, 1::2] * np.roll(edges, -1, axis=1)).sum(1)
    simple: np.ndarray = crossing == 1
    return simple


@compiled
def _warp_serially(warped: np.ndarray, order: np.ndarray, offsets: np.ndarray, simple: np.ndarray) -> int:
    """Flip mismatches in their order, and repeat until a pass flips none. Return how many are left.

    Plain loops, compiled by numba. `warped` is flat uint8 with a frame of background around the image, and is changed
    in place. `order` holds positions in `warped` and is overwritten.
    """
    count = len(order)
    while True:
        kept = 0
        for k in range(count):
            position = order[k]
            code = 0
            for bit in range(8):
                code |= warped[position + offsets[bit]] << bit
            if simple[code]:
                warped[position] = 1 - warped[position]
            else:
                order[kept] = position
                kept += 1
        if kept == count:
            return count
        count = kept


def warp(truth: np.ndarray, probability: np.ndarray, threshold: float = 0.5) -> np.ndarray:
    """Warp the truth toward the proposal without changing its topology.

    Parameters
    ----------
    truth : ndarray of int or bool, (y, x)
        Foreground (cells) is above 0.
    probability : ndarray of float in [0, 1] or of uint8, (y, x)
        Probability of the foreground. The proposal is where it is above the threshold.
    threshold : float
        Threshold from 0 to 1.

    Returns
    -------
    ndarray of bool, (y, x)
        The warped truth.

    Raises
    ------
    InputError
        If the arrays are not 2D and of the same shape, or a probability is NaN or outside [0, 1].

    Notes
    -----
    This follows the organisers' program. Mismatches are visited in the order of falling
    ``abs(probability - threshold)``, ties in raster order, and flipped if they are simple. Passes over the remaining
    mismatches are repeated until one flips nothing. Beyond the image is background.

    Examples
    --------
    A border that is shifted by one pixel is no error; a hole is one:

    >>> warp(np.array([[1, 1, 0, 1]]), np.array([[0.9, 0.1, 0.9, 0.9]])).astype(int).tolist()
    [[1, 0, 1, 1]]
    >>> warp(np.ones((3, 3), int), np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1.0]])).all()
    np.True_
    """
    check_same_shape(truth, probability)
    if truth.ndim != 2:
        raise InputError(f"truth has shape {truth.shape}, expected (y, x): the warping error is one of planes.")
    probability = as_probability(probability)
    mismatches = np.flatnonzero((as_ids(truth, "truth") > 0) != (probability > float(threshold)))
    confidence = np.abs(probability.ravel()[mismatches] - float(threshold))
    mismatches = mismatches[np.argsort(-confidence, kind="stable")]
    width = truth.shape[1] + 2
    order = (mismatches // truth.shape[1] + 1) * width + mismatches % truth.shape[1] + 1
    framed = np.pad((truth > 0).astype(np.uint8), 1)
    offsets = np.array([dy * width + dx for dy, dx in NEIGHBOURS])
    _warp_serially(framed.reshape(-1), order, offsets, simple_points())
    return framed[1:-1, 1:-1] > 0


def warping_error(truth: np.ndarray, probability: np.ndarray, threshold: float = 0.5) -> float:
    """Share of pixels that differ from the proposal after `warp`. Parameters and errors are those of `warp`.

    Examples
    --------
    >>> warping_error(np.ones((3, 3), int), np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1.0]]))
    0.1111111111111111
    """
    warped = warp(truth, probability, threshold)
    return int(np.count_nonzero(warped != (as_probability(probability) > float(threshold)))) / truth.size
