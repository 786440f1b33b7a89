"""Which files of an output its manifest lists, and how large they are."""

import os
from collections.abc import Iterable, Iterator

from segment_slide.pipeline.errors import UnreachableError
from segment_slide.pipeline.manifest.manifest import FOLDER
from segment_slide.pipeline.metadata.junk import is_junk
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.lock import LOCK_NAME
from segment_slide.pipeline.zarr_stores.written import is_scratch

PARTIAL = ".partial"


def is_listed(key: str) -> bool:
    """Whether a file of an output is part of it: not while it is written, no lock, no junk, no intermediate file.

    >>> [is_listed(key) for key in ("0/c/0", "zarr.json", "_manifest/files.json", "0/c/0.abc.partial", "a/.DS_Store")]
    [True, True, False, False, False]
    """
    parts = key.split("/")
    is_temporary = key.endswith(PARTIAL) or LOCK_NAME in parts or is_scratch(key)
    return not (is_temporary or FOLDER in parts or is_junk(key))


def list_files(location: str, folders: Iterable[str], files: Iterable[str] = ()) -> dict[str, int]:
    """Files that belong into a manifest, with their sizes in bytes.

    Parameters
    ----------
    location : str
        The output.
    folders : iterable of str
        Folders in it, whose files are all listed; "" is the whole output.
    files : iterable of str
        Single files in it; one that is not there is left out.

    Raises
    ------
    UnreachableError
        If the store cannot be reached.
    """
    list_all, find = (_list_remote, _size_remote) if store.is_remote(location) else (_list_local, _size_local)
    found = {key: size for folder in folders for key, size in list_all(location, folder) if is_listed(key)}
    for key in files:
        if key not in found and (size := find(location, key)) is not None:
            found[key] = size
    return found


def has_files(location: str, folders: Iterable[str]) -> bool:
    """Whether a local output has any file in one of these folders."""
    below = (key for folder in folders for key, _ in _list_local(location, folder))
    return any(map(is_listed, below))


def _list_local(location: str, folder: str) -> Iterator[tuple[str, int]]:
    top = os.path.join(location, folder)
    for above, folders, names in os.walk(top):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(above, name)
            try:
                yield os.path.relpath(path, location).replace(os.sep, "/"), os.stat(path).st_size
            except FileNotFoundError:  # deleted meanwhile, or a link that leads nowhere
                continue


def _size_local(location: str, key: str) -> int | None:
    path = os.path.join(location, key)
    return os.path.getsize(path) if os.path.isfile(path) else None


def _list_remote(location: str, folder: str) -> Iterator[tuple[str, int]]:
    import fsspec

    try:
        filesystem, root = fsspec.core.url_to_fs(location)
        filesystem.invalidate_cache()  # workers have written since the last listing
        found = filesystem.find(store.join(root, folder), detail=True)
    except FileNotFoundError:
        return
    except Exception as error:  # fsspec back ends raise classes of their own
        raise UnreachableError(f"{location} cannot be reached: {error}") from error
    for path, info in sorted(found.items()):
        yield path.removeprefix(root).lstrip("/"), int(info.get("size") or 0)


def _size_remote(location: str, key: str) -> int | None:
    import fsspec

    try:
        filesystem, path = fsspec.core.url_to_fs(store.join(location, key))
        return int(filesystem.info(path).get("size") or 0)
    except FileNotFoundError:
        return None
    except Exception as error:  # fsspec back ends raise classes of their own
        raise UnreachableError(f"{location} cannot be reached: {error}") from error
