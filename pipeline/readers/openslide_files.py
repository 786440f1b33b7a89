"""Which files a slide of several files consists of: what a fingerprint has to cover."""

import os
import re
import struct
from collections.abc import Mapping

_HEAD_BYTES = 1 << 16  # of a DICOM file, in which the number of its series stands
_TEXT_BYTES = 1 << 20
_NAMED_FILE = re.compile(r"^\s*\w*File(?:_\d+|\([\d,]*\))?\s*=\s*(\S.*?)\s*$", re.MULTILINE | re.IGNORECASE)
_SERIES = b"\x20\x00\x0e\x00UI"  # the tag SeriesInstanceUID and its kind, as OpenSlide's DICOM writes them
_DICOM_MAGIC_AT, _DICOM_MAGIC = 128, b"DICM"


def list_slide_files(path: str, properties: Mapping[str, str]) -> tuple[str, ...]:
    """Absolute paths of the slide's files, the named one among them.

    Parameters
    ----------
    path : str
        The file that was opened.
    properties : mapping
        What OpenSlide says of the slide.
    """
    vendor = properties.get("openslide.vendor", "")
    if vendor == "mirax":
        description = os.path.join(os.path.splitext(path)[0], "Slidedat.ini")
        found = [os.path.abspath(description), *_list_named(description)]
    elif vendor.startswith("hamamatsu") and not path.lower().endswith(".ndpi"):
        found = _list_named(path)
    elif vendor == "dicom":
        series = properties.get("dicom.SeriesInstanceUID", "")
        found = [file for file in _list_folder(os.path.dirname(path)) if read_dicom_series(file) == series]
    else:
        found = []
    return tuple(sorted({os.path.abspath(path), *found}))


def _list_folder(folder: str) -> list[str]:
    """Files directly in a folder; none if it is not there."""
    if not os.path.isdir(folder):
        return []
    return [entry.path for entry in os.scandir(os.path.abspath(folder)) if entry.is_file()]


def _list_named(path: str) -> list[str]:
    """Files beside a text file that it names: ``ImageFile(1,0)=…`` in a ``.vms``, ``FILE_0 = …`` in MIRAX."""
    with open(path, encoding="utf-8", errors="replace") as file:
        names = _NAMED_FILE.findall(file.read(_TEXT_BYTES))
    folder = os.path.dirname(os.path.abspath(path))
    return [found for name in names if os.path.isfile(found := os.path.join(folder, os.path.basename(name)))]


def is_dicom(head: bytes) -> bool:
    """Whether a file's first bytes are those of DICOM: 128 bytes that say nothing, and a word."""
    return head[_DICOM_MAGIC_AT:].startswith(_DICOM_MAGIC)


def read_dicom_series(path: str) -> str | None:
    """The unique number of the series that a DICOM file belongs to, "" if it cannot be found; None: no DICOM."""
    with open(path, "rb") as file:
        head = file.read(_HEAD_BYTES)
    if not is_dicom(head):
        return None
    at = head.find(_SERIES)
    if at < 0:
        return ""
    (length,) = struct.unpack_from("<H", head, at + len(_SERIES))
    return head[at + len(_SERIES) + 2 :][:length].rstrip(b"\0 ").decode("ascii", "replace")
