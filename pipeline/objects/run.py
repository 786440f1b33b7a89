"""Instances of a stored class map of any size, in two passes over storage. Same result as labelling it in one piece.

::

    find    each block's components; runs and faces to intermediate files          a task per block
    join    face objects that are connected across blocks; united here             a task per block row
    rank    objects that begin before each line: ids in raster order               a task per block row
    write   ids of each block, into its shard                                      a task per block

Before that, holes are filled with the same find and join. Every file is whole or absent. So if a run is killed, the
next one computes only the missing files. Joining and ranking save nothing and are repeated, which takes seconds.
"""

import functools
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from segment_slide.pipeline.blocks.attempts import choose_batch
from segment_slide.pipeline.blocks.grid import Index
from segment_slide.pipeline.blocks.tasks import run_all
from segment_slide.pipeline.objects.block import (
    ObjectsJob,
    RankItem,
    RegrowJob,
    WriteItem,
    find_objects,
    rank_objects,
    regrow_objects,
    write_objects,
)
from segment_slide.pipeline.objects.block_files import FACES, RUNS
from segment_slide.pipeline.objects.holes import FillItem, HolesJob, choose_fill, fill_holes, find_holes
from segment_slide.pipeline.objects.ranks import RowOrder
from segment_slide.pipeline.objects.unite import JoinJob, Nodes, RowJoin, join_row
from segment_slide.pipeline.statistics.object_sizes import SmallObjects, find_small

if TYPE_CHECKING:
    from distributed import Client

Item = TypeVar("Item")
OnStep = Callable[[int], None]


@dataclass(frozen=True)
class Numbering:
    """The objects of the image and their ids.

    Attributes
    ----------
    count : int
        Number of objects; ids are 1 to `count`.
    n_larger_than_halo : int
        Number of objects that no block saw as a whole when they were split.
    nodes : Nodes
        Face objects.
    counted : ndarray of bool, (nodes,)
        Nodes in which a kept object begins.
    ids : ndarray of uint64, (nodes,)
        Id of each face object; 0 if it is dropped.
    order : RowOrder
        Number of objects before each block row.
    small : SmallObjects or None
        How many objects are small; None if an earlier version began the run, whose files hold no sizes.
    """

    count: int
    n_larger_than_halo: int
    nodes: Nodes
    counted: np.ndarray
    ids: np.ndarray
    order: RowOrder
    small: SmallObjects | None


def find_all_objects(job: ObjectsJob, client: "Client | None", on_step: OnStep) -> None:
    """The first pass: find the objects of each block. Blocks that are done are skipped.

    Raises
    ------
    IncompleteError
        If blocks failed. The message names them; the others are kept.
    """
    pending = _pending(job.join)
    _run(client, functools.partial(find_objects, job), pending, on_step, _same)


def join_blocks(join: JoinJob, client: "Client | None", on_step: OnStep) -> Nodes:
    """Unite face objects across all blocks.

    Raises
    ------
    IncompleteError
        If an intermediate file is damaged. The message names it.
    """
    rows = join.rows()
    found: dict[Index, RowJoin] = {}
    for row, joined in run_all(client, functools.partial(join_row, join), rows, "row {}".format):
        found[row] = joined
        on_step(0)
    return Nodes([found[row] for row in rows])


def number_objects(job: ObjectsJob, nodes: Nodes, client: "Client | None", on_step: OnStep) -> Numbering:
    """Give every object its id, in raster order of first pixels."""
    join = job.join
    kept = nodes.columns["size"] >= job.min_size_px
    counted = kept & (nodes.columns["first"] == nodes.columns["own_first"])
    rows = join.rows()
    items = [RankItem(row, tuple(counted[part] for part in _parts(join, nodes, row))) for row in rows]
    totals, ranks = {}, {}
    sizes = [(nodes.columns["size"][counted], np.ones(int(counted.sum()), np.int64))]
    for _, ranked in run_all(client, functools.partial(rank_objects, job), items, _name):
        totals[ranked.row], ranks[ranked.row] = ranked.totals, ranked.ranks
        sizes += [] if ranked.sizes is None else [ranked.sizes]
        on_step(0)
    order = RowOrder(join.grid, totals)
    own = np.zeros(nodes.count, np.uint64)
    for row in rows:
        before = order.before(row)
        for part, rank, lines in zip(
            _parts(join, nodes, row), ranks[row], _leading_lines(job, nodes, row), strict=True
        ):
            own[part] = before[lines] + rank + 1
    ids = np.zeros(nodes.count, np.uint64)
    ids[nodes.root[counted]] = own[counted]
    larger = np.unique(nodes.root[kept & nodes.columns["cut"]]).size if "cut" in nodes.columns else 0
    values, numbers = (np.concatenate([part[place] for part in sizes]) for place in (0, 1))
    small = find_small(values, numbers, join.grid.n_spatial)
    is_known = len(sizes) == len(rows) + 1
    return Numbering(order.count, larger, nodes, counted, ids[nodes.root], order, small if is_known else None)


