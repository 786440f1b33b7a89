"""A list of what a run has read of its input: part of a file, its checksum as it was read, and the file's times.

An output that is not finished keeps it in its work folder. So it is known, without a second copy of the input, whether
what was read before is what lies there now. Each process appends to a file of its own; a file system needs no more for
that than one write at a time. In an object store each read is an object of its own.

A line is written before the block that was made of it. So whatever is stored of an output, what it read is listed.
"""

import asyncio
import hashlib
import json
import os
import socket
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import zarr
from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import WrapperStore

from segment_slide.pipeline.errors import OutputError
from segment_slide.pipeline.limits.bounded import bounded
from segment_slide.pipeline.metadata.junk import is_array_file

_SUFFIX = ".jsonl"
_HERE = f"{socket.gethostname()}-{uuid.uuid4().hex}"
_MOST_KNOWN, _MOST_RUNS = 100_000, 8  # lines that a process remembers, so as not to write them again
_IN_THREAD_BYTES = 1 << 18  # a longer checksum would hold up all reads of the process

Times = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a file, as it was read.

    Attributes
    ----------
    name : str
        The file, relative to its array.
    start : int
        First byte; below 0, counted from the end of the file.
    stop : int or None
        The byte after the last; None is the end.
    size : int
        Bytes that were read.
    digest : str
        sha256 of them; "" if there was no such file.
    times : tuple of int
        When content and status of the file were changed (ns), and its inode, just before it was read.
    """

    name: str
    start: int
    stop: int | None
    size: int
    digest: str
    times: Times = ()


class Notes:
    """Pieces that are being read from one array, for the list in a folder.

    Parameters
    ----------
    place : str
        Folder or URL of the list, and the run's own name in it.
    base : str
        Place of the array. Only files on a disk have times.
    """

    _known: ClassVar[dict[str, set[bytes]]] = {}  # what this process has written already, for the last few runs
    _lock = threading.Lock()

    def __init__(self, place: str, base: str) -> None:
        self._place, self._base = place, base
        self._pieces: list[Piece] = []

    def times(self, name: str) -> Times:
        """Times of a file as it is now; empty if they are not known."""
        try:
            status = os.stat(os.path.join(self._base, name))
        except OSError:
            return ()
        return status.st_mtime_ns, status.st_ctime_ns, status.st_ino

    def add(self, piece: Piece) -> None:
        """Note what was read; `write` makes it last."""
        self._pieces.append(piece)

    def write(self) -> None:
        """Append all that is new to the list.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        lines = []
        with self._lock:
            known = self._known.setdefault(self._place, set())
            if len(known) > _MOST_KNOWN:
                known.clear()
            while len(self._known) > _MOST_RUNS:
                del self._known[next(iter(self._known))]
        for piece in self._pieces:
            line = json.dumps([piece.name, piece.start, piece.stop, piece.size, piece.digest, piece.times])
            key = hashlib.blake2b(line.encode(), digest_size=12).digest()
            if key not in known:
                lines.append((key, line))
        self._pieces = []
        if lines:
            _append(self._place, "".join(f"{line}\n" for _, line in lines).encode())
            with self._lock:
                known.update(key for key, _ in lines)


class NotedStore(WrapperStore[Store]):
    """A store that notes what is read from it.

    Parameters
    ----------
    store : Store
        Where to read.
    notes : Notes
        Gains what is read.
    prefix : str
        Path of the array in the store.
    """

    def __init__(self, store: Store, notes: Notes, prefix: str = "") -> None:
        super().__init__(store)
        self._notes, self._prefix = notes, f"{prefix}/" if prefix else ""

    def _with_store(self, store: Store) -> "NotedStore":
        return type(self)(store, self._notes, self._prefix.rstrip("/"))

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """See `zarr.abc.store.Store.get`."""
        name = key.removeprefix(self._prefix)
        times = self._notes.times(name)
        value = await self._store.get(key, prototype, byte_range)
        if value is None:
            self._notes.add(Piece(name, 0, None, 0, "", times))
            return value
        content = value.to_bytes()
        make = hashlib.sha256
        digest = make(content) if len(content) < _IN_THREAD_BYTES else await asyncio.to_thread(make, content)
        start, stop = _bounds(byte_range)
        self._notes.add(Piece(name, start, stop, len(content), digest.hexdigest(), times))
        return value


