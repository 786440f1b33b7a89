"""One interface to all microscope files: a description from metadata, and any box of pixels on demand.

A `Reader` knows axes, shape, calibration and how to decode the part of a file that a box touches; it knows nothing
of Zarr. TIFF and its dialects are read by `pipeline.ingest.tiff`, PNG and stacks by `pipeline.ingest.pages`, JPEG by
`pipeline.readers.jpeg`, some whole slides by `pipeline.readers.openslide`, all others by `pipeline.ingest.bioio`.
"""

import contextvars
import itertools
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from segment_slide.pipeline.blocks.grid import ceil_divide
from segment_slide.pipeline.errors import InputError
from segment_slide.pipeline.metadata.calibration import Calibration
from segment_slide.unet.boxes import Box

log = logging.getLogger(__name__)

PRINT_DENSITY_UM = 40.0  # 600 dots per inch are 42 um: coarser values are a printer's default, not a microscope's


@dataclass(frozen=True)
class ImageInfo:
    """What a file says about its image, without reading a pixel.

    Attributes
    ----------
    kind : str
        "tiff", "png", "jpeg", "openslide", "stack" or "bioio".
    axes : str
        Subset of "tczyx", in that order; axes of length 1 are left out, except y and x.
    shape : tuple of int
        Pixels per axis.
    dtype : str
        numpy name, native byte order, as read (before `pipeline.ingest.run` converts it).
    pixel_size : tuple of (float or None)
        Distance between pixels per axis, in um (t: in s); None where unknown.
    channel_names : tuple of str
        One per channel, or empty.
    is_rgb : bool
        Whether c is red, green, blue.
    segment : tuple of int
        (height, width) in px of what is decoded at once (a tile, a strip, a page); (0, 0) if rows are read directly.
    segment_bytes : int
        Decoded size of one segment.
    files : tuple of str
        Every file that holds pixels.
    notes : tuple of str
        What a user should know: choices made, things left out.
    is_lossy : bool
        Whether the file's compression changed values (JPEG): no matter for a picture, but ids of a mask are wrong.
    decoding : str
        What was done to the stored values beyond reading them ("inverted", "orientation 6"); "" if nothing. It decides
        the bytes of the output. Of a stack, all different ones of its pages.
    has_numbers : bool
        Whether the colours are those of a palette whose numbers may be classes or ids; axes without a c read these.
    """

    kind: str
    axes: str
    shape: tuple[int, ...]
    dtype: str
    pixel_size: tuple[float | None, ...]
    channel_names: tuple[str, ...] = ()
    is_rgb: bool = False
    segment: tuple[int, int] = (0, 0)
    segment_bytes: int = 0
    files: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    is_lossy: bool = False
    decoding: str = ""
    has_numbers: bool = False

    def check_mask(self, path: str) -> None:
        """Refuse a file as a mask, whose values have to be exact.

        Raises
        ------
        InputError
            If the file's compression changes values.
        """
        if self.is_lossy:
            raise InputError(
                f"{path} is compressed as JPEG, which changes values, most of all at edges: classes and ids of a mask "
                f"would be wrong there. Save it again from the program that drew it, as PNG or as TIFF without JPEG."
            )

    def cover_bytes(self, height: int, width: int) -> int:
        """Decoded bytes of the segments that a box of this size can touch, in one plane."""
        if not self.segment_bytes:
            return 0
        touched = 1
        for box, size, segment in zip((height, width), self.shape[-2:], self.segment, strict=True):
            touched *= min(ceil_divide(box, segment) + 1, ceil_divide(size, segment))
        return touched * self.segment_bytes


class Reader(Protocol):
    """An open image."""

    info: ImageInfo

    def read(self, box: Box) -> np.ndarray:
        """Pixels of a box, one slice per axis of `info.axes`, dtype `info.dtype`.

        Raises
        ------
        UnreadableChunkError
            Naming the file and the part of it that cannot be decoded.
        """

    def close(self) -> None:
        """Close the files; the reader cannot be used again."""


