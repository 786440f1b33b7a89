"""OME-XML of all versions as data: which images there are, in which files, and what their pixels measure.

Names of files in it are only reported here. `pipeline.ingest.tiff_ome` decides which of them are opened.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from segment_slide.pipeline.metadata.calibration import Calibration, calibration_of
from segment_slide.pipeline.metadata.numbers import Size, parse_number, read_size
from segment_slide.pipeline.metadata.safe_xml import XmlError, children, parse_xml, tag

MAX_PLANES = 10_000_000
_COUNTS = ("IFD", "PlaneCount", "NumPlanes", "FirstZ", "FirstC", "FirstT")
_UNITS = {"z": "µm", "y": "µm", "x": "µm", "t": "s"}  # where an attribute for the unit is absent or not yet invented


@dataclass(frozen=True)
class OmeImage:
    """One image of a document.

    Attributes
    ----------
    number : int
        Its position in the document.
    element : Element
        The element itself.
    calibration : Calibration
        Sizes of pixels and names of channels.
    """

    number: int
    element: Element
    calibration: Calibration

    @property
    def title(self) -> str:
        """Name or id for messages."""
        names = (" ".join(str(self.element.get(key, "")).split())[:60] for key in ("Name", "ID"))
        return next((repr(name) for name in names if name), f"number {self.number}")

    @property
    def sizes(self) -> Mapping[str, int]:
        """Pixels by axis of "tczyx", as far as they are stated."""
        pixels = _child(self.element, "Pixels")
        found = {} if pixels is None else {axis: parse_number(pixels.get(f"Size{axis.upper()}")) for axis in "tczyx"}
        return {axis: int(size) for axis, size in found.items() if size}

    @property
    def planes(self) -> tuple[Element, ...]:
        """Its elements TiffData, which say where planes lie."""
        pixels = _child(self.element, "Pixels")
        return () if pixels is None else tuple(children(pixels, "TiffData"))

    def remove(self, plane: Element) -> None:
        """Drop one of `planes`."""
        pixels = _child(self.element, "Pixels")
        if pixels is not None:
            pixels.remove(plane)


@dataclass(frozen=True)
class OmeDocument:
    """A parsed document.

    Attributes
    ----------
    root : Element
        Its root.
    images : tuple of OmeImage
        All images that it lists, whether their pixels are there or not.
    """

    root: Element
    images: tuple[OmeImage, ...]

    @property
    def binary_only(self) -> Element | None:
        """The element that refers to another file for all metadata, if there is one."""
        return _child(self.root, "BinaryOnly")


def parse_ome_xml(text: str) -> OmeDocument:
    """Read a document.

    >>> pixels = '<Pixels PhysicalSizeX="250" PhysicalSizeXUnit="nm"><Channel Name="DAPI"/></Pixels>'
    >>> found = parse_ome_xml(f"<OME><Image>{pixels}</Image></OME>").images[0].calibration
    >>> found.pixel_size, found.channel_names
    ({'x': 0.25}, ('DAPI',))

    Raises
    ------
    XmlError
        If it is damaged, is not OME-XML, declares a document type, or states more than `MAX_PLANES` planes of an image.
    """
    root = parse_xml(text)
    if tag(root) != "OME":
        raise XmlError(f"its root is <{tag(root)}>, expected <OME>")
    items = enumerate(children(root, "Image"))
    images = tuple(OmeImage(number, item, _calibrate(item)) for number, item in items)
    for image in images:
        _check_counts(image)
    return OmeDocument(root, images)


def _check_counts(image: OmeImage) -> None:
    """Refuse counts that would fill the memory with the planes of a list."""
    n_planes = math.prod(image.sizes.get(axis, 1) for axis in "zct")
    stated = [parse_number(plane.get(name)) or 0 for plane in image.planes for name in _COUNTS]
    if not 0 <= n_planes <= MAX_PLANES or max(stated, default=0) > MAX_PLANES:
        raise XmlError(f"the image {image.title} states more than {MAX_PLANES} planes, or fewer than none")


def _child(item: Element, name: str) -> Element | None:
    return next(children(item, name), None)


def _calibrate(image: Element) -> Calibration:
    pixels = _child(image, "Pixels")
    if pixels is None:
        return Calibration()
    sizes = {axis: _size(image, pixels, axis) for axis in "zyxt"}
    channels = list(children(pixels, "Channel"))
    if not any(channel.get("Name") for channel in channels):  # up to 2009 names were elsewhere
        channels = list(children(image, "LogicalChannel")) or channels
    return calibration_of(sizes, [channel.get("Name", "") for channel in channels])


def _size(image: Element, pixels: Element, axis: str) -> Size:
    """One size; before 2007 it was an attribute of the image, and before 2015 all sizes were in um and s."""
    name = "TimeIncrement" if axis == "t" else f"PhysicalSize{axis.upper()}"
    older = name if axis == "t" else f"PixelSize{axis.upper()}"
    for item, attribute in ((pixels, name), (image, older), (pixels, older)):
        if item.get(attribute) is not None:
            unit = item.get(f"{attribute}Unit", _UNITS[axis])
            return read_size(item.get(attribute), unit, attribute, "time" if axis == "t" else "space")
    return Size()
