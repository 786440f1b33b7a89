"""Pixel sizes and channel names from the metadata of TIFF: OME-XML, Aperio's text, ImageJ's, resolution tags."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from xml.etree import ElementTree

import tifffile

from segment_slide.pipeline.ingest.reader import plausible_pixel_size

_UM_PER = {
    "pm": 1e-6, "Å": 1e-4, "nm": 1e-3, "µm": 1.0, "μm": 1.0, "um": 1.0, "micron": 1.0, "microns": 1.0,
    "micrometer": 1.0, "mm": 1e3, "cm": 1e4, "m": 1e6, "inch": 25400.0, "in": 25400.0,
}  # fmt: skip
_S_PER = {"ns": 1e-9, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "sec": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_UM_PER_RESOLUTION_UNIT = {2: 25400.0, 3: 1e4, 4: 1e3, 5: 1.0}  # inch, cm; mm and um are tifffile's additions


@dataclass(frozen=True)
class Calibration:
    """`pixel_size` by axis, in um (t: in s); unknown axes are left out."""

    pixel_size: Mapping[str, float] = field(default_factory=dict)
    channel_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def read_calibration(tif: tifffile.TiffFile, series: Any, number: int) -> Calibration:
    """What a TIFF says about the size of its pixels and its channels, from the most specific source that it has.

    Parameters
    ----------
    tif : TiffFile
        The open file.
    series : TiffPageSeries
        The chosen series; `number` is its position in the file.
    """
    if tif.is_ome and tif.ome_metadata:
        found = parse_ome_xml(tif.ome_metadata, number, len(tif.series))
    elif series.kind == "imagej":
        found = _from_imagej(tif.imagej_metadata or {}, series.keyframe)
    elif tif.is_svs:
        found = parse_aperio(series.keyframe.description) if number == 0 else Calibration()
    else:
        found = Calibration()
    return found if "x" in found.pixel_size else _add_resolution(series.keyframe, found)


def parse_ome_xml(text: str, number: int, n_series: int) -> Calibration:
    """Calibration of one image in OME-XML.

    >>> pixels = '<Pixels PhysicalSizeX="250" PhysicalSizeXUnit="nm"><Channel Name="DAPI"/></Pixels>'
    >>> found = parse_ome_xml(f"<OME><Image>{pixels}</Image></OME>", 0, 1)
    >>> found.pixel_size, found.channel_names
    ({'x': 0.25}, ('DAPI',))
    """
    try:
        root = ElementTree.fromstring(text)  # noqa: S314, expat 2.4.1 and later bounds entities
    except ElementTree.ParseError as error:
        return Calibration(notes=(f"the OME-XML cannot be parsed ({error})",))
    images = [item for item in root.iter() if _tag(item) == "Image"]
    # tifffile makes one series per image; where it left some out, numbers no longer match
    image = images[number] if len(images) == n_series else next(iter(images), None)
    pixels = next((item for item in image if _tag(item) == "Pixels"), None) if image is not None else None
    if pixels is None:
        return Calibration()
    sizes = {axis: _physical_size(pixels.attrib, f"PhysicalSize{axis.upper()}", "µm", _UM_PER) for axis in "zyx"}
    sizes["t"] = _physical_size(pixels.attrib, "TimeIncrement", "s", _S_PER)
    names = tuple(item.get("Name", "") for item in pixels if _tag(item) == "Channel")
    return Calibration({axis: size for axis, size in sizes.items() if size}, names if all(names) else ())


def _tag(item: ElementTree.Element) -> str:
    return item.tag.rpartition("}")[2]


def _physical_size(attributes: Mapping[str, str], name: str, unit: str, table: Mapping[str, float]) -> float | None:
    try:
        return float(attributes[name]) * table[attributes.get(f"{name}Unit", unit)] or None
    except (KeyError, ValueError):  # absent, or in a unit such as "pixel"
        return None


def parse_aperio(description: str) -> Calibration:
    """Calibration of an SVS file: microns per pixel.

    >>> parse_aperio("Aperio Image Library|AppMag = 20|MPP = 0.4990|Left = 25.6").pixel_size
    {'y': 0.499, 'x': 0.499}
    """
    match = re.search(r"\|\s*MPP\s*=\s*([0-9.]+)", description)
    size = float(match.group(1)) if match else 0.0
    return Calibration({"y": size, "x": size} if size else {})


def _from_imagej(metadata: Mapping[str, Any], page: Any) -> Calibration:
    unit = str(metadata.get("unit", "")).replace("\\u00B5", "µ").replace("\\u00b5", "µ")
    factor = _UM_PER.get(unit)
    sizes = _per_pixel(page, factor) if factor else {}
    if factor and metadata.get("spacing"):
        sizes["z"] = abs(float(metadata["spacing"])) * factor
    if metadata.get("finterval"):
        sizes["t"] = float(metadata["finterval"]) * _S_PER.get(str(metadata.get("tunit", "s")), 1.0)
    return Calibration(sizes)


def _add_resolution(page: Any, found: Calibration) -> Calibration:
    """Add the sizes in the resolution tags, unless they are a printer's density."""
    factor = _UM_PER_RESOLUTION_UNIT.get(page.tags.valueof("ResolutionUnit", default=2))
    sizes = _per_pixel(page, factor) if factor else {}
    if all(plausible_pixel_size(size) for size in sizes.values()):
        return replace(found, pixel_size={**found.pixel_size, **sizes})
    coarsest = max(sizes.values())
    note = f"resolution tags ignored: {coarsest:.4g} um per pixel is a printer's density, not a microscope's"
    return replace(found, notes=(*found.notes, note))


def _per_pixel(page: Any, um_per_unit: float) -> dict[str, float]:
    """Pixel sizes of the tags XResolution and YResolution, which count pixels per unit."""
    sizes = {}
    for axis, tag in (("y", "YResolution"), ("x", "XResolution")):
        pixels, units = page.tags.valueof(tag, default=(0, 1))
        if pixels and units:
            sizes[axis] = um_per_unit * units / pixels
    return sizes
