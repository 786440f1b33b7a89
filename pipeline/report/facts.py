"""What a report can tell of an output before a pixel is read: what is there, what is missing, what to run next."""

from dataclasses import dataclass
from typing import Any

from segment_slide.pipeline.blocks.grid import ceil_divide
from segment_slide.pipeline.errors import InputError
from segment_slide.pipeline.measurement.standing import ObjectsState, Standing, judge_objects
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.complete import missing_shards
from segment_slide.pipeline.storage.image import StoredImage, describe_image
from segment_slide.pipeline.storage.names import COUNT, check_name, instances_name, label_group
from segment_slide.pipeline.storage.record import ATTRIBUTE, read_record

DEFAULT_NAME = "segmentation"


@dataclass(frozen=True)
class TableState:
    """The table of objects: its folder in the store, how many parts it has and should have, rows, and its record."""

    path: str
    n_parts: int
    n_parts_done: int
    n_objects: int
    record: dict[str, Any]


@dataclass(frozen=True)
class Facts:
    """What lies in an output.

    Attributes
    ----------
    location, name : str
        Store and label image.
    labels : StoredImage
        The class map, finest level.
    record : dict
        What made it; empty if this package did not.
    n_blocks, n_blocks_done : int
        Files of the finest level, and those that are there; 0 of 0 where nobody can tell.
    n_coarse_missing : int
        Files of the coarser levels that are not there yet.
    instances : StoredImage or None
        Ids, if all of them are written and are of these classes.
    instance_record : dict
        What made them, also of those that are not complete; empty if there are none.
    table : TableState or None
        None if none was begun, or of other objects than are there now.
    objects : ObjectsState
        Why there are no instances or table, and what is to be said of those that there are.
    """

    location: str
    name: str
    labels: StoredImage
    record: dict[str, Any]
    n_blocks: int
    n_blocks_done: int
    n_coarse_missing: int
    instances: StoredImage | None
    instance_record: dict[str, Any]
    table: TableState | None
    objects: ObjectsState

    @property
    def is_complete(self) -> bool:
        """Whether all classes are there, in all resolutions."""
        return self.n_blocks == self.n_blocks_done and not self.n_coarse_missing

    @property
    def n_objects(self) -> int | None:
        """How many objects were numbered; None if they were not, or not all."""
        return None if self.instances is None else int(self.instance_record[COUNT])

    @property
    def has_table(self) -> bool:
        """Whether the table is complete."""
        return self.table is not None and self.table.n_parts == self.table.n_parts_done

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of label values from 0, empty if nobody recorded them."""
        return tuple(map(str, (self.record.get("model") or {}).get("classes") or ()))


def choose_name(location: str, name: str | None) -> str:
    """The label image to report: the one that is asked for, else the one that the store shows, else the only one.

    Raises
    ------
    InputError
        If there is no segmentation, or several and none was named.
    """
    where = store.resolve_location(location)
    attributes = store.read_attributes(where) if store.is_zarr(where) else None
    if attributes is None:
        raise InputError(f"{where}: no OME-Zarr is there; expected the output of segment-slide segment.")
    listed = store.read_attributes(where, "labels") or {}
    names = [str(found) for found in (listed.get("ome") or listed).get("labels") or ()]  # 0.4 has no "ome" around it
    if name is not None:
        check_name(name)
        if name not in names:
            there = f"there are {', '.join(names)}" if names else "make one first: segment-slide segment"
            raise InputError(f"{where} holds no segmentation {name!r}; {there}.")
        return name
    classes = [found for found in names if found not in map(instances_name, names)]
    shown = str((attributes.get(ATTRIBUTE) or {}).get("shows", "")).removeprefix("labels/")
    for wanted in (shown, DEFAULT_NAME):
        if wanted in classes:
            return wanted
    if len(classes) != 1:
        found = f"several ({', '.join(classes)}); choose one with `name`" if classes else "none"
        raise InputError(f"{where}: expected a segmentation in labels/, found {found}.")
    return classes[0]


def gather(location: str, name: str) -> Facts:
    """All of it, from metadata and listings.

    Raises
    ------
    InputError
        If there is no label image of that name.
    """
    location = store.resolve_location(location)
    labels = describe_image(store.join(location, label_group(name)))
    record = read_record(location, name) or {}
    objects = judge_objects(location, name)
    if not record and not objects.record:
        raise InputError(
            f"{location}: labels/{name} was not made by segment-slide, and no objects are numbered in it; expected the "
            f"output of segment-slide segment or segment-slide instances."
        )
    n_blocks = _count_files(labels) if record else 0
    n_missing = missing_shards(labels) if record else 0
    return Facts(
        location=location,
        name=name,
        labels=labels,
        record=record,
        n_blocks=n_blocks,
        n_blocks_done=n_blocks - n_missing,
        n_coarse_missing=0 if n_missing or not record else _count_missing_coarse(labels),
        instances=objects.image,
        instance_record=objects.record,
        table=_table_of(objects),
        objects=objects,
    )


def _count_files(image: StoredImage) -> int:
    total = 1
    for size, chunk in zip(image.shape, image.chunks, strict=True):
        total *= ceil_divide(size, chunk)
    return total


def _count_missing_coarse(labels: StoredImage) -> int:
    levels = range(labels.level + 1, len(labels.multiscale.levels))
    return sum(missing_shards(describe_image(labels.location, level=level)) for level in levels)


def _table_of(found: ObjectsState) -> TableState | None:
    """The table, if it is of the objects that are there."""
    if found.table not in (Standing.GOOD, Standing.INCOMPLETE):
        return None
    return TableState(found.path, found.n_parts, found.n_parts_done, int(found.record[COUNT]), found.table_record)
