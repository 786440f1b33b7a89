"""How the dimensions of a TIFF series are spread over pages, samples and segments; unsupported layouts are refused."""

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import tifffile

from segment_slide.pipeline.errors import InputError
from segment_slide.pipeline.readers.tiff_samples import Samples, plan_samples
from segment_slide.pipeline.storage.ome import AXIS_ORDER

_AXIS_OF = {"T": "t", "C": "c", "S": "c", "Z": "z", "Y": "y", "X": "x"}
_UNNAMED = "IQ"  # tifffile's letters for a sequence of pages whose axis the file does not name
_DESCRIPTION = 270  # the tag that holds OME-XML, or the text of Aperio, ImageJ and others
_SHOWN = 3  # names of missing files


@dataclass(frozen=True)
class Layout:
    """How the dimensions of a series are spread over pages.

    Attributes
    ----------
    lead_axes, lead_shape : str, tuple of int
        Dimensions before y. Their raster order is the order of pages and, within a page, of its separate sample planes.
    separate : int
        Sample planes of a page (planar configuration 2), else 1.
    interleaved : int
        Samples of a pixel (planar configuration 1), else 1.
    n_channels : int
        Channels that are kept, 0 if there is no c axis.
    samples : Samples
        What the samples of a pixel are, and which are kept.
    """

    lead_axes: str
    lead_shape: tuple[int, ...]
    separate: int
    interleaved: int
    n_channels: int
    samples: Samples


def plan_layout(path: str, series: Any, axes: str | None) -> tuple[Layout, list[str]]:
    """How to find the planes of a series, and what to tell the user.

    Raises
    ------
    InputError
        If pixels or axes are of a kind this package does not read.
    """
    page = series.keyframe
    _check_pixels(path, series)
    separate, _, _, _, interleaved = page.shaped
    letters, notes = _name_axes(path, series, axes)
    lead = letters[: letters.index("y")]
    lead_shape = series.get_shape(True)[: len(lead)]
    trailing = letters[len(lead) + 2 :]
    n_planes = len(series) * separate if series.dataoffset is None else math.prod(lead_shape)
    if letters[len(lead) :][:2] != "yx" or trailing not in ("", "c") or math.prod(lead_shape) != n_planes:
        raise InputError(f"input={path}: axes={series.axes!r} with shape={series.shape} are not planes of (y, x).")
    n_samples = max(separate, interleaved)
    samples = plan_samples(path, page, axes)
    notes += samples.notes
    n_channels = dict(zip(lead, lead_shape, strict=True)).get("c", interleaved if trailing else 0)
    n_channels = samples.kept if n_channels == n_samples else n_channels
    return Layout(lead, lead_shape, separate, interleaved, n_channels if n_channels > 1 else 0, samples), notes


def _name_axes(path: str, series: Any, axes: str | None) -> tuple[str, list[str]]:
    """Letters of "tczyx" for the dimensions of a series, in the file's order."""
    notes = []
    given, shape = series.get_axes(True), series.get_shape(True)
    if axes is None:
        unnamed = [letter for letter in given if letter in _UNNAMED]
        names = dict(_AXIS_OF)
        if len(unnamed) == 1 and "Z" not in given:
            names[unnamed[0]] = "z"
            notes = ["the file does not say what its pages are: taken as z"]
        axes = "".join(names.get(letter, "?") for letter in given)
    is_distinct = len(axes) == len(given) and len(set(axes)) == len(axes) and set(axes) <= set(AXIS_ORDER)
    if not is_distinct or (axes.find("y"), axes.find("x")) != (given.find("Y"), given.find("X")):
        raise InputError(
            f"input={path}: dimensions {given!r} of shape {shape} cannot be read as axes={axes!r}; expected distinct "
            f"letters of 'tczyx', one per dimension, y and x where the file has them. Say them with `axes`, for "
            f"example `axes={_suggest(given)}`."
        )
    return axes, notes


