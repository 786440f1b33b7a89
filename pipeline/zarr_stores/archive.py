"""Images in one zip file (``.zarr.zip``, ``.ozx``), read without unpacking.

They are inputs only: what is written into a zip file twice is in it twice. A location inside an archive is the path or
URL of the archive with more after it: ``/data/slide.ozx/labels/nuclei``. At a URL, only the parts that are needed are
fetched.
"""

import functools
import io
import os
import re
import threading
import zipfile
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import ZipStore

from segment_slide.pipeline.errors import InputError, OutputError, UnreachableError
from segment_slide.pipeline.metadata.junk import is_junk
from segment_slide.pipeline.zarr_stores.checked import is_web, web_options

ZARR_METADATA = ("zarr.json", ".zgroup", ".zarray")  # a folder with one of these is read as Zarr
_END = re.compile(r"\.(zip|ozx)(?=/|$)", re.IGNORECASE)
_OPEN_ARCHIVES = 4  # kept open per process: the list of a large archive's files takes a second to read
_ENCRYPTED = 1
_SMALLEST_BYTES = 22  # of an archive without files
_PIECE_BYTES = 1 << 18  # fetched at once from a URL, at least


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
    version : Version
        Which version of the archive it is.
    """

    file: zipfile.ZipFile
    root: str
    entries: Mapping[str, zipfile.ZipInfo]
    version: "Version"


@dataclass(frozen=True)
class Version:
    """What differs between versions of a file: its size, when it was changed, and the mark that a server gives it."""

    size: int
    mtime_ns: int | None
    mark: str = ""


def is_archive_name(location: str) -> bool:
    """Whether a location is called like an archive.

    >>> is_archive_name("/data/slide.zarr.zip"), is_archive_name("/data/zip/slide.zarr")
    (True, False)
    """
    return _END.search(os.path.basename(location)) is not None


def split_archive(location: str) -> tuple[str, str] | None:
    """The archive that a location is or lies in, and the path inside it; None if it lies in none. URLs tell by name."""
    for found in _END.finditer(location):
        file = location[: found.end()]
        if "://" in file or os.path.isfile(file):
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


def refuse_unwritable(location: str) -> None:
    """Refuse to write into a zip archive, to make one, and to write to a web server.

    Raises
    ------
    OutputError
        If the location is in an archive, is called like one, or is an address of a web server.
    """
    if split_archive(location) or (is_archive_name(location) and not os.path.isdir(location)):
        raise OutputError(
            f"output={location} is a zip archive, which is only read, never written; name a folder, by convention "
            f"NAME.ome.zarr."
        )
    if is_web(location):
        raise OutputError(
            f"output={location} is on a web server, which cannot be written; name a folder, or an object store, as "
            f"`output`."
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
        return _open(file, _version(file))
    except InputError:
        raise
    except FileNotFoundError as error:
        why = error.__cause__  # fsspec raises the same error where a server fails
        if why is None or isinstance(why, FileNotFoundError) or getattr(why, "status", None) == 404:
            raise InputError(f"input={file}: no such file.") from error
        raise UnreachableError(f"input={file} cannot be reached: {why}") from error
    except (zipfile.BadZipFile, NotImplementedError, EOFError) as error:
        raise InputError(f"input={file} cannot be read as a zip archive: {error}.") from error
    except Exception as error:  # fsspec back ends raise classes of their own
        if "://" not in file and not isinstance(error, OSError):
            raise
        if isinstance(error, io.UnsupportedOperation) or "range requests" in str(error):
            raise InputError(
                f"input={file} cannot be read where it is: its web server sends no parts of a file (Range requests). "
                f"Download it, and name the file."
            ) from error
        raise UnreachableError(f"input={file} cannot be read: {type(error).__name__}: {error}") from error


def _version(file: str) -> Version:
    if "://" not in file:
        status = os.stat(file)
        return Version(status.st_size, status.st_mtime_ns)
    filesystem, path = _filesystem(file)
    info = filesystem.info(path)
    mark = info.get("ETag") or info.get("mtime") or info.get("LastModified") or info.get("created")
    return Version(int(info.get("size") or 0), None, str(mark or ""))


def _filesystem(file: str) -> tuple[Any, str]:
    import fsspec

    filesystem, path = fsspec.core.url_to_fs(file, **web_options(file))
    return filesystem, path


@functools.lru_cache(maxsize=_OPEN_ARCHIVES)
def _open(file: str, version: Version) -> Archive:
    if version.size < _SMALLEST_BYTES:
        raise zipfile.BadZipFile("it is too small for one")
    opened = zipfile.ZipFile(_open_url(file) if "://" in file else file)
    for entry in opened.filelist:  # some programs for Windows separate folders as Windows does
        entry.filename = entry.filename.replace("\\", "/")
        opened.NameToInfo[entry.filename] = entry
    entries = {entry.filename: entry for entry in opened.infolist() if not entry.is_dir()}
    if any(entry.flag_bits & _ENCRYPTED for entry in entries.values()):
        raise InputError(f"input={file} is encrypted; unpack it, and name the folder.")
    root = _find_root([name for name in entries if not is_junk(name)])
    below = {name.removeprefix(root): entry for name, entry in entries.items() if name.startswith(root)}
    return Archive(opened, root, below, version)


def _open_url(file: str) -> Any:
    filesystem, path = _filesystem(file)
    opened = filesystem.open(path, "rb", block_size=_PIECE_BYTES, cache_type="readahead")
    if not opened.seekable():
        raise io.UnsupportedOperation(file)
    return opened


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
        self._file = file  # zarr takes it for a path
        self._inner = f"{inner}/" if inner else ""
        self._sync_open()

    def _sync_open(self) -> None:
        self._lock = threading.RLock()
        archive = open_archive(self._file)
        self._zf, self._prefix = archive.file, archive.root + self._inner
        self._is_open = True

    def close(self) -> None:
        """Leave the file open: others may read it."""
        self._is_open = False

    def __eq__(self, other: object) -> bool:
        mine, others = ((getattr(item, "_file", None), getattr(item, "_inner", None)) for item in (self, other))
        return super().__eq__(other) and mine == others

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
