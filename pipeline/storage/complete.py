"""Whether an image is complete: after an interrupted run files are missing, and are read as background.

Only images with a record of ours can be incomplete. Other programs may leave out files of pure background.
What computes refuses an incomplete image (`require_complete`); what shows says how much of it is there.
`pipeline.completeness` says the same of tables and sets.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from segment_slide.pipeline.blocks.grid import ceil_divide
from segment_slide.pipeline.errors import InputError, PipelineError, UnreachableError
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.files import exists, list_files
from segment_slide.pipeline.storage.image import StoredImage, describe_image
from segment_slide.pipeline.storage.record import ATTRIBUTE
from segment_slide.pipeline.zarr_stores.archive import split_archive
from segment_slide.pipeline.zarr_stores.checked import has_listing

_SYNTHETIC = "segment_slide_synthetic"  # the mark of a drawn slide, at the root of its store
_LABELS = "/labels/"
_MOST_ASKED = 16  # files that a web server is asked for, as it lists nothing


@dataclass(frozen=True)
class FileCount:
    """Number of files of an array.

    Attributes
    ----------
    n_files, n_missing : int
        Files of the complete array, and those of them that are missing.
    """

    n_files: int
    n_missing: int

    @property
    def n_done(self) -> int:
        """Files that are present."""
        return self.n_files - self.n_missing


@dataclass(frozen=True)
class Completeness:
    """How much of something is there.

    Attributes
    ----------
    location : str
        Where it is.
    n_files, n_missing : int
        Files of the complete thing, and those of them that are missing; 0 and 0 if another program made it.
    lacks : str
        What else is missing, as a sentence; "" if nothing is.
    remedy : str
        What completes it, as an order.
    unit : str
        What its files are.
    """

    location: str
    n_files: int = 0
    n_missing: int = 0
    lacks: str = ""
    remedy: str = ""
    unit: str = "files"

    @property
    def is_complete(self) -> bool:
        """Whether nothing is missing."""
        return not self.n_missing and not self.lacks

    @property
    def text(self) -> str:
        """How much is there, in words: "412 of 900 files"."""
        return self.lacks or f"{self.n_files - self.n_missing:,} of {self.n_files:,} {self.unit}"

    def require(self) -> None:
        """Refuse what is not complete.

        Raises
        ------
        InputError
            The message says how much is missing, and what completes it.
        """
        if not self.is_complete:
            missing = f"{self.n_missing:,} of {self.n_files:,} {self.unit} are missing, and would be read as background"
            raise InputError(
                f"{self.location} is not complete: {self.lacks or missing}. Complete it first: {self.remedy}."
            )


def require_complete(*images: StoredImage | None) -> None:
    """Refuse images of ours that are not complete: missing files would be read as background.

    Raises
    ------
    InputError
        The message names the image, and the command that completes it.
    UnreachableError
        If its store cannot be asked.
    """
    for image in images:
        if image is not None:
            judge_image(image).require()


def judge_image(image: StoredImage) -> Completeness:
    """Whether all files of all levels of an image are there, if it has a record of ours.

    Object stores are asked for one listing. A web server, which lists nothing, is asked for files of the coarsest
    level: they are made last, from finer files that were there.

    Parameters
    ----------
    image : StoredImage
        Any level of an ingested or drawn image, a class map, instances or probabilities; or an array of one of these.

    Raises
    ------
    UnreachableError
        If the store cannot be asked.
    """
    found = _find_record(image)
    if found is None:
        return Completeness(image.location)
    location, record = found
    first = describe_image(location)
    levels = [first, *(describe_image(location, level=n) for n in range(1, len(first.multiscale.levels)))]
    lacks = "its objects are not all numbered yet" if _are_begun_instances(record) else _say_changed(record)
    n_files = sum(map(_count_all, levels))
    return Completeness(location, n_files, _count_missing(levels), lacks, _explain_remedy(location, record))


def _find_record(image: StoredImage) -> tuple[str, Mapping[str, Any]] | None:
    """The group that an image or array belongs to, and its record as JSON; None if it is not ours."""
    location = image.location
    if not image.is_ome:  # an array: its group is the folder around it
        location = location.rpartition("/")[0] or "/"
    try:
        attributes = store.read_attributes(location) or {}
        record = attributes.get(ATTRIBUTE)
        if isinstance(record, Mapping) and isinstance(record.get("shows"), str):
            location = store.join(location, record["shows"])
            attributes = store.read_attributes(location) or {}
            record = attributes.get(ATTRIBUTE)
        elif record is None and _LABELS in location:
            root = store.read_attributes(location.rpartition(_LABELS)[0]) or {}
            record = root.get(_SYNTHETIC)
        elif record is None:
            record = attributes.get(_SYNTHETIC)
    except PipelineError:
        if image.is_ome:
            raise
        return None
    is_image = "multiscales" in (attributes.get("ome") or {})
    return (location, record) if isinstance(record, Mapping) and is_image else None


def _say_changed(record: Mapping[str, Any]) -> str:
    """What a record says of an input that was another one at the end of the run; "" if it was the same."""
    made_of = record.get("input")
    changed = made_of.get("changed") if isinstance(made_of, Mapping) else None
    if not isinstance(changed, list) or not changed:
        return ""
    return f"its input changed while it was segmented ({', '.join(map(str, changed))})"


def _are_begun_instances(record: Mapping[str, Any]) -> bool:
    """Whether a record is that of instances; their number is recorded when all of them are written."""
    return "input" in record and "model" not in record and record.get("n_objects") is None


def _explain_remedy(location: str, record: Mapping[str, Any]) -> str:
    if "ingested_from" in record:
        made_from = record["ingested_from"]
        name = made_from.get("name") if isinstance(made_from, Mapping) else None
        of = f", of {name!r:.200}" if name else ""
        return f"run the same `segment-slide ingest` again{of} into {location}; it goes on where it stopped"
    if "seed" in record:
        return "run the same `segment-slide demo` again"
    if "input" in record and "model" not in record:
        return f"segment-slide instances {location.rpartition(_LABELS)[0]}"
    if _say_changed(record):
        return "run the same `segment-slide segment` again, with `input_repaired` if the input is as it should be now"
    return "run the same `segment-slide segment` again; it goes on where it stopped"


def _count_missing(levels: list[StoredImage]) -> int:
    location = levels[0].location
    if not has_listing(location):
        return _ask_for(levels[-1])
    if not store.is_remote(location) or split_archive(location):
        return sum(count_files(level).n_missing for level in levels)
    listed = list(list_files(location))
    return sum(max(0, _count_all(level) - _count_listed(level.array_path, listed)) for level in levels)


def _count_listed(array_path: str, listed: list[str]) -> int:
    is_file = re.compile(rf"{re.escape(array_path)}/c(/\d+)+").fullmatch
    return sum(1 for name in listed if is_file(name))


def _ask_for(level: StoredImage) -> int:
    """Number of files of a level that a web server does not have, of those that it is asked for."""
    counts = [ceil_divide(size, chunk) for size, chunk in zip(level.shape, level.chunks, strict=True)]
    n_files, missing = math.prod(counts), 0
    for number in range(0, n_files, ceil_divide(n_files, _MOST_ASKED)):
        index, rest = [], number
        for count in reversed(counts):
            rest, position = divmod(rest, count)
            index.append(str(position))
        path = store.join(level.location, level.array_path, "c", *reversed(index))
        try:
            missing += not exists(path)
        except Exception as error:  # fsspec back ends raise classes of their own
            raise UnreachableError(f"{path} cannot be reached: {error}") from error
    return missing


def count_files(image: StoredImage) -> FileCount:
    """Count the files of an array of ours; arrays of other software may leave out files of pure background.

    On a web server, which lists nothing, none counts as missing.
    """
    n_files = _count_all(image)
    if not has_listing(image.location):
        return FileCount(n_files, 0)
    return FileCount(n_files, max(0, n_files - len(store.stored_shards(image.location, image.array_path))))


def count_known_missing(image: StoredImage) -> FileCount:
    """The same for any array; where missing files cannot be known, none counts as missing."""
    if image.zarr_format == 3:
        return count_files(image)
    return FileCount(_count_all(image), 0)


def _count_all(image: StoredImage) -> int:
    return math.prod(ceil_divide(size, chunk) for size, chunk in zip(image.shape, image.chunks, strict=True))


def keep_complete(levels: list[StoredImage]) -> list[StoredImage]:
    """The levels without incomplete coarse ones: holes in an overview look like background."""
    return [level for number, level in enumerate(levels) if number == 0 or not count_known_missing(level).n_missing]
