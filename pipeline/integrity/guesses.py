"""What a damaged metadata file may have been, told by the files beside it. The manifest tells whether a guess is right.

::

    zarr.json                 shows the label image that labels/<name>/zarr.json describes
    labels/zarr.json          lists the label images
    labels/<name>/zarr.json   has the record of which probability/<name>/zarr.json has a copy, and the reverse
    <image>/<level>/zarr.json differs from other levels in its shape alone
"""

from collections.abc import Iterator
from typing import Any

import zarr
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import MemoryStore

from segment_slide.pipeline.integrity.contents import Contents
from segment_slide.pipeline.integrity.finding import Made, Stage
from segment_slide.pipeline.integrity.pyramids import find_pyramids
from segment_slide.pipeline.integrity.restore import array_metadata
from segment_slide.pipeline.manifest.manifest import GROUP_FILE
from segment_slide.pipeline.storage import ome, store
from segment_slide.pipeline.storage.label_records import read_segmentation_record
from segment_slide.pipeline.storage.names import instance_group, label_group, probability_group
from segment_slide.pipeline.storage.pyramid import calibrate
from segment_slide.pipeline.storage.record import ATTRIBUTE
from segment_slide.pipeline.storage.sections import write_section
from segment_slide.pipeline.storage.store import join

_GROUP = b'{"attributes":{},"zarr_format":3,"node_type":"group"}'  # of the folder of a manifest


def guess_metadata(contents: Contents, key: str, made: Made) -> list[bytes]:
    """What a file may have been; nothing if the files beside it do not tell, or are damaged too."""
    if key == GROUP_FILE or key.endswith(f"/{GROUP_FILE}"):
        return [_GROUP]
    try:
        return list(_guess(contents, key, made))
    except Exception:  # noqa: BLE001 - what is beside it may be damaged in any way; then there is no guess
        return []


def _guess(contents: Contents, key: str, made: Made) -> Iterator[bytes]:
    group = key.removesuffix("zarr.json").rstrip("/")
    for pyramid in find_pyramids(contents, made):
        if group.rpartition("/")[0] == pyramid.group:
            yield from array_metadata(pyramid, group.rpartition("/")[2])
    location, name = contents.location, made.name
    if group == "labels":
        yield from _as_stored({"ome": {"version": ome.VERSION, "labels": _label_names(contents)}})
    elif group == "" and not contents.is_image:
        for shown in _shown_groups(contents):
            yield from _as_stored(_root(location, shown))
    elif group == "probability":
        yield from _as_stored({})
    elif group == probability_group(name) and made.stage is Stage.SEGMENT:
        yield from _as_stored(_scores(location, name))
    elif group == label_group(name) and made.stage is Stage.SEGMENT:
        yield from _as_stored(_classes(location, name))


def _label_names(contents: Contents) -> list[str]:
    return sorted({*contents.segmentations, *(f"{name}-instances" for name in contents.instances)})


def _shown_groups(contents: Contents) -> list[str]:
    return [*map(label_group, contents.segmentations), *map(instance_group, contents.instances)]


def _multiscale(location: str, group: str) -> ome.Multiscale:
    shown = ome.parse_multiscale(store.read_attributes(location, group) or {}, join(location, group))
    if shown is None:
        raise ValueError("no multiscales")
    return shown


def _root(location: str, group: str) -> dict[str, Any]:
    shown = ome.multiscale_attributes(ome.within(_multiscale(location, group), group))
    return {"ome": shown, ATTRIBUTE: {"shows": group}}


def _scores(location: str, name: str) -> dict[str, Any]:
    """Metadata of the probabilities, told by those of the labels."""
    labels, record = (
        _multiscale(location, label_group(name)),
        read_segmentation_record(join(location, label_group(name))),
    )
    where = 1 if labels.axes.startswith("t") else 0
    first = labels.levels[0]
    axes = f"{labels.axes[:where]}c{labels.axes[where:]}"
    units = (*labels.units[:where], None, *labels.units[where:])
    scale = (*first.scale[:where], 1.0, *first.scale[where:])
    start = (*first.translation[:where], 0.0, *first.translation[where:])
    halved = _halved(labels)
    finest = ome.Level("0", scale, start)
    shown = calibrate(name, axes, units, finest, len(labels.levels), "local_mean", halved)
    return {"ome": ome.multiscale_attributes(shown), ATTRIBUTE: write_section(record)}


def _halved(labels: ome.Multiscale) -> str:
    if len(labels.levels) < 2:
        return "yx"
    steps = zip(labels.axes, labels.levels[0].scale, labels.levels[1].scale, strict=True)
    return "".join(axis for axis, fine, coarse in steps if coarse != fine)


def _classes(location: str, name: str) -> dict[str, Any]:
    """Metadata of the labels, told by the root, which shows them, and the record of the probabilities."""
    group, record = label_group(name), read_segmentation_record(join(location, probability_group(name)))
    if record is None:
        raise ValueError("no record")
    root = _multiscale(location, "")
    levels = tuple(
        ome.Level(level.path.removeprefix(f"{group}/"), level.scale, level.translation) for level in root.levels
    )
    shown = ome.label_attributes(ome.Multiscale(root.axes, root.units, levels, root.name), record.classes)
    return {"ome": shown, ATTRIBUTE: write_section(record)}


def _as_stored(attributes: dict[str, Any]) -> Iterator[bytes]:
    """A group's metadata file with these attributes, as Zarr writes it, with keys in either order."""
    for chosen in (attributes, dict(reversed(attributes.items()))):
        memory = MemoryStore()
        zarr.create_group(memory, attributes=chosen, zarr_format=3)
        content = sync(memory.get("zarr.json", default_buffer_prototype()))
        if content is not None:
            yield content.to_bytes()
