"""Write a viewer into a folder that any web server can host, as long as it answers Range requests.

All files are first collected in ``DIR.partial``. At the end that folder is renamed to ``DIR``, so ``DIR`` is always
complete. If the export is interrupted, run the same command again: it keeps the files that were copied
already (it compares size and modification time) and copies the rest.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from segment_slide.pipeline.errors import OutputError, PipelineError
from segment_slide.pipeline.served_files.files import digest
from segment_slide.pipeline.storage.lock import LOCK_NAME, hold
from segment_slide.pipeline.viewer.export_copy import Advance, fill_folder, is_copied
from segment_slide.pipeline.viewer.export_plan import MARK, ExportPlan, check_own, check_place, check_room, plan_export
from segment_slide.pipeline.viewer.site import Site


@dataclass(frozen=True)
class ExportReport:
    """What was written.

    Attributes
    ----------
    folder : Path
        The exported viewer.
    n_files, n_bytes : int
        Files of the export, and their bytes.
    n_kept, n_linked : int
        Files that an interrupted export left, and files that are hard links.
    empty : tuple of str
        Stores of which no chunk is there: all that is seen of them is background.
    """

    folder: Path
    n_files: int
    n_bytes: int
    n_kept: int
    n_linked: int
    empty: tuple[str, ...] = ()


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
    mark = json.dumps({"program": "segment-slide", "shows": _name_contents(site)})
    with _naming_folder(plan.folder), hold(str(partial), lambda: None):
        if _read_mark(partial) not in (None, mark):
            _remove_others(partial, {MARK})
        kept = {copy.target for copy in plan.copies if is_copied(copy, partial / copy.target, hard_links=hard_links)}
        check_room(plan, partial, kept, hard_links=hard_links)
        (partial / MARK).write_text(mark)
        advance = begin(plan, len(kept)) if begin else lambda _: None
        done = fill_folder(plan, partial, kept, hard_links, advance)
        _remove_others(partial, {MARK, *plan.pages, *(copy.target for copy in plan.copies)})
        _put_in_place(partial, plan.folder, replaced)
    empty = tuple(site.stores[prefix] for prefix in sorted(set(site.stores) - done.stores_with_chunks))
    return ExportReport(plan.folder, done.n_files, done.n_bytes, done.n_kept, done.n_linked, empty)


def _name_contents(site: Site) -> str:
    """A short name of what a site shows: an export of something else is not gone on with."""
    return digest(repr([*sorted(site.stores.items()), *sorted(site.types.items())]).encode())


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
