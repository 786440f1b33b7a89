"""Write a viewer into a folder that any web server can host, as long as it answers Range requests.

Everything is gathered in ``DIR.partial``, which takes the place of ``DIR`` at the end: a folder by the right name is
whole. After an interruption the same command keeps what was copied, as size and time of change tell, and goes on.
"""

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import InputError, OutputError, PipelineError
from pipeline.lock import LOCK_NAME, hold
from pipeline.view_export_plan import ExportPlan, StoredCopy, check_room, plan_export
from pipeline.view_files import OpenFile, digest
from pipeline.view_site import Site

MARK = "segment-slide-export.json"  # says that a folder may be replaced
_PIECE_BYTES = 4 << 20
_THREADS = 8  # an object store answers each request late, and many at once
_BATCH = 1000  # files that are waited for together: an interruption has to wait for those that are under way only
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
) -> ExportReport:
    """Write a viewer with all that it shows.

    Parameters
    ----------
    site : Site
        What to write.
    folder : str or Path
        New, empty, or an earlier export, which stays as it is until the new one is whole and is then replaced.
    hard_links : bool
        Link files on the same disk instead of copying them. Shards are never changed in place, only replaced, so
        that a link keeps what was there; but a program that does write in place then writes into both.
    begin : callable, optional
        Is told the plan and how many files are there already; what it returns is called with the bytes of each file.

    Raises
    ------
    InputError
        If the folder or the stores are not fit, or the disk is too small; nothing was changed.
    OutputError
        If it cannot be written.
    """
    plan = plan_export(site, folder)
    partial, replaced = (Path(f"{plan.folder}{ending}") for ending in (".partial", ".replaced"))
    for place in (plan.folder, partial, replaced):
        _check_ours(place)
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


def _check_ours(folder: Path) -> None:
    """Refuse a folder with other people's files."""
    names = set(os.listdir(folder)) - {LOCK_NAME} if folder.is_dir() else set()
    if names and MARK not in names:
        raise InputError(
            f"export: {folder} holds {min(names)!r} and {len(names) - 1} more, but no {MARK}: it is no earlier export. "
            f"Expected a folder that is new or empty. Name another, or remove what lies there."
        )


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
    return (found.st_size, found.st_mtime_ns) == (copy.found.size, copy.found.mtime_ns)


def _fill(plan: ExportPlan, partial: Path, kept: set[str], hard_links: bool, advance: Advance) -> int:
    """Write all pages and copy what is not there yet; how many files became links."""
    n_linked = 0
    for name, content in plan.pages.items():
        _make_way(partial / name).write_bytes(content)
        advance(len(content))
    missing = [copy for copy in plan.copies if copy.target not in kept]
    with ThreadPoolExecutor(_THREADS, "exporter") as workers:
        for first in range(0, len(missing), _BATCH):
            batch = missing[first : first + _BATCH]
            for copy, linked in zip(
                batch, workers.map(lambda copy: _take(copy, partial / copy.target, hard_links), batch), strict=True
            ):
                n_linked += linked
                advance(copy.found.size)
    return n_linked


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
    with contextlib.closing(_open(copy)) as file, target.open("xb") as out:
        for start in range(0, file.size, _PIECE_BYTES):
            out.write(_read(copy, file, start))
    if copy.found.mtime_ns is not None:
        os.utime(target, ns=(copy.found.mtime_ns, copy.found.mtime_ns))
    return False


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
    if folder.exists():
        folder.rename(replaced)
    (partial / LOCK_NAME).unlink()
    partial.rename(folder)
    if replaced.exists():
        shutil.rmtree(replaced)
