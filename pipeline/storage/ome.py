"""OME-Zarr metadata as dictionaries in and out; touches no store.

Reads 0.1 to 0.5 (https://ngff.openmicroscopy.org/0.5/), writes 0.5 with the writers of `ome-zarr`. Voxel k of an axis
has its centre at ``k * scale + translation``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, nan
from typing import Any

from segment_slide.pipeline.errors import InputError
from segment_slide.pipeline.metadata.colours import class_colour
from segment_slide.pipeline.metadata.json_text import describe
from segment_slide.pipeline.metadata.ome_axes import read_axes, read_version
from segment_slide.pipeline.metadata.ome_writers import write_image_label, write_multiscale
from segment_slide.pipeline.metadata.paths import stays_below
from segment_slide.pipeline.metadata.units import to_ngff

VERSION = "0.5"
AXIS_TYPES = {"t": "time", "c": "channel", "z": "space", "y": "space", "x": "space"}
MOST_LEVELS = 100  # an image halved 64 times has one pixel
MOST_CHANNELS = 10_000  # the largest spectral images have some thousand
AXIS_ORDER = "tczyx"  # the only order that OME-Zarr 0.4 and 0.5 allow


@dataclass(frozen=True)
class Level:
    """One resolution: its array's path in the group, and where its voxels lie.

    `scale` and `translation` have one entry per axis, in the axis' unit (1.0 and 0.0 where unknown; a scale of 0.0
    where the file states one that is no number).
    """

    path: str
    scale: tuple[float, ...]
    translation: tuple[float, ...]


@dataclass(frozen=True)
class Multiscale:
    """An image at several resolutions.

    Attributes
    ----------
    axes : str
        One letter per axis out of "tczyx".
    units : tuple of (str or None)
        Unit per axis, e.g. "micrometer".
    levels : tuple of Level
        Finest first.
    name : str
        Name for people.
    channel_names : tuple of str
        From the "omero" block; may be empty.
    notes : tuple of str
        What the metadata say and is not used.
    """

    axes: str
    units: tuple[str | None, ...]
    levels: tuple[Level, ...]
    name: str = ""
    channel_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def parse_multiscale(attributes: Mapping[str, Any], where: str) -> Multiscale | None:
    """The first multiscale image that a group's attributes describe, or None if they describe none.

    Parameters
    ----------
    attributes : mapping
        Attributes of the Zarr group, as stored.
    where : str
        The group's path, for messages.

    Raises
    ------
    InputError
        If the metadata are damaged, or the version or an axis is not one this package reads.
    """
    try:
        ome = {**attributes, **(attributes.get("ome") or {})}  # before 0.5 there is no "ome", and some leave it out
        return _parse(ome, where) if ome.get("multiscales") else None
    except InputError:
        raise
    except (AttributeError, LookupError, OverflowError, TypeError, ValueError) as error:  # the metadata may be any JSON
        why = f"{type(error).__name__}: {error!s:.200}"
        raise InputError(f"{where}: OME-Zarr metadata are damaged ({why}); expected version {VERSION}.") from error


def _parse(ome: Mapping[str, Any], where: str) -> Multiscale:
    content = ome["multiscales"][0]
    _expect_few("datasets", content["datasets"], MOST_LEVELS, where)
    channels = (ome.get("omero") or {}).get("channels") or ()
    _expect_few("channels", channels, MOST_CHANNELS, where)
    axes, units = read_axes(content, read_version(ome, content, where), where)
    check_axes(axes, where)
    base = _transform(content.get("coordinateTransformations") or (), len(axes))
    levels = _forget_impossible([_parse_level(dataset, base) for dataset in content["datasets"]])
    stated = [content, *content["datasets"]]
    if not levels:
        raise ValueError("no datasets")
    return Multiscale(
        axes=axes,
        units=units,
        levels=levels,
        name=str(content.get("name", "")),
        channel_names=tuple(
            str(index if channel.get("label") is None else channel["label"]) for index, channel in enumerate(channels)
        ),
        notes=_note_unused([item for place in stated for item in place.get("coordinateTransformations") or ()], axes),
    )


def _expect_few(what: str, values: Any, most: int, where: str) -> None:
    """Refuse a list that is longer than any real one: it would be memory and time for nothing."""
    if not isinstance(values, list | tuple) or len(values) > most:
        is_list = isinstance(values, list | tuple)
        found = f"a list of {len(values):,}" if is_list else describe(values)
        raise InputError(f"{where}: {what} is {found}, expected a list of at most {most:,}.")


def _parse_level(dataset: Mapping[str, Any], base: tuple[tuple[float, ...], tuple[float, ...]]) -> Level:
    """One level; the group's transformations are applied after its own."""
    scale, translation = _transform(dataset.get("coordinateTransformations") or (), len(base[0]))
    path = str(dataset["path"])
    if not stays_below(path):
        raise ValueError(f"path {path!r:.60} leads out of the image")
    return Level(
        path="/".join(part for part in path.split("/") if part not in ("", ".")),
        scale=tuple(a * b for a, b in zip(scale, base[0], strict=True)),
        translation=tuple(t * s + b for t, s, b in zip(translation, *base, strict=True)),
    )


def _forget_impossible(levels: Sequence[Level]) -> tuple[Level, ...]:
    """The levels with 0 for all scales of an axis, which is "not known", where one of its values is no number."""
    values = [*(level.scale for level in levels), *(level.translation for level in levels)]
    is_known = [all(map(isfinite, of_axis)) for of_axis in zip(*values, strict=True)]

    def forget(values: tuple[float, ...]) -> tuple[float, ...]:
        return tuple(value if known else 0.0 for value, known in zip(values, is_known, strict=True))

    return tuple(Level(level.path, forget(level.scale), forget(level.translation)) for level in levels)


