"""PNG pages, and stacks of PNG or TIFF pages: one plane or one RGB image per file."""

import os
import struct
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from segment_slide.pipeline.errors import InputError, UnreadableChunkError
from segment_slide.pipeline.ingest.reader import ImageInfo, Reader, SegmentCache, describe_density, plausible_pixel_size
from segment_slide.pipeline.metadata.calibration import Calibration
from segment_slide.pipeline.storage.ome import AXIS_ORDER
from segment_slide.unet.boxes import Box

_PNG_SAMPLES = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}  # by colour type; a palette (3) is decoded to RGB


class PngReader:
    """A PNG page; the format has no random access, so a page is one segment.

    Bilevel and 2- and 4-bit grey are scaled to 0 to 255, palettes become RGB; an alpha channel is left out.
    """

    def __init__(self, path: str, cache: SegmentCache) -> None:
        self._path, self._cache = path, cache
        self.info = self._describe()

    def _describe(self) -> ImageInfo:
        with open(self._path, "rb") as file:
            head = file.read(4096)
        try:
            width, height, bits, colour = struct.unpack(">IIBB", head[16:26])
            samples = _PNG_SAMPLES[colour]
        except (struct.error, KeyError) as error:
            raise InputError(f"input={self._path}: its PNG header is damaged.") from error
        if 0 in (height, width):
            raise InputError(f"input={self._path}: shape=({height}, {width}) has no pixels.")
        dtype = "uint16" if bits == 16 else "uint8"
        kept = samples - 1 if samples in (2, 4) else samples
        size = _png_pixel_size(head)
        steps = tuple(size.pixel_size.get(axis) for axis in "yx")
        return ImageInfo(
            "png",
            "cyx" if kept == 3 else "yx",
            (3, height, width) if kept == 3 else (height, width),
            dtype,
            (None, *steps) if kept == 3 else steps,
            ("R", "G", "B") if kept == 3 else (),
            is_rgb=kept == 3,
            segment=(height, width),
            # a transparent colour in a palette adds a fourth sample
            segment_bytes=height * width * max(samples, 4 if colour == 3 else 1) * np.dtype(dtype).itemsize,
            files=(self._path,),
            notes=(*size.notes, *(["the alpha channel is left out"] if kept < samples else [])),
        )

    def read(self, box: Box) -> np.ndarray:
        """See `Reader`."""
        page = self._cache.get(self._path, self._decode)
        rows, columns = box[-2:]
        if not self.info.is_rgb:
            return page[rows, columns, 0]
        return np.moveaxis(page[rows, columns, box[0]], -1, 0)

    def _decode(self) -> np.ndarray:
        """The page, (y, x, sample)."""
        import imagecodecs

        try:
            page = imagecodecs.png_decode(Path(self._path).read_bytes())
        except Exception as error:  # codecs raise classes of their own
            raise UnreadableChunkError(f"{self._path}: the PNG cannot be decoded: {error}") from error
        if page.shape[:2] != self.info.shape[-2:] or page.dtype != self.info.dtype:
            raise UnreadableChunkError(
                f"{self._path}: the PNG decodes to {page.shape} {page.dtype}, unlike its header."
            )
        return page.reshape(*page.shape[:2], -1)

    def close(self) -> None:
        """Nothing is open."""


def _png_pixel_size(head: bytes) -> Calibration:
    """Pixel sizes of the pHYs chunk, which counts pixels per metre, if it lies within these first bytes."""
    start = head.find(b"pHYs")
    if start < 0 or len(head) < start + 13:
        return Calibration()
    *counts, unit = struct.unpack(">IIB", head[start + 4 : start + 13])
    if unit != 1 or not all(counts):
        return Calibration()
    sizes = {axis: 1e6 / count for axis, count in zip("xy", counts, strict=True)}
    if not all(map(plausible_pixel_size, sizes.values())):
        return Calibration(notes=(describe_density(max(sizes.values())),))
    return Calibration(sizes)


