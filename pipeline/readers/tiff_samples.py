"""What the samples of a TIFF's pixels are: colours, channels of data, alpha; inks and other codes are refused.

The tag ExtraSamples says what samples beyond the colours are. Programs set it carelessly: many write "alpha" for any
fourth sample. So only what looks like a picture (8 bits; grey or RGB and one more sample that says alpha) loses its
last sample.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import tifffile

from segment_slide.pipeline.errors import InputError
from segment_slide.pipeline.readers.adapted import InvertedReader, PaletteReader, add_note
from segment_slide.pipeline.readers.reader import Reader

MIN_IS_WHITE, MIN_IS_BLACK, RGB, PALETTE, YCBCR = 0, 1, 2, 3, 6  # photometric interpretations
JPEG = (6, 7, 34892, 33007)  # compressions
_UNREAD = {4: "a transparency mask", 5: "CMYK, a printer's inks", 8: "CIELAB", 9: "ICCLAB", 10: "ITULAB"} | {
    32803: "a camera's raw mosaic of colours", 32844: "logarithmic brightness", 32845: "logarithmic CIELUV",
    34892: "a camera's linear raw", 51177: "a depth map", 52527: "a mask of meanings",
}  # fmt: skip
APERIO_YCBCR = 33003  # a compression: JPEG 2000, whose colours are not turned into RGB by tifffile
_ALPHA = {1: "associated", 2: "unassociated"}  # values of ExtraSamples that say alpha
_PHOTOMETRIC = 262  # the tag
_MAX_PALETTE_BITS = 8  # a palette of more is a viewer's lookup table


@dataclass(frozen=True)
class Samples:
    """What is kept of a pixel.

    Attributes
    ----------
    kept : int
        Number of samples that are kept; a sample that is left out comes last.
    alpha_out : bool
        Whether the last sample is alpha and left out.
    names : tuple of str
        Of the samples, where they are colours and something more; or empty.
    notes : tuple of str
        What the user should know.
    """

    kept: int
    alpha_out: bool = False
    names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def plan_samples(path: str, page: Any, axes: str | None) -> Samples:
    """Decide what the samples of a page are.

    Parameters
    ----------
    path : str
        The file, for messages.
    page : TiffPage
        The page that stands for its series.
    axes : str, optional
        The axes that the user named; with a "c" among them all samples are kept.

    Raises
    ------
    InputError
        If the samples are colours that are not turned into RGB here, and the user did not name axes.
    """
    _check_colours(path, page, axes)
    n_samples, extra = page.samplesperpixel, tuple(page.extrasamples or ())
    n_colours = 3 if page.photometric in (RGB, YCBCR) else 1
    if n_samples <= n_colours and not extra:
        return Samples(n_samples)
    says_alpha = bool(extra) and extra[-1] in _ALPHA
    is_picture = n_samples == n_colours + 1 and page.dtype == np.uint8
    if says_alpha and is_picture and "c" not in (axes or ""):
        order = yxc_or_cyx(page)
        note = (
            f"{_ordinal(n_samples)} channel is alpha (ExtraSamples {extra[-1]}) and not used; `axes={order}` keeps it"
        )
        return Samples(n_samples - 1, alpha_out=True, notes=(note,))
    names = tuple("RGB") if n_colours == 3 else ("grey",) if says_alpha and n_samples == 2 else ()
    if names:
        others = [f"channel {number}" for number in range(n_colours, n_samples)]
        names = (*names, *others[:-1], "alpha" if says_alpha else others[-1])
    if says_alpha and not is_picture:
        note = (
            f"{_ordinal(n_samples)} channel says that it is alpha (ExtraSamples {extra[-1]}), but is kept as data: "
            f"only 8-bit grey or RGB with one more channel is taken for a picture with alpha"
        )
        return Samples(n_samples, names=names, notes=(note,))
    return Samples(n_samples, names=names)


def _ordinal(number: int) -> str:
    return f"the {number}{ {2: 'nd', 3: 'rd'}.get(number, 'th') }"


def yxc_or_cyx(page: Any) -> str:
    """The axes of a plane with its samples, in the file's order."""
    return "cyx" if page.planarconfig == 2 else "yxc"


