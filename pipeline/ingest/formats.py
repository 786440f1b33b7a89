"""The table of file formats: how each is recognised, and what opens it. To add one, add a row and a reader."""

import importlib.util
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from segment_slide.pipeline.errors import InputError
from segment_slide.pipeline.ingest.reader import Reader, SegmentCache
from segment_slide.pipeline.storage.store import is_zarr

_HEAD_BYTES = 512  # of a file, by which its format is recognised
_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


@dataclass(frozen=True)
class Format:
    """One row of the table.

    Parameters
    ----------
    name : str
        Name in messages.
    suffixes : tuple of str
        Endings of file names, in lower case: files in a watched folder with one of them are taken for images.
    is_it : callable
        Takes the first bytes of a file and its name in lower case, returns whether it has this format.
    open : callable
        Takes path, cache, series and axes (see `open_reader`), returns the reader; imports the reader's module itself.
    page_suffixes : tuple of str
        Those of `suffixes` that mark the pages in a folder of pages.
    plugin : str
        Module without which files of this format cannot be read; "" if none is needed.
    """

    name: str
    suffixes: tuple[str, ...]
    is_it: Callable[[bytes, str], bool]
    open: Callable[[str, SegmentCache, int | None, str | None], Reader]
    page_suffixes: tuple[str, ...] = ()
    plugin: str = ""

    @property
    def is_readable(self) -> bool:
        """Whether this machine has the plugin, if one is needed."""
        return not self.plugin or importlib.util.find_spec(self.plugin) is not None


def _open_tiff(path: str, cache: SegmentCache, series: int | None, axes: str | None) -> Reader:
    from segment_slide.pipeline.ingest.tiff import TiffReader

    return TiffReader(path, cache, series=series, axes=axes)


def _open_companion(path: str, cache: SegmentCache, series: int | None, axes: str | None) -> Reader:
    from segment_slide.pipeline.ingest.ome_files import first_file_of
    from segment_slide.pipeline.ingest.tiff import TiffReader

    return TiffReader(first_file_of(path), cache, series=series, axes=axes, companion=path)


def _open_png(path: str, cache: SegmentCache, series: int | None, axes: str | None) -> Reader:
    from segment_slide.pipeline.ingest.pages import PngReader

    return PngReader(path, cache)


def _open_by_bioio(path: str, cache: SegmentCache, series: int | None, axes: str | None) -> Reader:
    from segment_slide.pipeline.ingest.bioio import BioioReader

    if importlib.util.find_spec("bioio") is None:
        own = " nor ".join(row.name for row in FORMATS if row.suffixes and not row.plugin)
        others = ", ".join(row.name for row in FORMATS if row.plugin)
        raise InputError(
            f"input={path} is neither {own}. Other microscope formats ({others}, …) are read through bioio, which is "
            f"not installed: pip install '.[bioio]' in the project's folder."
        )
    return BioioReader(path, cache, series=series)


# Whole slides and stacks. No JPEG: scanners write JPEG overviews beside their slides.
FORMATS: tuple[Format, ...] = (
    Format(
        "TIFF (SVS, NDPI, OME-TIFF, BigTIFF)",
        (".tif", ".tiff", ".btf", ".tf8", ".svs", ".ndpi", ".scn", ".bif", ".qptiff", ".lsm", ".stk"),
        lambda head, _: head.startswith(_TIFF_MAGIC),
        _open_tiff,
        page_suffixes=(".tif", ".tiff"),
    ),
    # no suffix: in a watched folder, its TIFF files are the images
    Format("OME-XML beside TIFF", (), lambda _, name: name.endswith(".companion.ome"), _open_companion),
    Format("PNG", (".png",), lambda head, _: head.startswith(b"\x89PNG\r\n\x1a\n"), _open_png, page_suffixes=(".png",)),
    Format("CZI", (".czi",), lambda _, name: name.endswith(".czi"), _open_by_bioio, plugin="bioio_czi"),
    Format("ND2", (".nd2",), lambda _, name: name.endswith(".nd2"), _open_by_bioio, plugin="bioio_nd2"),
    Format("LIF", (".lif",), lambda _, name: name.endswith(".lif"), _open_by_bioio, plugin="bioio_lif"),
)


def readable_suffixes() -> tuple[str, ...]:
    """Endings of the names of files that this machine can read."""
    return tuple(suffix for row in FORMATS if row.is_readable for suffix in row.suffixes)


def page_suffixes() -> tuple[str, ...]:
    """Endings of names that mark the pages in a folder of pages.

    >>> page_suffixes()
    ('.png', '.tif', '.tiff')
    """
    return tuple(sorted(suffix for row in FORMATS for suffix in row.page_suffixes))


def natural_key(path: str | Path) -> list[tuple[int, int | str]]:
    """Sort key that reads digits as numbers.

    >>> sorted(["img10.png", "img2.png", "img1.png"], key=natural_key)
    ['img1.png', 'img2.png', 'img10.png']
    """
    parts = re.split(r"(\d+)", str(path))
    return [(0, int(part)) if part.isdecimal() else (1, part.lower()) for part in parts if part]


def list_files(sources: Sequence[str | Path]) -> tuple[str, ...]:
    """Absolute paths of the files to read: one file, several in natural order, or the PNG and TIFF files of a folder.

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
        raise InputError(f"input={folders}: expected one folder alone, or files; each folder is a stack of its own.")
    if len(set(paths)) < len(paths):
        raise InputError(f"{len(paths) - len(set(paths))} of {len(paths)} input files are named twice.")
    return tuple(sorted(paths, key=natural_key))


def _list_folder(folder: str) -> tuple[str, ...]:
    if is_zarr(folder):
        raise InputError(f"input={folder} is Zarr already: segment it as it is, it needs no ingest.")
    names = [name for name in os.listdir(folder) if name.lower().endswith(page_suffixes()) and name[0] != "."]
    if not names:
        raise InputError(
            f"input={folder}: the folder has no image, expected files ending in {', '.join(page_suffixes())}."
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
        Axes of a TIFF's dimensions, in the file's order, if the file does not say them.
    stack_axis : {"z", "t", "c"}
        The axis that the pages of a stack lie along.
    cache_bytes : int
        Bytes of decoded segments to keep.

    Raises
    ------
    InputError
        If a file is not an image that we can read, or pages differ.
    """
    cache = SegmentCache(cache_bytes)
    if len(files) == 1:
        return open_file(files[0], cache, series, axes)
    from segment_slide.pipeline.ingest.pages import StackReader

    return StackReader(files, stack_axis, lambda path: open_file(path, cache, series))


def open_file(path: str, cache: SegmentCache, series: int | None = None, axes: str | None = None) -> Reader:
    """A reader for one file: that of the first matching format in the table, or else bioio's."""
    with open(path, "rb") as file:
        head = file.read(_HEAD_BYTES)
    if not head:
        raise InputError(f"input={path}: the file is empty (0 bytes).")
    found = (row.open for row in FORMATS if row.is_it(head, path.lower()))
    return next(found, _open_by_bioio)(path, cache, series, axes)
