"""Where layers lie over each other in the viewer, and the metadata that tell the viewer so.

Everything is laid over one grid, the `World`: the grid of the image's finest level. Each layer gets new OME-Zarr
metadata, written from where its levels lie on that grid. This avoids shifted or refused layers when units differ, when
levels claim the same scale, or when labels have no calibration. The arrays stay as they are.

::

    layers/0/zarr.json     axes, units and levels of one layer; its arrays are at ../../data/0/<level>
"""

import json
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from segment_slide.pipeline.errors import InputError, UnreachableError
from segment_slide.pipeline.metadata.units import seconds_per
from segment_slide.pipeline.pictures.layer import lie
from segment_slide.pipeline.storage import ome, store
from segment_slide.pipeline.storage.calibration import pixel_um
from segment_slide.pipeline.storage.complete import keep_complete
from segment_slide.pipeline.storage.image import StoredImage, describe_image

_METRES = 1e-6  # one micrometre in metres
_SPACE, _PLACES = "zyx", "tzyx"


@dataclass(frozen=True)
class Placement:
    """Where a stored image lies: per axis, voxel k has its centre at ``start + k * step``, in voxels of the world."""

    step: Mapping[str, float]
    start: Mapping[str, float]


@dataclass(frozen=True)
class World:
    """The grid that layers are laid over.

    Attributes
    ----------
    base : StoredImage
        The image whose grid it is.
    scale : mapping of str to float
        Size of a voxel, for each axis of "tzyx" that the base has.
    units : mapping of str to (str or None)
        Units of `scale`; None stands for pixels.
    """

    base: StoredImage
    scale: Mapping[str, float]
    units: Mapping[str, str | None]

    @property
    def axes(self) -> str:
        """Axes that have a position, in OME-Zarr's order."""
        return "".join(self.scale)

    def side(self, axis: str) -> float:
        """Size of a voxel divided by the smallest spatial one, as the viewer counts zoom; both in SI units."""
        return self._si(axis) / min(self._si(a) for a in self.axes if a in _SPACE)

    def _si(self, axis: str) -> float:
        return self.scale[axis] * (1.0 if self.units[axis] is None else _METRES)


def make_world(base: StoredImage, others: Sequence[tuple[StoredImage, Placement]], *, is_volume: bool) -> World:
    """Make the grid of an image, with sizes from its metadata, or else from the metadata of its labels.

    Parameters
    ----------
    base : StoredImage
        The image.
    others : sequence of (StoredImage, Placement)
        Label images, each with its place.
    is_volume : bool
        Whether three planes are shown: then z, y and x must all have a size, or none of them is used.
    """
    axes = [axis for axis in _PLACES if axis in base.axes]
    known: dict[str, tuple[float, str | None]] = {}
    for axis in axes:
        here = size_of(base, axis)
        found = [(size_of(image, axis), place.step.get(axis, 1.0)) for image, place in others]
        there = next(((known[0] / step, known[1]) for known, step in found if known and step > 0), None)
        known[axis] = here or there or (1.0, None)
    together = _SPACE if is_volume else "yx"
    if any(axis in together and known[axis][1] is None for axis in axes):
        known |= {axis: (1.0, None) for axis in axes if axis in together}
    return World(base, {a: known[a][0] for a in axes}, {a: known[a][1] for a in axes})


def size_of(image: StoredImage, axis: str) -> tuple[float, str] | None:
    """Size and unit of a voxel, in micrometres or seconds; None if the size or the unit is unknown."""
    if axis not in image.axes:
        return None
    if axis != "t":
        size = pixel_um(image, axis)
        return None if size is None else (size, "micrometer")
    at = image.axes.index(axis)
    step, factor = image.multiscale.levels[image.level].scale[at], seconds_per(image.multiscale.units[at])
    return (step * factor, "second") if factor and step > 0 else None


def place_recorded(segmented: StoredImage, base: StoredImage, first: Mapping[str, int]) -> Placement:
    """Place labels that were made from a level of an image, starting at a first plane. This needs no metadata."""
    step, start = {}, {}
    for axis in base.axes:
        step[axis], offset = lie(segmented, base, axis)
        start[axis] = offset + first.get(axis, 0) * step[axis]
    return Placement(step, start)


def place_described(image: StoredImage, base: StoredImage) -> tuple[Placement | None, str]:
    """Place labels over an image by their metadata, or by sizes in pixels if the two calibrations cannot both be right.

    Returns
    -------
    Placement or None
        None if neither is possible, because the proportions differ.
    str
        A note on what is uncertain; "" if the place is certain.
    """
    axes = [axis for axis in image.axes if axis in base.axes and axis != "c"]
    described = {axis: _relate(image, base, axis) for axis in axes}
    is_whole = all(image.size(axis) == base.size(axis) for axis in "yx")
    step, start, doubtful = {}, {}, []
    for axis in axes:
        found = described[axis]
        if found is None or (is_whole and abs(found[0] - 1) > 0.01):
            known = size_of(image, axis) is not None and size_of(base, axis) is not None
            if axis in _SPACE and (known or image.size(axis) != base.size(axis)):
                doubtful.append(axis)
            found = _by_counts(image, base, axis)
        step[axis], start[axis] = found
    if not doubtful:
        return Placement(step, start), ""
    sides = f"{image.size('y'):,} × {image.size('x'):,} px over {base.size('y'):,} × {base.size('x'):,}"
    if set(doubtful) & set("yx") and not _are_similar(image, base):
        return None, f"is left out: its calibration contradicts the image's, and its proportions differ ({sides})."
    return Placement(step, start), (
        f"is placed by counts of pixels ({sides}), because its calibration along {', '.join(doubtful)} and the image's "
        f"contradict each other. It is assumed to cover the whole image, which may be wrong."
    )


