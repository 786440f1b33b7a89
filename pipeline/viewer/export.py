"""Write a viewer into a folder that any web server can host, as long as it answers Range requests.

Everything is gathered in ``DIR.partial``, which takes the place of ``DIR`` at the end: a folder by the right name is
whole. After an interruption the same command keeps what was copied, as size and time of change tell, and goes on.
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
_THREADS = 8  # an object store answers each request late, and many at once
_BATCH = 1000  # files that are waited for together
_ENDING_S = 30.0
_CANNOT_LINK = (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.EACCES)

Advance = Callable[[int], None]


@dataclass(frozen=True)
class ExportReport:
    """What was written: `n_kept` of the files an interrupted export had left, `n_linked` are hard links."""

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
        New, empty, or an earlier export, which stays as it is until the new one is whole and is then replaced. Of a
        link, the folder that it leads to. What nobody else may read in a store, nobody else may read here.
    hard_links : bool
        Link files on the same disk instead of copying them. Shards are never changed in place, only replaced, so
        that a link keeps what was there; but a program that does write in place then writes into both.
    begin : callable, optional
        Is told the plan and how many files are there already; what it returns is called with the bytes of each file.
    listed : callable, optional
        Is told from time to time how many files of the stores were found, before `begin` is called.

    Raises
    ------
    InputError
        If the folder or the stores are not fit, or the disk is too small; nothing was changed.
    OutputError
        If it cannot be written.
    """
    plan = plan_export(site, folder, listed)
    partial, replaced = (Path(f"{plan.folder}{ending}") for ending in (".partial", ".replaced"))
    for place in (plan.folder, partial, replaced):
        check_place(place)
    for place in (partial, replaced):
        check_own(place)
    mark = json.dumps({"program": "segment-slide", "shows": digest(repr(sorted(site.stores.items())).encode())})
    with _saying_where(plan.folder), hold(str(partial), lambda: None):
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
def _saying_where(folder: Path) -> Iterator[None]:
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
    """Whether a file is there as it was listed; its time of change is set after its last byte."""
    try:
        found = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    if not hard_links and copy.source is not None and os.path.samestat(found, os.stat(copy.source)):
        return False
    if stat.S_IMODE(found.st_mode) & 0o666 & ~copy.found.mode:  # more may read it than its source
        return False
    return (found.st_size, found.st_mtime_ns) == (copy.found.size, copy.found.mtime_ns)


def _fill(plan: ExportPlan, partial: Path, kept: set[str], hard_links: bool, advance: Advance) -> int:
    """Write all pages and copy what is not there yet; how many files became links."""
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
    """Threads that copy; at the end those that are under way are waited for, unless their disk hangs."""

    def __init__(self) -> None:
        super().__init__(_THREADS, "exporter")

    def close(self, wait_s: float = _ENDING_S) -> None:
        """See `Readers`."""
        super().close(wait_s)


def _make_way(path: Path) -> Path:
    """A path at which nothing is: writing into a file that is a link would change what it is a link to."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    return path


def _take(copy: StoredCopy, target: Path, hard_links: bool) -> bool:
    """Link or copy one file; whether it is a link."""
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
    """A new file for those who may have its source, as far as the umask lets them."""
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
    """The file as it was listed."""
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
    """Delete what an interrupted export of an earlier state had left."""
    wanted = {str(folder / name) for name in (*names, LOCK_NAME)}
    for above, folders, files in os.walk(folder, topdown=False):
        for name in files:
            if (path := os.path.join(above, name)) not in wanted:
                os.unlink(path)
        for name in folders:
            with contextlib.suppress(OSError):  # it holds something
                os.rmdir(os.path.join(above, name))


def _put_in_place(partial: Path, folder: Path, replaced: Path) -> None:
    """Let the new folder take the old one's place; killed in between, the same command does the rest."""
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
    """Let those into a folder, and only those, who were let into the one whose place it takes."""
    with contextlib.suppress(PermissionError):  # of a group that this user is not in
        os.chown(after, -1, before.stat().st_gid)
    shutil.copystat(before, after)
