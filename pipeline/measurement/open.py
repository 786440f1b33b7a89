"""Find the input of a measurement from metadata alone, and refuse arrays that do not fit together.

::

    OUT.ome.zarr/labels/<name>-instances   ids; its record has the number of objects and of their spatial axes
                /labels/<name>             classes; its record names the image that was segmented, and the classes
                /probability/<name>        probabilities, if they are stored
"""

from dataclasses import replace

import numpy as np

from segment_slide.pipeline.errors import InputError
from segment_slide.pipeline.measurement.input import MeasureInput
from segment_slide.pipeline.measurement.options import ImageChoice
from segment_slide.pipeline.recorded.addresses import check_address
from segment_slide.pipeline.recorded.images import NAME_IT
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.complete import require_complete
from segment_slide.pipeline.storage.fingerprint import fingerprint
from segment_slide.pipeline.storage.image import StoredImage, describe_image
from segment_slide.pipeline.storage.label_records import (
    InstancesRecord,
    LabelledInput,
    SegmentationRecord,
    SegmentedInput,
    read_instances_record,
    read_segmentation_record,
)
from segment_slide.pipeline.storage.names import find_location, instance_group, label_group, probability_group
from segment_slide.pipeline.storage.source import ImageSource


def open_input(location: str, name: str, choice: ImageChoice) -> MeasureInput:
    """Find and check all inputs of a measurement.

    Parameters
    ----------
    location : str
        OME-Zarr output of a segmentation, with instances.
    name : str
        Label image in it; the instances are ``labels/<name>-instances``.
    choice : ImageChoice
        The image to measure intensities in.

    Raises
    ------
    InputError
        If there are no instances, they are not complete, or image, classes and instances do not fit each other.
    """
    group = instance_group(name)
    record = read_instances_record(location, name)
    if record is None:
        raise InputError(
            f"{store.join(location, group)}: no instances are there; make them first: segment-slide instances "
            f"{location} `name={name!r}`. If the values of a label image are ids already, name it: `labels='NAME'`."
        )
    n_spatial, n_objects = _read_facts(record, location, name)
    instances = describe_image(store.join(location, group))
    if np.dtype(instances.dtype).kind != "u" or len(instances.shape) < n_spatial:
        raise InputError(f"{store.join(location, group)}: dtype {instances.dtype}, expected unsigned ids.")
    require_complete(instances)
    classes = _open_classes(location, name, record.input, instances)
    segmented = read_segmentation_record(classes.location) or SegmentationRecord()
    output = _store_of(classes, name)
    return MeasureInput(
        instances=instances,
        classes=classes,
        # probabilities are stored for the finest level only, so objects of a coarser level have none
        scores=None if classes.level else _open_scores(output, name, instances),
        source=None if choice.no_image else _open_source(choice, output, segmented, instances, n_spatial),
        n_spatial=n_spatial,
        n_objects=n_objects,
        class_names=segmented.classes,
    )


def _read_facts(record: InstancesRecord, location: str, name: str) -> tuple[int, int]:
    """Number of spatial axes and number of objects. The latter is recorded when the instances are complete."""
    n_spatial = record.parameters.ndim
    if n_spatial not in (2, 3) or record.n_objects is None:
        raise InputError(
            f"instances of {name} in {location} are not complete (their number is not recorded); go on with: "
            f"segment-slide instances {location} `name={name!r}`."
        )
    return n_spatial, record.n_objects


def _open_classes(location: str, name: str, made_of: LabelledInput, instances: StoredImage) -> StoredImage:
    """The class map: in the same store, or in the one that the instances' record names."""
    beside = store.join(location, label_group(name))
    elsewhere = find_location(made_of.location, location)
    place = beside if store.read_attributes(beside) is not None else elsewhere or beside
    check_address(place, location, remedy="give that store to the command that numbers objects again")
    is_group = store.read_attributes(place) is not None
    if not is_group and not store.is_occupied(place):
        raise InputError(
            f"{instances.location}: the classes that these objects were found in are not at {place} any more, where "
            f"their record says. Put that store back there, beside this one, and run the command again."
        )
    image = describe_image(place, axes=None if is_group else instances.axes)
    paths = [level.path for level in image.multiscale.levels]
    if made_of.array not in (None, image.array_path) and made_of.array in paths:
        image = describe_image(place, level=paths.index(made_of.array))
    sizes = {axis: image.size(axis) for axis in image.axes if axis != "c"}
    fits = sizes == dict(zip(instances.axes, instances.shape, strict=True)) and image.size("c") == 1
    if not fits or np.dtype(image.dtype).kind not in "bui":
        raise InputError(
            f"{image.location}: shape {image.shape} ({image.axes}) and dtype {image.dtype}, expected classes of the "
            f"shape {instances.shape} ({instances.axes}) of {instances.location}."
        )
    require_complete(image)
    return image


