"""Whole slides that OpenSlide reads and tifffile does not, or not rightly (extra ``openslide``).

In some slides the camera's fields overlap, or lie at any place of the plane (Ventana BIF, MIRAX, Trestle). Read as a
plain grid of tiles, they repeat a strip at each seam. OpenSlide knows where each field lies. Which files are read by
it is decided by `pipeline.ingest.formats` and `pipeline.readers.tiff_vendors` from the file alone, never by what is
installed: the same file gives the same pixels everywhere, or an error that names the extra.
"""

import contextlib
import itertools
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from segment_slide.pipeline.errors import InputError, UnreadableChunkError
from segment_slide.pipeline.metadata.numbers import read_size
from segment_slide.pipeline.readers.openslide_files import list_slide_files
from segment_slide.pipeline.readers.reader import ImageInfo
from segment_slide.unet.boxes import Box

_PIECE = 1024  # px along y and x that are asked for at once: OpenSlide answers with four bytes per pixel
_PIECE_BYTES = _PIECE * _PIECE * 16  # RGBA twice, as OpenSlide and as Pillow hold it, and while it is composed
_CACHE_BYTES = 64 << 20  # of OpenSlide's own cache of decoded tiles
_WHITE = (255, 255, 255)


class OpenSlideReader:
    """Level 0 of a slide, as OpenSlide joins it.

    Where the scanner took no picture, OpenSlide answers "transparent"; such pixels get the colour of the slide's
    background, which is white unless the file says otherwise.

    Parameters
    ----------
    path : str
        The file that names the slide: for MIRAX the ``.mrxs``, for DICOM any file of the series.
    why : str
        Why the file is read by OpenSlide, for the error if it is not installed.
    series, axes
        As in `pipeline.ingest.formats.open_reader`; a slide is one image, with axes ``cyx``.

    Raises
    ------
    InputError
        If OpenSlide is not installed, or does not read the file.
    """

    def __init__(self, path: str, why: str, *, series: int | None = None, axes: str | None = None) -> None:
        if series or (axes is not None and sorted(axes) != sorted("cyx")):
            raise InputError(
                f"input={path}: series={series}, axes={axes!r}: expected series 0 and axes 'cyx'; a slide that is read "
                f"through OpenSlide is one colour image."
            )
        self._path = path
        self._slide = _open_slide(path, why)
        try:
            properties = _read_properties(self._slide)
            self._background = _parse_colour(properties.get("openslide.background-color"))
            self.info = self._describe(properties)
        except Exception as error:  # a damaged slide makes OpenSlide refuse any further question
            self.close()
            raise InputError(f"input={path}: the slide is damaged: {error}") from error

    def _describe(self, properties: Mapping[str, str]) -> ImageInfo:
        width, height = self._slide.dimensions
        vendor = properties.get("openslide.vendor", "unknown")
        notes = [f"read through OpenSlide ({vendor})"]
        bounds = [properties.get(f"openslide.bounds-{name}") for name in ("x", "y", "width", "height")]
        if all(bounds) and bounds != ["0", "0", str(width), str(height)]:
            notes.append(
                f"the scanned area is {bounds[2]} x {bounds[3]} px at x={bounds[0]}, y={bounds[1]}; what lies outside "
                f"has the background's colour {self._background}"
            )
        others = sorted(self._slide.associated_images)
        notes += [f"not read: {', '.join(others)}"] if others else []
        mpp_y, mpp_x = (read_size(properties.get(f"openslide.mpp-{axis}"), "um", f"mpp-{axis}") for axis in "yx")
        notes += sorted({size.note for size in (mpp_y, mpp_x)} - {""})
        return ImageInfo(
            "openslide",
            "cyx",
            (3, height, width),
            "uint8",
            (None, mpp_y.value, mpp_x.value),
            ("R", "G", "B"),
            is_rgb=True,
            segment=(_PIECE, _PIECE),
            segment_bytes=_PIECE_BYTES,
            files=list_slide_files(self._path, properties),
            notes=tuple(notes),
            decoding=f"openslide {vendor}",
        )

    def read(self, box: Box) -> np.ndarray:
        """See `pipeline.readers.reader.Reader`."""
        channels, rows, columns = box
        out = np.empty([part.stop - part.start for part in box], np.uint8)
        for y, x in itertools.product(range(rows.start, rows.stop, _PIECE), range(columns.start, columns.stop, _PIECE)):
            height, width = min(_PIECE, rows.stop - y), min(_PIECE, columns.stop - x)
            piece = self._read_piece(x, y, width, height)
            at = y - rows.start, x - columns.start
            out[:, at[0] : at[0] + height, at[1] : at[1] + width] = np.moveaxis(piece, -1, 0)[channels]
        return out

    def _read_piece(self, x: int, y: int, width: int, height: int) -> np.ndarray:
        """RGB on the background, (y, x, 3)."""
        import openslide

        try:
            rgba = np.asarray(self._slide.read_region((x, y), 0, (width, height)))
        except openslide.OpenSlideError as error:
            raise UnreadableChunkError(
                f"{self._path}: OpenSlide cannot read {width} x {height} px at x={x}, y={y}: {error}"
            ) from error
        return compose(rgba, self._background)

    def close(self) -> None:
        """Close the slide."""
        self._slide.close()


