"""Ids in raster order without holding all objects in memory: count the objects that begin before each line of a block.

An object is counted where its first pixel lies. Blocks side by side form a block row. In raster order, their lines
alternate line by line. The next block row begins after the last line of this one (in volumes: once per plane)::

    |  block 0  |  block 1  |      objects that begin in the line: 2, then 1
    |  o     o  |     o     |      ids:  1     2           3
    |     o     |  o        |                4       5

So ranks are counted within a row, per leading line (all axes except the last two). Then the number of objects that
begin before the row is added.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from segment_slide.pipeline.blocks.grid import BlockGrid, Index
from segment_slide.pipeline.objects.block_files import FaceObjects, count_before


@dataclass(frozen=True)
class RowRanks:
    """Ranks within a block row.

    Attributes
    ----------
    totals : ndarray of int64, (leading lines,)
        Number of objects that begin in the row, per leading line.
    bases : list of ndarray of int64, (lines,)
        Per block and line: number of objects of the same leading line that begin before it in the row.
    ranks : list of ndarray of int64, (face objects,)
        Per block: for each counted face object, the number of objects of the same leading line that begin before it;
        0 for other face objects.
    """

    totals: np.ndarray
    bases: list[np.ndarray]
    ranks: list[np.ndarray]


def rank_row(blocks: Sequence[FaceObjects], counted: Sequence[np.ndarray], n_lines: int) -> RowRanks:
    """Rank the objects of a row of blocks in raster order.

    Parameters
    ----------
    blocks : sequence of FaceObjects
        Blocks of the row, side by side along the last axis.
    counted : sequence of ndarray of bool, (face objects,)
        Which face objects are kept and have the first pixel of the whole object in their block.
    n_lines : int
        Lines per leading line: the blocks' size along the second-to-last axis.
    """
    per_block = []
    for block, begins in zip(blocks, counted, strict=True):
        per_block.append(block.starts + np.bincount(block.line[begins], minlength=len(block.starts)))
    counts = np.stack(per_block, axis=-1).astype(np.int64)
    leading = counts.reshape(len(counts) // n_lines, n_lines * len(blocks))
    before = (np.cumsum(leading, axis=1) - leading).reshape(counts.shape)
    bases = [np.ascontiguousarray(before[:, number]) for number in range(len(blocks))]
    ranks = []
    for block, begins, base in zip(blocks, counted, bases, strict=True):
        rank = base[block.line] + block.position + count_before(block.line, begins, len(base))
        ranks.append(np.where(begins, rank, 0))
    return RowRanks(leading.sum(axis=1), bases, ranks)


def number_objects(
    line: np.ndarray, inner: np.ndarray, begins: np.ndarray, base: np.ndarray, before_rows: np.ndarray
) -> np.ndarray:
    """Ids of a block's inner objects.

    Parameters
    ----------
    line : ndarray of int64, (objects,)
        Line in which each object of the block begins, ascending.
    inner : ndarray of bool, (objects,)
        Objects that are kept and lie completely in this block.
    begins : ndarray of bool, (objects,)
        Face objects that begin in this block and are kept.
    base : ndarray of int64, (lines,)
        See `RowRanks`.
    before_rows : ndarray of int64, (leading lines,)
        Number of objects that begin before the row, per leading line of the row.

    Returns
    -------
    ndarray of uint64, (objects,)
        Ids from 1; 0 for objects that are not inner objects.
    """
    position = count_before(line, inner | begins, len(base))
    leading = line // (len(base) // len(before_rows))
    ids = before_rows[leading] + base[line] + position + 1
    return np.where(inner, ids, 0).astype(np.uint64)


class RowOrder:
    """How many objects begin before each block row.

    Parameters
    ----------
    grid : BlockGrid
        The blocks.
    totals : mapping of row to ndarray of int64
        Totals of all rows, see `RowRanks`.

    Attributes
    ----------
    count : int
        Number of objects in the image.
    """

    def __init__(self, grid: BlockGrid, totals: Mapping[Index, np.ndarray]) -> None:
        self._grid = grid
        counts = np.zeros((*grid.shape[:-2], grid.counts[-2]), np.int64)
        for row, total in totals.items():
            place = self._place(row)
            counts[place] = total.reshape(counts[place].shape)
        self._before = (np.cumsum(counts) - counts.reshape(-1)).reshape(counts.shape)
        self.count = int(counts.sum())

    def before(self, row: Index) -> np.ndarray:
        """Number of objects that begin before a row, per leading line of the row; int64."""
        return np.ascontiguousarray(self._before[self._place(row)]).reshape(-1)

    def _place(self, row: Index) -> tuple[slice | int, ...]:
        """Leading lines of a row, and its position along the second-to-last axis."""
        leading = self._grid.write_box((*row, 0))[: len(row) - 1]
        return (*leading, row[-1])
