"""Whether an input has changed, told from what the file system already knows, without reading pixels."""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator

from segment_slide.pipeline.metadata.junk import is_array_file
from segment_slide.pipeline.storage.archive import list_entries, split_archive
from segment_slide.pipeline.storage.complete import has_listing
from segment_slide.pipeline.storage.image import StoredImage
from segment_slide.pipeline.storage.store import is_remote, join


def fingerprint(image: StoredImage, begun_with: str = "") -> str:
    """sha256 over the level's metadata (calibration included) and its files' names, sizes and modification marks.

    Reading every byte of a slide twice to detect a change would double the input's traffic; the file system
    (or object store) already knows which files changed. HTTP has no listing: there only the metadata count.
    Files that Zarr does not read do not count: a file manager may add some at any time.

    Parameters
    ----------
    image : StoredImage
        The level.
    begun_with : str
        A fingerprint to compare with. Version 0.1.0 counted all files. If this is what it would say of the input as it
        is now, nothing has changed, and it is returned.
    """
    base = join(image.location, image.array_path)
    level = image.multiscale.levels[image.level]
    about = [image.array_path, image.shape, image.dtype, image.axes, image.multiscale.units]
    metadata = json.dumps([*about, level.scale, level.translation])
    files = sorted(_list_files(base), key=lambda file: file[1])
    found = _digest(metadata, (mark for name, mark in files if is_array_file(name.lstrip("/"))))
    if begun_with and begun_with != found and begun_with == _digest(metadata, (mark for _, mark in files)):
        return begun_with
    return found


def _digest(metadata: str, marks: Iterable[str]) -> str:
    digest = hashlib.sha256(metadata.encode())
    for mark in marks:
        digest.update(mark.encode(errors="surrogateescape"))  # names of files may be in any encoding
    return digest.hexdigest()


def _list_files(base: str) -> Iterable[tuple[str, str]]:
    """Each file's name, and a line that changes with the file."""
    if split_archive(base):
        return [(name, f"{name} {entry.file_size} {entry.CRC}\n") for name, entry in list_entries(base).items()]
    return _remote_files(base) if is_remote(base) else _local_files(base)


def _local_files(base: str) -> Iterator[tuple[str, str]]:
    for folder, _, names in os.walk(base):
        for name in names:
            path = os.path.join(folder, name)
            status = os.stat(path) if os.path.exists(path) else os.lstat(path)  # a link may lead nowhere
            relative = os.path.relpath(path, base)
            yield relative, f"{relative} {status.st_size} {status.st_mtime_ns}\n"


def _remote_files(base: str) -> Iterator[tuple[str, str]]:
    import fsspec

    filesystem, path = fsspec.core.url_to_fs(base)
    try:
        files = filesystem.find(path, detail=True) if has_listing(base) else {}
    except NotImplementedError:
        return
    for name, info in files.items():
        mark = info.get("ETag") or info.get("mtime") or info.get("LastModified") or info.get("created")
        relative = name.removeprefix(path)
        yield relative, f"{relative} {info.get('size')} {mark}\n"
