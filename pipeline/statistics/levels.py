"""Intensities of one image in a few numbers per channel, and those of the training images together."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from segment_slide.pipeline.statistics.result import ChannelStatistics
from segment_slide.pipeline.statistics.sample import Sample
from segment_slide.pipeline.storage.source import ImageSource
from segment_slide.unet.normalisation import ChannelIntensities, Intensities

_QS = (1.0, 50.0, 99.8, 0.0, 100.0)  # percentiles: low, level, high, and the ends
_SPECKS = 10  # pixels: all hot pixels of an image together, and less than an object
_RANGE_OF_NOISE = 12.0  # standard deviations, from the darkest to the brightest pixel of 10^8
_ROUNDING = 12**-0.5  # standard deviation of rounding to whole numbers
Scaling = tuple[tuple[float, ...], tuple[float, ...]]  # offset and scale of each channel


@dataclass(frozen=True)
class Levels:
    """Intensities of one image, one value per channel.

    Attributes
    ----------
    dtype : str
        The image's dtype.
    channels : tuple of int
        Numbers of the image's channels, as users know them.
    low, level, high : tuple of float
        The 1st, 50th and 99.8th percentile.
    smallest, largest : tuple of float
        The ends.
    noise : tuple of float
        Standard deviation of the noise; 0 if unknown.
    coarse_noise : tuple of float
        The same for noise that may have been smoothed (`pipeline.statistics.sample.estimate_coarse_noise`).
    inner_range : tuple of float
        The distance of the ends without the ten pixels at each of them: specks, such as hot pixels, are fewer.
    is_sample : bool
        Whether percentiles are those of a sample of the pixels.
    """

    dtype: str
    channels: tuple[int, ...]
    low: tuple[float, ...]
    level: tuple[float, ...]
    high: tuple[float, ...]
    smallest: tuple[float, ...]
    largest: tuple[float, ...]
    noise: tuple[float, ...]
    coarse_noise: tuple[float, ...]
    inner_range: tuple[float, ...]
    is_sample: bool = False

    @property
    def ranges(self) -> tuple[float, ...]:
        """`high` - `low`."""
        return tuple(high - low for low, high in zip(self.low, self.high, strict=True))

    @property
    def places(self) -> tuple[float, ...]:
        """Where the 50th percentile lies between `low` and `high`: 0 to 1; 0.5 if these are equal."""
        triples = zip(self.low, self.level, self.high, strict=True)
        return tuple((level - low) / (high - low) if high > low else 0.5 for low, level, high in triples)

    def holds_noise_only(self, channel: int) -> bool:
        """Whether nothing but noise is left of a channel without its few brightest and darkest pixels."""
        return self.inner_range[channel] <= _RANGE_OF_NOISE * self.noise[channel]


def levels_of_image(source: ImageSource, measured: ChannelStatistics, sample: Sample | None) -> Levels:
    """Levels of an image that was measured as a whole; the sample gives the noise."""
    low, level, high, smallest, largest, *inner = (measured.percentile(q) for q in _find_qs(math.prod(source.shape)))
    ends = low, level, high, smallest, largest
    return Levels(f"{source.dtype}", source.channels, *ends, *_noise(source, sample), _subtract(*inner))


def levels_of_sample(source: ImageSource, sample: Sample) -> Levels:
    """Levels of a sample."""
    qs = _find_qs(len(sample.values[0]))
    ends = np.array([np.percentile(values.astype(np.float64), qs) for values in sample.values]).T
    low, level, high, smallest, largest, *inner = (tuple(map(float, row)) for row in ends)
    found = low, level, high, smallest, largest
    return Levels(
        f"{source.dtype}", source.channels, *found, *_noise(source, sample), _subtract(*inner), is_sample=True
    )


def _find_qs(n_pixels: int) -> tuple[float, ...]:
    """Percentiles: low, level, high, the ends, and the ends without some pixels."""
    left_out = 100 * min(_SPECKS / n_pixels, 0.01)
    return (*_QS, left_out, 100 - left_out)


def _subtract(small: tuple[float, ...], large: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(b - a for a, b in zip(small, large, strict=True))


def _noise(source: ImageSource, sample: Sample | None) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Noise and coarse noise of each channel. Integers have at least that of rounding, where a sample sees none."""
    least = 0.0 if source.dtype.kind == "f" else _ROUNDING
    unknown = (0.0,) * len(source.channels)
    fine, coarse = (sample.noise, sample.coarse_noise) if sample else (unknown, unknown)
    return tuple(max(value, least) for value in fine), tuple(max(value, least) for value in coarse)


def describe_intensities(images: Sequence[Levels], scalings: Sequence[Scaling]) -> Intensities:
    """The training images' intensities.

    Parameters
    ----------
    images : sequence of Levels
        At least one.
    scalings : sequence of (offset, scale)
        How each of them is normalised.
    """
    dtypes = tuple(sorted({image.dtype for image in images}))
    numbers = range(len(images[0].low))
    return Intensities(dtypes, len(images), tuple(_describe_channel(images, scalings, number) for number in numbers))


def _describe_channel(images: Sequence[Levels], scalings: Sequence[Scaling], channel: int) -> ChannelIntensities:
    shown = find_with_objects(images, channel)

    def of_each(name: str) -> np.ndarray:
        return np.array([getattr(images[number], name)[channel] for number in shown])

    offset, scale = (np.array([scalings[number][part][channel] for number in shown]) for part in (0, 1))
    full = np.maximum(of_each("largest") - of_each("smallest"), scale)
    return ChannelIntensities(
        low=_triple(of_each("low")),
        level=_triple(of_each("level")),
        high=_triple(of_each("high")),
        range=_triple(of_each("ranges")),
        place=_triple(of_each("places")),
        noise=_triple(of_each("noise") / scale),
        smallest_scale=float(scale.min()),
        background=float(np.median((of_each("level") - offset) / scale)),
        reach=float(np.median(scale / full)),
    )


def find_with_objects(images: Sequence[Levels], channel: int) -> list[int]:
    """Numbers of the images that show more than noise in a channel: a stain may be missing in some of them.

    If most show no more, noise is all that can be told from objects here, and all images count.
    """
    found = [number for number, image in enumerate(images) if not image.holds_noise_only(channel)]
    return found if 2 * len(found) >= len(images) else list(range(len(images)))


def _triple(values: np.ndarray) -> tuple[float, float, float]:
    return float(values.min()), float(np.median(values)), float(values.max())
