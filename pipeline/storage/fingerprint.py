"""Whether an input has changed, told from what the file system already knows, without reading pixels."""

import hashlib
import json
import os
from collections.abc import Iterable

from segment_slide.pipeline.storage.complete import has_listing
from segment_slide.pipeline.storage.image import StoredImage
from segment_slide.pipeline.storage.store import is_remote, join


def fingerprint(image: StoredImage) -> str:
    """sha256 over the level's metadata (calibration included) and its files' names, sizes and modification marks.

    Reading every byte of a slide twice to detect a change would double the input's traffic; the file system
    (or object store) already knows which files changed. HTTP has no listing: there only the metadata count.
    """
    digest = hashlib.sha256()
    base = join(image.location, image.array_path)
    level = image.multiscale.levels[image.level]
    metadata = [image.array_path, image.shape, image.dtype, image.axes, image.multiscale.units]
    digest.update(json.dumps([*metadata, level.scale, level.translation]).encode())
    for line in sorted(_remote_files(base) if is_remote(base) else _local_files(base)):
        digest.update(line.encode())
    return digest.hexdigest()


def _local_files(base: str) -> Iterable[str]:
    for folder, _, names in os.walk(base):
        for name in names:
            status = os.stat(os.path.join(folder, name))
            relative = os.path.relpath(os.path.join(folder, name), base)
            yield f"{relative} {status.st_size} {status.st_mtime_ns}\n"


def _remote_files(base: str) -> Iterable[str]:
    import fsspec

    filesystem, path = fsspec.core.url_to_fs(base)
    try:
        files = filesystem.find(path, detail=True) if has_listing(base) else {}
    except NotImplementedError:
        return
    for name, info in files.items():
        mark = info.get("ETag") or info.get("mtime") or info.get("LastModified") or info.get("created")
        yield f"{name.removeprefix(path)} {info.get('size')} {mark}\n"
