"""What an exported viewer holds: which files, of which sizes, and whether there is room. Copies nothing."""

import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import store
from pipeline.errors import InputError
from pipeline.store import is_remote, join, resolve_location
from pipeline.view_files import Files, ListedFile
from pipeline.view_site import Site, client_files
from pipeline.view_store import is_below, open_files

PAGES = "v/view"  # the client derives addresses from a path of this form
_DISK_BLOCK_BYTES = 4096
_METADATA = (*store.ZARR_METADATA, ".zattrs", ".zmetadata")
_START_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="refresh" content="0; url=v/view/">
<title>Viewer</title>
</head>
<body><p><a href="v/view/">To the viewer</a></p></body>
</html>
"""


@dataclass(frozen=True)
class StoredCopy:
    """One file of a store that an export takes along."""

    target: str
    files: Files
    found: ListedFile
    source: str | None  # its path, if it is local: may be linked


@dataclass(frozen=True)
class ExportPlan:
    """All files of an exported viewer, by their paths in its folder.

    Attributes
    ----------
    pages : mapping of str to bytes
        What is written as it stands.
    copies : tuple of StoredCopy
        What is copied from stores.
    """

    folder: Path
    pages: Mapping[str, bytes]
    copies: tuple[StoredCopy, ...]

    @property
    def n_files(self) -> int:
        """Files of the export."""
        return len(self.pages) + len(self.copies)

    @property
    def n_bytes(self) -> int:
        """Bytes of the export."""
        return sum(map(len, self.pages.values())) + sum(copy.found.size for copy in self.copies)


def plan_export(site: Site, folder: str | Path) -> ExportPlan:
    """List what an export takes along; of a store only what a viewer reads of it: metadata and levels.

    Raises
    ------
    InputError
        If the folder is no place for it, or a store cannot be copied.
    """
    target = _check_folder(site, str(folder))
    pages = {
        "index.html": _START_PAGE.encode(),
        **{f"{PAGES}/{path}": content for path, content in {**client_files(), **site.files}.items()},
    }
    copies = [copy for prefix, location in site.stores.items() for copy in _list_store(prefix, location)]
    return ExportPlan(target, pages, tuple(copy for copy in copies if copy.target not in pages))


def check_room(plan: ExportPlan, folder: Path, kept: set[str], *, hard_links: bool) -> None:
    """Refuse what does not fit on the disk; `kept` is there already, and links to the same disk need no room.

    Raises
    ------
    InputError
        If the folder's disk has too little room.
    """
    device = os.stat(folder).st_dev
    sizes = [len(content) for content in plan.pages.values()]
    for copy in plan.copies:
        linked = hard_links and copy.source is not None and os.stat(copy.source).st_dev == device
        if not linked and copy.target not in kept:
            sizes.append(copy.found.size)
    needed = sum(-(-size // _DISK_BLOCK_BYTES) * _DISK_BLOCK_BYTES for size in sizes)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(
            f"export={plan.folder} needs {needed / 1e9:,.3f} GB more on its disk, which has {free / 1e9:,.3f} GB free. "
            f"Make room, name a folder on another disk, or use --hard-links on the disk where the stores lie."
        )


def _check_folder(site: Site, folder: str) -> Path:
    if is_remote(folder):
        raise InputError(f"export={folder}, expected a local folder; export to one, and copy that to {folder}.")
    target = Path(resolve_location(folder))
    real = os.path.realpath(target)
    if target.exists() and not target.is_dir():
        raise InputError(f"export={folder} is a file, expected a folder that is new, empty, or an earlier export.")
    for location in site.stores.values():
        root = "" if is_remote(location) else os.path.realpath(location)
        if root and (real == root or is_below(real, root) or is_below(root, real)):
            raise InputError(f"export={folder} and {location} lie in each other; name a folder beside it.")
    return target


def _list_store(prefix: str, location: str) -> Iterator[StoredCopy]:
    files = open_files(location)
    for path in _shown_paths(location, files):
        for found in files.walk(path):
            source = None if is_remote(location) else os.path.realpath(join(resolve_location(location), found.key))
            yield StoredCopy(f"{PAGES}/{prefix}/{found.key}", files, found, source)


def _shown_paths(location: str, files: Files) -> list[str]:
    """Metadata and levels of an image, but not what else lies in its folder; all of what is no image."""
    attributes = store.read_attributes(location)
    multiscales = _multiscales(attributes or {})
    if not multiscales:
        return [""]
    levels = [str(dataset["path"]) for multiscale in multiscales for dataset in multiscale["datasets"]]
    above = {"/".join(level.split("/")[:depth]) for level in levels for depth in range(1, level.count("/") + 1)}
    metadata = [join(group, name) for group in sorted({"", *above}) for name in _METADATA]
    return [*metadata, *dict.fromkeys(levels)]


def _multiscales(attributes: Mapping[str, Any]) -> list[dict[str, Any]]:
    return (attributes.get("ome") or attributes).get("multiscales") or []
