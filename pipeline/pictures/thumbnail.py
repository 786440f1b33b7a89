"""A segmentation in one small picture: the image, and beside it the same with the classes drawn over it.

::

    image, z = 15 of 0–29     cells, z = 15 of 0–29
    ┌──────────────────────┐  ┌──────────────────────┐
    │ coarse level of what │  │ same, classes filled │
    │ was segmented        │  │ and outlined         │
    └──────────────────────┘  └──────────────────────┘
    ├────┤ 200 µm             ■ nucleus  ■ debris

This file decides what is shown; `pipeline.pictures.layer` reads it, and `pipeline.pictures.paint` draws it.
"""

import logging
import math
from typing import Any

import numpy as np

from segment_slide.pipeline.errors import InputError, NotNamedError, OtherImageError, PipelineError
from segment_slide.pipeline.measurement.picture import colour_of
from segment_slide.pipeline.pictures.layer import Frame, Layer, crop, edge
from segment_slide.pipeline.pictures.paint import Colour, Page, draw_page, find_ends, mix, resize, stretch
from segment_slide.pipeline.recorded.images import open_recorded
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.calibration import pixel_um
from segment_slide.pipeline.storage.image import StoredImage, describe_image
from segment_slide.pipeline.storage.label_records import SegmentationRecord, SegmentedInput, read_record
from segment_slide.pipeline.storage.names import label_group
from segment_slide.pipeline.storage.place import holds_image
from segment_slide.pipeline.storage.record import read_ome

log = logging.getLogger(__name__)

_SHOWN_CHANNELS = 3
_SMALLEST_SIDE_PX, _NARROWEST_PX = 64, 16
_MAX_NAMED = 12
_RGB: list[Colour] = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
_TWO: list[Colour] = [(0, 255, 0), (255, 0, 255)]