def check_axes(axes: str, where: str) -> None:
    """Refuse axes that are not distinct letters of "tczyx" with y and x among them.

    Raises
    ------
    InputError
        Naming the axes.
    """
    if set(axes) - set(AXIS_ORDER) or len(set(axes)) != len(axes) or not {"y", "x"} <= set(axes):
        raise InputError(
            f"{where}: axes={axes!r}, expected distinct letters of 'tczyx' with y and x, one per dimension, "
            f"for example `axes='yx'`, cyx or zyx."
        )


def multiscale_attributes(multiscale: Multiscale, channels: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """The "ome" attribute of a group that holds this image; `channels` are those of its "omero" block.

    >>> image = Multiscale("yx", (None, None), (Level("0", (1.0, 1.0), (0.0, 0.0)),))
    >>> multiscale_attributes(image)["multiscales"][0]["axes"][0]
    {'name': 'y', 'type': 'space'}
    """
    axes = []
    for name, unit in zip(multiscale.axes, multiscale.units, strict=True):
        axis = {"name": name, "type": AXIS_TYPES[name]}
        axes.append({**axis, "unit": unit} if unit else axis)
    datasets = [
        {
            "path": level.path,
            "coordinateTransformations": [
                {"type": "scale", "scale": list(level.scale)},
                {"type": "translation", "translation": list(level.translation)},
            ],
        }
        for level in multiscale.levels
    ]
    return write_multiscale(multiscale.name, axes, datasets, channels)


def in_ngff(axis: str, unit: str | None, step: float, start: float) -> tuple[str | None, float, float]:
    """Unit, scale and translation of an axis as we write them: in a unit that OME-Zarr names, or in none.

    >>> in_ngff("x", "um", 0.5, 0.0), in_ngff("x", "thou", 2.0, 1.0), in_ngff("x", "furlong", 2.0, 1.0)
    (('micrometer', 0.5, 0.0), ('micrometer', 50.8, 25.4), (None, 2.0, 1.0))
    """
    named = None if axis == "c" else to_ngff(unit, "time" if axis == "t" else "space")
    if not step:  # it is not known
        return None, 1.0, 0.0
    name, factor = named or (None, 1.0)
    return name, step * factor, start * factor


def label_attributes(multiscale: Multiscale, classes: Sequence[str] = ()) -> dict[str, Any]:
    """The "ome" attribute of a label image; `classes` name the label values from 0.

    For classes, each value gets a colour, and its name as a property. For objects, the viewer chooses colours.
    """
    properties = [{"label-value": value, "class": name} for value, name in enumerate(classes)]
    colors = [
        {"label-value": value, "rgba": [*class_colour(value), 255] if value else [0, 0, 0, 0]}
        for value in range(len(classes))
    ]
    label = write_image_label({"image": "../../"}, properties, colors)
    return {**multiscale_attributes(multiscale), "image-label": label}


def _transform(
    transformations: Sequence[Mapping[str, Any]], n_axes: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(scale, translation) of a list of coordinate transformations, applied in order; identity where absent.

    What is more than a scale and a translation makes the scale NaN.
    """
    scale, translation = (1.0,) * n_axes, (0.0,) * n_axes
    for item in transformations:
        step, start = _scale_and_translation(item, n_axes)
        if len(step) != n_axes or len(start) != n_axes:
            raise ValueError(f"scale {step} and translation {start} for {n_axes} axes")
        scale = tuple(a * b for a, b in zip(scale, step, strict=True))
        translation = tuple(t * s + b for t, s, b in zip(translation, step, start, strict=True))
    return scale, translation


def _scale_and_translation(item: Mapping[str, Any], n_axes: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    kind, ones, zeros = item["type"], (1.0,) * n_axes, (0.0,) * n_axes
    if kind == "scale" and "scale" in item:
        return tuple(map(float, item["scale"])), zeros
    if kind == "translation" and "translation" in item:
        return ones, tuple(map(float, item["translation"]))
    if kind == "sequence":
        return _transform(item["transformations"], n_axes)
    if kind == "affine" and (diagonal := _diagonal(item.get("affine"), n_axes)):
        return diagonal
    return (ones if kind == "identity" else (nan,) * n_axes), zeros


def _diagonal(matrix: Any, n_axes: int) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """(scale, translation) of an affine matrix that is no more than these; None if it is."""
    rows = [list(map(float, row)) for row in matrix or ()][:n_axes]  # some write the row of 0, 0, …, 1 below
    if len(rows) != n_axes or any(len(row) != n_axes + 1 for row in rows):
        return None
    if any(value for at, row in enumerate(rows) for other, value in enumerate(row[:-1]) if at != other):
        return None
    return tuple(row[at] for at, row in enumerate(rows)), tuple(row[-1] for row in rows)


def _note_unused(transformations: Sequence[Mapping[str, Any]], axes: str) -> tuple[str, ...]:
    """Say which transformations change the image in a way that is not used."""
    notes = []
    for item in transformations:
        scale, _ = _transform([item], len(axes))
        values = item.get("scale") if item["type"] == "scale" else None
        if values is None and not all(map(isfinite, scale)):
            notes.append(
                f"file says a coordinate transformation of type {str(item['type'])!r:.40} that is no plain scale or "
                f"translation; not used, so the size of a pixel is not known"
            )
    return tuple(dict.fromkeys(notes))


def within(multiscale: Multiscale, folder: str) -> Multiscale:
    """The same image seen from a group above: its level paths gain a folder."""
    levels = tuple(Level(f"{folder}/{level.path}", level.scale, level.translation) for level in multiscale.levels)
    return Multiscale(multiscale.axes, multiscale.units, levels, multiscale.name, multiscale.channel_names)
