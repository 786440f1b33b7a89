"""Find what can be shown: the image and the label images of an output, of an image with labels, or of both in one."""

from collections.abc import Mapping
from dataclasses import dataclass

from segment_slide.pipeline.errors import InputError, NotNamedError, PipelineError, UnreachableError
from segment_slide.pipeline.pictures.layer import Layer
from segment_slide.pipeline.pictures.thumbnail import find_image
from segment_slide.pipeline.recorded.addresses import check_address
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.complete import FileCount, count_known_missing, judge_image
from segment_slide.pipeline.storage.image import StoredImage, describe_image
from segment_slide.pipeline.storage.label_records import InstancesRecord, SegmentationRecord, SegmentedInput
from segment_slide.pipeline.storage.names import find_location, instances_name, label_group, probability_group
from segment_slide.pipeline.storage.place import holds_image, read_label_names
from segment_slide.pipeline.viewer.metadata import read_own_record
from segment_slide.pipeline.viewer.place import Placement, place_described, place_recorded
from segment_slide.pipeline.zarr_stores.checked import has_listing

Segmented = tuple[StoredImage, Mapping[str, int]]  # the level that labels were made from, and its first planes


@dataclass(frozen=True)
class Labels:
    """A label image.

    Attributes
    ----------
    name : str
        Its name in ``labels/``.
    image : StoredImage
        Its finest level.
    record : SegmentationRecord or InstancesRecord or None
        What we noted of it; None if another tool wrote it.
    """

    name: str
    image: StoredImage
    record: SegmentationRecord | InstancesRecord | None = None

    @property
    def are_instances(self) -> bool:
        """Whether the values are objects that we numbered."""
        return isinstance(self.record, InstancesRecord)

    @property
    def segmentation(self) -> SegmentationRecord | None:
        """The record of a map of classes, if it is one of ours."""
        return self.record if isinstance(self.record, SegmentationRecord) else None

    @property
    def n_spatial(self) -> int | None:
        """Along how many axes objects extend, or None if nobody noted it."""
        if isinstance(self.record, InstancesRecord):
            return self.record.parameters.ndim or None
        if self.record is None or self.record.input is None or self.record.input.ranges is None:
            return None
        ranges = self.record.input.ranges
        return 3 if self.image.size("z") > 1 and "z" not in ranges else 2


@dataclass(frozen=True)
class Found:
    """Everything that can be shown.

    Attributes
    ----------
    location : str
        The store that the user named.
    base : StoredImage
        The image over which everything is laid: the image itself, or the first labels if there is no image.
    has_image : bool
        Whether `base` is the image.
    labels : tuple of Labels
        The label images to list, each map of classes before its objects.
    places : mapping of str to Placement
        Where each label image lies, by its name.
    notes : tuple of str
        What is missing, incomplete or uncertain.
    """

    location: str
    base: StoredImage
    has_image: bool
    labels: tuple[Labels, ...]
    places: Mapping[str, Placement]
    notes: tuple[str, ...]


def find_contents(location: str, image: str | None, name: str | None) -> Found:
    """Find the image and the labels in the store that a user names.

    Parameters
    ----------
    location : str
        An output, an OME-Zarr image with or without ``labels/``, or one of its label images.
    image : str, optional
        The image to show, instead of the recorded one.
    name : str, optional
        Show only this label image and its objects.

    Raises
    ------
    InputError
        If there is nothing that can be shown, or no label image of that name.
    """
    location = store.resolve_location(location)
    head, between, tail = location.rpartition("/labels/")
    if between and name is None and "/" not in tail and store.read_attributes(head) is not None:
        location, name = head, tail
    notes: list[str] = []
    listed = read_label_names(location, notes)
    wanted = _choose_names(location, listed, name)
    there = [found for item in sorted(listed) if (found := _open_labels(location, item, notes, item in wanted))]
    labels = [item for item in there if item.name in wanted and _is_numbered(location, item, notes)]
    sources = _find_sources(location, image, there, labels, notes)
    base = _find_base(location, image, labels, sources)
    if base is None:
        if not labels:
            raise InputError(f"{location} holds neither an image nor labels that can be shown. {' '.join(notes)}")
        if not any("was not opened" in note or "is not used" in note for note in notes):
            notes.append(f"The image that {location} was made from was moved or deleted; name it: `image='PATH'`.")
    elif has_listing(base.location) and not (state := judge_image(base)).is_complete:
        notes.append(
            f"{base.location} is not complete: {state.text} are there, the others look like background; {state.remedy}."
        )
    below = base or labels[0].image
    if image is not None and not sources and any(item.record for item in labels):
        notes.append(f"{image} is not the image that was segmented: its size differs. Labels are placed by metadata.")
    for item in labels:
        notes += _describe_state(location, item)
    placed = {item.name: _place(item, below, sources.get(item.name), notes) for item in labels}
    places = {key: place for key, place in placed.items() if place is not None}
    shown = tuple(item for item in labels if item.name in places)
    return Found(location, below, base is not None, shown, places, tuple(notes))


def _choose_names(location: str, listed: list[str], name: str | None) -> set[str]:
    if name is None:
        return set(listed)
    if name not in listed:
        there = f"there are {', '.join(sorted(listed))}" if listed else "there are none"
        raise InputError(f"name={name!r}: {location} lists no such label image; {there}.")
    return {name, instances_name(name)}


