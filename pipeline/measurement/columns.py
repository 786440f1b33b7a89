"""The columns of a table of objects, computed from the sums of whole objects: their meaning and unit.

========================================  ==========================================================================
id, class, class_name                     as in the instance label image and the class map
t, z                                      plane of the label image, where these are plane axes
area_px, area_um2                         pixels, and their area; 3D: volume_px, volume_um3
centroid_{axis}_px, _um                   mean position of the pixels' centres; um: ``k * scale + translation``
bbox_min_{axis}_px, bbox_max_{axis}_px    bounding box, max exclusive
perimeter_px, perimeter_um                2D: scikit-image's `perimeter` (neighborhood 4); um: times sqrt(sy * sx)
faces_{axis}, surface_um2                 3D: voxel faces exposed along each axis, and the surface by Crofton's
                                          formula for these three directions, which is 2/3 of the faces' area. It is
                                          right on average over all orientations (for a sphere), and too small by a
                                          third for a box parallel to the axes
equivalent_diameter_px, _um               of the circle or sphere of the same size
major_axis_px, _um, minor_axis_px, _um    of the ellipse or ellipsoid of the same second moments, as scikit-image's
eccentricity                              2D: as scikit-image's; 3D: sqrt(1 - smallest / largest eigenvalue of the
                                          second moments); in um if the pixel size is known, else in pixels
intensity_{mean,min,max,std}_{channel}    of the stored values; std is of the population (divided by n); null if a
                                          pixel of the object is NaN or infinite in this channel
probability_mean                          mean probability (0 to 1) of the object's own class
touches_image_border                      whether it touches a side of the image, so that it may be cut there; the
                                          first and last planes of a stack of planes are no sides
========================================  ==========================================================================
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from segment_slide.pipeline.storage.calibration import Calibration
from segment_slide.pipeline.storage.work_folder import Arrays

CORNER_WEIGHTS = (1.0, math.sqrt(2), (1 + math.sqrt(2)) / 2)  # of scikit-image's perimeter
_AXIS_FACTOR = {2: 16.0, 3: 20.0}  # squared length of an ellipsoid's axis over the variance along it


@dataclass(frozen=True)
class TableSpec:
    """What determines the columns and their units.

    Parameters
    ----------
    axes, shape : str, tuple of int
        Axes and shape of the label image.
    n_spatial : int
        Number of spatial axes, which are the last ones: 2 or 3.
    class_names : tuple of str
        Names of label values from 0; may be empty.
    channels : tuple of str
        Channels of the image, spelled as in column names; empty if intensities are not measured.
    score_unit : float
        Stored value of a probability of 1: 255 or 1; 0 if no probabilities are stored.
    calibration : Calibration, optional
        None if the pixel size is unknown. Columns in um are null then.
    id_bits : int
        Lowest bits of an object's key that are its id; those above tell objects of different planes apart.
    """

    axes: str
    shape: tuple[int, ...]
    n_spatial: int
    class_names: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()
    score_unit: float = 0.0
    calibration: Calibration | None = None
    id_bits: int = 64

    @property
    def spatial_axes(self) -> str:
        """Letters of the axes that objects extend along."""
        return self.axes[-self.n_spatial :]

    @property
    def plane_axes(self) -> str:
        """Letters of the plane axes."""
        return self.axes[: -self.n_spatial]

    def class_name(self, value: int) -> str:
        """Name of a label value; "class N" if value N has no name."""
        return self.class_names[value] if value < len(self.class_names) else f"class {value}"

    @property
    def size_name(self) -> str:
        """Name of the size in pixels: area or volume."""
        return "area" if self.n_spatial == 2 else "volume"


@dataclass(frozen=True)
class Column:
    """One column. `values` is None if all values are unknown; a NaN is a single unknown value."""

    name: str
    unit: str
    values: np.ndarray | None


def class_columns(spec: TableSpec, objects: Arrays) -> Iterator[Column]:
    """Class of each object."""
    yield Column("class", "", objects["class"])


def plane_columns(spec: TableSpec, objects: Arrays) -> Iterator[Column]:
    """Position on each plane axis."""
    for k, axis in enumerate(spec.plane_axes):
        yield Column(axis, "", objects["plane"][:, k].astype(np.int32))


def size_columns(spec: TableSpec, objects: Arrays) -> Iterator[Column]:
    """Pixels, area or volume, and diameter."""
    d, count = spec.n_spatial, objects["count"]
    yield Column(f"{spec.size_name}_px", "px", count)
    size_um = None if spec.calibration is None else count * spec.calibration.voxel
    yield Column(f"{spec.size_name}_um{d}", f"um{d}", size_um)
    for unit, size in (("px", count), ("um", size_um)):
        diameter = None if size is None else (2 * d * size / math.pi) ** (1 / d)
        yield Column(f"equivalent_diameter_{unit}", unit, diameter)


def place_columns(spec: TableSpec, objects: Arrays) -> Iterator[Column]:
    """Centroid and bounding box."""
    centres = objects["box_min"] + objects["first"] / objects["count"][:, None]
    for k, axis in enumerate(spec.spatial_axes):
        yield Column(f"centroid_{axis}_px", "px", centres[:, k])
    known = spec.calibration
    for k, axis in enumerate(spec.spatial_axes):
        values = None if known is None else centres[:, k] * known.scale[k] + known.translation[k]
        yield Column(f"centroid_{axis}_um", "um", values)
    for end in ("min", "max"):
        for k, axis in enumerate(spec.spatial_axes):
            yield Column(f"bbox_{end}_{axis}_px", "px", objects[f"box_{end}"][:, k])


def edge_columns(spec: TableSpec, objects: Arrays) -> Iterator[Column]:
    """Perimeter or surface."""
    counts, known = objects["edges"], spec.calibration
    if spec.n_spatial == 2:
        perimeter = counts @ np.array(CORNER_WEIGHTS)
        yield Column("perimeter_px", "px", perimeter)
        yield Column("perimeter_um", "um", None if known is None else perimeter * math.sqrt(known.voxel))
        return
    for k, axis in enumerate(spec.spatial_axes):
        yield Column(f"faces_{axis}", "", counts[:, k])
    areas = None if known is None else np.array([known.voxel / step for step in known.scale])
    yield Column("surface_um2", "um2", None if areas is None else counts @ areas * (2 / 3))


def ellipse_columns(spec: TableSpec, objects: Arrays) -> Iterator[Column]:
    """Axes and eccentricity of the ellipse or ellipsoid of the same second moments."""
    in_px = _variances(objects, (1.0,) * spec.n_spatial)
    in_um = None if spec.calibration is None else _variances(objects, spec.calibration.scale)
    for unit, variances in (("px", in_px), ("um", in_um)):
        for name, column in (("major", -1), ("minor", 0)):
            length = None if variances is None else np.sqrt(variances[:, column] * _AXIS_FACTOR[spec.n_spatial])
            yield Column(f"{name}_axis_{unit}", unit, length)
    variances = in_px if in_um is None else in_um
    largest = variances[:, -1]
    ratio = np.divide(variances[:, 0], largest, out=np.ones_like(largest), where=largest > 0)
    yield Column("eccentricity", "", np.sqrt(1 - ratio))


def _variances(objects: Arrays, scale: tuple[float, ...]) -> np.ndarray:
    """Variances of the pixels' positions along the principal axes, in rising order."""
    d = len(scale)
    matrices = np.zeros((len(objects["count"]), d, d))
    pairs = [(a, b) for a in range(d) for b in range(a, d)]
    for column, (a, b) in enumerate(pairs):
        moment = objects["second"][:, column] / objects["count"] * (scale[a] * scale[b])
        matrices[:, a, b] = matrices[:, b, a] = moment
    return np.maximum(np.linalg.eigvalsh(matrices), 0.0)  # rounding may leave a line's zero variance just below 0


