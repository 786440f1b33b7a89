"""Unite the face objects of all blocks, so that each object gets one id. Only face objects are held in memory.

A node is a face object of one block. Nodes are numbered row by row, and within a row block by block. Tasks read the
blocks' faces and return pairs of nodes and a few numbers per node. This process decides which nodes are one object.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from segment_slide.pipeline.blocks.grid import BlockGrid, Index
from segment_slide.pipeline.objects.block_files import Columns, FaceObjects, load_faces
from segment_slide.pipeline.objects.faces import flatten, previous_offsets, touching_pairs, unite_pairs
from segment_slide.pipeline.storage.work_folder import WorkFolder

# How a value of an object is computed from the values of its parts.
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
        Folder of the blocks' files.
    connectivity : int
        See `pipeline.objects.components.label_components`.
    """

    grid: BlockGrid
    work: WorkFolder
    connectivity: int

    def rows(self) -> list[Index]:
        """Block rows, as block indices without the last axis, in raster order."""
        return list(itertools.product(*map(range, self.grid.counts[:-1])))

    def row_blocks(self, row: Index) -> list[Index]:
        """Blocks of a row."""
        return [(*row, last) for last in range(self.grid.counts[-1])]

    def row_number(self, row: Index) -> int:
        """Position of a row in `rows`."""
        return int(np.ravel_multi_index(row, self.grid.counts[:-1]))


@dataclass(frozen=True)
class RowJoin:
    """Result of joining one block row.

    Attributes
    ----------
    counts : list of int
        Nodes per block.
    columns : mapping
        Values per node of the row.
    pairs : list of (row number, ndarray of int64, ndarray of int64)
        Nodes of this row, and nodes of the other row that belong to the same object. Both are counted within their row.
    """

    counts: list[int]
    columns: dict[str, np.ndarray]
    pairs: list[tuple[int, np.ndarray, np.ndarray]]


def join_row(job: JoinJob, row: Index) -> RowJoin:
    """Find objects that are connected across the borders between a row's blocks and the blocks before them."""
    offsets = previous_offsets(job.grid.n_planes_axes, job.grid.n_spatial, job.connectivity)
    rows = {_add(row, offset): None for offset in [(0,) * len(job.grid.shape), *offsets]}
    columns = _RowColumns(job, [near for near in rows if _inside(job, near)])
    found: dict[int, list[np.ndarray]] = {}
    values: list[Columns] = []
    counts = []
    for last in range(job.grid.counts[-1]):
        one = columns.load(row, last)
        values.append(one.objects.columns)
        counts.append(one.objects.count)
        for offset in offsets:
            near = _add(row, offset)
            if not _inside(job, near) or not 0 <= last + offset[-1] < job.grid.counts[-1]:
                continue
            other = columns.load(near, last + offset[-1])
            pairs = _join(one, other, offset, job.connectivity)
            if len(pairs):
                found.setdefault(job.row_number(near), []).append(pairs)
        columns.forget(last - 1)
    names = [name for name in _MERGES if name in values[0]]
    merged = {name: np.concatenate([block[name] for block in values]) for name in names}
    return RowJoin(counts, merged, [(number, *np.concatenate(pairs).T) for number, pairs in found.items()])


@dataclass(frozen=True)
class _Placed:
    """Face objects of a block, and how many nodes of its row come before them."""

    objects: FaceObjects
    begin: int


class _RowColumns:
    """Face objects of neighbouring rows, three blocks of each row at a time, as a long row would not fit in memory."""

    def __init__(self, job: JoinJob, rows: Sequence[Index]) -> None:
        self._job = job
        self._held: dict[Index, dict[int, _Placed]] = {row: {} for row in rows}
        self._next = dict.fromkeys(rows, 0)  # nodes of the blocks loaded so far
        self._loaded = dict.fromkeys(rows, 0)  # number of blocks loaded so far

    def load(self, row: Index, last: int) -> _Placed:
        """A block of a row. Blocks must be asked for in order."""
        while self._loaded[row] <= last:
            number = self._loaded[row]
            objects = load_faces(self._job.work, (*row, number))
            self._held[row][number] = _Placed(objects, self._next[row])
            self._next[row] += objects.count
            self._loaded[row] += 1
        return self._held[row][last]

    def forget(self, last: int) -> None:
        """Drop the block at a position of each row, if it is held."""
        for held in self._held.values():
            held.pop(last, None)


def _join(one: _Placed, other: _Placed, offset: Index, connectivity: int) -> np.ndarray:
    """Nodes of two blocks that are one object, (pairs, 2), each counted within its row."""
    found = touching_pairs(one.objects.faces, other.objects.faces, offset, connectivity).astype(np.int64) - 1
    same = _may_be_one(one.objects, found[:, 0], other.objects, found[:, 1])
    return np.asarray(found[same] + [one.begin, other.begin])


def _add(row: Index, offset: Index) -> Index:
    return tuple(a + b for a, b in zip(row, offset, strict=False))


def _inside(job: JoinJob, row: Index) -> bool:
    return all(0 <= position < count for position, count in zip(row, job.grid.counts, strict=False))


def _may_be_one(one: FaceObjects, a: np.ndarray, other: FaceObjects, b: np.ndarray) -> np.ndarray:
    """Whether touching objects have the same class and, if objects were split, belong to the same piece."""
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
        The joins of all rows, in raster order.

    Attributes
    ----------
    root : ndarray of int64, (nodes,)
        The node that represents each node's object.
    columns : mapping
        Values of the whole object, per node; "own_first" is the node's own first pixel.
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
