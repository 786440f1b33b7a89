"""What Prefect shows while a stage works: a progress artifact, and a line in its log every minute."""

import contextlib
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.logging import get_run_logger

from flows.progress import Advance, format_rate, format_seconds

log = logging.getLogger(__name__)

SHOW_EVERY_S = 3.0  # an update is a request to the server and a row in its database
LOG_EVERY_S = 60.0


@dataclass
class ArtifactStages:
    """Stages as progress artifacts of the task run that they belong to.

    A server that does not answer for a while costs progress, not the run.
    """

    show_every_s: float = SHOW_EVERY_S
    log_every_s: float = LOG_EVERY_S

    @contextlib.contextmanager
    def stage(self, name: str, total: int, done: int = 0, unit: str = "blocks") -> Iterator[Advance]:
        """See `flows.progress.Stages`."""
        told = _Told(name, total, done, unit, self.show_every_s, self.log_every_s)
        told.show()
        try:
            yield told.advance
        finally:
            told.show()


@dataclass
class _Told:
    """How far a stage is, and when that was last said."""

    name: str
    total: int
    done: int
    unit: str
    show_every_s: float
    log_every_s: float
    pixels: int = 0
    began_s: float = field(default_factory=time.monotonic)
    shown_s: float = 0.0
    artifact: UUID | None = None

    def __post_init__(self) -> None:
        self.logged_s, self.done_before = self.began_s, self.done
        self.logger: Any = get_run_logger()

    def advance(self, n_pixels: int, note: str = "") -> None:
        """Count a step."""
        self.done += 1
        self.pixels += n_pixels
        now = time.monotonic()
        if now - self.shown_s >= self.show_every_s:
            self.show()
        if now - self.logged_s >= self.log_every_s:
            self.logged_s = now
            self.logger.info("%s%s", self.describe(), f", {note}" if note else "")

    def show(self) -> None:
        """Tell the server."""
        percent = 100.0 * self.done / self.total if self.total else 100.0
        try:
            if self.artifact is None:
                self.artifact = create_progress_artifact(min(percent, 100.0), description=self.describe())  # type: ignore[assignment]
            else:
                update_progress_artifact(self.artifact, min(percent, 100.0), description=self.describe())
        except Exception as error:  # noqa: BLE001, whatever keeps the server from answering
            log.info("progress could not be told: %s", error)
        self.shown_s = time.monotonic()

    def describe(self) -> str:
        """How far, how fast, how long still."""
        text = f"{self.name}: {self.done:,} of {self.total:,} {self.unit}"
        seconds, new = time.monotonic() - self.began_s, self.done - self.done_before
        if self.pixels:
            text += f", {format_rate(self.pixels / max(seconds, 1e-9))}"
        if new > 0 and self.done < self.total:
            text += f", {format_seconds(seconds / new * (self.total - self.done))} left"
        return text
