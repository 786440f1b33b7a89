"""Check whether the objects and the table in an output still belong to its present classes and ids.

An output is made in steps, and any step may be repeated. After that, a table may describe ids of an earlier numbering,
and ids may be objects of earlier classes. So each step notes the identity of the record of the step before
(`identify_record`). A fingerprint does not serve for this: it says nothing of blocks that are still to be made.
Outputs of older versions lack these notes. They are compared by fingerprint, and shown with a warning if it differs.
Everything that shows objects uses this check.

::

    labels/<name>  ◄── identity.classes ──  labels/<name>-instances  ◄── identity.instances ──  tables/<name>-instances
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from segment_slide.pipeline.blocks.grid import ceil_divide
from segment_slide.pipeline.errors import PipelineError, UnreachableError
from segment_slide.pipeline.measurement.record import TABLES, TableRecord, read_table_record
from segment_slide.pipeline.measurement.table import stored_parts
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.complete import count_files
from segment_slide.pipeline.storage.fingerprint import fingerprint, is_by_times
from segment_slide.pipeline.storage.image import StoredImage, describe_image
from segment_slide.pipeline.storage.label_records import InstancesRecord, read_instances_record, read_label_record
from segment_slide.pipeline.storage.names import instance_group, instances_name, label_group
from segment_slide.pipeline.storage.record import identify_group, identify_record
from segment_slide.pipeline.storage.sections import write_section
from segment_slide.pipeline.zarr_stores.checked import has_listing


class Standing(StrEnum):
    """Whether something may be shown."""

    NONE = "none"
    INCOMPLETE = "not complete"
    OTHER = "of another"  # the ids belong to other classes, or the table to other objects
    GOOD = "good"


@dataclass(frozen=True)
class ObjectsState:
    """The objects of a class map, and their table.

    Attributes
    ----------
    instances, table : Standing
        Standing of the ids and of the table.
    image : StoredImage or None
        Ids at the finest level, if they are good.
    record : InstancesRecord or None
        The record of the ids, whether they are good or not; None if there are none.
    path : str
        Folder of the table's parts in the store, whether or not it exists.
    n_parts, n_parts_done : int
        Number of files that the table should have, and that it has; 0 unless it is good or not complete.
    table_record : TableRecord or None
        The record of the table; None if there is none.
    notes : tuple of str
        Sentences to show beside results that are accepted as good but cannot be proved to be.
    """

    instances: Standing
    table: Standing
    path: str
    image: StoredImage | None = None
    record: InstancesRecord | None = None
    n_parts: int = 0
    n_parts_done: int = 0
    table_record: TableRecord | None = None
    notes: tuple[str, ...] = ()


def judge_objects(location: str, name: str) -> ObjectsState:
    """Judge the objects and the table of an output, from metadata and listings.

    Parameters
    ----------
    location : str
        The store; path or URL.
    name : str
        The class map: the objects are ``labels/<name>-instances``, the table ``tables/<name>-instances.parquet``.
    """
    location = store.resolve_location(location)
    path = table_path(instances_name(name))
    record = read_instances_record(location, name)
    notes: list[str] = []
    instances, image = _judge_instances(location, name, record, notes)
    table_record = read_table_record(location, instances_name(name))
    if table_record is not None and not _has_files(location, name):  # ignore the record of a table that was deleted
        table_record = None
    table = Standing.NONE
    n_parts = n_done = 0
    if table_record is not None:
        table = _judge_table(table_record, record, image, notes)
        if table == Standing.GOOD:
            n_parts = max(1, ceil_divide(table_record.input.n_objects, table_record.parameters.rows))
            n_done = len(stored_parts(location, path, n_parts))
            table = Standing.GOOD if n_done == n_parts else Standing.INCOMPLETE
    return ObjectsState(instances, table, path, image, record, n_parts, n_done, table_record, tuple(notes))


def table_path(table_name: str) -> str:
    """Folder of a table's parts in its store."""
    return f"{TABLES}/{table_name}.parquet"


