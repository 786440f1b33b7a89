"""Write a viewer into a folder that any web server can host, as long as it answers Range requests.

All files are first collected in ``DIR.partial``. At the end that folder is renamed to ``DIR``, so ``DIR`` is always
complete. If the export is interrupted, run the same command again: it keeps the files that were copied
already (it compares size and modification time) and copies the rest.
"""

import contextlib
import errno
import json
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from segment_slide.pipeline.errors import InputError, OutputError, PipelineError
from segment_slide.pipeline.storage.lock import LOCK_NAME, hold
from segment_slide.pipeline.viewer.export_plan import (
    MARK,
    ExportPlan,
    StoredCopy,
    check_own,
    check_place,
    check_room,
    plan_export,
)
from segment_slide.pipeline.viewer.files import OpenFile, digest
from segment_slide.pipeline.viewer.reader_threads import Readers
from segment_slide.pipeline.viewer.site import Site

_PIECE_BYTES = 4 << 20
_THREADS = 8  # an object store answers each request slowly, but many at once
_BATCH = 1000  # files that are copied before the next ones are started
_ENDING_S = 30.0
_CANNOT_LINK = (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.EACCES)

Advance = Callable[[int], None]


@dataclass(frozen=True)
class ExportReport:
    """What was written. `n_kept` files were left by an interrupted export; `n_linked` files are hard links."""

    folder: Path
    n_files: int
    n_bytes: int
    n_kept: int
    n_linked: int


def export(
    site: Site,
    folder: str | Path,
    *,
    hard_links: bool = False,
    begin: Callable[[ExportPlan, int], Advance] | None = None,
    listed: Callable[[int], None] | None = None,
) -> ExportReport:
    """Write a viewer with all that it shows.

    Parameters
    ----------
    site : Site
        What to write.
    folder : str or Path
        A new or empty folder, or an earlier export. An earlier export is replaced once the new one is complete. If it
        is a link, the folder that it leads to is used. A file that others may not read in a store stays unreadable for
        them here.
    hard_links : bool
        Link files on the same disk instead of copying them. Our shards are never changed in place, only replaced, so
        that a link keeps the old content. A program that does write in place changes both files.
    begin : callable, optional
        Called with the plan and the number of files that are already there. It returns a function, which is called with
        the number of bytes of each file.
    listed : callable, optional
        Called from time to time with the number of files found in the stores so far, before `begin` is called.

    Raises
    ------
    InputError
        If the folder or the stores cannot be used, or the disk is too small. Nothing was changed.
    OutputError
        If the folder cannot be written.
    """
    plan = plan_export(site, folder, listed)
    partial, replaced = (Path(f"{plan.folder}{ending}") for ending in (".partial", ".replaced"))
    for place in (plan.folder, partial, replaced):
        check_place(place)
    for place in (partial, replaced):
        check_own(place)
    mark = json.dumps({"program": "segment-slide", "shows": digest(repr(sorted(site.stores.items())).encode())})
    with _naming_folder(plan.folder), hold(str(partial), lambda: None):
        if _read_mark(partial) not in (None, mark):
            _remove_others(partial, {MARK})
        kept = {copy.target for copy in plan.copies if _is_copied(copy, partial / copy.target, hard_links=hard_links)}
        check_room(plan, partial, kept, hard_links=hard_links)
        (partial / MARK).write_text(mark)
        advance = begin(plan, len(kept)) if begin else lambda _: None
        n_linked = _fill(plan, partial, kept, hard_links, advance)
        _remove_others(partial, {MARK, *plan.pages, *(copy.target for copy in plan.copies)})
        _put_in_place(partial, plan.folder, replaced)
    return ExportReport(plan.folder, plan.n_files, plan.n_bytes, len(kept), n_linked)


@contextlib.contextmanager
def _naming_folder(folder: Path) -> Iterator[None]:
    try:
        yield
    except PipelineError:
        raise
    except OSError as error:
        raise OutputError(f"export={folder} cannot be written: {error}") from error


def _read_mark(folder: Path) -> str | None:
    path = folder / MARK
    return path.read_text() if path.exists() else None


def _is_copied(copy: StoredCopy, path: Path, *, hard_links: bool) -> bool:
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


def _fill(plan: ExportPlan, partial: Path, kept: set[str], hard_links: bool, advance: Advance) -> int:
    """Write all pages and copy what is missing; return the number of files that became links."""
    n_linked = 0
    for name, content in plan.pages.items():
        _make_way(partial / name).write_bytes(content)
        advance(len(content))
    missing = [copy for copy in plan.copies if copy.target not in kept]
    with contextlib.closing(_Copiers()) as copiers:
        for first in range(0, len(missing), _BATCH):
            batch = missing[first : first + _BATCH]
            taken = [copiers.submit(_take, copy, partial / copy.target, hard_links) for copy in batch]
            for copy, linked in zip(batch, taken, strict=True):
                n_linked += linked.result()
                advance(copy.found.size)
    return n_linked


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


def _take(copy: StoredCopy, target: Path, hard_links: bool) -> bool:
    """Link or copy one file; return whether it is a link."""
    _make_way(target)
    if hard_links and copy.source is not None and _link(copy.source, target):
        return True
    with contextlib.closing(_open(copy)) as file, _create(target, copy.found.mode) as out:
        for start in range(0, file.size, _PIECE_BYTES):
            out.write(_read(copy, file, start))
    if copy.found.mtime_ns is not None:
        os.utime(target, ns=(copy.found.mtime_ns, copy.found.mtime_ns))
    return False


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


def _open(copy: StoredCopy) -> OpenFile:
    """Open a file, and check that it still has its listed size."""
    with _reading(copy):
        file = copy.files.open(copy.found.key)
    if file.size != copy.found.size:
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
    except OSError as error:
        raise InputError(f"{copy.source or copy.found.key} cannot be read: {error}") from error


def _remove_others(folder: Path, names: set[str]) -> None:
    """Delete the files that an interrupted export of an earlier state left."""
    wanted = {str(folder / name) for name in (*names, LOCK_NAME)}
    for above, folders, files in os.walk(folder, topdown=False):
        for name in files:
            if (path := os.path.join(above, name)) not in wanted:
                os.unlink(path)
        for name in folders:
            with contextlib.suppress(OSError):  # not empty
                os.rmdir(os.path.join(above, name))


def _put_in_place(partial: Path, folder: Path, replaced: Path) -> None:
    """Rename the new folder to the old one's name. If this is interrupted, the same command does the rest."""
    if replaced.exists():
        shutil.rmtree(replaced)
    (partial / LOCK_NAME).unlink()
    if folder.exists():
        _keep_access(folder, partial)
        folder.rename(replaced)
    partial.rename(folder)
    if replaced.exists():
        shutil.rmtree(replaced)


def _keep_access(before: Path, after: Path) -> None:
    """Give the new folder the permissions of the folder that it replaces."""
    with contextlib.suppress(PermissionError):  # this user is not in that group
        os.chown(after, -1, before.stat().st_gid)
    shutil.copystat(before, after)
