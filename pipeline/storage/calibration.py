"""From pixels to micrometres: where voxels lie and how large they are, where that is known.

A size in pixels is never reported as a size in micrometres: without a known unit there is no `Calibration`.
"""

import math
from dataclasses import dataclass

from segment_slide.pipeline.metadata.numbers import read_size
from segment_slide.pipeline.metadata.units import is_no_unit, um_per
from segment_slide.pipeline.storage import ome
from segment_slide.pipeline.storage.image import StoredImage


@dataclass(frozen=True)
class Calibration:
    """Voxel k of an axis has its centre at ``k * scale + translation``; both in um, per spatial axis."""

    scale: tuple[float, ...]
    translation: tuple[float, ...]

    @property
    def voxel(self) -> float:
        """Area (um2) or volume (um3) of one pixel."""
        return math.prod(self.scale)


def pixel_um(image: StoredImage, axis: str) -> float | None:
    """Size of a pixel along a spatial axis; None if its unit or its size is not known."""
    at = image.axes.index(axis)
    step, factor = image.multiscale.levels[image.level].scale[at], um_per(image.multiscale.units[at])
    return step * factor if factor is not None and step > 0 else None


def note_sizes(image: StoredImage) -> list[str]:
    """Say which pixel sizes an image states that cannot be used; an axis without a unit states none."""
    if image.multiscale.notes:  # each size that they concern is unknown
        return list(image.multiscale.notes)
    level, notes = image.multiscale.levels[image.level], []
    for axis, unit, step in zip(image.axes, image.multiscale.units, level.scale, strict=True):
        if ome.AXIS_TYPES[axis] == "channel" or is_no_unit(unit):
            continue
        said = read_size(step, unit, f"scale of {axis}", "time" if axis == "t" else "space")
        notes += [said.note] if said.note else []
    return notes


def calibrate_um(image: StoredImage, n_spatial: int) -> Calibration | None:
    """The calibration of the spatial axes of an image, or None if the unit of one is unknown or not a length."""
    level = image.multiscale.levels[image.level]
    places = [image.axes.index(axis) for axis in "zyx"[-n_spatial:]]
    factors = [um_per(image.multiscale.units[place]) for place in places]
    scale, translation = ([values[place] for place in places] for values in (level.scale, level.translation))
    if None in factors or min(scale) <= 0:
        return None
    known = [factor for factor in factors if factor is not None]
    return Calibration(
        tuple(step * factor for step, factor in zip(scale, known, strict=True)),
        tuple(start * factor for start, factor in zip(translation, known, strict=True)),
    )
