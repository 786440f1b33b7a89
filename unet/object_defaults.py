"""Options for objects that a checkpoint recommends: objects are as large as those that the network learned from."""

import math
from dataclasses import dataclass
from typing import Annotated

from segment_slide.unet.errors import CheckpointError
from segment_slide.unet.options import Option


@dataclass(frozen=True)
class ObjectDefaults:
    """Options of `instances` that are used with this network unless the user chooses others.

    Parameters
    ----------
    min_size : str
        Smallest object, like "50" (px), "12.5um2" or "80um3"; "" recommends none.
    split : float, optional
        Depth (px) of the necks at which touching objects are split; None recommends none.

    Raises
    ------
    CheckpointError
        If `split` is not above 0.

    Examples
    --------
    >>> ObjectDefaults(split=0)
    Traceback (most recent call last):
    segment_slide.unet.errors.CheckpointError: objects split=0, expected a number of pixels above 0.
    """

    min_size: Annotated[
        str,
        Option(
            "Smallest object that users of the network should keep, like 50 (px) or 12.5um2. It is recorded in the "
            "checkpoint, and `instances` uses it by default.",
            metavar="SIZE",
        ),
    ] = ""
    split: Annotated[
        float | None,
        Option(
            "Depth of the necks at which users of the network should split touching objects; recorded in the same way.",
            above=0,
            metavar="PX",
        ),
    ] = None

    def __post_init__(self) -> None:
        if self.split is not None and not 0 < self.split < math.inf:
            raise CheckpointError(f"objects split={self.split!r}, expected a number of pixels above 0.")
