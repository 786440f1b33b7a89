"""The only file that opens and creates Zarr stores, groups and arrays, and knows which shards are there.

A location is a local path or an fsspec URL (``s3://bucket/slide.zarr``). Shards of local stores are written
under a temporary name and then renamed; shards of object stores are uploaded whole. So a shard is there completely or
not at all. Resuming relies on that.
"""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr
from zarr.abc.store import Store
from zarr.codecs import ZstdCodec
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import FsspecStore, LocalStore, MemoryStore

from segment_slide.pipeline.blocks.array_spec import ArraySpec
from segment_slide.pipeline.errors import InputError, MissingError, UnreachableError
from segment_slide.pipeline.limits.bounded import bounded
from segment_slide.pipeline.limits.failures import NOT_FOUND, failing_as, reading_metadata
from segment_slide.pipeline.metadata.junk import is_junk
from segment_slide.pipeline.zarr_stores import archive
from segment_slide.pipeline.zarr_stores.archive import ZARR_METADATA, split_archive
from segment_slide.pipeline.zarr_stores.checked import CheckedStore, is_web, web_options
from segment_slide.pipeline.zarr_stores.written import NOTES_NAME, NotingStore

_ZSTD_LEVEL = 3  # label maps shrink 25-fold and more at any level; this one is far faster than networks compute
_SCHEME, _QUERY = re.compile(r"^[A-Za-z0-9+]+://"), re.compile(r"[?#].*")
_UNFINISHED = re.compile(r"\.[0-9a-f]{32}\.partial$")  # temporary names of zarr's LocalStore


def is_remote(location: str) -> bool:
    """Whether a location is a URL and not a local path."""
    return "://" in location


def resolve_location(location: str | Path) -> str:
    """Absolute path, or the URL, without a trailing slash; ``file://`` becomes a path: only paths can be renamed."""
    text = _SCHEME.sub(lambda found: found[0].lower(), str(location)).removeprefix("file://").rstrip("/") or "/"
    return text if is_remote(text) else os.path.abspath(os.path.expanduser(text))


def join(location: str, *parts: str) -> str:
    """A path below a location."""
    return "/".join(part for part in (location, *parts) if part)


def open_store(location: str, *, writable: bool = False) -> Store:
    """The Zarr store at a location.

    Raises
    ------
    OutputError
        If it is to be written, but is an archive.
    """
    store: Store
    if writable:
        archive.refuse_unwritable(location)
    if split_archive(location):
        return CheckedStore(archive.ArchiveStore(location))
    if is_remote(location):
        store = _open_url(location, writable=writable)
    else:
        store = NotingStore(location) if writable else LocalStore(location, read_only=True)
    return store if writable else CheckedStore(store)


def _open_url(location: str, *, writable: bool) -> Store:
    if is_web(location) and (found := _QUERY.search(location)):
        raise InputError(
            f"{location} ends with {found[0]!r:.60}, but names of files have to follow the address. Leave it out; "
            f"fsspec can be configured with headers that a server needs."
        )
    try:
        return FsspecStore.from_url(location, storage_options=web_options(location), read_only=not writable)
    except ValueError as error:  # a protocol that fsspec does not know
        raise InputError(f"{location}: {error}. Expected a path, or an address as http:// or s3://.") from error


def open_array(
    location: str, path: str = "", *, writable: bool = False, zarr_format: Literal[2, 3] | None = None
) -> zarr.Array[Any]:
    """Open an array anew: a handle kept in a long-lived worker would outlive its output when that is made again.

    Blocks of all background are written like any other (`write_empty_chunks`), so that a shard's presence says
    that its block is done. If the format is known (we write format 3), only its metadata are looked for: two
    requests to an object store instead of six, for each block.

    Raises
    ------
    MissingError, InputError
        If it is to be read and is not there, or its metadata are damaged.
    OutputError
        If it is to be written and is not there (any more).
    """
    where, store = join(location, path), open_store(location, writable=writable)
    if not writable:
        return _open_to_read(store, path, where, zarr_format)
    with failing_as(f"{where} cannot be written", remote=is_remote(location)), reading_metadata(where):
        return zarr.open_array(store, path=path, mode="r+", zarr_format=3).with_config({"write_empty_chunks": True})


def _open_to_read(store: Store, path: str, where: str, zarr_format: Literal[2, 3] | None) -> zarr.Array[Any]:
    try:
        with reading_metadata(where):
            return bounded(zarr.open_array(store, path=path, mode="r", zarr_format=zarr_format))
    except NOT_FOUND as error:
        raise MissingError(f"{where}: there is no Zarr array. Restore it, or make it again.") from error


def create_group(location: str, path: str, arrays: Sequence[ArraySpec], attributes: Mapping[str, Any]) -> None:
    """Create a group with its arrays, without any chunk; a group that is there keeps its other attributes.

    The group is written last, with all its attributes in one write: a group that has them is complete. Arrays do not
    make it, as those of zarr do: a killed process would leave a group without attributes, which could be anybody's.
    An interrupted creation is done again with the same bytes.

    Raises
    ------
    OutputError
        If the location cannot be written.
    """
    where = join(location, path)
    with failing_as(f"output={where} cannot be created", remote=is_remote(location)), reading_metadata(where):
        store = open_store(location, writable=True)
        for spec in arrays:
            made = MemoryStore()
            zarr.create_array(
                made,
                name=f"{path}/{spec.path}".lstrip("/"),
                shape=spec.shape,
                shards=spec.shard,
                chunks=spec.chunk,
                dtype=spec.dtype,
                compressors=ZstdCodec(level=_ZSTD_LEVEL, checksum=True),
                fill_value=0,
                dimension_names=tuple(spec.axes),
                overwrite=True,
            )
            sync(_store_metadata(store, f"{path}/{spec.path}".lstrip("/"), f"{path}/zarr.json".lstrip("/"), made))
        try:
            zarr.open_group(store, path=path, mode="r+").update_attributes(dict(attributes))
        except NOT_FOUND:
            zarr.create_group(store, path=path, attributes=dict(attributes), zarr_format=_format_of(store))


