"""Images in one zip file (``.zarr.zip``, ``.ozx``), read without unpacking.

They are inputs only: what is written into a zip file twice is in it twice. A location inside an archive is the path of
the archive with more after it: ``/data/slide.ozx/labels/nuclei``.
"""

import functools
import os
import re
import threading
import zipfile
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import ZipStore

from segment_slide.pipeline.errors import InputError, OutputError
from segment_slide.pipeline.metadata.junk import is_junk

ZARR_METADATA = ("zarr.json", ".zgroup", ".zarray")  # a folder with one of these is read as Zarr
_END = re.compile(r"\.(zip|ozx)(?=/|$)", re.IGNORECASE)
_OPEN_ARCHIVES = 4  # kept open per process: the list of a large archive's files takes a second to read
_ENCRYPTED = 1


@dataclass(frozen=True)
class Archive:
    """An archive that is open.

    Attributes
    ----------
    file : ZipFile
        The open file; several threads may read it.
    root : str
        Folder that holds everything, with "/" at its end; "" if files lie at the top.
    entries : mapping
        What the archive says of each file, by its name below `root`.
    """

    file: zipfile.ZipFile
    root: str
    entries: Mapping[str, zipfile.ZipInfo]


def is_archive_name(location: str) -> bool:
    """Whether a location is called like an archive.

    >>> is_archive_name("/data/slide.zarr.zip"), is_archive_name("/data/zip/slide.zarr")
    (True, False)
    """
    return "://" not in location and _END.search(os.path.basename(location)) is not None


def split_archive(location: str) -> tuple[str, str] | None:
    """The archive that a location is or lies in, and the path inside it; None if it lies in none."""
    if "://" in location:
        return None
    for found in _END.finditer(location):
        file = location[: found.end()]
        if os.path.isfile(file):
            return file, location[found.end() :].strip("/")
    return None


def list_entries(location: str) -> dict[str, zipfile.ZipInfo]:
    """Files below a location in an archive, by their name relative to it.

    Raises
    ------
    InputError
        If the archive cannot be read.
    """
    file, inner = _split(location)
    prefix = f"{inner}/" if inner else ""
    entries = open_archive(file).entries
    return {name.removeprefix(prefix): entry for name, entry in entries.items() if name.startswith(prefix)}


def read_entry(location: str) -> bytes:
    """Content of a file in an archive; raises FileNotFoundError if there is none."""
    file, inner = _split(location)
    archive = open_archive(file)
    if inner not in archive.entries:
        raise FileNotFoundError(location)
    return archive.file.read(archive.entries[inner])


def refuse_archive(location: str) -> None:
    """Refuse to write into a zip archive, or to make one.

    Raises
    ------
    OutputError
        If the location is in an archive, or is called like one.
    """
    if split_archive(location) or (is_archive_name(location) and not os.path.isdir(location)):
        raise OutputError(
            f"output={location} is a zip archive, which is only read, never written; name a folder, by convention "
            f"NAME.ome.zarr."
        )


def list_names(location: str) -> list[str]:
    """Names in a folder in an archive; none if it is something else."""
    return [name.partition("/")[0] for name in list_entries(location)] if split_archive(location) else []


def holds_zarr(location: str) -> bool:
    """Whether a location is a Zarr group or array in an archive."""
    return split_archive(location) is not None and any(name in list_entries(location) for name in ZARR_METADATA)


def is_in_archive(location: str) -> bool:
    """Whether a location in an archive is a file or folder of it."""
    file, inner = _split(location)
    return not inner or inner in open_archive(file).entries or bool(list_entries(location))


def _split(location: str) -> tuple[str, str]:
    found = split_archive(location)
    if found is None:
        raise FileNotFoundError(location)
    return found


def open_archive(file: str) -> Archive:
    """Open an archive, or take it if it is open.

    Raises
    ------
    InputError
        If it is no zip file, is damaged, or needs a password.
    """
    try:
        status = os.stat(file)
        return _open(file, status.st_mtime_ns, status.st_size)
    except (OSError, zipfile.BadZipFile, NotImplementedError) as error:
        raise InputError(f"input={file} cannot be read as a zip archive: {error}.") from error


@functools.lru_cache(maxsize=_OPEN_ARCHIVES)
def _open(file: str, _modified_ns: int, _size: int) -> Archive:
    opened = zipfile.ZipFile(file)
    entries = {entry.filename: entry for entry in opened.infolist() if not entry.is_dir()}
    if any(entry.flag_bits & _ENCRYPTED for entry in entries.values()):
        raise InputError(f"input={file} is encrypted; unpack it, and name the folder.")
    root = _find_root([name for name in entries if not is_junk(name)])
    return Archive(opened, root, {n.removeprefix(root): entry for n, entry in entries.items() if n.startswith(root)})


def _find_root(names: list[str]) -> str:
    """The folder that holds everything: who packs a folder ``image.zarr`` gets it as the only one at the top.

    >>> _find_root(["zarr.json", "0/zarr.json"]), _find_root(["image.zarr/zarr.json", "image.zarr/0/c/0"])
    ('', 'image.zarr/')
    """
    root = ""
    while not any(f"{root}{name}" in names for name in ZARR_METADATA):
        folders = {name.removeprefix(root).partition("/")[0] for name in names}
        if len(folders) != 1 or f"{root}{min(folders)}" in names:
            return ""
        root += f"{min(folders)}/"
    return root


class ArchiveStore(ZipStore):
    """zarr's store of a zip file, below a folder in it, read-only. The file is shared by all stores of a process."""

    def __init__(self, location: str) -> None:
        file, inner = _split(location)
        super().__init__(file, mode="r")
        self._inner = f"{inner}/" if inner else ""
        self._sync_open()

    def _sync_open(self) -> None:
        self._lock = threading.RLock()
        archive = open_archive(str(self.path))
        self._zf, self._prefix = archive.file, archive.root + self._inner
        self._is_open = True

    def close(self) -> None:
        """Leave the file open: others may read it."""
        self._is_open = False

    def __eq__(self, other: object) -> bool:
        return super().__eq__(other) and self._inner == getattr(other, "_inner", None)

    __hash__ = None  # type: ignore[assignment]  # as zarr's own stores

    def _get(self, key: str, prototype: BufferPrototype, byte_range: Any = None) -> Buffer | None:
        return super()._get(self._prefix + key, prototype, byte_range)

    async def exists(self, key: str) -> bool:
        """See `zarr.abc.store.Store.exists`."""
        return await super().exists(self._prefix + key)

    async def list(self) -> AsyncIterator[str]:
        """See `zarr.abc.store.Store.list`."""
        async for key in super().list():
            if key.startswith(self._prefix) and not key.endswith("/"):
                yield key.removeprefix(self._prefix)

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """See `zarr.abc.store.Store.list_dir`."""
        folder = f"{prefix.rstrip('/')}/".lstrip("/")
        seen = set()
        async for key in self.list_prefix(folder):
            name = key.removeprefix(folder).partition("/")[0]
            if name not in seen:
                seen.add(name)
                yield name