def _open_labels(location: str, name: str, notes: list[str], is_wanted: bool) -> Labels | None:
    """Open one label image. Labels that are not wanted still tell which image was segmented, but add no notes."""
    group = store.join(location, label_group(name))
    said = notes if is_wanted else []
    try:
        image = describe_image(group)
        return Labels(name, image, read_own_record(group, said))
    except UnreachableError:
        raise
    except PipelineError as error:
        said.append(f"labels/{name} is left out: {error}")
        return None


def _is_numbered(location: str, item: Labels, notes: list[str]) -> bool:
    if not isinstance(item.record, InstancesRecord) or item.record.n_objects is not None:
        return True
    notes.append(
        f"labels/{item.name} is left out: its objects are not all numbered yet; go on with: "
        f"segment-slide instances {location}"
    )
    return False


def _describe_state(location: str, item: Labels) -> list[str]:
    """Say what is missing in labels that we write, and which part of other labels is not shown."""
    notes = []
    blocks = count_known_missing(item.image) if item.record else FileCount(0, 0)
    if blocks.n_missing:
        command = f"instances {location}" if item.are_instances else "segment …, as it was begun"
        notes.append(
            f"labels/{item.name}: {blocks.n_missing:,} of {blocks.n_files:,} blocks are not done and look like "
            f"background; go on with: segment-slide {command}"
        )
    if item.image.size("c") > 1:
        notes.append(f"labels/{item.name} has {item.image.size('c')} channels, of which the first is shown.")
    return notes


def _find_sources(
    location: str, image: str | None, there: list[Labels], shown: list[Labels], notes: list[str]
) -> dict[str, Segmented]:
    """Return which level of which image the labels were made from, by their records; keys are names of labels."""
    chosen = None if image is None else describe_image(image)
    found: dict[str, Segmented] = {}
    classes = {item.name: item for item in there if item.segmentation}
    order = [item for item in shown if item.record] + [item for item in there if item not in shown and item.record]
    for item in order:
        owner = next((other for name, other in classes.items() if instances_name(name) == item.name), None)
        source, where = (item if item.name in classes else owner), location
        if source is None and item.are_instances:
            source, where = _follow(item, location, notes)
        if source is None or source.segmentation is None:
            continue
        segmented = source.segmentation.input or SegmentedInput()
        if chosen is not None:
            level = _match(chosen, segmented, source)
        else:
            layer = find_image(where, segmented, Layer(source.image, {"t": 0, "z": 0}), notes)
            level = None if layer is None else (layer.base, layer.plane)
        if level is not None:
            found[item.name] = level
    return found


def _follow(item: Labels, location: str, notes: list[str]) -> tuple[Labels | None, str]:
    """The map of classes in another store that objects were made of, and that store."""
    group = item.record.input.location if isinstance(item.record, InstancesRecord) else ""
    group = find_location(group, item.image.location.rpartition("/labels/")[0])
    where, between, name = group.rpartition("/labels/")
    if not between:
        return None, where
    try:
        check_address(group, location, remedy="name the image with `image='PATH'`")
        source = Labels(name, describe_image(group), read_own_record(group, []))
    except UnreachableError:
        raise
    except NotNamedError as error:
        notes.append(str(error))
        return None, where
    except PipelineError:  # it is not there any more: who only looks needs it for the image's address
        return None, where
    return (source if source.segmentation else None), where


def _match(image: StoredImage, segmented: SegmentedInput, labels: Labels) -> Segmented | None:
    """The level of a given image that is as large as the one that was segmented, if the recorded one is."""
    try:
        level = describe_image(image.location, level=segmented.level or 0) if image.is_ome else image
    except UnreachableError:
        raise
    except InputError:  # it has fewer levels
        return None
    wanted = {axis: size for axis, size in zip(segmented.axes, segmented.shape, strict=False) if axis != "c"}
    wanted = wanted or {axis: labels.image.size(axis) for axis in "yx"}
    if any(level.size(axis) != size for axis, size in wanted.items()):
        return None
    first = {axis: start for axis, (start, _) in segmented.planes.items()}
    return level, {axis: first.get(axis, 0) for axis in "tz"}


def _find_base(
    location: str, image: str | None, labels: list[Labels], sources: Mapping[str, Segmented]
) -> StoredImage | None:
    """Find the image's finest level."""
    if image is not None:
        return describe_image(image)
    first = next((sources[item.name] for item in labels if item.name in sources), next(iter(sources.values()), None))
    if first is not None:
        return describe_image(first[0].location) if first[0].is_ome else first[0]
    return describe_image(location) if not labels or holds_image(location) else None


def _place(item: Labels, base: StoredImage, source: Segmented | None, notes: list[str]) -> Placement | None:
    """Place labels by their record if it is about this image and they have the recorded shape; else by metadata."""
    if source is not None and source[0].location == base.location:
        segmented, first = source
        if all(item.image.size(axis) == segmented.size(axis) for axis in "yx"):
            return place_recorded(segmented, base, first)
    place, doubt = place_described(item.image, base)
    if doubt:
        notes.append(f"labels/{item.name} {doubt}")
    return place


def find_probabilities(location: str, name: str) -> StoredImage | None:
    """Return the stored probabilities of a map of classes; None if there are none."""
    group = probability_group(name)
    return None if store.read_attributes(location, group) is None else describe_image(store.join(location, group))
