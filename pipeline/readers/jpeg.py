"""JPEG pages. The format has no random access, so a page is one segment; its compression changes values."""

import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np

from segment_slide.pipeline.errors import InputError, UnreadableChunkError
from segment_slide.pipeline.metadata.calibration import Calibration
from segment_slide.pipeline.readers.adapted import turn_upright
from segment_slide.pipeline.readers.axes import check_page_axes
from segment_slide.pipeline.readers.exif import read_orientation
from segment_slide.pipeline.readers.reader import ImageInfo, Reader, SegmentCache, read_density
from segment_slide.unet.boxes import Box

MAGIC = b"\xff\xd8\xff"
_FRAMES = {0xC0, 0xC1, 0xC2, 0xC9, 0xCA}  # baseline, extended and progressive, coded by Huffman or arithmetically
_ALL_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_ALONE = {0x01, *range(0xD0, 0xD9)}  # markers without a length
_SCAN, _JFIF, _APP1 = 0xDA, 0xE0, 0xE1
_UM_PER_DENSITY_UNIT = {1: 25400.0, 2: 1e4}  # inch, cm
_NOTE = "JPEG changes values when it compresses: prefer the microscope's own file, or TIFF or PNG"
_BITS = 8
_END = b"\xff\xd9"  # within pixels, a byte 0xFF is always followed by 0


@dataclass
class _Header:
    shape: tuple[int, int] = (0, 0)
    n_samples: int = 0
    bits: int = 0
    frame: int = 0
    n_bytes: int = 0
    orientation: int = 1
    size: Calibration = field(default_factory=Calibration)


def open_jpeg(path: str, cache: SegmentCache, *, series: int | None = None, axes: str | None = None) -> Reader:
    """The reader of a JPEG, turned as its EXIF says.

    Raises
    ------
    InputError
        If the header is damaged, or the picture is none of 8-bit grey or colour.
    """
    if series:
        raise InputError(f"series={series}, expected 0: {path} is a JPEG and holds one image.")
    header = _read_header(path)
    return turn_upright(JpegReader(path, header, cache, axes), header.orientation)


class JpegReader:
    """A JPEG page, grey or RGB (the file's own YCbCr is turned into RGB), as it is stored.

    Parameters
    ----------
    path : str
        The file.
    header : _Header
        What its markers say.
    cache : SegmentCache
        Where the decoded page is kept.
    axes : str, optional
        Axes that the user named: "yx" for grey, "yxc" for colour.
    """

    def __init__(self, path: str, header: _Header, cache: SegmentCache, axes: str | None) -> None:
        self._path, self._cache, self._header_bytes = path, cache, header.n_bytes
        is_rgb = header.n_samples == 3
        check_page_axes(path, axes, header.n_samples)
        lead: tuple[None, ...] = (None,) if is_rgb else ()
        self.info = ImageInfo(
            "jpeg",
            "cyx" if is_rgb else "yx",
            (3, *header.shape) if is_rgb else header.shape,
            "uint8",
            (*lead, header.size.pixel_size.get("y"), header.size.pixel_size.get("x")),
            ("R", "G", "B") if is_rgb else (),
            is_rgb=is_rgb,
            segment=header.shape,
            segment_bytes=header.shape[0] * header.shape[1] * header.n_samples,
            files=(path,),
            notes=(_NOTE, *header.size.notes),
            is_lossy=True,
        )

    def read(self, box: Box) -> np.ndarray:
        """See `Reader`."""
        page = self._cache.get(self._path, self._decode)
        rows, columns = box[-2:]
        return np.moveaxis(page[rows, columns, box[0]], -1, 0) if self.info.is_rgb else page[rows, columns, 0]

    def _decode(self) -> np.ndarray:
        """The page, (y, x, sample)."""
        import imagecodecs

        try:
            data = Path(self._path).read_bytes()
            if data.find(_END, self._header_bytes) < 0:  # the decoder would fill what is missing with grey
                raise ValueError("it is cut short")
            page = imagecodecs.jpeg8_decode(data)
        except Exception as error:  # codecs raise classes of their own
            raise UnreadableChunkError(f"{self._path}: the JPEG cannot be decoded: {error}") from error
        page = page.reshape(*page.shape[:2], -1)
        if page.shape != (*self.info.shape[-2:], 3 if self.info.is_rgb else 1):
            raise UnreadableChunkError(f"{self._path}: the JPEG decodes to {page.shape}, unlike its header.")
        return page

    def close(self) -> None:
        """Nothing is open."""


def _read_header(path: str) -> _Header:
    header = _Header()
    try:
        with open(path, "rb") as file:
            file.seek(2)
            while not header.frame:
                marker = _next_marker(file)
                (length,) = struct.unpack(">H", file.read(2))
                _read_marker(header, marker, file.read(length - 2))
            header.n_bytes = file.tell()
    except (struct.error, IndexError, ValueError, EOFError) as error:
        raise InputError(f"input={path}: its JPEG header is damaged or cut short.") from error
    _check(path, header)
    return header


def _next_marker(file: BinaryIO) -> int:
    """The next marker that has a length; bytes 0xFF before it are filling."""
    while True:
        if file.read(1) != b"\xff":
            raise ValueError("expected a marker")
        (code,) = file.read(1) or b"\0"
        while code == 0xFF:
            (code,) = file.read(1) or b"\0"
        if code == 0:
            raise ValueError("expected a marker")
        if code not in _ALONE:
            return code


def _read_marker(header: _Header, marker: int, content: bytes) -> None:
    if marker in _ALL_FRAMES:
        header.frame = marker
        header.bits, height, width, header.n_samples = struct.unpack_from(">BHHB", content)
        header.shape = (height, width)
    elif marker == _JFIF and content.startswith(b"JFIF\0"):
        unit, per_unit_x, per_unit_y = struct.unpack_from(">BHH", content, 7)
        um = _UM_PER_DENSITY_UNIT.get(unit)
        if um and per_unit_x and per_unit_y:
            header.size = read_density({"y": um / per_unit_y, "x": um / per_unit_x})
    elif marker == _APP1 and content.startswith(b"Exif\0\0"):
        header.orientation = read_orientation(content[6:])
    elif marker == _SCAN:
        raise ValueError("pixels before their size")


def _check(path: str, header: _Header) -> None:
    if 0 in header.shape:
        raise InputError(f"input={path}: shape={header.shape} has no pixels.")
    if header.n_samples not in (1, 3):
        inks = "inks (CMYK)" if header.n_samples == 4 else "samples per pixel"
        raise InputError(
            f"input={path}: a JPEG of {header.n_samples} {inks}, expected grey or RGB; inks would be segmented in "
            f"wrong colours. Convert it to RGB, for example with vips icc_transform or ImageMagick."
        )
    if header.bits != _BITS or header.frame not in _FRAMES:
        raise InputError(
            f"input={path}: a JPEG of {header.bits} bits and kind SOF{header.frame - 0xC0} is not read, expected 8 "
            f"bits, baseline or progressive. Convert it to TIFF or PNG."
        )
