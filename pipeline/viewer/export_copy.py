"""Copy or link the files of an export, many at a time, and count them."""

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import IO

from segment_slide.pipeline.errors import InputError
from segment_slide.pipeline.served_files.chunks import METADATA
from segment_slide.pipeline.served_files.files import OpenFile, StoreFileError
from segment_slide.pipeline.viewer.export_plan import ExportPlan, StoredCopy
from segment_slide.pipeline.viewer.reader_threads import Readers

_PIECE_BYTES = 4 << 20
_THREADS = 8  # an object store answers each request slowly, but many at once
_BATCH = 1000  # files that are copied before the next ones are started
_ENDING_S = 30.0
_CANNOT_LINK = (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.EACCES)

Advance = Callable[[int], None]


def is_copied(copy: StoredCopy, path: Path, *, hard_links: bool) -> bool:
    """Whether a file has been copied as listed. Its modification time is set last, so that a half copy differs."""
    try:
        found = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    if not hard_links and copy.source is not None and os.path.samestat(found, os.stat(copy.source)):
        return False
    if stat.S_IMODE(found.st_mode) & 0o666 & ~copy.found.mode:  # others may read the copy who may not read the source
        return False
    return (found.st_size, found.st_mtime_ns) == (copy.found.size, copy.found.mtime_ns)


class _How(StrEnum):
    """What became of one file."""

    COPIED = "copied"
    LINKED = "linked"
    KEPT = "kept"
    MISSING = "missing"  # a chunk that was never written, in a store without a listing


@dataclass
class Done:
    """Counts of the files that are in place."""

    n_files: int = 0
    n_bytes: int = 0
    n_kept: int = 0
    n_linked: int = 0
    stores_with_chunks: set[str] = field(default_factory=set)

    def note(self, copy: StoredCopy, how: _How, n_bytes: int) -> None:
        """Count one file."""
        if how is _How.MISSING:
            return
        self.n_files += 1
        self.n_bytes += n_bytes
        self.n_kept += how is _How.KEPT
        self.n_linked += how is _How.LINKED
        if copy.found.key.rpartition("/")[2] not in METADATA:
            self.stores_with_chunks.add(copy.prefix)


def fill_folder(plan: ExportPlan, partial: Path, kept: set[str], hard_links: bool, advance: Advance) -> Done:
    """Write all pages and copy what is missing."""
    done = Done(len(plan.pages), sum(map(len, plan.pages.values())))
    for name, content in plan.pages.items():
        _make_way(partial / name).write_bytes(content)
        advance(len(content))
    for copy in plan.copies:
        if copy.target in kept:
            done.note(copy, _How.KEPT, copy.found.size or 0)
    missing = [copy for copy in plan.copies if copy.target not in kept]
    with contextlib.closing(_Copiers()) as copiers:
        for first in range(0, len(missing), _BATCH):
            batch = missing[first : first + _BATCH]
            taken = [copiers.submit(_take, copy, partial / copy.target, hard_links) for copy in batch]
            for copy, result in zip(batch, taken, strict=True):
                how, n_bytes = result.result()
                done.note(copy, how, n_bytes)
                advance(n_bytes)
    return done


class _Copiers(Readers):
    """Threads that copy. Closing them waits for copies in progress, unless their disk hangs."""

    def __init__(self) -> None:
        super().__init__(_THREADS, "exporter")

    def close(self, wait_s: float = _ENDING_S) -> None:
        """See `Readers`."""
        super().close(wait_s)


def _make_way(path: Path) -> Path:
    """Remove what is at a path and return the path: writing into a link would change the file that it leads to."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    return path


def _take(copy: StoredCopy, target: Path, hard_links: bool) -> tuple[_How, int]:
    """Link or copy one file; return what became of it, and its bytes."""
    if hard_links and copy.source is not None and _link(copy.source, _make_way(target)):
        return _How.LINKED, copy.found.size or 0
    file = _open(copy)
    if file is None:
        target.unlink(missing_ok=True)
        return _How.MISSING, 0
    with contextlib.closing(file):
        found = replace(copy.found, size=file.size, mtime_ns=file.mtime_ns)
        if file.mtime_ns is not None and is_copied(replace(copy, found=found), target, hard_links=hard_links):
            return _How.KEPT, file.size
        with _create(_make_way(target), copy.found.mode) as out:
            for start in range(0, file.size, _PIECE_BYTES):
                out.write(_read(copy, file, start))
    if found.mtime_ns is not None:
        os.utime(target, ns=(found.mtime_ns, found.mtime_ns))
    return _How.COPIED, file.size


def _create(target: Path, mode: int) -> IO[bytes]:
    """Create a file with the permissions of its source, within the umask."""
    return os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb")


def _link(source: str, target: Path) -> bool:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if error.errno in _CANNOT_LINK:
            return False
        raise
    return True


def _open(copy: StoredCopy) -> OpenFile | None:
    """Open a file, and check that it still has its listed size; None if no listing promised it and it is not there."""
    with _reading(copy):
        try:
            file = copy.files.open(copy.found.key)
        except FileNotFoundError:
            if copy.found.size is None:
                return None
            raise
    if copy.found.size not in (None, file.size):
        file.close()
        raise InputError(
            f"{copy.found.key} changed while it was copied; when nobody writes, run the same command again."
        )
    return file


def _read(copy: StoredCopy, file: OpenFile, start: int) -> bytes:
    with _reading(copy):
        return file.read(start, min(file.size, start + _PIECE_BYTES))


@contextlib.contextmanager
def _reading(copy: StoredCopy) -> Iterator[None]:
    try:
        yield
    except StoreFileError as error:
        raise InputError(f"{error}. When it can be read, run the same command again: what is copied stays.") from error
    except OSError as error:
        raise InputError(f"{copy.source or copy.found.key} cannot be read: {error}") from error
