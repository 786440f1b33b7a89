"""Normalisation of intensities whose offset is large beside their spread.

A network computes in float32, which has 24 bits. That is enough for integers of 8 and 16 bits. Wider values may differ
in bits that float32 does not have: of 1,000,000,007 it keeps 1,000,000,000. So the offset is subtracted first.
"""

from collections.abc import Sequence

import numpy as np

# The rounding of float32 stays below 1/65,536 of the spread as long as the offset has at most this many spreads.
_MOST_SPREADS = 256


def needs_float64(dtype: np.dtype[np.generic], offset: Sequence[float], scale: Sequence[float]) -> bool:
    """Whether float32 would round away part of what the network is to see.

    >>> needs_float64(np.dtype("int32"), [1e9], [100.0]), needs_float64(np.dtype("uint16"), [5e4], [1.0])
    (True, False)
    """
    is_wide = dtype.itemsize > 2
    return is_wide and any(abs(o) > _MOST_SPREADS * abs(s) for o, s in zip(offset, scale, strict=True))


def scale_exactly(image: np.ndarray, offset: Sequence[float], scale: Sequence[float]) -> np.ndarray:
    """``(image - offset) / scale``, computed in float64 and then rounded to float32.

    Parameters
    ----------
    image : ndarray, (c, *spatial), any real dtype
        Intensities.
    offset, scale : sequence of float
        One value per channel.

    Returns
    -------
    ndarray of float32, (c, *spatial)
        Normalised intensities.
    """
    column = (-1,) + (1,) * (image.ndim - 1)
    scaled = image.astype(np.float64)
    scaled -= np.array(offset, np.float64).reshape(column)
    scaled /= np.array(scale, np.float64).reshape(column)
    return scaled.astype(np.float32)
