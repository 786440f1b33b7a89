"""CZI, LIF, ND2 and whatever else an installed `bioio` plugin opens (extra ``bioio``).

`bioio` gives a Dask array. Each of its blocks is what the plugin decodes at once, for some formats a whole plane.
Memory is planned from the size of these blocks; decoded blocks are kept in a `pipeline.readers.reader.SegmentCache`.
"""

import functools
import os
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np

from segment_slide.pipeline.errors import InputError, UnreadableChunkError
from segment_slide.pipeline.metadata.calibration import Calibration, calibration_of
from segment_slide.pipeline.metadata.numbers import Size, read_size
from segment_slide.pipeline.readers.reader import ImageInfo, SegmentCache
from segment_slide.pipeline.storage.ome import AXIS_ORDER
from segment_slide.unet.boxes import Box


class BioioReader:
    """An image that `bioio` opens.

    Parameters
    ----------
    path : str
        The file.
    cache : SegmentCache
        Where decoded blocks are kept.
    series : int, optional
        Scene, the first by default.
    axes : str, optional
        Axes that the user named; with a "c" among them the fourth sample of a colour is kept.
    """

    def __init__(self, path: str, cache: SegmentCache, *, series: int | None = None, axes: str | None = None) -> None:
        self._path, self._cache = path, cache
        image, n_scenes = _open_image(path, series or 0)
        xarray = image.xarray_dask_data.squeeze([d for d, n in image.dims.items() if n == 1 and d not in "YX"])
        letters = "".join(xarray.dims).lower().replace("s", "c")
        if set(letters) - set(AXIS_ORDER) or len(set(letters)) != len(letters):
            raise InputError(
                f"input={path}: axes={''.join(xarray.dims)!r}, expected a subset of TCZYX, or YXS for RGB."
            )
        order = sorted(range(len(letters)), key=lambda axis: AXIS_ORDER.index(letters[axis]))
        samples = xarray.sizes.get("S", 0)
        alpha_out = samples == 4 and xarray.dtype == np.uint8 and "c" not in (axes or "")
        if alpha_out:
            xarray = xarray.isel(S=slice(3))
            samples = 3
        self._array = xarray.data.transpose(order)
        self.info = _describe(path, image, self._array, "".join(letters[axis] for axis in order), samples, n_scenes)
        if alpha_out:
            note = "the 4th channel is taken for alpha and not used; `axes=yxc` keeps it"
            self.info = replace(self.info, notes=(*self.info.notes, note))

    def read(self, box: Box) -> np.ndarray:
        """See `pipeline.readers.reader.Reader`."""
        out = np.empty([part.stop - part.start for part in box], self.info.dtype)
        for block, inside, target in _overlapping_blocks(self._array.chunks, box):
            values = self._cache.get((self._path, block), functools.partial(self._decode, block))
            out[target] = values[inside]
        return out

    def _decode(self, block: tuple[int, ...]) -> np.ndarray:
        try:
            return np.asarray(self._array.blocks[block].compute(scheduler="synchronous"))
        except Exception as error:  # plugins raise classes of their own
            raise UnreadableChunkError(f"{self._path}: bioio cannot decode block {block}: {error}") from error

    def close(self) -> None:
        """Nothing is open: bioio opens the file for each block."""


def _open_image(path: str, scene: int) -> tuple[Any, int]:
    """(bioio.BioImage, number of scenes)."""
    from bioio import BioImage

    try:
        image = _with_plane_chunks(BioImage, path)
        n_scenes = len(image.scenes)
        if scene >= n_scenes:
            raise InputError(f"series={scene}, expected 0 to {n_scenes - 1}: {path} has no other.")
        image.set_scene(scene)
        _ = image.dims
        return image, n_scenes
    except InputError:
        raise
    except Exception as error:  # plugins raise classes of their own
        raise InputError(
            f"input={path}: bioio cannot open it ({type(error).__name__}: {str(error)[:300]}). Each format needs its "
            f"plugin, for example pip install bioio-czi for CZI."
        ) from error


