"""Statistics of a whole image, the same whatever the blocks and workers.

Nothing is measured per tile: a normalisation that differs from tile to tile makes seams. The image is read in boxes
of a fixed grid, independent of the run's blocks. All sums and counts are exact (`statistics.channel`), so the result
depends neither on the boxes nor on the order in which workers return them.

One pass is enough for mean and standard deviation, and nearly always for percentiles. Only reals and integers of 32 or
64 bits whose values differ very much in size are read once more, because their percentiles need finer bins.
"""

import functools
import itertools
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from segment_slide.pipeline.statistics.channel import Counted, Table, count_channel, merge_counted
from segment_slide.pipeline.statistics.histogram import Histogram, Round, count_values, find_coarse_bins, tabulate
from segment_slide.pipeline.statistics.result import ChannelStatistics, make_statistics
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.record import ATTRIBUTE
from segment_slide.pipeline.storage.source import ImageSource
from segment_slide.unet.boxes import Box
from segment_slide.unet.checkpoint import Normalisation

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["ChannelStatistics", "check_finite", "count_boxes", "measure", "resolve_normalisation"]

WORDING = Wording("part(s) of the image could not be read, but all are needed:", plural="parts")
_BOX_PX = {2: 2048, 3: 128}
# What is held before it is merged: boxes, and bins of all their channels (16 bytes each).
_MERGE_EVERY = 64
_MOST_BINS_HELD = 1 << 22

log = logging.getLogger(__name__)


