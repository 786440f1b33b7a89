"""Tables of objects: their parts, their records, and whether their rows are objects of the image of ids."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from segment_slide.pipeline.blocks.array_spec import ArraySpec
from segment_slide.pipeline.integrity.finding import Fault, Finding, Found, Made, Note, Stage, alone
from segment_slide.pipeline.integrity.levels import sample_boxes
from segment_slide.pipeline.measurement.record import TABLES, TableRecord, read_table_record
from segment_slide.pipeline.measurement.standing import table_path
from segment_slide.pipeline.measurement.table import part_path, read_part, stored_parts
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.image import describe_image
from segment_slide.pipeline.storage.label_records import read_instances_record
from segment_slide.pipeline.storage.names import instance_group, instances_name
from segment_slide.pipeline.storage.record import ATTRIBUTE, identify_group
from segment_slide.pipeline.storage.sections import write_section
from segment_slide.pipeline.storage.store import join

if TYPE_CHECKING:
    import pyarrow as pa

_OBJECTS = 16  # rows of a part that are compared with the image
_LARGEST_PX = 1 << 22  # of the bounding box of such an object


def list_tables(location: str) -> list[str]:
    """Names of the tables of ours in a store."""
    records = (store.read_attributes(location, TABLES) or {}).get(ATTRIBUTE)
    return sorted(records) if isinstance(records, dict) else []


@dataclass(frozen=True)
class StoredTable:
    """A table of ours.

    Attributes
    ----------
    location, name : str
        The store, and the table's name.
    record : TableRecord
        What it was made of.
    made : Made
        What made it.
    """

    location: str
    name: str
    record: TableRecord
    made: Made

    @property
    def path(self) -> str:
        """Folder of its parts."""
        return table_path(self.name)

    @property
    def starts(self) -> list[int] | None:
        """First id of each part; None if it is not known, because not all blocks are measured."""
        rows, n_objects = self.record.parameters.rows, self.record.input.n_objects
        if self.record.found is not None:
            return list(map(int, self.record.found.starts))
        return list(range(1, 1 + max(1, n_objects), rows)) if rows and n_objects >= 0 else None

    def finding(self, fault: Fault, key: str, problem: str) -> Finding:
        """A finding at a file of the store."""
        return Finding(fault, self.location, key, problem, self.made)

    def key(self, number: int) -> str:
        """File of a part in the store."""
        return part_path("", self.path, number)


def open_table(location: str, name: str) -> StoredTable | None:
    """What a store says of a table; None if it says nothing."""
    record = read_table_record(location, name)
    return None if record is None else StoredTable(location, name, record, Made(Stage.MEASURE, location, name))


@alone
def check_table(location: str, name: str) -> Found:
    """Check the number of parts, the content of each, and the record of what they were made of."""
    table = open_table(location, name)
    if table is None:
        return
    if table.starts is None:
        yield table.finding(Fault.MISSING, table.path, "is not complete: not all blocks are measured")
        return
    yield from _check_objects_record(table)
    there = stored_parts(location, table.path, len(table.starts))
    for number in range(len(table.starts)):
        if number not in there:
            yield table.finding(Fault.MISSING, table.key(number), "is missing")
    for number in sorted(there):
        yield from check_part(table, number)


def _check_objects_record(table: StoredTable) -> Found:
    """Whether the table was measured from the ids that are beside it now."""
    if table.record.input.labels is not None or not table.name.endswith(instances_name("")):
        return
    name = table.name.removesuffix(instances_name(""))
    record = read_instances_record(table.location, name)
    if record is None:
        return
    key, n_measured = f"{TABLES}/zarr.json", table.record.input.n_objects
    if record.n_objects is not None and n_measured != record.n_objects:
        problem = f"says that {table.name} has {n_measured} objects, but {record.n_objects} are numbered"
        yield table.finding(Fault.CONTRADICTION, key, problem)
    noted = table.record.identity and table.record.identity.instances
    found = identify_group(table.location, instance_group(name))
    if noted and found and noted != found:
        yield table.finding(Fault.CONTRADICTION, key, f"says that {table.name} was measured from other objects")
    elif not noted:
        yield Note(join(table.location, table.path), "The version that made this table did not note of which objects.")


@alone
def check_part(table: StoredTable, number: int) -> Found:
    """Check one part: it can be read, holds its ids, and names the same record as the table."""
    try:
        part = read_part(table.location, table.path, number, None)
    except Exception as error:  # noqa: BLE001 - Arrow raises many types on damaged bytes
        yield table.finding(Fault.UNREADABLE, table.key(number), f"cannot be read: {error.__cause__ or error}")
        return
    for problem in _judge_part(table, number, part):
        yield table.finding(Fault.CONTRADICTION, table.key(number), problem)


def _judge_part(table: StoredTable, number: int, part: "pa.Table") -> Iterator[str]:
    ids = np.asarray(part["id"])
    starts = table.starts or []
    following = starts[number + 1 : number + 2]
    n_objects = table.record.input.n_objects
    if n_objects >= 0:
        stop = following[0] if following else n_objects + 1
        if not np.array_equal(ids, np.arange(starts[number], max(stop, starts[number]), dtype=np.uint64)):
            yield f"does not hold the ids {starts[number]} to {stop - 1}"
    stored = json.loads((part.schema.metadata or {}).get(ATTRIBUTE.encode(), b"null"))
    if stored != json.loads(json.dumps(write_section(replace(table.record, identity=None, found=None)))):
        yield f"was made from something else than {TABLES}/zarr.json says"


@alone
def check_rows(location: str, name: str) -> Found:
    """Compare some objects of a table with the image of ids: their number of pixels, and no id without a row."""
    table = open_table(location, name)
    if table is None or table.starts is None or table.record.input.n_objects < 0:
        return
    if not name.endswith(instances_name("")):
        return
    image = describe_image(join(location, instance_group(name.removesuffix(instances_name("")))))
    array, axes = image.array(), image.axes
    spec = ArraySpec("0", image.shape, image.chunks, image.inner_chunks or image.chunks, image.dtype, axes)
    for box in sample_boxes(spec):
        highest = int(np.asarray(array[box]).max(initial=0))
        if highest > table.record.input.n_objects:
            where = ", ".join(f"{axis}={part.start}" for axis, part in zip(axes, box, strict=True))
            problem = f"has no row for id {highest}, which the image of ids has near {where}"
            yield table.finding(Fault.CONTRADICTION, table.path, problem)
    for number in sorted(stored_parts(location, table.path, len(table.starts))):
        yield from check_objects(table, number, array, axes)


@alone
def check_objects(table: StoredTable, number: int, ids: Any, axes: str) -> Found:
    """Count the pixels of some objects of a part."""
    part = read_part(table.location, table.path, number, None)
    size = "area_px" if "area_px" in part.column_names else "volume_px"
    spatial = axes[-table.record.input.ndim :] if table.record.input.ndim else "yx"
    chosen = np.random.default_rng(number).permutation(len(part))[:_OBJECTS]
    for row in part.take(np.sort(chosen)).to_pylist():
        box = tuple(
            slice(row[f"bbox_min_{axis}_px"], row[f"bbox_max_{axis}_px"])
            if axis in spatial
            else slice(row[axis], row[axis] + 1)
            for axis in axes
        )
        if np.prod([part.stop - part.start for part in box]) > _LARGEST_PX:
            continue
        found = int(np.count_nonzero(np.asarray(ids[box]) == row["id"]))
        if found != row[size]:
            problem = f"says that object {row['id']} has {row[size]} px, but the image of ids has {found} of them"
            yield table.finding(Fault.CONTRADICTION, table.key(number), problem)
            return
