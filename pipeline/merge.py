"""Objects of all blocks made one: face objects united across blocks, then numbered. Memory: face objects only.

A node is a face object of one block; nodes are numbered row by row, in a row block by block. Tasks read the blocks'
faces and send home pairs of nodes and a few numbers per node; what is one object is decided here.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.block_objects import FaceObjects, load_faces
from pipeline.grid import BlockGrid, Index
from pipeline.joining import flatten, previous_offsets, touching_pairs, unite_pairs
from pipeline.work import WorkFolder

# How a value of an object follows from those of its parts.
_MERGES: Mapping[str, np.ufunc] = {
    "size": np.add,
    "first": np.minimum,
    "cut": np.logical_or,
    "border": np.logical_or,
    "low": np.minimum,
    "high": np.maximum,
}


@dataclass(frozen=True)
class JoinJob:
    """What tasks need to join blocks.

    Parameters
    ----------
    grid : BlockGrid
        The blocks.
    work : WorkFolder
        Where their files are.
    connectivity : int
        See `pipeline.components.label_components`.
    """

    grid: BlockGrid
    work: WorkFolder
    connectivity: int

    def rows(self) -> list[Index]:
        """Block rows: indices without the last axis, in raster order."""
        return list(itertools.product(*map(range, self.grid.counts[:-1])))

    def row_blocks(self, row: Index) -> list[Index]:
        """Blocks of a row."""
        return [(*row, last) for last in range(self.grid.counts[-1])]

    def row_number(self, row: Index) -> int:
        """Position of a row in `rows`."""
        return int(np.ravel_multi_index(row, self.grid.counts[:-1]))


@dataclass(frozen=True)
class RowJoin:
    """What a row's faces say.

    Attributes
    ----------
    counts : list of int
        Nodes per block.
    columns : mapping
        Values per node of the row.
    pairs : list of (row number, ndarray of int64, ndarray of int64)
        Nodes of this row, and the nodes of that row each is one object with; both counted within their row.
    """

    counts: list[int]
    columns: dict[str, np.ndarray]
    pairs: list[tuple[int, np.ndarray, np.ndarray]]


def join_row(job: JoinJob, row: Index) -> RowJoin:
    """Find what hangs together across the borders of a row's blocks with the blocks before them."""
    offsets = previous_offsets(job.grid.n_planes_axes, job.grid.n_spatial, job.connectivity)
    rows = {row, *(_add(row, offset) for offset in offsets)}
    loaded = {
        near: [load_faces(job.work, block) for block in job.row_blocks(near)] for near in rows if _inside(job, near)
    }
    begin = {near: np.cumsum([0, *(block.count for block in blocks)]) for near, blocks in loaded.items()}
    pairs = []
    for last, offset in itertools.product(range(job.grid.counts[-1]), offsets):
        near, other_last = _add(row, offset), last + offset[-1]
        if near not in loaded or not 0 <= other_last < job.grid.counts[-1]:
            continue
        one, other = loaded[row][last], loaded[near][other_last]
        found = touching_pairs(one.faces, other.faces, offset, job.connectivity).astype(np.int64) - 1
        same = _may_be_one(one, found[:, 0], other, found[:, 1])
        ones, others = found[same, 0] + begin[row][last], found[same, 1] + begin[near][other_last]
        pairs.append((job.row_number(near), ones, others))
    blocks = loaded[row]
    names = [name for name in _MERGES if name in blocks[0].columns]
    columns = {name: np.concatenate([block.columns[name] for block in blocks]) for name in names}
    return RowJoin([block.count for block in blocks], columns, pairs)


def _add(row: Index, offset: Index) -> Index:
    return tuple(a + b for a, b in zip(row, offset, strict=False))


def _inside(job: JoinJob, row: Index) -> bool:
    return all(0 <= position < count for position, count in zip(row, job.grid.counts, strict=False))


def _may_be_one(one: FaceObjects, a: np.ndarray, other: FaceObjects, b: np.ndarray) -> np.ndarray:
    """Whether objects that touch are of one class and, where objects were split, of one piece."""
    same: np.ndarray = one.columns["class"][a] == other.columns["class"][b]
    if "seed" in one.columns:
        seeds = one.columns["seed"][a], other.columns["seed"][b]
        same &= (seeds[0] == seeds[1]) | (seeds[0] < 0) | (seeds[1] < 0)
    return same


class Nodes:
    """All face objects of an image, united.

    Parameters
    ----------
    joins : sequence of RowJoin
        Of all rows, in raster order.

    Attributes
    ----------
    root : ndarray of int64, (nodes,)
        The node that stands for each node's object.
    columns : mapping
        Values per node, of its whole object; "own_first" is the node's own first pixel.
    """

    def __init__(self, joins: Sequence[RowJoin]) -> None:
        counts = [sum(join.counts) for join in joins]
        row_begin = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        self.root = np.arange(row_begin[-1], dtype=np.int64)
        for number, join in enumerate(joins):
            for other, ones, others in join.pairs:
                unite_pairs(self.root, ones + row_begin[number], others + row_begin[other])
        flatten(self.root)
        blocks = [count for join in joins for count in join.counts]
        self._begin = np.concatenate([[0], np.cumsum(blocks)]).astype(np.int64)
        self.columns: dict[str, np.ndarray] = {}
        for name in joins[0].columns:
            own = np.concatenate([join.columns[name] for join in joins])
            if name == "first":
                self.columns["own_first"] = own
            whole = own.copy()
            _MERGES[name].at(whole, self.root, own)
            if name == "size":
                whole -= own  # the root itself was counted twice
            self.columns[name] = whole[self.root]

    def of_block(self, number: int) -> slice:
        """Nodes of a block, by its position in raster order."""
        return slice(int(self._begin[number]), int(self._begin[number + 1]))

    @property
    def count(self) -> int:
        """Number of nodes."""
        return len(self.root)
