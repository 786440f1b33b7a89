"""PNG pages. The format has no random access, so a page is one segment."""

import struct
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from segment_slide.pipeline.errors import InputError, UnreadableChunkError
from segment_slide.pipeline.metadata.calibration import Calibration
from segment_slide.pipeline.readers.adapted import are_labels, turn_upright
from segment_slide.pipeline.readers.axes import check_page_axes
from segment_slide.pipeline.readers.exif import read_orientation
from segment_slide.pipeline.readers.reader import ImageInfo, Reader, SegmentCache, read_density
from segment_slide.unet.boxes import Box

MAGIC = b"\x89PNG\r\n\x1a\n"
_SAMPLES = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}  # by colour type; a palette is decoded to RGB
_GREY, _PALETTE, _ALPHA_TYPES = 0, 3, (4, 6)
_WANTED = {b"IHDR", b"pHYs", b"tRNS", b"eXIf", b"PLTE"}
_MAX_CHUNK_BYTES = 1 << 16  # of those that are wanted
_NAMES = {3: ("R", "G", "B"), 4: ("R", "G", "B", "alpha"), 2: ("grey", "alpha")}


def open_png(path: str, cache: SegmentCache, *, series: int | None = None, axes: str | None = None) -> Reader:
    """The reader of a PNG, turned as its EXIF says.

    Raises
    ------
    InputError
        If the header is damaged, or the series or axes are not there.
    """
    if series:
        raise InputError(f"series={series}, expected 0: {path} is a PNG and holds one image.")
    chunks = _read_chunks(path)
    return turn_upright(PngReader(path, chunks, cache, axes), read_orientation(chunks.get(b"eXIf", b"")))


class PngReader:
    """A PNG page.

    Bilevel and 2- and 4-bit grey are scaled to 0 to 255. Palettes become RGB, unless the user names axes without a c:
    then the numbers of the colours are read. Alpha is left out, unless the user names axes with a c.

    Parameters
    ----------
    path : str
        The file.
    chunks : mapping of bytes to bytes
        Its chunks before the pixels, by their names.
    cache : SegmentCache
        Where the decoded page is kept.
    axes : str, optional
        Axes that the user named.
    """

    def __init__(self, path: str, chunks: Mapping[bytes, bytes], cache: SegmentCache, axes: str | None) -> None:
        self._path, self._cache = path, cache
        self._has_alpha = False
        self._number_bits = 0  # of a palette's numbers, if these are read
        self.info = self._describe(chunks, axes)

    def _describe(self, chunks: Mapping[bytes, bytes], axes: str | None) -> ImageInfo:
        try:
            width, height, bits, colour = struct.unpack(">IIBB", chunks[b"IHDR"][:10])
            samples = _SAMPLES[colour]
        except (struct.error, KeyError) as error:
            raise InputError(f"input={self._path}: its PNG header is damaged.") from error
        if 0 in (height, width):
            raise InputError(f"input={self._path}: shape=({height}, {width}) has no pixels.")
        notes = []
        if colour == _PALETTE and axes and "c" not in axes:
            samples, self._number_bits = 1, bits
            notes.append("the file has a colour palette: its numbers are kept, not its colours")
        check_page_axes(self._path, axes, samples)
        self._has_alpha = colour in _ALPHA_TYPES
        kept = samples - 1 if self._has_alpha and "c" not in (axes or "") else samples
        if kept < samples:
            nth = "2nd" if samples == 2 else "4th"
            notes.append(f"the {nth} channel is alpha and not used; `axes=yxc` keeps it")
        if b"tRNS" in chunks and not self._number_bits:
            notes.append("the file names colours that are transparent: they are read as colours")
        dtype = "uint16" if bits == 16 else "uint8"
        found = _pixel_size(chunks.get(b"pHYs", b""))
        shape, sizes = (height, width), (found.pixel_size.get("y"), found.pixel_size.get("x"))
        return ImageInfo(
            "png",
            "cyx" if kept > 1 else "yx",
            (kept, *shape) if kept > 1 else shape,
            dtype,
            (None, *sizes) if kept > 1 else sizes,
            _NAMES.get(kept, ()),
            is_rgb=kept == 3,
            segment=shape,
            # a transparent colour adds a sample
            segment_bytes=height * width * (samples + (b"tRNS" in chunks)) * np.dtype(dtype).itemsize,
            files=(self._path,),
            notes=(*notes, *found.notes),
            has_numbers=colour == _PALETTE and kept > 1 and are_labels(_colours(chunks)),
        )

    def read(self, box: Box) -> np.ndarray:
        """See `Reader`."""
        page = self._cache.get(self._path, self._decode)
        rows, columns = box[-2:]
        has_channels = "c" in self.info.axes
        if self._has_alpha and page.shape[-1] > (self.info.shape[0] if has_channels else 1):
            self._cache.warn_of_alpha(self._path, page[rows, columns, -1], "axes=yxc")
        return np.moveaxis(page[rows, columns, box[0]], -1, 0) if has_channels else page[rows, columns, 0]

    def _decode(self) -> np.ndarray:
        """The page, (y, x, sample)."""
        import imagecodecs

        content = Path(self._path).read_bytes()
        try:
            page = imagecodecs.png_decode(_without_palette(content) if self._number_bits else content)
        except Exception as error:  # codecs raise classes of their own
            raise UnreadableChunkError(f"{self._path}: the PNG cannot be decoded: {error}") from error
        if page.shape[:2] != self.info.shape[-2:] or page.dtype != self.info.dtype:
            raise UnreadableChunkError(
                f"{self._path}: the PNG decodes to {page.shape} {page.dtype}, unlike its header."
            )
        if 0 < self._number_bits < 8:  # few bits of grey are scaled to 0 to 255
            page = page // np.uint8(255 // (2**self._number_bits - 1))
        return page.reshape(*page.shape[:2], -1)

    def close(self) -> None:
        """Nothing is open."""


