"""Class labels of an image of any size, as blocks read them."""

from dataclasses import dataclass

import numpy as np

from segment_slide.pipeline.errors import InputError
from segment_slide.pipeline.storage.source import ImageSource
from segment_slide.unet.boxes import Box, clip_box


@dataclass(frozen=True)
class LabelSource:
    """A stored label image whose values are classes.

    Parameters
    ----------
    image : ImageSource
        One channel of the stored array.
    """

    image: ImageSource

    def read(self, box: Box) -> np.ndarray:
        """Classes of a box within the image, uint8, C-contiguous, on the axes of the segmentation.

        Raises
        ------
        UnreadableChunkError
            If a chunk cannot be read, naming it.
        InputError
            If a value is not a class (0 to 255).
        """
        values = self.image.read(box)[(slice(None),) * len(self.image.plane_axes) + (0,)]
        if values.dtype != np.bool_ and values.dtype != np.uint8 and values.size:
            lowest, highest = int(values.min()), int(values.max())
            if lowest < 0 or highest > np.iinfo(np.uint8).max:
                raise InputError(
                    f"{self.image.image.location}/{self.image.image.array_path} holds the value "
                    f"{lowest if lowest < 0 else highest}; classes are 0 (background) to 255. If its values are "
                    f"objects already, there is nothing to label."
                )
        return np.ascontiguousarray(values, np.uint8)


@dataclass(frozen=True)
class LabelPixels:
    """Label values on the axes of the image they belong to; background beyond its border.

    Parameters
    ----------
    source : ImageSource
        One channel. Plane axes of the image that it lacks have size 1.
    axes : str
        Of the image, without channels.
    shape : tuple of int
        Of the image, on `axes`.
    """

    source: ImageSource
    axes: str
    shape: tuple[int, ...]

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """As stored."""
        return self.source.dtype

    def read(self, box: Box) -> np.ndarray:
        """Values of a box that may leave the image on spatial axes.

        They are not mirrored at the border as images are: that would mirror objects too. It would also be wrong for
        ridges, because these look at neighbours in one direction only.

        Raises
        ------
        UnreadableChunkError
            If a chunk cannot be read, naming it.
        """
        inside = clip_box(box, self.shape)
        around = [(have.start - part.start, part.stop - have.stop) for part, have in zip(box, inside, strict=True)]
        if any(part.start >= part.stop for part in inside):
            return np.zeros([part.stop - part.start for part in box], self.dtype)
        by_axis = dict(zip(self.axes, inside, strict=True))
        values = self.source.read(tuple(by_axis.get(axis, slice(0, 1)) for axis in self.source.axes))
        return np.pad(values.reshape([part.stop - part.start for part in inside]), around)
