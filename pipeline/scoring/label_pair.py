"""The two images that are compared, on the same pixels, and the boxes in which they are read."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from segment_slide.pipeline.errors import InputError
from segment_slide.pipeline.inputs.watch import InputWatch, watch
from segment_slide.pipeline.scoring.mask_files import Source
from segment_slide.pipeline.storage.source import ImageSource
from segment_slide.unet.boxes import Box

MAX_PLANE_PX = 2**28  # largest plane that is labelled or scored as membranes in one piece: about 4 GiB


@dataclass(frozen=True)
class Part:
    """A box (spatial axes) of one frame. Frames are the planes (t, and z in 2D), numbered in raster order."""

    frame: int
    box: Box

    @property
    def n_pixels(self) -> int:
        """Size."""
        return math.prod(side.stop - side.start for side in self.box)


@dataclass(frozen=True)
class LabelPair:
    """A segmentation and the truth. Blocks cover each pixel of each frame exactly once.

    Parameters
    ----------
    predicted, truth : ImageSource or ArraySource
        Labels on the same pixels. Plane axes of size 1 are ignored: (1, 1, y, x) matches (y, x).
    """

    predicted: Source
    truth: Source

    @property
    def spatial_shape(self) -> tuple[int, ...]:
        """Size (px) of one frame."""
        return self.truth.shape[-self.truth.n_spatial :]

    @property
    def n_frames(self) -> int:
        """Number of planes, which are compared one by one."""
        return math.prod(self.truth.shape[: -self.truth.n_spatial])

    @property
    def is_stored(self) -> bool:
        """Whether workers can read both. Pixels in memory can be read in this process only."""
        return isinstance(self.predicted, ImageSource) and isinstance(self.truth, ImageSource)

    def check_shapes(self) -> None:
        """Refuse images that do not cover the same pixels.

        Raises
        ------
        InputError
            If shapes differ, or there is more than one value per pixel.
        """
        for source in (self.predicted, self.truth):
            if isinstance(source, ImageSource) and len(source.channels) != 1:
                raise InputError(f"{location_of(source)}: {len(source.channels)} channels chosen, expected one.")
        if self.predicted.n_spatial != self.truth.n_spatial or _shape(self.predicted) != _shape(self.truth):
            raise InputError(
                f"predicted={location_of(self.predicted)} has shape {self.predicted.shape} ({self.predicted.axes}), "
                f"truth={location_of(self.truth)} {self.truth.shape} ({self.truth.axes}): scores compare the same "
                f"pixels; crop or resample one of them, or choose another level."
            )

    def check_labels(self) -> None:
        """Refuse labels that are not integers.

        Raises
        ------
        InputError
            The message names the side.
        """
        for name, source in (("predicted", self.predicted), ("truth", self.truth)):
            if source.dtype.kind not in "bui":
                raise InputError(
                    f"{name}={location_of(source)}: dtype={source.dtype}, expected integers: labels are classes or "
                    f"ids; a probability map is scored as membranes."
                )

    def check_planes(self) -> None:
        """Refuse frames that are too large to be processed in one piece.

        Raises
        ------
        InputError
            If a frame has more than `MAX_PLANE_PX` pixels.
        """
        n_pixels = math.prod(self.spatial_shape)
        if n_pixels > MAX_PLANE_PX:
            raise InputError(
                f"{location_of(self.truth)}: planes of {n_pixels:,} px, expected at most {MAX_PLANE_PX:,} to compare "
                f"them in one piece; compare instance ids instead of class maps, or a coarser level."
            )

    def blocks(self, block_px: int) -> Iterator[Part]:
        """All boxes of a size (px per side), in raster order."""
        sides = [
            [slice(start, min(start + block_px, size)) for start in range(0, size, block_px)]
            for size in self.spatial_shape
        ]
        for frame in range(self.n_frames):
            for box in itertools.product(*sides):
                yield Part(frame, box)

    def planes(self) -> Iterator[Part]:
        """Whole frames."""
        return self.blocks(max(self.spatial_shape))


def watch_pair(pair: LabelPair, lists: str = "") -> InputWatch:
    """Take down the status of the stored sides' files; pixels in memory are read already.

    Parameters
    ----------
    pair : LabelPair
        The two sides.
    lists : str
        Folder for lists of what is read; "" for none.
    """
    sides = {"predicted": pair.predicted, "truth": pair.truth}
    images = {name: source.image for name, source in sides.items() if isinstance(source, ImageSource)}
    return watch(images, lists)


def with_lists(pair: LabelPair, watched: InputWatch) -> LabelPair:
    """The same pair, with lists of what is read of its stored sides."""

    def note(name: str, source: Source) -> Source:
        return replace(source, image=watched.images[name]) if isinstance(source, ImageSource) else source

    return LabelPair(note("predicted", pair.predicted), note("truth", pair.truth))


def read_part(source: Source, part: Part) -> np.ndarray:
    """Pixels of one box of one frame, on spatial axes."""
    planes = source.shape[: -source.n_spatial]
    index = np.unravel_index(part.frame, planes) if planes else ()
    pixels = source.read((*(slice(int(i), int(i) + 1) for i in index), *part.box))
    return pixels.reshape([side.stop - side.start for side in part.box])


def location_of(source: Source) -> str:
    """Where pixels come from, for messages."""
    return source.image.location if isinstance(source, ImageSource) else source.location


def _shape(source: Source) -> tuple[tuple[int, ...], tuple[int, ...]]:
    planes, spatial = source.shape[: -source.n_spatial], source.shape[-source.n_spatial :]
    return tuple(size for size in planes if size > 1), spatial
