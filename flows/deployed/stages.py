"""Progress of a stage in Prefect: a progress artifact, and a line in the log every minute."""

import contextlib
import contextvars
import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from prefect.logging import get_run_logger

from segment_slide.flows.deployed.artifacts import write_progress
from segment_slide.flows.progress import format_rate, format_seconds
from segment_slide.pipeline.blocks.progress import Advance

log = logging.getLogger(__name__)

SHOW_EVERY_S = 3.0  # an update is a request to the server and a row in its database
LOG_EVERY_S = 60.0
_LAST_WAIT_S = 5.0


@dataclass
class ArtifactStages:
    """Show stages as progress artifacts of their task run.

    A separate thread talks to the server. If the server does not answer, only the progress is missing; the work does
    not wait.
    """

    show_every_s: float = SHOW_EVERY_S
    log_every_s: float = LOG_EVERY_S

    @contextlib.contextmanager
    def stage(self, name: str, total: int, done: int = 0, unit: str = "blocks") -> Iterator[Advance]:
        """See `pipeline.blocks.progress.Stages`."""
        told = _Told(name, total, done, unit)
        ended = threading.Event()
        # only this thread's context knows the run that artifacts and log lines belong to
        tell = contextvars.copy_context().run
        arguments = (told.tell, ended, self.show_every_s, self.log_every_s)
        thread = threading.Thread(target=tell, args=arguments, name=f"progress of {name}", daemon=True)
        thread.start()
        try:
            yield told.advance
        finally:
            ended.set()
            thread.join(_LAST_WAIT_S)


class _Told:
    """The progress of one stage, and how it is shown."""

    def __init__(self, name: str, total: int, done: int, unit: str) -> None:
        self.name, self.total, self.unit = name, total, unit
        self.done, self.done_before, self.pixels, self.note = done, done, 0, ""
        self._began_s = time.monotonic()
        self._artifact: UUID | None = None

    def advance(self, n_pixels: int, note: str = "") -> None:
        """Count one step."""
        self.done += 1
        self.pixels += n_pixels
        self.note = note

    def tell(self, ended: threading.Event, show_every_s: float, log_every_s: float) -> None:
        """Show and log the progress at intervals, also if nothing is new, so that people see a stage that waits."""
        logger: Any = get_run_logger()
        logged_s = time.monotonic()
        self._show()
        while not ended.wait(show_every_s):
            self._show()
            if time.monotonic() - logged_s >= log_every_s:
                logged_s = time.monotonic()
                logger.info("%s%s", self.describe(), f", {self.note}" if self.note else "")
        self._show()

    def _show(self) -> None:
        percent = min(100.0 * self.done / self.total, 100.0) if self.total else 100.0
        try:
            self._artifact = write_progress(self._artifact, percent, self.describe())
        except Exception as error:  # noqa: BLE001, whatever keeps the server from answering
            log.info("progress could not be shown: %s", error)

    def describe(self) -> str:
        """Describe how much is done, how fast, and the time left."""
        text = f"{self.name}: {self.done:,} of {self.total:,} {self.unit}"
        seconds, new = time.monotonic() - self._began_s, self.done - self.done_before
        if self.pixels:
            text += f", {format_rate(self.pixels / max(seconds, 1e-9))}"
        if new > 0 and self.done < self.total:
            text += f", {format_seconds(seconds / new * (self.total - self.done))} left"
        return text
