"""Files of an OME-TIFF beside the opened one: companions with the metadata, and others with planes.

A document is text from a stranger. What it names is looked for in the folder of the opened file only.
"""

import glob
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from xml.etree.ElementTree import Element, SubElement

import tifffile

from segment_slide.pipeline.errors import InputError
from segment_slide.pipeline.metadata.ome_xml import OmeDocument, parse_ome_xml
from segment_slide.pipeline.metadata.safe_xml import XmlError, children

COMPANION = ".companion.ome"
SUFFIXES = (COMPANION, ".ome.xml", ".ome")  # of files that hold OME-XML and no pixels
_MAX_BYTES = 1 << 28  # of a companion file; those of whole plates have tens of MiB
_SLASHES = re.compile(r"[/\\]")  # of any system
_SHOWN = 3  # names in a message


@dataclass(frozen=True)
class FoundDocument:
    """Where the document that describes a TIFF was found.

    Attributes
    ----------
    document : OmeDocument or None
        None if there is none that can be used.
    companion : str
        Path of the file it was read from; "" if it is the TIFF itself.
    notes : tuple of str
        What a user should know.
    """

    document: OmeDocument | None
    companion: str = ""
    notes: tuple[str, ...] = ()


def find_document(path: str, text: str) -> FoundDocument:
    """The document that describes a TIFF: its own, or the one that its own refers to."""
    try:
        document = parse_ome_xml(text)
    except XmlError as error:
        return FoundDocument(None, notes=(f"its OME-XML is not used, because it cannot be read ({error})",))
    if document.binary_only is None:
        return FoundDocument(document)
    folder, said = os.path.dirname(path), document.binary_only.get("MetadataFile", "")
    found = find_beside(folder, said)
    others = sorted(glob.glob(f"*{COMPANION}", root_dir=folder or "."))
    if found is None and len(others) == 1:  # it was renamed; below, it has to name this file
        found = others[0]
    if found is None:
        said = show(said) or "another file"
        return FoundDocument(
            None, notes=(f"its metadata are in {said}, which is not in its folder; they are not used",)
        )
    return read_companion(path, os.path.join(folder, found))


def read_companion(path: str, companion: str) -> FoundDocument:
    """The document in a companion file, if it describes a TIFF."""
    name, own = os.path.basename(companion), os.path.basename(path)
    try:
        document = read_document(companion)
    except (XmlError, InputError) as error:
        return FoundDocument(None, notes=(f"{name} is not used, because it cannot be read ({error})",))
    if own.lower() not in {_SLASHES.split(said)[-1].lower() for said in _named_files(document)}:
        return FoundDocument(None, notes=(f"{name} is not used, because it does not name {own}",))
    return FoundDocument(document, companion, (f"its metadata are those of {name}",))


