"""TIFF files whose tiles are no plain grid, or whose pixels lie elsewhere: what tifffile alone would read wrongly."""

from typing import Any

import tifffile

from segment_slide.pipeline.errors import InputError
from segment_slide.pipeline.readers.tiff_samples import APERIO_YCBCR

OVERLAP = "the tiles of a {} slide overlap, and a plain grid of them repeats strips at the seams"
_XMP = 700  # the tag
_HEAD_PAGES = 2  # Ventana writes its XML with the label, the overview or the slide itself


class OtherReaderError(Exception):
    """The file is a slide that OpenSlide has to read; the message says why. No user sees it."""


def check_plain_grid(tif: tifffile.TiffFile) -> None:
    """Refuse a file that is not a plain grid of tiles in colours that tifffile knows.

    Raises
    ------
    OtherReaderError
        If OpenSlide has to read it.
    InputError
        If its pixels lie in other files, which are not read.
    """
    if tif.filename.lower().endswith(".vsi"):
        raise InputError(
            f"input={tif.filehandle.path}: an Olympus VSI holds only an overview; the slide itself lies in .ets files "
            f"in the folder beside it, which are not read. Export the slide as TIFF, for example with QuPath."
        )
    first = tif.pages.first
    heads = [tif.pages[number] for number in range(min(_HEAD_PAGES, len(tif.pages)))]
    # a frame has no tags of its own: it is one of a stack of equal pages
    if any(b"<iScan" in _bytes_of(page, _XMP) for page in heads if isinstance(page, tifffile.TiffPage)):
        raise OtherReaderError(OVERLAP.format("Ventana (BIF)"))
    if first.software.startswith("MedScan") and "OverlapsXY" in first.description:
        raise OtherReaderError(OVERLAP.format("Trestle"))
    if tif.is_svs and first.compression == APERIO_YCBCR:
        raise OtherReaderError(
            "this Aperio slide holds JPEG 2000 in YCbCr, whose colours tifffile does not turn into RGB"
        )


def _bytes_of(page: Any, tag: int) -> bytes:
    value = page.tags.valueof(tag, default=b"")
    return value if isinstance(value, bytes) else str(value).encode()
