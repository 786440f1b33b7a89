"""The segmentation's place on disk: groups, metadata, the lock of the run that writes it.

::

    OUT.ome.zarr/                   an image group that shows the label map (so that any reader opens it)
    ├── labels/<name>/0, 1, …       uint8 classes, `nearest` pyramid; the record of the run
    └── probability/<name>/0, 1, …  optional class probabilities, `local_mean` pyramid
"""

import contextlib
import json
import logging
import os
from collections.abc import Iterator
from typing import Any

from segment_slide.pipeline.errors import InputError, OutputError
from segment_slide.pipeline.metadata.json_text import JsonError, parse_object
from segment_slide.pipeline.storage import files, ome, store
from segment_slide.pipeline.storage.image import StoredImage
from segment_slide.pipeline.storage.lock import LOCK_NAME, hold
from segment_slide.pipeline.storage.names import check_name, label_group, probability_group
from segment_slide.pipeline.storage.record import ATTRIBUTE, read_own
from segment_slide.pipeline.zarr_stores.archive import refuse_unwritable

log = logging.getLogger(__name__)

_COPY = "consolidated_metadata"


def check_output(location: str, name: str, image_location: str, *, in_place: bool) -> None:
    """Refuse a place that cannot or must not become an output, before anything is created.

    Raises
    ------
    OutputError
        If the name is not a plain name, or the output would lie in the input or over files of other tools.
    """
    check_name(name)
    refuse_unwritable(location)
    if not in_place:
        _check_place(location, image_location)
    for group in (label_group(name), probability_group(name)):
        if _is_foreign(location, group):
            raise OutputError(
                f"output={location} holds {group} that segment-slide did not write; choose another `name`."
            )


def check_in_place(image: StoredImage) -> None:
    """Refuse to write into an image that cannot hold our labels.

    Raises
    ------
    InputError
        If it is not OME-Zarr of Zarr format 3.
    """
    if not image.is_ome or image.zarr_format != 3:
        raise InputError(
            f"`in_place` needs an OME-Zarr 0.5 input (Zarr format 3); {image.location} has format {image.zarr_format}."
        )


def holds_image(location: str) -> bool:
    """Whether the root of a store is an image, and not a segmentation that shows itself as one."""
    root = store.read_attributes(location) or {}
    shown, mark = root.get("ome", root), root.get(ATTRIBUTE)
    return isinstance(shown, dict) and "multiscales" in shown and not (isinstance(mark, dict) and "shows" in mark)


def _check_place(location: str, image_location: str) -> None:
    if _is_inside(location, image_location) or _is_inside(image_location, location):
        raise OutputError(
            f"output={location} and input={image_location} lie in each other; inputs are read-only. Choose a path "
            f"beside it, or ask for `in_place` to write into the input's own labels/ group."
        )
    if store.is_file(location):
        raise OutputError(f"output={location} is a file; expected a new directory, by convention NAME.ome.zarr.")
    if _is_foreign(location, key="shows"):  # an ingested image bears our mark too, but shows no labels
        raise OutputError(
            f"output={location} exists and is not an output of segment-slide; choose another path, or delete it."
        )


def _is_foreign(location: str, path: str = "", key: str = "") -> bool:
    """Whether something is there that a segmentation did not make.

    Our groups get a mark (with `key` in it) before anything else is written into them. So we recognise a creation that
    was interrupted, and do not mistake files of other tools for one.
    """
    attributes = store.read_attributes(location, path)
    if attributes is None:
        return bool(store.list_names(store.join(location, path)) - {LOCK_NAME})
    return ATTRIBUTE not in attributes or (bool(key) and key not in read_own(location, path))


def _is_inside(inner: str, outer: str) -> bool:
    inner, outer = (path if store.is_remote(path) else os.path.realpath(path) for path in (inner, outer))
    return inner == outer or inner.startswith(outer.rstrip("/") + "/")


@contextlib.contextmanager
def exclusive(location: str, name: str) -> Iterator[None]:
    """Hold the output for this process; see `pipeline.storage.lock.hold`.

    Raises
    ------
    OutputError
        If another process holds it, or the directory cannot be made.
    """
    with hold(location, lambda: _remove_leftovers(location, name)):
        yield


def _remove_leftovers(location: str, name: str) -> None:
    for group in (label_group(name), probability_group(name)):
        store.remove_leftovers(location, group)
        store.remove_leftovers(location, group.split("/")[0], below=False)
    store.remove_leftovers(location, "", below=False)


