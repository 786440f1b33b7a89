"""Whether the input and the model of an output are still those that it was made from, as far as they are there.

An input is told by its fingerprint. The records of version 0.1.0 hold fingerprints with file times, which change when
files are copied: from these nothing can be concluded. A record names places relative to the output, and the model by
the name of its file.
"""

import os
from collections.abc import Iterator

from segment_slide.pipeline.errors import PipelineError
from segment_slide.pipeline.ingest.plan import fingerprint_files
from segment_slide.pipeline.ingest.record import read_ingest_record
from segment_slide.pipeline.integrity.finding import Fault, Finding, Found, Made, Note, Stage, alone
from segment_slide.pipeline.recorded.addresses import may_open
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.fingerprint import is_by_times, is_same
from segment_slide.pipeline.storage.image import StoredImage, describe_image
from segment_slide.pipeline.storage.label_records import (
    SegmentationRecord,
    SegmentedInput,
    read_instances_record,
    read_record,
)
from segment_slide.pipeline.storage.names import find_location, instance_group, label_group
from segment_slide.pipeline.storage.store import join


def find_segmented(location: str, image: SegmentedInput) -> StoredImage | None:
    """The image that was segmented, if it is there and may be opened; it may be another one of the same name."""
    address = find_location(image.location, location)
    if not address or not may_open(address, location):
        return None
    axes = image.axes if not image.array else None
    try:
        return describe_image(address, level=image.level or 0, axes=axes)
    except PipelineError:
        return None


@alone
def check_segmented(location: str, name: str) -> Found:
    """Compare the image that a record names with the record, and the model with its sha256."""
    record = read_record(location, name)
    if record is None or record.input is None:
        return
    image, made = record.input, Made(Stage.SEGMENT, location, name)
    group = label_group(name)
    address = find_location(image.location, location)
    yield from _compare(location, group, made, address, find_segmented(location, image), image.fingerprint)
    if record.model is not None and find_model(location, record) is None:
        name = record.model.path
        yield Note(join(location, group), f"Its model {name} is not beside it or its input, or not the same any more.")


@alone
def check_numbered(location: str, name: str) -> Found:
    """Compare the class map that objects were numbered in with the record of the objects, if it lies elsewhere."""
    record = read_instances_record(location, name)
    if record is None or store.read_attributes(location, label_group(name)) is not None:
        return
    made_of, made = record.input, Made(Stage.INSTANCES, location, name)
    image: StoredImage | None = None
    address = find_location(made_of.location, location)
    if address and may_open(address, location):
        try:
            image = describe_image(address)
        except PipelineError:
            image = None
    yield from _compare(location, instance_group(name), made, address, image, made_of.fingerprint)


def _compare(
    location: str, group: str, made: Made, address: str, image: StoredImage | None, recorded: str
) -> Iterator[Finding | Note]:
    where = join(location, group)
    if image is None:
        yield Note(where, f"Its input {address or '(not recorded)'} is not there, or may not be opened; not compared.")
    elif not recorded or is_same(image, recorded) is not False:
        return
    elif is_by_times(recorded):
        yield Note(
            where,
            f"Its input {address} has other file times than when it was segmented. It was changed or copied: the "
            f"record is of a version that cannot tell which.",
        )
    else:
        problem = f"was made from another input than {address} is now"
        yield Finding(Fault.INPUT, location, join(group, "zarr.json"), problem, made)


def find_model(location: str, record: SegmentationRecord) -> str | None:
    """The network that an output was made with: where its record says, beside the output, or beside the input.

    Only a file with the recorded sha256 is the one.
    """
    if record.model is None or not record.model.path or store.is_remote(location):
        return None
    image = find_location(record.input.location, location) if record.input else ""
    folders = [os.path.dirname(location), os.path.dirname(image)]
    for path in dict.fromkeys(os.path.join(folder, record.model.path) for folder in folders):
        if os.path.isfile(path) and _sha256(path) == record.model.sha256:
            return path
    return None


def _sha256(path: str) -> str:
    from segment_slide.unet.errors import UnetError
    from segment_slide.unet.open_network import open_network

    try:
        return open_network(path).sha256
    except UnetError:
        return ""


def find_ingested(location: str, named: str = "") -> str | None:
    """The file or folder that an image was converted from: the one that is named, or the one beside the image.

    Parameters
    ----------
    location : str
        The image.
    named : str
        File or folder that the user names; "" looks beside the image.
    """
    record = read_ingest_record(location)
    if record is None:
        return None
    candidates = [named] if named else [join(os.path.dirname(location), record.ingested_from.name)]
    return next((path for path in candidates if path and os.path.exists(path)), None)


@alone
def check_ingested(location: str) -> Found:
    """Compare the file beside a converted image with the record of the conversion."""
    record = read_ingest_record(location)
    if record is None:
        return
    file = find_ingested(location)
    if file is None or not os.path.isfile(file) or record.ingested_from.n_files != 1:
        yield Note(location, f"Its source {record.ingested_from.name} is not one file beside it; not compared.")
    elif fingerprint_files([file]) != record.ingested_from.fingerprint:
        yield Note(location, f"{file} beside it is not the file that it was converted from.")
