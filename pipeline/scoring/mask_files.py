"""Masks that are not Zarr: TIFF and PNG files, or a folder of them, read completely into memory."""

import logging
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segment_slide.pipeline.errors import InputError
from segment_slide.pipeline.ingest.formats import list_files
from segment_slide.pipeline.ingest.grey import as_grey, may_be_grey
from segment_slide.pipeline.ingest.labels import open_labels
from segment_slide.pipeline.metadata.channels import find_channel, list_names, say_channels
from segment_slide.pipeline.readers.reader import ImageInfo
from segment_slide.pipeline.storage.complete import require_complete
from segment_slide.pipeline.storage.image import describe_image
from segment_slide.pipeline.storage.source import ImageSource, select_source
from segment_slide.pipeline.storage.store import is_zarr, resolve_location
from segment_slide.unet.boxes import Box

log = logging.getLogger(__name__)

MAX_PIXELS = 2**30  # takes 1 to 8 GiB in memory


@dataclass(frozen=True)
class ArraySource:
    """Pixels in memory that are read like those of an `ImageSource`.

    Parameters
    ----------
    location : str
        Where they come from, for messages.
    axes : str
        Plane axes, then "yx" or "zyx".
    pixels : ndarray
        Pixels with the axes `axes`.
    n_spatial : int
        2 or 3.
    """

    location: str
    axes: str
    pixels: np.ndarray
    n_spatial: int = 2

    @property
    def shape(self) -> tuple[int, ...]:
        """Size (px) on `axes`."""
        return self.pixels.shape

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """dtype of the blocks."""
        return self.pixels.dtype

    def read(self, box: Box) -> np.ndarray:
        """Pixels of a box inside the image, (*planes, 1, *spatial)."""
        return np.expand_dims(self.pixels[box], -self.n_spatial - 1)


Source = ImageSource | ArraySource


def open_source(
    location: str,
    *,
    n_spatial: int = 2,
    level: int = 0,
    axes: str | None = None,
    channel: str | int | None = None,
    files: Sequence[str] = (),
) -> Source:
    """Open labels or probabilities at a path: Zarr, which is read by blocks, or TIFF and PNG, which are read whole.

    Parameters
    ----------
    location : str
        OME-Zarr group, Zarr array (path or URL), TIFF or PNG file, or a folder of these.
    n_spatial : int
        2 (z is a plane axis) or 3.
    level : int
        Resolution of an OME-Zarr image.
    axes : str, optional
        Axes of a bare Zarr array, or of a TIFF that does not say them.
    channel : str or int, optional
        The channel to read, by name or number, if there are several.
    files : sequence of str
        Files of a folder to read, in order; by default all.

    Raises
    ------
    InputError
        If it cannot be read as one value per pixel, or is not complete.
    """
    if not is_zarr(resolve_location(location)):
        if level:
            raise InputError(f"level={level}, expected 0: {location} is no OME-Zarr and has no other.")
        return read_masks(location, n_spatial=n_spatial, axes=axes, channel=channel, files=files)
    image = describe_image(location, level=level, axes=axes)
    require_complete(image)
    if channel is None and image.size("c") > 1:
        raise _choice_is_needed(image.location, image.size("c"), image.multiscale.channel_names)
    return select_source(image, n_spatial=n_spatial, n_channels=1, channels=[] if channel is None else [channel])


def is_folder_of_files(location: str) -> bool:
    """Whether a path is a folder of TIFF and PNG files."""
    location = resolve_location(location)
    return not is_zarr(location) and os.path.isdir(location)


def read_masks(
    path: str | Path,
    *,
    n_spatial: int = 2,
    axes: str | None = None,
    channel: str | int | None = None,
    files: Sequence[str] = (),
) -> ArraySource:
    """Read a TIFF or PNG file, or a folder of pages, into memory.

    The pages of a folder are stacked along z, in natural order or in that of `files`.

    Raises
    ------
    InputError
        If nothing is there, or the image has several channels that differ and none is chosen, or is too large;
        or if it is JPEG.
    """
    reader = open_labels(tuple(files) or list_files([path]), axes)
    try:
        info = reader.info
        position = _check(info, str(path), n_spatial, channel)
        if info.decoding:
            log.warning("%s is read as viewers show it (%s), which is not how it is stored.", path, info.decoding)
        pixels = np.asarray(reader.read(tuple(slice(0, size) for size in info.shape)))
    finally:
        reader.close()
    if "c" in info.axes:
        pixels = _one_channel(np.moveaxis(pixels, info.axes.index("c"), 0), str(path), info, position)
    return ArraySource(str(path), info.axes.replace("c", ""), pixels, n_spatial)


def _choice_is_needed(path: str, n_channels: int, names: Sequence[str]) -> InputError:
    ways = say_channels(range(n_channels), n_channels, names)
    return InputError(
        f"{path} has {n_channels} channels, expected one value per pixel: a class, an id or a probability; of a "
        f"probability map choose one channel with `channel`: {list_names(ways)}."
    )


def _one_channel(channels: np.ndarray, path: str, info: ImageInfo, position: int | None) -> np.ndarray:
    """The chosen channel, or that of an image whose colours are equal."""
    if position is not None or len(channels) == 1:
        return channels[position or 0]
    grey = as_grey(channels)
    if grey is not None:
        return grey
    if info.is_rgb:
        raise InputError(
            f"{path} is an RGB image, expected one value per pixel (a class or an id): colours are no classes. "
            f"Save the mask as a grey or integer image."
        )
    raise _choice_is_needed(path, len(channels), info.channel_names)


def _check(info: ImageInfo, path: str, n_spatial: int, channel: str | int | None) -> int | None:
    """Refuse what has not one value per pixel; return the position of the chosen channel, if one was chosen."""
    n_channels = info.shape[info.axes.index("c")] if "c" in info.axes else 1
    if n_channels > 1 and channel is None and not may_be_grey(n_channels):
        raise _choice_is_needed(path, n_channels, info.channel_names)
    position = None if channel is None else find_channel(channel, n_channels, info.channel_names, path)
    if n_spatial == 3 and "z" not in info.axes:
        raise InputError(f"{path} has axes {info.axes!r}, but scores in 3D need z, y, x.")
    if math.prod(info.shape) > MAX_PIXELS:
        raise InputError(
            f"{path} has {math.prod(info.shape):,} values, more than the {MAX_PIXELS:,} that are read into memory; "
            f"convert it first: segment-slide ingest."
        )
    return position
