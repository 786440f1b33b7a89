"""The files below a folder or URL as a flat list, with what shows that a file has changed; the same for both.

Local symbolic links are followed. Each folder is read once, so links that lead in a circle are harmless. Hidden folders
are read only inside a Zarr.
"""

import logging
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from segment_slide.pipeline.errors import InputError
from segment_slide.pipeline.metadata.junk import is_hidden
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.zarr_stores.archive import ZARR_METADATA

log = logging.getLogger(__name__)

_TIMES = ("LastModified", "last_modified", "mtime", "updated", "created")  # the names that object stores use for it


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file below a watched folder.

    Attributes
    ----------
    name : str
        Path relative to the folder, with "/".
    size_bytes : int
        Size of the file.
    mark : str
        Changes when the file's content changes: the modification time (ns), or the object store's own tag.
    changed_s : float
        When it was last changed in any way (s since the epoch). Not the modification time, which a program may set.
    store : str or None
        The outermost folder around the file that is a Zarr, named as in `name`; None if there is none.
    """

    name: str
    size_bytes: int
    mark: str
    changed_s: float
    store: str | None = None


def list_files(location: str, skip: Sequence[str], *, in_store: bool = False) -> Iterator[FoundFile]:
    """List all files below a folder or URL; the files of one Zarr follow each other, the order is otherwise arbitrary.

    Parameters
    ----------
    location : str
        Absolute path, or URL.
    skip : sequence of str
        Folders to leave out.
    in_store : bool
        Whether the folder is a Zarr: then its hidden folders belong to it.

    Raises
    ------
    InputError
        If the folder does not exist or cannot be listed.
    """
    if store.is_remote(location):
        yield from _list_remote(location, skip)
        return
    if not os.path.isdir(location):
        raise InputError(f"watch={location}: no such folder.")
    try:
        os.listdir(location)
    except OSError as error:
        raise InputError(f"watch={location} cannot be listed: {error}") from error
    yield from _list_local(location, {_identity(path) for path in skip if os.path.exists(path)}, in_store=in_store)


def _identity(path: str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino


def _list_local(root: str, seen: set[tuple[int, int]], *, in_store: bool) -> Iterator[FoundFile]:
    """List the files below a folder. Links are followed last, so that a folder below it keeps its own name."""
    folders, links = [""], list[str]()
    while folders or links:
        relative = folders.pop() if folders else links.pop(0)
        folder = os.path.join(root, relative)
        try:
            identity = _identity(folder)
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except FileNotFoundError:
            continue
        except OSError as error:
            log.warning("%s cannot be listed and is left out: %s", folder, error)
            continue
        if identity in seen:
            continue
        seen.add(identity)
        if not in_store and (relative.endswith(".zarr") or any(entry.name in ZARR_METADATA for entry in entries)):
            # listed separately, so that its files do not depend on folders seen before
            for file in _list_local(folder, set(), in_store=True):
                yield replace(file, name=store.join(relative, file.name), store=relative)
            continue
        for entry in entries:
            name = store.join(relative, entry.name)
            if not entry.is_dir():
                yield from filter(None, [local_file(entry.path, name)])
            elif in_store or not is_hidden(entry.name):  # .snapshot holds all earlier states of a file server
                (links if entry.is_symlink() else folders).append(name)


def local_file(path: str, name: str) -> FoundFile | None:
    """What the file system knows of a file; None if it is gone, or a link that leads nowhere."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return FoundFile(name, status.st_size, str(status.st_mtime_ns), status.st_ctime)


def _list_remote(url: str, skip: Sequence[str]) -> Iterator[FoundFile]:
    import fsspec

    try:
        filesystem, root = fsspec.core.url_to_fs(url)
        filesystem.invalidate_cache()
        files = filesystem.find(root, detail=True)
    except Exception as error:  # back ends raise classes of their own
        raise InputError(f"watch={url} cannot be listed: {error}") from error
    if not files:
        raise InputError(f"watch={url}: nothing is there.")
    skipped = tuple(f"{location.removeprefix(url).strip('/')}/" for location in skip if location.startswith(f"{url}/"))
    found = [(path[len(root) :].lstrip("/"), info) for path, info in files.items()]
    found = [(name, info) for name, info in found if name and not (skipped and name.startswith(skipped))]
    stores = {name.rpartition("/")[0] for name, _ in found if name.rpartition("/")[2] in ZARR_METADATA}
    for name, info in sorted(found, key=lambda item: _topmost_store(item[0], stores) or ""):
        changed = _remote_time(info)
        mark = str(info.get("ETag") or changed)
        yield FoundFile(name, int(info.get("size") or 0), mark, changed, _topmost_store(name, stores))


def _topmost_store(name: str, stores: set[str]) -> str | None:
    """Name of the outermost folder of a file that is a Zarr; None if there is none.

    >>> _topmost_store("a/b.zarr/0/c/0", set()), _topmost_store("zarr.json", {""}), _topmost_store("a/b.tif", set())
    ('a/b.zarr', '', None)
    """
    parts = name.split("/")[:-1]
    folders = ["/".join(parts[:n]) for n in range(len(parts) + 1)]
    return next((folder for folder in folders if folder in stores or folder.endswith(".zarr")), None)


def _remote_time(info: dict[str, Any]) -> float:
    value = next((info[key] for key in _TIMES if info.get(key) is not None), math.inf)
    value = datetime.fromisoformat(value) if isinstance(value, str) else value
    return value.timestamp() if isinstance(value, datetime) else float(value)