def _check_colours(path: str, page: Any, axes: str | None) -> None:
    unread = _UNREAD.get(page.photometric)
    if unread is not None and not axes:
        named = "yx" if page.samplesperpixel == 1 else yxc_or_cyx(page)
        raise InputError(
            f"input={path}: its values are {unread} (PhotometricInterpretation {int(page.photometric)}), which is not "
            f"turned into brightness or RGB here; it would be segmented in wrong colours. Convert it to RGB, for "
            f"example with vips icc_transform or ImageMagick; or keep the stored values as they are with "
            f"`axes={named}`."
        )
    if page.compression == APERIO_YCBCR or (page.photometric == YCBCR and page.compression not in JPEG):
        raise InputError(
            f"input={path}: colours are stored as YCbCr with compression {page.compression}, which is not turned into "
            f"RGB here; it would be segmented in wrong colours. Convert it to RGB, for example with vips tiffsave."
        )


def missing_value(tif: tifffile.TiffFile, page: Any) -> float:
    """The value of a tile that the file leaves out: in a slide it is glass, which is white."""
    is_slide = any((tif.is_philips, tif.is_svs, tif.is_ndpi, tif.is_scn))
    return 255 if is_slide and page.photometric in (RGB, YCBCR) and page.dtype == np.uint8 else page.nodata


def note_missing(tif: tifffile.TiffFile, page: Any) -> list[str]:
    """A note on tiles or strips that the file leaves out of a page, if there are any."""
    counts = page.databytecounts
    n_missing = sum(not count for count in counts)
    if not n_missing:
        return []
    kind = "tiles" if page.is_tiled else "strips"
    return [f"{n_missing} of {len(counts)} {kind} are not in the file: read as {missing_value(tif, page):g}"]


def is_lossy(page: Any) -> bool:
    """Whether compression changed the values: JPEG of 8 bits. JPEG 2000, WebP and others may be lossless."""
    return page.compression in JPEG and page.dtype == np.uint8


def show_as_meant(reader: Reader, tif: tifffile.TiffFile, page: Any, axes: str | None) -> Reader:
    """The reader, or one around it that turns what is stored into brightness or colours.

    Files of ImageJ and MetaMorph keep what is stored: their measurements are of these numbers, and their palettes and
    inverted palettes (lookup tables) only say how a screen shows them. So do arrays of bool that tifffile wrote.

    Parameters
    ----------
    reader : Reader
        Values as they are stored.
    tif, page
        The file, and the page that stands for its series.
    axes : str, optional
        The axes that the user named; without a "c" among them the numbers of a palette are kept.
    """
    is_shown_only = tif.is_imagej or tif.is_stk
    if page.photometric == MIN_IS_WHITE:
        bits = page.bitspersample if isinstance(page.bitspersample, int) else max(page.bitspersample)
        is_counted = reader.info.dtype == "bool" or reader.info.dtype.startswith("uint")
        is_counted = is_counted and (page.samplesperpixel == 1 or "c" not in reader.info.axes)
        is_shown_only = is_shown_only or _is_mask_of_tifffile(reader, page)
        if is_shown_only or not is_counted or _PHOTOMETRIC not in page.tags:
            return add_note(
                reader, "the file shows small values bright (MinIsWhite): values are kept as they are stored"
            )
        return InvertedReader(reader, 2**bits - 1)
    if page.photometric == PALETTE:
        colours = _read_palette(page)
        is_asked_for = axes is not None and "c" not in axes
        if is_shown_only or is_asked_for or colours is None or "c" in reader.info.axes:
            return add_note(reader, "the file has a colour palette: its numbers are kept, not its colours")
        return PaletteReader(reader, colours)
    return reader


def _is_mask_of_tifffile(reader: Reader, page: Any) -> bool:
    """Whether tifffile (or scikit-image, which uses it) wrote an array of bool: true is 1, and called black."""
    return reader.info.dtype == "bool" and str(page.software).startswith("tifffile")


def _read_palette(page: Any) -> np.ndarray | None:
    """(number, 3) uint8; None if there is none, or it is a lookup table of 16 bits."""
    table = page.colormap
    if table is None or np.shape(table)[0] != 3 or page.bitspersample > _MAX_PALETTE_BITS:
        return None
    table = np.asarray(table, np.uint16)
    if table.max(initial=0) > 255:  # as the format says; some programs write 8 bits
        table = table >> 8
    return np.ascontiguousarray(table.T.astype(np.uint8))
