"""Levels of an image, laid over the grid that was segmented, and the parts of them that a small picture needs.

All positions are edge coordinates in pixels of that grid, the `base`: its first pixel spans 0 to 1. Levels of image and
labels are aligned by their position on this grid, never by their level number.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from segment_slide.pipeline.errors import InputError, UnreachableError, UnreadableChunkError
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.image import StoredImage, describe_image

Frame = dict[str, tuple[float, float]]  # (start, stop) of what is shown, per axis y and x

_MAX_READ_PX = 1 << 26  # pixels of one channel; larger frames are cropped


@dataclass(frozen=True)
class Layer:
    """A stored image on the grid that was segmented: its level `base`, the plane to show, the channels."""

    base: StoredImage
    plane: Mapping[str, int]
    channels: tuple[int, ...] = (0,)

    def choose_level(self, frame: Frame, side_px: int) -> StoredImage:
        """The coarsest level on which the longer side of the frame still has ``side_px / 2`` pixels."""
        best = self.base
        n_levels = len(self.base.multiscale.levels) if self.base.is_ome else 0
        for number in range(self.base.level + 1, n_levels):
            try:
                coarser = describe_image(self.base.location, level=number)
            except UnreachableError:
                raise
            except InputError:  # a level that is listed but does not exist
                break
            if max(_counts(frame, coarser, self.base)) < side_px / 2:
                break
            best = coarser
        return best

    def read(self, level: StoredImage, box: Mapping[str, slice]) -> np.ndarray:
        """Read pixels (c, y, x) of the shown plane; `box` is in pixels of the level."""
        chosen: dict[str, Any] = {**box, "c": list(self.channels)}
        for axis, index in self.plane.items():
            step, start = lie(level, self.base, axis)
            nearest = min(max(round((index - start) / step), 0), level.size(axis) - 1)
            chosen[axis] = slice(nearest, nearest + 1)
        try:
            pixels = np.asarray(level.array().oindex[tuple(chosen[axis] for axis in level.axes)])
        except Exception as error:  # each codec raises its own exceptions on damaged bytes
            path = store.join(level.location, level.array_path)
            raise UnreadableChunkError(f"{path} cannot be read ({type(error).__name__}: {error})") from error
        present = [axis for axis in "tzcyx" if axis in level.axes]
        pixels = pixels.transpose([level.axes.index(axis) for axis in present])
        return pixels.reshape(len(self.channels), *pixels.shape[-2:])


def lie(level: StoredImage, base: StoredImage, axis: str) -> tuple[float, float]:
    """Step between a level's pixels, and the centre of its first pixel, in base pixels from the first one's centre.

    Taken from the metadata, or from the numbers of pixels if these contradict it (such as levels with equal scales).
    """
    if axis not in base.axes:
        return 1.0, 0.0
    at = base.axes.index(axis)
    fine, coarse = (image.multiscale.levels[image.level] for image in (base, level))
    wanted, given = base.size(axis), level.size(axis)
    if fine.scale[at] > 0 and coarse.scale[at] > 0:
        step = coarse.scale[at] / fine.scale[at]
        start = (coarse.translation[at] - fine.translation[at]) / fine.scale[at]
        if abs(step * given - wanted) < 2 * step and abs(start) <= step:
            return step, start
    return wanted / given, (wanted / given - 1) / 2


def edge(place: float, level: StoredImage, base: StoredImage, axis: str) -> float:
    """Convert an edge coordinate of the base to a level."""
    step, start = lie(level, base, axis)
    return (place - 0.5 - start) / step + 0.5


def _counts(frame: Frame, level: StoredImage, base: StoredImage) -> tuple[float, float]:
    """Number of pixels (y, x) that a level has in the frame; all of them if the frame is the whole image."""
    y, x = (level.size(a) * (frame[a][1] - frame[a][0]) / base.size(a) for a in "yx")
    return y, x


def crop(frame: Frame, level: StoredImage, base: StoredImage) -> Frame:
    """The centre of a frame, as large as may be read from a level."""
    height, width = _counts(frame, level, base)
    if height * width <= _MAX_READ_PX:
        return frame
    rows = min(height, max(math.sqrt(_MAX_READ_PX), _MAX_READ_PX / width))
    kept = {"y": rows / height, "x": min(1.0, _MAX_READ_PX / rows / width)}
    half = {a: max(1, math.floor((stop - start) * kept[a])) / 2 for a, (start, stop) in frame.items()}
    middle = {a: math.floor((start + stop) / 2 - half[a]) + half[a] for a, (start, stop) in frame.items()}
    return {a: (middle[a] - half[a], middle[a] + half[a]) for a in frame}