async def _store_metadata(store: Store, array_path: str, group_key: str, made: MemoryStore) -> None:
    """Store an array that was made in memory, and groups that are missing above its own; chunks that are there go."""
    await store.delete_dir(array_path)
    for key in [key async for key in made.list()]:
        content = await made.get(key, default_buffer_prototype())
        if content is not None and key != group_key:
            await (store.set if key.startswith(array_path) else store.set_if_not_exists)(key, content)


def _format_of(store: Store) -> Literal[2, 3]:
    """Zarr format of a store's root, 3 if there is none. A group of format 3 in a store of format 2 would hide it.

    zarr makes the groups above a new one, also the root, in the format of the new one.
    """
    try:
        return zarr.open_group(store, mode="r").metadata.zarr_format
    except NOT_FOUND:
        return 3


def read_attributes(location: str, path: str = "") -> dict[str, Any] | None:
    """Attributes of a group, or None if no Zarr group is there.

    Raises
    ------
    InputError
        If the group's metadata are damaged, or the store cannot be reached.
    """
    where = join(location, path)
    with failing_as(f"{where} cannot be reached", remote=is_remote(location), kind=UnreachableError):
        try:
            # the group itself, not a copy of it that may be older (consolidated metadata)
            with reading_metadata(where):
                return dict(zarr.open_group(open_store(location), path=path, mode="r", use_consolidated=False).attrs)
        except NOT_FOUND:
            return None


def update_attributes(location: str, path: str, attributes: Mapping[str, Any]) -> None:
    """Set some attributes of an existing group, in one write."""
    where = join(location, path)
    with failing_as(f"output={where} cannot be written", remote=is_remote(location)), reading_metadata(where):
        zarr.open_group(open_store(location, writable=True), path=path, mode="r+").update_attributes(dict(attributes))


def is_occupied(location: str) -> bool:
    """Whether anything at all is at a location."""
    return is_file(location) or bool(list_names(location))


def list_names(location: str) -> set[str]:
    """Names in a directory or under a prefix, without unfinished files, notes and junk; empty if nothing is there.

    Raises
    ------
    OutputError
        If the store cannot be reached.
    """
    if not is_remote(location) or split_archive(location):
        names = os.listdir(location) if os.path.isdir(location) else archive.list_names(location)
        return {name for name in names if not (_UNFINISHED.search(name) or is_junk(name) or name == NOTES_NAME)}
    import fsspec

    with failing_as(f"{location} cannot be reached", remote=True, kind=UnreachableError):
        filesystem, path = fsspec.core.url_to_fs(location)
        filesystem.invalidate_cache()  # workers may have written since the last listing
        try:
            listed = {name.rstrip("/").rsplit("/", 1)[-1] for name in filesystem.ls(path, detail=False)}
            return {name for name in listed if not is_junk(name)}
        except (FileNotFoundError, NotImplementedError):  # HTTP has no listing
            return set()


def stored_shards(location: str, array_path: str) -> set[tuple[int, ...]]:
    """Grid indices of the shards that are present; a local file of 0 bytes (after a power cut) is not a shard."""
    prefix = f"{array_path}/c/"

    async def keys() -> list[str]:
        return [key async for key in store.list_prefix(prefix)]

    store = open_store(location)
    indices = [key.removeprefix(prefix).split("/") for key in sync(keys())]
    shards = [index for index in indices if all(part.isascii() and part.isdecimal() for part in index)]
    if not is_remote(location) and not split_archive(location):
        shards = [index for index in shards if os.path.getsize(join(location, prefix + "/".join(index))) > 0]
    return {tuple(map(int, index)) for index in shards}


def remove(location: str, path: str) -> None:
    """Delete a group or array with all below it; do nothing if there is none.

    Raises
    ------
    OutputError
        If it cannot be deleted.
    """
    with failing_as(f"{join(location, path)} cannot be deleted", remote=is_remote(location)):
        sync(open_store(location, writable=True).delete_dir(path))


def remove_leftovers(location: str, path: str, *, below: bool = True) -> None:
    """Delete files that a killed process had not finished writing (local stores write under a temporary name first).

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
    with failing_as(f"{array.store_path} cannot be written", remote=not isinstance(array.store, LocalStore)):
        array[box] = values


def is_file(location: str) -> bool:
    """Whether a local location is a plain file."""
    return os.path.isfile(location)


def is_zarr(location: str) -> bool:
    """Whether a location is to be read as Zarr: a URL, or a folder or zip archive with Zarr metadata."""
    is_folder = any(os.path.exists(os.path.join(location, name)) for name in ZARR_METADATA)
    return is_remote(location) or is_folder or archive.holds_zarr(location)
