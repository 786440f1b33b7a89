"""The files of a folder for a browser: only regular files that really lie below it, also when links are resolved."""

import errno
import os
import stat
from collections.abc import Iterator

from segment_slide.pipeline.errors import InputError
from segment_slide.pipeline.served_files.files import ListedFile, OpenFile, split_key, split_path
from segment_slide.pipeline.storage.store import join, list_names

_NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)


class LocalFiles:
    """The regular files of a folder; symbolic links are followed as long as they stay in it."""

    can_list = True

    def __init__(self, location: str) -> None:
        self._location = location

    def open(self, key: str) -> OpenFile:
        """See `Files`."""
        root, real = self._resolve(key)
        if not is_below(real, root):
            raise FileNotFoundError(errno.ENOENT, "outside of the store", key)
        try:
            return _LocalFile(_open_regular(root, os.path.relpath(real, root).split(os.sep)))
        except OSError as error:
            if error.errno in _NOT_THERE:
                raise FileNotFoundError(errno.ENOENT, "no such file", key) from error
            raise

    def walk(self, path: str) -> Iterator[ListedFile]:
        """See `Files`; links that lead out of the store or in a circle are refused."""
        root = os.path.realpath(self._location)
        return self._walk(root, path, os.path.realpath(os.path.join(root, *split_path(path))), ())

    def _resolve(self, key: str) -> tuple[str, str]:
        root = os.path.realpath(self._location)
        return root, os.path.realpath(os.path.join(root, *split_key(key)))

    def _walk(self, root: str, key: str, real: str, above: tuple[str, ...]) -> Iterator[ListedFile]:
        """Yield the files at and below a path without links; `above` are the folders that it lies in."""
        path = join(self._location, key)
        if real in above:
            raise InputError(f"{path} leads in a circle, back to {real}; remove that link.")
        if real != root and not is_below(real, root):
            raise InputError(
                f"{path} leads to {real}, which lies outside of {self._location}; expected all files of a store below "
                f"it: a copy would take along what nobody meant to show. Put the file itself there, or remove the link."
            )
        try:
            found = os.stat(real)
            names = sorted(list_names(real)) if stat.S_ISDIR(found.st_mode) else []
        except FileNotFoundError:
            return
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error}") from error
        if stat.S_ISREG(found.st_mode):
            yield ListedFile(key, found.st_size, found.st_mtime_ns, stat.S_IMODE(found.st_mode) & 0o666, real)
        for name in names:
            inner = os.path.join(real, name)
            if os.path.islink(inner):
                inner = os.path.realpath(inner)
            yield from self._walk(root, f"{key}/{name}".lstrip("/"), inner, (*above, real))


def is_below(path: str, root: str) -> bool:
    """Whether a path lies in a folder; both must be free of links.

    >>> is_below("/a/b/c", "/a/b"), is_below("/a/bc", "/a/b"), is_below("/a/b", "/a/b")
    (True, False, False)
    """
    return path != root and os.path.commonpath((path, root)) == root


def _open_regular(root: str, names: list[str]) -> int:
    """Open a regular file folder by folder, so that a folder replaced by a link meanwhile is not followed."""
    folder = os.open(root, os.O_PATH | os.O_DIRECTORY)
    try:
        for name in names[:-1]:
            inner = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
            os.close(folder)
            folder = inner
        _check_regular(os.stat(names[-1], dir_fd=folder, follow_symlinks=False))  # opening a device may have effects
        descriptor = os.open(names[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    finally:
        os.close(folder)
    try:
        _check_regular(os.fstat(descriptor))
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _check_regular(found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise FileNotFoundError(errno.ENOENT, "not a regular file")


class _LocalFile:
    def __init__(self, descriptor: int) -> None:
        found = os.fstat(descriptor)
        self._descriptor = descriptor
        self.size, self.mtime_ns = found.st_size, found.st_mtime_ns
        self.tag = f"{found.st_ino:x}-{found.st_size:x}-{found.st_mtime_ns:x}"

    def read(self, start: int, stop: int) -> bytes:
        pieces = []
        while start < stop:  # the system may return fewer bytes than requested
            piece = os.pread(self._descriptor, stop - start, start)
            if not piece:
                raise OSError(errno.EIO, "the file became shorter while it was read")
            pieces.append(piece)
            start += len(piece)
        return b"".join(pieces)

    def close(self) -> None:
        os.close(self._descriptor)
