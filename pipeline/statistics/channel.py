"""What is counted of one channel: each value where there are at most 65,536, else exact sums and a histogram.

Parts of a channel are merged in any order and grouping, and give the same to the last bit.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from segment_slide.pipeline.statistics.histogram import Histogram, count_values, merge_histograms
from segment_slide.pipeline.statistics.sums import Sums, sum_values

Table = tuple[np.ndarray, np.ndarray]  # values (float64) in rising order, and how often each occurs (int64)


@dataclass(frozen=True, eq=False)
class Counted:
    """Counts of one channel.

    Parameters
    ----------
    table : (values, counts) or None
        Of integers, truth values and reals of up to 16 bits: each value.
    sums : Sums
        Of all others.
    histogram : Histogram or None
        Of all others, if percentiles are asked for.
    """

    table: Table | None = None
    sums: Sums = Sums()
    histogram: Histogram | None = None

    @property
    def n_bins(self) -> int:
        """Number of values or bins that are held."""
        if self.table is not None:
            return len(self.table[0])
        return 0 if self.histogram is None else len(self.histogram.keys)

    def moments(self) -> tuple[float, float]:
        """Mean and standard deviation of the population."""
        if self.table is None:
            return self.sums.mean, self.sums.std
        return _moments(*self.table)


def count_channel(values: np.ndarray, *, needs_histogram: bool) -> Counted:
    """Count the values (in one dimension) of a channel, or of a part of it."""
    if values.dtype.itemsize <= 2:
        return Counted(table=_count_each(values))
    return Counted(sums=sum_values(values), histogram=count_values(values) if needs_histogram else None)


def merge_counted(parts: Sequence[Counted]) -> Counted:
    """Counts of all parts together; parts of images may differ in dtype, and then have no histogram."""
    tables = [part.table for part in parts if part.table is not None]
    if len(tables) == len(parts):
        return Counted(table=merge_tables(tables))
    sums = sum((part.sums if part.table is None else _sum_table(*part.table) for part in parts), Sums())
    histograms = [part.histogram for part in parts if part.histogram is not None]
    is_one = len(histograms) == len(parts) and len({histogram.dtype for histogram in histograms}) == 1
    return Counted(sums=sums, histogram=merge_histograms(histograms) if is_one else None)


def _count_each(values: np.ndarray) -> Table:
    """Values of up to 16 bits and their counts."""
    if values.dtype.kind in "bu":
        counts = np.bincount(values)
        occupied = np.flatnonzero(counts)
        return occupied.astype(np.float64), counts[occupied]
    unique, counts = np.unique(values + values.dtype.type(0), return_counts=True)  # -0.0 becomes 0.0
    return unique.astype(np.float64), counts


def merge_tables(tables: Sequence[Table]) -> Table:
    """Table of the values of all tables together."""
    values, where = np.unique(np.concatenate([values for values, _ in tables]), return_inverse=True)
    totals = np.zeros(len(values), np.int64)
    np.add.at(totals, where, np.concatenate([counts for _, counts in tables]))
    return values, totals


def _sum_table(values: np.ndarray, counts: np.ndarray) -> Sums:
    pairs = [(Fraction(value), number) for value, number in zip(values.tolist(), counts.tolist(), strict=True)]
    total = sum((value * number for value, number in pairs), Fraction(0))
    squares = sum((value**2 * number for value, number in pairs), Fraction(0))
    return Sums(int(counts.sum()), total, squares)


def _moments(values: np.ndarray, counts: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation, summed exactly (math.fsum), so that the order of addition does not matter."""
    total = int(counts.sum())
    mean = math.fsum(float(v) * int(n) for v, n in zip(values, counts, strict=True)) / total
    squares = math.fsum((float(v) - mean) ** 2 * int(n) for v, n in zip(values, counts, strict=True))
    return mean, math.sqrt(squares / total)