def _parts(join: JoinJob, nodes: Nodes, row: Index) -> Iterator[slice]:
    """Nodes of each block of a row."""
    first = join.row_number(row) * join.grid.counts[-1]
    return (nodes.of_block(first + last) for last in range(join.grid.counts[-1]))


def _leading_lines(job: ObjectsJob, nodes: Nodes, row: Index) -> Iterator[np.ndarray]:
    """The leading line of the row in which each node begins, block by block."""
    grid = job.join.grid
    owned = grid.write_box((*row, 0))[:-2]
    for part in _parts(job.join, nodes, row):
        place = np.unravel_index(nodes.columns["own_first"][part], grid.shape)
        local = [axis - box.start for axis, box in zip(place[:-2], owned, strict=True)]
        shape = tuple(box.stop - box.start for box in owned)
        yield np.ravel_multi_index(local, shape) if shape else np.zeros(part.stop - part.start, np.int64)


def write_all_objects(
    job: ObjectsJob, numbering: Numbering, done: Collection[Index], client: "Client | None", on_step: OnStep
) -> None:
    """The second pass: write ids into the missing shards.

    Raises
    ------
    IncompleteError
        If blocks failed. The message names them; the others are kept.
    """
    pending = [index for index in job.join.grid.indices() if index not in done]
    make_item = functools.partial(_write_item, job, numbering)
    _run(client, functools.partial(write_objects, job), pending, on_step, make_item)


def _write_item(job: ObjectsJob, numbering: Numbering, index: Index) -> WriteItem:
    part = _nodes_of(job.join, numbering.nodes, index)
    return WriteItem(index, numbering.order.before(index[:-1]), numbering.counted[part], numbering.ids[part])


def _nodes_of(join: JoinJob, nodes: Nodes, index: Index) -> slice:
    return nodes.of_block(int(np.ravel_multi_index(index, join.grid.counts)))


def regrow_all_objects(job: RegrowJob, done: Collection[Index], client: "Client | None", on_step: OnStep) -> None:
    """Give ridges back to objects in all blocks where that is not done yet.

    Raises
    ------
    IncompleteError
        If blocks failed. The message names them; the others are kept.
    """
    pending = [index for index in job.grid.indices() if index not in done]
    _run(client, functools.partial(regrow_objects, job), pending, on_step, _same)


def fill_all_holes(job: HolesJob, done: Collection[Index], client: "Client | None", on_step: OnStep) -> None:
    """Fill the holes of all blocks in three steps: find, join, fill.

    Raises
    ------
    IncompleteError
        If blocks failed. The message names them; the others are kept.
    """
    _run(client, functools.partial(find_holes, job), _pending(job.join), on_step, _same)
    nodes = join_blocks(job.join, client, on_step)
    fill = choose_fill(nodes.columns, job.max_size_px)
    pending = [index for index in job.join.grid.indices() if index not in done]

    def make_item(index: Index) -> FillItem:
        return FillItem(index, fill[_nodes_of(job.join, nodes, index)])

    _run(client, functools.partial(fill_holes, job), pending, on_step, make_item)


def found_blocks(join: JoinJob) -> set[Index]:
    """Blocks whose components are known: both of their files exist."""
    return join.work.stored(FACES) & join.work.stored(RUNS)


def _pending(join: JoinJob) -> list[Index]:
    done = found_blocks(join)
    return [index for index in join.grid.indices() if index not in done]


def _run(
    client: "Client | None",
    function: Callable[[Item], object],
    pending: Sequence[Index],
    on_step: OnStep,
    make_item: Callable[[Index], Item],
) -> None:
    """Call a function with the item of each pending block. Each item is made only when it is needed."""
    batch = choose_batch(client, len(pending))
    for _ in run_all(client, function, map(make_item, pending), _name, batch=batch):
        on_step(0)


def _same(index: Index) -> Index:
    return index


def _name(item: object) -> str:
    if isinstance(item, RankItem):
        return f"row {item.row}"
    return f"block {item.index if isinstance(item, WriteItem | FillItem) else item}"
