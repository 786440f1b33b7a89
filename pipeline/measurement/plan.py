"""Plan a measurement from metadata: blocks, parts of the table, memory, and what determines the table's bytes.

::

    OUT.ome.zarr/tables/                              a Zarr group; its attributes hold the record of each table
                       <name>-instances.parquet/      the table, in parts of equally many ids
                       <name>-instances.work/         rows of blocks, until the table is complete
                       <name>-instances.html, .png    a summary
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from segment_slide.pipeline.blocks.grid import ceil_divide
from segment_slide.pipeline.blocks.memory import PROCESS_BYTES, check_fits, format_bytes
from segment_slide.pipeline.errors import OutputError, PlanError
from segment_slide.pipeline.measurement.fragments import IdRange
from segment_slide.pipeline.measurement.input import MeasureInput
from segment_slide.pipeline.measurement.options import DEFAULT_ROWS
from segment_slide.pipeline.measurement.record import (
    TABLES,
    FoundParts,
    InstancesIdentity,
    MeasuredInput,
    TableParameters,
    TableRecord,
    read_table_record,
    remove_table_record,
    write_table_record,
)
from segment_slide.pipeline.measurement.standing import known_by_record, renew_fingerprints, table_path
from segment_slide.pipeline.measurement.sums import numbers_per_object
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.fingerprint import fingerprint, is_by_times
from segment_slide.pipeline.storage.image import StoredImage
from segment_slide.pipeline.storage.lock import LOCK_NAME
from segment_slide.pipeline.storage.names import check_name, instances_name
from segment_slide.pipeline.storage.record import Results, compare_records, identify_group, this_code
from segment_slide.pipeline.storage.work_folder import WorkFolder
from segment_slide.pipeline.zarr_stores.archive import refuse_unwritable

_PX_PER_OBJECT = 16  # assumed for a block full of objects; nuclei have hundreds
LARGEST_KEY = (1 << 64) - 1
_COLUMN_COPIES = 4  # the sums, the columns, Arrow's copy and the file's


@dataclass(frozen=True)
class MeasurePlan:
    """What is measured, where the table is stored, and in which parts.

    Parameters
    ----------
    location, name : str
        Store, and the label image whose objects are measured.
    source : MeasureInput
        The inputs.
    rows : int
        Ids per part of the table.
    table_name : str
        Name of the table.
    starts : sequence of int
        First id of each part. For ids of another tool it is empty until all blocks are measured.
    """

    location: str
    name: str
    source: MeasureInput
    rows: int
    table_name: str
    starts: Sequence[int]

    @property
    def table(self) -> str:
        """Folder of the table's parts in the store."""
        return table_path(self.table_name)

    @property
    def work(self) -> WorkFolder:
        """Folder of the rows of blocks."""
        return WorkFolder(self.location, f"{TABLES}/{self.table_name}.work")

    @property
    def n_parts(self) -> int:
        """Number of files of the table. Without objects there is one file, which only defines the columns."""
        return len(self.starts)

    def part(self, number: int) -> IdRange:
        """Ids of a part."""
        n_objects, ends = self.source.n_objects, self.starts[number + 1 : number + 2]
        last = ends[0] - 1 if ends else (LARGEST_KEY if n_objects is None else n_objects)
        return IdRange(self.starts[number], last, is_dense=n_objects is not None)

    def parts_of(self, ids: np.ndarray) -> list[int]:
        """Numbers of the parts that some ids belong to."""
        return (np.unique(np.searchsorted(self._starts, ids, side="right")) - 1).tolist()

    @functools.cached_property
    def _starts(self) -> np.ndarray:
        return np.array(self.starts, np.uint64)

    def with_found_parts(self) -> "MeasurePlan":
        """The plan with the parts that the record says, if it says them."""
        record = read_table_record(self.location, self.table_name)
        found = None if record is None else record.found
        return self if found is None else replace(self, starts=tuple(map(int, found.starts)))

    @property
    def _row_bytes(self) -> int:
        """Bytes of the sums of one object."""
        source = self.source
        n_channels = 0 if source.source is None else len(source.source.channels)
        n_scores = 0 if source.scores is None else source.scores.size("c")
        return 8 * numbers_per_object(source.n_spatial, n_channels, n_scores)

    @property
    def block_bytes(self) -> int:
        """Memory of a task that measures one block: pixels as read and as converted, numbers, rows of objects."""
        source, grid = self.source, self.source.grid
        owned = math.prod(grid.block)
        read = math.prod(size + 2 * grid.halo(axis) for axis, size in enumerate(grid.block))
        id_bytes = 8 if source.n_objects is None else np.dtype(source.instances.dtype).itemsize  # others' are widened
        pixels = read * (3 * id_bytes + 4 + 1) + owned * (4 + 2)
        images = [image for image in (source.instances, source.classes) if image is not None]
        if source.source is not None:
            pixels += owned * (2 * source.source.pixel_bytes + 8)
            images.append(source.source.image)
        if source.scores is not None:
            pixels += owned * (2 * source.scores.size("c") * np.dtype(source.scores.dtype).itemsize + 8)
            images.append(source.scores)
        decoding = max(image.decoding_bytes for image in images)
        return pixels + decoding + 2 * self._row_bytes * ceil_divide(owned, _PX_PER_OBJECT)

    @property
    def part_bytes(self) -> int:
        """Memory of a task that makes one part of the table: its rows, and those of one block at a time."""
        owned = math.prod(self.source.grid.block)
        rows = self.rows if self.source.n_objects is None else min(self.rows, max(1, self.source.n_objects))
        return self._row_bytes * (_COLUMN_COPIES * rows + 2 * ceil_divide(owned, _PX_PER_OBJECT))

    def worker_bytes(self, tasks: int) -> int:
        """Memory of a worker that runs this many tasks at a time."""
        return PROCESS_BYTES + tasks * max(self.block_bytes, self.part_bytes)

    def check_memory(self, usable_bytes: int, tasks: int) -> None:
        """Refuse a plan that does not fit in a worker's memory.

        Raises
        ------
        PlanError
            The message names the amounts and what to change.
        """
        parts = f"a block {format_bytes(self.block_bytes)}, a part of the table {format_bytes(self.part_bytes)}"
        remedy, doing = "choose fewer `workers`, or `no_image`", f"with {tasks} tasks"
        check_fits(self.worker_bytes(tasks), usable_bytes, remedy, doing=doing, made_of=parts)

    @functools.cached_property
    def record(self) -> TableRecord:
        """The record of what determines the table's bytes."""
        source, pixels = self.source, self.source.source
        begun = read_table_record(self.location, self.table_name) or TableRecord()
        before = {name: getattr(begun.input, name) or "" for name in self.images}
        found = {name: fingerprint(image, before[name]) for name, image in self.images.items()}
        # Times of files change when a file is made again, or all are copied; the records of labels do not.
        known = known_by_record(begun, source.instances, source.classes)
        found |= {name: before[name] for name in known if is_by_times(before.get(name, ""))}
        measured = MeasuredInput(
            instances=found["instances"],
            n_objects=-1 if source.n_objects is None else source.n_objects,
            ndim=source.n_spatial,
            classes=found.get("classes", ""),
            class_names=tuple(source.class_names),
            probability=found.get("probability"),
            image=found.get("image"),
            image_level=None if pixels is None else pixels.image.level,
            ranges=None if pixels is None else tuple(pixels.ranges),
            channels=tuple(source.spec.channels),
            labels=self.name if source.n_objects is None else None,
        )
        return TableRecord(this_code(Results.MEASURE), measured, TableParameters(self.rows, tuple(source.grid.block)))

    @property
    def images(self) -> dict[str, StoredImage]:
        """The arrays that are read, by the names of their fingerprints in the record."""
        source = self.source
        image = None if source.source is None else source.source.image
        found = {"instances": source.instances, "classes": source.classes, "probability": source.scores, "image": image}
        return {name: stored for name, stored in found.items() if stored is not None}

    @property
    def provenance(self) -> TableRecord:
        """The record that is stored in each part: the one with which the table was begun, so that all parts agree."""
        return replace(read_table_record(self.location, self.table_name) or self.record, identity=None, found=None)


