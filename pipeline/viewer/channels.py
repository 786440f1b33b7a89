"""How an image's channels look at first: colours, names and intensities, from metadata or a coarse level."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from segment_slide.pipeline.errors import UnreadableChunkError
from segment_slide.pipeline.pictures.layer import Frame, Layer
from segment_slide.pipeline.pictures.paint import find_ends
from segment_slide.pipeline.storage.image import StoredImage
from segment_slide.pipeline.viewer.metadata import as_mapping, as_number, read_content

_SIDE_PX = 512  # side of the coarse level whose intensities are measured
_WIDEST_PX = 2048  # largest side that is read of it: without a pyramid the coarsest level is the full image
MOST_LAYERS = 32  # channels that a browser gets: each one is a separate program on the graphics card
_MOST_VISIBLE = 4  # channels visible at first: the colours of more cannot be told apart once they are mixed
_MOST_MEASURED = 16  # channels whose intensities are measured; the others use the range of the first one
_PALETTES = {1: ("ffffff",), 2: ("00ff00", "ff00ff"), 3: ("ff0000", "00ff00", "0000ff")}
_MANY = ("0000ff", "00ff00", "ff0000", "00ffff", "ff00ff", "ffff00")  # blue first: DAPI is often channel 0
_PRIMARIES = ["ff0000", "00ff00", "0000ff"]
_BRIGHT = 128  # median intensity of a colour photograph at or above which it counts as transmitted light


@dataclass(frozen=True)
class Channel:
    """One channel of an image.

    Attributes
    ----------
    index : int
        Index along c.
    name : str
        Name for people.
    colour : str
        Colour, such as "#00ff00".
    low, high : float
        Intensities that are shown as black and as full colour.
    is_visible : bool
        Whether it is visible at first.
    """

    index: int
    name: str
    colour: str
    low: float
    high: float
    is_visible: bool


@dataclass(frozen=True)
class Look:
    """How an image is shown.

    Attributes
    ----------
    is_rgb : bool
        Whether it is a photograph: its first three channels make one layer, below the layers of `channels`.
    is_bright : bool
        Whether the background around it should be white.
    channels : tuple of Channel
        The channels that have a layer each.
    notes : tuple of str
        What is left out, or could not be read.
    """

    is_rgb: bool
    is_bright: bool
    channels: tuple[Channel, ...]
    notes: tuple[str, ...] = ()


def look_at(image: StoredImage, plane: Mapping[str, int]) -> Look:
    """Decide how an image is shown. This reads one coarse level of the plane.

    If that level is damaged, its intensities cannot be measured. The window in the metadata is used then, or the full
    range of the data type.

    Parameters
    ----------
    image : StoredImage
        The image's finest level.
    plane : mapping of str to int
        The t and z to show.
    """
    n_channels, notes = image.size("c"), []
    described = read_omero(image)
    described = described if len(described) == n_channels else [{}] * n_channels
    stored = [_stored_colour(item) for item in described]
    pixels: np.ndarray | None = None
    try:
        pixels = _read_coarse(image, plane)
    except UnreadableChunkError as error:
        notes.append(f"Intensities are shown in the range of the metadata, or else of the data type: {error}")
    is_photo = np.dtype(image.dtype).name == "uint8" and (
        (n_channels == 3 and (stored == _PRIMARIES or None in stored)) or (n_channels == 4 and not any(stored))
    )
    inner = dict(zip(image.axes, image.inner_chunks or image.chunks, strict=True))
    is_rgb = is_photo and inner["c"] == n_channels
    if is_photo and n_channels == 4:  # the fourth channel is opacity
        stored, described = [*_PRIMARIES, "ffffff"], [*described[:3], {"label": "opacity", **described[3], "active": 0}]
    channels = [
        replace(channel, low=0.0, high=255.0) if is_photo else channel
        for channel in _describe_channels(image, described, stored, pixels)
    ]
    is_bright = is_photo and pixels is not None and float(np.median(pixels[:3])) >= _BRIGHT
    if is_rgb:
        return Look(True, is_bright, tuple(channels[3:]), tuple(notes))
    kept = sorted(channels, key=lambda channel: not channel.is_visible)[:MOST_LAYERS]
    if len(kept) < len(channels):
        notes.append(
            f"Of {len(channels)} channels {len(kept)} are shown. To see the others, name an image with fewer channels."
        )
    return Look(False, False, tuple(sorted(kept, key=lambda channel: channel.index)), tuple(notes))


def _describe_channels(
    image: StoredImage, described: list[dict[str, Any]], stored: list[str | None], pixels: np.ndarray | None
) -> list[Channel]:
    """Describe all channels; the first four active ones are visible."""
    colours = _choose_colours(stored)
    active = [index for index, item in enumerate(described) if item.get("active", True)] or [0]
    channels = []
    for index, item in enumerate(described):
        measured = None if pixels is None else pixels[min(index, len(pixels) - 1)]
        low, high = _choose_window(item, measured, image.dtype)
        name = str(item.get("label") or "").strip() or (f"channel {index}" if len(described) > 1 else "image")
        shown = index in active[:_MOST_VISIBLE]
        channels.append(Channel(index, name, f"#{colours[index]}", low, high, shown))
    return channels


def read_omero(image: StoredImage) -> list[dict[str, Any]]:
    """Return what the "omero" block says of each channel; empty if there is no valid block."""
    omero = as_mapping(read_content(image.location).get("omero")) if image.is_ome else {}
    channels = omero.get("channels")
    return [as_mapping(item) for item in channels] if isinstance(channels, list) else []


def _stored_colour(described: Mapping[str, Any]) -> str | None:
    text = str(described.get("color", "")).removeprefix("#").lower()[:6]
    return text if len(text) == 6 and set(text) <= set("0123456789abcdef") else None


def _choose_colours(stored: list[str | None]) -> list[str]:
    """Return the stored colours if all of them differ, else default ones; a single channel is grey."""
    if len(stored) == 1:
        return list(_PALETTES[1])
    known = [colour for colour in stored if colour]
    if len(known) == len(stored) and len(set(known)) > 1:
        return known
    palette = _PALETTES.get(len(stored), _MANY)
    return [palette[index % len(palette)] for index in range(len(stored))]


def limits_of(dtype: str) -> tuple[float, float]:
    """Range of a data type. For floats it is a part of the range, so that the viewer can calculate with both ends.

    >>> limits_of("uint8"), limits_of("int16")
    ((0.0, 255.0), (-32768.0, 32767.0))
    """
    if np.dtype(dtype).kind in "ui":
        return float(np.iinfo(dtype).min), float(np.iinfo(dtype).max)
    most = float(np.finfo(np.float32).max) / 4
    return -most, most


def _choose_window(described: Mapping[str, Any], pixels: np.ndarray | None, dtype: str) -> tuple[float, float]:
    """Return the stored window, unless it is the type's full range; else percentiles of the pixels."""
    window = as_mapping(described.get("window"))
    least, most = limits_of(dtype)
    low, high = (min(max(as_number(window.get(end)), least), most) for end in ("start", "end"))
    whole = (least, most) if np.dtype(dtype).kind in "ui" else (0.0, 1.0)
    if low < high and (low, high) != (least, most):
        return low, high
    if pixels is None:
        return whole
    low, high = (min(max(end, least), most) for end in find_ends(pixels))
    low, high = (low, high) if low < high else (min(low, 0.0), max(high, 1.0) if high <= 0 else high)
    return (low, high) if low < high else whole


def _read_coarse(image: StoredImage, plane: Mapping[str, int]) -> np.ndarray:
    """Read the pixels (c, y, x) of a coarse level; if that level is large, only its centre."""
    chosen = tuple(range(min(image.size("c"), _MOST_MEASURED)))
    layer = Layer(image, {axis: plane.get(axis, 0) for axis in "tz"}, chosen)
    whole: Frame = {axis: (0.0, float(image.size(axis))) for axis in "yx"}
    level = layer.choose_level(whole, _SIDE_PX)
    sides = {axis: min(level.size(axis), _WIDEST_PX) for axis in "yx"}
    starts = {axis: (level.size(axis) - side) // 2 for axis, side in sides.items()}
    return layer.read(level, {axis: slice(starts[axis], starts[axis] + sides[axis]) for axis in "yx"})
