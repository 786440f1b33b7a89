"""Label images and probabilities: what their records say of them, and whether the records agree with each other."""

from collections.abc import Iterator
from typing import Any

from segment_slide.pipeline.integrity.finding import Fault, Finding, Found, Made, Note, Stage, alone
from segment_slide.pipeline.integrity.images import StoredPyramid
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.label_records import (
    InstancesRecord,
    SegmentationRecord,
    read_instances_record,
    read_record,
    read_segmentation_record,
)
from segment_slide.pipeline.storage.names import instance_group, instances_name, label_group, probability_group
from segment_slide.pipeline.storage.place import read_label_names
from segment_slide.pipeline.storage.record import ATTRIBUTE, has_mark, identify_group
from segment_slide.pipeline.storage.store import join


def segmented_pyramids(location: str, name: str) -> Iterator[StoredPyramid]:
    """The class map and the probabilities of a segmentation, as its record says."""
    record = read_record(location, name)
    if record is None:
        return
    made, shape = Made(Stage.SEGMENT, location, name), _segmented_shape(record)
    block = record.parameters.block
    yield StoredPyramid(location, label_group(name), made, "nearest", shape, ("uint8",), block)
    if record.parameters.probabilities != "none":
        shape = {**shape, "c": len(record.classes)} if record.classes else shape
        dtypes = (record.parameters.probabilities,)
        yield StoredPyramid(location, probability_group(name), made, "local_mean", shape, dtypes, block)


def _segmented_shape(record: SegmentationRecord) -> dict[str, int]:
    """Pixels by axis; empty if the record does not say them."""
    image = record.input
    if image is None or len(image.axes) != len(image.shape):
        return {}
    sizes = dict(zip(image.axes, image.shape, strict=True)) | {a: stop - at for a, (at, stop) in image.planes.items()}
    return {axis: size for axis, size in sizes.items() if axis != "c"}


def numbered_pyramid(location: str, name: str) -> StoredPyramid | None:
    """The ids of a class map's objects, as their record says; None if there are none."""
    record = read_instances_record(location, name)
    if record is None or record.n_objects is None:
        return None
    shape = _numbered_shape(record, location, name)
    dtypes = ("uint32",) if record.n_objects < 1 << 32 else ("uint64",)
    made = Made(Stage.INSTANCES, location, name)
    return StoredPyramid(location, instance_group(name), made, "nearest", shape, dtypes, record.parameters.block)


def _numbered_shape(record: InstancesRecord, location: str, name: str) -> dict[str, int]:
    """Pixels by axis of the class map, if it lies in the same store."""
    classes = read_record(location, name)
    shape = {} if classes is None else _segmented_shape(classes)
    return shape if tuple(shape.values()) == record.input.shape else {}


@alone
def check_segmentation(location: str, name: str) -> Found:
    """Compare a segmentation's record with what lies beside it."""
    record, made = read_record(location, name), Made(Stage.SEGMENT, location, name)
    group = label_group(name)
    if record is None:
        yield _contradiction(location, group, "has no record: its creation was interrupted", made)
        return
    yield from _check_listed(location, name, made)
    yield from _check_classes(location, group, record, made)
    yield from _check_scores(location, name, record, made)
    yield from _check_shown(location)


def _contradiction(location: str, group: str, problem: str, made: Made) -> Finding:
    return Finding(Fault.CONTRADICTION, location, join(group, "zarr.json"), problem, made)


def _check_listed(location: str, name: str, made: Made) -> Found:
    if name not in read_label_names(location):
        yield _contradiction(location, "labels", f"does not list {name}", made)


def _check_classes(location: str, group: str, record: SegmentationRecord, made: Made) -> Found:
    """The colours and names that viewers show are those of the classes."""
    shown: Any = (store.read_attributes(location, group) or {}).get("ome") or {}
    label = shown.get("image-label") or {}
    names = [item.get("class") for item in label.get("properties") or ()]
    if record.classes and names != list(record.classes):
        yield _contradiction(location, group, f"names the classes {names}, but its record {record.classes}", made)


def _check_scores(location: str, name: str, record: SegmentationRecord, made: Made) -> Found:
    """Probabilities have a copy of the record."""
    group, are_wanted = probability_group(name), record.parameters.probabilities != "none"
    is_there = has_mark(location, group)
    if are_wanted != is_there:
        problem = "is missing, although the record says that probabilities are stored"
        yield _contradiction(location, group, problem if are_wanted else "is there, but the record has none", made)
    elif is_there and read_segmentation_record(join(location, group)) != record:
        yield _contradiction(location, group, "has another record than the labels", made)


def _check_shown(location: str) -> Found:
    """The root of a segmentation shows a label image that is there."""
    mark: Any = (store.read_attributes(location) or {}).get(ATTRIBUTE) or {}
    shows = mark.get("shows") if isinstance(mark, dict) else None
    if shows and store.read_attributes(location, str(shows)) is None:
        problem = f"shows {shows}, which is not there"
        yield _contradiction(location, "", problem, Made(Stage.SEGMENT, location, str(shows).rpartition("/")[2]))


@alone
def check_instances(location: str, name: str) -> Found:
    """Compare the record of objects with what lies beside them."""
    record, made = read_instances_record(location, name), Made(Stage.INSTANCES, location, name)
    group = instance_group(name)
    if record is None:
        yield _contradiction(location, group, "has no record: its creation was interrupted", made)
        return
    if record.n_objects is None:
        yield Finding(Fault.MISSING, location, group, "is not complete: not all ids are written", made)
        return
    yield from _check_listed(location, instances_name(name), made)
    noted, found = record.identity and record.identity.classes, identify_group(location, label_group(name))
    if noted and found and noted != found:
        yield _contradiction(location, group, f"was numbered from other classes than {label_group(name)} has now", made)
    elif found and not noted:
        yield Note(join(location, group), "The version that numbered these objects did not note of which classes.")
