"""Groups that are no image, but hold some: plates, wells, collections of images, and folders of arrays."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from segment_slide.pipeline.errors import InputError, PipelineError, UnknownAxesError
from segment_slide.pipeline.metadata.paths import stays_below
from segment_slide.pipeline.storage.store import join, list_names, open_array, read_attributes

_LAYOUT = "bioformats2raw.layout"
_MOST_LOOKED_AT, _MOST_NAMED = 50, 3  # groups below a collection, for a message that names some of them


def only_image(location: str, attributes: Mapping[str, Any]) -> str | None:
    """The image of a collection that holds one, as bioformats2raw writes it; None if there are more, or none."""
    content = _content(attributes)
    if _LAYOUT not in content or "multiscales" in content or "plate" in content:
        return None
    series = _series(location)
    return series[0] if len(series) == 1 else None


def explain_group(location: str, attributes: Mapping[str, Any]) -> InputError:
    """The error that says what a group is that is no image, and names some of the images in it."""
    content = _content(attributes)
    if "plate" in content:
        fields = _fields_of_plate(location, content["plate"])
        return InputError(f"input={location} is a plate; name one field of view{some(fields)}.")
    if "well" in content:
        return InputError(f"input={location} is a well; name one field of view{some(_fields(location, content))}.")
    if _LAYOUT in content:
        return InputError(f"input={location} is a collection of images; name one of them{some(_series(location))}.")
    there = children(location)
    below = [path for folder in there for path in children(folder)]  # SpatialData: images/NAME, labels/NAME
    images = list(filter(_is_image, there)) or list(filter(_is_image, below))
    if isinstance(content.get("labels"), list) or images:
        what = "holds label images" if "labels" in content else "holds images"
        return InputError(f"input={location} {what}; name one of them{some(images)}.")
    arrays = list(filter(is_array, there))
    return UnknownAxesError(
        f"input={location} is a Zarr group without OME-Zarr 'multiscales' metadata",
        f"name the array inside it and its `axes`{some(arrays) if arrays else ''}.",
    )


def _content(attributes: Mapping[str, Any]) -> dict[str, Any]:
    inner = attributes.get("ome")
    return {**attributes, **(inner if isinstance(inner, dict) else {})}


def some(paths: Sequence[str]) -> str:
    """The first paths, for the end of a message."""
    if not paths:
        return ", but none of them is there"
    more = f" and {len(paths) - _MOST_NAMED} more" if len(paths) > _MOST_NAMED else ""
    return f", for example {', '.join(paths[:_MOST_NAMED])}{more}"


def _series(location: str) -> list[str]:
    """Images of a collection: those that its list names; without a list, those that are called 0, 1 and so on."""
    listed = _content(read_attributes(location, "OME") or {}).get("series")
    if isinstance(listed, list):
        return [path for name in map(str, listed) if stays_below(name) and _is_image(path := join(location, name))]
    return list(itertools.takewhile(_is_image, (join(location, str(number)) for number in range(_MOST_LOOKED_AT))))


def _fields_of_plate(location: str, plate: Any) -> list[str]:
    """Fields of the first well that has any."""
    wells = plate.get("wells") if isinstance(plate, dict) else None
    for well in (wells if isinstance(wells, list) else [])[:_MOST_LOOKED_AT]:
        name = str(well.get("path", "")) if isinstance(well, dict) else ""
        path = join(location, name if stays_below(name) else "")
        if fields := _fields(path, _content(read_attributes(path) or {})):
            return fields
    return []


def _fields(location: str, content: Mapping[str, Any]) -> list[str]:
    """Fields of a well."""
    well = content.get("well")
    images = well.get("images") if isinstance(well, dict) else None
    paths = [str(image.get("path", "")) for image in images or () if isinstance(image, dict)]
    return [found for path in paths if path and stays_below(path) and _is_image(found := join(location, path))]


def children(location: str) -> list[str]:
    """Paths of what is in a group; of very many only the first."""
    return [join(location, name) for name in sorted(list_names(location))[:_MOST_LOOKED_AT]]


def _is_image(location: str) -> bool:
    return "multiscales" in _content(attributes_of(location) or {})


def attributes_of(location: str) -> dict[str, Any] | None:
    """Attributes of a group; None if there is none, or if they are damaged."""
    try:
        return read_attributes(location)
    except PipelineError:
        return None


def is_array(location: str, path: str = "") -> bool:
    """Whether an array is there that can be opened."""
    try:
        open_array(location, path)
    except Exception:  # noqa: BLE001 - whatever keeps it from being read
        return False
    return True
