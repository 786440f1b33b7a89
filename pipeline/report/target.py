"""Where a report is written, and how: it replaces no file of others, and no half-written report remains."""

import glob
import logging
import os
import re
import time

from segment_slide.pipeline.errors import OutputError
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.files import delete, exists, write_file
from segment_slide.pipeline.storage.record import read_mark
from segment_slide.pipeline.zarr_stores.archive import refuse_unwritable

MARK = '<meta name="generator" content="segment-slide report">'
_HEAD_BYTES = 2000  # bytes at the beginning of a report, which hold its mark
_LEFT_AFTER_S = 600  # older temporary files are left over from a killed run: writing a page never takes that long
_CONTENT_TYPE = "text/html; charset=utf-8"
_NAMES_OF_TYPE = {"s3": "ContentType", "s3a": "ContentType", "gs": "content_type", "gcs": "content_type"}

log = logging.getLogger(__name__)


def report_path(location: str, name: str) -> str:
    """Default path of an output's report: beside the output, with the same name.

    The label image's name is added if it is not the one that the store shows, or if it lies in the image's own store.
    """
    stem = location.removesuffix(".zarr").removesuffix(".ome")
    shown = read_mark(location).shows
    is_main = str(shown).removeprefix("labels/").removesuffix("-instances") == name
    return f"{stem}.report.html" if is_main else f"{stem}.{name}.report.html"


def check_target(path: str) -> None:
    """Before anything is read, refuse a target that cannot be written or that is not a report of ours.

    Raises
    ------
    OutputError
        The message says what is there.
    """
    refuse_unwritable(path)
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
    """Whether a file begins like a report of ours; raises the file system's error if there is no file."""
    if not store.is_remote(path):
        with open(path, "rb") as file:
            return MARK.encode() in file.read(_HEAD_BYTES)
    import fsspec

    filesystem, inner = fsspec.core.url_to_fs(path)
    filesystem.invalidate_cache()
    return MARK.encode() in filesystem.cat_file(inner, start=0, end=_HEAD_BYTES)


def save(path: str, content: bytes) -> None:
    """Write a page completely or not at all. A symbolic link stays, and the file that it leads to is replaced.

    Object stores get a content type, so that a browser shows the page instead of saving it.

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
        except Exception as error:  # fsspec back ends raise classes of their own; it may work without a type
            log.info("%s could not be written with a content type", path, exc_info=error)
    write_file(path, content)


def discard(path: str) -> None:
    """Delete the report of an earlier state, but no other file.

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
    """Delete half-written versions of this page that killed runs left."""
    for half in glob.glob(f"{glob.escape(path)}.*.partial"):
        if not re.fullmatch(r"\.[0-9a-f]{32}\.partial", half.removeprefix(path)):
            continue
        try:
            if time.time() - os.stat(half).st_mtime > _LEFT_AFTER_S:
                os.unlink(half)
        except OSError as error:  # another run was faster, or it belongs to another user
            log.info("%s stays", half, exc_info=error)
