"""Plain files beside Zarr arrays, local or by URL: there whole or not at all."""

import shutil
import uuid
from pathlib import Path
from typing import Any

from segment_slide.pipeline.errors import OutputError
from segment_slide.pipeline.storage import store


def write_file(path: str, content: bytes) -> None:
    """Write a file whole or not at all; the name aside is one that `store.remove_leftovers` knows.

    Raises
    ------
    OutputError
        If it cannot be written: a full disk, a lost connection.
    """
    try:
        if store.is_remote(path):
            filesystem, inner = _filesystem(path)
            filesystem.pipe_file(inner, content)
            return
        aside = Path(f"{path}.{uuid.uuid4().hex}.partial")
        aside.parent.mkdir(parents=True, exist_ok=True)
        try:
            aside.write_bytes(content)
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)
    except Exception as error:  # fsspec back ends raise classes of their own
        raise OutputError(f"{path} cannot be written: {error}") from error


def read_file(path: str) -> bytes:
    """All of a file; raises whatever the file system does where there is none."""
    if not store.is_remote(path):
        return Path(path).read_bytes()
    filesystem, inner = _filesystem(path)
    filesystem.invalidate_cache()  # a listing from before a worker wrote the file would hide it
    content: bytes = filesystem.cat_file(inner)
    return content


def _filesystem(path: str) -> tuple[Any, str]:
    import fsspec

    filesystem, inner = fsspec.core.url_to_fs(path)
    return filesystem, inner


def exists(path: str) -> bool:
    """Whether a file or folder is there; raises whatever an object store does that cannot be reached."""
    if not store.is_remote(path):
        return Path(path).exists()
    filesystem, inner = _filesystem(path)
    filesystem.invalidate_cache()
    return bool(filesystem.exists(inner))


def delete(path: str) -> None:
    """Delete a file, or a folder with all below it; nothing if there is none.

    Raises
    ------
    OutputError
        If it cannot be deleted.
    """
    try:
        if store.is_remote(path):
            filesystem, inner = _filesystem(path)
            filesystem.invalidate_cache()
            if filesystem.exists(inner):
                filesystem.rm(inner, recursive=True)
        elif Path(path).is_dir():
            shutil.rmtree(path)
        else:
            Path(path).unlink(missing_ok=True)
    except Exception as error:  # fsspec back ends raise classes of their own
        raise OutputError(f"{path} cannot be deleted: {error}") from error
