"""Intermediate results of a run on disk: one small file per block, written whole or not at all, deleted at the end.

What blocks must know of each other is too much for one process's memory and too little for a Zarr array of its own.
If a file is present, its block's step is done, so a run that was killed goes on from these files.
"""

import io
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numcodecs.zstd import Zstd

from segment_slide.pipeline.blocks.grid import Index
from segment_slide.pipeline.errors import BlockError
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.files import read_file, write_file

_SUFFIX = ".npz.zst"
_NAME = re.compile(r"(\d+(?:\.\d+)*)\.npz\.zst")  # ignores other files, which a file server may leave here
_CODEC = Zstd(level=1)  # written once, read once or twice: speed matters more than size

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class WorkFolder:
    """A folder of intermediate results, one file per block and kind.

    Parameters
    ----------
    location : str
        The output's store: a local path or a URL.
    path : str
        Folder in it, for example "labels/cells-instances/work".
    """

    location: str
    path: str

    def save(self, kind: str, index: Index, arrays: Mapping[str, np.ndarray]) -> None:
        """Write the arrays of a block, completely or not at all.

        Raises
        ------
        OutputError
            If they cannot be written: a full disk, a lost connection.
        """
        buffer = io.BytesIO()
        np.savez(buffer, **dict(arrays))  # type: ignore[arg-type]
        write_file(self._file(kind, index), bytes(_CODEC.encode(buffer.getvalue())))

    def load(self, kind: str, index: Index) -> Arrays:
        """Arrays of a block, as they were saved.

        Raises
        ------
        BlockError
            If the file is missing or damaged, naming it.
        """
        file = self._file(kind, index)
        try:
            with np.load(io.BytesIO(_CODEC.decode(read_file(file)))) as content:
                return {name: content[name] for name in content.files}
        except Exception as error:  # codecs and file systems raise what they like on damaged bytes
            raise BlockError(
                f"{file} is missing or damaged ({type(error).__name__}: {error}); delete it, so that it is made again"
            ) from error

    def stored(self, kind: str) -> set[Index]:
        """Blocks whose file of a kind is there; a local file of 0 bytes (after a power cut) does not count."""
        found = (_NAME.fullmatch(name) for name in self._names(kind))
        return {tuple(map(int, match[1].split("."))) for match in found if match}

    def remove(self) -> None:
        """Delete the folder with all in it; do nothing if it is not there."""
        store.remove(self.location, self.path)

    def _file(self, kind: str, index: Index) -> str:
        return store.join(self.location, self.path, kind, ".".join(map(str, index)) + _SUFFIX)

    def _names(self, kind: str) -> Iterator[str]:
        folder = store.join(self.location, self.path, kind)
        if store.is_remote(self.location):
            yield from store.list_names(folder)
        elif os.path.isdir(folder):
            with os.scandir(folder) as entries:
                yield from (entry.name for entry in entries if entry.stat().st_size > 0)
