"""What is known of a stored image before a pixel is read: an OME-Zarr level, or a bare Zarr array with its axes."""

import math
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr

from segment_slide.pipeline.errors import InputError, PipelineError, UnknownAxesError, UnreachableError
from segment_slide.pipeline.limits.failures import DAMAGED, NOT_FOUND, in_short
from segment_slide.pipeline.storage import ome
from segment_slide.pipeline.storage.collection import attributes_of, children, explain_group, is_array, only_image, some
from segment_slide.pipeline.storage.store import (
    is_remote,
    join,
    open_array,
    open_store,
    resolve_location,
)
from segment_slide.pipeline.zarr_stores.archive import split_archive

MOST_CHUNK_BYTES = 64 << 30  # no codec makes more than 2 GB; a chunk without compression may be as large as a file
_CHUNKS_AT_A_TIME = 10  # zarr's setting async.concurrency


@dataclass(frozen=True)
class StoredImage:
    """What is known of an image in a store without reading a pixel.

    Attributes
    ----------
    location : str
        Where the group or the bare array is.
    array_path : str
        The chosen level's array, relative to `location` ("" for a bare array).
    shape, chunks : tuple of int
        In pixels, per axis; `chunks` is what one file decodes to.
    dtype : str
        numpy name.
    multiscale : Multiscale
        Axes, calibration, names; of a bare array a single level with scale 1.
    level : int
        Which level `array_path` is.
    is_ome : bool
        Whether the metadata come from OME-Zarr.
    zarr_format : int
        2 or 3.
    inner_chunks : tuple of int
        What is decoded at once, in pixels: smaller than `chunks` if these are shards; empty if the same.
    notes : str
        Folder of the list of what is read (`storage.source.read_stored`); "" for no list.
    """

    location: str
    array_path: str
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: str
    multiscale: ome.Multiscale
    level: int = 0
    is_ome: bool = True
    zarr_format: Literal[2, 3] = 3
    inner_chunks: tuple[int, ...] = ()
    notes: str = ""

    @property
    def axes(self) -> str:
        """One letter per dimension."""
        return self.multiscale.axes

    def size(self, axis: str) -> int:
        """Pixels along an axis, 1 if the image does not have it."""
        return self.shape[self.axes.index(axis)] if axis in self.axes else 1

    @property
    def decoding_bytes(self) -> int:
        """Bytes of the chunks that one read decodes at a time, at most."""
        chunk = self.inner_chunks or self.chunks
        n_chunks = math.prod(-(-size // step) for size, step in zip(self.shape, chunk, strict=True))
        return min(n_chunks, _CHUNKS_AT_A_TIME) * math.prod(chunk) * np.dtype(self.dtype).itemsize

    def array(self) -> zarr.Array[Any]:
        """The array itself, opened for reading."""
        return open_array(self.location, self.array_path, zarr_format=self.zarr_format)


def describe_image(location: str | Path, *, level: int = 0, axes: str | None = None) -> StoredImage:
    """Find the image at a location: an OME-Zarr group (0.1 to 0.5), or a bare Zarr array with its axes.

    Parameters
    ----------
    location : path-like or URL
        Group or array, in a folder or a zip archive. Of a collection with one image, it is this image.
    level : int
        Resolution of an OME-Zarr image, 0 the finest.
    axes : str, optional
        Axes of a bare array, e.g. "cyx"; refused for an OME-Zarr image, whose metadata name its axes.

    Raises
    ------
    InputError
        If nothing is there, it is not Zarr, or its axes are unknown.
    """
    location = resolve_location(location)
    node = _open_node(location)
    if not isinstance(node, zarr.Array) and (only := only_image(location, dict(node.attrs))):
        return describe_image(only, level=level, axes=axes)
    if isinstance(node, zarr.Array):
        return _describe_bare_array(location, node, axes)
    multiscale = ome.parse_multiscale(dict(node.attrs), location)
    if multiscale is None:
        raise explain_group(location, dict(node.attrs))
    if axes is not None:
        raise InputError(
            f"`axes`={axes!r} was given, but {location} is OME-Zarr and says axes={multiscale.axes!r} itself; "
            f"leave `axes` out."
        )
    if not 0 <= level < len(multiscale.levels):
        raise InputError(f"level={level}, expected 0 to {len(multiscale.levels) - 1}: {location} has no other.")
    path = multiscale.levels[level].path
    try:
        array = open_array(location, path)
    except (*NOT_FOUND, *DAMAGED) as error:
        there = [str(n) for n, other in enumerate(multiscale.levels) if n != level and is_array(location, other.path)]
        choice = f" Other levels are there; choose with `level`: {', '.join(there)}." if there else ""
        raise InputError(
            f"{location}: level {level} names the array {path!r}, which is missing or damaged: "
            f"{in_short(error)}{choice}"
        ) from error
    except Exception as error:  # fsspec back ends raise classes of their own (botocore, aiohttp, …)
        if not is_remote(location):
            raise
        raise UnreachableError(f"{join(location, path)} cannot be reached: {type(error).__name__}: {error}") from error
    if len(array.shape) != len(multiscale.axes):
        raise InputError(f"{location}: array {path!r} has shape {array.shape}, but axes are {multiscale.axes!r}.")
    return _stored_image(location, path, array, multiscale, level=level)


def _stored_image(
    location: str, path: str, array: zarr.Array[Any], multiscale: ome.Multiscale, level: int = 0, is_ome: bool = True
) -> StoredImage:
    if 0 in array.shape:
        raise InputError(f"{location}: shape={array.shape} has no pixels.")
    if array.dtype.kind not in "buif" or array.dtype.itemsize > 8:
        raise InputError(f"{location}: dtype={array.dtype}, expected integers or real numbers.")
    if not array.dtype.itemsize * math.prod(array.chunks) <= MOST_CHUNK_BYTES:
        raise InputError(
            f"{location}: a chunk of {array.chunks} px of {array.dtype} has "
            f"{array.dtype.itemsize * math.prod(array.chunks):,} bytes, expected at most {MOST_CHUNK_BYTES:,}, because "
            f"it is decoded as a whole. Store the image in smaller chunks."
        )
    files, zarr_format = array.shards or array.chunks, array.metadata.zarr_format
    about = (multiscale, level, is_ome, zarr_format, array.chunks)
    return StoredImage(location, path, array.shape, files, str(array.dtype), *about)


def _open_node(location: str) -> zarr.Array[Any] | zarr.Group:
    archive = split_archive(location)
    if not is_remote(location) and not os.path.exists(location) and not archive:
        raise InputError(f"input={location}: no such file or directory.")
    if os.path.isfile(location) and not archive:
        to_do = (
            "give it a name that ends with .zarr.zip"
            if zipfile.is_zipfile(location)
            else "convert it: segment-slide ingest"
        )
        raise InputError(f"input={location} is a file, expected a Zarr directory; {to_do}.")
    try:
        return zarr.open(open_store(location), mode="r", use_consolidated=False)  # copies of metadata may be older
    except NOT_FOUND as error:
        if inside := [path for path in children(location) if attributes_of(path) is not None]:
            raise InputError(f"input={location} holds several Zarr stores; name one{some(inside)}.") from error
        raise InputError(
            f"input={location} is not Zarr (no zarr.json, .zgroup or .zarray in it); "
            f"convert other formats with: segment-slide ingest."
        ) from error
    except PipelineError:
        raise
    except DAMAGED as error:
        raise InputError(f"input={location}: its Zarr metadata cannot be read: {in_short(error)}.") from error
    except Exception as error:  # fsspec back ends raise classes of their own (botocore, aiohttp, …)
        if not is_remote(location):
            raise
        raise UnreachableError(f"input={location} cannot be reached: {type(error).__name__}: {error}") from error


def _describe_bare_array(location: str, array: zarr.Array[Any], axes: str | None) -> StoredImage:
    if axes is None:
        raise UnknownAxesError(
            f"input={location} is a bare Zarr array of shape {array.shape} without axes",
            f"say them with `axes`, one letter of 'tczyx' per dimension, for example {'tczyx'[-min(array.ndim, 5) :]}.",
        )
    ome.check_axes(axes, location)
    if len(axes) != array.ndim:
        raise InputError(f"axes={axes!r} names {len(axes)} dimensions, but {location} has shape {array.shape}.")
    ones, zeros = (1.0,) * array.ndim, (0.0,) * array.ndim
    multiscale = ome.Multiscale(axes, (None,) * array.ndim, (ome.Level("", ones, zeros),))
    return _stored_image(location, "", array, multiscale, is_ome=False)
