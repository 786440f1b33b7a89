"""Tables of counts added up as blocks bring them."""

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from segment_slide.pipeline.scoring.contingency import Areas, Contingency

Table = TypeVar("Table", Contingency, Areas)

_MERGE_ROWS = 2**20


class Total(Generic[Table]):
    """Tables added up as they come, in bounded memory: merged whenever as many rows wait as are merged already."""

    def __init__(self, merge: Callable[[Sequence[Table]], Table]) -> None:
        self._merge: Callable[[Sequence[Table]], Table] = merge
        self._waiting: list[Table] = []
        self._n_merged = self._n_waiting = 0

    def add(self, table: Table) -> None:
        """Take one more."""
        self._waiting.append(table)
        self._n_waiting += len(table)
        if self._n_waiting > max(_MERGE_ROWS, self._n_merged):
            self._n_merged, self._n_waiting = len(self.merged()), 0

    def merged(self) -> Table:
        """Their sum so far."""
        self._waiting = [self._merge(self._waiting)]
        return self._waiting[0]
