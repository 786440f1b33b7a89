"""What a user may say of a network that is imported."""

from dataclasses import dataclass
from typing import Annotated

from segment_slide.unet.engines.config import MEANINGS
from segment_slide.unet.normalisation import NORMALISATIONS
from segment_slide.unet.options import Option, read_numbers


@dataclass(frozen=True)
class ImportOptions:
    """What the network's file does not say itself. What is left open comes from its description, where it has one."""

    classes: Annotated[
        tuple[str, ...],
        Option(
            "Names of the classes, background first. With one name more than the network has channels, a pixel is "
            "background where no channel has a probability above one half. By default background, foreground; or "
            "class 1, class 2 …"
        ),
    ] = ()
    normalise: Annotated[
        str | None,
        Option(
            "How the network's input is scaled: by mean-std or percentiles of the whole image, or by constants. An "
            "ONNX file does not say it; a package of the model zoo does.",
            choices=NORMALISATIONS,
        ),
    ] = None
    offset: Annotated[
        tuple[float, ...], Option("Constants: what is subtracted, one number for each channel.", read=read_numbers)
    ] = ()
    scale: Annotated[
        tuple[float, ...],
        Option("Constants: what it is divided by after that, one number for each channel.", read=read_numbers),
    ] = ()
    low: Annotated[float, Option("Percentile that becomes 0.")] = 1.0
    high: Annotated[float, Option("Percentile that becomes 1.")] = 99.8
    meaning: Annotated[
        str | None,
        Option(
            "What its output is: scores (logits), or probabilities (after softmax or sigmoid). By default as its last "
            "layer tells.",
            choices=MEANINGS,
        ),
    ] = None
    network_output: Annotated[str, Option("Name of the output that is used, if the network has several.")] = ""
    pixel_size: Annotated[
        tuple[float, ...],
        Option("Pixel size of its training images in um, for each axis.", metavar="UM", read=read_numbers),
    ] = ()
