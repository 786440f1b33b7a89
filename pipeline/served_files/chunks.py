"""Which files of an array's folder belong to the array: its metadata, and the chunks (or shards) of its grid.

The viewer must not give away any other file that somebody has put there. And where a store has no listing, these are
the names to ask for.
"""

import itertools
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from segment_slide.pipeline.errors import InputError
from segment_slide.pipeline.served_files.files import Files
from segment_slide.pipeline.storage.store import join
from segment_slide.pipeline.zarr_stores.archive import ZARR_METADATA

METADATA = (*ZARR_METADATA, ".zattrs", ".zmetadata")
_NUMBER = re.compile(r"0|[1-9][0-9]*")


@dataclass(frozen=True)
class ArrayFiles:
    """The files that the metadata of an array describe. Each chunk may be there or not.

    Attributes
    ----------
    path : str
        Path of the array in its store; "" is the store itself.
    grids : tuple of Grid
        Chunks; none if there is no array.
    """

    path: str
    grids: tuple["Grid", ...]

    def holds(self, key: str) -> bool:
        """Whether a key of the store is that of such a file."""
        start = f"{self.path}/" if self.path else ""
        inner = key.removeprefix(start)
        return key.startswith(start) and (inner in METADATA or any(grid.holds(inner) for grid in self.grids))

    def list_keys(self) -> Iterator[str]:
        """All keys: metadata first, then chunks in raster order."""
        yield from (join(self.path, name) for name in METADATA)
        for grid in self.grids:
            yield from (join(self.path, key) for key in grid.list_keys())


def array_files(files: Files, path: str, location: str) -> ArrayFiles:
    """Read which files an array has from its own metadata.

    Parameters
    ----------
    files : Files
        Files of the store.
    path : str
        Path of the array in the store; "" is the store itself.
    location : str
        The store's name in messages.

    Raises
    ------
    InputError
        If the metadata cannot be read.
    """
    grids = []
    for name, parse in (("zarr.json", _parse_v3), (".zarray", _parse_v2)):
        try:
            found = _read_json(files, join(path, name))
            if name == ".zarray" or found.get("node_type") == "array":
                grids.append(parse(found))
        except FileNotFoundError:
            continue
        except OSError as error:
            raise InputError(f"{join(location, path, name)} cannot be read: {error}") from error
        except (ValueError, KeyError, TypeError, ZeroDivisionError) as error:
            raise InputError(f"{join(location, path, name)} cannot be read as metadata of an array: {error}") from error
    return ArrayFiles(path, tuple(grids))


def _read_json(files: Files, key: str) -> dict[str, Any]:
    file = files.open(key)
    try:
        return dict(json.loads(file.read(0, file.size)))
    finally:
        file.close()


def _parse_v3(metadata: dict[str, Any]) -> "Grid":
    encoding = metadata.get("chunk_key_encoding") or {"name": "default"}
    encoding = {"name": encoding} if isinstance(encoding, str) else encoding
    is_default = encoding["name"] == "default"
    if not is_default and encoding["name"] != "v2":
        raise ValueError(f"chunk_key_encoding={encoding['name']!r}, expected 'default' or 'v2'")
    separator = (encoding.get("configuration") or {}).get("separator", "/" if is_default else ".")
    if metadata["chunk_grid"]["name"] != "regular":
        raise ValueError(f"chunk_grid={metadata['chunk_grid']['name']!r}, expected 'regular'")
    chunks = metadata["chunk_grid"]["configuration"]["chunk_shape"]
    return make_grid(metadata["shape"], chunks, separator, "c" if is_default else "")


def _parse_v2(metadata: dict[str, Any]) -> "Grid":
    return make_grid(metadata["shape"], metadata["chunks"], metadata.get("dimension_separator", "."), "")


@dataclass(frozen=True)
class Grid:
    """The grid of an array's chunks (or shards), and how their files are named.

    Attributes
    ----------
    counts : tuple of int
        Number of chunks along each axis.
    separator, prefix : str
        What stands between two numbers, and before the first: "/" and "c" in Zarr format 3.

    Examples
    --------
    >>> grid = make_grid((100, 130), (64, 64), "/", "c")
    >>> [grid.holds(key) for key in ("c/0/2", "c/0/3", "c/0", "c/00/2", "0/2", "evil.html")]
    [True, False, False, False, False, False]
    >>> list(make_grid((100, 130), (100, 64), ".", "").list_keys())
    ['0.0', '0.1', '0.2']
    """

    counts: tuple[int, ...]
    separator: str
    prefix: str

    def holds(self, key: str) -> bool:
        """Whether a key is that of a chunk in this grid."""
        return self.index(key) is not None

    def index(self, key: str) -> tuple[int, ...] | None:
        """Position of the chunk that a key names; None if there is no such chunk."""
        if not self.counts:
            return () if key == (self.prefix or "0") else None
        parts = key.split(self.separator)
        if self.prefix:
            if parts[0] != self.prefix:
                return None
            parts = parts[1:]
        if len(parts) != len(self.counts) or not all(map(_NUMBER.fullmatch, parts)):
            return None
        at = tuple(map(int, parts))
        return at if all(place < count for place, count in zip(at, self.counts, strict=True)) else None

    def list_keys(self) -> Iterator[str]:
        """Keys of all chunks in raster order."""
        if not self.counts:
            yield self.prefix or "0"
            return
        start = [self.prefix] if self.prefix else []
        for index in itertools.product(*map(range, self.counts)):
            yield self.separator.join([*start, *map(str, index)])


def make_grid(shape: Sequence[int], chunks: Sequence[int], separator: str, prefix: str) -> Grid:
    """Make the grid of an array with chunks of this shape."""
    return Grid(tuple(-(-size // chunk) for size, chunk in zip(shape, chunks, strict=True)), separator, prefix)
