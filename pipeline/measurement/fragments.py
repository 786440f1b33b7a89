"""Unite fragments to objects: add up the rows of all blocks that hold part of a range of ids, block by block.

Memory is needed for the range of ids only, however many blocks an object spans. Blocks are added in raster order,
whatever the workers, so the bytes are always equal. Each row of `measurement.sums` defines how fragments are united.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from segment_slide.pipeline.errors import BlockError
from segment_slide.pipeline.measurement import sums
from segment_slide.pipeline.storage.work_folder import Arrays


@dataclass(frozen=True)
class IdRange:
    """Ids from `first` to `last`, both included. They make one part of the table."""

    first: int
    last: int

    @property
    def size(self) -> int:
        """Number of ids."""
        return self.last - self.first + 1


def merge_fragments(ids: IdRange, blocks: Iterable[Arrays]) -> Arrays:
    """Sums of whole objects.

    Parameters
    ----------
    ids : IdRange
        The objects.
    blocks : iterable of Arrays
        Rows of blocks (`pipeline.measurement.block`) in raster order; rows of other ids are left out.

    Returns
    -------
    Arrays
        Same as the rows of a block, one for each id of the range; but ``second`` holds central moments (float64).

    Raises
    ------
    BlockError
        If an id has no pixel, or lies in two planes.

    Examples
    --------
    >>> from segment_slide.pipeline.measurement.block import measure_block
    >>> from segment_slide.pipeline.measurement.pixels import BlockPixels
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
    """Start value: all 0. A count of 0 means that there is no fragment yet, so the first one replaces it."""
    merged = {"ids": np.arange(ids.first, ids.last + 1, dtype=np.uint64)}
    for row in sums.SUMS:
        values = like[row.name]
        merged[row.name] = np.zeros((ids.size, *values.shape[1:]), row.dtype or values.dtype)
    return merged


def _add(merged: Arrays, part: Arrays, at: np.ndarray) -> None:
    """Add the fragments of one block, at most one per object."""
    before = {name: values[at] for name, values in merged.items()}
    for row in sums.SUMS:
        merged[row.name][at] = row.merge(row.name, before, part)
