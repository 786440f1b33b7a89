"""What an exported viewer holds: which files, how large they are, and whether there is room. Copies nothing."""

import os
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segment_slide.pipeline.documents.page import make_redirect
from segment_slide.pipeline.errors import InputError
from segment_slide.pipeline.metadata.junk import is_junk
from segment_slide.pipeline.served_files.chunks import METADATA, array_files
from segment_slide.pipeline.served_files.files import Files, ListedFile, split_path
from segment_slide.pipeline.served_files.local_files import is_below
from segment_slide.pipeline.served_files.open import open_files
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.lock import LOCK_NAME
from segment_slide.pipeline.storage.store import is_remote, join, resolve_location
from segment_slide.pipeline.viewer.site import Site, client_files
from segment_slide.pipeline.zarr_stores.archive import ZARR_METADATA

MARK = "segment-slide-export.json"  # marks a folder as an export, which may be replaced
_ZARR = (*ZARR_METADATA, ".zattrs")

PAGES = "v/view"  # the client derives addresses from a path of this form
_DISK_BLOCK_BYTES = 4096
_TOLD_FILES = 1000


@dataclass(frozen=True)
class StoredCopy:
    """One file of a store that an export copies; `prefix` is the store's path on the site."""

    prefix: str
    files: Files
    found: ListedFile

    @property
    def target(self) -> str:
        """Path in the export."""
        return f"{PAGES}/{self.prefix}/{self.found.key}"

    @property
    def source(self) -> str | None:
        """Path of the file if it is local, so that it can be linked."""
        return self.found.source


@dataclass(frozen=True)
class ExportPlan:
    """All files of an exported viewer, by their paths in its folder.

    Attributes
    ----------
    pages : mapping of str to bytes
        Files that are written with exactly this content.
    copies : tuple of StoredCopy
        Files that are copied from stores.
    """

    folder: Path
    pages: Mapping[str, bytes]
    copies: tuple[StoredCopy, ...]

    @property
    def n_files(self) -> int:
        """Number of files of the export, with those that may turn out to be missing."""
        return len(self.pages) + len(self.copies)

    @property
    def n_bytes(self) -> int:
        """Number of bytes of the export, as far as they are known before the files are copied."""
        return sum(map(len, self.pages.values())) + sum(copy.found.size or 0 for copy in self.copies)


def plan_export(site: Site, folder: str | Path, listed: Callable[[int], None] | None = None) -> ExportPlan:
    """List the files of an export. Of a store it takes only what a viewer reads: metadata, and the chunks of levels.

    Parameters
    ----------
    site : Site
        What to write.
    folder : str or Path
        Where to write.
    listed : callable, optional
        Called from time to time with the number of files found so far.

    Raises
    ------
    InputError
        If the folder cannot be used, or a store cannot be copied.
    """
    target = resolve_target(site, str(folder))
    pages = {
        "index.html": make_redirect("v/view/").encode(),
        **{f"{PAGES}/{path}": content for path, content in {**client_files(), **site.files}.items()},
    }
    copies = []
    for prefix, location in site.stores.items():
        for copy in _list_store(prefix, location, site.types.get(prefix)):
            copies.append(copy)
            if listed and len(copies) % _TOLD_FILES == 0:
                listed(len(copies))
    return ExportPlan(target, pages, tuple(copy for copy in copies if copy.target not in pages))


def check_room(plan: ExportPlan, folder: Path, kept: set[str], *, hard_links: bool) -> None:
    """Refuse an export that does not fit on the disk. Files in `kept` exist already; hard links need no room.

    Files of unknown size do not count. If the disk is full while they are copied, the export ends with an error.

    Raises
    ------
    InputError
        If the folder's disk has too little room, or too few inodes (where their number is fixed).
    """
    device = os.stat(folder).st_dev
    sizes = [len(content) for content in plan.pages.values()]
    for copy in plan.copies:
        linked = hard_links and copy.source is not None and os.stat(copy.source).st_dev == device
        if not linked and copy.target not in kept and copy.found.size is not None:
            sizes.append(copy.found.size)
    needed = sum(-(-size // _DISK_BLOCK_BYTES) * _DISK_BLOCK_BYTES for size in sizes)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(
            f"export={plan.folder} needs {needed / 1e9:,.3f} GB more on its disk, which has {free / 1e9:,.3f} GB free. "
            f"Make room, name a folder on another disk, or use `hard_links` on the disk where the stores lie."
        )
    disk = os.statvfs(folder)
    if disk.f_files and len(sizes) > disk.f_favail:  # folders need inodes too, but few compared with the files in them
        raise InputError(
            f"export={plan.folder} needs {len(sizes):,} files more on its disk, which has room for "
            f"{disk.f_favail:,} (inodes). Remove files, or name a folder on another disk."
        )


def _list_store(prefix: str, location: str, dtype: str | None) -> Iterator[StoredCopy]:
    files = open_files(location, dtype)
    levels = _levels(location)
    for group in _groups(levels):
        for name in METADATA:
            yield from _copies(prefix, files, join(group, name))
    for level in levels:
        split_path(level)  # refuses a path that leads out of the store
        array = array_files(files, level, location)
        if files.can_list:
            found = (item for item in files.walk(level) if array.holds(item.key))
            yield from (StoredCopy(prefix, files, item) for item in found)
        else:
            for key in array.list_keys():
                yield from _copies(prefix, files, key)


def _copies(prefix: str, files: Files, key: str) -> Iterator[StoredCopy]:
    """The copy of one file; it may turn out to be missing if the store has no listing."""
    listed = files.walk(key) if files.can_list else (ListedFile(key, None, None),)
    yield from (StoredCopy(prefix, files, item) for item in listed)


def _levels(location: str) -> list[str]:
    """Paths of an image's arrays; "" is a bare array."""
    multiscales = _multiscales(store.read_attributes(location) or {})
    found = [str(dataset["path"]) for multiscale in multiscales for dataset in multiscale["datasets"]]
    return list(dict.fromkeys(found)) or [""]


def _groups(levels: list[str]) -> list[str]:
    """Paths of an image's group and of the groups on the way to its levels; none of a bare array."""
    above = {"/".join(level.split("/")[:depth]) for level in levels for depth in range(1, level.count("/") + 1)}
    return [] if levels == [""] else sorted({"", *above})


def _multiscales(attributes: Mapping[str, Any]) -> list[dict[str, Any]]:
    return (attributes.get("ome") or attributes).get("multiscales") or []


def resolve_target(site: Site, folder: str) -> Path:
    """Return the folder without symbolic links: the finished export is renamed to it.

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
        If the folder cannot be used.
    """
    if os.path.ismount(folder):
        raise InputError(f"export: {folder} is where a disk is mounted, and cannot be replaced; name a folder in it.")
    listed = os.listdir(folder) if folder.is_dir() else []
    names = {name for name in listed if name != LOCK_NAME and not is_junk(name)}
    if names and MARK not in names:
        raise InputError(
            f"export: {folder} holds {min(names)!r} and {len(names) - 1} more, but no {MARK}: it is no earlier export. "
            f"Expected a folder that is new or empty. Name another, or remove what lies there."
        )


def check_own(folder: Path) -> None:
    """Refuse what another user has prepared beside the target: links in it would redirect our files.

    Raises
    ------
    InputError
        If it is not a folder of this user, or if a folder in it, the mark or the lock is a link.
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
