"""Add up the tables of counts of blocks as they arrive."""

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from segment_slide.pipeline.scoring.contingency import Areas, Contingency

Table = TypeVar("Table", Contingency, Areas)

_MERGE_ROWS = 2**20


class Total(Generic[Table]):
    """Add up tables in bounded memory: waiting rows are merged as soon as they are as many as the merged ones."""

    def __init__(self, merge: Callable[[Sequence[Table]], Table]) -> None:
        self._merge: Callable[[Sequence[Table]], Table] = merge
        self._waiting: list[Table] = []
        self._n_merged = self._n_waiting = 0

    def add(self, table: Table) -> None:
        """Add one more table."""
        self._waiting.append(table)
        self._n_waiting += len(table)
        if self._n_waiting > max(_MERGE_ROWS, self._n_merged):
            self._n_merged, self._n_waiting = len(self.merged()), 0

    def merged(self) -> Table:
        """The sum of all tables so far."""
        self._waiting = [self._merge(self._waiting)]
        return self._waiting[0]