def intensity_columns(spec: TableSpec, objects: Arrays) -> Iterator[Column]:
    """Mean, smallest value, largest value and standard deviation of each channel."""
    count = objects["count"]
    for k, name in enumerate(spec.channels):
        found: dict[str, Any] = {
            "mean": objects["value_sum"][:, k] / count,
            "min": objects["value_min"][:, k],
            "max": objects["value_max"][:, k],
            "std": np.sqrt(objects["value_squares"][:, k] / count),
        }
        unknown = ~np.isfinite(objects["value_sum"][:, k])
        for what, values in found.items():
            yield Column(f"intensity_{what}_{name}", "", _without(values, unknown))


def _without(values: np.ndarray, unknown: np.ndarray) -> np.ndarray:
    """The values with NaN where they are unknown; those of integers are all known."""
    return np.where(unknown, values.dtype.type(np.nan), values) if unknown.any() else values


def score_columns(spec: TableSpec, objects: Arrays) -> Iterator[Column]:
    """Mean probability of the object's own class."""
    if not spec.score_unit:
        return
    sums, value = objects["score_sum"], objects["class"]
    known = value < sums.shape[1]
    own = np.take_along_axis(sums, np.where(known, value, 0)[:, None].astype(np.int64), axis=1)[:, 0]
    yield Column("probability_mean", "", np.where(known, own / (objects["count"] * spec.score_unit), np.nan))


def border_columns(spec: TableSpec, objects: Arrays) -> Iterator[Column]:
    """Whether the object touches a side of the image."""
    sides = np.array(spec.shape[-spec.n_spatial :])
    touches = (objects["box_min"] == 0).any(axis=1) | (objects["box_max"] == sides).any(axis=1)
    yield Column("touches_image_border", "", touches)


def channel_columns(names: tuple[str, ...], n_channels: int) -> tuple[str, ...]:
    """Names of channels in columns: the channel names with blanks and the like replaced by "_", or else the numbers.

    >>> channel_columns(("DAPI", "Alexa 488"), 2), channel_columns(("a b", "a_b"), 2), channel_columns((), 1)
    (('DAPI', 'Alexa_488'), ('0', '1'), ('0',))
    """
    plain = tuple("".join(c if c.isalnum() or c in "-." else "_" for c in name) for name in names)
    usable = len(plain) == n_channels == len(set(plain)) and all(plain)
    return plain if usable else tuple(map(str, range(n_channels)))
