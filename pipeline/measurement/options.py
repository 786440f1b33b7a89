"""Options of the measurement."""

from dataclasses import dataclass
from typing import Annotated

from segment_slide.unet.options import Option

DEFAULT_ROWS = 1 << 18  # objects in a part: some 60 MB of columns


@dataclass(frozen=True)
class ImageChoice:
    """The image that intensities are measured in.

    Parameters
    ----------
    image : str, optional
        Location of the image; by default the one in the segmentation's record.
    level : int, optional
        Resolution level of the image; by default the one that was segmented.
    no_image : bool
        Measure shapes only.
    """

    image: Annotated[str | None, Option("Image to measure intensities in (by default the one that was segmented).")] = (
        None
    )
    level: Annotated[
        int | None, Option("Resolution level of the image (by default the one that was segmented).", at_least=0)
    ] = None
    no_image: Annotated[bool, Option("Measure only shapes, no intensities.")] = False
