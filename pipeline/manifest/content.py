"""One file of an output: its checksum, and whether it can be decoded where no checksum of it is known."""

import hashlib
import io
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from segment_slide.pipeline.errors import OutputError, UnreadableChunkError
from segment_slide.pipeline.manifest.manifest import Digest
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.files import read_file
from segment_slide.unet.boxes import Box

_PIECE_BYTES = 1 << 22
_CHUNKS = "/c/"  # stands between an array's path and the position of a shard
_METADATA = ("zarr.json", ".zarray", ".zgroup", ".zattrs")


def is_data(key: str) -> bool:
    """Whether a file is made again by the run if it is deleted: a shard, or a part of a table.

    >>> is_data("labels/a/0/c/0/1"), is_data("tables/a.parquet/part-00000.parquet"), is_data("labels/a/0/zarr.json")
    (True, True, False)
    """
    return split_shard(key) is not None or key.endswith(".parquet")


def split_shard(key: str) -> tuple[str, tuple[int, ...]] | None:
    """Array and grid position of a shard; None for another file.

    >>> split_shard("labels/a/0/c/3/1"), split_shard("labels/a/zarr.json")
    (('labels/a/0', (3, 1)), None)
    """
    array, mark, place = f"/{key}".rpartition(_CHUNKS)
    parts = place.split("/")
    if not mark or not all(part.isascii() and part.isdecimal() for part in parts):
        return None
    return array.lstrip("/"), tuple(map(int, parts))


def hash_file(location: str, key: str) -> Digest:
    """Size and sha256 of a file as it is stored; one in an object store is downloaded for that.

    Raises
    ------
    OSError
        If it cannot be read.
    """
    path = store.join(location, key)
    if store.is_remote(location):
        return Digest.of(read_file(path))
    sha256, size = hashlib.sha256(), 0
    with Path(path).open("rb", buffering=0) as file:
        while piece := file.read(_PIECE_BYTES):
            sha256.update(piece)
            size += len(piece)
    return Digest(size, sha256.hexdigest())


def check_file(location: str, key: str) -> Digest:
    """Size and sha256 of a file that can be decoded: every chunk of a shard, every page of a table, all JSON.

    Files of other kinds, like pictures, are only read.

    Raises
    ------
    UnreadableChunkError
        If it is damaged. The message names file and block.
    OutputError
        If the system cannot read it.
    """
    try:
        digest = hash_file(location, key)
        _decode(location, key)
    except Exception as error:  # codecs raise whatever they like on damaged bytes
        if isinstance(error, OSError) and error.errno is not None:
            raise OutputError(f"{store.join(location, key)} cannot be read: {error}") from error
        raise UnreadableChunkError(say_damaged(location, key, f"{type(error).__name__}: {error}")) from error
    return digest


def say_damaged(location: str, key: str, why: str) -> str:
    """Name a damaged file, and its block if it is a shard."""
    shard = split_shard(key)
    return f"{store.join(location, key)}{f', block {shard[1]}' if shard else ''} is damaged ({why})"


def _decode(location: str, key: str) -> None:
    if shard := split_shard(key):
        array = store.open_array(location, shard[0])
        for box in _chunk_rows(array, shard[1]):
            array[box]
    elif key.endswith(".parquet"):
        import pyarrow.parquet as pq

        content = io.BytesIO(read_file(store.join(location, key)))
        pq.read_table(content, page_checksum_verification=True)
    elif key.endswith(".json") or key.rpartition("/")[2] in _METADATA:
        json.loads(read_file(store.join(location, key)))


def _chunk_rows(array: Any, index: tuple[int, ...]) -> Iterator[Box]:
    """Boxes that cover a shard, each of one row of its chunks: a whole shard may be too large for memory."""
    shard, chunk = array.shards or array.chunks, array.chunks
    if len(index) != array.ndim:
        raise ValueError(f"it has {len(index)} numbers, but the array has {array.ndim} axes")
    box = [slice(i * step, min((i + 1) * step, size)) for i, step, size in zip(index, shard, array.shape, strict=True)]
    if any(part.start >= part.stop for part in box):
        raise ValueError("it lies beyond the end of the array")
    split = int(np.argmax([step // size for step, size in zip(shard, chunk, strict=True)]))
    rows = itertools.count(box[split].start, chunk[split])
    for start in itertools.takewhile(lambda row: row < box[split].stop, rows):
        row = slice(start, min(start + chunk[split], box[split].stop))
        yield (*box[:split], row, *box[split + 1 :])
