"""The only file that opens and creates Zarr: images in, multiscale groups out, which shards are there.

A location is a local path or an fsspec URL (``s3://bucket/slide.zarr``). Shards of local stores are written
aside and renamed, those of object stores are put whole: a shard is there completely or not at all, which is
what resuming rests on.
"""

import contextlib
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr
from zarr.abc.store import Store
from zarr.codecs import ZstdCodec
from zarr.core.sync import sync
from zarr.errors import ArrayNotFoundError, ContainsArrayError, GroupNotFoundError, NodeTypeValidationError
from zarr.storage import FsspecStore, LocalStore

from pipeline import ome
from pipeline.errors import InputError, OutputError, PipelineError

SHOWN_DTYPES = ("uint8", "uint16", "uint32", "uint64", "float32")  # what every viewer can show
_ZSTD_LEVEL = 3  # the library's default; label maps shrink 50-fold at any level
_NOT_FOUND = (FileNotFoundError, ArrayNotFoundError, GroupNotFoundError, NodeTypeValidationError, ContainsArrayError)
_DAMAGED = (ValueError, KeyError, TypeError)  # what zarr raises on metadata that are not its own, or cut off
_UNFINISHED = re.compile(r"\.[0-9a-f]{32}\.partial$")  # zarr's LocalStore writes aside under such a name


def is_remote(location: str) -> bool:
    """Whether a location is a URL and not a local path."""
    return "://" in location


def resolve_location(location: str | Path) -> str:
    """Absolute path, or the URL, without a trailing slash; ``file://`` is a path: only paths are renamed whole."""
    text = str(location).removeprefix("file://").rstrip("/") or "/"
    return text if is_remote(text) else os.path.abspath(os.path.expanduser(text))


def join(location: str, *parts: str) -> str:
    """A path below a location."""
    return "/".join(part for part in (location, *parts) if part)


@contextlib.contextmanager
def _failing_as(what: str, *, remote: bool) -> Iterator[None]:
    """Say as `OutputError` what a file system raises, or an object store's back end with classes of its own."""
    try:
        yield
    except PipelineError:
        raise
    except Exception as error:
        if remote or isinstance(error, OSError):
            raise OutputError(f"{what}: {error}") from error
        raise


def open_store(location: str, *, writable: bool = False) -> Store:
    """The Zarr store at a location."""
    if is_remote(location):
        return FsspecStore.from_url(location, read_only=not writable)
    return LocalStore(location, read_only=not writable)


def open_array(
    location: str, path: str = "", *, writable: bool = False, zarr_format: Literal[2, 3] | None = None
) -> zarr.Array[Any]:
    """An array, opened anew: a handle kept in a long-lived worker would outlive an output made again.

    Blocks of all background are written like any other (`write_empty_chunks`), so that a shard's presence says
    that its block is done. With a known format (what we write is 3) only that one's metadata are looked for: two
    requests of an object store instead of six, at each block.

    Raises
    ------
    OutputError
        If it is to be written and is not there (any more).
    """
    store = open_store(location, writable=writable)
    if not writable:
        return zarr.open_array(store, path=path, mode="r", zarr_format=zarr_format)
    with _failing_as(f"{join(location, path)} cannot be written", remote=is_remote(location)):
        return zarr.open_array(store, path=path, mode="r+", zarr_format=3).with_config({"write_empty_chunks": True})


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

    @property
    def axes(self) -> str:
        """One letter per dimension."""
        return self.multiscale.axes

    def size(self, axis: str) -> int:
        """Pixels along an axis, 1 if the image does not have it."""
        return self.shape[self.axes.index(axis)] if axis in self.axes else 1

    def array(self) -> zarr.Array[Any]:
        """The array itself, opened for reading."""
        return open_array(self.location, self.array_path, zarr_format=self.zarr_format)


