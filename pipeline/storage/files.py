"""Plain files beside Zarr arrays, local or by URL; each is written completely or not at all."""

import contextlib
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from segment_slide.pipeline.errors import OutputError, UnreachableError
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.zarr_stores.archive import is_in_archive, read_entry, split_archive
from segment_slide.pipeline.zarr_stores.checked import is_web, web_options


def write_file(path: str, content: bytes) -> None:
    """Write a file completely or not at all; `store.remove_leftovers` knows the name of the temporary file.

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
            with contextlib.suppress(FileNotFoundError):
                shutil.copymode(path, aside)  # others may read and write what they could before
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)
    except Exception as error:  # fsspec back ends raise classes of their own
        raise OutputError(f"{path} cannot be written: {error}") from error


def read_file(path: str) -> bytes:
    """Content of a file; if there is none, raises the error of the file system."""
    if split_archive(path):
        return read_entry(path)
    if not store.is_remote(path):
        return Path(path).read_bytes()
    filesystem, inner = _filesystem(path)
    filesystem.invalidate_cache()  # a listing that is older than the file would hide it
    content: bytes = filesystem.cat_file(inner)
    return content


def _filesystem(path: str) -> tuple[Any, str]:
    import fsspec

    filesystem, inner = fsspec.core.url_to_fs(path, **web_options(path))
    return filesystem, inner


def exists(path: str) -> bool:
    """Whether a file or folder is there; if a store cannot be reached, raises its own error."""
    if split_archive(path):
        return is_in_archive(path)
    if not store.is_remote(path):
        return Path(path).exists()
    filesystem, inner = _filesystem(path)
    filesystem.invalidate_cache()
    options = {"strict": True} if is_web(path) else {}  # or a failing web server looks as if nothing was there
    return bool(filesystem.exists(inner, **options))


def list_files(folder: str) -> Iterator[str]:
    """Paths of all files below a local folder or a URL, relative to it; unfinished ones and junk too."""
    if not store.is_remote(folder):
        yield from (str(file.relative_to(folder)) for file in Path(folder).rglob("*") if file.is_file())
        return
    filesystem, inner = _filesystem(folder)
    filesystem.invalidate_cache()
    try:
        yield from (name.removeprefix(inner).lstrip("/") for name in filesystem.find(inner))
    except Exception as error:  # fsspec back ends raise classes of their own
        raise UnreachableError(f"{folder} cannot be reached: {error}") from error


def delete(path: str) -> None:
    """Delete a file, or a folder with all below it; do nothing if there is none.

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