def _are_similar(image: StoredImage, base: StoredImage) -> bool:
    """Whether one ratio relates both sides, apart from one pixel that rounding in a pyramid may lose."""
    least, most = [], []
    for axis in "yx":
        given, wanted = image.size(axis), base.size(axis)
        least.append(min(wanted / (given + 1), (wanted - 1) / given))
        most.append(max(wanted / max(given - 1, 0.5), (wanted + 1) / given))
    return max(least) <= min(most)


def _relate(image: StoredImage, base: StoredImage, axis: str) -> tuple[float, float] | None:
    """Step and start by metadata, if both or neither image has units and this one lies within the other."""
    sizes = size_of(image, axis), size_of(base, axis)
    if (sizes[0] is None) != (sizes[1] is None):
        return None
    inner, outer = (i.multiscale.levels[i.level] for i in (image, base))
    k, n = image.axes.index(axis), base.axes.index(axis)
    if inner.scale[k] <= 0 or outer.scale[n] <= 0:
        return None
    ratio = 1.0
    if sizes[0] is not None and sizes[1] is not None:
        ratio = sizes[0][0] / inner.scale[k] / (sizes[1][0] / outer.scale[n])  # the ratio of their units
    step = inner.scale[k] * ratio / outer.scale[n]
    start = (inner.translation[k] * ratio - outer.translation[n]) / outer.scale[n]
    tolerance = max(step, 1.0)
    lies_in = start >= -tolerance and start + step * image.size(axis) <= base.size(axis) + tolerance
    return (step, start) if lies_in else None


def _by_counts(image: StoredImage, base: StoredImage, axis: str) -> tuple[float, float]:
    if axis in "tz" and image.size(axis) < base.size(axis):
        return 1.0, 0.0  # the first planes: planes are not enlarged
    step = base.size(axis) / image.size(axis)
    return step, (step - 1) / 2


def list_levels(image: StoredImage) -> list[StoredImage]:
    """Return the stored levels of an image from the described one on, up to the first one that does not exist."""
    levels = [image]
    n_levels = len(image.multiscale.levels) if image.is_ome else 0
    for number in range(image.level + 1, n_levels):
        try:
            levels.append(describe_image(image.location, level=number))
        except UnreachableError:
            raise
        except InputError:
            break
    return levels


def layer_metadata(
    image: StoredImage,
    placement: Placement,
    world: World,
    folder: str,
    *,
    channel_name: str = "c",
    is_ours: bool = False,
) -> dict[str, bytes]:
    """Make the files that describe one layer to the viewer.

    Parameters
    ----------
    image : StoredImage
        The layer's finest level.
    placement : Placement
        Where that level lies.
    world : World
        The grid that it lies on.
    folder : str
        Address of its store's files on the site, such as "data/0".
    channel_name : str
        Name of the channel axis. "c^" makes all channels of a pixel available at once, if a chunk holds all of them.
    is_ours : bool
        Whether our own run writes it. That run may be unfinished, so incomplete coarse levels are left out.

    Returns
    -------
    dict of str to bytes
        Content by file name.
    """
    datasets = []
    levels = list_levels(image)
    for level in keep_complete(levels) if is_ours else levels:
        scale, translation = [], []
        for axis in image.axes:
            step, start = lie(level, image, axis) if axis in _PLACES else (1.0, 0.0)
            outer = placement.step.get(axis, 1.0)
            unit = world.scale.get(axis, 1.0)
            scale.append(step * outer * unit)
            translation.append((placement.start.get(axis, 0.0) + start * outer) * unit)
        transformations = [{"type": "scale", "scale": scale}, {"type": "translation", "translation": translation}]
        path = store.join("../..", folder, urllib.parse.quote(level.array_path))  # "#" would end the address
        datasets.append({"path": path, "coordinateTransformations": transformations})
    axes = [_axis(axis, world, channel_name) for axis in image.axes]
    multiscale = {"axes": axes, "datasets": datasets}
    if image.zarr_format == 2:
        attributes = {"multiscales": [{"version": "0.4", **multiscale}]}
        return {".zgroup": _encode({"zarr_format": 2}), ".zattrs": _encode(attributes)}
    ome = {"version": "0.5", "multiscales": [multiscale]}
    return {"zarr.json": _encode({"zarr_format": 3, "node_type": "group", "attributes": {"ome": ome}})}


def _axis(axis: str, world: World, channel_name: str) -> dict[str, Any]:
    if axis == "c" and channel_name != "c":
        return {"name": channel_name}  # without a type: otherwise the viewer adds a mark to a channel's name
    unit = world.units.get(axis)
    return {"name": axis, "type": ome.AXIS_TYPES[axis], **({"unit": unit} if unit else {})}


def _encode(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content).encode()
