"""Whether an output is complete: after an interrupted run files are missing, and viewers show them as background."""

import math
from dataclasses import dataclass

from segment_slide.pipeline.blocks.grid import ceil_divide
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.checked_store import is_web
from segment_slide.pipeline.storage.image import StoredImage


@dataclass(frozen=True)
class FileCount:
    """Number of files of an array.

    Attributes
    ----------
    n_files, n_missing : int
        Files of the complete array, and those of them that are missing.
    """

    n_files: int
    n_missing: int

    @property
    def n_done(self) -> int:
        """Files that are present."""
        return self.n_files - self.n_missing


def count_files(image: StoredImage) -> FileCount:
    """Count the files of an array of ours; arrays of other software may leave out files of pure background.

    On a web server, which lists nothing, none counts as missing.
    """
    n_files = _count_all(image)
    if not has_listing(image.location):
        return FileCount(n_files, 0)
    return FileCount(n_files, max(0, n_files - len(store.stored_shards(image.location, image.array_path))))


def count_known_missing(image: StoredImage) -> FileCount:
    """The same for any array; where missing files cannot be known, none counts as missing."""
    if image.zarr_format == 3:
        return count_files(image)
    return FileCount(_count_all(image), 0)


def _count_all(image: StoredImage) -> int:
    return math.prod(ceil_divide(size, chunk) for size, chunk in zip(image.shape, image.chunks, strict=True))


def has_listing(location: str) -> bool:
    """Whether the files of a location can be listed: folders and object stores allow it, web servers do not."""
    return not is_web(location)


def keep_complete(levels: list[StoredImage]) -> list[StoredImage]:
    """The levels without incomplete coarse ones: holes in an overview look like background."""
    return [level for number, level in enumerate(levels) if number == 0 or not count_known_missing(level).n_missing]
