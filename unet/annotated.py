"""Annotated images from which training samples are drawn, wherever they are stored; here those in memory.

A box may reach beyond the image. There the intensities are the image's mirror image (Ronneberger 2015, Sec. 2, the
edge pixel not repeated), and nothing is annotated.
"""

from functools import cached_property
from typing import Protocol

import numpy as np

from segment_slide.unet.boxes import Box, clip_box
from segment_slide.unet.errors import TrainingDataError
from segment_slide.unet.sample import IGNORE


class AnnotatedPixels(Protocol):
    """One image with its annotation, wherever it is stored; it is read in boxes that may reach beyond the image."""

    @property
    def spatial(self) -> tuple[int, ...]:
        """Size (px) on (y, x) or (z, y, x)."""
        ...

    @property
    def planes(self) -> tuple[int, ...]:
        """Sizes of the axes along which planes are independent; empty for a single image."""
        ...

    @property
    def n_channels(self) -> int:
        """Channels."""
        ...

    def count(self, *, foreground: bool) -> int:
        """Number of annotated pixels: all, or those of a class above 0."""
        ...

    def locate(self, rank: int, *, foreground: bool) -> tuple[int, ...]:
        """Index on (*planes, *spatial) of the annotated (foreground) pixel with a rank from 0 to ``count - 1``."""
        ...

    def read_image(self, plane: tuple[int, ...], box: Box) -> np.ndarray:
        """Normalised intensities, float32 (c, *spatial); mirrored beyond the image, edge pixel not repeated."""
        ...

    def read_annotation(self, plane: tuple[int, ...], box: Box) -> tuple[np.ndarray, np.ndarray]:
        """Classes (uint8) and weights (float32), (*spatial); 255 and 0 beyond the image."""
        ...

    def has_annotation(self, plane: tuple[int, ...], box: Box) -> bool:
        """Whether any pixel of a box is annotated."""
        ...


def is_drawn(classes: np.ndarray, *, foreground: bool) -> np.ndarray:
    """Mask of pixels around which a sample may be drawn: all annotated ones, or those of a class above 0.

    >>> is_drawn(np.array([0, 1, 2, 255], np.uint8), foreground=True).tolist()
    [False, True, True, False]
    """
    annotated: np.ndarray = classes != IGNORE
    return annotated & (classes > 0) if foreground else annotated


def mirror(start: int, stop: int, size: int) -> np.ndarray:
    """Pixels of an axis shown at positions start to stop; beyond its ends mirrored, the edge pixel not repeated.

    >>> mirror(-3, 6, 3).tolist()
    [1, 2, 1, 0, 1, 2, 1, 0, 1]
    """
    period = max(2 * size - 2, 1)
    positions = np.arange(start, stop) % period
    return np.minimum(positions, period - positions) if size > 1 else positions


def read_mirrored(image: np.ndarray, box: Box) -> np.ndarray:
    """Read a box of an image (c, *spatial), mirrored where it reaches beyond the image.

    >>> read_mirrored(np.array([[5, 6, 7]]), (slice(-1, 4),)).tolist()
    [[6, 5, 6, 7, 6]]
    """
    if all(part.start >= 0 and part.stop <= size for part, size in zip(box, image.shape[1:], strict=True)):
        return image[(slice(None), *box)]
    for axis, part in enumerate(box, start=1):
        image = image.take(mirror(part.start, part.stop, image.shape[axis]), axis=axis)
    return image


def read_padded(pixels: np.ndarray, box: Box, fill: int) -> np.ndarray:
    """Read a box of an array, filled with a constant where it reaches beyond the array.

    >>> read_padded(np.array([5, 6, 7]), (slice(-1, 2),), 0).tolist()
    [0, 5, 6]
    """
    inside = clip_box(box, pixels.shape)
    return fill_around(pixels[inside], inside, box, fill)


