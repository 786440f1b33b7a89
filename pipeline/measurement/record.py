"""The record of a table of objects: its inputs and parameters. All tables of a store share one group's attributes."""

from dataclasses import dataclass, field

from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.record import ATTRIBUTE, Code, read_own
from segment_slide.pipeline.storage.sections import (
    NOT_COMPARED,
    OPTIONAL,
    SIGNED,
    UNKNOWN,
    Section,
    read_section,
    write_section,
)

TABLES = "tables"  # folder of an output


@dataclass(frozen=True)
class MeasuredInput(Section):
    """The inputs of a measurement.

    Attributes
    ----------
    instances, classes : str
        Fingerprints of ids and class map; "" if not recorded.
    n_objects, ndim : int
        Number of objects, and of their spatial axes; -1 and 0 if not recorded.
    class_names : tuple of str
        Names of label values.
    probability, image : str or None
        Fingerprints, if these were measured too.
    image_level : int or None
        Resolution of the image.
    ranges : tuple of (int, int), or None
        Chosen planes per plane axis of the image.
    channels : tuple of str
        Names of the image's channels in the columns.
    labels : str or None
        Name of the label image, if another tool made it; then `n_objects` is not recorded.
    """

    instances: str = field(default="", metadata=UNKNOWN)
    n_objects: int = field(default=-1, metadata={**UNKNOWN, **SIGNED})
    ndim: int = field(default=0, metadata=UNKNOWN)
    classes: str = field(default="", metadata=UNKNOWN)
    class_names: tuple[str, ...] = field(default=(), metadata=UNKNOWN)
    probability: str | None = None
    image: str | None = None
    image_level: int | None = None
    ranges: tuple[tuple[int, int], ...] | None = None
    channels: tuple[str, ...] = ()
    labels: str | None = field(default=None, metadata=OPTIONAL)


@dataclass(frozen=True)
class FoundParts(Section):
    """First id of each part of a table whose ids another tool chose: known once all blocks are measured.

    They are decimal numbers in text, because JSON readers may round integers above 2^53.
    """

    starts: tuple[str, ...] = ()


@dataclass(frozen=True)
class TableParameters(Section):
    """Ids per part of the table, and pixels of a block per axis; 0 and () if not recorded."""

    rows: int = field(default=0, metadata=UNKNOWN)
    block: tuple[int, ...] = field(default=(), metadata=UNKNOWN)


@dataclass(frozen=True)
class InstancesIdentity(Section):
    """Identity of the record of the instances; None if it could not be determined."""

    instances: str | None = None


@dataclass(frozen=True)
class TableRecord(Section):
    """What a table was made of. `identity` is None in records of older versions, which did not have it.

    `found` is None for our own objects, whose number is known before they are measured.
    """

    code: Code | None = field(default=None, metadata=OPTIONAL)
    input: MeasuredInput = MeasuredInput()
    parameters: TableParameters = TableParameters()
    identity: InstancesIdentity | None = field(default=None, metadata=OPTIONAL | NOT_COMPARED)
    found: FoundParts | None = field(default=None, metadata=OPTIONAL | NOT_COMPARED)


def read_table_record(location: str, table_name: str) -> TableRecord | None:
    """Read what a table of a store is made of; None if no such table was begun.

    Raises
    ------
    OutputError
        If the record is damaged. The message names file and key.
    """
    content = _read_all(location).get(table_name)
    where = f"{store.join(location, TABLES, 'zarr.json')}, {table_name}"
    return read_section(TableRecord, content, where) if content else None


def write_table_record(location: str, table_name: str, record: TableRecord) -> None:
    """Write the record of what a table is made of. The records of other tables stay unchanged.

    Raises
    ------
    OutputError
        If the store cannot be written.
    """
    records = {**_read_all(location), table_name: write_section(record)}
    store.create_group(location, TABLES, [], {ATTRIBUTE: records})


def remove_table_record(location: str, table_name: str) -> None:
    """Remove the record of a table that was begun and has no files. Other records stay unchanged.

    Raises
    ------
    OutputError
        If the store cannot be written.
    """
    records = {name: record for name, record in _read_all(location).items() if name != table_name}
    store.update_attributes(location, TABLES, {ATTRIBUTE: records})


def _read_all(location: str) -> dict[str, object]:
    """All records of a store as they are stored, by table name."""
    return read_own(location, TABLES)