def _store_of(classes: StoredImage, name: str) -> str:
    """The store in whose ``labels/`` a class map lies."""
    return classes.location.removesuffix("/" + label_group(name))


def _open_scores(location: str, name: str, instances: StoredImage) -> StoredImage | None:
    """Probabilities, if they are stored beside the classes."""
    group = probability_group(name)
    if store.read_attributes(location, group) is None:
        return None
    scores = describe_image(store.join(location, group))
    shape = tuple(scores.size(axis) for axis in instances.axes)
    if shape != instances.shape or "c" not in scores.axes or scores.dtype not in ("uint8", "float32"):
        raise InputError(
            f"{scores.location}: shape {scores.shape} ({scores.axes}) and dtype {scores.dtype} do not fit "
            f"{instances.shape} ({instances.axes}) of {instances.location}."
        )
    require_complete(scores)
    return scores


def _open_source(
    choice: ImageChoice, output: str, segmented: SegmentationRecord, instances: StoredImage, n_spatial: int
) -> ImageSource:
    """The image that was segmented, or the one that was named. An axis that only one of both has is one pixel long."""
    recorded = segmented.input or SegmentedInput()
    path = choice.image or find_location(recorded.location, output)
    if not path:
        raise InputError(
            f"{instances.location}: no record says which image was segmented; name it with `image`, or measure shapes "
            f"only with `no_image`."
        )
    if choice.image is None:
        check_address(path, instances.location, remedy=NAME_IT.format(place=path))
    image = _describe(path, choice, recorded)
    require_complete(image)
    if choice.image is None:
        check_unchanged(path, recorded)
    ranges = recorded.planes
    source = ImageSource(image, n_spatial, tuple(range(image.size("c"))), ())
    planes = source.plane_axes
    chosen = tuple(ranges.get(axis, (0, image.size(axis))) for axis in planes)
    source = replace(source, ranges=chosen)
    inside = all(stop <= image.size(axis) for axis, (_, stop) in zip(planes, chosen, strict=True))
    if not inside or _longer_axes(source.axes, source.shape) != _longer_axes(instances.axes, instances.shape):
        shown = {axis: list(ends) for axis, ends in ranges.items()}
        raise InputError(
            f"image={image.location} level {image.level}: shape {image.shape} ({image.axes}), planes {shown or 'all'} "
            f"do not fit the instances' {instances.shape} ({instances.axes}); choose another `image` or `level`, or "
            f"`no_image`."
        )
    return source


def _longer_axes(axes: str, shape: tuple[int, ...]) -> dict[str, int]:
    """Sizes of the axes with more than one pixel."""
    return {axis: size for axis, size in zip(axes, shape, strict=True) if size > 1}


def _describe(path: str, choice: ImageChoice, recorded: SegmentedInput) -> StoredImage:
    level = choice.level if choice.level is not None else recorded.level or 0
    try:
        is_group = store.read_attributes(store.resolve_location(path)) is not None
        return describe_image(path, level=level, axes=None if is_group else recorded.axes or None)
    except InputError as error:
        if choice.image is not None:
            raise
        raise InputError(
            f"the image that was segmented cannot be opened ({error}). Say where it is now with `image='PATH'`, or "
            f"measure shapes only with `no_image`."
        ) from error


def check_unchanged(path: str, recorded: SegmentedInput) -> None:
    """Refuse an image that only a record names, and that is not the recorded one: another may lie there by now.

    Raises
    ------
    InputError
        If its content has changed.
    """
    image = _describe(path, ImageChoice(), recorded)
    if fingerprint(image, recorded.fingerprint or "") != recorded.fingerprint:
        raise InputError(
            f"image={image.location} has changed since it was segmented. If it is still the right one, name it: "
            f"`image={image.location!r}`; or measure shapes only with `no_image`."
        )
