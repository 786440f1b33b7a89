"""TIFF and its dialects (BigTIFF, OME-TIFF, ImageJ, SVS, NDPI …) read box by box, through tifffile's pages.

A file is a list of series, a series a list of pages, a page a grid of tiles or strips; only what a box touches is
read and decoded. We do not use tifffile's own Zarr store: it accepts segments of which a cut file has lost the
end (a JPEG decoder fills the rest with grey), and it decodes a wide strip once for every shard that it crosses.
"""

import functools
import itertools
import math
import threading
from typing import Any

import numpy as np
import tifffile

from segment_slide.pipeline.blocks.grid import ceil_divide
from segment_slide.pipeline.errors import InputError, PipelineError, UnreadableChunkError
from segment_slide.pipeline.ingest.tiff_layout import check_planes, plan_layout, segment_shape
from segment_slide.pipeline.ingest.tiff_metadata import read_calibration
from segment_slide.pipeline.ingest.tiff_ome import OmeFile, open_tiff
from segment_slide.pipeline.readers import tiff_samples
from segment_slide.pipeline.readers.adapted import turn_upright
from segment_slide.pipeline.readers.reader import ImageInfo, Reader, SegmentCache, indices_of, overlapping_segments
from segment_slide.pipeline.readers.tiff_vendors import OtherReaderError, check_plain_grid
from segment_slide.pipeline.storage.ome import AXIS_ORDER
from segment_slide.unet.boxes import Box

_ORIENTATION = 274  # the tag


