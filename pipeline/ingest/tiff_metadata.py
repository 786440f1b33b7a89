"""Pixel sizes and channel names of a TIFF, from the most specific source that it has, down to its resolution tags."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import tifffile

from segment_slide.pipeline.ingest.tiff_dialects import read_dialects
from segment_slide.pipeline.ingest.tiff_ome import OmeFile, describe_series
from segment_slide.pipeline.metadata.calibration import Calibration, calibration_of
from segment_slide.pipeline.metadata.numbers import Size, parse_number, read_size
from segment_slide.pipeline.metadata.units import is_no_unit, um_per
from segment_slide.pipeline.readers.reader import describe_density, plausible_pixel_size

_RESOLUTION_UNITS = {2: "inch", 3: "cm", 4: "mm", 5: "um"}  # mm and um are tifffile's additions
_PRINTERS_UNITS = {um_per("inch"), um_per("cm")}  # ImageJ takes these from the tags of the file that it opened
_FINEST_PRINT = 600  # pixels per unit: more than that was meant for a microscope, in a unit that is not named


def read_calibration(tif: tifffile.TiffFile, series: Any, number: int, ome: OmeFile, *, is_chosen: bool) -> Calibration:
    """What a TIFF says about the size of its pixels and its channels.

    Parameters
    ----------
    tif, ome : TiffFile, OmeFile
        From `pipeline.ingest.tiff_ome.open_tiff`.
    series : TiffPageSeries
        The series that is read; `number` is its position in the file.
    is_chosen : bool
        Whether the user chose it.
    """
    found = describe_series(ome, tif, series, is_chosen=is_chosen) if ome.images else Calibration(notes=ome.notes)
    for more in read_dialects(tif, series, number):
        found = _merge(found, more)
    has_own_unit = False
    if tif.is_imagej and series.kind != "ome":
        said = tif.imagej_metadata or {}
        has_own_unit = not is_no_unit(said.get("unit"))
        found = _merge(found, _read_imagej(said, series.keyframe))
    if {"x", "y"} <= set(found.pixel_size) or has_own_unit:
        return found
    return _add_resolution(series.keyframe, found)


def _merge(found: Calibration, more: Calibration) -> Calibration:
    """Two sources; the first has priority."""
    return Calibration(
        {**more.pixel_size, **found.pixel_size},
        found.channel_names or more.channel_names,
        tuple(dict.fromkeys([*found.notes, *more.notes])),
    )


def _read_imagej(said: Mapping[str, Any], page: Any) -> Calibration:
    """Calibration of an ImageJ file; its resolution tags count pixels per `unit`, along y per `yunit`."""
    units = {
        "x": said.get("unit"),
        "y": said.get("yunit") or said.get("unit"),
        "z": said.get("zunit") or said.get("unit"),
    }
    found = Calibration() if is_no_unit(units["x"]) else _per_pixel(page, units)
    found = _without_densities(found, [axis for axis in "yx" if um_per(units[axis]) in _PRINTERS_UNITS])
    spacing = parse_number(said.get("spacing"))
    z = said.get("spacing") if spacing is None else abs(spacing)  # ImageJ drops the sign too
    is_default = is_no_unit(units["z"]) and spacing == 1
    sizes = {"z": Size() if is_default else read_size(z, units["z"], "spacing")}
    if parse_number(said.get("finterval")) != 0:
        sizes["t"] = read_size(said.get("finterval"), said.get("tunit") or "s", "finterval", "time")
    return _merge(found, calibration_of(sizes))


def _add_resolution(page: Any, found: Calibration) -> Calibration:
    """Add the sizes in the resolution tags, unless they are a printer's density."""
    code = page.tags.valueof("ResolutionUnit", default=2)
    unit = _RESOLUTION_UNITS.get(code)
    if unit is None:
        pixels, length = _ratio(page, "XResolution")
        is_meant = pixels is not None and pixels > _FINEST_PRINT * length
        says = f"the file says XResolution={pixels}/{length} with ResolutionUnit={code}"
        return _merge(found, Calibration(notes=(f"{says}; not used, because that is no unit of length",) * is_meant))
    more = _without_densities(_per_pixel(page, dict.fromkeys("yx", unit)), "yx")
    is_replaced = more.pixel_size and any("not used" in note for note in found.notes)
    instead = ("the pixel size is taken from the resolution tags",) if is_replaced else ()
    return _merge(found, replace(more, notes=(*more.notes, *instead)))


def _per_pixel(page: Any, units: Mapping[str, Any]) -> Calibration:
    """Pixel sizes of the tags XResolution and YResolution, which count pixels per unit."""
    sizes = {}
    for axis in "yx":
        name, factor = f"{axis.upper()}Resolution", um_per(units[axis])
        pixels, length = _ratio(page, name)
        if pixels and length and factor and pixels / length > 0:
            sizes[axis] = Size(factor * length / pixels)
        elif pixels is not None:
            sizes[axis] = read_size(length / pixels if pixels else 0, units[axis], f"1/{name}")
    return calibration_of(sizes)


def _ratio(page: Any, name: str) -> tuple[float | None, float]:
    """Pixels and units of a resolution tag, by the standard two whole numbers; None if it is absent."""
    value = page.tags.valueof(name)
    pixels, length = value if isinstance(value, tuple) and len(value) == 2 else (value, 1)
    return parse_number(pixels), parse_number(length) or 0.0


def _without_densities(found: Calibration, axes: Iterable[str]) -> Calibration:
    """Leave out sizes if one of these axes has a printer's density: programs write one where they know no size."""
    coarsest = max((found.pixel_size.get(axis, 0.0) for axis in axes), default=0.0)
    if not coarsest or plausible_pixel_size(coarsest):
        return found
    return Calibration(notes=(*found.notes, describe_density(coarsest)))
