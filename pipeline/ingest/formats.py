"""Which reader opens a file: by what its first bytes or its name say."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from segment_slide.pipeline.errors import InputError
from segment_slide.pipeline.ingest.reader import Reader, SegmentCache
from segment_slide.pipeline.storage.store import is_zarr

PAGE_SUFFIXES = (".png", ".tif", ".tiff")  # what a folder is searched for
_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def natural_key(path: str | Path) -> list[tuple[int, int | str]]:
    """Sort key that reads digits as numbers.

    >>> sorted(["img10.png", "img2.png", "img1.png"], key=natural_key)
    ['img1.png', 'img2.png', 'img10.png']
    """
    parts = re.split(r"(\d+)", str(path))
    return [(0, int(part)) if part.isdecimal() else (1, part.lower()) for part in parts if part]


def list_files(sources: Sequence[str | Path]) -> tuple[str, ...]:
    """Absolute paths of the pages that are meant: a file, several in natural order, or a folder of PNG and TIFF.

    Raises
    ------
    InputError
        If one is missing or named twice, or a folder holds no page.
    """
    paths = [os.path.abspath(os.path.expanduser(source)) for source in sources]
    for path in paths:
        if not os.path.exists(path):
            raise InputError(f"input={path}: no such file or directory.")
    if len(paths) == 1 and os.path.isdir(paths[0]):
        return _list_folder(paths[0])
    folders = [path for path in paths if os.path.isdir(path)]
    if folders or not paths:
        raise InputError(f"input={folders}: expected one folder, or files; a folder is a stack by itself.")
    if len(set(paths)) < len(paths):
        raise InputError(f"{len(paths) - len(set(paths))} of {len(paths)} input files are named twice.")
    return tuple(sorted(paths, key=natural_key))


def _list_folder(folder: str) -> tuple[str, ...]:
    if is_zarr(folder):
        raise InputError(f"input={folder} is Zarr already: segment it as it is, it needs no ingest.")
    names = [name for name in os.listdir(folder) if name.lower().endswith(PAGE_SUFFIXES) and name[0] != "."]
    if not names:
        raise InputError(
            f"input={folder}: the folder has no image, expected files ending in {', '.join(PAGE_SUFFIXES)}."
        )
    return tuple(os.path.join(folder, name) for name in sorted(names, key=natural_key))


def open_reader(
    files: Sequence[str],
    *,
    series: int | None = None,
    axes: str | None = None,
    stack_axis: str = "z",
    cache_bytes: int = 0,
) -> Reader:
    """Open what `list_files` found.

    Parameters
    ----------
    files : sequence of str
        One file, or the pages of a stack in order.
    series : int, optional
        Which image of a file that holds several; by default the largest.
    axes : str, optional
        Axes of a TIFF's dimensions, in the file's order, where the file does not say them.
    stack_axis : {"z", "t", "c"}
        What the pages of a stack are.
    cache_bytes : int
        Decoded segments to keep.

    Raises
    ------
    InputError
        If a file is no image this can read, or pages differ.
    """
    cache = SegmentCache(cache_bytes)
    if len(files) == 1:
        return open_file(files[0], cache, series, axes)
    from segment_slide.pipeline.ingest.pages import StackReader

    return StackReader(files, stack_axis, lambda path: open_file(path, cache, series))


def open_file(path: str, cache: SegmentCache, series: int | None = None, axes: str | None = None) -> Reader:
    """A reader for one file, by what its first bytes say it is."""
    with open(path, "rb") as file:
        head = file.read(8)
    if not head:
        raise InputError(f"input={path}: the file is empty (0 bytes).")
    if head == _PNG_MAGIC:
        from segment_slide.pipeline.ingest.pages import PngReader

        return PngReader(path, cache)
    if head[:4] in _TIFF_MAGIC:
        from segment_slide.pipeline.ingest.tiff import TiffReader

        return TiffReader(path, cache, series=series, axes=axes)
    from segment_slide.pipeline.ingest.bioio import BioioReader

    return BioioReader(path, cache, series=series)
