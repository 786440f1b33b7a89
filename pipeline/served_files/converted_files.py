"""The arrays of a store as files that a browser can read: in another data type, in Zarr format 3, compressed by zstd.

Nothing is stored: each chunk is read, converted and compressed when it is asked for. Chunks stay where they are.
"""

import errno
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import zarr
from numcodecs.zstd import Zstd

from segment_slide.pipeline.errors import InputError
from segment_slide.pipeline.limits.failures import NOT_FOUND
from segment_slide.pipeline.served_files.chunks import Grid, make_grid
from segment_slide.pipeline.served_files.files import ListedFile, MemoryFile, OpenFile, StoreFileError, split_key
from segment_slide.pipeline.storage.store import join, open_array

_METADATA = "zarr.json"
_LEVEL = 3


class ConvertedFiles:
    """All arrays below a location, converted to one data type.

    Integers become unsigned ones without a change, except that negative ones count from 2^64 downwards. Real numbers
    become float32: what is too large for it becomes infinite.

    Parameters
    ----------
    location : str
        Group or array; path or URL.
    dtype : str
        numpy name of the data type to convert to.
    """

    can_list = False

    def __init__(self, location: str, dtype: str) -> None:
        self._location, self._dtype = location, np.dtype(dtype)

    def open(self, key: str) -> OpenFile:
        """See `Files`."""
        parts = split_key(key)
        if parts[-1] == _METADATA:
            array, grid = self._array("/".join(parts[:-1]))
            return MemoryFile(self._describe(array))
        if "c" not in parts:
            raise FileNotFoundError(errno.ENOENT, "not a file of an array", key)
        at = len(parts) - 1 - parts[::-1].index("c")
        array, grid = self._array("/".join(parts[:at]))
        index = grid.index("/".join(parts[at:]))
        if index is None:
            raise FileNotFoundError(errno.ENOENT, "not a chunk of the array", key)
        return MemoryFile(self._read(array, index, key))

    def walk(self, path: str) -> Iterator[ListedFile]:
        """Refuse: see `Files.can_list`."""
        raise InputError(f"{join(self._location, path)} is converted while it is read, so its files cannot be listed.")

    def _array(self, path: str) -> tuple[zarr.Array[Any], Grid]:
        where = join(self._location, path)
        try:
            array = open_array(self._location, path)
        except NOT_FOUND as error:
            raise FileNotFoundError(errno.ENOENT, "not an array", where) from error
        except Exception as error:  # fsspec's back ends and damaged metadata raise classes of their own
            raise StoreFileError(f"{where} cannot be read: {error}") from error
        return array, make_grid(array.shape, array.chunks, "/", "c")

    def _describe(self, array: zarr.Array[Any]) -> bytes:
        """Metadata of the converted array."""
        content = {
            "zarr_format": 3,
            "node_type": "array",
            "shape": list(array.shape),
            "data_type": self._dtype.name,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(array.chunks)}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "fill_value": 0,
            "codecs": [
                {"name": "bytes", "configuration": {"endian": "little"}},
                {"name": "zstd", "configuration": {"level": _LEVEL, "checksum": False}},
            ],
            "attributes": {},
        }
        return json.dumps(content).encode()

    def _read(self, array: zarr.Array[Any], index: tuple[int, ...], key: str) -> bytes:
        """A converted chunk. Beyond the image's border, which a whole chunk may cross, it is 0."""
        box = tuple(slice(i * size, (i + 1) * size) for i, size in zip(index, array.chunks, strict=True))
        try:
            stored = np.asarray(array[box])
        except Exception as error:  # codecs raise whatever they like on damaged bytes
            raise StoreFileError(f"{join(self._location, key)} cannot be read: {error}") from error
        chunk = np.zeros(array.chunks, self._dtype.newbyteorder("<"))
        with np.errstate(over="ignore", invalid="ignore"):
            chunk[tuple(slice(0, size) for size in stored.shape)] = stored.astype(self._dtype)
        return bytes(Zstd(_LEVEL).encode(chunk))
