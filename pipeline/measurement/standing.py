"""Do the objects and their table that lie in an output belong to what lies there now? For all who show them.

An output is made in steps, and any of them may be made again: a table counts and measures the ids of an earlier
numbering, then, and ids are objects of earlier classes. Each step notes what identifies the record of the step before
(`identify_record`). A fingerprint would not do: it holds times of files, which a copy has its own of. What was made
before there were such notes is compared by fingerprint, and if that differs is shown with a word of warning.

::

    labels/<name>  ◄── identity.classes ──  labels/<name>-instances  ◄── identity.instances ──  tables/<name>-instances
"""

import math
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from segment_slide.pipeline.blocks.grid import ceil_divide
from segment_slide.pipeline.errors import PipelineError
from segment_slide.pipeline.measurement.table import stored_parts
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.fingerprint import fingerprint
from segment_slide.pipeline.storage.identity import IDENTITY, identify_group, identify_record
from segment_slide.pipeline.storage.image import StoredImage, describe_image
from segment_slide.pipeline.storage.names import COUNT, instance_group, instances_name, label_group
from segment_slide.pipeline.storage.record import ATTRIBUTE

TABLES = "tables"  # folder of an output


class Standing(StrEnum):
    """Whether something may be shown."""

    NONE = "none"
    INCOMPLETE = "not complete"
    OTHER = "of another"  # ids of other classes; a table of other objects
    GOOD = "good"


@dataclass(frozen=True)
class ObjectsState:
    """The objects of a class map, and their table.

    Attributes
    ----------
    instances, table : Standing
        Of the ids and of the table.
    image : StoredImage or None
        Ids, finest level, if they are good.
    record : dict
        What made them, whatever they are; empty if there are none.
    path : str
        Folder of the table's parts in the store, whether or not it is there.
    n_parts, n_parts_done : int
        Files that the table should have and has; 0 unless it is good or not complete.
    table_record : dict
        What made the table; empty if there is none.
    notes : tuple of str
        Sentences to be shown beside what is good but cannot be proved to be.
    """

    instances: Standing
    table: Standing
    path: str
    image: StoredImage | None = None
    record: dict[str, Any] = field(default_factory=dict)
    n_parts: int = 0
    n_parts_done: int = 0
    table_record: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def judge_objects(location: str, name: str) -> ObjectsState:
    """What lies in an output, from metadata and listings.

    Parameters
    ----------
    location : str
        The store; path or URL.
    name : str
        The class map: the objects are ``labels/<name>-instances``, the table ``tables/<name>-instances.parquet``.
    """
    location = store.resolve_location(location)
    path = table_path(name)
    record = (store.read_attributes(location, instance_group(name)) or {}).get(ATTRIBUTE) or {}
    notes: list[str] = []
    instances, image = _judge_instances(location, name, record, notes)
    table_record = read_records(location).get(instances_name(name)) or {}
    table = Standing.NONE
    n_parts = n_done = 0
    if table_record and _has_files(location, name):
        table = _judge_table(table_record, record, image, notes)
        if table == Standing.GOOD:
            n_parts = max(1, ceil_divide(int(record[COUNT]), int(table_record["parameters"]["rows"])))
            n_done = len(stored_parts(location, path) & set(range(n_parts)))
            table = Standing.GOOD if n_done == n_parts else Standing.INCOMPLETE
    else:
        table_record = {}
    return ObjectsState(instances, table, path, image, record, n_parts, n_done, table_record, tuple(notes))


def table_path(name: str) -> str:
    """Folder of a table's parts in its store."""
    return f"{TABLES}/{instances_name(name)}.parquet"


def read_records(location: str) -> dict[str, Any]:
    """What the tables of a store are made of, by name."""
    return (store.read_attributes(location, TABLES) or {}).get(ATTRIBUTE) or {}


def _judge_instances(
    location: str, name: str, record: dict[str, Any], notes: list[str]
) -> tuple[Standing, StoredImage | None]:
    if not record:
        return Standing.NONE, None
    if not isinstance(record.get(COUNT), int):
        return Standing.INCOMPLETE, None
    try:
        image = describe_image(store.join(location, instance_group(name)))
    except PipelineError:
        return Standing.INCOMPLETE, None
    sizes = zip(image.shape, image.chunks, strict=True)
    if len(store.stored_shards(image.location, image.array_path)) < math.prod(ceil_divide(*pair) for pair in sizes):
        return Standing.INCOMPLETE, None
    is_same = _is_of_classes(location, name, record)
    if is_same is False:
        return Standing.OTHER, None
    if is_same is None:
        notes.append("Objects were numbered from other files of these classes (segmented again, or copied).")
    return Standing.GOOD, image


def _is_of_classes(location: str, name: str, record: dict[str, Any]) -> bool | None:
    """Whether ids were made from the classes that are there now; None if nobody can tell."""
    made_of = record.get("input") or {}
    if store.read_attributes(location, label_group(name)) is None:
        return True  # classes lie in another store
    try:
        classes = describe_image(store.join(location, label_group(name)))
        paths = [level.path for level in classes.multiscale.levels]
        if made_of.get("array") in paths:
            classes = describe_image(classes.location, level=paths.index(made_of["array"]))
    except PipelineError:
        return True  # damaged classes are not other ones; who reads them says so
    now = {"array": classes.array_path, "shape": list(classes.shape), "dtype": classes.dtype}
    if any(made_of.get(key, value) != value for key, value in now.items()):
        return False
    noted, found = (record.get(IDENTITY) or {}).get("classes"), identify_group(location, label_group(name))
    if noted and found:
        return bool(noted == found)
    return True if made_of.get("fingerprint") in (None, fingerprint(classes)) else None


def _has_files(location: str, name: str) -> bool:
    """Whether anything of a table is there: the record of one that was deleted is void."""
    folders = (table_path(name), f"{TABLES}/{instances_name(name)}.work")
    return any(store.list_names(store.join(location, folder)) for folder in folders)


def _judge_table(
    table_record: dict[str, Any], record: dict[str, Any], image: StoredImage | None, notes: list[str]
) -> Standing:
    """Whether its rows are of the ids that are there now; not, whether all are there."""
    measured = table_record.get("input") or {}
    rows = (table_record.get("parameters") or {}).get("rows")
    if image is None or not rows or measured.get(COUNT) != record[COUNT]:
        return Standing.OTHER
    noted = (table_record.get(IDENTITY) or {}).get("instances")
    if noted:
        return Standing.GOOD if noted == identify_record(record) else Standing.OTHER
    if measured.get("instances") not in (None, fingerprint(image)):
        notes.append("Measured from other files of these objects (numbered again, or copied).")
    return Standing.GOOD