def read_noted(
    store: Store, path: str, zarr_format: Literal[2, 3], box: tuple[slice, ...], notes: Notes
) -> np.ndarray[Any, Any]:
    """Read a box of an array in a store, and write down what was read for it."""
    pixels = np.asarray(
        bounded(zarr.open_array(NotedStore(store, notes, path), path=path, mode="r", zarr_format=zarr_format))[box]
    )
    notes.write()
    return pixels


def _bounds(part: ByteRequest | None) -> tuple[int, int | None]:
    match part:
        case RangeByteRequest():
            return part.start, part.end
        case OffsetByteRequest():
            return part.offset, None
        case SuffixByteRequest():
            return -part.suffix, None
    return 0, None


def _append(place: str, content: bytes) -> None:
    try:
        if "://" in place:
            filesystem, path = _filesystem(place)
            filesystem.pipe_file(f"{path}-{uuid.uuid4().hex}{_SUFFIX}", content)
            return
        os.makedirs(os.path.dirname(place), exist_ok=True)
        with open(f"{place}-{_HERE}-{os.getpid()}{_SUFFIX}", "ab", buffering=0) as file:
            file.write(content)
    except Exception as error:  # fsspec back ends raise classes of their own
        raise OutputError(f"{os.path.dirname(place)} cannot be written: {error}") from error


def read_list(folder: str) -> dict[str, list[Piece]]:
    """What a list says of each file; empty if there is none.

    A line that a killed process has cut off is left out, and so is one that names something else than a file of an
    array: whoever can write to an output must not choose what is opened.
    """
    found: dict[str, list[Piece]] = {}
    for content in _contents(folder):
        for line in content.splitlines():
            if (piece := _parse(line)) is not None:
                found.setdefault(piece.name, []).append(piece)
    return found


def _parse(line: str) -> Piece | None:
    try:
        name, start, stop, size, digest, times = json.loads(line)
    except (ValueError, TypeError):
        return None
    numbers = [start, size, 0 if stop is None else stop, *(times if isinstance(times, list) else [None])]
    if not isinstance(name, str) or not isinstance(digest, str) or any(type(number) is not int for number in numbers):
        return None
    return Piece(name, start, stop, size, digest, tuple(times)) if is_array_file(name) else None


def replace_list(folder: str, kept: dict[str, list[Piece]]) -> None:
    """Write a list anew, with some files left out. No worker may write to it at the same time.

    If this is interrupted, lines are there twice, or those that were to be left out are there still.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    before = _files(folder)
    pieces = [piece for some in kept.values() for piece in some]
    lines = [json.dumps([p.name, p.start, p.stop, p.size, p.digest, p.times]) for p in pieces]
    if "://" in folder:
        if lines:
            _append(f"{folder}/kept", "".join(f"{line}\n" for line in lines).encode())
        filesystem, _ = _filesystem(folder)
        for path in before:
            filesystem.rm_file(path)
        return
    if lines:
        _append(f"{folder}/kept-{uuid.uuid4().hex}", "".join(f"{line}\n" for line in lines).encode())
    for path in before:
        os.unlink(path)


def _contents(folder: str) -> Iterator[str]:
    for path in _files(folder):
        if "://" in folder:
            yield _filesystem(folder)[0].cat_file(path).decode(errors="replace")
        else:
            with open(path, encoding="utf-8", errors="replace") as file:
                yield file.read()


def _files(folder: str) -> list[str]:
    if "://" in folder:
        filesystem, path = _filesystem(folder)
        filesystem.invalidate_cache()
        try:
            return sorted(name for name in filesystem.ls(path, detail=False) if name.endswith(_SUFFIX))
        except FileNotFoundError:
            return []
    names = os.listdir(folder) if os.path.isdir(folder) else []
    return sorted(os.path.join(folder, name) for name in names if name.endswith(_SUFFIX))


def _filesystem(folder: str) -> tuple[Any, str]:
    import fsspec

    filesystem, path = fsspec.core.url_to_fs(folder)
    return filesystem, path
