"""Which files of an array's folder belong to the array: its metadata, and the chunks (or shards) of its grid.

The viewer must not give away any other file that somebody has put there.
"""

import json
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

from segment_slide.pipeline.errors import InputError
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.store import join
from segment_slide.pipeline.viewer.files import Files

METADATA = (*store.ZARR_METADATA, ".zattrs", ".zmetadata")
_NUMBER = re.compile(r"0|[1-9][0-9]*")


def array_files(files: Files, path: str, location: str) -> Callable[[str], bool]:
    """Return a test for keys below an array: whether the array's own metadata describe a file of that name.

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
    start = f"{path}/" if path else ""

    def is_ours(key: str) -> bool:
        inner = key.removeprefix(start)
        return key.startswith(start) and (inner in METADATA or any(grid(inner) for grid in grids))

    return is_ours


def _read_json(files: Files, key: str) -> dict[str, Any]:
    file = files.open(key)
    try:
        return dict(json.loads(file.read(0, file.size)))
    finally:
        file.close()


def _parse_v3(metadata: dict[str, Any]) -> Callable[[str], bool]:
    encoding = metadata.get("chunk_key_encoding") or {"name": "default"}
    encoding = {"name": encoding} if isinstance(encoding, str) else encoding
    is_default = encoding["name"] == "default"
    separator = (encoding.get("configuration") or {}).get("separator", "/" if is_default else ".")
    if metadata["chunk_grid"]["name"] != "regular":
        raise ValueError(f"chunk_grid={metadata['chunk_grid']['name']!r}, expected 'regular'")
    chunks = metadata["chunk_grid"]["configuration"]["chunk_shape"]
    return _grid(metadata["shape"], chunks, separator, "c" if is_default else "")


def _parse_v2(metadata: dict[str, Any]) -> Callable[[str], bool]:
    return _grid(metadata["shape"], metadata["chunks"], metadata.get("dimension_separator", "."), "")


def _grid(shape: Sequence[int], chunks: Sequence[int], separator: str, prefix: str) -> Callable[[str], bool]:
    """Return a test for keys: whether a key is that of a chunk in this grid.

    >>> is_chunk = _grid((100, 130), (64, 64), "/", "c")
    >>> [is_chunk(key) for key in ("c/0/2", "c/0/3", "c/0", "c/00/2", "0/2", "evil.html")]
    [True, False, False, False, False, False]
    """
    counts = [math.ceil(size / chunk) for size, chunk in zip(shape, chunks, strict=True)]
    if not counts:
        return lambda key: key == (prefix or "0")

    def is_chunk(key: str) -> bool:
        parts = key.split(separator)
        if prefix:
            if parts[0] != prefix:
                return False
            parts = parts[1:]
        return len(parts) == len(counts) and all(
            _NUMBER.fullmatch(part) and int(part) < count for part, count in zip(parts, counts, strict=True)
        )

    return is_chunk
