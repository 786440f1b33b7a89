"""OME-TIFF: which document describes a file, which files it may name, and which of its images a series is.

tifffile makes series of images and leaves out those without pixels, so numbers of series and images differ. We give it
a document of our own making: each image's name is its number there, own planes name no file, and other files are named
only if they lie beside this one. So a series tells its image, and no file elsewhere is opened.
"""

import contextlib
import copy
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from xml.etree import ElementTree

import tifffile

from segment_slide.pipeline.errors import InputError
from segment_slide.pipeline.ingest.ome_files import PlaneFiles, find_document, list_names, read_companion
from segment_slide.pipeline.metadata.calibration import Calibration
from segment_slide.pipeline.metadata.ome_xml import OmeDocument, OmeImage
from segment_slide.pipeline.metadata.safe_xml import children

_LONGEST = 300  # characters of a note
_LOOKS_LIKE_OME = re.compile(r"<(\w+:)?OME[\s>]")


@dataclass(frozen=True)
class OmeFile:
    """What OME-XML says of a TIFF.

    Attributes
    ----------
    images : tuple of OmeImage
        All that the document lists.
    missing : mapping of int to tuple of str
        Files that an image needs and that are not there, by the image's number.
    companion : str
        Path of the file that the document was read from; "" if it is the TIFF itself.
    notes : tuple of str
        What a user should know.
    """

    images: tuple[OmeImage, ...] = ()
    missing: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    companion: str = ""
    notes: tuple[str, ...] = ()

    def image_of(self, series: Any) -> OmeImage | None:
        """The image that tifffile made a series of; None if the series does not come from this document."""
        number = int(series.name) if series.kind == "ome" and str(series.name).isdecimal() else -1
        return self.images[number] if 0 <= number < len(self.images) else None

    def missing_of(self, series: Any) -> tuple[str, ...]:
        """Names of files that a series needs and that are not there."""
        image = self.image_of(series)
        return () if image is None else self.missing.get(image.number, ())

    def check(self, path: str, tif: tifffile.TiffFile) -> None:
        """Refuse a file whose document says that all pixels are in other files, which are not there.

        Raises
        ------
        InputError
            Naming these files.
        """
        if not self.missing or any(self.image_of(series) is not None for series in tif.series):
            return
        names = dict.fromkeys(name for lost in self.missing.values() for name in lost)
        raise InputError(
            f"input={path}: its OME-XML says that the pixels are in {list_names(names)}, which is not in its folder; "
            f"OME-TIFF of several files needs all of them in one folder, under the names they were written with."
        )


def open_tiff(path: str, companion: str = "") -> tuple[tifffile.TiffFile, OmeFile]:
    """Open a TIFF with the OME-XML that describes it; the second value is empty if nothing does.

    Parameters
    ----------
    path : str
        The TIFF.
    companion : str
        File with the document, if the user named that file.
    """
    tif = tifffile.TiffFile(path)
    try:
        text = read_text(tif)
    except Exception:
        tif.close()
        raise
    if not (companion or text):
        return tif, OmeFile()
    tif.close()
    found = read_companion(path, companion) if companion else find_document(path, text)
    if found.document is None:
        return tifffile.TiffFile(path, is_ome=False), OmeFile(notes=found.notes)
    cleaned, ome = _rewrite(found.document, PlaneFiles(path, found))
    ome = replace(ome, companion=found.companion, notes=(*found.notes, *ome.notes))
    return _open_with(path, cleaned, ome)


def read_text(tif: tifffile.TiffFile) -> str:
    """The OME-XML of a file, or what looks like it; "" if there is none."""
    text = tif.pages.first.description if tif.pages else ""
    return text if tif.is_ome or _LOOKS_LIKE_OME.search(text[:4096]) else ""


def _open_with(path: str, text: str, ome: OmeFile) -> tuple[tifffile.TiffFile, OmeFile]:
    """The file by its document; without it if the document's counts or orders of planes make no sense."""
    tif = tifffile.TiffFile(path, omexml=text)
    try:
        with _quiet():
            _ = tif.series
    except Exception as error:  # noqa: BLE001, what is missing or no number surfaces as errors of many kinds
        tif.close()
        note = f"its OME-XML is not used for planes, because it cannot be followed ({type(error).__name__}: {error})"
        return tifffile.TiffFile(path, is_ome=False), OmeFile(ome.images, notes=(*ome.notes, note[:_LONGEST]))
    return tif, ome


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without tifffile's warnings of images whose pixels are not there: our notes say which, or the file is refused."""

    def is_other(record: logging.LogRecord) -> bool:
        return "OME series" not in record.getMessage()

    log = logging.getLogger("tifffile")
    log.addFilter(is_other)
    try:
        yield
    finally:
        log.removeFilter(is_other)


