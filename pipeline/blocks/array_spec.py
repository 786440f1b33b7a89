"""One array that is to be created: its shape, and how it is cut into files and chunks."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class ArraySpec:
    """One array to create: shard = what one task writes, chunk = what a viewer fetches."""

    path: str
    shape: tuple[int, ...]
    shard: tuple[int, ...]
    chunk: tuple[int, ...]
    dtype: str
    axes: str

    @property
    def n_shards(self) -> int:
        """Files of this array."""
        return math.prod(-(-size // shard) for size, shard in zip(self.shape, self.shard, strict=True))
