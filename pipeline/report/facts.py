"""What a report can say of an output before it reads a pixel: what exists, what is missing, what to run next."""

from dataclasses import dataclass

from segment_slide.pipeline.errors import InputError
from segment_slide.pipeline.measurement.record import TableRecord
from segment_slide.pipeline.measurement.standing import ObjectsState, Standing, judge_objects
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.complete import FileCount, count_files
from segment_slide.pipeline.storage.image import StoredImage, describe_image
from segment_slide.pipeline.storage.label_records import InstancesRecord, SegmentationRecord, read_record
from segment_slide.pipeline.storage.names import check_name, instances_name, label_group
from segment_slide.pipeline.storage.place import has_label, read_label_names
from segment_slide.pipeline.storage.record import read_mark

DEFAULT_NAME = "segmentation"


@dataclass(frozen=True)
class TableState:
    """The table of objects: its folder in the store, how many parts it has and should have, rows, and its record."""

    path: str
    n_parts: int
    n_parts_done: int
    n_objects: int
    record: TableRecord


@dataclass(frozen=True)
class Facts:
    """What an output holds.

    Attributes
    ----------
    location, name : str
        Store and label image.
    labels : StoredImage
        The class map, finest level.
    record : SegmentationRecord or None
        What made it; None if this package did not.
    n_blocks, n_blocks_done : int
        Number of files of the finest level, and how many of them exist; 0 and 0 if that is unknown.
    n_coarse_missing : int
        Number of missing files of the coarser levels.
    instances : StoredImage or None
        Ids, if all of them are written and are of these classes.
    instance_record : InstancesRecord or None
        What made them, also of those that are not complete; None if there are none.
    table : TableState or None
        None if there is no table, or if it belongs to other objects than the present ones.
    objects : ObjectsState
        Why there are no instances or no table, and notes on those that exist.
    """

    location: str
    name: str
    labels: StoredImage
    record: SegmentationRecord | None
    n_blocks: int
    n_blocks_done: int
    n_coarse_missing: int
    instances: StoredImage | None
    instance_record: InstancesRecord | None
    table: TableState | None
    objects: ObjectsState

    @property
    def is_complete(self) -> bool:
        """Whether all classes are written, in all resolutions."""
        return self.n_blocks == self.n_blocks_done and not self.n_coarse_missing

    @property
    def n_objects(self) -> int | None:
        """How many objects were numbered; None if they were not, or not all."""
        return None if self.instances is None or self.instance_record is None else self.instance_record.n_objects

    @property
    def has_table(self) -> bool:
        """Whether the table is complete."""
        return self.table is not None and self.table.n_parts == self.table.n_parts_done

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of label values from 0, empty if nobody recorded them."""
        return self.record.classes if self.record else ()


def choose_name(location: str, name: str | None) -> str:
    """Choose the label image to report: the requested one, else the one that the store shows, else the only one.

    Raises
    ------
    InputError
        If there is no segmentation, or if there are several and none was named.
    """
    store_path = store.resolve_location(location)
    attributes = store.read_attributes(store_path) if store.is_zarr(store_path) else None
    if attributes is None:
        raise InputError(f"{store_path}: no OME-Zarr is there; expected the output of segment-slide segment.")
    names = [found for found in read_label_names(store_path) if has_label(store_path, found)]
    if name is not None:
        check_name(name)
        if name not in names:
            there = f"there are {', '.join(names)}" if names else "make one first: segment-slide segment"
            raise InputError(f"{store_path} holds no segmentation {name!r}; {there}.")
        return name
    classes = [found for found in names if found not in map(instances_name, names)]
    shown = read_mark(store_path).shows.removeprefix("labels/")
    for wanted in (shown, DEFAULT_NAME):
        if wanted in classes:
            return wanted
    if len(classes) != 1:
        found = f"several ({', '.join(classes)}); choose one with `name`" if classes else "none"
        raise InputError(f"{store_path}: expected a segmentation in labels/, found {found}.")
    return classes[0]


def gather(location: str, name: str) -> Facts:
    """Collect all facts from metadata and listings.

    Raises
    ------
    InputError
        If there is no label image of that name.
    """
    location = store.resolve_location(location)
    labels = describe_image(store.join(location, label_group(name)))
    record = read_record(location, name)
    objects = judge_objects(location, name)
    if record is None and objects.record is None:
        raise InputError(
            f"{location}: labels/{name} was not made by segment-slide, and no objects are numbered in it; expected the "
            f"output of segment-slide segment or segment-slide instances."
        )
    blocks = count_files(labels) if record else FileCount(0, 0)
    return Facts(
        location=location,
        name=name,
        labels=labels,
        record=record,
        n_blocks=blocks.n_files,
        n_blocks_done=blocks.n_done,
        n_coarse_missing=0 if blocks.n_missing or not record else _count_missing_coarse(labels),
        instances=objects.image,
        instance_record=objects.record,
        table=_table_of(objects),
        objects=objects,
    )


def _count_missing_coarse(labels: StoredImage) -> int:
    levels = range(labels.level + 1, len(labels.multiscale.levels))
    return sum(count_files(describe_image(labels.location, level=level)).n_missing for level in levels)


def _table_of(found: ObjectsState) -> TableState | None:
    """The table, if it is of the objects that are there."""
    record = found.table_record
    if record is None or found.table not in (Standing.GOOD, Standing.INCOMPLETE):
        return None
    return TableState(found.path, found.n_parts, found.n_parts_done, record.input.n_objects, record)