class StackReader:
    """Pages of one shape and dtype, one file each, along z, t or c.

    Parameters
    ----------
    files : sequence of str
        Pages in order.
    axis : {"z", "t", "c"}
        The axis that the pages lie along.
    open_page : callable
        Takes a path, returns the reader of that file.
    """

    def __init__(self, files: Sequence[str], axis: str, open_page: Callable[[str], Reader]) -> None:
        self._files, self._open_page = tuple(files), open_page
        first, *others = (self._describe(path) for path in self._files)
        notes = [*first.notes, *(note for other in others for note in other.notes)]
        _check_separate(self._files, (first, *others))
        for path, other in zip(self._files[1:], others, strict=True):
            _check_same(self._files[0], first, path, other)
        if axis not in "tcz" or axis in first.axes or len(first.axes) > 3:
            raise InputError(
                f"stack_axis={axis!r}: each of the {len(files)} pages has axes {first.axes!r}; expected planes (yx or "
                f"cyx) and a stack axis out of z, t, c that they do not have."
            )
        axes = "".join(sorted(axis + first.axes, key=AXIS_ORDER.index))
        self._at = axes.index(axis)
        sizes = {first.pixel_size, *(other.pixel_size for other in others)}
        differs = ("the pages state different pixel sizes: those of the first are used",) if len(sizes) > 1 else ()
        self.info = replace(
            first,
            kind="stack",
            axes=axes,
            shape=_insert(first.shape, self._at, len(files)),
            pixel_size=_insert(first.pixel_size, self._at, None),
            channel_names=tuple(Path(path).stem for path in files) if axis == "c" else first.channel_names,
            files=self._files,
            notes=(*dict.fromkeys(notes), *differs, f"{len(files)} pages along {axis}"),
        )

    def _open(self, path: str) -> Reader:
        reader = self._open_page(path)
        if reader.info.kind == "bioio":
            raise InputError(f"input={path}: pages of a stack are expected to be PNG or TIFF.")
        return reader

    def _describe(self, path: str) -> ImageInfo:
        reader = self._open(path)
        reader.close()
        return reader.info

    def read(self, box: Box) -> np.ndarray:
        """See `Reader`."""
        page_box = (*box[: self._at], *box[self._at + 1 :])
        pages = [self._read_page(index, page_box) for index in range(box[self._at].start, box[self._at].stop)]
        return np.stack(pages, axis=self._at)

    def _read_page(self, index: int, box: Box) -> np.ndarray:
        # opened anew for each box: a stack can have more pages than a process may have open files
        reader = self._open(self._files[index])
        try:
            return reader.read(box)
        finally:
            reader.close()

    def close(self) -> None:
        """Nothing is open."""


def _insert(values: tuple[Any, ...], at: int, value: Any) -> tuple[Any, ...]:
    return (*values[:at], value, *values[at:])


def _check_same(first_path: str, first: ImageInfo, path: str, other: ImageInfo) -> None:
    for field in ("axes", "shape", "dtype"):
        if getattr(first, field) != getattr(other, field):
            raise InputError(
                f"pages of a stack differ: {os.path.basename(first_path)} has {field}={getattr(first, field)}, "
                f"{os.path.basename(path)} has {field}={getattr(other, field)}; expected the same for all."
            )


def _check_separate(files: tuple[str, ...], pages: Sequence[ImageInfo]) -> None:
    """Refuse pages that are one image of several files already: each would give the whole image."""
    for path, page in zip(files, pages, strict=True):
        others = [os.path.basename(other) for other in sorted(set(page.files) & set(files) - {path})]
        if others:
            raise InputError(
                f"input={path}: it is one image together with {', '.join(others[:3])}{' …' if others[3:] else ''} "
                f"(OME-TIFF of several files). Name one of these files alone; the others are found beside it."
            )
