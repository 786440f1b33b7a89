"""Ids in raster order, without all objects in one memory: how many objects begin before each line of each block.

Objects are counted where their first pixel lies. The lines of blocks side by side (a block row) interleave in raster
order, line by line; block rows that follow each other do not, but for volumes, where they do once per plane::

    |  block 0  |  block 1  |      objects that begin in the line: 2, then 1
    |  o     o  |     o     |      ids:  1     2           3
    |     o     |  o        |                4       5

So ranks are counted within a row, per leading line (all axes but the last two), and rows add what lies before them.
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
        Objects that begin in the row, per leading line.
    bases : list of ndarray of int64, (lines,)
        Per block and line: objects of the same leading line that begin before it in the row.
    ranks : list of ndarray of int64, (face objects,)
        Per block: objects of the same leading line that begin before each face object that is counted; else 0.
    """

    totals: np.ndarray
    bases: list[np.ndarray]
    ranks: list[np.ndarray]


def rank_row(blocks: Sequence[FaceObjects], counted: Sequence[np.ndarray], n_lines: int) -> RowRanks:
    """Rank the objects of a row of blocks in raster order.

    Parameters
    ----------
    blocks : sequence of FaceObjects
        Of the row, side by side along the last axis.
    counted : sequence of ndarray of bool, (face objects,)
        Which face objects begin (with their first pixel of all) in their block, and are kept.
    n_lines : int
        Lines per leading line: the blocks' size along the second last axis.
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
        In which each object of the block begins, ascending.
    inner : ndarray of bool, (objects,)
        Objects that are kept and lie in this block alone.
    begins : ndarray of bool, (objects,)
        Face objects that begin here and are kept.
    base : ndarray of int64, (lines,)
        See `RowRanks`.
    before_rows : ndarray of int64, (leading lines,)
        Objects that begin before the row, per leading line of it.

    Returns
    -------
    ndarray of uint64, (objects,)
        Ids from 1; 0 for objects that are not inner ones.
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
        See `RowRanks`, of all rows.

    Attributes
    ----------
    count : int
        Objects of the image.
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
        """Objects that begin before a row, per leading line of it; int64."""
        return np.ascontiguousarray(self._before[self._place(row)]).reshape(-1)

    def _place(self, row: Index) -> tuple[slice | int, ...]:
        """Leading lines of a row, and its position along the second last axis."""
        leading = self._grid.write_box((*row, 0))[: len(row) - 1]
        return (*leading, row[-1])
