"""Read metadata that any program may have written: damaged parts are left out, the rest is used."""

import math
from collections.abc import Mapping
from typing import Any

from segment_slide.pipeline.errors import OutputError, UnreachableError
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.label_records import InstancesRecord, SegmentationRecord, read_label_record

MOST_COLOURS = 1000  # of label values: the page's address holds them
LARGEST_ID = (1 << 64) - 1


def read_content(location: str, path: str = "") -> dict[str, Any]:
    """Read OME-Zarr's own attributes of a group, in either version; empty if there are none."""
    attributes: Any = store.read_attributes(location, path) or {}
    return as_mapping(attributes.get("ome", attributes))


def as_mapping(value: Any) -> dict[str, Any]:
    """Return a JSON object, or an empty one if the value is anything else."""
    return value if isinstance(value, dict) else {}


def as_objects(value: Any) -> list[dict[str, Any]]:
    """Return the objects of a JSON list."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def as_number(value: object) -> float:
    """Return a finite number, or NaN if the value is none."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return math.nan
    try:
        number = float(value)
    except OverflowError:  # integers in JSON have no upper limit
        return math.nan
    return number if math.isfinite(number) else math.nan


def is_id(value: object) -> bool:
    """Whether a value can be the id of an object: 0 is background, and the viewer counts with 64 bits."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= LARGEST_ID


def read_own_record(group: str, notes: list[str]) -> SegmentationRecord | InstancesRecord | None:
    """What we noted of a label image; None if another tool wrote it, or if what stands there is damaged."""
    try:
        return read_label_record(group)
    except UnreachableError:
        raise
    except OutputError:
        notes.append(f"The record of {group} is damaged; the labels are shown as those of another program.")
        return None


def read_label(location: str) -> dict[str, Any]:
    """Read the "image-label" block of a label image."""
    return as_mapping(read_content(location).get("image-label"))


def read_colours(label: Mapping[str, Any]) -> dict[int, str]:
    """Return the colours of label values except 0, which is transparent; empty if there are too many."""
    found: dict[int, str] = {}
    for item in as_objects(label.get("colors")):
        value, rgba = item.get("label-value"), item.get("rgba")
        parts = [as_number(part) for part in rgba[:3]] if isinstance(rgba, list) else []
        if isinstance(value, int) and is_id(value) and len(parts) == 3 and all(map(math.isfinite, parts)):
            found.setdefault(value, "#" + "".join(f"{int(min(max(part, 0), 255)):02x}" for part in parts))
    return found if len(found) <= MOST_COLOURS else {}
