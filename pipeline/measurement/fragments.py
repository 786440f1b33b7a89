"""Objects out of fragments: the rows of all blocks that hold part of a range of ids, added up one block at a time.

Memory is that of the range, however many blocks an object spans. Counts, boxes, faces and sums of coordinates are
integers, and exact. Second moments and variances are merged by the formula of Chan, Golub & LeVeque (1983), each
fragment's about its own mean, so neither a place far from the image's origin nor a bright background costs digits.
Blocks come in raster order, whatever workers there were: equal bytes.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from segment_slide.pipeline.errors import BlockError
from segment_slide.pipeline.storage.work_folder import Arrays


@dataclass(frozen=True)
class IdRange:
    """Ids from `first` to `last`, both included: one part of the table."""

    first: int
    last: int

    @property
    def size(self) -> int:
        """How many they are."""
        return self.last - self.first + 1


def merge_fragments(ids: IdRange, blocks: Iterable[Arrays]) -> Arrays:
    """Sums of whole objects.

    Parameters
    ----------
    ids : IdRange
        Which objects.
    blocks : iterable of Arrays
        Rows of blocks (`pipeline.measurement.block`) in raster order; rows of other ids are left out.

    Returns
    -------
    Arrays
        As the rows of a block, one for each id of the range; ``second`` holds central moments (float64) here.

    Raises
    ------
    BlockError
        If an id has no pixel, or lies in two planes.

    Examples
    --------
    >>> from segment_slide.pipeline.measurement.block import BlockPixels, measure_block
    >>> classes = np.array([[1, 1]], np.uint8)
    >>> line = np.array([[7, 7, 7, 7]], np.uint32)
    >>> parts = [np.pad(line, 2)[:, start:start + 6] for start in (0, 2)]
    >>> rows = [measure_block(BlockPixels(part, (0, x), 2, classes)) for part, x in zip(parts, (0, 2))]
    >>> merged = merge_fragments(IdRange(7, 7), rows)
    >>> merged["count"].tolist(), merged["first"].tolist(), merged["second"].tolist()
    ([4], [[0, 6]], [[0.0, 0.0, 5.0]])
    """
    merged: Arrays | None = None
    for rows in blocks:
        start, stop = (int(np.searchsorted(rows["ids"], np.uint64(end))) for end in (ids.first, ids.last + 1))
        part = {name: values[start:stop] for name, values in rows.items()}
        merged = _empty(ids, part) if merged is None else merged
        _add(merged, part, (part["ids"] - np.uint64(ids.first)).astype(np.int64))
    if merged is None or not merged["count"].all():
        missing = ids.first + (int(np.argmin(merged["count"] > 0)) if merged else 0)
        raise BlockError(
            f"object {missing} has no pixel, though ids of instances are 1, 2, … without a gap; make the instances "
            f"again"
        )
    return merged


def _empty(ids: IdRange, like: Arrays) -> Arrays:
    """No fragment yet: sums of 0, boxes and extrema that any fragment replaces (count 0 says so)."""
    merged = {name: np.zeros((ids.size, *values.shape[1:]), values.dtype) for name, values in like.items()}
    merged["ids"] = np.arange(ids.first, ids.last + 1, dtype=np.uint64)
    merged["second"] = merged["second"].astype(np.float64)
    return merged


def _add(merged: Arrays, part: Arrays, at: np.ndarray) -> None:
    """Add the fragments of one block, at most one an object."""
    before = {name: values[at] for name, values in merged.items()}
    new = before["count"] == 0
    _check_planes(part, before, new)
    _add_moments(merged, part, before, at)
    _add_squares(merged, part, before, at)
    for name in ("box_min", "value_min"):
        merged[name][at] = np.where(new[:, None], part[name], np.minimum(before[name], part[name]))
    for name in ("box_max", "value_max", "plane"):
        merged[name][at] = np.where(new[:, None], part[name], np.maximum(before[name], part[name]))
    merged["class"][at] = np.maximum(before["class"], part["class"])
    for name in ("count", "edges", "value_sum", "score_sum"):
        merged[name][at] = before[name] + part[name]


def _check_planes(part: Arrays, before: Arrays, new: np.ndarray) -> None:
    moved = ~new & (part["plane"] != before["plane"]).any(axis=1)
    if moved.any():
        raise BlockError(
            f"object {part['ids'][moved][0]} lies in two planes, {before['plane'][moved][0].tolist()} and "
            f"{part['plane'][moved][0].tolist()}: its ids were not made plane by plane"
        )


def _add_moments(merged: Arrays, part: Arrays, before: Arrays, at: np.ndarray) -> None:
    """Sums of coordinates relative to the box of all fragments so far, and moments about the mean of all."""
    d, n = part["box_min"].shape[1], part["count"]
    old = before["count"]
    corner = np.where((old == 0)[:, None], part["box_min"], np.minimum(before["box_min"], part["box_min"]))
    held = before["first"] + old[:, None] * (before["box_min"] - corner)
    added = part["first"] + n[:, None] * (part["box_min"] - corner)
    merged["first"][at] = np.where((old == 0)[:, None], added, held + added)
    apart = added / n[:, None] - held / np.maximum(old, 1)[:, None]
    weight = n / (old + n) * old  # 0 where there was nothing
    pairs = [(a, b) for a in range(d) for b in range(a, d)]
    for column, (a, b) in enumerate(pairs):
        own = part["second"][:, column] - part["first"][:, a] * (part["first"][:, b] / n)
        merged["second"][at, column] = before["second"][:, column] + own + weight * apart[:, a] * apart[:, b]


def _add_squares(merged: Arrays, part: Arrays, before: Arrays, at: np.ndarray) -> None:
    """Squared differences of values, about the mean of all fragments so far."""
    n, old = part["count"], before["count"]
    apart = part["value_sum"] / n[:, None] - before["value_sum"] / np.maximum(old, 1)[:, None]
    between = (n / (old + n) * old)[:, None] * apart * apart
    merged["value_squares"][at] = before["value_squares"] + part["value_squares"] + between
