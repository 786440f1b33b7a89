"""What was measured of an image or of several: mean, standard deviation and percentiles of each channel."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from segment_slide.pipeline.statistics.channel import Counted, Table, merge_counted, merge_tables


@dataclass(frozen=True)
class ChannelStatistics:
    """Mean, standard deviation and percentiles of each channel.

    Attributes
    ----------
    mean, std : tuple of float
        Over all chosen planes. They are exact to the last bits of a float64, for all dtypes, offsets and spreads.
    histograms : tuple of (values, counts)
        Occupied values in rising order and how often each occurs; empty if percentiles were not asked for. Up to 65,536
        different values are exact, and so are all integers and reals of up to 16 bits. Of others, values that are close
        to each other are counted together.
    counted : tuple of Counted
        What the statistics were made of, for `pool_statistics`.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    histograms: tuple[Table, ...]
    counted: tuple[Counted, ...]

    def percentile(self, q: float) -> tuple[float, ...]:
        """Value below which q % of the pixels lie, per channel, by linear interpolation as numpy does.

        It is exact where the histogram is. Elsewhere it is wrong by at most 1/1000 of the distance between the 1st and
        the 99th percentile, for q of 0.01 to 99.99. Nearer to the ends it is a value of the bin in which it lies.
        """
        return tuple(_percentile(values, counts, q) for values, counts in self.histograms)


def make_statistics(counted: Sequence[Counted], histograms: Sequence[Table]) -> ChannelStatistics:
    """Statistics of channels that were counted as a whole."""
    moments = [channel.moments() for channel in counted]
    return ChannelStatistics(
        tuple(m for m, _ in moments), tuple(s for _, s in moments), tuple(histograms), tuple(counted)
    )


def pool_statistics(measured: Sequence[ChannelStatistics]) -> ChannelStatistics:
    """Statistics of the pixels of several images together, in any order of the images.

    Parameters
    ----------
    measured : sequence of ChannelStatistics
        Of images with the same channels; dtypes may differ.

    Returns
    -------
    ChannelStatistics
        With histograms, if all images have them.
    """
    counted = [merge_counted(channels) for channels in zip(*(item.counted for item in measured), strict=True)]
    histograms: list[Table] = []
    if all(item.histograms for item in measured):
        histograms = [merge_tables(channels) for channels in zip(*(item.histograms for item in measured), strict=True)]
    return make_statistics(counted, histograms)


def _percentile(values: np.ndarray, counts: np.ndarray, q: float) -> float:
    """Value at rank q % of a histogram, interpolated linearly between two values.

    >>> _percentile(np.array([1.0, 5.0]), np.array([2, 2]), 50)
    3.0
    """
    ends = np.cumsum(counts)
    rank = q / 100 * (int(ends[-1]) - 1)
    low, high = (float(values[np.searchsorted(ends, r, side="right")]) for r in (math.floor(rank), math.ceil(rank)))
    return low + (high - low) * (rank - math.floor(rank))