def read_document(path: str) -> OmeDocument:
    """The OME-XML in a companion file or in the first page of a TIFF.

    Raises
    ------
    XmlError
        If it is none.
    InputError
        If the file cannot be read.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(_MAX_BYTES + 1)
        if content[:2] in (b"II", b"MM"):
            with tifffile.TiffFile(path) as tif:
                return parse_ome_xml(tif.pages.first.description)
        if len(content) > _MAX_BYTES:
            raise XmlError(f"it has more than {_MAX_BYTES} bytes")
        return parse_ome_xml(content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"))
    except UnicodeError as error:
        raise XmlError(f"it is no text in UTF-8: {error}") from error
    except OSError as error:
        raise InputError(f"input={path} cannot be read: {error}") from error


def first_file_of(companion: str) -> str:
    """The first TIFF that a companion file names and that lies beside it.

    Raises
    ------
    InputError
        If there is none, or the companion cannot be read.
    """
    try:
        names = _named_files(read_document(companion))
    except XmlError as error:
        raise InputError(f"input={companion}: its OME-XML cannot be read: {error}.") from error
    folder = os.path.dirname(companion)
    found = next((name for name in (find_beside(folder, said) for said in names) if name), None)
    if found is None:
        raise InputError(
            f"input={companion}: none of the {len(names)} files that it names is in its folder "
            f"({list_names(names) or 'no name'}). Put them beside it, under the names they were written with."
        )
    return os.path.join(folder, found)


def find_beside(folder: str, said: str) -> str | None:
    """The file in a folder that a document names: its name there, never one outside; None if it is not there.

    Of a path, only what follows its last slash counts unless it leads downwards: programs write where a file once lay.
    """
    parts = [part for part in _SLASHES.split(said.replace("\0", "")) if part]
    if not parts or parts[-1] in (".", ".."):
        return None
    is_below = not re.match(r"[/\\]|[A-Za-z]:", said) and ".." not in parts
    for name in ([os.path.join(*parts)] if is_below else []) + [parts[-1]]:
        if os.path.isfile(os.path.join(folder, name)):
            return name
    same = [item for item in os.listdir(folder or ".") if item.lower() == parts[-1].lower()]
    return same[0] if len(same) == 1 and os.path.isfile(os.path.join(folder, same[0])) else None


def _named_files(document: OmeDocument) -> list[str]:
    """Names of files in a document, each once."""
    uuids = (uuid for image in document.images for plane in image.planes for uuid in children(plane, "UUID"))
    return list(dict.fromkeys(name for uuid in uuids if (name := uuid.get("FileName", ""))))


class PlaneFiles:
    """Finds the files that planes lie in.

    Parameters
    ----------
    path : str
        The TIFF that was opened.
    found : FoundDocument
        The document that describes it.
    """

    def __init__(self, path: str, found: FoundDocument) -> None:
        self._folder, self._own = os.path.split(path)
        # the file that planes lie in whose file is not named: the document's, unless that is no TIFF
        self._home = os.path.basename(found.companion) if found.companion else self._own
        self._home = "" if self._home.lower().endswith(SUFFIXES) else self._home
        document = found.document
        images = () if document is None else document.images
        self._identity = "" if document is None else document.root.get("UUID", "").strip()
        planes = [plane for image in images for plane in image.planes]
        uuids = [uuid for plane in planes for uuid in children(plane, "UUID")]
        self._names = {_text(uuid): uuid.attrib["FileName"] for uuid in uuids if uuid.get("FileName")}
        names, is_named = set(self._names.values()), all(list(children(plane, "UUID")) for plane in planes)
        is_lost = len(names) == 1 and is_named and find_beside(self._folder, *names) is None
        self.renamed = next(iter(names)) if is_lost and not self._identity and not found.companion else ""

    def settle(self, plane: Element) -> str:
        """Make an element name the file beside this one that has its planes; return the name of one that is missing."""
        there, said = self.locate(plane)
        if there is None:
            return said or "a file without a name"
        for uuid in list(children(plane, "UUID")):
            plane.remove(uuid)
        if there != self._own:
            SubElement(plane, "UUID", {"FileName": there}).text = there
        return ""

    def locate(self, plane: Element) -> tuple[str | None, str]:
        """The name of the file that has an element's planes, None if it is not there, and what the element says."""
        uuid = next(children(plane, "UUID"), None)
        return (self._home or None, "") if uuid is None else self._find(uuid)

    def _find(self, uuid: Element) -> tuple[str | None, str]:
        text = _text(uuid)
        said = uuid.get("FileName") or self._names.get(text, "")
        is_home = self.renamed or (self._identity and text == self._identity)
        return self._home if is_home and self._home else find_beside(self._folder, said), said or text


def _text(uuid: Element) -> str:
    return (uuid.text or "").strip()


def list_names(names: Iterable[str]) -> str:
    """The first names of a list, for a message.

    >>> list_names(["a", "b", "c", "d"])
    'a, b, c and 1 more'
    """
    shown = [show(name) for name in names]
    more = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
    return ", ".join(shown[:_SHOWN]) + more


def show(text: str) -> str:
    """A text from a file, for a message: without line breaks and control characters."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)[:100]
