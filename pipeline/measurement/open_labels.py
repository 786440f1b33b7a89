"""Find the input of a measurement of another tool's label image: its values are ids of objects, kept as they are.

::

    IMAGE.ome.zarr                  the image that intensities are measured in, unless another one is named
                  /labels/<name>    ids: integers above 0 of any height, with gaps, in any order

Pixels with one id are one object, also where they do not touch. Axes of objects are y and x, and z if the label image
has more than one plane of it. In other planes (t) ids may be used again: each plane has its own objects.
"""

from dataclasses import replace

import numpy as np

from segment_slide.pipeline.errors import InputError
from segment_slide.pipeline.measurement.input import MeasureInput
from segment_slide.pipeline.measurement.options import ImageChoice, LabelChoice
from segment_slide.pipeline.recorded.images import open_recorded
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.complete import require_complete
from segment_slide.pipeline.storage.image import StoredImage, describe_image
from segment_slide.pipeline.storage.label_records import SegmentationRecord, SegmentedInput, read_label_record
from segment_slide.pipeline.storage.names import label_group
from segment_slide.pipeline.storage.place import holds_image, read_label_names
from segment_slide.pipeline.storage.source import ImageSource

_SIZED = "tzyx"


def open_labels(location: str, labels: LabelChoice, choice: ImageChoice) -> MeasureInput:
    """Find and check label image and image.

    Parameters
    ----------
    location : str
        OME-Zarr in whose ``tables/`` the table is written.
    labels : LabelChoice
        The label image.
    choice : ImageChoice
        The image to measure intensities in.

    Raises
    ------
    InputError
        If there is no such label image, its values cannot be ids, the image does not fit it, or one of both is not
        complete.
    """
    place = _find_labels(location, labels.labels or "")
    image = None if choice.no_image else _describe_image(location, choice)
    found = _describe_labels(place, image)
    require_complete(found, image)
    n_spatial = labels.ndim or (3 if found.size("z") > 1 else 2)
    if n_spatial == 3 and "z" not in found.axes:
        raise InputError(f"`ndim`=3, but {found.location} has axes {found.axes!r}: no z.")
    source = None if image is None else fit_image(_choose_level(image, found, choice), found, n_spatial)
    name = labels.name
    return MeasureInput(
        instances=found,
        classes=None,
        scores=None,
        source=source,
        n_spatial=n_spatial,
        n_objects=None,
        class_names=("background", name),
    )


def _find_labels(location: str, labels: str) -> str:
    """Where a label image is that is named by its name in ``labels/``, or by its path."""
    beside = store.join(location, label_group(labels))
    is_beside = "/" not in labels and store.read_attributes(beside) is not None
    if not is_beside and "/" not in labels and not store.is_occupied(store.resolve_location(labels)):
        there = ", ".join(read_label_names(location))
        raise InputError(
            f"`labels`={labels!r}: {location} has no such label image, and it is no path; "
            f"{f'there are {there}' if there else 'there are none'}."
        )
    place = beside if is_beside else store.resolve_location(labels)
    if isinstance(read_label_record(place), SegmentationRecord):
        raise InputError(
            f"`labels`={labels!r}: {place} is a map of classes, not of objects; number its objects: segment-slide "
            f"instances {location}, and measure without `labels`."
        )
    return place


def _describe_labels(place: str, image: StoredImage | None) -> StoredImage:
    """Describe a label image, and refuse one whose values cannot be ids."""
    axes = None if image is None or store.read_attributes(place) is not None else image.axes.replace("c", "")
    found = describe_image(place, axes=axes)
    if np.dtype(found.dtype).kind not in "bui":
        raise InputError(f"{place}: dtype {found.dtype}, expected integers, which are ids of objects.")
    if found.size("c") > 1:
        raise InputError(f"{place}: {found.size('c')} channels ({found.axes}), expected ids without channels.")
    return found


def _describe_image(location: str, choice: ImageChoice) -> StoredImage:
    path = choice.image or (location if holds_image(location) else "")
    if not path and (recorded := _segmented_image(location)) is not None:
        image = open_recorded(recorded, location)
        return describe_image(image.location, level=choice.level or 0) if image.is_ome else image
    if not path:
        raise InputError(
            f"{location} holds no image that the labels belong to; name it with `image`, or measure shapes only with "
            f"`no_image`."
        )
    return describe_image(path, level=choice.level or 0)


def _segmented_image(location: str) -> SegmentedInput | None:
    """The image that a segmentation beside the labels was made of; None if there is none."""
    groups = (store.join(location, label_group(name)) for name in read_label_names(location))
    records = (read_label_record(group) for group in groups)
    made_of = (record.input for record in records if isinstance(record, SegmentationRecord))
    return next((found for found in made_of if found is not None and found.location), None)


def _choose_level(image: StoredImage, labels: StoredImage, choice: ImageChoice) -> StoredImage:
    """The level of an image that is as large as the labels, unless one was named."""
    if choice.level is not None or not image.is_ome:
        return image
    levels = range(1, len(image.multiscale.levels))
    described = [image, *(describe_image(image.location, level=level) for level in levels)]
    return next((level for level in described if _sizes(level) == _sizes(labels)), image)


def _sizes(image: StoredImage) -> dict[str, int]:
    """Pixels along each axis that has a place; 1 along one that is missing."""
    return {axis: image.size(axis) for axis in _SIZED}


def fit_image(image: StoredImage, labels: StoredImage, n_spatial: int) -> ImageSource:
    """Lay labels on an image with all its channels and planes.

    Raises
    ------
    InputError
        If sizes differ. An axis that only one of both has must have one pixel.
    """
    if _sizes(image) != _sizes(labels):
        raise InputError(
            f"image={image.location} level {image.level}: shape {image.shape} ({image.axes}) does not fit the labels' "
            f"{labels.shape} ({labels.axes}) of {labels.location}; choose another `image` or `level`, or `no_image`."
        )
    source = ImageSource(image, n_spatial, tuple(range(image.size("c"))), ())
    return replace(source, ranges=tuple((0, image.size(axis)) for axis in source.plane_axes))
