"""Annotated images on disk as `unet.annotated.AnnotatedPixels`: only the boxes that samples show are read.

The object is sent to workers, which open the arrays. The training set's table of counts says where annotated pixels
are, so choosing one of 10^10 pixels reads a single block.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import zarr

from segment_slide.pipeline.errors import InputError, UnreadableChunkError
from segment_slide.pipeline.recorded.addresses import check_address
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.complete import require_complete
from segment_slide.pipeline.storage.source import ImageSource
from segment_slide.pipeline.training.training_set import (
    CLASSES,
    COUNTS,
    WEIGHTS,
    AnnotatedImage,
    TrainingSet,
    fingerprint_pixels,
)
from segment_slide.unet.annotated import fill_around, is_drawn
from segment_slide.unet.boxes import Box, clip_box
from segment_slide.unet.sample import IGNORE
from segment_slide.unet.scaling import needs_float64, scale_exactly


@dataclass(frozen=True, eq=False)
class StoredAnnotation:
    """One image of a training set.

    Parameters
    ----------
    training_set : TrainingSet
        Training set that holds its classes and weights.
    image : AnnotatedImage
        The image.
    source : ImageSource
        Its intensities.
    block_counts : ndarray of int64, (*blocks, n_classes)
        Annotated pixels per block and class.
    offset, scale : tuple of float
        Offset and scale of each channel. Intensities become ``(x - offset) / scale``, in float32 as in `unet.predict`.
    """

    training_set: TrainingSet
    image: AnnotatedImage
    source: ImageSource
    block_counts: np.ndarray
    offset: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()
    _opened: dict[str, Any] = field(default_factory=dict, init=False, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        """Pickle everything except open arrays and values that are derived from the rest."""
        return {**self.__dict__, "_opened": {}}

    @property
    def spatial(self) -> tuple[int, ...]:
        """See `AnnotatedPixels`."""
        return self.image.shape[self.image.n_planes_axes :]

    @property
    def planes(self) -> tuple[int, ...]:
        """See `AnnotatedPixels`."""
        return self.image.shape[: self.image.n_planes_axes]

    @property
    def n_channels(self) -> int:
        """See `AnnotatedPixels`."""
        return len(self.source.channels)

    def count(self, *, foreground: bool) -> int:
        """See `AnnotatedPixels`."""
        return int(self._ends(foreground=foreground)[-1])

    def locate(self, rank: int, *, foreground: bool) -> tuple[int, ...]:
        """See `AnnotatedPixels`. Pixels are ranked block by block.

        Raises
        ------
        InputError
            If the stored classes differ from those that were counted.
        """
        ends = self._ends(foreground=foreground)
        number = int(np.searchsorted(ends, rank, side="right"))
        rank -= int(ends[number - 1]) if number else 0
        index = np.unravel_index(number, self.block_counts.shape[:-1])
        box = clip_box(
            tuple(slice(int(i) * n, int(i) * n + n) for i, n in zip(index, self.image.block, strict=True)),
            self.image.shape,
        )
        classes = self._read(CLASSES, box)
        found = np.flatnonzero(is_drawn(classes, foreground=foreground))
        if len(found) != self._in_block(number, foreground=foreground):
            raise InputError(
                f"{self.training_set.location}/{self.image.group}: block {tuple(map(int, index))} holds {len(found)} "
                f"annotated pixels, {self._in_block(number, foreground=foreground)} were counted: its file is damaged. "
                f"Delete that file of its classes, and run `segment-slide weight-maps` again."
            )
        within = np.unravel_index(found[rank], classes.shape)
        return tuple(part.start + int(i) for part, i in zip(box, within, strict=True))

    def read_image(self, plane: tuple[int, ...], box: Box) -> np.ndarray:
        """See `AnnotatedPixels`."""
        pixels = self.source.read((*(slice(i, i + 1) for i in plane), *box))
        pixels = pixels.reshape(pixels.shape[len(plane) :])
        if needs_float64(pixels.dtype, self.offset, self.scale):
            return scale_exactly(pixels, self.offset, self.scale)
        column = (-1,) + (1,) * len(box)
        image = pixels.astype(np.float32)
        image -= np.array(self.offset, np.float32).reshape(column)
        image /= np.array(self.scale, np.float32).reshape(column)
        return image

    def read_annotation(self, plane: tuple[int, ...], box: Box) -> tuple[np.ndarray, np.ndarray]:
        """See `AnnotatedPixels`.

        Raises
        ------
        UnreadableChunkError
            If an annotated pixel has weight 0 although its class has not. Then a shard is missing, which Zarr reads
            as 0.
        """
        inside = clip_box(box, self.spatial)
        where = (*(slice(i, i + 1) for i in plane), *inside)
        size = [part.stop - part.start for part in inside]
        classes, weights = (self._read(name, where).reshape(size) for name in (CLASSES, WEIGHTS))
        self._check_weights(classes, weights, where)
        return fill_around(classes, inside, box, IGNORE), fill_around(weights, inside, box, 0)

    def _check_weights(self, classes: np.ndarray, weights: np.ndarray, where: Box) -> None:
        expected = np.zeros(IGNORE + 1, np.bool_)
        expected[: self.training_set.n_classes] = np.array(self.training_set.class_weights, np.float32) > 0
        if (expected[classes] & ~(weights > 0)).any():
            shown = ", ".join(f"{part.start}:{part.stop}" for part in where)
            raise UnreadableChunkError(
                f"{self.training_set.location}: annotated pixels of image {self.image.name} have no weight at "
                f"[{shown}]; a file of its classes or weights is missing or damaged. Delete it if it is there, and run "
                f"`segment-slide weight-maps` again."
            )

    def has_annotation(self, plane: tuple[int, ...], box: Box) -> bool:
        """See `AnnotatedPixels`. Reads pixels only if the counts do not decide."""
        inside = (*(slice(i, i + 1) for i in plane), *clip_box(box, self.spatial))
        blocks = tuple(
            slice(part.start // n, -(-part.stop // n)) for part, n in zip(inside, self.image.block, strict=True)
        )
        if any(part.start == part.stop for part in inside) or not self.block_counts[blocks].any():
            return False
        if int(self.block_counts.sum()) == int(np.prod(self.image.shape)):
            return True
        return bool((self._read(CLASSES, inside) != IGNORE).any())

    def _ends(self, *, foreground: bool) -> np.ndarray:
        """Cumulative number of annotated (foreground) pixels of the blocks, in raster order."""
        key = f"ends, {foreground}"
        if key not in self._opened:
            self._opened[key] = np.cumsum(self.block_counts[..., int(foreground) :].sum(axis=-1))
        return self._opened[key]

    def _in_block(self, number: int, *, foreground: bool) -> int:
        return int(np.diff(self._ends(foreground=foreground), prepend=0)[number])

    def _read(self, name: str, box: Box) -> np.ndarray:
        if name not in self._opened:
            self._opened[name] = self.training_set.array(self.image, name)
        array: zarr.Array[Any] = self._opened[name]
        return _read(self.training_set, self.image, name, array, box)


def _read(
    training_set: TrainingSet, image: AnnotatedImage, name: str, array: "zarr.Array[Any]", box: Any
) -> np.ndarray:
    try:
        return np.asarray(array[box])
    except Exception as error:  # on damaged bytes, codecs raise exceptions of many types
        where = store.join(training_set.location, image.group, name)
        shown = "" if box is ... else f", at [{', '.join(f'{part.start}:{part.stop}' for part in box)}]"
        raise UnreadableChunkError(
            f"a file of {where} is damaged{shown} ({type(error).__name__}: {error}). Run the same `segment-slide "
            f"weight-maps` again: it finds the damaged file and makes it anew."
        ) from error


def open_annotation(training_set: TrainingSet, image: AnnotatedImage) -> StoredAnnotation:
    """Open an image of a training set, without normalisation.

    Raises
    ------
    InputError
        If the image does not exist, is not complete, or is not the one that the weight maps were made with.
    """
    place = image.image.location
    check_address(place, training_set.location, remedy=f"name it: `images_at={place!r}`")
    source = image.image.open()
    require_complete(source.image)
    mark = fingerprint_pixels(source.image, training_set.location, image.image.fingerprint)
    if source.shape != image.shape or mark != image.image.fingerprint:
        raise InputError(
            f"image {image.name} ({source.image.location}) has changed since the training set "
            f"{training_set.location} was made. Restore it, or make another set with `segment-slide weight-maps`."
        )
    counts = _read(training_set, image, COUNTS, training_set.array(image, COUNTS), ...)
    return StoredAnnotation(training_set, image, source, counts)