def describe_image(location: str | Path, *, level: int = 0, axes: str | None = None) -> StoredImage:
    """Find the image at a location: an OME-Zarr 0.4 or 0.5 group, or a bare Zarr array with its axes.

    Parameters
    ----------
    location : path-like or URL
        Group or array.
    level : int
        Resolution of an OME-Zarr image, 0 the finest.
    axes : str, optional
        Axes of a bare array, e.g. "cyx"; refused for an OME-Zarr image, whose metadata say it.

    Raises
    ------
    InputError
        If nothing is there, it is not Zarr, or its axes are unknown.
    """
    location = resolve_location(location)
    node = _open_node(location)
    if isinstance(node, zarr.Array):
        return _describe_bare_array(location, node, axes)
    multiscale = ome.parse_multiscale(dict(node.attrs), location)
    if multiscale is None:
        raise InputError(_explain_group(location, node))
    if axes is not None:
        raise InputError(
            f"--axes={axes!r} was given, but {location} is OME-Zarr and says axes={multiscale.axes!r} itself; "
            f"leave --axes out."
        )
    if not 0 <= level < len(multiscale.levels):
        raise InputError(f"level={level}, expected 0 to {len(multiscale.levels) - 1}: {location} has no other.")
    path = multiscale.levels[level].path
    try:
        array = open_array(location, path)
    except (*_NOT_FOUND, *_DAMAGED) as error:
        raise InputError(f"{location}: level {level} names the array {path!r}, which is missing or damaged.") from error
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
    file_shape = array.shards or array.chunks
    return StoredImage(
        location, path, array.shape, file_shape, str(array.dtype), multiscale, level, is_ome, array.metadata.zarr_format
    )


def _open_node(location: str) -> zarr.Array[Any] | zarr.Group:
    if not is_remote(location) and not os.path.exists(location):
        raise InputError(f"input={location}: no such file or directory.")
    if os.path.isfile(location):
        raise InputError(f"input={location} is a file, expected a Zarr directory; convert it: segment-slide ingest.")
    try:
        return zarr.open(open_store(location), mode="r")
    except _NOT_FOUND as error:
        raise InputError(
            f"input={location} is not Zarr (no zarr.json, .zgroup or .zarray in it); "
            f"convert other formats with: segment-slide ingest."
        ) from error
    except _DAMAGED as error:
        raise InputError(f"input={location}: its Zarr metadata cannot be read: {error}") from error
    except Exception as error:  # fsspec back ends raise classes of their own (botocore, aiohttp, …)
        if not is_remote(location):
            raise
        raise InputError(f"input={location} cannot be reached: {type(error).__name__}: {error}") from error


def _describe_bare_array(location: str, array: zarr.Array[Any], axes: str | None) -> StoredImage:
    if axes is None:
        raise InputError(
            f"input={location} is a bare Zarr array of shape {array.shape} without axes; "
            f"say them with --axes, one letter of 'tczyx' per dimension, for example "
            f"{'tczyx'[-min(array.ndim, 5) :]}."
        )
    ome.check_axes(axes, location)
    if len(axes) != array.ndim:
        raise InputError(f"axes={axes!r} names {len(axes)} dimensions, but {location} has shape {array.shape}.")
    ones, zeros = (1.0,) * array.ndim, (0.0,) * array.ndim
    multiscale = ome.Multiscale(axes, (None,) * array.ndim, (ome.Level("", ones, zeros),))
    return _stored_image(location, "", array, multiscale, is_ome=False)


def _explain_group(location: str, group: zarr.Group) -> str:
    attributes: dict[str, Any] = dict(group.attrs)
    attributes |= attributes.get("ome", {})
    if "bioformats2raw.layout" in attributes:
        return f"input={location} is a collection of images; name one of them, for example {location}/0."
    if "plate" in attributes:
        return f"input={location} is a plate; name one field of view, for example {location}/A/1/0."
    return (
        f"input={location} is a Zarr group without OME-Zarr 'multiscales' metadata; "
        f"name the array inside it and its --axes."
    )


