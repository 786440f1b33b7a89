"""Where a report goes, and how it gets there: nobody else's file is replaced, and none is half there."""

import glob
import logging
import os
import re
import time

from segment_slide.pipeline.errors import OutputError
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.files import delete, exists, write_file
from segment_slide.pipeline.storage.record import read_mark

MARK = '<meta name="generator" content="segment-slide report">'
_HEAD_BYTES = 2000  # of a report, its mark among them
_LEFT_AFTER_S = 600  # nobody takes so long to write a page: what is that old was left by a run that was killed
_CONTENT_TYPE = "text/html; charset=utf-8"
_NAMES_OF_TYPE = {"s3": "ContentType", "s3a": "ContentType", "gs": "content_type", "gcs": "content_type"}

log = logging.getLogger(__name__)


def report_path(location: str, name: str) -> str:
    """Where the report of an output goes by default: beside it, under its name.

    A label image that is not the one that the store shows, or that lies in the image's own store, has its own name in
    the file's.
    """
    stem = location.removesuffix(".zarr").removesuffix(".ome")
    shown = read_mark(location).shows
    is_main = str(shown).removeprefix("labels/").removesuffix("-instances") == name
    return f"{stem}.report.html" if is_main else f"{stem}.{name}.report.html"


def check_target(path: str) -> None:
    """Refuse a file that cannot be written or is not a report, before anything is read.

    Raises
    ------
    OutputError
        Saying what is there.
    """
    if not store.is_remote(path):
        path = os.path.realpath(path)
        if os.path.isdir(path):
            raise OutputError(
                f"output={path} is a folder, expected a file to write, as {path.rstrip('/')}/report.html."
            )
        if not os.path.isdir(os.path.dirname(path)):
            raise OutputError(f"output={path}: the folder {os.path.dirname(path)} is not there; make it first.")
        if os.path.exists(path) and not os.path.isfile(path):  # reading a pipe or a device would never end
            raise OutputError(f"output={path} is a device, a pipe or a socket, expected a file to write.")
    try:
        is_free = not exists(path) or is_report(path)
    except Exception as error:  # fsspec back ends raise classes of their own
        raise OutputError(f"output={path} cannot be read: {error}") from error
    if not is_free:
        raise OutputError(
            f"output={path} is there, but is not a report of segment-slide; it stays as it is. Choose another `output`."
        )


def is_report(path: str) -> bool:
    """Whether a file is one of ours, by its beginning; raises whatever the file system does where there is none."""
    if not store.is_remote(path):
        with open(path, "rb") as file:
            return MARK.encode() in file.read(_HEAD_BYTES)
    import fsspec

    filesystem, inner = fsspec.core.url_to_fs(path)
    filesystem.invalidate_cache()
    return MARK.encode() in filesystem.cat_file(inner, start=0, end=_HEAD_BYTES)


def save(path: str, content: bytes) -> None:
    """Write a page whole or not at all; a symbolic link stays one, and what it leads to is replaced.

    Object stores are told what it is, so that a browser shows it instead of saving it.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    if not store.is_remote(path):
        target = os.path.realpath(path)
        _remove_leftovers(target)
        write_file(target, content)
        return
    import fsspec

    option = _NAMES_OF_TYPE.get(path.partition("://")[0])
    if option is not None:
        try:
            filesystem, inner = fsspec.core.url_to_fs(path)
            filesystem.pipe_file(inner, content, **{option: _CONTENT_TYPE})
            return
        except Exception as error:  # fsspec back ends raise classes of their own; without a type it may work
            log.info("%s could not be written with a content type", path, exc_info=error)
    write_file(path, content)


def discard(path: str) -> None:
    """Delete the report of an earlier state; nothing else that lies there.

    Raises
    ------
    OutputError
        If it cannot be deleted.
    """
    try:
        is_ours = (store.is_remote(path) or os.path.isfile(path)) and exists(path) and is_report(path)
    except Exception as error:  # fsspec back ends raise classes of their own
        raise OutputError(f"{path} cannot be read: {error}") from error
    if is_ours:
        delete(path)


def _remove_leftovers(path: str) -> None:
    """Delete halves of this very page that killed runs left."""
    for half in glob.glob(f"{glob.escape(path)}.*.partial"):
        if not re.fullmatch(r"\.[0-9a-f]{32}\.partial", half.removeprefix(path)):
            continue
        try:
            if time.time() - os.stat(half).st_mtime > _LEFT_AFTER_S:
                os.unlink(half)
        except OSError as error:  # another run was faster, or it is another user's
            log.info("%s stays", half, exc_info=error)