def _judge_instances(
    location: str, name: str, record: InstancesRecord | None, notes: list[str]
) -> tuple[Standing, StoredImage | None]:
    if record is None:
        return Standing.NONE, None
    if record.n_objects is None:
        return Standing.INCOMPLETE, None
    try:
        image = describe_image(store.join(location, instance_group(name)))
    except UnreachableError:
        raise
    except PipelineError:
        return Standing.INCOMPLETE, None
    if count_files(image).n_missing:
        return Standing.INCOMPLETE, None
    is_same = _is_of_classes(location, name, record)
    if is_same is False:
        return Standing.OTHER, None
    if is_same is None:
        notes.append("Objects were numbered from other files of these classes (segmented again, or copied).")
    return Standing.GOOD, image


def _is_of_classes(location: str, name: str, record: InstancesRecord) -> bool | None:
    """Whether ids were made from the present classes; None if that cannot be determined."""
    made_of = record.input
    if store.read_attributes(location, label_group(name)) is None:
        return True  # classes lie in another store
    try:
        classes = describe_image(store.join(location, label_group(name)))
        paths = [level.path for level in classes.multiscale.levels]
        if made_of.array in paths:
            classes = describe_image(classes.location, level=paths.index(made_of.array))
    except UnreachableError:
        raise
    except PipelineError:
        return True  # damaged classes are not other classes; reading them reports the damage
    if (
        made_of.array not in (None, classes.array_path)
        or made_of.shape not in ((), classes.shape)
        or made_of.dtype not in ("", classes.dtype)
    ):
        return False
    noted, found = record.identity and record.identity.classes, identify_group(location, label_group(name))
    if noted and found:
        return noted == found
    return True if made_of.fingerprint in ("", fingerprint(classes, made_of.fingerprint)) else None


def _has_files(location: str, name: str) -> bool:
    """Whether any file of a table exists. On a web server, which lists nothing, its first part is asked for."""
    if not has_listing(location):
        return bool(stored_parts(location, table_path(instances_name(name)), 1))
    folders = (table_path(instances_name(name)), f"{TABLES}/{instances_name(name)}.work")
    return any(store.list_names(store.join(location, folder)) for folder in folders)


def _judge_table(
    table_record: TableRecord, record: InstancesRecord | None, image: StoredImage | None, notes: list[str]
) -> Standing:
    """Whether the table's rows belong to the present ids. Does not check whether all rows are there."""
    measured = table_record.input
    if image is None or record is None or not table_record.parameters.rows or measured.n_objects != record.n_objects:
        return Standing.OTHER
    noted = table_record.identity and table_record.identity.instances
    if noted:
        return Standing.GOOD if noted == identify_record(write_section(record)) else Standing.OTHER
    if measured.instances not in ("", fingerprint(image, measured.instances)):
        notes.append("Measured from other files of these objects (numbered again, or copied).")
    return Standing.GOOD


def known_by_record(begun: TableRecord, instances: StoredImage, classes: StoredImage | None) -> list[str]:
    """Names of the fingerprints in a table's record whose label images are the same, as their own records show."""
    noted = begun.identity and begun.identity.instances
    if not noted or noted != identify_group(instances.location):
        return []
    record = read_label_record(instances.location)
    found = record.identity and record.identity.classes if isinstance(record, InstancesRecord) else None
    is_same = found and classes and found == identify_group(classes.location)
    return ["instances", *(["classes", "probability"] if is_same else [])]


def renew_fingerprints(begun: TableRecord, images: Mapping[str, StoredImage]) -> TableRecord:
    """A begun record that agrees with its input, with fingerprints of content in place of those with times of files."""
    found = {name: getattr(begun.input, name) for name in images}
    new: dict[str, Any] = {name: fingerprint(images[name]) for name, value in found.items() if is_by_times(value or "")}
    return replace(begun, input=replace(begun.input, **new))
