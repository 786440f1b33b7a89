"""Layers in the form of neuroglancer's state: JSON only, no store is read."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from segment_slide.pipeline.viewer.channels import Channel, limits_of

SHOWN_TYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32")  # as intensities
ID_TYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64")  # as labels
_CODECS = {"blosc", "bytes", "crc32c", "gzip", "sharding_indexed", "transpose", "zlib", "zstd"}

_RGB_SHADER = """void main() {
  emitRGB(vec3(toNormalized(getDataValue(0)), toNormalized(getDataValue(1)), toNormalized(getDataValue(2))));
}
"""
_CHANNEL_SHADER = """#uicontrol invlerp contrast
#uicontrol vec3 color color
void main() {
  float value = contrast();
  emitRGB(value >= 0.0 ? color * value : vec3(0.0));
}
"""
# NaN and infinity are found by their bits: a compiler may assume that they never occur and remove comparisons.
_REAL_CHANNEL_SHADER = """#uicontrol invlerp contrast
#uicontrol vec3 color color
void main() {
  bool isFinite = (floatBitsToUint(toRaw(getDataValue())) & 0x7f800000u) != 0x7f800000u;
  emitRGB(isFinite ? color * contrast() : vec3(0.0));
}
"""
# Viridis as polynomials, within 0.02 of the table; low probabilities are transparent.
_PROBABILITY_SHADER = """#uicontrol invlerp probability
void main() {
  float p = probability();
  if (!(p > 0.02)) { emitTransparent(); return; }
  vec3 c = vec3(-5.432, 4.642, 26.272);
  c = c * p + vec3(4.752, -13.749, -65.321);
  c = c * p + vec3(6.204, 14.154, 56.656);
  c = c * p + vec3(-4.600, -5.758, -19.292);
  c = c * p + vec3(-0.327, 0.215, 0.092);
  c = c * p + vec3(0.108, 1.396, 1.387);
  c = c * p + vec3(0.274, 0.006, 0.333);
  emitRGBA(vec4(clamp(c, 0.0, 1.0), min(1.0, 2.0 * p)));
}
"""


def rgb_layer(source: str) -> dict[str, Any]:
    """Layer of a colour photograph; its channel axis must be called "c^", otherwise it is shown in grey."""
    return {"type": "image", "name": "image", "source": source, "shader": _RGB_SHADER, "opacity": 1, "tab": "rendering"}


def channel_layer(source: str, channel: Channel, dtype: str, *, has_axis: bool) -> dict[str, Any]:
    """Layer of one channel; the colours of all channels are added.

    Parameters
    ----------
    source : str
        Address of the pixels.
    channel : Channel
        Colour, name and window.
    dtype : str
        Data type of the pixels, in any byte order; values of floats that are not finite are shown black.
    has_axis : bool
        Whether the image has a channel axis.
    """
    dtype = plain_type(dtype)
    span, (least, most) = channel.high - channel.low, limits_of(dtype)
    window = [max(least, channel.low - span / 2), min(most, channel.high + span)]
    shown = {"range": [channel.low, channel.high], "window": window}
    layer = {
        "type": "image",
        "name": channel.name,
        "source": source,
        "shader": _REAL_CHANNEL_SHADER if dtype == "float32" else _CHANNEL_SHADER,
        "shaderControls": {"contrast": shown, "color": channel.colour},
        "opacity": 1,
        "blend": "additive",
        "tab": "rendering",
        "visible": channel.is_visible,
    }
    return {**layer, **_at_channel(channel.index)} if has_axis else layer


def probability_layer(source: str, name: str, index: int, dtype: str, *, has_axis: bool = True) -> dict[str, Any]:
    """Layer of the probability of a class, as colours over the image; hidden at first."""
    full = 255 if plain_type(dtype) == "uint8" else 1
    layer = {
        "type": "image",
        "name": name,
        "source": source,
        "shader": _PROBABILITY_SHADER,
        "shaderControls": {"probability": {"range": [0, full], "window": [0, full]}},
        "opacity": 0.7,
        "blend": "default",
        "tab": "rendering",
        "visible": False,
    }
    return {**layer, **_at_channel(index)} if has_axis else layer


def label_layer(
    sources: Sequence[str],
    name: str,
    *,
    colours: Mapping[int, str],
    opacity: float,
    is_visible: bool,
    has_channels: bool = False,
    listed: str | None = None,
) -> dict[str, Any]:
    """Layer of labels over the image; 0 is transparent. Values without a colour get one that differs from neighbours'.

    `listed` is the measurement that gets a column in the list of objects.
    """
    layer: dict[str, Any] = {
        "type": "segmentation",
        "name": name,
        "source": list(sources) if len(sources) > 1 else sources[0],
        "selectedAlpha": opacity,
        "notSelectedAlpha": 0.12,
        "hideSegmentZero": True,
        "tab": "rendering" if listed is None else "segments",
        "visible": is_visible,
    }
    if colours:
        layer["segmentColors"] = {str(value): colour for value, colour in colours.items()}
    if listed is not None:
        layer["segmentQuery"] = f"|{listed}"
    return {**layer, **_at_channel(0)} if has_channels else layer


def _at_channel(index: int) -> dict[str, Any]:
    """Hold the axis that the viewer derives from "c" of type channel at one index."""
    return {"localDimensions": {"c'": [1, ""]}, "localPosition": [index]}


def plain_type(dtype: str) -> str:
    """Name of a data type without its byte order: the viewer reads both orders.

    >>> plain_type(">u2"), plain_type("uint16")
    ('uint16', 'uint16')
    """
    return np.dtype(dtype).name


def unsupported_codecs(metadata: Mapping[str, Any]) -> set[str]:
    """Names of an array's codecs that the viewer cannot decode.

    >>> unsupported_codecs({"compressor": {"id": "lz4"}, "filters": None})
    {'lz4'}
    """
    return _name_codecs(metadata) - _CODECS


def _name_codecs(metadata: Mapping[str, Any]) -> set[str]:
    found = set()
    described = [metadata.get("compressor"), *(metadata.get("filters") or ())]
    for item in [*(item for item in described if item), *(metadata.get("codecs") or ())]:
        found.add(str(item.get("id") or item.get("name")))
        found |= _name_codecs(item.get("configuration") or {})
    return found
