"""How an image's channels are shown at first: colours, names and intensities, from its metadata or a coarse level."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline import store
from pipeline.image import StoredImage
from pipeline.thumbnail_layer import Frame, Layer
from pipeline.thumbnail_page import find_ends

_SIDE_PX = 512  # of the coarse level that intensities are looked at in
_WIDEST_PX = 2048  # of what is read of it: without a pyramid the coarsest level is the finest
_MOST_VISIBLE = 4  # channels at first: more do not mix to colours that can be told apart
_MOST_MEASURED = 16  # channels whose intensities are looked at; others span those of the first
_PALETTES = {1: ("ffffff",), 2: ("00ff00", "ff00ff"), 3: ("ff0000", "00ff00", "0000ff")}
_MANY = ("0000ff", "00ff00", "ff0000", "00ffff", "ff00ff", "ffff00")  # beginning with blue: DAPI comes first
_PRIMARIES = ["ff0000", "00ff00", "0000ff"]
_BRIGHT = 128  # median of a photograph from which it is taken for one of transmitted light


@dataclass(frozen=True)
class Channel:
    """One channel.

    Attributes
    ----------
    index : int
        Along c.
    name : str
        For people.
    colour : str
        As "#00ff00".
    low, high : float
        Intensities that are shown as black and as full colour.
    is_visible : bool
        At first.
    """

    index: int
    name: str
    colour: str
    low: float
    high: float
    is_visible: bool


@dataclass(frozen=True)
class Look:
    """An image: a photograph in one layer if `is_rgb`, else by channels; `is_bright` asks for white around it."""

    is_rgb: bool
    is_bright: bool
    channels: tuple[Channel, ...]


def look_at(image: StoredImage, plane: Mapping[str, int]) -> Look:
    """Decide how an image is shown; reads one coarse level of the plane.

    Parameters
    ----------
    image : StoredImage
        Its finest level.
    plane : mapping of str to int
        Which t and z.

    Raises
    ------
    UnreadableChunkError
        If what is read is damaged.
    """
    n_channels = image.size("c")
    described = read_omero(image)
    described = described if len(described) == n_channels else [{}] * n_channels
    stored = [_stored_colour(item) for item in described]
    pixels = _read_coarse(image, plane)
    is_photo = image.dtype == "uint8" and n_channels == 3 and (stored == _PRIMARIES or None in stored)
    inner = dict(zip(image.axes, image.inner_chunks or image.chunks, strict=True))
    is_bright = is_photo and float(np.median(pixels)) >= _BRIGHT
    if is_photo and inner["c"] == n_channels:
        return Look(True, is_bright, ())
    colours = _choose_colours(stored)
    active = [index for index, item in enumerate(described) if item.get("active", True)] or [0]
    channels = []
    for index, item in enumerate(described):
        low, high = (0.0, 255.0) if is_photo else _choose_window(item, pixels[min(index, len(pixels) - 1)], image.dtype)
        name = str(item.get("label") or "").strip() or (f"channel {index}" if n_channels > 1 else "image")
        shown = index in active[:_MOST_VISIBLE]
        channels.append(Channel(index, name, f"#{colours[index]}", low, high, shown))
    return Look(False, False, tuple(channels))


def read_omero(image: StoredImage) -> list[dict[str, Any]]:
    """What the "omero" block says of each channel; empty if there is none, or it is not one."""
    attributes: Any = (store.read_attributes(image.location) or {}) if image.is_ome else {}
    content = attributes.get("ome", attributes)
    omero = content.get("omero") if isinstance(content, dict) else None
    channels = omero.get("channels") if isinstance(omero, dict) else None
    return [item if isinstance(item, dict) else {} for item in channels] if isinstance(channels, list) else []


def _stored_colour(described: Mapping[str, Any]) -> str | None:
    text = str(described.get("color", "")).removeprefix("#").lower()[:6]
    return text if len(text) == 6 and set(text) <= set("0123456789abcdef") else None


def _choose_colours(stored: list[str | None]) -> list[str]:
    """The stored ones if they tell channels apart; one channel is grey."""
    if len(stored) == 1:
        return list(_PALETTES[1])
    known = [colour for colour in stored if colour]
    if len(known) == len(stored) and len(set(known)) > 1:
        return known
    palette = _PALETTES.get(len(stored), _MANY)
    return [palette[index % len(palette)] for index in range(len(stored))]


def _choose_window(described: Mapping[str, Any], pixels: np.ndarray, dtype: str) -> tuple[float, float]:
    """The stored window, unless it spans all that the type can hold; else percentiles of the pixels."""
    window = described.get("window")
    window = window if isinstance(window, dict) else {}
    low, high = (_number(window.get(end)) for end in ("start", "end"))
    if low < high:
        limits = np.iinfo(dtype) if np.dtype(dtype).kind in "ui" else None
        if limits is None or not (low <= limits.min and high >= limits.max):
            return low, high
    low, high = find_ends(pixels)
    return (low, high) if low < high else (min(low, 0.0), max(high, 1.0) if high <= 0 else high)


def _number(value: object) -> float:
    """A finite number, or NaN for what is none: any JSON may stand there."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else math.nan


def _read_coarse(image: StoredImage, plane: Mapping[str, int]) -> np.ndarray:
    """Pixels (c, y, x) of a coarse level; where that is large, of its centre."""
    chosen = tuple(range(min(image.size("c"), _MOST_MEASURED)))
    layer = Layer(image, {axis: plane.get(axis, 0) for axis in "tz"}, chosen)
    whole: Frame = {axis: (0.0, float(image.size(axis))) for axis in "yx"}
    level = layer.choose_level(whole, _SIDE_PX)
    sides = {axis: min(level.size(axis), _WIDEST_PX) for axis in "yx"}
    starts = {axis: (level.size(axis) - side) // 2 for axis, side in sides.items()}
    return layer.read(level, {axis: slice(starts[axis], starts[axis] + sides[axis]) for axis in "yx"})
