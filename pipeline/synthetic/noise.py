"""Random numbers tied to positions: a region drawn alone gets the same numbers as within the whole.

Positions are pixels of the whole picture and may be negative.
"""

import numpy as np

from segment_slide.unet.boxes import Box

_FAR = 1 << 32  # makes negative positions positive
_NOISE_TILE_PX = 256
_WHITE_NOISE = 0  # number of this file's use of the seed; callers must use others
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def generator(seed: int, use: int, row: int, column: int) -> np.random.Generator:
    """Random generator for one position and one use of the seed."""
    return np.random.default_rng([seed, use, row + _FAR, column + _FAR])


def smooth_noise(seed: int, number: int, y: np.ndarray, x: np.ndarray, pitch: float) -> np.ndarray:
    """Smooth values from 0 to 1: random values on a lattice, interpolated between its points.

    Parameters
    ----------
    seed, number : int
        Which picture, and which noise field of it.
    y, x : ndarray of float64
        Rows and columns (px) of the wanted pixels, in rising order.
    pitch : float
        Distance of lattice points (px).

    Returns
    -------
    ndarray of float64, (len(y), len(x))
    """
    row, column = y / pitch, x / pitch
    upper, left = np.floor(row).astype(np.int64), np.floor(column).astype(np.int64)
    values = _lattice(seed, number, np.arange(upper[0], upper[-1] + 2), np.arange(left[0], left[-1] + 2))
    by_row, by_column = _ease(row - upper)[:, None], _ease(column - left)
    upper, left = upper - upper[0], left - left[0]
    lines = values[:, left] * (1 - by_column) + values[:, left + 1] * by_column
    return lines[upper] * (1 - by_row) + lines[upper + 1] * by_row


def _ease(t: np.ndarray) -> np.ndarray:
    """Map 0..1 to 0..1 with slope 0 at both ends, so that the lattice is not visible."""
    return t * t * (3 - 2 * t)


def _lattice(seed: int, number: int, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """A number from 0 to 1 for each lattice point, computed from seed, field, row and column."""
    mixed = _mix(_mix(np.array([seed], np.uint64)) + np.uint64(number))
    mixed = _mix(mixed + _GOLDEN * rows.astype(np.int64).view(np.uint64))
    mixed = _mix(mixed[:, None] + (_GOLDEN * columns.astype(np.int64).view(np.uint64))[None, :])
    return (mixed >> np.uint64(11)) * 2.0**-53


def _mix(value: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64 (Steele 2014): every bit of the input changes half the bits of the output."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def white_noise(seed: int, box: Box, channels: int) -> np.ndarray:
    """Independent Gaussian values, mean 0, standard deviation 1, drawn in fixed tiles.

    Returns
    -------
    ndarray of float32, (channels, y, x)
    """
    tile = _NOISE_TILE_PX
    noise = np.empty((channels, *(part.stop - part.start for part in box)), np.float32)
    for row in range(box[0].start // tile, (box[0].stop - 1) // tile + 1):
        for column in range(box[1].start // tile, (box[1].stop - 1) // tile + 1):
            random = generator(seed, _WHITE_NOISE, row, column)
            drawn = random.standard_normal((channels, tile, tile), dtype=np.float32)
            source, target = [slice(None)], [slice(None)]
            for start, part in ((row * tile, box[0]), (column * tile, box[1])):
                first, last = max(start, part.start), min(start + tile, part.stop)
                source.append(slice(first - start, last - start))
                target.append(slice(first - part.start, last - part.start))
            noise[tuple(target)] = drawn[tuple(source)]
    return noise
