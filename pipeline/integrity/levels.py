"""Whether the coarser levels of an image show the finer ones: some boxes of each level are made again and compared."""

import itertools

import numpy as np

from segment_slide.pipeline.blocks.array_spec import ArraySpec
from segment_slide.pipeline.integrity.finding import Fault, Found, alone
from segment_slide.pipeline.integrity.images import StoredPyramid, as_pixels, halved_axes, open_levels, shard_key
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.pyramid import PyramidLevel, downsample
from segment_slide.pipeline.storage.store import join
from segment_slide.unet.boxes import Box

BOXES = 6  # per level: chunks at its two ends, and others by chance


@alone
def check_levels(pyramid: StoredPyramid) -> Found:
    """Make some chunks of each coarser level again from the level before, and compare."""
    for finer, coarser in itertools.pairwise(open_levels(pyramid)):
        level = PyramidLevel(
            pyramid.location, pyramid.group, finer, coarser, halved_axes(finer, coarser), pyramid.method
        )
        yield from check_boxes(pyramid, level)


@alone
def check_boxes(pyramid: StoredPyramid, level: PyramidLevel) -> Found:
    """The same for one level."""
    stored, finer = (
        store.open_array(pyramid.location, join(pyramid.group, spec.path), zarr_format=3)
        for spec in (level.target, level.source)
    )
    for box in sample_boxes(level.target):
        made = downsample(np.asarray(finer[level.source_box(box)]), level.halved, level.method)
        if not np.array_equal(as_pixels(made), as_pixels(np.asarray(stored[box]))):
            shard = tuple(part.start // size for part, size in zip(box, level.target.shard, strict=True))
            problem = f"does not show level {level.source.path}: it is made of other pixels than are stored there now"
            yield pyramid.finding(Fault.CONTRADICTION, shard_key(level.target.path, shard), problem)


def sample_boxes(level: ArraySpec, n: int = BOXES) -> list[Box]:
    """Chunks of an array: the first, the last, and others by chance, which are the same in every run.

    >>> len(sample_boxes(ArraySpec("1", (256, 256), (128, 128), (64, 64), "uint8", "yx")))
    6
    """
    counts = tuple(-(-size // chunk) for size, chunk in zip(level.shape, level.chunk, strict=True))
    ends = [(0,) * len(counts), tuple(count - 1 for count in counts)]
    others = np.random.default_rng(len(counts)).integers(0, counts, (n - len(ends), len(counts)))
    chosen = sorted({*ends, *(tuple(map(int, index)) for index in others)})
    return [
        tuple(
            slice(i * chunk, min((i + 1) * chunk, size))
            for i, chunk, size in zip(index, level.chunk, level.shape, strict=True)
        )
        for index in chosen
    ]
