"""The sums that are computed for each object, as a table of rows. A new measurement is one more row.

A row defines what the pixels of a block add (`measurement.pixels`), how the fragments of an object are united
(`measurement.merges`), and which columns result (`measurement.columns`). The order of rows is the order of columns.

=================  =============================  ====================================================================
name               array for m objects            meaning
=================  =============================  ====================================================================
class              (m,) uint8                     largest value of the class map
plane              (m, planes) int64              position of the object on plane axes
count              (m,) int64                     pixels
box_min, box_max   (m, d) int64                   its bounding box in image coordinates, `box_max` exclusive
first              (m, d) int64                   sums of coordinates relative to `box_min`
edges              (m, 3) int64                   2D: border pixels by class (`count_corners`); 3D: faces per axis
second             (m, d (d + 1) / 2) int64       sums of their products: yy, yx, xx, or zz, zy, zx, yy, yx, xx; for
                                                  whole objects: central moments, float64
value_sum          (m, c) int64 or float64        sum of the image's values, exact for integers
value_min, _max    (m, c), dtype of image
value_squares      (m, c) float64                 sum of squared differences from the fragment's mean
score_sum          (m, classes) int64 or float64  sum of the probabilities, if they are stored
=================  =============================  ====================================================================

d is the number of spatial axes, c the number of channels of the image.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from segment_slide.pipeline.measurement import columns, merges
from segment_slide.pipeline.measurement.columns import Column, TableSpec
from segment_slide.pipeline.measurement.pixels import BlockObjects, BlockPixels
from segment_slide.pipeline.storage.work_folder import Arrays

Per = Literal["object", "edge", "axis", "pair of axes", "channel", "score"]


def _no_columns(spec: TableSpec, objects: Arrays) -> Iterable[Column]:
    """No columns: for a sum that only other rows need."""
    return ()


@dataclass(frozen=True)
class Sum:
    """One row of the table of sums.

    Parameters
    ----------
    name : str
        Key of its array in the rows of a block and of whole objects.
    per : str
        What the object has one number per. Memory is planned from it.
    add : callable
        Takes the objects of a block and returns their rows: (m,) or (m, numbers).
    merge : callable
        Takes `name`, the sums of all fragments so far and those of one more block; see `measurement.merges`.
    columns : callable
        Takes the table's specification and the sums of whole objects, and returns the columns of this row. It may use
        other rows. Each column has a name and a unit.
    dtype : dtype, optional
        Dtype for whole objects; by default that of a block's rows.
    """

    name: str
    per: Per
    add: Callable[[BlockObjects], np.ndarray]
    merge: Callable[[str, Arrays, Arrays], np.ndarray]
    columns: Callable[[TableSpec, Arrays], Iterable[Column]] = _no_columns
    dtype: "np.dtype[Any] | None" = None


SUMS: tuple[Sum, ...] = (
    Sum("class", "object", lambda block: block.classes, merges.take_larger, columns.class_columns),
    Sum("plane", "object", lambda block: block.shapes["plane"], merges.share_plane, columns.plane_columns),
    Sum("count", "object", lambda block: block.shapes["count"], merges.add_up, columns.size_columns),
    Sum("box_min", "axis", lambda block: block.shapes["box_min"], merges.take_smaller),
    Sum("first", "axis", lambda block: block.shapes["first"], merges.move_first, columns.place_columns),
    Sum("edges", "edge", lambda block: block.edges, merges.add_up, columns.edge_columns),
    Sum(
        "second",
        "pair of axes",
        lambda block: block.shapes["second"],
        merges.unite_second,
        columns.ellipse_columns,
        np.dtype(np.float64),
    ),
    Sum("value_sum", "channel", lambda block: block.values["value_sum"], merges.add_up),
    Sum("value_min", "channel", lambda block: block.values["value_min"], merges.take_smaller),
    Sum("value_max", "channel", lambda block: block.values["value_max"], merges.take_larger),
    Sum(
        "value_squares",
        "channel",
        lambda block: block.values["value_squares"],
        merges.unite_squares,
        columns.intensity_columns,
    ),
    Sum("score_sum", "score", lambda block: block.scores, merges.add_up, columns.score_columns),
    Sum("box_max", "axis", lambda block: block.shapes["box_max"], merges.take_larger, columns.border_columns),
)


def measure_block(pixels: BlockPixels) -> Arrays:
    """Rows of all objects of a block: ``ids``, (m,) uint64 in rising order, and each row of `SUMS`.

    Examples
    --------
    >>> ids = np.pad(np.array([[0, 5, 5]], np.uint32), 2)
    >>> rows = measure_block(BlockPixels(ids, (10, 20), 2, np.array([[0, 1, 1]], np.uint8)))
    >>> rows["ids"].tolist(), rows["count"].tolist(), rows["box_min"].tolist(), rows["first"].tolist()
    ([5], [2], [[10, 21]], [[0, 1]])
    """
    objects = BlockObjects(pixels)
    return {"ids": objects.ids.astype(np.uint64)} | {row.name: row.add(objects) for row in SUMS}


def numbers_per_object(n_spatial: int, n_channels: int, n_scores: int) -> int:
    """Count of numbers that are held for one object: its id, and those of all rows.

    >>> numbers_per_object(n_spatial=2, n_channels=1, n_scores=0)
    20
    """
    numbers: dict[Per, int] = {
        "object": 1,
        "edge": 3,
        "axis": n_spatial,
        "pair of axes": n_spatial * (n_spatial + 1) // 2,
        "channel": n_channels,
        "score": n_scores,
    }
    return 1 + sum(numbers[row.per] for row in SUMS)
