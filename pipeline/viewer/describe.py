"""An image with its segmentation as a page in the browser: what is shown, and how it looks at first.

::

    describe_view ─► find         which image, which labels
                ├─► conversion   which data types are converted on the way
                ├─► place        where they lie over each other
                ├─► channels     colours and intensities of the image
                ├─► layers       layers in the form of neuroglancer's state
                ├─► object_list  what is known of each object
                └─► page         the page around neuroglancer's client

The pixels are never copied: the browser reads the chunks of the stores, at the level that it needs. Data types and
codecs that it cannot read are converted chunk by chunk, when it asks for them.
"""

import itertools
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from segment_slide.pipeline.errors import InputError, PipelineError, UnknownAxesError, UnreachableError
from segment_slide.pipeline.measurement.standing import Standing, judge_objects
from segment_slide.pipeline.storage.image import StoredImage
from segment_slide.pipeline.storage.names import instances_name
from segment_slide.pipeline.viewer.channels import Look, look_at
from segment_slide.pipeline.viewer.conversion import choose_type
from segment_slide.pipeline.viewer.find import Found, Labels, find_contents, find_probabilities
from segment_slide.pipeline.viewer.layers import (
    channel_layer,
    label_layer,
    probability_layer,
    rgb_layer,
)
from segment_slide.pipeline.viewer.metadata import read_colours, read_label
from segment_slide.pipeline.viewer.object_list import (
    MOST_OBJECTS,
    ObjectTable,
    list_numbers,
    make_info,
    read_objects,
    read_properties,
    too_many,
)
from segment_slide.pipeline.viewer.page import make_config, make_extent, make_page, make_script, make_state
from segment_slide.pipeline.viewer.place import Placement, World, layer_metadata, make_world, size_of
from segment_slide.pipeline.viewer.site import Site

_FEWEST_PLANES = 8  # of a volume without labels: seen from the side, fewer planes are only a line
_INSTANCES_OPACITY, _CLASSES_OPACITY = 0.5, 0.4


def describe_view(location: str | Path, *, image: str | Path | None = None, name: str | None = None) -> Site:
    """Decide what a browser shows of an output, or of any OME-Zarr image.

    Reads metadata, one coarse level of the image, and the table of objects. Labels of our own are placed by the record
    of the run that made them. Labels of other tools are placed by their translations and scales. If those contradict
    the image's metadata, they are placed by their sizes in pixels.

    Objects are visible at first, each in a colour of its own. The map of classes that they were made from is listed
    beside them, but hidden: only objects show where one ends and the next begins. Measurements are shown for up to
    100,000 objects, if the table holds all of them with their present numbers.

    Parameters
    ----------
    location : path-like or URL
        An output, an OME-Zarr image with or without ``labels/``, or one of its label images.
    image : path-like or URL, optional
        The image to show below the labels; by default the one that was segmented.
    name : str, optional
        Show only this label image and its objects.

    Returns
    -------
    Site
        Can be served (`pipeline.viewer.server`) or written to a folder (`pipeline.viewer.export`).

    Raises
    ------
    InputError
        If there is nothing that can be shown.
    """
    try:
        found = find_contents(str(location), None if image is None else str(image), name)
    except UnknownAxesError as error:
        raise InputError(
            f"{error.what}; expected OME-Zarr, whose metadata say its axes: an image, or an output of segment-slide."
        ) from error
    others = [(item.image, found.places[item.name]) for item in found.labels]
    is_volume = _is_volume(found)
    world = make_world(found.base, others, is_volume=is_volume)
    builder = _Builder(found, world)
    position = _start(found)
    look = builder.add_image(position) if found.has_image else None
    selected = builder.add_labels()
    builder.add_probabilities()
    if not builder.layers:
        raise InputError(f"{found.location}: nothing can be shown. {' '.join(builder.notes)}")
    title = found.location.rpartition("/")[2]
    state = make_state(
        title,
        builder.layers,
        world,
        position,
        is_volume=is_volume,
        is_bright=look is not None and look.is_bright,
        selected=selected,
    )
    builder.files["index.html"] = make_page(title, is_volume=is_volume)
    extent = make_extent(world, is_volume=is_volume, has_panel=selected is not None)
    builder.files["view.js"] = make_script(state, make_config(world, is_volume=is_volume), extent)
    stores = {path: place for (place, _), path in builder.stores.items()}
    types = {path: dtype for (_, dtype), path in builder.stores.items() if dtype}
    return Site(title, builder.files, stores, tuple(builder.notes), types)