def _suggest(given: str) -> str:
    """Axes that would be accepted: those that the file names, and others in the usual order.

    >>> _suggest("SYX"), _suggest("CYXS"), _suggest("IQYX")
    ('cyx', 'zyxc', 'tzyx')
    """
    given = given.replace("C", "?") if "S" in given else given  # samples of a pixel are always c
    named = [_AXIS_OF.get(letter, "") for letter in given]
    free = iter([axis for axis in ("z" if named.count("") == 1 else "") + "tzc" if axis not in named])
    return "".join(axis or next(free, "?") for axis in named)


def _check_pixels(path: str, series: Any) -> None:
    page = series.keyframe
    if 0 in series.shape or 0 in page.shaped:
        raise InputError(f"input={path}: shape={series.shape} has no pixels.")
    if series.dtype is None or page.dtype is None:
        raise InputError(
            f"input={path}: pixels of {page.bitspersample} bits in sample format {page.sampleformat} are not read."
        )
    if page.shaped[1] > 1 or page.tiledepth > 1:
        raise InputError(f"input={path}: pages with a depth of {page.shaped[1]} planes (SGI volumes) are not read.")


def segment_shape(page: Any) -> tuple[int, int]:
    """(height, width) in px of a tile or strip."""
    if page.is_tiled:
        return page.tilelength, page.tilewidth
    return min(page.rowsperstrip, page.shaped[2]), page.shaped[3]


def check_planes(tif: tifffile.TiffFile, series: Any, path: str, missing_files: Sequence[str] = ()) -> None:
    """Refuse a file that lacks planes: tifffile would read a shorter stack, or zeros in their place.

    `missing_files` are files of an OME-TIFF that are known not to be there, for the message.

    Raises
    ------
    InputError
        If the chain of pages leaves the file, its metadata promise more planes, or files of a set are not there.
    """
    n_pages, (codes, _), (_, following) = len(tif.pages), _read_directory(tif, 0), _read_directory(tif, -1)
    size = tif.filehandle.size
    if following >= size or (_DESCRIPTION in codes and _DESCRIPTION not in tif.pages.first.tags):
        raise InputError(
            f"input={path} is cut short: it has {size} bytes and {n_pages} pages, but refers to more. It may still be "
            f"being copied."
        )
    promised = _count_promised(tif) if series.kind in ("generic", "uniform") else 0
    if promised > n_pages:
        raise InputError(
            f"input={path}: its metadata promise {promised} planes, but {n_pages} are there; the file is cut "
            f"short or damaged."
        )
    missing = sum(page is None for page in series) if series.kind == "ome" else 0
    if missing:
        named = f" ({', '.join(missing_files[:_SHOWN])})" if missing_files else ""
        raise InputError(
            f"input={path}: {missing} of {len(series)} planes are missing{named}; OME-TIFF of several files "
            f"needs all of them in one folder, under the names they were written with."
        )


def _read_directory(tif: tifffile.TiffFile, number: int) -> tuple[set[int], int]:
    """Codes of the tags that a page lists, and the offset that it gives for the next page (0: it is the last).

    tifffile drops what lies beyond the end of the file and only logs a message.
    """
    file, layout, page = tif.filehandle, tif.tiff, tif.pages[number % len(tif.pages)]
    if getattr(page, "is_virtual", False):  # made up from a count, as in ScanImage files
        return set(), 0
    file.seek(page.offset)
    n_tags = struct.unpack(layout.tagnoformat, file.read(layout.tagnosize))[0]
    entries = file.read(n_tags * layout.tagsize)
    code = struct.Struct(f"{layout.byteorder}H")
    codes = {code.unpack_from(entries, at)[0] for at in range(0, len(entries), layout.tagsize)}
    return codes, int(struct.unpack(layout.offsetformat, file.read(layout.offsetsize))[0])


def _count_promised(tif: tifffile.TiffFile) -> int:
    """Planes that ImageJ's or tifffile's own metadata promise, in files where tifffile had to ignore them."""
    if tif.is_imagej:
        return int((tif.imagej_metadata or {}).get("images", 0))
    if tif.is_shaped and tif.shaped_metadata:
        return math.prod(tif.shaped_metadata[0].get("shape", ())) // max(tif.pages[0].size, 1)
    return 0
