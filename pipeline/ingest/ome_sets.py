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
        Absolute path of the file to open: the others are found from it.
    files : tuple of str
        Absolute paths of all its files that are there, sorted; the one with the metadata among them.
    """

    first: str
    files: tuple[str, ...]


def find_sets(paths: Iterable[str]) -> list[FileSet]:
    """Sort TIFF files into images. A file with parts of several images belongs to the one with the largest planes.

    Parameters
    ----------
    paths : iterable of str
        Absolute paths of TIFF files. One that is damaged, has no OME-XML or is alone is a set by itself.

    Returns
    -------
    list of FileSet
        Each path is the `first` of at most one set. A set that has no `first` of its own is left out: reading its files
        one by one would not give it either.
    """
    # files above others first: a document may name files in folders below its own, and none above
    waiting = dict.fromkeys(sorted(paths, key=lambda path: (path.count("/"), natural_key(path))))
    sets = []
    while waiting:
        path = next(iter(waiting))
        for planes, companion in [*_read_sets(path), ({path}, "")]:
            mine = [file for file in planes if file in waiting]
            if mine:
                sets.append(FileSet(min(mine, key=natural_key), tuple(sorted(planes | ({companion} - {""})))))
            for file in (*planes, companion):
                waiting.pop(file, None)
    return sets


def _read_sets(path: str) -> list[tuple[set[str], str]]:
    """(files with planes, file with the metadata or "") of each image in a file's document, if that names the file."""
    try:
        with tifffile.TiffFile(path) as tif:
            text = read_text(tif)
    except Exception:  # noqa: BLE001, damaged files, and those still being copied: their own turn says so
        return []
    found = find_document(path, text) if text else None
    if found is None or found.document is None:
        return []
    folder, files = os.path.dirname(path), PlaneFiles(path, found)
    sets = []
    for image in sorted(found.document.images, key=_plane_size, reverse=True):
        names = {there for plane in image.planes if (there := files.locate(plane)[0])}
        sets.append(({os.path.join(folder, name) for name in names}, found.companion))
    return sets if any(path in planes for planes, _ in sets) else []


def _plane_size(image: OmeImage) -> int:
    return image.sizes.get("y", 0) * image.sizes.get("x", 0)
