"""Files of a Zarr store as plain bytes, for a browser: read-only, and only what lies below the store.

A store is a folder or a URL. All have the same interface: ``open(key)`` returns a file of known size, which is read in
pieces. It stays the version that was opened, even if somebody replaces it meanwhile. A key is a path as Zarr writes it,
such as "0/c/3/7".

A missing file raises `FileNotFoundError`: Zarr reads a missing chunk as background. A file that exists but cannot be
read must therefore raise another error, or a broken disk would look like empty glass.
"""

import errno
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from segment_slide.pipeline.errors import InputError


class StoreFileError(OSError):
    """A file may be there, but cannot be read. The message says which one and why."""


class OpenFile(Protocol):
    """One version of a file.

    Attributes
    ----------
    size : int
        Size in bytes.
    tag : str
        Differs between versions of the file; empty if the store gives none.
    """

    size: int
    tag: str

    @property
    def mtime_ns(self) -> int | None:
        """When it was changed, if the store tells."""

    def read(self, start: int, stop: int) -> bytes:
        """Return all bytes from `start` up to `stop`; OSError if the file has changed since it was opened."""

    def close(self) -> None:
        """Close the file."""


@dataclass(frozen=True)
class ListedFile:
    """A file as a listing describes it. Without a modification time, nobody can tell whether a copy is up to date.

    Attributes
    ----------
    size : int or None
        Size in bytes. None in a store without a listing: the file may be there, and opening it tells.
    mode : int
        Who may read and write it, if the store tells.
    source : str or None
        Its path without links, if it is local.
    """

    key: str
    size: int | None
    mtime_ns: int | None
    mode: int = 0o666
    source: str | None = None


class Files(Protocol):
    """The files of one store.

    Attributes
    ----------
    can_list : bool
        Whether `walk` knows the files. If not, their names follow from the metadata of the arrays (`chunks`).
    """

    can_list: bool

    def open(self, key: str) -> OpenFile:
        """Open the file at a key.

        Raises
        ------
        FileNotFoundError
            If there is none below the store. That says: background.
        OSError
            If nobody can tell, or it cannot be read.
        """

    def walk(self, path: str) -> Iterator[ListedFile]:
        """Yield the file at a path, or all files below it ("" is the store), always in the same order.

        Raises
        ------
        InputError
            If a file cannot be listed, or lies outside of the store.
        """


def split_key(key: str) -> list[str]:
    """Split a key into the names on the way to the file.

    Raises
    ------
    FileNotFoundError
        If the key could lead out of the store: ``..``, an empty name, a backslash, a control character.

    Examples
    --------
    >>> split_key("0/c/3/7")
    ['0', 'c', '3', '7']
    """
    parts = key.split("/")
    if any(part in ("", ".", "..") or "\\" in part or min(part) < " " or "\x7f" in part for part in parts):
        raise FileNotFoundError(errno.ENOENT, "not a key of a store", key)
    return parts


def split_path(path: str) -> list[str]:
    """Split the path of a folder or file to copy, as `split_key` does; "" is the store.

    Raises
    ------
    InputError
        If it could lead out of the store.

    Examples
    --------
    >>> split_path("labels/nuclei"), split_path("")
    (['labels', 'nuclei'], [])
    """
    try:
        return split_key(path) if path else []
    except FileNotFoundError as error:
        raise InputError(
            f"{path!r} is not a path in a store: expected names with slashes between, none of them '..'."
        ) from error


class MemoryFile:
    """A file whose bytes are in memory."""

    mtime_ns = None

    def __init__(self, content: bytes, tag: str | None = None) -> None:
        self._content = content
        self.size = len(content)
        self.tag = digest(content) if tag is None else tag

    def read(self, start: int, stop: int) -> bytes:
        """See `OpenFile`."""
        return self._content[start:stop]

    def close(self) -> None:
        """See `OpenFile`."""


def digest(content: bytes) -> str:
    """Return a short name that identifies bytes.

    >>> digest(b"") == digest(b"a")
    False
    """
    return hashlib.sha256(content).hexdigest()[:32]
