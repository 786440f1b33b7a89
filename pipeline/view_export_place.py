"""Whether a folder is one that an export may take: new, empty or an earlier export, and nobody else's."""

import os
import stat
from pathlib import Path

from segment_slide.pipeline.errors import InputError
from segment_slide.pipeline.storage.lock import LOCK_NAME
from segment_slide.pipeline.storage.store import ZARR_METADATA, is_remote, resolve_location
from segment_slide.pipeline.view_site import Site
from segment_slide.pipeline.viewer.local_files import is_below

MARK = "segment-slide-export.json"  # says that a folder may be replaced
_ZARR = (*ZARR_METADATA, ".zattrs")


def resolve_target(site: Site, folder: str) -> Path:
    """The folder that is meant, without links: what takes its place is renamed to it.

    Raises
    ------
    InputError
        If it is a URL, a file, a mounted disk, or lies in a Zarr store.
    """
    if is_remote(folder):
        raise InputError(f"export={folder}, expected a local folder; export to one, and copy that to {folder}.")
    target = Path(os.path.realpath(resolve_location(folder)))
    if target.is_symlink():
        raise InputError(f"export={folder} is a link that leads in a circle; remove it, or name another folder.")
    if target.exists() and not target.is_dir():
        raise InputError(f"export={folder} is a file, expected a folder that is new, empty, or an earlier export.")
    for location in site.stores.values():
        root = "" if is_remote(location) else os.path.realpath(resolve_location(location))
        if root and (target == Path(root) or is_below(str(target), root) or is_below(root, str(target))):
            raise InputError(f"export={folder} and {location} lie in each other; name a folder beside it.")
    for above in (target, *target.parents):
        if found := next((name for name in _ZARR if os.path.lexists(above / name)), None):
            raise InputError(
                f"export={folder} lies in {above}, which is a Zarr store (it holds {found}); name a folder outside of "
                f"it."
            )
    return target


def check_place(folder: Path) -> None:
    """Refuse a folder with other people's files, and one that cannot be renamed.

    Raises
    ------
    InputError
        If it is not fit.
    """
    if os.path.ismount(folder):
        raise InputError(f"export: {folder} is where a disk is mounted, and cannot be replaced; name a folder in it.")
    names = set(os.listdir(folder)) - {LOCK_NAME} if folder.is_dir() else set()
    if names and MARK not in names:
        raise InputError(
            f"export: {folder} holds {min(names)!r} and {len(names) - 1} more, but no {MARK}: it is no earlier export. "
            f"Expected a folder that is new or empty. Name another, or remove what lies there."
        )


def check_own(folder: Path) -> None:
    """Refuse what somebody else has prepared beside the target: links in it would lead our files elsewhere.

    Raises
    ------
    InputError
        If it is not a folder of this user, or a folder in it, the mark or the lock is a link.
    """
    try:
        found = folder.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(found.st_mode):
        raise InputError(f"export: {folder} is no folder, but is needed as one while files are copied; remove it.")
    if found.st_uid != os.geteuid():
        raise InputError(f"export: {folder} belongs to another user; remove it, or export to another folder.")
    for name in (MARK, LOCK_NAME):
        if (folder / name).is_symlink():
            raise InputError(f"export: {folder / name} is a link, which no export makes; remove {folder}.")
    for above, folders, _ in os.walk(folder):
        for name in folders:
            if os.path.islink(path := os.path.join(above, name)):
                raise InputError(f"export: {path} is a link, which no export makes; remove {folder}.")
