"""Is what we wrote complete? An interrupted run leaves arrays whose missing files any viewer shows as background."""

import math

import numpy as np

from segment_slide.pipeline.blocks.grid import ceil_divide
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.image import StoredImage


def count_missing(image: StoredImage) -> tuple[int, int]:
    """Files of one of our own arrays that are not there (yet), and how many there should be.

    HTTP has no listing, so that nothing can be told to be missing.
    """
    total = math.prod(ceil_divide(size, chunk) for size, chunk in zip(image.shape, image.chunks, strict=True))
    if image.zarr_format != 3 or not has_listing(image.location):
        return 0, total
    return max(0, total - len(store.stored_shards(image.location, image.array_path))), total


def has_listing(location: str) -> bool:
    """Whether one can ask what is there: of folders and object stores, not of a web server."""
    return not location.startswith(("http://", "https://"))


def keep_complete(levels: list[StoredImage]) -> list[StoredImage]:
    """Without coarse levels of which something is missing: holes in an overview pass for background."""
    return [level for number, level in enumerate(levels) if number == 0 or not count_missing(level)[0]]


def missing_shards(image: StoredImage) -> int:
    """Files of an image that are not there (yet); only images that store background too can tell."""
    total = np.prod([-(-size // chunk) for size, chunk in zip(image.shape, image.chunks, strict=True)])
    return int(total) - len(store.stored_shards(image.location, image.array_path))
