"""Summarise a table of any length in a few numbers per class: counts, and the number of objects of each size.

The image limits the number of different sizes: k objects of k different sizes need at least 1 + 2 + … + k pixels, so
10^12 pixels have below 1.5 million sizes. Objects of each size are therefore counted exactly, and medians are exact.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from segment_slide.pipeline.measurement.columns import TableSpec
from segment_slide.pipeline.statistics.object_sizes import SmallObjects, find_small

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, eq=False)
class SizeCounts:
    """Number of objects of each class and size, and how many of them touch the image border.

    Attributes
    ----------
    classes, sizes : ndarray of int64, (m,)
        Class value and size (px), in rising order, each pair once.
    counts, at_border : ndarray of int64, (m,)
        Number of objects, and how many of them touch the image border.
    n_not_finite : int
        Objects whose intensities are null in a channel, because a pixel is NaN or infinite there.
    """

    classes: np.ndarray
    sizes: np.ndarray
    counts: np.ndarray
    at_border: np.ndarray
    n_not_finite: int = 0

    @property
    def n_objects(self) -> int:
        """Number of objects of all classes."""
        return int(self.counts.sum())

    @property
    def n_pixels(self) -> int:
        """Number of pixels of all objects."""
        return int((self.counts * self.sizes).sum())

    @property
    def n_at_border(self) -> int:
        """Number of objects that touch the image border."""
        return int(self.at_border.sum())

    @property
    def class_values(self) -> list[int]:
        """Classes that have objects."""
        return np.unique(self.classes).tolist()

    def of_class(self, value: int) -> "SizeCounts":
        """Counts of one class."""
        chosen = self.classes == value
        return SizeCounts(*(array[chosen] for array in (self.classes, self.sizes, self.counts, self.at_border)))

    def quantile(self, share: float) -> float:
        """Size (px) below which this share of the objects lies, as ``numpy.quantile`` of all sizes.

        >>> counts = SizeCounts(*np.array([[1, 1], [10, 20], [1, 1], [0, 0]]))
        >>> counts.quantile(0.5)
        15.0
        """
        order = np.argsort(self.sizes, kind="stable")
        ends, sizes = np.cumsum(self.counts[order]), self.sizes[order]
        rank = share * (self.n_objects - 1)
        low, high = (sizes[np.searchsorted(ends, int(at), side="right")] for at in (np.floor(rank), np.ceil(rank)))
        return float(low + (high - low) * (rank - np.floor(rank)))


def count_sizes(spec: TableSpec, table: "pa.Table") -> SizeCounts:
    """Counts of one part of a table. Its `summary_columns` are needed, and `mean_columns` to count what is null."""
    value, size, border = (table[name].to_numpy().astype(np.int64) for name in summary_columns(spec))
    unknown = np.zeros(len(value), np.bool_)
    for name in set(mean_columns(spec)) & set(table.column_names):
        unknown |= table[name].is_null().to_numpy(zero_copy_only=False)
    return replace(_add_up(value, size, np.ones(len(value), np.int64), border), n_not_finite=int(unknown.sum()))


def summary_columns(spec: TableSpec) -> tuple[str, str, str]:
    """Columns that are needed for a summary."""
    return "class", f"{spec.size_name}_px", "touches_image_border"


def mean_columns(spec: TableSpec) -> tuple[str, ...]:
    """Columns that tell which objects have no intensities."""
    return tuple(f"intensity_mean_{name}" for name in spec.channels)


def merge_counts(parts: Iterable[SizeCounts]) -> SizeCounts:
    """Counts of all parts. They are integers, so the order of the parts does not matter.

    >>> one = SizeCounts(*np.array([[1], [10], [2], [1]]))
    >>> merged = merge_counts([one, one])
    >>> merged.counts.tolist(), merged.n_pixels, merged.n_at_border
    ([4], 40, 2)
    """
    found = list(parts)
    arrays = [[getattr(part, name) for part in found] for name in ("classes", "sizes", "counts", "at_border")]
    merged = _add_up(*(np.concatenate([np.zeros(0, np.int64), *columns]) for columns in arrays))
    return replace(merged, n_not_finite=sum(part.n_not_finite for part in found))


def _add_up(classes: np.ndarray, sizes: np.ndarray, counts: np.ndarray, at_border: np.ndarray) -> SizeCounts:
    pairs, where = np.unique(np.stack([classes, sizes], axis=1), axis=0, return_inverse=True)
    sums = np.zeros((2, len(pairs)), np.int64)
    for row, values in zip(sums, (counts, at_border), strict=True):
        np.add.at(row, where.reshape(-1), values)
    return SizeCounts(pairs[:, 0], pairs[:, 1], *sums)


@dataclass(frozen=True)
class ClassSummary:
    """Numbers of one class, or of all classes. Sizes are in the summary's unit.

    Attributes
    ----------
    name : str
        Name of the class.
    n_objects, n_at_border : int
        Number of objects, and how many of them touch the image border.
    density : float
        Objects per `Summary.density_unit` of the image.
    covered : float
        Share of the image that the objects cover.
    quartiles : tuple of 3 floats
        Quartiles of the sizes, the second is the median; NaN without objects.
    """

    name: str
    n_objects: int
    n_at_border: int
    density: float
    covered: float
    quartiles: tuple[float, float, float]


@dataclass(frozen=True)
class Summary:
    """A table in numbers.

    Attributes
    ----------
    all : ClassSummary
        All objects.
    classes : tuple of ClassSummary
        Classes that have objects, by class value.
    size_name, size_unit, density_unit : str
        "area" in "µm²" and objects per "mm²", "volume" in "µm³" and per "mm³"; in pixels if the pixel size is unknown.
    size_factor : float
        Size of one pixel in that unit.
    counts : tuple of SizeCounts
        Counts of each class.
    small : SmallObjects
        How many objects of all classes are small.
    """

    all: ClassSummary
    classes: tuple[ClassSummary, ...]
    size_name: str
    size_unit: str
    density_unit: str
    size_factor: float
    counts: tuple[SizeCounts, ...]
    small: SmallObjects


def summarise(spec: TableSpec, counts: SizeCounts) -> Summary:
    """The most important numbers of a table.

    Parameters
    ----------
    spec : TableSpec
        Columns of the table.
    counts : SizeCounts
        Counts of the whole table.
    """
    power = "²" if spec.n_spatial == 2 else "³"
    known = spec.calibration
    factor = 1.0 if known is None else known.voxel
    n_pixels = math.prod(spec.shape)
    extent = n_pixels / 1e6 if known is None else n_pixels * factor / 1000.0**spec.n_spatial

    def describe(name: str, of: SizeCounts) -> ClassSummary:
        quartiles = [of.quantile(share) * factor if of.n_objects else math.nan for share in (0.25, 0.5, 0.75)]
        shares = (of.n_objects / extent, of.n_pixels / n_pixels)
        return ClassSummary(name, of.n_objects, of.n_at_border, *shares, (quartiles[0], quartiles[1], quartiles[2]))

    values = counts.class_values
    parts = tuple(counts.of_class(value) for value in values)
    return Summary(
        all=describe("all", counts),
        classes=tuple(describe(spec.class_name(value), part) for value, part in zip(values, parts, strict=True)),
        size_name=spec.size_name,
        size_unit="px" if known is None else f"µm{power}",
        density_unit="Mpx" if known is None else f"mm{power}",
        size_factor=factor,
        counts=parts,
        small=find_small(counts.sizes, counts.counts, spec.n_spatial),
    )


OTHERS = 0  # class value of `gather_rare`'s last class; it is free, because background has no objects


def choose_groups(summary: Summary, most: int) -> list[list[int]]:
    """Group the classes for drawing: the most frequent ones each alone, in class order, then all others together.

    Parameters
    ----------
    summary : Summary
        Its classes are grouped.
    most : int
        Number of classes that are drawn alone.
    """
    by_number = sorted(range(len(summary.classes)), key=lambda row: -summary.classes[row].n_objects)
    if len(by_number) <= most + 1:
        return [[row] for row in range(len(by_number))]
    return [*([row] for row in sorted(by_number[:most])), sorted(by_number[most:])]


def gather_rare(summary: Summary, most: int) -> Summary:
    """A summary for a plot: if there are many classes, the most frequent ones and one for all others."""
    *kept, rest = choose_groups(summary, most) or [[]]
    if len(rest) < 2:
        return summary
    merged = merge_counts(summary.counts[row] for row in rest)
    counts = _add_up(np.full_like(merged.classes, OTHERS), merged.sizes, merged.counts, merged.at_border)
    low, median, high = (counts.quantile(share) * summary.size_factor for share in (0.25, 0.5, 0.75))
    others = ClassSummary(
        f"{len(rest)} others",
        counts.n_objects,
        counts.n_at_border,
        sum(summary.classes[row].density for row in rest),
        sum(summary.classes[row].covered for row in rest),
        (low, median, high),
    )
    rows = [row for (row,) in kept]
    return replace(
        summary,
        classes=(*(summary.classes[row] for row in rows), others),
        counts=(*(summary.counts[row] for row in rows), counts),
    )
