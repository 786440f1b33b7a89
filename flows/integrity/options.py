"""The request of `verify`; the command line loads this file at each start, so it imports nothing heavy."""

from dataclasses import dataclass
from typing import Annotated

from segment_slide.unet.options import Option


@dataclass(frozen=True)
class VerifyRequest:
    """What to verify, and whether to make again what is broken.

    Parameters
    ----------
    path : str
        An image, a segmentation, a training set, samples, a model, a training's folder, or a folder of these.
    repair : bool
        Make broken files again where that gives the bytes that were written.
    input, model : str
        Where the input and the model of the output lie now; by default where its records say.
    """

    path: str
    repair: Annotated[
        bool, Option("Make broken files again, where input and model are there and unchanged. Nothing else changes.")
    ] = False
    input: Annotated[
        str, Option("Where the input lies now, for the repair (by default where the output's record says).")
    ] = ""
    model: Annotated[
        str, Option("Where the model lies now, for the repair (by default where the output's record says).")
    ] = ""