def draw_thumbnail(location: str, name: str = "segmentation", *, side_px: int = 768) -> bytes:
    """PNG of the image that was segmented, and beside it the same with its classes filled and outlined.

    Reads one level of the image and one of the labels: the coarsest whose longer side is at least ``side_px / 2``.
    If that level has more than 64 Mpx (a slide without a pyramid), only its central part is read and shown, and the
    picture says so. Whole chunks are decoded, so a store with one giant chunk is still read completely.

    The picture shows the first chosen time, and the middle of the chosen planes or of the volume. A single channel is
    grey. Of several channels, the first three that the network used are mixed, in the colours of the store's "omero"
    block, or else in red, green and blue (two channels: green and magenta). Each channel spans its 1st to 99.8th
    percentile of finite values. The channels of a colour photograph share one range from 0, so that hues stay. Values
    that are not finite are black.

    Labels are drawn alone if the image is not where the record says, or has another size now (pixels are not compared).
    Labels that are not written yet are background. Objects smaller than a pixel of the level may be missing. At most
    12 classes are named.

    Parameters
    ----------
    location : str
        The output: OME-Zarr with ``labels/<name>`` and its record.
    name : str
        The label image.
    side_px : int
        Longer side of each of the two panels, at least 64.

    Returns
    -------
    bytes
        RGB without metadata; equal stores give equal bytes.

    Raises
    ------
    InputError
        If there is no segmentation of that name, or `side_px` is too small.
    UnreadableChunkError
        If a chunk that should be shown is damaged.
    """
    if side_px < _SMALLEST_SIDE_PX:
        raise InputError(f"side_px={side_px}, expected at least {_SMALLEST_SIDE_PX}; less shows nothing.")
    location = store.resolve_location(location)
    record = read_record(location, name)
    if record is None:
        raise InputError(f"{location} holds no segmentation labels/{name}; make one first: segment-slide segment.")
    base = describe_image(store.join(location, label_group(name)))
    labels = Layer(base, {"t": 0, "z": base.size("z") // 2})
    image = find_image(location, record.input or SegmentedInput(), labels)
    layers = [labels] if image is None else [image, labels]
    frame: Frame = {axis: (0.0, float(base.size(axis))) for axis in "yx"}
    for layer in layers:
        frame = crop(frame, layer.choose_level(frame, side_px), base)
    size = panel_size(base, frame, side_px)
    classes = sample(labels, frame, size, side_px)
    colours, names = read_key(base, record, classes)
    um = pixel_um(base, "x")
    page = Page(
        plain=None if image is None else render(image, frame, size, side_px),
        classes=classes,
        colours=colours,
        names=names,
        captions=(
            "" if image is None else "image" + say_where(image, frame),
            (name if classes.any() else f"{name}: nothing found") + say_where(labels, frame),
        ),
        panel_um=None if um is None else um * (frame["x"][1] - frame["x"][0]),
    )
    return draw_page(page)


def find_image(
    location: str,
    recorded: SegmentedInput,
    labels: Layer,
    notes: list[str] | None = None,
    named: str | None = None,
) -> Layer | None:
    """The image that was segmented, or None if it is not used; in place it is the store itself.

    Parameters
    ----------
    location : str
        The output.
    recorded : SegmentedInput
        What its record says of the image; see `pipeline.recorded`.
    labels : Layer
        What is drawn over it.
    notes : list of str, optional
        Gains a sentence if an image may be there, but is not used.
    named : str, optional
        The image that the user named; it is used instead, if it has the size of the labels.
    """
    try:
        if named is not None:
            image = describe_image(named, level=recorded.level or 0)
        elif holds_image(location):
            image = describe_image(location, level=recorded.level or 0)
        else:
            image = open_recorded(recorded, location)
    except (NotNamedError, OtherImageError) as error:
        log.info("%s", error)
        if notes is not None and str(error) not in notes:
            notes.append(str(error))
        return None
    except PipelineError:
        return None
    first = {axis: start for axis, (start, _) in recorded.planes.items()}
    plane = {axis: first.get(axis, 0) + labels.plane[axis] for axis in "tz"}
    fits = all(image.size(axis) == labels.base.size(axis) for axis in "yx")
    if not fits or any(plane[axis] >= image.size(axis) for axis in "tz"):
        return None
    n_channels = image.size("c")
    chosen = [c for c in recorded.channels or range(n_channels) if c < n_channels]
    return Layer(image, plane, tuple(chosen[:_SHOWN_CHANNELS]) or (0,))


def say_where(layer: Layer, frame: Frame) -> str:
    """Say which plane and which part is shown, if there is more; the text begins with a comma."""
    base = layer.base
    said = [f"{axis} = {layer.plane[axis]} of 0–{base.size(axis) - 1}" for axis in "tz" if base.size(axis) > 1]
    width, height = (round(frame[axis][1] - frame[axis][0]) for axis in "xy")
    if (width, height) != (base.size("x"), base.size("y")):
        said.append(f"central {width:,} × {height:,} of {base.size('x'):,} × {base.size('y'):,} px")
    return "".join(f", {part}" for part in said)


def panel_size(base: StoredImage, frame: Frame, side_px: int) -> tuple[int, int]:
    """Height and width (px) of a panel: in the specimen's proportions if pixel sizes are known, else in the pixels'."""
    height, width = (stop - start for start, stop in (frame["y"], frame["x"]))
    step_y, step_x = (pixel_um(base, axis) for axis in "yx")
    if step_y and step_x:
        height, width = height * step_y, width * step_x
    longer = max(height, width)
    rows, columns = (max(_NARROWEST_PX, round(side_px * side / longer)) for side in (height, width))
    return rows, columns


def sample(labels: Layer, frame: Frame, size: tuple[int, int], side_px: int) -> np.ndarray:
    """Label values (y, x) at the panel's pixels: each takes the label pixel in which its centre lies."""
    level = labels.choose_level(frame, side_px)
    box, picks = {}, []
    for axis, n in zip("yx", size, strict=True):
        start, stop = (edge(place, level, labels.base, axis) for place in frame[axis])
        centres = start + (np.arange(n) + 0.5) * (stop - start) / n
        nearest = np.clip(np.floor(centres).astype(int), 0, level.size(axis) - 1)
        box[axis] = slice(int(nearest[0]), int(nearest[-1]) + 1)
        picks.append(nearest - nearest[0])
    return labels.read(level, box)[0][np.ix_(*picks)]


def render(image: Layer, frame: Frame, size: tuple[int, int], side_px: int) -> np.ndarray:
    """Draw the image (y, x, 3) at the size of the panel, its channels stretched and mixed."""
    level = image.choose_level(frame, side_px)
    box, edges = {}, {}
    for axis in "yx":
        start, stop = (edge(place, level, image.base, axis) for place in frame[axis])
        first, last = max(0, math.floor(start)), min(level.size(axis), math.ceil(stop))
        box[axis], edges[axis] = slice(first, last), (start - first, stop - first)
    channels = image.read(level, box)
    colours, is_photo = _channel_colours(image)
    ends = [find_ends(channel) for channel in channels]
    if is_photo:
        ends = [(min(0.0, *(low for low, _ in ends)), max(high for _, high in ends))] * len(ends)
    grey = [stretch(channel, *end) for channel, end in zip(channels, ends, strict=True)]
    return mix([resize(channel, size, edges["y"], edges["x"]) for channel in grey], colours)


def _channel_colours(image: Layer) -> tuple[list[Colour], bool]:
    """Colour of each shown channel, and whether they are a colour photograph's."""
    if len(image.channels) == 1:
        return [(255, 255, 255)], False
    stored = _stored_colours(image)
    if len(set(stored)) == len(image.channels):
        return stored, stored == _RGB
    is_photo = len(image.channels) == image.base.size("c") == len(_RGB) and image.base.dtype == "uint8"
    return (_TWO if len(image.channels) == len(_TWO) else _RGB), is_photo


def _stored_colours(image: Layer) -> list[Colour]:
    """Colours of the shown channels from the "omero" block; empty if it has none."""
    attributes = store.read_attributes(image.base.location) if image.base.is_ome else None
    try:
        content: Any = (attributes or {}).get("ome", attributes)
        described = [str(content["omero"]["channels"][c]["color"]) for c in image.channels]
        return [tuple(bytes.fromhex(text[:6])) for text in described]
    except (AttributeError, LookupError, TypeError, ValueError):
        return []


def read_key(
    base: StoredImage, record: SegmentationRecord | None, classes: np.ndarray
) -> tuple[dict[int, Colour], dict[int, str]]:
    """Colours of the label values that are shown or named, and names: the record's, else those of a few values."""
    names = dict(enumerate(record.classes if record else ()))
    names.pop(0, None)
    values = [int(value) for value in np.unique(classes) if value]
    if len(values) <= _MAX_NAMED:
        names |= {value: f"class {value}" for value in values if value not in names}
    colours = {value: tuple(bytes.fromhex(colour_of(value)[1:])) for value in {*values, *names}}
    colours |= {value: rgb for value, rgb in _label_colours(base.location).items() if value in colours}
    return colours, dict(sorted(names.items())[:_MAX_NAMED])


def _label_colours(location: str) -> dict[int, Colour]:
    """Colours that the metadata of a label image give to values; what is no colour is left out."""
    label = read_ome(location).get("image-label")
    listed = label.get("colors") if isinstance(label, dict) else None
    found: dict[int, Colour] = {}
    for item in listed if isinstance(listed, list) else ():
        value, rgba = (item.get("label-value"), item.get("rgba")) if isinstance(item, dict) else (None, None)
        parts = [part for part in rgba if type(part) is int and 0 <= part <= 255] if isinstance(rgba, list) else []
        if type(value) is int and len(parts) >= 3 and parts == rgba:
            found[value] = (rgba[0], rgba[1], rgba[2])
    return found