def _read_chunks(path: str) -> dict[bytes, bytes]:
    """The chunks that say something of the image, of those before its pixels."""
    found: dict[bytes, bytes] = {}
    with open(path, "rb") as file:
        file.seek(len(MAGIC))
        while len(head := file.read(8)) == 8 and head[4:] not in (b"IDAT", b"IEND"):
            length, name = int.from_bytes(head[:4], "big"), head[4:]
            content = file.read(length) if name in _WANTED and length <= _MAX_CHUNK_BYTES else b""
            if content:
                found.setdefault(name, content)
            file.seek(length - len(content) + 4, 1)
    return found


def _colours(chunks: Mapping[bytes, bytes]) -> np.ndarray:
    """The palette's colours, (number, 3)."""
    stored = chunks.get(b"PLTE", b"")
    return np.frombuffer(stored[: len(stored) // 3 * 3], np.uint8).reshape(-1, 3)


def _without_palette(content: bytes) -> bytes:
    """The same PNG as grey values: decoders turn numbers of colours into colours, but grey values stay numbers."""
    kept, place = [MAGIC], len(MAGIC)
    while place + 12 <= len(content):
        size, name = struct.unpack(">I4s", content[place : place + 8])
        chunk = content[place : place + size + 12]
        if name == b"IHDR":
            body = chunk[4:17] + bytes([_GREY]) + chunk[18:-4]
            chunk = chunk[:4] + body + struct.pack(">I", zlib.crc32(body))
        if name not in (b"PLTE", b"tRNS"):
            kept.append(chunk)
        place += size + 12
    return b"".join(kept)


def _pixel_size(content: bytes) -> Calibration:
    """Pixel sizes of the chunk pHYs, which counts pixels per metre."""
    if len(content) < 9:
        return Calibration()
    *counts, unit = struct.unpack(">IIB", content[:9])
    if unit != 1 or not all(counts):
        return Calibration()
    return read_density({axis: 1e6 / count for axis, count in zip("xy", counts, strict=True)})
