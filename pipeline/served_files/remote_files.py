"""The objects below a URL for a browser. The browser needs no credentials, because this process has them."""

import errno
from collections.abc import Iterator
from typing import Any

from segment_slide.pipeline.errors import InputError
from segment_slide.pipeline.served_files.files import (
    ListedFile,
    MemoryFile,
    OpenFile,
    StoreFileError,
    digest,
    split_key,
    split_path,
)
from segment_slide.pipeline.storage.store import join


class RemoteFiles:
    """The objects below a URL, read through fsspec."""

    can_list = True

    def __init__(self, location: str) -> None:
        import fsspec

        # No cached listing: it would hide files that were written after it.
        self._filesystem, root = fsspec.core.url_to_fs(location, use_listings_cache=False)
        self._root = root.rstrip("/")

    def open(self, key: str) -> OpenFile:
        """See `Files`."""
        path = join(self._root, *split_key(key))
        info = self._info(path)
        if info.get("type") == "directory":
            raise FileNotFoundError(errno.ENOENT, "not a file", key)
        if info.get("size") is None:  # some web servers give no size
            return MemoryFile(self._ask("cat_file", path), _tag(info))
        return _RemoteFile(self, path, info)

    def walk(self, path: str) -> Iterator[ListedFile]:
        """See `Files`; a store that cannot list its files is refused."""
        base = join(self._root, *split_path(path))
        try:
            if path and (info := self._info(base)).get("type") == "file":
                yield _listed(path, info)
                return
            found = self._ask("find", base, detail=True)
        except FileNotFoundError:
            return
        except NotImplementedError as error:
            raise InputError(f"{base} has no listing of its files, so nobody knows what to copy.") from error
        except OSError as error:
            raise InputError(str(error)) from error
        for name, info in sorted(found.items()):
            yield _listed(name.removeprefix(self._root).lstrip("/"), info)

    def _info(self, path: str) -> dict[str, Any]:
        return dict(self._ask("info", path))

    def _ask(self, method: str, path: str, **options: Any) -> Any:
        try:
            return getattr(self._filesystem, method)(path, **options)
        except (FileNotFoundError, NotImplementedError):
            raise
        except Exception as error:  # each back end raises classes of its own
            raise StoreFileError(f"{path} cannot be read: {error}") from error


class _RemoteFile:
    """An object. If another one replaces it between two pieces, reading is refused."""

    def __init__(self, store: RemoteFiles, path: str, info: dict[str, Any]) -> None:
        self._store, self._path, self._n_read = store, path, 0
        self.size = int(info["size"])
        self.tag, self.mtime_ns = _tag(info), _mtime_ns(info)

    def read(self, start: int, stop: int) -> bytes:
        content: bytes = self._store._ask("cat_file", self._path, start=start, end=stop)
        self._n_read += 1
        if len(content) != stop - start or (self._n_read > 1 and _tag(self._store._info(self._path)) != self.tag):
            raise StoreFileError(f"{self._path} was replaced while it was read")
        return content

    def close(self) -> None:
        pass


def _listed(key: str, info: dict[str, Any]) -> ListedFile:
    split_path(key)  # an object's name can be "../x"
    if info.get("size") is None:
        raise InputError(f"{key}: its store does not say how large it is, so nobody knows whether a copy fits.")
    return ListedFile(key, int(info["size"]), _mtime_ns(info))


def _mark(info: dict[str, Any]) -> Any:
    return info.get("ETag") or info.get("mtime") or info.get("LastModified") or info.get("created")


def _tag(info: dict[str, Any]) -> str:
    return "" if _mark(info) is None else digest(f"{_mark(info)} {info.get('size')}".encode())


def _mtime_ns(info: dict[str, Any]) -> int | None:
    changed: Any = info.get("LastModified") or info.get("mtime") or info.get("created")
    seconds = changed.timestamp() if hasattr(changed, "timestamp") else changed
    return int(seconds * 1_000_000_000) if isinstance(seconds, int | float) else None
