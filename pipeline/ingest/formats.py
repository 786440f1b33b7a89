"""The table of file formats: how each is recognised, and what opens it. To add one, add a row and a reader."""

import importlib.util
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from segment_slide.pipeline.errors import InputError
from segment_slide.pipeline.ingest import openers
from segment_slide.pipeline.metadata.junk import is_hidden
from segment_slide.pipeline.readers.axes import axes_of_page
from segment_slide.pipeline.readers.openslide_files import is_dicom, read_dicom_series
from segment_slide.pipeline.readers.reader import Reader, SegmentCache
from segment_slide.pipeline.readers.tiff_vendors import OVERLAP
from segment_slide.pipeline.storage.store import is_zarr

_HEAD_BYTES = 512  # of a file, by which its format is recognised
_JPEG_SUFFIXES = (".jpg", ".jpeg")
_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


@dataclass(frozen=True)
class Format:
    """One row of the table.

    Parameters
    ----------
    name : str
        Name in messages.
    suffixes : tuple of str
        Endings of file names, in lower case: files in a watched folder with one of them are taken for images. Empty for
        files of which a slide may have many beside it (JPEG overviews, DICOM).
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


def _open_by_bioio(path: str, cache: SegmentCache, series: int | None, axes: str | None) -> Reader:
    from segment_slide.pipeline.ingest.bioio import BioioReader

    if importlib.util.find_spec("bioio") is None:
        own = " nor ".join(row.name for row in FORMATS if (row.suffixes or row.page_suffixes) and not row.plugin)
        others = ", ".join(row.name for row in FORMATS if row.open is _open_by_bioio)
        raise InputError(
            f"input={path} is neither {own}. Other microscope formats ({others}, …) are read through bioio, which is "
            f"not installed: pip install '.[bioio]' in the project's folder."
        )
    return BioioReader(path, cache, series=series, axes=axes)


def _ends_in(*suffixes: str) -> Callable[[bytes, str], bool]:
    return lambda _, name: name.endswith(suffixes)


# Slides of OpenSlide that their names tell, and why tifffile or a JPEG decoder would not do.
_SLIDES = (
    ("Ventana BIF", (".bif",), OVERLAP.format("Ventana (BIF)")),
    ("MIRAX (.mrxs)", (".mrxs",), "this is a MIRAX slide, whose pixels lie in the folder beside it"),
    ("Hamamatsu VMS", (".vms", ".vmu"), "this is a Hamamatsu slide, whose pixels lie in the files that it names"),
    ("Sakura", (".svslide",), "this is a Sakura slide, a database of pixels"),
)
# The first row that recognises a file opens it. Slides of OpenSlide come first: a .mrxs is a JPEG of the slide's
# overview, and a .bif is a TIFF.
FORMATS: tuple[Format, ...] = (
    *(
        Format(name, suffixes, _ends_in(*suffixes), openers.open_by_openslide(why), plugin="openslide")
        for name, suffixes, why in _SLIDES
    ),
    Format(
        "DICOM",
        (),
        lambda head, _: is_dicom(head) and not head.startswith(_TIFF_MAGIC),
        openers.open_by_openslide("this is a DICOM file"),
        plugin="openslide",
    ),
    Format(
        "TIFF (SVS, NDPI, OME-TIFF, BigTIFF)",
        (".tif", ".tiff", ".btf", ".tf2", ".tf8", ".svs", ".ndpi", ".scn", ".qptiff", ".lsm", ".stk"),
        lambda head, _: head.startswith(_TIFF_MAGIC),
        openers.open_tiff_file,
        page_suffixes=(".tif", ".tiff"),
    ),
    # no suffix: in a watched folder, its TIFF files are the images
    Format("OME-XML beside TIFF", (), _ends_in(".ome", ".ome.xml"), openers.open_companion_file),
    Format(
        "PNG",
        (".png",),
        lambda head, _: head.startswith(b"\x89PNG\r\n\x1a\n"),
        openers.open_png_file,
        page_suffixes=(".png",),
    ),
    Format(
        "JPEG",
        (),
        lambda head, _: head.startswith(b"\xff\xd8\xff"),
        openers.open_jpeg_file,
        page_suffixes=_JPEG_SUFFIXES,
    ),
    Format("CZI", (".czi",), _ends_in(".czi"), _open_by_bioio, plugin="bioio_czi"),
    Format("ND2", (".nd2",), _ends_in(".nd2"), _open_by_bioio, plugin="bioio_nd2"),
    Format("LIF", (".lif",), _ends_in(".lif"), _open_by_bioio, plugin="bioio_lif"),
)


def readable_suffixes() -> tuple[str, ...]:
    """Endings of the names of files that this machine can read."""
    return tuple(suffix for row in FORMATS if row.is_readable for suffix in row.suffixes)


def page_suffixes() -> tuple[str, ...]:
    """Endings of names that mark the pages in a folder of pages.

    >>> page_suffixes()
    ('.jpeg', '.jpg', '.png', '.tif', '.tiff')
    """
    return tuple(sorted(suffix for row in FORMATS for suffix in row.page_suffixes))


def choose_pages(names: Iterable[str]) -> list[str]:
    """The names of pages, in natural order: without JPEG, unless there is nothing else.

    Microscopes write JPEG overviews beside the images themselves.

    >>> choose_pages(["b10.tif", "b9.tif", "overview.jpg", "notes.txt", ".hidden.tif"])
    ['b9.tif', 'b10.tif']
    >>> choose_pages(["b10.jpg", "b9.JPG"])
    ['b9.JPG', 'b10.jpg']
    """
    pages = _name_pages(names)
    return [name for name in pages if not _is_jpeg(name)] or pages


def choose_images(names: Iterable[str]) -> list[str]:
    """The names of images that do not belong together, in natural order: without JPEG copies of others.

    >>> choose_images(["b.tif", "a.jpg", "b.jpg"])
    ['a.jpg', 'b.tif']
    """
    pages = _name_pages(names)
    originals = {os.path.splitext(name)[0] for name in pages if not _is_jpeg(name)}
    return [name for name in pages if not (_is_jpeg(name) and os.path.splitext(name)[0] in originals)]


def _name_pages(names: Iterable[str]) -> list[str]:
    pages = [name for name in names if name.lower().endswith(page_suffixes()) and not is_hidden(name)]
    return sorted(pages, key=natural_key)


def _is_jpeg(name: str) -> bool:
    return name.lower().endswith(_JPEG_SUFFIXES)


def count_left_out(folder: str) -> int:
    """Number of JPEG files in a folder of pages that are not read, because the pages have another format."""
    names = os.listdir(folder) if os.path.isdir(folder) else []
    return len(_name_pages(names)) - len(choose_pages(names))


def natural_key(path: str | Path) -> list[tuple[int, int | str]]:
    """Sort key that reads digits as numbers.

    >>> sorted(["img10.png", "img2.png", "img1.png"], key=natural_key)
    ['img1.png', 'img2.png', 'img10.png']
    """
    parts = re.split(r"(\d+)", str(path))
    return [(0, int(part)) if part.isdecimal() else (1, part.lower()) for part in parts if part]


_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+]+:/")  # a path has one slash where the address had two


def list_files(sources: Sequence[str | Path]) -> tuple[str, ...]:
    """Absolute paths of the files to read: one file, several in natural order, or the pages in a folder.

    A folder of DICOM files is one slide, and gives one of them.

    Raises
    ------
    InputError
        If one is missing or named twice, or a folder holds no page.
    """
    if urls := [str(source) for source in sources if _ADDRESS.match(str(source))]:
        raise InputError(f"input={urls[0]} is an address; files are read from disks only. Download it first.")
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
    names = choose_pages(os.listdir(folder))
    if names:
        return tuple(os.path.join(folder, name) for name in names)
    series = {path: number for path in _files_in(folder) if (number := read_dicom_series(path)) is not None}
    if len(set(series.values())) > 1:
        raise InputError(
            f"input={folder}: the folder has DICOM files of {len(set(series.values()))} slides (series), expected one; "
            f"name a file of the slide instead, for example {next(iter(series))}."
        )
    if series:
        return (next(iter(series)),)
    raise InputError(f"input={folder}: the folder has no image, expected files ending in {', '.join(page_suffixes())}.")


def _files_in(folder: str) -> list[str]:
    return sorted(
        (entry.path for entry in os.scandir(folder) if entry.is_file() and not is_hidden(entry.name)), key=natural_key
    )


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
        Axes of a file's dimensions, in its order, if it does not say them or if all its channels are to be kept.
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

    page_axes = axes_of_page(axes, stack_axis)
    return StackReader(files, stack_axis, lambda path: open_file(path, cache, series, page_axes))


def open_file(path: str, cache: SegmentCache, series: int | None = None, axes: str | None = None) -> Reader:
    """A reader for one file: that of the first matching format in the table, or else bioio's."""
    with open(path, "rb") as file:
        head = file.read(_HEAD_BYTES)
    if not head:
        raise InputError(f"input={path}: the file is empty (0 bytes).")
    found = (row.open for row in FORMATS if row.is_it(head, path.lower()))
    return next(found, _open_by_bioio)(path, cache, series, axes)
