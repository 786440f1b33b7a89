"""Which TIFF files of a folder are one image together, because their OME-XML says so: see `pipeline.ingest.tiff_ome`.

Only the first directory of a file is read, and only until a document names the file.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass

import tifffile

from segment_slide.pipeline.ingest.formats import natural_key
from segment_slide.pipeline.ingest.ome_files import PlaneFiles, find_document
from segment_slide.pipeline.ingest.tiff_ome import read_text
from segment_slide.pipeline.metadata.ome_xml import OmeImage

SUFFIXES = (".tif", ".tiff", ".btf", ".tf2", ".tf8")


@dataclass(frozen=True)
class FileSet:
    """One image.

    Attributes
    ----------
    first : str
        Absolute path of the file to open, the first in natural order of those that lead to the others.
    files : tuple of str
        Absolute paths of all its files that are there, sorted; the one with the metadata among them.
    """

    first: str
    files: tuple[str, ...]


def find_sets(paths: Iterable[str]) -> list[FileSet]:
    """Sort TIFF files into images, as `pipeline.ingest.tiff` reads them.

    Parameters
    ----------
    paths : iterable of str
        Absolute paths of TIFF files. One that is damaged, has no OME-XML or is alone is a set by itself.

    Returns
    -------
    list of FileSet
        Each path is in one of them. A file with planes of two images may be in both, but is the `first` of one at most.
    """
    # files above others first: a document may name files in folders below its own, and none above
    waiting = dict.fromkeys(sorted(paths, key=lambda path: (path.count("/"), natural_key(path))))
    sets, alone, taken = list[FileSet](), list[str](), set[str]()
    while waiting:
        path = next(iter(waiting))
        planes, metadata = _read_set(path)
        for file in {path, *planes}:
            waiting.pop(file, None)
        if planes:
            sets.append(FileSet(path, tuple(sorted(planes | metadata))))
            taken |= planes | metadata  # a file with metadata may hold another image: it waits for its own turn
        else:
            alone.append(path)
    return sets + [FileSet(path, (path,)) for path in alone if path not in taken]


def _read_set(path: str) -> tuple[set[str], set[str]]:
    """Files with planes and with metadata of the image that a file's document makes it a part of; none without one."""
    try:
        with tifffile.TiffFile(path) as tif:
            text = read_text(tif)
    except Exception:  # noqa: BLE001, damaged files, and those still being copied: their own turn says so
        return set(), set()
    found = find_document(path, text) if text else None
    if found is None or found.document is None:
        return set(), set()
    folder, files = os.path.dirname(path), PlaneFiles(path, found)
    for image in sorted(found.document.images, key=_plane_size, reverse=True):  # the reader takes the largest, too
        names = {there for plane in image.planes if (there := files.locate(plane)[0])}
        planes = {os.path.join(folder, name) for name in names}
        if path in planes:
            return planes, {found.companion} - {""}
    return set(), set()


def _plane_size(image: OmeImage) -> int:
    return image.sizes.get("y", 0) * image.sizes.get("x", 0)