def plan_measurement(
    location: str, name: str, source: MeasureInput, rows: int = DEFAULT_ROWS, table: str | None = None
) -> MeasurePlan:
    """Plan a measurement. One that was begun before is resumed only if it is the same.

    Parameters
    ----------
    location, name : str
        Store, and the label image whose objects are measured.
    source : MeasureInput
        The inputs.
    rows : int
        Ids per part of the table.
    table : str, optional
        Name of the table; by default "<name>-instances", or the name of another tool's label image.

    Raises
    ------
    PlanError
        If parts would have no rows.
    OutputMismatchError
        If the table was begun from other instances, another image or by another version.
    OutputError
        If a file that is not ours is in its place.
    """
    if rows < 1:
        raise PlanError(f"rows={rows}, expected 1 or more objects in a part of the table.")
    is_ours = source.n_objects is not None
    table = table or (instances_name(name) if is_ours else name)
    check_name(table)
    starts: Sequence[int] = range(1, 1 + max(1, source.n_objects or 0), rows) if is_ours else ()
    plan = MeasurePlan(location, name, source, rows, table, starts)
    return plan.with_found_parts() if _compare(plan) else plan


def _compare(plan: MeasurePlan) -> bool:
    """Whether files of this table exist. Their record must be the same; the record of a deleted table is ignored."""
    folders = [store.join(plan.location, folder) for folder in (plan.table, plan.work.path)]
    there = [folder for folder in folders if store.list_names(folder)]
    recorded = read_table_record(plan.location, plan.table_name)
    if there and recorded is None:
        raise OutputError(f"{there[0]} is there, but segment-slide did not make it; move or delete it.")
    if there and recorded is not None:
        remedy = (
            f"Give this measurement a table of its own, for example `table='{plan.table_name}-2'`; measure as it was "
            f"begun; or delete {' and '.join(there)} to measure anew."
        )
        compare_records(recorded, plan.record, there[0], remedy=remedy)
    return bool(there)


