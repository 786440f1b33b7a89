"""Files of a Zarr store as plain bytes, for a browser: read-only, and nothing but what lies below the store.

A store is a folder or a URL; both are asked alike: ``open(key)`` gives a file of a known size that is read in pieces
and stays the one that was opened, whoever replaces it meanwhile. A key is a path as Zarr writes it, "0/c/3/7".

What is not there raises `FileNotFoundError`: Zarr takes a missing chunk for background. What is there and cannot be
read must therefore raise something else, or a broken disk would look like empty glass.
"""

import errno
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from segment_slide.pipeline.errors import InputError


class OpenFile(Protocol):
    """One version of a file.

    Attributes
    ----------
    size : int
        In bytes.
    tag : str
        Differs between versions of the file; empty if the store does not tell.
    """

    size: int
    tag: str

    def read(self, start: int, stop: int) -> bytes:
        """Bytes from `start` up to `stop`, all of them; OSError if the file is no longer what it was."""

    def close(self) -> None:
        """Let go of it."""


@dataclass(frozen=True)
class ListedFile:
    """A file as a listing tells it; without a time of change, nobody can say whether a copy is still good.

    Attributes
    ----------
    mode : int
        Who may read and write it, as far as the store tells.
    source : str or None
        Its path without links, if it is local.
    """

    key: str
    size: int
    mtime_ns: int | None
    mode: int = 0o666
    source: str | None = None


class Files(Protocol):
    """The files of one store."""

    def open(self, key: str) -> OpenFile:
        """Open the file at a key; FileNotFoundError if there is none below the store."""

    def walk(self, path: str) -> Iterator[ListedFile]:
        """The file at a path, or all files below it ("" is the store), always in the same order.

        Raises
        ------
        InputError
            If a file cannot be listed, or lies outside of the store.
        """


def split_key(key: str) -> list[str]:
    """Names on the way to a file.

    Raises
    ------
    FileNotFoundError
        If the key could lead anywhere but down: ``..``, an empty name, a backslash, a control character.

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
    """As `split_key` for a folder or file to copy; "" is the store.

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
    """Bytes that are at hand already."""

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
    """A short name for bytes.

    >>> digest(b"") == digest(b"a")
    False
    """
    return hashlib.sha256(content).hexdigest()[:32]
