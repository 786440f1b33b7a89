"""Unite fragments to objects: add up the rows of all blocks that hold part of a range of ids, block by block.

Memory is needed for the range of ids only, however many blocks an object spans. Blocks are added in raster order,
whatever the workers, so the bytes are always equal. Each row of `measurement.sums` defines how fragments are united.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from segment_slide.pipeline.errors import BlockError
from segment_slide.pipeline.measurement import sums
from segment_slide.pipeline.storage.work_folder import Arrays


@dataclass(frozen=True)
class IdRange:
    """Ids from `first` to `last`, both included. They make one part of the table.

    Attributes
    ----------
    first, last : int
        Both are in the range.
    is_dense : bool
        Whether all of them are ids of objects, or only some.
    """

    first: int
    last: int
    is_dense: bool = True

    def list_ids(self, blocks: Iterable[Arrays]) -> np.ndarray:
        """The ids of objects in this range, in rising order; `blocks` are the rows that hold them."""
        if self.is_dense:
            return np.arange(self.first, self.last + 1, dtype=np.uint64)
        known = np.zeros(0, np.uint64)
        for rows in blocks:
            known = np.union1d(known, self.cut(rows)["ids"])
        return known

    def cut(self, rows: Arrays) -> Arrays:
        """The rows of ids in this range."""
        start = int(np.searchsorted(rows["ids"], np.uint64(self.first)))
        stop = int(np.searchsorted(rows["ids"], np.uint64(self.last), side="right"))
        return {name: values[start:stop] for name, values in rows.items()}


class KeyCounts:
    """How many fragments there are of ids that begin with the same bits: from these, ids are shared out to parts.

    Parameters
    ----------
    shift : int
        Bits at the end of an id that are ignored.
    """

    def __init__(self, shift: int) -> None:
        self.shift = shift
        self.keys, self.counts = np.zeros(0, np.uint64), np.zeros(0, np.int64)

    def add(self, ids: np.ndarray) -> None:
        """Count the ids of one more block."""
        keys, where = np.unique(np.concatenate([self.keys, ids >> np.uint64(self.shift)]), return_inverse=True)
        counts = np.zeros(len(keys), np.int64)
        np.add.at(counts, where.reshape(-1), np.concatenate([self.counts, np.ones(len(ids), np.int64)]))
        self.keys, self.counts = keys, counts


def share_out(read_ids: Callable[[], Iterable[np.ndarray]], rows: int) -> tuple[int, ...]:
    """First id of each part of a table, so that a part has about `rows` fragments at most, however ids are spread.

    Ids are counted by their first 16 bits. Where there are too many of the same, they are counted by the next 16, and
    so on. So memory is needed for the counts only.

    Parameters
    ----------
    read_ids : callable
        Returns the ids of each block, as uint64; it is called up to four times.
    rows : int
        Fragments that one part may have. A part of one id may have more.

    Examples
    --------
    >>> share_out(lambda: [np.array([3, 9, 2**40], np.uint64), np.array([9, 2**62], np.uint64)], 2)
    (3, 9, 1099511627776)
    """
    starts, counts = np.zeros(0, np.uint64), np.zeros(0, np.int64)
    crowded: np.ndarray | None = None
    for shift in (48, 32, 16, 0):
        found = KeyCounts(shift)
        for ids in read_ids():
            inside = ids if crowded is None else ids[np.isin(ids >> np.uint64(shift + 16), crowded)]
            found.add(inside)
        is_crowded = (found.counts > rows) & (shift > 0)
        starts = np.concatenate([starts, found.keys[~is_crowded] << np.uint64(shift)])
        counts = np.concatenate([counts, found.counts[~is_crowded]])
        crowded = found.keys[is_crowded]
        if not len(crowded):
            break
    parts, held = [], rows
    for at in np.argsort(starts, kind="stable"):
        if held + counts[at] > rows:
            parts.append(max(1, int(starts[at])))
            held = 0
        held += int(counts[at])
    return tuple(parts) or (1,)


def merge_fragments(ids: IdRange, blocks: Iterable[Arrays], known: np.ndarray | None = None) -> Arrays:
    """Sums of whole objects.

    Parameters
    ----------
    ids : IdRange
        The objects.
    blocks : iterable of Arrays
        Rows of blocks (`pipeline.measurement.sums.measure_block`) in raster order; rows of other ids are left out.
    known : ndarray of uint64, optional
        The ids of objects in the range (`IdRange.list_ids`); by default all of it.

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
    >>> from segment_slide.pipeline.measurement.sums import measure_block
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
    known = ids.list_ids(()) if known is None else known
    for rows in blocks:
        part = ids.cut(rows)
        merged = _empty(known, part) if merged is None else merged
        _add(merged, part, np.searchsorted(known, part["ids"]))
    if merged is None or not merged["count"].all():
        missing = ids.first + (int(np.argmin(merged["count"] > 0)) if merged else 0)
        raise BlockError(
            f"object {missing} has no pixel, though ids of instances are 1, 2, … without a gap: a file is damaged. "
            f"Delete the instances, and make them with `segment-slide instances`"
        )
    return merged


def _empty(ids: np.ndarray, like: Arrays) -> Arrays:
    """Start value: all 0. A count of 0 means that there is no fragment yet, so the first one replaces it."""
    merged = {"ids": ids}
    for row in sums.SUMS:
        values = like[row.name]
        merged[row.name] = np.zeros((len(ids), *values.shape[1:]), row.dtype or values.dtype)
    return merged


def _add(merged: Arrays, part: Arrays, at: np.ndarray) -> None:
    """Add the fragments of one block, at most one per object."""
    before = {name: values[at] for name, values in merged.items()}
    with np.errstate(invalid="ignore", over="ignore"):  # values of the image may be NaN or infinite
        for row in sums.SUMS:
            merged[row.name][at] = row.merge(row.name, before, part)
