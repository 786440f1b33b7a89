"""Stacks of PNG, TIFF or JPEG pages: one plane or one RGB image per file."""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from segment_slide.pipeline.errors import InputError
from segment_slide.pipeline.readers.reader import ImageInfo, Reader
from segment_slide.pipeline.storage.ome import AXIS_ORDER
from segment_slide.unet.boxes import Box


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
        differs = ["the pages state different pixel sizes: those of the first are used"] * (len(sizes) > 1)
        decodings = list(dict.fromkeys([first.decoding, *(other.decoding for other in others)]))
        if len(decodings) > 1:
            ways = ", ".join(decoding or "as it is seen" for decoding in decodings)
            differs.append(f"the pages are stored in different ways ({ways}): each is read as viewers show it")
        self.info = replace(
            first,
            kind="stack",
            axes=axes,
            shape=_insert(first.shape, self._at, len(files)),
            pixel_size=_insert(first.pixel_size, self._at, None),
            channel_names=tuple(Path(path).stem for path in files) if axis == "c" else first.channel_names,
            files=self._files,
            is_lossy=any(page.is_lossy for page in (first, *others)),
            decoding="; ".join(filter(None, decodings)),
            notes=(*dict.fromkeys(notes), *differs, f"{len(files)} pages along {axis}"),
        )

    def _open(self, path: str) -> Reader:
        reader = self._open_page(path)
        if reader.info.kind in ("bioio", "openslide"):
            raise InputError(f"input={path}: pages of a stack are expected to be PNG, TIFF or JPEG.")
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
