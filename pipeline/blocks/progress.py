"""How a run reports its progress; this file does not know who shows it."""

import contextlib
import time
from collections.abc import Iterator
from typing import Protocol


class Advance(Protocol):
    """Called when one step is done."""

    def __call__(self, n_pixels: int, note: str = "") -> None:
        """Count a step with the pixels that it covered; `note` says something about it."""
        ...


class Stages(Protocol):
    """What a run reports its progress to."""

    def stage(
        self, name: str, total: int, done: int = 0, unit: str = "blocks"
    ) -> contextlib.AbstractContextManager[Advance]:
        """Begin a stage of `total` steps (of a `unit`), `done` of which were done before.

        The result is called after each step with the pixels it covered.
        """


def ignore(n_pixels: int, note: str = "") -> None:
    """Report nothing."""


class QuietStages:
    """Reports nothing."""

    @contextlib.contextmanager
    def stage(self, name: str, total: int, done: int = 0, unit: str = "blocks") -> Iterator[Advance]:
        """See `Stages`."""
        yield ignore


@contextlib.contextmanager
def timed(clock: dict[str, float], name: str) -> Iterator[None]:
    """Add a stage's wall time to a clock."""
    began = time.perf_counter()
    yield
    clock[name] = time.perf_counter() - began
