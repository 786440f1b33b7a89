"""What of ours lies at a path: images, segmentations, tables, training data, models, states, nights.

A damaged file must not hide what it belongs to. So names come from everything that holds them: lists in metadata,
folders, and the manifest.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from segment_slide.pipeline.errors import InputError, PipelineError
from segment_slide.pipeline.integrity.networks import STATE_NAME, find_kind, read_header
from segment_slide.pipeline.integrity.nights import is_note
from segment_slide.pipeline.limits.failures import DAMAGED
from segment_slide.pipeline.manifest.manifest import FILE, GROUP_FILE
from segment_slide.pipeline.measurement.record import TABLES
from segment_slide.pipeline.nights.notes import DONE_FILE
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.files import exists
from segment_slide.pipeline.storage.names import instances_name
from segment_slide.pipeline.storage.record import ATTRIBUTE
from segment_slide.pipeline.storage.store import join
from segment_slide.pipeline.training import sample_set, training_set

STATE_FOLDER = ".training"
_SOURCES = "sources"
_DEEPEST = 3  # folders below a path that are searched for outputs: those of a night lie two below
_ENDS = (instances_name(""),)


class Kind(StrEnum):
    """What a store or file is as a whole."""

    SLIDE = "slide"  # a converted image, a segmentation, or an image of another tool with labels of ours
    TRAINING_SET = "training set"
    SAMPLES = "training samples"
    MODEL = "model"
    STATE = "training state"
    TRAINING = "training"  # the folder of a training: state, curves, tables
    NOTE = "note of a night"


@dataclass(frozen=True)
class Contents:
    """What of ours lies in one store, or is one file.

    Attributes
    ----------
    location : str
        The store or file.
    kind : Kind
        What it is as a whole.
    is_ours : bool
        Whether the whole store is ours, and not only some groups in it.
    is_image : bool
        Whether its root is an image that was converted.
    segmentations, instances, tables : tuple of str
        Names of class maps, of class maps with numbered objects, and of tables.
    is_done : bool
        Whether a night marked it as finished.
    """

    location: str
    kind: Kind
    is_ours: bool = True
    is_image: bool = False
    segmentations: tuple[str, ...] = ()
    instances: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    is_done: bool = False


def find_contents(path: str) -> list[Contents]:
    """Everything of ours at a path, or below it if it is a plain folder.

    Raises
    ------
    InputError
        If nothing is there, or nothing of ours.
    """
    location = store.resolve_location(path)
    if not store.is_remote(location) and not os.path.exists(location):
        raise InputError(f"path={path}: no such file or directory.")
    found = list(_search(location, _DEEPEST))
    if not found:
        raise InputError(
            f"path={path} holds nothing that segment-slide wrote; expected an image, a segmentation, a training set, "
            f"samples, a model, a folder of a training, or a folder of a night's outputs."
        )
    return found


def _search(location: str, depth: int) -> Iterator[Contents]:
    if store.is_file(location) and not store.is_zarr(location):
        yield from _look_at_file(location)
        return
    if exists(join(location, STATE_NAME)) or location.endswith(STATE_FOLDER):
        yield Contents(location, Kind.TRAINING)
        return
    if (contents := look_at_store(location)) is not None:
        yield contents
        if contents.kind is Kind.TRAINING_SET:  # images that were converted into the set have manifests of their own
            for name in sorted(store.list_names(join(location, _SOURCES))):
                yield from _search(join(location, _SOURCES, name), 0)
        return
    if depth and os.path.isdir(location):
        for name in sorted(store.list_names(location)):
            yield from _search(join(location, name), depth - 1)


def _look_at_file(path: str) -> Iterator[Contents]:
    if is_note(path):
        yield Contents(path, Kind.NOTE)
    if not path.endswith(".safetensors"):
        return
    kind = find_kind(read_header(path) or {})
    in_training = os.path.dirname(path).endswith(STATE_FOLDER)
    yield Contents(path, Kind.STATE if kind == "state" or (not kind and in_training) else Kind.MODEL)


def look_at_store(location: str) -> Contents | None:
    """What of ours is in a store; None if nothing is, or if it is no store."""
    root, is_damaged = _attributes(location, "")
    mark: Any = root.get(ATTRIBUTE)
    is_sealed = any(exists(join(location, file)) for file in (FILE, GROUP_FILE))
    is_damaged |= is_sealed and not isinstance(mark, dict)  # we seal nothing that has no mark
    if isinstance(mark, dict) and mark.get("kind") in (training_set.KIND, sample_set.KIND):
        return Contents(location, Kind.TRAINING_SET if mark["kind"] == training_set.KIND else Kind.SAMPLES)
    is_ours = isinstance(mark, dict)
    segmentations = _ours_below(location, is_ours or is_damaged, "labels", "probability")
    instances = tuple(sorted(name.removesuffix(_ENDS[0]) for name in segmentations if name.endswith(_ENDS)))
    classes = tuple(name for name in segmentations if not name.endswith(_ENDS))
    tables = _list_tables(location)
    if is_damaged and not (classes or instances):
        return _guess_damaged(location)
    if not (is_ours or is_damaged or classes or instances or tables):
        return None
    is_image = is_ours and "ingested_from" in mark
    is_done = exists(join(location, DONE_FILE))
    return Contents(location, Kind.SLIDE, is_ours or is_damaged, is_image, classes, instances, tables, is_done)


def _guess_damaged(location: str) -> Contents | None:
    """What a store is whose own metadata cannot be read: told by its folders."""
    names = store.list_names(location)
    if {"training", "validation"} & names:
        return Contents(location, Kind.SAMPLES)
    groups = [name for name in names if exists(join(location, name, training_set.CLASSES, "zarr.json"))]
    if groups:
        return Contents(location, Kind.TRAINING_SET)
    return Contents(location, Kind.SLIDE, is_image="0" in names)


def _attributes(location: str, group: str) -> tuple[dict[str, Any], bool]:
    """Attributes of a group, and whether it is there and cannot be read."""
    try:
        return store.read_attributes(location, group) or {}, False
    except store_errors() as error:
        if isinstance(error, PipelineError) and "cannot be reached" in str(error):
            raise
        return {}, True


def store_errors() -> tuple[type[Exception], ...]:
    """What reading damaged metadata may raise."""
    return (PipelineError, *DAMAGED)


def _ours_below(location: str, is_ours: bool, *folders: str) -> tuple[str, ...]:
    """Names of groups in some folders that bear our mark. If one cannot be read, it is ours if the store is."""
    found = set()
    for folder in folders:
        for name in store.list_names(join(location, folder)) - {"zarr.json"}:
            attributes, is_damaged = _attributes(location, join(folder, name))
            is_sealed = exists(join(location, folder, name, FILE))
            if ATTRIBUTE in attributes or (is_damaged and (is_ours or is_sealed)):
                found.add(name)
    return tuple(sorted(found))


def _list_tables(location: str) -> tuple[str, ...]:
    attributes, _ = _attributes(location, TABLES)
    records = attributes.get(ATTRIBUTE)
    listed = set(records) if isinstance(records, dict) else set()
    folders = {
        name.removesuffix(".parquet")
        for name in store.list_names(join(location, TABLES))
        if name.endswith(".parquet") and attributes
    }
    return tuple(sorted(listed | folders))
