"""How intensities become network input, and what the intensities of the training images were.

`Normalisation` is what a network needs. `WantedNormalisation` is what a user asks for: it may be "auto", and then the
training images decide. `Intensities` describes the training images. A segmentation compares its image with it, and does
not stretch an image that is nearly flat (`pipeline.statistics.bound`).
"""

import math
from dataclasses import dataclass, fields
from typing import Annotated, ClassVar

from segment_slide.unet.errors import CheckpointError
from segment_slide.unet.options import Option

NORMALISATIONS = ("constants", "mean-std", "percentiles")
AUTO = "auto"


@dataclass(frozen=True)
class Normalisation:
    """How intensities become network input: ``(x - offset) / scale`` per channel, the same for all pixels of an image.

    Parameters
    ----------
    kind : {"constants", "mean-std", "percentiles"}
        "constants": `offset` and `scale` below. The two others are measured once on the whole image:
        mean and standard deviation, or the `low` and `high` percentiles, which are mapped to 0 and 1.
    offset, scale : tuple of float
        One per channel, in intensity units; for "constants" only.
    low, high : float
        Percentiles in 0..100; for "percentiles" only.

    Raises
    ------
    CheckpointError
        If a value is missing, not finite or out of order.
    """

    kinds: ClassVar[tuple[str, ...]] = NORMALISATIONS

    kind: str = "constants"
    offset: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()
    low: float = 1.0
    high: float = 99.8

    def __post_init__(self) -> None:
        object.__setattr__(self, "offset", tuple(float(value) for value in self.offset))
        object.__setattr__(self, "scale", tuple(float(value) for value in self.scale))
        if self.kind not in self.kinds:
            raise CheckpointError(f"normalisation kind={self.kind!r}, expected one of {self.kinds}.")
        if not all(math.isfinite(value) for value in self.offset):
            raise CheckpointError(f"normalisation offset={self.offset}, expected finite values.")
        if not all(math.isfinite(value) and value > 0 for value in self.scale):
            raise CheckpointError(f"normalisation scale={self.scale}, expected finite values above 0.")
        if not 0 <= self.low < self.high <= 100:
            raise CheckpointError(f"percentiles low={self.low}, high={self.high}: expected 0 <= low < high <= 100.")


@dataclass(frozen=True)
class WantedNormalisation(Normalisation):
    """What a user asks for: a kind of normalisation, or "auto" to choose by the training images.

    Parameters
    ----------
    kind : {"auto", "constants", "mean-std", "percentiles"}
        "auto": see `pipeline.statistics.spread`. "constants" without values: they are measured on all training images.
    offset, scale, low, high
        See `Normalisation`.
    """

    kinds: ClassVar[tuple[str, ...]] = (AUTO, *NORMALISATIONS)

    kind: Annotated[
        str,
        Option(
            "How intensities are normalised: by constants (of all training images), or by mean-std or percentiles of "
            "each image. By default auto: by percentiles if exposures differ between the images, else by constants.",
            choices=(AUTO, *NORMALISATIONS),
            name="normalise",
        ),
    ] = AUTO


@dataclass(frozen=True)
class ChannelIntensities:
    """Intensities of one channel of the training images that have objects and show more than noise in it.

    The three-tuples are the smallest, the median and the largest over the images.

    Attributes
    ----------
    low, level, high : (float, float, float)
        The 1st, the 50th and the 99.8th percentile of an image.
    range : (float, float, float)
        `high` - `low` of an image.
    place : (float, float, float)
        (`level` - `low`) / `range` of an image: near 0 on a dark background, near 1 on a bright one.
    noise : (float, float, float)
        The noise (standard deviation) of an image, divided by its scale.
    smallest_scale : float
        The smallest scale that an image was normalised with.
    background : float
        Median over the images of the 50th percentile after normalisation.
    reach : float
        Median over the images of scale / (largest - smallest value).

    Raises
    ------
    CheckpointError
        If a value is not a finite number, or not three of them where three are expected.
    """

    low: tuple[float, float, float]
    level: tuple[float, float, float]
    high: tuple[float, float, float]
    range: tuple[float, float, float]
    place: tuple[float, float, float]
    noise: tuple[float, float, float]
    smallest_scale: float
    background: float
    reach: float

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            numbers = value if isinstance(value, tuple) else (value,)
            expected = 1 if item.type is float else 3
            if len(numbers) != expected or not all(isinstance(n, int | float) and math.isfinite(n) for n in numbers):
                raise CheckpointError(
                    f"intensities of the training images: {item.name}={value}, expected finite numbers ({expected})."
                )


@dataclass(frozen=True)
class Intensities:
    """Intensities of the training images.

    Attributes
    ----------
    dtypes : tuple of str
        The dtypes of the images, each once, sorted.
    n_images : int
        Number of images that are described.
    channels : tuple of ChannelIntensities
        One per channel.
    """

    dtypes: tuple[str, ...]
    n_images: int
    channels: tuple[ChannelIntensities, ...]
