"""What a training step learns from; arrays only, no torch.

A sample depends on its number alone (its source knows the seed). So training sees the same pixels on one process, on
eight, or after a crash.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

IGNORE = 255  # class of pixels without annotation; their weight is 0


@dataclass(frozen=True)
class Sample:
    """One tile to learn from: "a batch of one large tile" (Ronneberger 2015, Sec. 3).

    Attributes
    ----------
    image : ndarray of float32, (c, *spatial)
        Normalised intensities: the tile with its halo (`Geometry.read_size` px per axis).
    classes : ndarray of uint8, (*spatial)
        Class of each pixel of the tile; 255 without annotation or beyond the image.
    weights : ndarray of float32, (*spatial)
        Weight of each pixel (Eq. 2); 0 exactly where `classes` is 255.
    """

    image: np.ndarray
    classes: np.ndarray
    weights: np.ndarray


class Samples(Protocol):
    """Numbered samples of one size."""

    def __len__(self) -> int:
        """Number of samples."""
        ...

    def __getitem__(self, number: int, /) -> Sample:
        """The sample with a number from 0 to ``len - 1``: the same at each call."""
        ...
