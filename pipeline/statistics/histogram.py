"""Histograms of any dtype, as fine as the values ask for, in bounded memory, the same in any order of counting.

Each value has a key: an unsigned integer that rises with it. A histogram counts keys without their last bits, and drops
no more of these bits than it must to keep to a number of bins::

    keys      1011 0110   1011 0111   1011 1001        three values
    shift 0   1011 0110   1011 0111   1011 1001        three bins, exact
    shift 1   1011 011_               1011 100_        two bins

How many bits must be dropped depends on the values alone, and part of the values never needs more than all of them. So
histograms of parts can be merged in any order: the result is always the histogram of all values.

Bins lie close where values lie close: a spread of 1 around an offset of a million has as many bins as one around 0. If
values of very different sizes use up the bins, `find_coarse_bins` names the bins that are still too wide, and only the
values in these are counted once more.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

MOST_BINS = 1 << 16
NO_ENDS = (1 << 64) - 1, 0
ACCURACY = 1 / 1000  # of the distance between the 1st and the 99th percentile
_TAIL = 1e-4  # share of the values at either end whose bins are never counted again: a few are no percentile


@dataclass(frozen=True, eq=False)
class Histogram:
    """Occupied bins in rising order.

    Parameters
    ----------
    dtype : dtype
        Of the values.
    shift : int
        Bits that were dropped from keys.
    keys : ndarray of uint64
        Keys of the bins, without these bits.
    counts : ndarray of int64
        Number of values in each bin.
    ends : (int, int)
        Keys of the lowest and the highest value, with all bits.
    """

    dtype: np.dtype[np.generic]
    shift: int
    keys: np.ndarray
    counts: np.ndarray
    ends: tuple[int, int]

    def starts(self) -> np.ndarray:
        """First key of each bin."""
        shifted: np.ndarray = self.keys << np.uint64(self.shift)
        return shifted

    def values(self) -> np.ndarray:
        """A float64 of each bin: for reals the one nearest to zero, so that 0 stays 0; for integers the lowest."""
        starts = self.starts()
        if self.dtype.kind == "f":
            below_zero = starts < np.uint64(_sign_bit(self.dtype))
            starts = np.where(below_zero, starts | np.uint64((1 << self.shift) - 1), starts)
        return _decode(starts, self.dtype)

    def widths(self) -> np.ndarray:
        """Distance (float64) between the first and the last value of each bin."""
        starts = self.starts()
        ends = starts | np.uint64((1 << self.shift) - 1)
        return np.abs(_decode(ends, self.dtype) - _decode(starts, self.dtype))


Round = tuple[Histogram, Histogram | None]  # what was counted, and those of its bins that are counted once more


def count_values(values: np.ndarray, within: "Histogram | None" = None) -> Histogram:
    """Histogram of values with at most `MOST_BINS` bins.

    Parameters
    ----------
    values : ndarray
        Integers of 32 or 64 bits, or finite reals.
    within : Histogram, optional
        Only values that lie in its bins are counted.
    """
    keys = _encode(values.ravel())
    if within is not None:
        coarse = keys >> keys.dtype.type(within.shift)
        at = np.searchsorted(within.keys, coarse)
        keys = keys[within.keys[np.minimum(at, len(within.keys) - 1)] == coarse]
    if not keys.size:
        return Histogram(values.dtype, 0, keys.astype(np.uint64), np.zeros(0, np.int64), NO_ENDS)
    keys.sort()
    ends = int(keys[0]), int(keys[-1])
    shift = _bits_to_drop(keys, MOST_BINS)
    keys >>= keys.dtype.type(shift)
    begins = _find_begins(keys)
    return Histogram(values.dtype, shift, keys[begins].astype(np.uint64), np.diff(begins, append=len(keys)), ends)


def merge_histograms(parts: Iterable[Histogram]) -> Histogram:
    """Histogram of the values of all parts; the order does not matter."""
    parts = list(parts)
    shift = max(part.shift for part in parts)
    keys = np.concatenate([part.keys >> np.uint64(shift - part.shift) for part in parts])
    order = np.argsort(keys, kind="stable")
    keys, counts = keys[order], np.concatenate([part.counts for part in parts])[order]
    more = _bits_to_drop(keys, MOST_BINS)
    keys >>= np.uint64(more)
    begins = _find_begins(keys)
    ends = min(part.ends[0] for part in parts), max(part.ends[1] for part in parts)
    return Histogram(parts[0].dtype, shift + more, keys[begins], np.add.reduceat(counts, begins), ends)


def _find_begins(keys: np.ndarray) -> np.ndarray:
    """Positions of sorted keys where another one begins."""
    return np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))


def _bits_to_drop(keys: np.ndarray, most: int) -> int:
    """The fewest last bits without which sorted keys have at most so many values.

    >>> _bits_to_drop(np.array([0b1011_0110, 0b1011_0111, 0b1011_0111, 0b1011_1001], np.uint64), 2)
    1
    """
    steps = keys[1:] ^ keys[:-1]  # neighbours stay apart while a bit that differs is kept
    low, high = -1, 8 * keys.dtype.itemsize  # `low` bits are too few, `high` are enough
    while high - low > 1:
        middle = (low + high) // 2
        is_enough = np.count_nonzero(steps >> steps.dtype.type(middle)) < most
        low, high = (low, middle) if is_enough else (middle, high)
    return high


def find_coarse_bins(rounds: Sequence[Round]) -> Histogram | None:
    """The bins of the last counting that are wider than a percentile may be wrong.

    Returns
    -------
    Histogram or None
        Bins to give to `count_values` as `within`, which makes them narrower; None if all are fine. At most a quarter
        of all bins are chosen, those with the most values, so that at least two bits are gained.
    """
    histogram = rounds[-1][0]
    if histogram.shift == 0:
        return None
    values, counts = tabulate(rounds)
    ranks = np.cumsum(counts)
    total = ranks[-1]
    low, high = (values[np.searchsorted(ranks, share * total, side="right")] for share in (0.01, 0.99))
    ends = ranks[np.searchsorted(values, histogram.values(), side="right") - 1]
    is_inside = (ends >= _TAIL * total) & (ends - histogram.counts <= (1 - _TAIL) * total)
    coarse = np.flatnonzero(is_inside & (histogram.widths() > ACCURACY * (high - low)))
    if len(coarse) > MOST_BINS // 4:
        coarse = np.sort(coarse[np.argsort(-histogram.counts[coarse], kind="stable")[: MOST_BINS // 4]])
    return replace(histogram, keys=histogram.keys[coarse], counts=histogram.counts[coarse]) if len(coarse) else None


def tabulate(rounds: Sequence[Round]) -> tuple[np.ndarray, np.ndarray]:
    """Values (float64, rising) and counts of a histogram, with coarse bins replaced by those of later countings.

    Parameters
    ----------
    rounds : sequence of (histogram, coarse)
        Each histogram counts the coarse bins of the one before.
    """
    values, counts = [], []
    last = len(rounds) - 1
    for number, (histogram, coarse) in enumerate(rounds):
        kept = np.ones(len(histogram.keys), bool)
        if number < last and coarse is not None:
            kept = ~np.isin(histogram.keys, coarse.keys)
        values.append(histogram.values()[kept])
        counts.append(histogram.counts[kept])
    order = np.argsort(np.concatenate(values), kind="stable")
    found, numbers = np.concatenate(values)[order], np.concatenate(counts)[order]
    first = rounds[0][0]
    found[0], found[-1] = _decode(np.array(first.ends, np.uint64), first.dtype)
    return found, numbers


def _sign_bit(dtype: np.dtype[np.generic]) -> int:
    return 1 << (8 * dtype.itemsize - 1)


def _encode(values: np.ndarray) -> np.ndarray:
    """Unsigned integers that rise with the values; zeros of both signs have one key."""
    unsigned = np.dtype(f"u{values.dtype.itemsize}")
    sign = unsigned.type(_sign_bit(values.dtype))
    if values.dtype.kind == "u":
        return values.copy()
    if values.dtype.kind == "i":
        return values.view(unsigned) ^ sign
    bits = (values + values.dtype.type(0)).view(unsigned)
    return np.where(bits & sign, ~bits, bits | sign)


def _decode(keys: np.ndarray, dtype: np.dtype[np.generic]) -> np.ndarray:
    """The values of keys (uint64) as float64."""
    sign = np.uint64(_sign_bit(dtype))
    if dtype.kind == "f":
        bits = np.where(keys & sign, keys ^ sign, ~keys)
        return bits.astype(f"u{dtype.itemsize}").view(dtype).astype(np.float64)
    signed = (keys ^ sign if dtype.kind == "i" else keys).astype(f"u{dtype.itemsize}").view(dtype)
    return signed.astype(np.float64)
