"""The task for one block: sums of the objects in it, which `measurement.fragments` unites across blocks."""

import numpy as np

from segment_slide.pipeline.measurement import sums
from segment_slide.pipeline.measurement.pixels import BlockObjects, BlockPixels
from segment_slide.pipeline.storage.work_folder import Arrays


def measure_block(pixels: BlockPixels) -> Arrays:
    """Rows of all objects of a block: ``ids``, (m,) uint64 in rising order, and each row of `sums.SUMS`.

    Examples
    --------
    >>> ids = np.pad(np.array([[0, 5, 5]], np.uint32), 2)
    >>> rows = measure_block(BlockPixels(ids, (10, 20), 2, np.array([[0, 1, 1]], np.uint8)))
    >>> rows["ids"].tolist(), rows["count"].tolist(), rows["box_min"].tolist(), rows["first"].tolist()
    ([5], [2], [[10, 21]], [[0, 1]])
    """
    objects = BlockObjects(pixels)
    return {"ids": objects.ids.astype(np.uint64)} | {row.name: row.add(objects) for row in sums.SUMS}
