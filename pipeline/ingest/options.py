"""What a user may choose about an ingest."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from segment_slide.pipeline.metadata.numbers import parse_length_um
from segment_slide.unet.errors import OptionError
from segment_slide.unet.options import Option


def read_length(text: str, name: str) -> float:
    """A length in um that a user gives as "0.25", "0,25 um" or "250nm".

    >>> read_length("250nm", "pixel_size")
    0.25

    Raises
    ------
    OptionError
        If it is none.
    """
    length = parse_length_um(text)
    if length is None:
        raise OptionError(name, f"{text!r}, expected a length above 0: a number of um like 0.25, or one like 250nm.")
    return length


@dataclass(frozen=True)
class IngestOptions:
    """What a user may choose.

    Parameters
    ----------
    series : int, optional
        Which image of a file that holds several; by default the one with the largest planes.
    axes : str, optional
        Axes of a file's dimensions in its order, if it does not say them ("czyx", "tyx"), or if all its channels are to
        be kept, alpha too ("yxc").
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
    axes: Annotated[
        str | None, Option("Axes of a file that does not name them, like zyx or czyx; yxc keeps alpha too.")
    ] = None
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
        Option(
            "Pixel size in y and x, instead of the file's: um, or with a unit like 250nm.",
            metavar="LENGTH",
            read=read_length,
            keys=("y", "x"),
        ),
        Option(
            "Distance between planes, instead of the file's: um, or with a unit like 1.5um.",
            metavar="LENGTH",
            read=read_length,
            name="z_step",
            keys=("z",),
        ),
    ] = field(default_factory=dict)
    name: Annotated[str | None, Option("Name of the image (by default the file's).")] = None
    chunk: int = 512
    shard: int = 2048