def list_label(location: str, name: str) -> None:
    """Add a label image to the list in ``labels/``; other names in the list stay."""
    attributes = store.read_attributes(location, "labels") or {}
    content = attributes["ome"] if isinstance(attributes.get("ome"), dict) else {}
    names = sorted({*read_label_names(location), name})
    if names != content.get("labels"):
        store.create_group(location, "labels", [], {"ome": {**content, "version": ome.VERSION, "labels": names}})


def read_label_names(location: str, notes: list[str] | None = None) -> list[str]:
    """The names that ``labels/`` lists, whether the label images are there or not; in OME-Zarr 0.4 or 0.5.

    Parameters
    ----------
    location : str
        The store.
    notes : list of str, optional
        Gains a sentence for each entry that is no name of a folder, and so is left out.
    """
    notes = [] if notes is None else notes
    attributes = store.read_attributes(location, "labels") or {}
    content = attributes.get("ome", attributes)  # 0.4 has no "ome" around it
    listed = content.get("labels") if isinstance(content, dict) else None
    if listed is not None and not isinstance(listed, list):
        notes.append(f"{location}/labels lists no label images that can be read: expected a list, got {listed!r:.60}.")
        return []
    names = []
    for name in listed or []:
        is_name = isinstance(name, str) and name.isprintable() and name not in ("", ".", "..")
        if is_name and not any(part in name for part in ("/", "::")):
            names.append(name)
        else:
            notes.append(f"{name!r:.60} is left out: expected the name of a label image in {location}/labels.")
    return list(dict.fromkeys(names))


def has_label(location: str, name: str) -> bool:
    """Whether a label image is there, listed or not; a link that leads nowhere is none."""
    return store.read_attributes(location, label_group(name)) is not None


def show_to_all(location: str, group: str) -> None:
    """Delete copies of metadata in which a new image is missing or older. Call it last, when the image is complete.

    The root of a store may hold a copy of the metadata of all that is below it ("consolidated metadata"), and so may
    each group between. Most readers look for groups only in this copy, and would not find ours. Each copy is deleted
    by one write; all else in the file stays. If the process is killed before, the next run does it.

    Parameters
    ----------
    location, group : str
        The store, and the path of the image's group in it. The store may lie in another one, like a field of a plate.

    Raises
    ------
    OutputError
        If a copy in the store itself cannot be deleted. For a store around it, this is a warning.
    """
    parts = group.split("/")
    for depth in range(len(parts)):
        _drop_copy(store.join(location, *parts[:depth]), "/".join(parts[depth:]))
    folder, _, below = location.rpartition("/")
    below = store.join(below, group)
    while folder and not folder.endswith(":/"):
        try:
            if not _drop_copy(folder, below):
                return
        except (OSError, ValueError) as error:
            log.warning("%s hides the new %s from readers that start there: %s", folder, below, error)
            return
        folder, _, name = folder.rpartition("/")
        below = f"{name}/{below}"


def _drop_copy(folder: str, image: str) -> bool:
    """Delete the copy in a group's zarr.json, unless it shows the image as it is; return whether there is such a file.

    Parameters
    ----------
    folder : str
        Path or URL of the group.
    image : str
        Path of the image below it.
    """
    path = store.join(folder, "zarr.json")
    path = path if store.is_remote(path) else os.path.realpath(path)  # a link stays a link
    try:
        text = files.read_file(path)
    except OSError:  # nothing there, or nobody may read it
        return False
    try:
        content = parse_object(text)
    except JsonError as error:
        raise OutputError(f"{path}: {error}. Restore the file; the new {image} is there, but may be hidden.") from None
    if content.get(_COPY) is None or _is_current(content[_COPY], folder, image):
        return True
    del content[_COPY]
    files.write_file(path, json.dumps(content, indent=2 if b"\n" in text else None).encode())
    log.warning(
        "%s held a copy of the metadata of all groups below it (consolidated metadata), without the new %s. It is "
        "deleted there, so that every reader finds %s. Nothing else in the file is changed.",
        *(path, image, image),
    )
    return True


def _is_current(copy: Any, folder: str, image: str) -> bool:
    """Whether a copy says of an image, and of the groups above it, what they say themselves."""
    copied = copy.get("metadata") if isinstance(copy, dict) else None
    if not isinstance(copied, dict):
        return False
    parts, attributes = image.split("/"), dict[str, Any]()
    for depth in range(len(parts)):
        path = "/".join(parts[: depth + 1])
        attributes = store.read_attributes(folder, path) or {}
        entry = copied.get(path)
        if not isinstance(entry, dict) or (entry.get("attributes") or {}) != attributes:
            return False
    shown = ome.parse_multiscale(attributes, store.join(folder, image))
    return all(f"{image}/{level.path}" in copied for level in (shown.levels if shown else ()))