def _with_plane_chunks(bio_image: Any, path: str) -> Any:
    """The image with one plane per block where the plugin lets us choose (by default some read whole volumes)."""
    try:
        image = bio_image(path, chunk_dims=["Y", "X"])
        _ = image.dims
        return image
    except TypeError:
        return bio_image(path)


def _describe(path: str, image: Any, array: Any, axes: str, samples: int, n_scenes: int) -> ImageInfo:
    found = _calibrate(image)
    is_rgb = samples == 3
    names = found.channel_names if not is_rgb else ("R", "G", "B")
    block = tuple(max(lengths) for lengths in array.chunks)
    notes = [f"series {image.current_scene_index} of {n_scenes}"] if n_scenes > 1 else []
    return ImageInfo(
        "bioio",
        axes,
        tuple(int(size) for size in array.shape),
        str(array.dtype.newbyteorder("=")),
        tuple(found.pixel_size.get(axis) for axis in axes),
        names if "c" in axes and len(names) == array.shape[axes.index("c")] else (),
        is_rgb=is_rgb,
        segment=block[-2:],
        segment_bytes=int(np.prod(block)) * array.dtype.itemsize,
        files=(os.path.abspath(path),),
        notes=(*notes, *found.notes),
    )


def _calibrate(image: Any) -> Calibration:
    """What a plugin says of sizes and names; in um and s, unless it names other units."""
    said, sizes = _say(image, "physical_pixel_sizes"), {}
    for axis in "zyx":
        value = getattr(said, axis.upper(), None)
        unit = "um" if value is None else _unit_of(image, axis, value)
        sizes[axis] = read_size(value, unit, f"pixel size along {axis}")
    interval = _say(image, "time_interval")
    seconds = interval.total_seconds() if isinstance(interval, timedelta) else None
    sizes["t"] = Size() if not seconds else read_size(seconds, "s", "time interval", "time")
    return calibration_of(sizes, _say(image, "channel_names") or ())


def _unit_of(image: Any, axis: str, value: float) -> Any:
    """The unit of a size: some plugins give a file's number as it is, and its unit only in OME metadata."""
    stated = getattr(getattr(_say(image, "dimension_properties"), axis.upper(), None), "unit", None)
    if stated is not None:
        return stated
    images = getattr(_say(image, "ome_metadata"), "images", None) or []
    scene = _say(image, "current_scene_index") or 0
    pixels = getattr(images[scene], "pixels", None) if scene < len(images) else None
    if getattr(pixels, f"physical_size_{axis}", None) != value:
        return "um"
    unit = getattr(pixels, f"physical_size_{axis}_unit", "um")
    return getattr(unit, "value", unit)


def _say(image: Any, name: str) -> Any:
    """What a plugin says; None if it has no such property or fails to find it: pixels are read without it."""
    try:
        return getattr(image, name, None)
    except Exception:  # noqa: BLE001, plugins raise classes of their own
        return None


def _overlapping_blocks(chunks: tuple[tuple[int, ...], ...], box: Box) -> list[tuple[tuple[int, ...], Box, Box]]:
    """(block, where in the block, where in the box) for each block that a box touches."""
    found: list[tuple[tuple[int, ...], Box, Box]] = [((), (), ())]
    for lengths, part in zip(chunks, box, strict=True):
        ends = np.cumsum(lengths)
        touched = []
        for number in range(int(np.searchsorted(ends, part.start, "right")), len(lengths)):
            origin = int(ends[number]) - lengths[number]
            if origin >= part.stop:
                break
            first, last = max(part.start, origin), min(part.stop, int(ends[number]))
            touched.append((number, slice(first - origin, last - origin), slice(first - part.start, last - part.start)))
        found = [((*b, n), (*i, s), (*t, d)) for b, i, t in found for n, s, d in touched]
    return found
