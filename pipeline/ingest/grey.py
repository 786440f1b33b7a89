"""Colour images that are grey: red, green and blue are equal everywhere, as many programs save masks."""

import math
from contextlib import closing

import numpy as np

from segment_slide.pipeline.readers.reader import Reader

MAX_VALUES = 2**30  # read at once; takes 1 to 8 GiB in memory


def may_be_grey(n_channels: int) -> bool:
    """Whether an image has as many channels as red, green and blue, with or without alpha."""
    return n_channels in (3, 4)


def is_grey(reader: Reader) -> bool:
    """Read a whole image and say whether all its channels are equal; closes the reader. Too large ones are not read."""
    with closing(reader):
        if math.prod(reader.info.shape) > MAX_VALUES:
            return False
        pixels = reader.read(tuple(slice(0, size) for size in reader.info.shape))
    return as_grey(np.moveaxis(pixels, reader.info.axes.index("c"), 0)) is not None


def as_grey(channels: np.ndarray) -> np.ndarray | None:
    """The one channel of an image whose colours are equal, or None if they differ.

    Parameters
    ----------
    channels : ndarray, (3 or 4, ...)
        Red, green, blue; a fourth channel is alpha, and has to have one value everywhere.

    Examples
    --------
    >>> as_grey(np.array([[0, 255], [0, 255], [0, 255], [255, 255]])).tolist()
    [0, 255]
    >>> as_grey(np.array([[0, 255], [0, 0], [0, 0]])) is None
    True
    """
    red, green, blue, *alpha = channels
    is_even = all(part.size == 0 or part.min() == part.max() for part in alpha)
    return red if is_even and np.array_equal(red, green) and np.array_equal(red, blue) else None