class TiffReader:
    """One series of a TIFF file.

    The file's own coarser levels are ignored: ours are exact local means of level 0, theirs were made by an
    unknown filter, compressed once more, and lie at unknown offsets.

    Parameters
    ----------
    path : str
        The file.
    cache : SegmentCache
        Where decoded tiles and strips are kept.
    series : int, optional
        Which series; by default the one with the largest planes in this file (not in others of an OME-TIFF), the first
        of equals (in a slide that is the baseline, not the thumbnail, label or macro image).
    axes : str, optional
        Letters of "tczyx", one per dimension that tifffile reports, if the file does not say them.
    companion : str
        File with the OME-XML that describes this one, if the user named that file.

    Raises
    ------
    OtherReaderError
        If the file's tiles are not a plain grid.
    """

    def __init__(
        self,
        path: str,
        cache: SegmentCache,
        *,
        series: int | None = None,
        axes: str | None = None,
        companion: str = "",
    ) -> None:
        self._path, self._cache = path, cache
        self._lock = threading.RLock()
        self._tif, self._ome = _open_tiff(path, companion)
        try:
            check_plain_grid(self._tif)
            self._ome.check(path, self._tif)
            self._number, self._series = _choose_series(self._tif, path, series)
            self._is_chosen = series is not None
            self._page = self._series.keyframe
            check_planes(self._tif, self._series, path, self._ome.missing_of(self._series))
            self._layout, notes = plan_layout(path, self._series, axes)
            self._page.init_decode()
            self._raw_offset = self._series.dataoffset if self._series.transform is None else None
            self.info = self._describe(notes)
            self._check_length()
        except (PipelineError, OtherReaderError):
            self.close()
            raise
        except Exception as error:  # damaged tags surface as errors of arithmetic, indices and types
            self.close()
            raise _damaged(path, error) from error
        self._files = tifffile.FileCache(size=8, lock=self._lock)

    def _describe(self, notes: list[str]) -> ImageInfo:
        page, layout = self._page, self._layout
        sizes = dict(zip(layout.lead_axes, layout.lead_shape, strict=True)) | {"y": page.shaped[2], "x": page.shaped[3]}
        sizes["c"] = layout.n_channels  # 0: no such axis, also where a grey plane and its alpha are separate planes
        sizes = {axis: size for axis, size in sizes.items() if axis != "c" or size}
        axes = "".join(axis for axis in AXIS_ORDER if axis in sizes)
        calibration = read_calibration(self._tif, self._series, self._number, self._ome, is_chosen=self._is_chosen)
        dtype = np.dtype(self._series.dtype).newbyteorder("=")
        is_rgb = page.photometric in (tiff_samples.RGB, tiff_samples.YCBCR) and layout.n_channels == 3
        names = ("R", "G", "B") if is_rgb else calibration.channel_names or layout.samples.names
        n_series = len(self._tif.series)
        if n_series > 1:
            image = self._ome.image_of(self._series)
            name = image.title if image is not None else self._series.name or "unnamed"
            notes = [f"series {self._number} of {n_series} ({name})", *notes]
        if names and len(names) != sizes.get("c", 1):
            notes.append(f"the file names {len(names)} channels, but has {sizes.get('c', 1)}; the names are not used")
        segment = (0, 0) if self._is_raw() else segment_shape(page)
        return ImageInfo(
            "tiff",
            axes,
            tuple(sizes[axis] for axis in axes),
            str(dtype),
            tuple(calibration.pixel_size.get(axis) for axis in axes),
            names if len(names) == sizes.get("c") else (),
            is_rgb=is_rgb,
            segment=segment,
            segment_bytes=math.prod(segment) * layout.interleaved * dtype.itemsize,
            files=self._list_files(),
            notes=(*notes, *tiff_samples.note_missing(self._tif, page), *calibration.notes),
            is_lossy=tiff_samples.is_lossy(page),
        )

    def _list_files(self) -> tuple[str, ...]:
        own = {self._path, self._ome.companion} - {""}
        if not self._series.is_multifile:
            return tuple(sorted(own))
        return tuple(sorted(own | {page.parent.filehandle.path for page in self._series if page is not None}))

    def _is_raw(self) -> bool:
        """Whether rows can be read from the file as they are."""
        return bool(self._page.is_final) and self._series.transform is None

    def _check_length(self) -> None:
        """Refuse a file that ends before its first or last page does; the other pages are checked when read."""
        n_pages = math.prod(self._layout.lead_shape) // self._layout.separate
        for number in {0, n_pages - 1}:
            page, offset = self._find_page(number)
            ends = [a + b for a, b in zip(page.dataoffsets, page.databytecounts, strict=False) if b]
            end = max(ends, default=0) if offset is None else offset + page.nbytes
            size = page.parent.filehandle.size
            if end > size and not page.parent.filehandle.closed:
                raise InputError(
                    f"input={self._path} is cut short: page {number} reaches byte {end}, but the file has "
                    f"{size}. It may still be being copied."
                )

    def _find_page(self, number: int) -> tuple[Any, int | None]:
        """A page, and where its pixels begin if they can be read as they are."""
        with self._lock:
            if self._raw_offset is not None:  # the pixels of all pages are one run in the file
                page = self._series[0]
                return page, self._raw_offset + number * page.nbytes
            page = self._series[number]
        if page is None or page.keyframe is None:
            raise UnreadableChunkError(f"{self._path}: plane {number} is missing.")
        return page, page.dataoffsets[0] if self._is_raw() else None

    def read(self, box: Box) -> np.ndarray:
        """See `pipeline.readers.reader.Reader`."""
        part = dict(zip(self.info.axes, box, strict=True))
        out = np.empty([s.stop - s.start for s in box], self.info.dtype)
        lead = tuple(part.get(axis, slice(0, 1)) for axis in self._layout.lead_axes)
        for index in indices_of(lead):
            plane = self._read_plane(index, part["y"], part["x"])
            at = {a: i - s.start for a, i, s in zip(self._layout.lead_axes, index, lead, strict=True)}
            target = tuple(at.get(axis, slice(None)) for axis in self.info.axes)
            if self._layout.interleaved > 1 and "c" in self.info.axes:
                out[target] = np.moveaxis(plane[..., part["c"]], -1, 0)
            else:
                out[target] = plane[..., 0]
            if self._layout.samples.alpha_out:
                self._watch_alpha(index, plane, part)
        return out

    def _watch_alpha(self, index: tuple[int, ...], plane: np.ndarray, part: dict[str, slice]) -> None:
        """Warn where the alpha channel that is left out says something."""
        if self._layout.separate > 1:  # it is a plane of its own, after the colours
            at = self._layout.lead_axes.index("c")
            if index[at] != part.get("c", slice(0, 1)).start:
                return
            index = (*index[:at], self._layout.separate - 1, *index[at + 1 :])
            plane = self._read_plane(index, part["y"], part["x"])
        self._cache.warn_of_alpha(self._path, plane[..., -1], f"axes={tiff_samples.yxc_or_cyx(self._page)}")

    def _read_plane(self, index: tuple[int, ...], rows: slice, columns: slice) -> np.ndarray:
        """A box of one sample plane, (y, x, interleaved sample)."""
        position = int(np.ravel_multi_index(index, self._layout.lead_shape)) if index else 0
        number, sample = divmod(position, self._layout.separate)
        page, offset = self._find_page(number)
        if offset is not None:
            return self._read_rows(page, offset, sample, rows, columns)
        out = np.empty(
            (rows.stop - rows.start, columns.stop - columns.start, self._layout.interleaved), self.info.dtype
        )
        height, width = segment_shape(self._page)
        grid = [
            ceil_divide(size, segment) for size, segment in zip(self._page.shaped[2:4], (height, width), strict=True)
        ]
        for (row, *row_parts), (column, *column_parts) in itertools.product(
            overlapping_segments(rows.start, rows.stop, height),
            overlapping_segments(columns.start, columns.stop, width),
        ):
            segment = (sample * grid[0] + row) * grid[1] + column
            values = self._cache.get(
                (self._path, number, segment), functools.partial(self._decode, page, number, segment)
            )
            out[row_parts[1], column_parts[1]] = values[row_parts[0], column_parts[0]]
        return out

    def _read_rows(self, page: Any, offset: int, sample: int, rows: slice, columns: slice) -> np.ndarray:
        """Uncompressed pixels, row by row: for a box of a wide image, only the box's own columns are read.

        Not memory-mapped: a file that shrinks, or a network drive that goes away, would kill the process.
        """
        _, _, length, width, samples = page.keyframe.shaped
        dtype = np.dtype(page.keyframe.parent.byteorder + self._series.dtype.char)
        out = np.empty((rows.stop - rows.start, columns.stop - columns.start, samples), dtype)
        pixel_bytes = samples * dtype.itemsize
        start = offset + (sample * length * width + columns.start) * pixel_bytes
        with open(page.parent.filehandle.path, "rb", buffering=0) as file:
            for number, row in enumerate(out, rows.start):
                file.seek(start + number * width * pixel_bytes)
                if file.readinto(memoryview(row).cast("B")) != row.nbytes:
                    raise UnreadableChunkError(f"{self._path}: the file ends within row {number} of its pixels.")
        return out

    def _decode(self, page: Any, number: int, segment: int) -> np.ndarray:
        """One tile or strip, (y, x, interleaved sample); if the file leaves it out, filled with its "no data" value."""
        keyframe = page.keyframe
        try:
            values = self._decode_segment(page, segment)
        except Exception as error:  # codecs raise classes of their own
            kind = "tile" if keyframe.is_tiled else "strip"
            raise UnreadableChunkError(
                f"{self._path}: page {number}, {kind} {segment} cannot be decoded: {error}"
            ) from error
        if values is None:
            shape = (*segment_shape(keyframe), self._layout.interleaved)
            return np.full(shape, tiff_samples.missing_value(self._tif, keyframe), self.info.dtype)
        if self._series.transform is not None:
            values = self._series.transform(values)
        return values[0].astype(self.info.dtype, copy=False)

    def _decode_segment(self, page: Any, segment: int) -> np.ndarray | None:
        """(depth, y, x, interleaved sample) as tifffile decodes it; None if the file leaves it out."""
        keyframe = page.keyframe
        if segment >= len(page.databytecounts):  # Philips leaves out the last row of tiles
            return None
        offset, count = page.dataoffsets[segment], page.databytecounts[segment]
        if not offset or not count:
            return None
        data = self._files.read(page.parent.filehandle, offset, count)
        if len(data) < count:
            raise ValueError(f"{count} bytes expected, {len(data)} left in the file")
        tables = {}
        if keyframe.compression in tiff_samples.JPEG:
            tables = {"jpegtables": page.jpegtables, "jpegheader": keyframe.jpegheader}
        return keyframe.decode(data, segment, **tables)[0]

    def as_meant(self, axes: str | None = None) -> Reader:
        """The reader, or one around it that gives brightness and colours, the right way up."""
        try:
            orientation = int(self._page.tags.valueof(_ORIENTATION, default=1))
            return turn_upright(tiff_samples.show_as_meant(self, self._tif, self._page, axes), orientation)
        except Exception as error:  # damaged tags
            self.close()
            raise _damaged(self._path, error) from error

    def close(self) -> None:
        """Close the file."""
        if hasattr(self, "_files"):
            self._files.clear()
        self._tif.close()


def _open_tiff(path: str, companion: str) -> tuple[tifffile.TiffFile, OmeFile]:
    try:
        return open_tiff(path, companion)
    except OSError as error:
        raise InputError(f"input={path} cannot be opened: {error}") from error
    except Exception as error:  # damaged directories surface as struct, index and value errors
        raise _damaged(path, error) from error


def _damaged(path: str, error: Exception) -> InputError:
    return InputError(f"input={path}: its TIFF directory is damaged or cut short: {error}")


def _choose_series(tif: tifffile.TiffFile, path: str, series: int | None) -> tuple[int, Any]:
    found = [(number, one) for number, one in enumerate(tif.series) if {"Y", "X"} <= set(one.axes)]
    if not found:
        raise InputError(f"input={path}: the TIFF holds no image.")
    if series is None:
        here = [item for item in found if any(page is not None and page.parent is tif for page in item[1])]
        return max(here or found, key=lambda item: (math.prod(item[1].keyframe.shaped[2:4]), -item[0]))
    if series not in dict(found):
        raise InputError(f"series={series}, expected one of {sorted(dict(found))}: {path} has no other.")
    return series, dict(found)[series]