def compose(rgba: np.ndarray, background: tuple[int, int, int] = _WHITE) -> np.ndarray:
    """Colours (y, x, 3) of pixels with unassociated alpha (y, x, 4) on a background, uint8, rounded.

    >>> compose(np.array([[[10, 20, 30, 255], [0, 0, 0, 0], [0, 0, 0, 51]]], np.uint8)).tolist()
    [[[10, 20, 30], [255, 255, 255], [204, 204, 204]]]
    """
    alpha = rgba[..., 3:]
    if (alpha == 255).all():
        return rgba[..., :3]
    weight = alpha.astype(np.uint32)
    mixed = rgba[..., :3] * weight + np.array(background, np.uint32) * (255 - weight)
    return ((mixed + 127) // 255).astype(np.uint8)


def _open_slide(path: str, why: str) -> Any:
    try:
        import openslide
    except ModuleNotFoundError as error:
        raise InputError(
            f"input={path}: {why}. It is read through OpenSlide, which is not installed: pip install '.[openslide]' in "
            f"the project's folder."
        ) from error
    except (OSError, ImportError) as error:  # the Python part is there, the library is not
        raise InputError(f"input={path}: {why}. OpenSlide cannot be loaded: {error}") from error
    if os.path.splitext(path)[1].lower() in (".dcm", "") and openslide.OpenSlide.detect_format(path) is None:
        raise InputError(
            f"input={path}: {why}, but OpenSlide finds no whole slide in it. Other DICOM images (CT, MR, single "
            f"pictures, fluorescence) are not read; convert them to TIFF."
        )
    try:
        slide = openslide.OpenSlide(path)
    except openslide.OpenSlideError as error:  # unsupported formats are of this class too
        raise InputError(
            f"input={path}: {why}, but OpenSlide cannot open it ({error}). Files of the slide may be missing or "
            f"damaged: all of them have to lie where the scanner put them."
        ) from error
    slide.set_cache(openslide.OpenSlideCache(_CACHE_BYTES))
    return slide


def _read_properties(slide: Any) -> dict[str, str]:
    """What a slide says of itself; without what cannot be asked for, because its name is damaged."""
    found = {}
    for name in slide.properties:
        with contextlib.suppress(KeyError):
            found[name] = slide.properties[name]
    return found


def _parse_colour(text: str | None) -> tuple[int, int, int]:
    """Hexadecimal RGB, or white.

    >>> _parse_colour("F0E68C"), _parse_colour(None)
    ((240, 230, 140), (255, 255, 255))
    """
    try:
        red, green, blue = bytes.fromhex(text or "FFFFFF")
    except ValueError:
        return _WHITE
    return red, green, blue
