"""Class labels of an image of any size, as blocks read them."""

from dataclasses import dataclass

import numpy as np

from segment_slide.pipeline.blocks.grid import Box
from segment_slide.pipeline.errors import InputError
from segment_slide.pipeline.storage.source import ImageSource


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
            If a value is no class.
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