def _is_volume(found: Found) -> bool:
    """Whether to show three planes: the objects extend along z or, without labels, z has enough planes and a size."""
    if found.base.size("z") == 1:
        return False
    noted = [item.n_spatial for item in found.labels if item.n_spatial is not None]
    if noted:
        return 3 in noted
    return found.base.size("z") >= _FEWEST_PLANES and size_of(found.base, "z") is not None


def _start(found: Found) -> dict[str, int]:
    """Time and plane to show first, in voxels of the world: the first time of the labels, their middle plane."""
    base = found.base
    if not found.labels:
        return {"t": 0, "z": base.size("z") // 2}
    first = found.labels[0]
    place = found.places[first.name]
    index = {"t": 0, "z": first.image.size("z") // 2 if "z" in first.image.axes else base.size("z") // 2}
    at = {axis: place.start.get(axis, 0.0) + place.step.get(axis, 1.0) * index[axis] for axis in "tz"}
    return {axis: min(max(round(at[axis]), 0), base.size(axis) - 1) for axis in "tz"}


class _Builder:
    """Collects layers with the files that describe them."""

    def __init__(self, found: Found, world: World) -> None:
        self._found, self._world = found, world
        self.layers: list[dict[str, Any]] = []
        self.files: dict[str, bytes] = {}
        self.stores: dict[tuple[str, str], str] = {}  # (location, type to convert to or "") -> path on the site
        self._converted: set[tuple[str, str]] = set()
        self.notes = list(found.notes)

    def add_image(self, position: Mapping[str, int]) -> Look | None:
        """Add the image: one layer if it is a photograph, else one per channel."""
        base = self._prepare("The image", self._found.base, are_ids=False)
        if base is None:
            return None
        look = look_at(base, position)
        self.notes += look.notes
        itself = Placement({}, {})
        if look.is_rgb:
            self._add(rgb_layer(self._source(base, itself, "c^")))
        if not look.channels:
            return look
        source = self._source(base, itself)
        for channel in look.channels:
            self._add(channel_layer(source, channel, base.dtype, has_axis="c" in base.axes))
        return look

    def add_labels(self) -> str | None:
        """Add all label images. The first objects are visible, or the first labels if there are no objects.

        Returns
        -------
        str or None
            Name of the visible layer, if its objects have measurements to list.
        """
        prepared = {
            item.name: self._prepare(f"labels/{item.name}", item.image, are_ids=True) for item in self._found.labels
        }
        images = {name: image for name, image in prepared.items() if image is not None}
        shown = [item for item in self._found.labels if item.name in images]
        visible = next((item for item in shown if item.are_instances), shown[0] if shown else None)
        selected = None
        for item in shown:
            table = self._read_table(item)
            sources = [self._source(images[item.name], self._found.places[item.name], is_ours=bool(item.record))]
            if table is not None:
                sources.append(self._table_source(table))
            layer = label_layer(
                sources,
                item.name,
                colours={} if item.are_instances else read_colours(read_label(item.image.location)),
                opacity=_INSTANCES_OPACITY if item.are_instances else _CLASSES_OPACITY,
                is_visible=item is visible,
                has_channels="c" in item.image.axes,
                listed=next(iter(list_numbers(table)), None) if table else None,
            )
            name = self._add(layer)
            selected = name if item is visible and table is not None and table.numbers else selected
        return selected

    def add_probabilities(self) -> None:
        """Add the probabilities of each class except the background."""
        for item in self._found.labels:
            if item.segmentation is None:
                continue
            what = f"probability/{item.name}"
            try:
                scores = find_probabilities(self._found.location, item.name)
            except UnreachableError:
                raise
            except PipelineError as error:
                self.notes.append(f"{what} is left out: {error}")
                continue
            scores = None if scores is None else self._prepare(what, scores, are_ids=False)
            if scores is None:
                continue
            source = self._source(scores, self._found.places[item.name], is_ours=True)
            classes = item.segmentation.classes
            for index in range(1, scores.size("c")):
                label = classes[index] if index < len(classes) else f"class {index}"
                self._add(probability_layer(source, f"probability of {label}", index, scores.dtype))

    def _read_table(self, item: Labels) -> ObjectTable | None:
        """Return what is known of each object; None if it is too much or nothing."""
        table = self._read_measurements(item) if item.are_instances else None
        table = table or read_properties(read_label(item.image.location))
        return table if table is not None and table.ids else None

    def _read_measurements(self, item: Labels) -> ObjectTable | None:
        """Read the table of these objects; None if it is incomplete or belongs to an earlier numbering."""
        name = item.name.removesuffix(instances_name(""))
        if instances_name(name) != item.name:
            return None
        try:
            state = judge_objects(self._found.location, name)
        except UnreachableError:
            raise
        except PipelineError as error:
            self.notes.append(f"The measurements of labels/{item.name} are left out: {error}")
            return None
        self.notes += [f"labels/{item.name}: {note}" for note in state.notes]
        if state.instances == Standing.OTHER:
            self.notes.append(
                f"labels/{item.name}: its objects were made of other classes than labels/{name} has now; number them "
                f"anew: segment-slide instances {self._found.location}"
            )
        if state.table in (Standing.OTHER, Standing.INCOMPLETE):
            why = "of an earlier numbering" if state.table == Standing.OTHER else "not complete"
            self.notes.append(
                f"The measurements of labels/{item.name} are left out: they are {why}; run: "
                f"segment-slide measure {self._found.location}"
            )
        if state.table != Standing.GOOD:
            return None
        n_objects = (state.record and state.record.n_objects) or 0
        if n_objects > MOST_OBJECTS:
            self.notes.append(too_many(n_objects))
            return None
        return read_objects(self._found.location, state.path, state.n_parts, self.notes)

    def _table_source(self, table: ObjectTable) -> str:
        folder = f"objects/{len(self.files)}"
        self.files[f"{folder}/info"] = make_info(table)
        return f"@{folder}/|neuroglancer-precomputed:"

    def _prepare(self, what: str, image: StoredImage, *, are_ids: bool) -> StoredImage | None:
        """Return an array with the data type that the browser gets, or None if it cannot be shown; add a note."""
        shown = choose_type(what, image, are_ids=are_ids)
        self.notes += [shown.note] if shown.note else []
        if not shown.dtype:
            return None
        if shown.is_converted:
            self._converted.add((image.location, shown.dtype))
        return replace(image, dtype=shown.dtype)

    def _source(
        self, image: StoredImage, placement: Placement, channel_name: str = "c", *, is_ours: bool = False
    ) -> str:
        key = (image.location, image.dtype if (image.location, image.dtype) in self._converted else "")
        store_path = self.stores.setdefault(key, f"data/{len(self.stores)}")
        folder = f"layers/{len(self.files)}"
        image = replace(image, zarr_format=3) if key[1] else image
        described = layer_metadata(
            image, placement, self._world, store_path, channel_name=channel_name, is_ours=is_ours
        )
        self.files |= {f"{folder}/{name}": content for name, content in described.items()}
        return f"@{folder}/|zarr{image.zarr_format}:"

    def _add(self, layer: dict[str, Any]) -> str:
        """Add a layer under a unique name: a channel may have the same name as the labels made from it."""
        names = {other["name"] for other in self.layers}
        plain = f"{layer['name']} (labels)" if layer["type"] == "segmentation" else layer["name"]
        candidates = itertools.chain([layer["name"], plain], (f"{plain} {number}" for number in itertools.count(2)))
        name = next(candidate for candidate in candidates if candidate not in names)
        self.layers.append({**layer, "name": name})
        return name
