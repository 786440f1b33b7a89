"""Make a table of objects in two passes: first the rows of each block, then the objects from these, part by part.

Both passes resume where an earlier run stopped: a block's rows or a part's file are either whole or absent. The order
of blocks within a part is fixed, so the bytes do not depend on the workers or on the order of the tasks.
"""

import functools
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from segment_slide.pipeline.blocks.attempts import choose_batch
from segment_slide.pipeline.blocks.grid import Index
from segment_slide.pipeline.blocks.tasks import run_all
from segment_slide.pipeline.errors import BlockError
from segment_slide.pipeline.measurement.fragments import merge_fragments, share_out
from segment_slide.pipeline.measurement.plan import MeasurePlan, settle
from segment_slide.pipeline.measurement.record import TableRecord
from segment_slide.pipeline.measurement.summary import (
    SizeCounts,
    count_sizes,
    mean_columns,
    merge_counts,
    summary_columns,
)
from segment_slide.pipeline.measurement.sums import measure_block
from segment_slide.pipeline.measurement.table import make_table, read_part, stored_parts, write_part

if TYPE_CHECKING:
    from distributed import Client

log = logging.getLogger(__name__)

ROWS, IDS = "rows", "ids"  # kinds of the files in the work folder
_SHOWN = 10
_MERGE_EVERY = 64  # summaries of parts that are held before they are merged

Item = TypeVar("Item")
Result = TypeVar("Result")
Place = tuple[int, Index]  # number of a block in raster order, and its index


def measure_place(plan: MeasurePlan, place: Place) -> list[int]:
    """Measure one block and store its rows. Return the parts of the table that the rows belong to.

    Raises
    ------
    BlockError
        If a chunk cannot be read, or an id is higher than the number of objects.
    InputError
        If an id of another tool is negative, or too large.
    OutputError
        If the rows cannot be stored.
    """
    rows = measure_block(plan.source.read(place[1]))
    ids, n_objects = rows["ids"], plan.source.n_objects
    if n_objects is None:
        plan.work.save(IDS, place[1], {"ids": ids})
    elif len(ids) and ids[-1] > n_objects:
        raise BlockError(
            f"id {ids[-1]} is stored, but {n_objects} objects are recorded: a file is damaged, or "
            f"another program wrote it. Delete the instances, and make them with `segment-slide instances`."
        )
    plan.work.save(ROWS, place[1], rows)
    return plan.parts_of(ids) if plan.starts else []


def recall_block(plan: MeasurePlan, place: Place) -> list[int]:
    """Parts that the stored rows of a block belong to."""
    kind = ROWS if plan.source.n_objects is not None else IDS
    return plan.parts_of(plan.work.load(kind, place[1])["ids"]) if plan.starts else []


def find_parts(plan: MeasurePlan) -> MeasurePlan:
    """Share out the ids of another tool to the parts of the table, once all blocks are measured."""

    def read_ids() -> Iterator[np.ndarray]:
        return (plan.work.load(IDS, index)["ids"] for index in plan.source.grid.indices())

    return settle(plan, share_out(read_ids, plan.rows))


def measure_blocks(
    plan: MeasurePlan, client: "Client | None" = None, on_block: Callable[[int], None] | None = None
) -> list[list[Index]]:
    """The first pass: store the rows of all blocks that have none yet.

    Parameters
    ----------
    plan : MeasurePlan
        What to measure.
    client : Client, optional
        Client of a Dask cluster; None runs in this process.
    on_block : callable
        Called with the number of pixels of each block that was measured.

    Returns
    -------
    list of list of index
        For each part of the table, the blocks that it needs, in raster order.

    Raises
    ------
    IncompleteError
        If blocks failed twice. The message names them; the rows of the others are stored.
    """
    done = plan.work.stored(ROWS)
    places = list(enumerate(plan.source.grid.indices()))
    is_settled = bool(plan.starts)
    needed: dict[int, set[int]] = {number: set() for number in range(plan.n_parts)}

    def note(place: Place, parts: list[int]) -> None:
        for part in parts:
            needed[part].add(place[0])
        if on_block is not None and place[1] not in done:
            on_block(_count_pixels(plan, place[1]))

    pending, known = ([p for p in places if (p[1] in done) == there] for there in (False, True))
    measure, recall = functools.partial(measure_place, plan), functools.partial(recall_block, plan)
    for place, parts in run_all(client, measure, pending, _name_block, batch=choose_batch(client, len(pending))):
        note(place, parts)
    for place, parts in run_all(client, recall, known, _name_block, batch=choose_batch(client, len(known))):
        note(place, parts)
    if not is_settled:
        plan = find_parts(plan)
        needed = {number: set() for number in range(plan.n_parts)}
        for place in places:
            for part in recall_block(plan, place):
                needed[part].add(place[0])
    return [[places[number][1] for number in sorted(needed[part])] or [places[0][1]] for part in sorted(needed)]


def _count_pixels(plan: MeasurePlan, index: Index) -> int:
    return int(np.prod([part.stop - part.start for part in plan.source.grid.write_box(index)]))


def run_part(plan: MeasurePlan, provenance: TableRecord, item: tuple[int, Sequence[Index]]) -> SizeCounts:
    """Make and store one part of the table from the rows of some blocks.

    Raises
    ------
    BlockError
        If rows are missing or damaged (the message names the file), or if ids are not those of instances.
    OutputError
        If the part cannot be stored.
    """
    number, blocks = item
    ids = plan.part(number)
    known = ids.list_ids(plan.work.load(IDS, index) for index in blocks)
    objects = merge_fragments(ids, (plan.work.load(ROWS, index) for index in blocks), known)
    table = make_table(plan.source.spec, objects, provenance)
    write_part(plan.location, plan.table, number, table)
    return count_sizes(plan.source.spec, table)


def recall_part(plan: MeasurePlan, number: int) -> SizeCounts:
    """Counts that a stored part adds to the summary."""
    spec = plan.source.spec
    return count_sizes(
        spec, read_part(plan.location, plan.table, number, [*summary_columns(spec), *mean_columns(spec)])
    )


def write_table(
    plan: MeasurePlan,
    needed: Sequence[Sequence[Index]],
    client: "Client | None" = None,
    on_part: Callable[[], None] | None = None,
) -> SizeCounts:
    """The second pass: store all parts of the table that are missing.

    Parameters
    ----------
    plan : MeasurePlan
        What to measure.
    needed : sequence
        Blocks that each part needs, as `measure_blocks` returns them. Not used for parts that are stored already.
    client : Client, optional
        Client of a Dask cluster; None runs in this process.
    on_part : callable
        Called after each part that was stored.

    Returns
    -------
    SizeCounts
        Counts of the whole table.

    Raises
    ------
    IncompleteError
        If parts failed twice. The message names them; the others are stored.
    """
    done = stored_parts(plan.location, plan.table, plan.n_parts)
    found: list[SizeCounts] = []

    def keep(counts: SizeCounts) -> None:
        found.append(counts)
        if len(found) >= _MERGE_EVERY:
            found[:] = [merge_counts(found)]

    pending = [(number, needed[number]) for number in range(plan.n_parts) if number not in done]
    make = functools.partial(run_part, plan, plan.provenance)
    for _, counts in run_all(client, make, pending, lambda item: _name_part(item[0])):
        keep(counts)
        if on_part is not None:
            on_part()
    for _, counts in run_all(client, functools.partial(recall_part, plan), sorted(done), _name_part):
        keep(counts)
    return merge_counts(found)


def _name_block(place: Place) -> str:
    return f"block {place[1]}"


def _name_part(number: int) -> str:
    return f"part {number} of the table"
