"""Is what we wrote complete? An interrupted run leaves arrays whose missing files any viewer shows as background."""

import math
from dataclasses import dataclass

from segment_slide.pipeline.blocks.grid import ceil_divide
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.image import StoredImage


@dataclass(frozen=True)
class FileCount:
    """Files of an array.

    Attributes
    ----------
    n_files, n_missing : int
        That there should be, and of these the ones that are not there (yet).
    """

    n_files: int
    n_missing: int

    @property
    def n_done(self) -> int:
        """Those that are there."""
        return self.n_files - self.n_missing


def count_files(image: StoredImage) -> FileCount:
    """Files of one of our own arrays; others may leave out those of background, so that they cannot tell."""
    n_files = _count_all(image)
    return FileCount(n_files, max(0, n_files - len(store.stored_shards(image.location, image.array_path))))


def count_known_missing(image: StoredImage) -> FileCount:
    """The same where one can ask; elsewhere nothing can be told to be missing."""
    if image.zarr_format == 3 and has_listing(image.location):
        return count_files(image)
    return FileCount(_count_all(image), 0)


def _count_all(image: StoredImage) -> int:
    return math.prod(ceil_divide(size, chunk) for size, chunk in zip(image.shape, image.chunks, strict=True))


def has_listing(location: str) -> bool:
    """Whether one can ask what is there: of folders and object stores, not of a web server."""
    return not location.startswith(("http://", "https://"))


def keep_complete(levels: list[StoredImage]) -> list[StoredImage]:
    """Without coarse levels of which something is missing: holes in an overview pass for background."""
    return [level for number, level in enumerate(levels) if number == 0 or not count_known_missing(level).n_missing]
