"""What a user may choose about an ingest."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from segment_slide.unet.options import Option


@dataclass(frozen=True)
class IngestOptions:
    """What a user may choose.

    Parameters
    ----------
    series : int, optional
        Which image of a file that holds several; by default the one with the largest planes.
    axes : str, optional
        Axes of a TIFF's dimensions in the file's order, if the file does not say them ("czyx", "tyx").
    stack_axis : {"z", "t", "c"}
        The axis that pages lie along if several files or a folder are given.
    pixel_size : mapping of str to float
        Distance between pixels by axis (um; s for t), instead of what the file says.
    name : str, optional
        Name of the image, by default the file's.
    chunk, shard : int
        Pixels along y and x of a chunk, which a viewer fetches at once, and of a shard, which is one file. The shard is
        a multiple of the chunk.
    """

    series: Annotated[
        int | None, Option("Number of the image in a file that holds several (by default the largest).", at_least=0)
    ] = None
    axes: Annotated[str | None, Option("Axes of a TIFF that does not name them, like zyx or czyx.")] = None
    stack_axis: Annotated[
        str,
        Option(
            "Axis along which the pages of a folder or list are stacked: z, t or c.",
            choices=("z", "t", "c"),
            name="stack",
        ),
    ] = "z"
    pixel_size: Annotated[
        Mapping[str, float],
        Option("Pixel size in y and x (um), instead of the file's.", above=0, keys=("y", "x")),
        Option("Distance between planes (um), instead of the file's.", above=0, name="z_step", keys=("z",)),
    ] = field(default_factory=dict)
    name: Annotated[str | None, Option("Name of the image (by default the file's).")] = None
    chunk: int = 512
    shard: int = 2048
