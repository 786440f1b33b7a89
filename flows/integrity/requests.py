"""The requests that made an output, written again from its records."""

from pathlib import Path

from segment_slide.flows.integrity.options import VerifyRequest
from segment_slide.flows.requests import InstancesRequest, MeasureRequest, SegmentRequest
from segment_slide.pipeline.errors import InputError
from segment_slide.pipeline.ingest.options import IngestOptions
from segment_slide.pipeline.ingest.record import IngestParameters, read_ingest_record
from segment_slide.pipeline.integrity.inputs import find_ingested, find_model
from segment_slide.pipeline.measurement.options import ImageChoice, LabelChoice
from segment_slide.pipeline.measurement.record import TableRecord, read_table_record
from segment_slide.pipeline.objects.options import InstanceOptions, ObjectSize
from segment_slide.pipeline.recorded.addresses import may_open
from segment_slide.pipeline.segmentation.options import SegmentOptions
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.label_records import (
    InstanceParameters,
    SegmentationRecord,
    SegmentedInput,
    read_instances_record,
    read_record,
)
from segment_slide.pipeline.storage.names import find_location, instance_group, instances_name, label_group
from segment_slide.pipeline.storage.place import has_label
from segment_slide.pipeline.storage.record import has_mark, identify_group


def segment_request(location: str, name: str, chosen: VerifyRequest) -> SegmentRequest:
    """The request that made a segmentation.

    Raises
    ------
    InputError
        If its record does not say it, or names an address that may not be opened.
    """
    record = read_record(location, name)
    if record is None or record.input is None or record.model is None:
        raise InputError(f"{location} does not say from which input and model {label_group(name)} was made.")
    image, parameters = record.input, record.parameters
    return SegmentRequest(
        input=_expect_address(find_location(image.location, location), location, chosen.input),
        model=chosen.model or _expect_model(location, record),
        output=location,
        options=_segment_options(record, name),
        level=image.level or 0,
        axes=image.axes if not image.array else None,
        channels=_channels(image),
        t=image.planes.get("t"),
        z=image.planes.get("z"),
        device=parameters.device or "auto",
        in_place=find_location(image.location, location) == location,
    )


def _expect_address(address: str, location: str, named: str) -> str:
    """The address that the user names, or that of the record if it may be opened."""
    if not named and not may_open(address, location):
        raise InputError(f"the record of {location} names {address}, another server. Name it with `input` to allow it.")
    return named or address


def _expect_model(location: str, record: SegmentationRecord) -> str:
    found = find_model(location, record)
    if found is None:
        name, sha256 = (record.model.path, record.model.sha256) if record.model else ("", "")
        raise InputError(
            f"the model {name} (sha256 {sha256[:12]}…) of {location} is neither beside it nor beside its input; name "
            f"it with `model`."
        )
    return found


def _segment_options(record: SegmentationRecord, name: str) -> SegmentOptions:
    chosen = record.parameters
    return SegmentOptions(
        name=name,
        block=chosen.block or None,
        tile=chosen.tile or None,
        chunk=chosen.chunk or None,
        precision=chosen.precision or None,
        tta=chosen.tta,
        probabilities=chosen.probabilities,
        skip_background=chosen.skip_background,
    )


def _channels(image: SegmentedInput) -> tuple[str, ...]:
    """Numbers of the channels; empty if all were taken in their order."""
    n_channels = dict(zip(image.axes, image.shape, strict=False)).get("c", 1)
    return () if list(image.channels) == list(range(n_channels)) else tuple(map(str, image.channels))


def instances_request(location: str, name: str, chosen: VerifyRequest) -> InstancesRequest:
    """The request that numbered the objects of a class map.

    Raises
    ------
    InputError
        If there is no record, or it names an address that may not be opened.
    """
    record = read_instances_record(location, name)
    if record is None:
        raise InputError(f"{location} does not say from what {instance_group(name)} was made.")
    is_beside = has_label(location, name)
    elsewhere = find_location(record.input.location, location)
    made_of = location if is_beside else _expect_address(elsewhere, location, chosen.input)
    return InstancesRequest(
        input=made_of,
        name=name,
        output=location,
        options=_instance_options(record.parameters),
        in_place=is_beside and not has_mark(location, label_group(name)),
    )


def _instance_options(chosen: InstanceParameters) -> InstanceOptions:
    """The options that give these parameters, whatever the model recommends."""
    return InstanceOptions(
        connectivity=chosen.connectivity,
        fill_holes=ObjectSize(chosen.fill_holes_px) if chosen.fill_holes_px else None,
        min_size=ObjectSize(chosen.min_size_px) if chosen.min_size_px else None,
        split=chosen.split,
        split_halo=chosen.split_halo if chosen.split is not None else None,
        regrow=chosen.regrow,
        block=chosen.block or None,
        ignores_model=True,
        ndim=chosen.ndim or None,
    )


def measure_request(location: str, table: str, chosen: VerifyRequest) -> MeasureRequest:
    """The request that measured a table.

    Raises
    ------
    InputError
        If there is no record of it.
    """
    record = read_table_record(location, table)
    if record is None:
        raise InputError(f"{location} does not say from what the table {table} was made.")
    measured = record.input
    image = ImageChoice(chosen.input or None, measured.image_level) if measured.image else ImageChoice(no_image=True)
    if measured.labels is not None:
        labels = LabelChoice(labels=measured.labels, ndim=measured.ndim or None, table=table)
        return MeasureRequest(location, image=image, rows=record.parameters.rows, labels=labels)
    name = _measured_name(location, table, record)
    labels = LabelChoice(table=None if table == instances_name(name) else table)
    return MeasureRequest(location, name, image, record.parameters.rows, labels=labels)


def _measured_name(location: str, table: str, record: TableRecord) -> str:
    """The class map whose objects are in a table: the one whose record the table notes, or that of the same name."""
    wanted = record.identity and record.identity.instances
    names = sorted(
        name.removesuffix(instances_name(""))
        for name in store.list_names(store.join(location, "labels"))
        if name.endswith(instances_name(""))
    )
    same = [name for name in names if wanted and identify_group(location, instance_group(name)) == wanted]
    return table.removesuffix(instances_name("")) if not same or instances_name(same[0]) == table else same[0]


def ingest_request(location: str, chosen: VerifyRequest) -> tuple[Path, IngestOptions]:
    """The file or folder that an image was converted from, and the options.

    Raises
    ------
    InputError
        If the file is not there.
    """
    record, file = read_ingest_record(location), find_ingested(location, chosen.input)
    if record is None or file is None:
        name = record.ingested_from.name if record else ""
        raise InputError(f"the source {name} of {location} is not beside it; name it with `input`.")
    return Path(file), _ingest_options(record.parameters)


def _ingest_options(chosen: IngestParameters) -> IngestOptions:
    sizes = {axis: size for axis, size in zip(chosen.axes, chosen.pixel_size, strict=False) if size and axis != "c"}
    return IngestOptions(
        series=chosen.series,
        pixel_size=sizes,
        name=chosen.name,
        chunk=chosen.chunk or IngestOptions().chunk,
        shard=chosen.shard or IngestOptions().shard,
    )