class SegmentCache:
    """A cache of the last used decoded segments, up to a number of bytes; each is decoded once for all threads.

    Neighbouring shards touch the same tiles, and all shards of a row touch the same strips. Without the cache, a strip
    of a wide image would be decoded once per shard.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held_bytes = 0
        self._futures: OrderedDict[Any, Future[np.ndarray]] = OrderedDict()
        self._lock = threading.Lock()
        self._is_alpha_known = False
        self._context = contextvars.copy_context()  # threads do not know which command runs, and its options

    def warn_of_alpha(self, path: str, alpha: np.ndarray, remedy: str) -> None:
        """Warn, once per ingest, of alpha that is not used although it is not opaque everywhere.

        Parameters
        ----------
        path : str
            The file.
        alpha : ndarray
            Values of some pixels.
        remedy : str
            The parameter that keeps alpha, with its value.
        """
        if self._is_alpha_known or not alpha.size or alpha.min() == np.iinfo(alpha.dtype).max:
            return
        with self._lock:
            is_first, self._is_alpha_known = not self._is_alpha_known, True
        if not is_first:
            return
        self._context.run(
            log.warning,
            "%s: the alpha channel is not opaque everywhere, and is not used: what it hides is read as it is stored. "
            "`%s` keeps it as a channel.",
            path,
            remedy,
        )

    def get(self, key: Any, decode: Callable[[], np.ndarray]) -> np.ndarray:
        """The segment with this key. The first thread that asks decodes it; others wait."""
        with self._lock:
            future = self._futures.get(key)
            is_mine = future is None
            if future is None:
                future = self._futures[key] = Future()
            self._futures.move_to_end(key)
        return self._decode(key, future, decode) if is_mine else future.result()

    def _decode(self, key: Any, future: "Future[np.ndarray]", decode: Callable[[], np.ndarray]) -> np.ndarray:
        try:
            values = decode()
        except BaseException as error:
            with self._lock:
                self._futures.pop(key)
            future.set_exception(error)
            raise
        with self._lock:  # set and count in one step: `_evict` assumes that each finished segment is counted
            future.set_result(values)
            self._held_bytes += values.nbytes
            self._evict()
        return values

    def _evict(self) -> None:
        """Drop the segments that were unused for longest; those being decoded are not counted yet, so they stay."""
        for key in list(self._futures):
            if self._held_bytes <= self._max_bytes:
                return
            if self._futures[key].done():
                self._held_bytes -= self._futures.pop(key).result().nbytes


def plausible_pixel_size(size_um: float) -> float | None:
    """The pixel size in um, or None where it is a printer's density (72 to 600 dots per inch).

    >>> plausible_pixel_size(0.499), plausible_pixel_size(25400 / 72)
    (0.499, None)
    """
    return size_um if 0 < size_um < PRINT_DENSITY_UM else None


def describe_density(size_um: float) -> str:
    """The note on a pixel size that is no `plausible_pixel_size`."""
    return f"resolution tags ignored: {size_um:.4g} um per pixel is a printer's density, not a microscope's"


def read_density(sizes: Mapping[str, float]) -> Calibration:
    """Pixel sizes (um, by axis) of a picture, or a note if they are a printer's density."""
    if all(map(plausible_pixel_size, sizes.values())):
        return Calibration(sizes)
    return Calibration(notes=(describe_density(max(sizes.values())),))


def overlapping_segments(start: int, stop: int, segment: int) -> Iterable[tuple[int, slice, slice]]:
    """Segments of one axis that a range touches: number, where in the segment, where in the range.

    >>> list(overlapping_segments(3, 6, 4))
    [(0, slice(3, 4, None), slice(0, 1, None)), (1, slice(0, 2, None), slice(1, 3, None))]
    """
    for number in range(start // segment, ceil_divide(stop, segment)):
        first, last = max(start, number * segment), min(stop, (number + 1) * segment)
        yield number, slice(first - number * segment, last - number * segment), slice(first - start, last - start)


def indices_of(box: Box) -> Iterable[tuple[int, ...]]:
    """All index tuples of a box, in raster order."""
    return itertools.product(*(range(part.start, part.stop) for part in box))
