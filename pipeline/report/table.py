"""Summarise a table of objects of any length for a report: two passes over its parts, one part in memory."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from segment_slide.pipeline.measurement.columns import TableSpec
from segment_slide.pipeline.measurement.summary import (
    SizeCounts,
    Summary,
    count_sizes,
    merge_counts,
    summarise,
    summary_columns,
)
from segment_slide.pipeline.measurement.table import read_part, read_schema
from segment_slide.pipeline.report.facts import Facts
from segment_slide.pipeline.report.places import CountMap, count_points, plan_map
from segment_slide.pipeline.storage.calibration import calibrate_um

if TYPE_CHECKING:
    import pyarrow as pa

_BINS = 40
_MEAN = "intensity_mean_"
_MOST_CHANNELS = 8


@dataclass(frozen=True, eq=False)
class Intensities:
    """Mean intensities of objects in one channel.

    Attributes
    ----------
    channel : str
        Name of the channel in the table's columns.
    edges : ndarray of float64, (n + 1,)
        Edges of the bins, from the lowest mean to the highest.
    counts : ndarray of int64, (class, n)
        Objects per class, in the order of the summary's classes.
    means : tuple of float
        For each class, the mean of its objects' means.
    """

    channel: str
    edges: np.ndarray
    counts: np.ndarray
    means: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class TableFacts:
    """What a report shows of a table.

    Attributes
    ----------
    summary : Summary
        Counts and sizes.
    places : CountMap
        Objects by their centroids, in all planes together.
    shown : CountMap
        Objects in the plane that the pictures show.
    per_plane : ndarray of int64, or None
        Number of objects in each plane (z) or at each time (t); None if the image has only one.
    plane_axis : str
        The axis of `per_plane`.
    intensities : tuple of Intensities
        One for each measured channel, at most 8.
    n_channels : int
        How many channels were measured.
    """

    summary: Summary
    places: CountMap
    shown: CountMap
    per_plane: np.ndarray | None
    plane_axis: str
    intensities: tuple[Intensities, ...]
    n_channels: int


def describe_table(facts: Facts, plane: Mapping[str, int], window_px: int) -> TableFacts | None:
    """Read a complete table, and summarise it.

    Parameters
    ----------
    facts : Facts
        The output.
    plane : dict
        Plane per axis ("t", "z") that the pictures show.
    window_px : int
        Side of the windows in which interesting places are searched.

    Returns
    -------
    TableFacts or None
        None if there is no complete table.

    Raises
    ------
    BlockError
        If a part is damaged.
    """
    ids, table = facts.instances, facts.table
    if ids is None or table is None or not facts.has_table:
        return None
    n_spatial = facts.instance_record.parameters.ndim if facts.instance_record else 0
    spec = TableSpec(ids.axes, ids.shape, n_spatial, facts.class_names, calibration=calibrate_um(ids, n_spatial))
    schema = read_schema(facts.location, table.path, 0)
    channels = [name.removeprefix(_MEAN) for name in schema.names if name.startswith(_MEAN)]
    reader = _Reader(spec, plane, plan_map((ids.size("y"), ids.size("x")), window_px), channels[:_MOST_CHANNELS])
    for number in range(table.n_parts):
        reader.add(read_part(facts.location, table.path, number, reader.columns))
    measured = [_Histogram(channel, low, high, reader.sizes.class_values) for channel, (low, high) in reader.ends()]
    if measured:
        columns = ["class", *(f"{_MEAN}{histogram.channel}" for histogram in measured)]
        for number in range(table.n_parts):
            part = read_part(facts.location, table.path, number, columns)
            for histogram in measured:
                histogram.add(part)
    return reader.finish(tuple(histogram.finish() for histogram in measured), len(channels))


class _Reader:
    """The first pass: counts, sizes, places, and the lowest and highest intensities."""

    def __init__(self, spec: TableSpec, plane: Mapping[str, int], empty: CountMap, channels: Sequence[str]) -> None:
        self.spec, self.plane, self.empty, self.channels = spec, plane, empty, channels
        planes = dict(zip(spec.axes, spec.shape, strict=True))
        self.axis = next((axis for axis in "zt" if planes.get(axis, 1) > 1), "")
        self.places, self.shown = np.zeros((2, *empty.counts.shape), np.int64)
        self.starts = np.zeros(planes[self.axis] + 1 if self.axis else 0, np.int64)  # less those that ended before
        self.sizes: SizeCounts = merge_counts([])
        self.low, self.high = np.full((2, len(channels)), np.nan)
        spans = ["bbox_min_z_px", "bbox_max_z_px"] if "z" in spec.spatial_axes else []
        measured = [f"{_MEAN}{channel}" for channel in channels]
        self.columns = [*summary_columns(spec), "centroid_y_px", "centroid_x_px", *spans, *spec.plane_axes, *measured]

    def add(self, part: "pa.Table") -> None:
        self.sizes = merge_counts([self.sizes, count_sizes(self.spec, part)])
        y, x = (part[f"centroid_{axis}_px"].to_numpy() for axis in "yx")
        seen = self._is_shown(part)
        self.places += count_points(self.empty, y, x)
        self.shown += count_points(self.empty, y[seen], x[seen])
        if self.axis:
            first, end = self._spans(part, self.axis)
            n = len(self.starts)
            self.starts += np.bincount(first, minlength=n) - np.bincount(end, minlength=n)
        for k, channel in enumerate(self.channels):
            values, _ = _finite(part, channel)
            if len(values):
                self.low[k], self.high[k] = np.fmin(self.low[k], values.min()), np.fmax(self.high[k], values.max())

    def _spans(self, part: "pa.Table", axis: str) -> tuple[np.ndarray, np.ndarray]:
        """First plane of each object, and the plane after its last."""
        if axis in self.spec.spatial_axes:
            return part["bbox_min_z_px"].to_numpy(), part["bbox_max_z_px"].to_numpy()
        first = part[axis].to_numpy()
        return first, first + 1

    def _is_shown(self, part: "pa.Table") -> np.ndarray:
        seen = np.ones(len(part), bool)
        for axis in set(self.spec.axes) & set("tz"):
            first, end = self._spans(part, axis)
            seen &= (first <= self.plane.get(axis, 0)) & (self.plane.get(axis, 0) < end)
        return seen

    def ends(self) -> list[tuple[str, tuple[float, float]]]:
        """Lowest and highest mean of each channel that has any finite value."""
        found = zip(self.channels, self.low.tolist(), self.high.tolist(), strict=True)
        return [(channel, (low, high)) for channel, low, high in found if math.isfinite(low)]

    def finish(self, intensities: tuple[Intensities, ...], n_channels: int) -> TableFacts:
        return TableFacts(
            summary=summarise(self.spec, self.sizes),
            places=replace(self.empty, counts=self.places),
            shown=replace(self.empty, counts=self.shown),
            per_plane=np.cumsum(self.starts)[:-1] if self.axis else None,
            plane_axis=self.axis,
            intensities=intensities,
            n_channels=n_channels,
        )


class _Histogram:
    """The second pass, for one channel."""

    def __init__(self, channel: str, low: float, high: float, classes: Sequence[int]) -> None:
        self.channel, self.classes = channel, classes
        self.edges = np.linspace(low, high, _BINS + 1) if low < high else np.array([low - 0.5, low + 0.5])
        self.counts = np.zeros((len(classes), len(self.edges) - 1), np.int64)
        self.sums, self.numbers = np.zeros(len(classes)), np.zeros(len(classes), np.int64)

    def add(self, part: "pa.Table") -> None:
        values, classes = _finite(part, self.channel)
        for row, value in enumerate(self.classes):
            chosen = values[classes == value]
            self.counts[row] += np.histogram(chosen, self.edges)[0]
            self.sums[row] += chosen.sum()
            self.numbers[row] += len(chosen)

    def finish(self) -> Intensities:
        means = np.divide(self.sums, self.numbers, out=np.full(len(self.sums), np.nan), where=self.numbers > 0)
        return Intensities(self.channel, self.edges, self.counts, tuple(means.tolist()))


def _finite(part: "pa.Table", channel: str) -> tuple[np.ndarray, np.ndarray]:
    """Finite means, with the class of each."""
    values = part[f"{_MEAN}{channel}"].to_numpy().astype(np.float64)
    known = np.isfinite(values)
    return values[known], part["class"].to_numpy()[known]
