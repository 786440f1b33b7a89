"""What there is to look at: the image and the label images of an output, of an image with labels, or of both in one."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline import store
from pipeline.errors import InputError
from pipeline.image import StoredImage, describe_image
from pipeline.instance_names import COUNT, instances_name
from pipeline.output import label_group, probability_group
from pipeline.record import ATTRIBUTE
from pipeline.thumbnail import find_image
from pipeline.thumbnail_layer import Layer
from pipeline.view_place import Placement, place_described, place_recorded


@dataclass(frozen=True)
class Labels:
    """A label image.

    Attributes
    ----------
    name : str
        In ``labels/``.
    image : StoredImage
        Its finest level.
    record : mapping
        What we noted of it; empty if another tool wrote it.
    """

    name: str
    image: StoredImage
    record: Mapping[str, Any] = field(default_factory=dict)

    @property
    def are_instances(self) -> bool:
        """Whether the values are objects that we numbered."""
        return bool(self.record) and "model" not in self.record

    @property
    def n_spatial(self) -> int | None:
        """Along how many axes objects extend, or None if nobody noted it."""
        recorded = (self.record.get("parameters") or {}).get("ndim")
        if recorded is not None:
            return int(recorded)
        ranges = (self.record.get("input") or {}).get("ranges")
        return None if ranges is None else 3 if self.image.size("z") > 1 and "z" not in ranges else 2


@dataclass(frozen=True)
class Found:
    """All that can be shown.

    Attributes
    ----------
    location : str
        The store that was named.
    base : StoredImage
        What all is laid over: the image, or the first labels if it is not there.
    has_image : bool
        Whether `base` is the image.
    labels : tuple of Labels
        Those to list, each map of classes before its objects.
    places : mapping of str to Placement
        Where each lies, by its name.
    notes : tuple of str
        What is not there.
    """

    location: str
    base: StoredImage
    has_image: bool
    labels: tuple[Labels, ...]
    places: Mapping[str, Placement]
    notes: tuple[str, ...]


def find_contents(location: str, image: str | None, name: str | None) -> Found:
    """Find image and labels at what a user names.

    Parameters
    ----------
    location : str
        An output, an OME-Zarr image with or without ``labels/``, or one of its label images.
    image : str, optional
        The image to show, instead of what the record says.
    name : str, optional
        Only this label image, and its objects.

    Raises
    ------
    InputError
        If nothing is there that can be shown, or no label image of that name.
    """
    location = store.resolve_location(location)
    head, between, tail = location.rpartition("/labels/")
    if between and name is None and "/" not in tail and store.read_attributes(head) is not None:
        location, name = head, tail
    notes: list[str] = []
    labels = _list_labels(location, name, notes)
    shown, first = _find_base(location, image, labels)
    if shown is None:
        if not labels:
            raise InputError(f"{location} holds neither an image nor labels that can be shown.")
        notes.append(f"The image that {location} was made from is not where it was; name it: --image PATH.")
    base = shown or labels[0].image
    places = {item.name: _place(item, base, first, labels) for item in labels}
    return Found(location, base, shown is not None, tuple(labels), places, tuple(notes))


def _list_labels(location: str, name: str | None, notes: list[str]) -> list[Labels]:
    attributes: Any = store.read_attributes(location, "labels") or {}
    listed = [str(item) for item in (attributes.get("ome") or attributes).get("labels") or []]
    if name is not None and name not in listed:
        there = f"there are {', '.join(sorted(listed))}" if listed else "there are none"
        raise InputError(f"name={name!r}: {location} lists no such label image; {there}.")
    wanted = listed if name is None else [item for item in listed if item in (name, instances_name(name))]
    found = []
    for item in sorted(wanted):
        group = store.join(location, label_group(item))
        try:
            image = describe_image(group)
        except InputError as error:
            notes.append(f"labels/{item} is left out: {error}")
            continue
        record = (store.read_attributes(group) or {}).get(ATTRIBUTE) or {}
        labels = Labels(item, image, record)
        if labels.are_instances and not isinstance(record.get(COUNT), int):
            notes.append(f"labels/{item} is left out: its objects are not all numbered yet; go on with: instances.")
            continue
        found.append(labels)
    return found


def _find_base(
    location: str, image: str | None, labels: list[Labels]
) -> tuple[StoredImage | None, tuple[StoredImage, Mapping[str, int]] | None]:
    """The image's finest level; and, where a record knows it, the level that was segmented with its first planes."""
    if image is not None:
        return describe_image(image), None
    for item in labels:
        segmented = item.record.get("input") if "model" in item.record else None
        found = segmented and find_image(location, segmented, Layer(item.image, {"t": 0, "z": 0}))
        if found:
            base = describe_image(found.base.location) if found.base.is_ome else found.base
            return base, (found.base, found.plane)
    if not labels or _holds_image(location):
        return describe_image(location), None
    return None, None


def _holds_image(location: str) -> bool:
    """Whether the root is an image, and not a segmentation that shows itself as one."""
    root: Any = store.read_attributes(location) or {}
    return "multiscales" in root.get("ome", root) and "shows" not in (root.get(ATTRIBUTE) or {})


def _place(
    item: Labels,
    base: StoredImage,
    recorded: tuple[StoredImage, Mapping[str, int]] | None,
    labels: list[Labels],
) -> Placement:
    """By the record if it is of this image and these labels have its shape; else by metadata."""
    if recorded is None or not item.record:
        return place_described(item.image, base)
    segmented, first = recorded
    if all(item.image.size(axis) == segmented.size(axis) for axis in "yx"):
        return place_recorded(segmented, base, first)
    return place_described(item.image, base)


def find_probabilities(location: str, name: str) -> StoredImage | None:
    """The stored probabilities of a map of classes, if there are any."""
    group = probability_group(name)
    return None if store.read_attributes(location, group) is None else describe_image(store.join(location, group))
