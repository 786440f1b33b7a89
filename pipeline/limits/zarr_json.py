"""Zarr's own metadata (``zarr.json``, ``.zarray`` …), checked before zarr reads them: types, and sizes that can be.

zarr trusts them: a wrong type ends in an error of its own code, and a size is asked for as memory.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segment_slide.pipeline.metadata.json_text import JsonError, describe, expect_short, parse_object

NAMES = ("zarr.json", ".zarray", ".zgroup", ".zattrs")  # copies in .zmetadata are not read
MOST_AXES = 32  # numpy's limit was 32 for decades
MOST_PIXELS = 1 << 47  # 1.4e14: a hundred times the largest volume that anybody has
MOST_CODECS = 20
_OBJECTS = ("attributes", "chunk_grid", "chunk_key_encoding", "consolidated_metadata")


def is_metadata(key: str) -> bool:
    """Whether a file in a store holds metadata.

    >>> is_metadata("labels/0/zarr.json"), is_metadata("0/c/0/0")
    (True, False)
    """
    return key.rpartition("/")[2] in NAMES


def check_length(key: str, path: Path) -> None:
    """Refuse a local file of metadata that is too large to be read; raises as `check_metadata`."""
    try:
        expect_short(path.stat().st_size)
    except OSError:  # not there, or not to be read: whoever reads it says so
        return
    except JsonError as error:
        raise JsonError(f"{key}: {error}") from None


def check_metadata(key: str, content: bytes) -> None:
    """Refuse metadata that zarr must not be given.

    Parameters
    ----------
    key : str
        Path of the file in its store, for the message.
    content : bytes
        What it holds.

    Raises
    ------
    JsonError
        Naming file, key, value, and what was expected.
    """
    name = key.rpartition("/")[2]
    try:
        found = parse_object(content)
        if name == "zarr.json":
            _check_format_3(found)
        elif name == ".zarray":
            _check_array(found, found.get("chunks"), "chunks")
    except JsonError as error:
        raise JsonError(f"{key}: {error}") from None


def _check_format_3(found: Mapping[str, Any]) -> None:
    for key in _OBJECTS:
        if found.get(key) is not None and not isinstance(found[key], dict):
            raise _wrong(key, found[key], "a JSON object")
    if found.get("node_type") != "array":
        return
    grid = found.get("chunk_grid") or {}
    inner = grid.get("configuration") if grid.get("name") == "regular" else None
    if not isinstance(inner, dict):
        raise _wrong("chunk_grid", grid, "a regular grid with its chunk_shape")
    _check_array(found, inner.get("chunk_shape"), "chunk_grid.configuration.chunk_shape")
    _check_codecs(found.get("codecs"), len(found["shape"]), "codecs")


def _check_array(found: Mapping[str, Any], chunks: Any, name: str) -> None:
    shape = _sizes(found.get("shape"), "shape", 0)
    if len(_sizes(chunks, name, 1)) != len(shape):
        raise _wrong(name, chunks, f"{len(shape)} numbers, as shape has")
    if math.prod(shape) > MOST_PIXELS:
        raise _wrong("shape", shape, f"at most {MOST_PIXELS:,} pixels")


def _check_codecs(codecs: Any, n_axes: int, name: str) -> None:
    if not isinstance(codecs, list) or len(codecs) > MOST_CODECS or not all(map(_is_codec, codecs)):
        raise _wrong(name, codecs, f"a list of at most {MOST_CODECS} codecs, each with a name and a configuration")
    for at, codec in enumerate(codecs):
        if isinstance(codec, dict) and codec["name"] == "sharding_indexed":
            inside, place = codec.get("configuration") or {}, f"{name}[{at}].configuration"
            if len(_sizes(inside.get("chunk_shape"), f"{place}.chunk_shape", 1)) != n_axes:
                raise _wrong(f"{place}.chunk_shape", inside["chunk_shape"], f"{n_axes} numbers, as shape has")
            for part in ("codecs", "index_codecs"):
                _check_codecs(inside.get(part), n_axes, f"{place}.{part}")
            if inside.get("index_location", "end") not in ("start", "end"):
                raise _wrong(f"{place}.index_location", inside["index_location"], "start or end")


def _is_codec(codec: Any) -> bool:
    if isinstance(codec, str):
        return True
    is_named = isinstance(codec, dict) and isinstance(codec.get("name"), str)
    return is_named and isinstance(codec.get("configuration") or {}, dict)


def _sizes(value: Any, name: str, lowest: int) -> list[int]:
    is_list = isinstance(value, list) and len(value) <= MOST_AXES
    if not is_list or not all(type(size) is int and lowest <= size <= MOST_PIXELS for size in value):
        raise _wrong(name, value, f"at most {MOST_AXES} whole numbers from {lowest} to {MOST_PIXELS:,}")
    return list(value)


def _wrong(key: str, value: object, expected: str) -> JsonError:
    return JsonError(f"{key} is {describe(value)}, expected {expected}")