def check_output(location: str) -> None:
    """Refuse a store that cannot hold a table.

    Raises
    ------
    OutputError
        If it is on a web server, or something else than a Zarr group is there.
    """
    refuse_unwritable(location)
    if store.read_attributes(location) is None and store.list_names(location) - {LOCK_NAME}:
        raise OutputError(f"output={location} exists and is no Zarr group; name an OME-Zarr, or a path that is new.")


def settle(plan: MeasurePlan, starts: tuple[int, ...]) -> MeasurePlan:
    """Write down the parts of a table whose ids another tool chose, and return the plan with them.

    Raises
    ------
    OutputError
        If the store cannot be written.
    """
    record = read_table_record(plan.location, plan.table_name) or plan.record
    write_table_record(plan.location, plan.table_name, replace(record, found=FoundParts(tuple(map(str, starts)))))
    return replace(plan, starts=starts)


def discard(plan: MeasurePlan) -> None:
    """Delete what was begun of a table that cannot be made."""
    plan.work.remove()
    store.remove(plan.location, plan.table)
    remove_table_record(plan.location, plan.table_name)


def begin(plan: MeasurePlan) -> None:
    """Write the record of what the table is made of, before any of its files.

    Raises
    ------
    OutputMismatchError
        If another run has begun a different table in the meantime.
    OutputError
        If the store cannot be written.
    """
    begun = read_table_record(plan.location, plan.table_name)
    if _compare(plan):
        if begun is not None and (renewed := renew_fingerprints(begun, plan.images)) != begun:
            write_table_record(plan.location, plan.table_name, renewed)
    else:
        identity = InstancesIdentity(identify_group(plan.source.instances.location))
        write_table_record(plan.location, plan.table_name, replace(plan.record, identity=identity))