def resolve_normalisation(
    source: ImageSource,
    normalisation: Normalisation,
    client: "Client | None" = None,
    on_box: Callable[[int], None] | None = None,
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Offset and scale of each channel: the model's constants, or measured on the whole image.

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
    needs_percentiles = normalisation.kind == "percentiles"
    measured = measure(source, client, on_box, needs_percentiles=needs_percentiles)
    if not needs_percentiles:
        return measured.mean, tuple(std or 1.0 for std in measured.std)
    low, high = measured.percentile(normalisation.low), measured.percentile(normalisation.high)
    return low, tuple(b - a or 1.0 for a, b in zip(low, high, strict=True))


def count_boxes(source: ImageSource, normalisation: Normalisation) -> int:
    """Boxes that `resolve_normalisation` will read; 0 if it does not read the image."""
    if normalisation.kind == "constants" and source.dtype.kind != "f":
        return 0
    return sum(1 for _ in _boxes(source))


def measure(
    source: ImageSource,
    client: "Client | None" = None,
    on_box: Callable[[int], None] | None = None,
    *,
    needs_percentiles: bool = True,
) -> ChannelStatistics:
    """Read the whole image and measure it.

    Parameters
    ----------
    source : ImageSource
        Pixels to measure.
    client : Client, optional
        Where to run.
    on_box : callable, optional
        Called after each box of the first pass with its pixels.
    needs_percentiles : bool
        Whether percentiles will be asked for; mean and standard deviation alone take less time and memory.

    Raises
    ------
    InputError
        If a value is not finite or a chunk is damaged; the message says where.
    IncompleteError
        If a part could not be read for another reason: no statistics are made of the others alone.
    """
    where = f"input={_name_image(source)} cannot be measured"
    try:
        return _measure(source, client, on_box, needs_percentiles=needs_percentiles)
    except InputError as error:
        raise InputError(f"{where}: {error.__cause__}") from error
    except TasksFailedError as failed:
        if fault := failed.fault_of_input:
            raise InputError(f"{where}: {fault.error}") from failed
        raise


def _measure(
    source: ImageSource, client: "Client | None", on_box: Callable[[int], None] | None, *, needs_percentiles: bool
) -> ChannelStatistics:
    counted = _count_boxes(source, client, on_box, needs_percentiles=needs_percentiles)
    histograms = _make_tables(source, client, counted) if needs_percentiles else ()
    return make_statistics(counted, histograms)


def _make_tables(source: ImageSource, client: "Client | None", counted: Sequence[Counted]) -> list[Table]:
    """A table per channel. Bins that are too coarse for percentiles are counted again, in another pass."""
    rounds: list[list[Round]] = [[] for _ in counted]
    found = [channel.histogram for channel in counted]
    while any(found):
        for known, histogram in zip(rounds, found, strict=True):
            if histogram is not None:
                known.append((histogram, None))
                known[-1] = histogram, find_coarse_bins(known)
        coarse = [known[-1][1] if known else None for known in rounds]
        if not any(coarse):
            break
        log.info("%s is read once more, because its percentiles need finer bins", source.image.location)
        again = _count_boxes(source, client, within=coarse)
        found = [channel.histogram for channel in again]
    return [channel.table or tabulate(known) for channel, known in zip(counted, rounds, strict=True)]


def _count_boxes(
    source: ImageSource,
    client: "Client | None",
    on_box: Callable[[int], None] | None = None,
    *,
    needs_percentiles: bool = True,
    within: Sequence[Histogram | None] | None = None,
) -> list[Counted]:
    """Count all boxes; what was counted is merged from time to time, so that memory is bounded."""
    name = functools.partial(_name_box, source)
    count = functools.partial(_count_box, source, needs_percentiles, within)
    found: list[list[Counted]] = []
    for box, counted in run_all(client, count, _boxes(source), name, wording=WORDING):
        found.append(counted)
        n_bins = sum(channel.n_bins for channels in found for channel in channels)
        if len(found) >= _MERGE_EVERY or n_bins >= _MOST_BINS_HELD:
            found = [_merge(found)]
        if on_box is not None:
            on_box(_count_pixels(box))
    return _merge(found)


def _merge(found: Sequence[Sequence[Counted]]) -> list[Counted]:
    """Merge boxes, channel by channel; all sums are exact, so the order does not matter."""
    return [merge_counted(channels) for channels in zip(*found, strict=True)]


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
        raise InputError(f"input={_name_image(source)}: {error.__cause__}") from error


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


def _name_image(source: ImageSource) -> str:
    """The image's location, and the file that it was made from, which people know better."""
    location = source.image.location
    content = (store.read_attributes(location) or {}).get(ATTRIBUTE)
    made_from = content.get("ingested_from") if isinstance(content, Mapping) else None
    name = made_from.get("name") if isinstance(made_from, Mapping) else None
    return f"{location} (made from {name})" if name else location


def _name_box(source: ImageSource, box: Box) -> str:
    sides = (f"{axis} {side.start}:{side.stop}" for axis, side in zip(source.axes, box, strict=True))
    return f"region ({', '.join(sides)})"


def _count_pixels(box: Box) -> int:
    return math.prod(side.stop - side.start for side in box)


def _boxes(source: ImageSource) -> Iterator[Box]:
    planes = len(source.plane_axes)
    step = _BOX_PX[source.n_spatial]
    return itertools.product(
        *(
            [slice(start, min(start + width, size)) for start in range(0, size, width)]
            for size, width in zip(source.shape, (1,) * planes + (step,) * source.n_spatial, strict=True)
        )
    )


def _count_box(
    source: ImageSource, needs_percentiles: bool, within: Sequence[Histogram | None] | None, box: Box
) -> list[Counted]:
    """Count the values of each channel of one box; in a later pass only those in coarse bins of their channel."""
    if within is None:
        return [count_channel(values, needs_histogram=needs_percentiles) for values in _channels(source, box)]
    return [
        Counted() if coarse is None else Counted(histogram=count_values(values, coarse))
        for values, coarse in zip(_channels(source, box), within, strict=True)
    ]


def _channels(source: ImageSource, box: Box) -> Iterator[np.ndarray]:
    """Values of each channel of one box, in one dimension."""
    pixels, axis = _read(source, box), len(source.plane_axes)
    return (pixels.take(channel, axis=axis).ravel() for channel in range(pixels.shape[axis]))