def _rewrite(document: OmeDocument, files: PlaneFiles) -> tuple[str, OmeFile]:
    """The document for tifffile, and what it says: names of files beside this one, and none for this one's planes."""
    root = copy.deepcopy(document.root)
    root.attrib.pop("UUID", None)
    missing: dict[int, tuple[str, ...]] = {}
    for number, element in enumerate(list(children(root, "Image"))):
        image = OmeImage(number, element, Calibration())
        element.set("Name", str(number))
        lost = {plane: name for plane in image.planes if (name := files.settle(plane))}
        for plane in lost:
            image.remove(plane)
        if lost:
            missing[number] = tuple(dict.fromkeys(lost.values()))
            if not image.planes:
                root.remove(element)
    text = ElementTree.tostring(root, "unicode", short_empty_elements=False)
    notes = (f"the file was renamed: its OME-XML calls it {files.renamed}",) if files.renamed else ()
    return text, OmeFile(document.images, missing, notes=notes)


def describe_series(ome: OmeFile, tif: tifffile.TiffFile, series: Any, *, is_chosen: bool) -> Calibration:
    """Sizes and names that the document states for a series, with notes on what of it is not used.

    Parameters
    ----------
    ome, tif : OmeFile, TiffFile
        From `open_tiff`.
    series : TiffPageSeries
        The series that is read.
    is_chosen : bool
        Whether the user named it: then its image is meant, even if another one claims the same planes.
    """
    notes = (*ome.notes, *_note_absent(ome, tif), *_note_elsewhere(ome, tif, series))
    image = ome.image_of(series)
    if image is None:
        images = _of_same_size(ome, series)
    else:
        images = [image] if is_chosen else [image, *_rivals(ome, tif, series, image)]
    if not images:
        return Calibration(notes=(*notes, "none of the images in its OME-XML has this size; it is not used"))
    found = images[0].calibration
    if any(one.calibration != found for one in images):
        listed = list_names(one.title for one in images)
        why = f"its OME-XML says different things of the same planes ({listed}); sizes and names are not used"
        return Calibration(notes=(*notes, why))
    return replace(found, notes=(*notes, *found.notes))


def _of_same_size(ome: OmeFile, series: Any) -> list[OmeImage]:
    height, width = series.keyframe.shaped[2:4]
    return [image for image in ome.images if (image.sizes.get("y"), image.sizes.get("x")) == (height, width)]


def _rivals(ome: OmeFile, tif: tifffile.TiffFile, series: Any, image: OmeImage) -> Iterator[OmeImage]:
    """Other images whose series begins with the same page."""
    first = _first_page(series)
    for other in tif.series:
        found = ome.image_of(other)
        if found is not None and found is not image and _first_page(other) == first:
            yield found


def _first_page(series: Any) -> tuple[str, int] | None:
    page = next((page for page in series if page is not None), None)
    return None if page is None else (page.parent.filehandle.path, page.index)


def _note_absent(ome: OmeFile, tif: tifffile.TiffFile) -> list[str]:
    """Say which images the document lists and the file does not have."""
    if not any(series.kind == "ome" for series in tif.series):
        return []
    there = {image.number for series in tif.series if (image := ome.image_of(series)) is not None}
    absent = [image.title for image in ome.images if image.number not in there]
    if not absent:
        return []
    return [f"its OME-XML also lists {list_names(absent)}, whose pixels are not there"]


def _note_elsewhere(ome: OmeFile, tif: tifffile.TiffFile, series: Any) -> list[str]:
    """Say if no pixel is in the file that was named: a copy may have kept the OME-XML of its original."""
    files = {page.parent.filehandle.path: page.parent.filehandle.name for page in series if page is not None}
    if not files or ome.companion or tif.filehandle.path in files:
        return []
    names = list_names(files.values())
    return [f"its OME-XML says that the pixels are in {names}: they are read from there, not from the file itself"]
