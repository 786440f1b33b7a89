"""Statistics of a whole image in one pass, the same whatever the blocks and workers.

Nothing is measured per tile: a normalisation that differs from tile to tile makes seams. The image is read in boxes
of a fixed grid, independent of the run's blocks. Integers are counted exactly, and the counts of boxes are merged in
raster order. So the result does not depend on the run's block size.
"""

import functools
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from segment_slide.pipeline.blocks.tasks import Wording, run_all
from segment_slide.pipeline.errors import (
    ChunkAccessError,
    InputError,
    NotFiniteError,
    TasksFailedError,
    UnreadableChunkError,
)
from segment_slide.pipeline.storage.source import ImageSource
from segment_slide.unet.boxes import Box
from segment_slide.unet.checkpoint import Normalisation

if TYPE_CHECKING:
    from distributed import Client

WORDING = Wording("part(s) of the image could not be read, but all are needed:", plural="parts")
_BOX_PX = {2: 2048, 3: 128}
# float32 patterns are grouped by their upper 20 bits: sign, exponent and 11 bits of mantissa, 0.05 % apart
_FLOAT_SHIFT = 12
_FLOAT_BINS = 1 << (32 - _FLOAT_SHIFT)


@dataclass(frozen=True)
class ChannelStatistics:
    """Mean, standard deviation and percentiles of each channel.

    Attributes
    ----------
    mean, std : tuple of float
        Over all chosen planes; exact to float64 for integers of up to 16 bits.
    histograms : tuple of (values, counts)
        Occupied values in rising order and how often each occurs.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    histograms: tuple[tuple[np.ndarray, np.ndarray], ...]

    def percentile(self, q: float) -> tuple[float, ...]:
        """Value below which q % of the pixels lie, per channel, by linear interpolation as numpy does."""
        return tuple(_percentile(values, counts, q) for values, counts in self.histograms)


def resolve_normalisation(
    source: ImageSource,
    normalisation: Normalisation,
    client: "Client | None" = None,
    on_box: Callable[[int], None] | None = None,
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Offset and scale of each channel: the model's constants, or measured on the whole image in one pass.

    A constant channel gets scale 1: it becomes 0, not NaN.

    Raises
    ------
    InputError
        If a value is not finite, or the image must be measured and is damaged.
    IncompleteError
        If a part of the image could not be read for another reason: nothing is measured without it.
    """
    if normalisation.kind == "constants":
        check_finite(source, client, on_box)
        return normalisation.offset, normalisation.scale
    measured = measure(source, client, on_box)
    if normalisation.kind == "mean-std":
        return measured.mean, tuple(std or 1.0 for std in measured.std)
    low, high = measured.percentile(normalisation.low), measured.percentile(normalisation.high)
    return low, tuple(b - a or 1.0 for a, b in zip(low, high, strict=True))


def count_boxes(source: ImageSource, normalisation: Normalisation) -> int:
    """Boxes that `resolve_normalisation` will read; 0 if it does not read the image."""
    if normalisation.kind == "constants" and source.dtype.kind != "f":
        return 0
    return sum(1 for _ in _boxes(source))


def _percentile(values: np.ndarray, counts: np.ndarray, q: float) -> float:
    """Value at rank q % of a histogram, interpolated linearly between two values.

    >>> _percentile(np.array([1.0, 5.0]), np.array([2, 2]), 50)
    3.0
    """
    ends = np.cumsum(counts)
    rank = q / 100 * (int(ends[-1]) - 1)
    low, high = (float(values[np.searchsorted(ends, r, side="right")]) for r in (math.floor(rank), math.ceil(rank)))
    return low + (high - low) * (rank - math.floor(rank))


def measure(
    source: ImageSource, client: "Client | None" = None, on_box: Callable[[int], None] | None = None
) -> ChannelStatistics:
    """Read the whole image once and measure it.

    Parameters
    ----------
    source : ImageSource
        Pixels to measure.
    client : Client, optional
        Where to run.
    on_box : callable, optional
        Called after each box with its pixels.

    Raises
    ------
    InputError
        If a value is not finite or a chunk is damaged; the message says where.
    IncompleteError
        If a part could not be read for another reason: no statistics are made of the others alone.
    """
    try:
        return _measure(source, client, on_box)
    except InputError as error:
        raise InputError(f"the image cannot be measured: {error.__cause__}") from error
    except TasksFailedError as failed:
        if fault := failed.fault_of_input:
            raise InputError(f"the image cannot be measured: {fault.error}") from failed
        raise


def _measure(source: ImageSource, client: "Client | None", on_box: Callable[[int], None] | None) -> ChannelStatistics:
    name = functools.partial(_name_box, source)
    numbered = list(enumerate(_boxes(source)))
    found: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {}
    count = functools.partial(_count_box, source)
    for (number, box), counted in run_all(client, count, numbered, lambda item: name(item[1]), wording=WORDING):
        found[number] = counted
        if len(found) >= _MERGE_EVERY:
            found = {min(found): _merge(found, len(source.channels))}
        if on_box is not None:
            on_box(_count_pixels(box))
    histograms = _merge(found, len(source.channels))
    moments = [_moments(values, counts) for values, counts in histograms]
    return ChannelStatistics(tuple(m for m, _ in moments), tuple(s for _, s in moments), tuple(histograms))