@dataclass(frozen=True)
class ArraySpec:
    """One array to create: shard = what one task writes, chunk = what a viewer fetches."""

    path: str
    shape: tuple[int, ...]
    shard: tuple[int, ...]
    chunk: tuple[int, ...]
    dtype: str
    axes: str

    @property
    def n_shards(self) -> int:
        """Files of this array."""
        return math.prod(-(-size // shard) for size, shard in zip(self.shape, self.shard, strict=True))


def create_group(location: str, path: str, arrays: Sequence[ArraySpec], attributes: Mapping[str, Any]) -> None:
    """Create a group with its arrays, without any chunk; a group that is there keeps its other attributes.

    The group's attributes come last: a group that has them is complete, and an interrupted creation is done again
    with the same bytes.

    Raises
    ------
    OutputError
        If the location cannot be written.
    """
    with _failing_as(f"output={join(location, path)} cannot be created", remote=is_remote(location)):
        store = open_store(location, writable=True)
        for spec in arrays:
            zarr.create_array(
                store,
                name=f"{path}/{spec.path}".lstrip("/"),
                shape=spec.shape,
                shards=spec.shard,
                chunks=spec.chunk,
                dtype=spec.dtype,
                compressors=ZstdCodec(level=_ZSTD_LEVEL),
                fill_value=0,
                dimension_names=tuple(spec.axes),
                overwrite=True,
            )
        try:
            zarr.open_group(store, path=path, mode="r+").attrs.update(dict(attributes))
        except _NOT_FOUND:
            zarr.create_group(store, path=path, attributes=dict(attributes), zarr_format=3)


def read_attributes(location: str, path: str = "") -> dict[str, Any] | None:
    """Attributes of a group, or None if no Zarr group is there.

    Raises
    ------
    PipelineError
        If the group's metadata are damaged, or the store cannot be reached.
    """
    where = join(location, path)
    with _failing_as(f"{where} cannot be reached", remote=is_remote(location)):
        try:
            return dict(zarr.open_group(open_store(location), path=path, mode="r").attrs)
        except _NOT_FOUND:
            return None
        except _DAMAGED as error:
            raise PipelineError(f"{where}: its Zarr metadata cannot be read: {error}") from error


def update_attributes(location: str, path: str, attributes: Mapping[str, Any]) -> None:
    """Set some attributes of an existing group."""
    zarr.open_group(open_store(location, writable=True), path=path, mode="r+").attrs.update(dict(attributes))


def is_occupied(location: str) -> bool:
    """Whether anything at all is at a location."""
    return is_file(location) or bool(list_names(location))


def list_names(location: str) -> set[str]:
    """Names in a directory or under a prefix, but for files that were not finished; empty if nothing is there.

    Raises
    ------
    OutputError
        If the store cannot be reached.
    """
    if not is_remote(location):
        names = os.listdir(location) if os.path.isdir(location) else []
        return {name for name in names if not _UNFINISHED.search(name)}
    import fsspec

    with _failing_as(f"{location} cannot be reached", remote=True):
        filesystem, path = fsspec.core.url_to_fs(location)
        try:
            return {name.rstrip("/").rsplit("/", 1)[-1] for name in filesystem.ls(path, detail=False)}
        except (FileNotFoundError, NotImplementedError):  # HTTP has no listing
            return set()


def stored_shards(location: str, array_path: str) -> set[tuple[int, ...]]:
    """Grid indices of the shards that are present."""
    prefix = f"{array_path}/c/"

    async def keys() -> list[str]:
        return [key async for key in store.list_prefix(prefix)]

    store = open_store(location)
    indices = (key.removeprefix(prefix).split("/") for key in sync(keys()))
    return {tuple(map(int, index)) for index in indices if all(part.isdigit() for part in index)}


def remove_leftovers(location: str, path: str, *, below: bool = True) -> None:
    """Delete files that a killed process had not finished writing (local stores write aside, then rename).

    Parameters
    ----------
    location, path : str
        Store, and the group in it.
    below : bool
        Look into its arrays and groups too.
    """
    if is_remote(location):
        return
    for file in Path(location, path).glob("**/*.partial" if below else "*.partial"):
        if _UNFINISHED.search(file.name):
            file.unlink(missing_ok=True)


def write_box(array: zarr.Array[Any], box: tuple[slice, ...], values: np.ndarray) -> None:
    """Write one whole shard (or its part inside the array).

    Raises
    ------
    OutputError
        If it cannot be written: a full disk, a lost connection.
    """
    with _failing_as(f"{array.store_path} cannot be written", remote=not isinstance(array.store, LocalStore)):
        array[box] = values


def is_file(location: str) -> bool:
    """Whether a local location is a plain file."""
    return os.path.isfile(location)
