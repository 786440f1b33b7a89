"""Versions and axes of OME-Zarr images, as programs of all years have written them."""

import re
from collections.abc import Mapping
from typing import Any

from segment_slide.pipeline.errors import InputError

READABLE_VERSIONS = ("0.1", "0.2", "0.3", "0.4", "0.5")
_ALWAYS_5D = ("0.1", "0.2")  # these versions do not say their axes, which are always t, c, z, y and x
_VERSION = re.compile(r"0\.[0-9]+(?![0-9])")
_WORDS = {
    "time": "t", "frame": "t", "timepoint": "t", "channel": "c", "channels": "c", "ch": "c",
    "depth": "z", "height": "y", "row": "y", "width": "x", "column": "x",
}  # fmt: skip
_TYPES = {"time": "t", "channel": "c"}


def read_version(ome: Mapping[str, Any], content: Mapping[str, Any], where: str) -> str | None:
    """The version of an image's metadata, such as "0.4"; None if they do not say it.

    Parameters
    ----------
    ome, content : mapping
        The group's metadata, and its first multiscale image, which holds the version before 0.5.
    where : str
        The group's path, for messages.

    Raises
    ------
    InputError
        If it is a version that is not read.

    Examples
    --------
    >>> read_version({"version": "0.5"}, {}, ""), read_version({}, {"version": "0.4.1"}, ""), read_version({}, {}, "")
    ('0.5', '0.4', None)
    """
    stated = ome.get("version") or content.get("version")
    if stated is None:
        return None
    found = _VERSION.match(str(stated))
    if found is None or found[0] not in READABLE_VERSIONS:
        level = content["datasets"][0]["path"] if content.get("datasets") else "0"
        raise InputError(
            f"{where}: OME-Zarr version {stated}, expected one of {READABLE_VERSIONS}. Convert it, or name the "
            f"level's array itself (for example {where}/{level}) and its `axes`."
        )
    return found[0]


def read_axes(content: Mapping[str, Any], version: str | None, where: str) -> tuple[str, tuple[str | None, ...]]:
    """Letters and units of an image's axes.

    Parameters
    ----------
    content : mapping
        The multiscale image. From version 0.4 on, an axis is an object; in 0.3 it is a name; before, there is none.
    version : str or None
        Its version, if it is known.
    where : str
        The group's path, for messages.

    Raises
    ------
    InputError
        If an axis is none of t, c, z, y and x, or its name says another one than its type.
    ValueError
        If there are no axes.

    Examples
    --------
    >>> read_axes({"axes": [{"name": "channel", "type": "channel"}, {"name": "Y"}, {"name": "X"}]}, "0.4", "")
    ('cyx', (None, None, None))
    >>> read_axes({"axes": ["z", "y", "x"]}, "0.3", ""), read_axes({}, "0.1", "")
    (('zyx', (None, None, None)), ('tczyx', (None, None, None, None, None)))
    """
    stated = content.get("axes")
    if stated is None and version in _ALWAYS_5D:
        stated = list("tczyx")
    if not stated:
        raise ValueError("no axes")
    axes = [{"name": axis} if isinstance(axis, str) else axis for axis in stated]
    letters = "".join(_letter(str(axis["name"]), axis.get("type"), where) for axis in axes)
    return letters, tuple(axis.get("unit") for axis in axes)


def _letter(name: str, kind: object, where: str) -> str:
    lower = name.strip().lower()
    by_name = lower if lower in tuple("tczyx") else _WORDS.get(lower, "")
    by_type = _TYPES.get(str(kind).lower(), "")
    if by_name and by_type and by_name != by_type:
        raise InputError(f"{where}: axis {name!r} has the type {kind!r}, so it may be {by_name} or {by_type}.")
    if not (by_name or by_type):
        raise InputError(
            f"{where}: axis {name!r} is none of t, c, z, y and x. Name the level's array itself, with its `axes`."
        )
    return by_name or by_type