def check_finite(
    source: ImageSource, client: "Client | None" = None, on_box: Callable[[int], None] | None = None
) -> None:
    """Read an image of real numbers once and refuse NaN and infinities; integers are not read.

    Damaged chunks are left to the run itself, which names them and finishes the rest.

    Raises
    ------
    InputError
        Naming the first such value that was found, and its position.
    IncompleteError
        If a part could not be read for another reason.
    """
    if source.dtype.kind != "f":
        return
    name, look = functools.partial(_name_box, source), functools.partial(_look_at_box, source)
    try:
        for box, _ in run_all(client, look, _boxes(source), name, wording=WORDING):
            if on_box is not None:
                on_box(_count_pixels(box))
    except InputError as error:
        raise InputError(f"input={source.image.location}: {error.__cause__}") from error


def _look_at_box(source: ImageSource, box: Box) -> None:
    try:
        _read(source, box)
    except ChunkAccessError:
        raise
    except UnreadableChunkError:
        return


def _read(source: ImageSource, box: Box) -> np.ndarray:
    """Pixels of a box; a value that is not finite is the input's fault and ends the measuring at once."""
    try:
        return source.read(box)
    except NotFiniteError as error:
        raise InputError(f"{error}") from error


def _name_box(source: ImageSource, box: Box) -> str:
    sides = (f"{axis} {side.start}:{side.stop}" for axis, side in zip(source.axes, box, strict=True))
    return f"region ({', '.join(sides)})"


def _count_pixels(box: Box) -> int:
    return math.prod(side.stop - side.start for side in box)


_MERGE_EVERY = 64  # histograms held at a time; counts are integers, so the order of merging does not matter


def _boxes(source: ImageSource) -> Iterator[Box]:
    planes = len(source.plane_axes)
    step = _BOX_PX[source.n_spatial]
    return itertools.product(
        *(
            [slice(start, min(start + width, size)) for start in range(0, size, width)]
            for size, width in zip(source.shape, (1,) * planes + (step,) * source.n_spatial, strict=True)
        )
    )


def _count_box(source: ImageSource, item: tuple[int, Box]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Occupied values and their counts per channel of one box."""
    pixels = _read(source, item[1])
    channel_axis = len(source.plane_axes)
    return [_count(pixels.take(channel, axis=channel_axis).ravel()) for channel in range(pixels.shape[channel_axis])]


def _count(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values in rising order (float64) and counts (int64); reals are grouped to 11 bits of mantissa."""
    if values.dtype.kind in "bu" and values.dtype.itemsize <= 2:
        counts = np.bincount(values)
        occupied = np.flatnonzero(counts)
        return occupied.astype(np.float64), counts[occupied]
    if values.dtype.kind in "bui" and values.dtype.itemsize <= 2:
        unique, counts = np.unique(values, return_counts=True)
        return unique.astype(np.float64), counts
    groups = np.bincount(_ordered_bits(values.astype(np.float32)) >> _FLOAT_SHIFT, minlength=_FLOAT_BINS)
    occupied = np.flatnonzero(groups)
    return _group_centre(occupied), groups[occupied]


def _ordered_bits(values: np.ndarray) -> np.ndarray:
    """float32 to uint32 so that the order of values is the order of integers."""
    bits = values.view(np.uint32)
    return np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))


def _group_centre(groups: np.ndarray) -> np.ndarray:
    """Middle value of each group of `_ordered_bits`; exactly 0 for zeros of both signs and what is next to them."""
    ordered = ((groups.astype(np.uint64) << _FLOAT_SHIFT) + (1 << (_FLOAT_SHIFT - 1))).astype(np.uint32)
    bits = np.where(ordered >> 31, ordered & np.uint32(0x7FFFFFFF), ~ordered).astype(np.uint32)
    centres = bits.view(np.float32).astype(np.float64)
    return np.where(np.abs(centres) < np.finfo(np.float32).tiny, 0.0, centres)


def _merge(
    found: dict[int, list[tuple[np.ndarray, np.ndarray]]], n_channels: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    merged = []
    for channel in range(n_channels):
        values = np.concatenate([found[number][channel][0] for number in sorted(found)])
        counts = np.concatenate([found[number][channel][1] for number in sorted(found)])
        unique, where = np.unique(values, return_inverse=True)
        totals = np.zeros(len(unique), np.int64)
        np.add.at(totals, where, counts)
        merged.append((unique, totals))
    return merged


def _moments(values: np.ndarray, counts: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation, summed exactly (math.fsum), so that the order of addition does not matter."""
    total = int(counts.sum())
    mean = math.fsum(float(v) * int(n) for v, n in zip(values, counts, strict=True)) / total
    squares = math.fsum((float(v) - mean) ** 2 * int(n) for v, n in zip(values, counts, strict=True))
    return mean, math.sqrt(squares / total)