def fill_around(pixels: np.ndarray, inside: Box, box: Box, fill: int) -> np.ndarray:
    """Extend pixels of the part `inside` of a box to the whole box, filled with a constant around them."""
    if inside == box:
        return pixels
    whole = np.full([part.stop - part.start for part in box], fill, pixels.dtype)
    whole[
        tuple(
            slice(part.start - wanted.start, part.stop - wanted.start) if part.stop > part.start else slice(0)
            for part, wanted in zip(inside, box, strict=True)
        )
    ] = pixels
    return whole


class ArrayPixels:
    """An annotated image in memory, as `AnnotatedPixels`.

    Parameters
    ----------
    image : ndarray of float32, (c, *spatial)
        Normalised intensities, finite.
    classes : ndarray of uint8, (*spatial)
        Class of each pixel, 255 where nothing is annotated.
    weights : ndarray of float32, (*spatial), optional
        Weight of each pixel, above 0 exactly where it is annotated; 1 by default.

    Raises
    ------
    TrainingDataError
        If shapes, dtypes or values do not fit.
    """

    planes: tuple[int, ...] = ()

    def __init__(self, image: np.ndarray, classes: np.ndarray, weights: np.ndarray | None = None) -> None:
        annotated = np.asarray(classes) != IGNORE
        self._image, self._classes = image, classes
        self._weights = annotated.astype(np.float32) if weights is None else weights
        self.n_channels = image.shape[0]
        self.spatial: tuple[int, ...] = classes.shape
        self._check(annotated)

    def _check(self, annotated: np.ndarray) -> None:
        image, classes, weights = self._image, self._classes, self._weights
        if classes.ndim not in (2, 3) or not classes.size or image.shape[1:] != classes.shape or not len(image):
            raise TrainingDataError(
                f"image {image.shape} and classes {classes.shape}: expected (c, *spatial) and the same (*spatial), on "
                f"(y, x) or (z, y, x)."
            )
        if image.dtype != np.float32 or classes.dtype != np.uint8 or weights.dtype != np.float32:
            raise TrainingDataError(
                f"image, classes and weights are {image.dtype}, {classes.dtype}, {weights.dtype}; expected float32, "
                f"uint8, float32: normalise the image first."
            )
        if not np.isfinite(image).all():
            raise TrainingDataError("the image holds values that are not finite; the network would spread them.")
        if weights.shape != classes.shape or not np.isfinite(weights).all() or ((weights > 0) != annotated).any():
            raise TrainingDataError(
                f"weights {weights.shape}: expected {classes.shape}, finite, above 0 where a pixel is annotated and 0 "
                f"where its class is {IGNORE}."
            )

    @cached_property
    def _row_ends(self) -> dict[bool, np.ndarray]:
        """For each row, the number of annotated (foreground) pixels up to its end, in raster order."""
        rows = self._classes.reshape(-1, self.spatial[-1])
        return {
            foreground: np.cumsum(is_drawn(rows, foreground=foreground).sum(axis=1)) for foreground in (False, True)
        }

    def count(self, *, foreground: bool) -> int:
        """See `AnnotatedPixels`."""
        return int(self._row_ends[foreground][-1])

    def locate(self, rank: int, *, foreground: bool) -> tuple[int, ...]:
        """See `AnnotatedPixels`; ranks are in raster order."""
        ends = self._row_ends[foreground]
        row = int(np.searchsorted(ends, rank, side="right"))
        within = rank - int(ends[row - 1] if row else 0)
        line = self._classes.reshape(-1, self.spatial[-1])[row]
        column = int(np.flatnonzero(is_drawn(line, foreground=foreground))[within])
        return (*map(int, np.unravel_index(row, self.spatial[:-1])), column)

    def read_image(self, plane: tuple[int, ...], box: Box) -> np.ndarray:
        """See `AnnotatedPixels`."""
        return read_mirrored(self._image, box)

    def read_annotation(self, plane: tuple[int, ...], box: Box) -> tuple[np.ndarray, np.ndarray]:
        """See `AnnotatedPixels`."""
        return read_padded(self._classes, box, IGNORE), read_padded(self._weights, box, 0)

    def has_annotation(self, plane: tuple[int, ...], box: Box) -> bool:
        """See `AnnotatedPixels`."""
        return bool((read_padded(self._classes, box, IGNORE) != IGNORE).any())
