"""How long the work took: as its runs measured it, or else from the times at which files of the output were written.

Records hold no times, so that equal runs give equal bytes; but a file system knows when each block was finished.
"""

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from segment_slide.pipeline.errors import OutputError
from segment_slide.pipeline.metadata.junk import is_junk
from segment_slide.pipeline.nights.notes import read_done
from segment_slide.pipeline.report.facts import Facts
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.names import instance_group, label_group

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Span:
    """When the files of a stage were written.

    Attributes
    ----------
    what : str
        The stage.
    n_files : int
        How many there are.
    first_s, last_s : float
        When the first and the last of them were finished (s since the epoch).
    n_pixels : int
        Pixels made between these two times, without the first file's share; 0 if nothing is counted in pixels.
    """

    what: str
    n_files: int
    first_s: float
    last_s: float
    n_pixels: int = 0

    @property
    def seconds(self) -> float:
        """Seconds between the first file and the last."""
        return self.last_s - self.first_s


def file_spans(facts: Facts) -> list[Span]:
    """Spans of the stages in order of work, from the times of their files; stages without files are left out."""
    labels, name = facts.labels, facts.name
    pixels = _volume(labels.shape)
    ids = f"{instance_group(name)}/0"
    stages = [
        ("classes", f"{label_group(name)}/{labels.array_path}/c", pixels),
        ("objects", f"{ids}/c" if facts.instances else "", pixels),
        ("table", facts.table.path if facts.table else "", 0),
    ]
    spans = []
    for what, folder, n_pixels in stages:
        times = sorted(_written(store.join(facts.location, folder))) if folder else []
        if times:
            share = n_pixels * (len(times) - 1) // len(times)
            spans.append(Span(what, len(times), times[0], times[-1], share))
    return spans


def stage_seconds(facts: Facts) -> Mapping[str, float]:
    """Wall time of each stage, as a nightly run noted it in the output; empty if there is no such note."""
    try:
        done = read_done(facts.location)
    except OutputError:
        return {}
    return done.stage_seconds if done is not None else {}


def show_time(epoch_s: float) -> str:
    """Local date and time, to the minute, with the difference from UTC."""
    return datetime.fromtimestamp(epoch_s, UTC).astimezone().strftime("%Y-%m-%d %H:%M %z")


def show_date(epoch_s: float) -> str:
    """Local date."""
    return datetime.fromtimestamp(epoch_s, UTC).astimezone().strftime("%Y-%m-%d")


def _volume(shape: tuple[int, ...]) -> int:
    pixels = 1
    for size in shape:
        pixels *= size
    return pixels


def _written(folder: str) -> list[float]:
    """When each file below a folder was written (s since the epoch); empty if the store does not tell."""
    if not store.is_remote(folder):
        paths = (os.path.join(parent, name) for parent, _, names in os.walk(folder) for name in names)
        kept = (path for path in paths if not path.endswith(".partial") and not is_junk(os.path.relpath(path, folder)))
        found_s = map(_modified, kept)
        return [mark for mark in found_s if mark is not None]
    import fsspec

    try:
        filesystem, inner = fsspec.core.url_to_fs(folder)
        found: Mapping[str, Mapping[str, Any]] = filesystem.find(inner, detail=True)
    except Exception as error:  # fsspec back ends raise classes of their own
        log.info("files of %s could not be listed", folder, exc_info=error)
        return []
    marks = [info.get("LastModified") or info.get("mtime") for info in found.values()]
    return [mark.timestamp() if isinstance(mark, datetime) else float(mark) for mark in marks if mark is not None]


def _modified(path: str) -> float | None:
    """When a file was written; None if a running job has removed it since the folder was listed."""
    try:
        return os.stat(path).st_mtime
    except FileNotFoundError:
        return None
