"""A night: every acquisition that is complete is segmented once by each version of the model.

Plan, lock, one acquisition after the other, failures again after all others: in this order, visible below.
"""

import contextlib
import errno
import logging
import math
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from cluster.errors import ClusterError
from flows.night_report import NightReport, NightRow, Outcome
from flows.plan_night import Action, Decision, NightRequest, check_night, decide_all, parts_missing, slide_request
from flows.slide import SlideReport, SlideRequest, process_slide
from pipeline import night_outputs, store
from pipeline.acquisitions import read_again
from pipeline.errors import IncompleteError, InputError, OutputError, PipelineError
from pipeline.lock import hold
from pipeline.night_outputs import Done, Failure, Layout
from pipeline.output import label_group
from unet.checkpoint import open_checkpoint
from unet.errors import UnetError

log = logging.getLogger(__name__)

RunOne = Callable[[SlideRequest, Decision], SlideReport]


def run_quietly(request: SlideRequest, _decision: Decision) -> SlideReport:
    """All stages of one acquisition, here."""
    return process_slide(request)


def segment_new(
    request: NightRequest,
    run_one: RunOne = run_quietly,
    on_result: Callable[[NightRow], None] | None = None,
    clock: Callable[[], float] = time.time,
) -> NightReport:
    """Segment what is new and complete, go on with what was interrupted, and try again what failed.

    What fails is tried again after all others, until it failed `max_tries` times, this night or earlier; then it is
    set aside. An interruption counts as no failure. One night at a time works in an outputs folder; object stores
    have no locks: there two nights at once do the same work twice, and write the same bytes.

    Parameters
    ----------
    request : NightRequest
        What to watch.
    run_one : callable
        Carries out the stages of one acquisition.
    on_result : callable, optional
        Called after each try.
    clock : callable
        Time of day (epoch).

    Raises
    ------
    InputError, PlanError, UnetError, ClusterError, OutputError
        What no acquisition could be segmented with: at the beginning, with nothing created; or later (workers that do
        not come, a full disk, another model in the place of the first), with what is done kept.
    """
    layout = check_night(request)
    with contextlib.ExitStack() as stack:
        cleaned: set[str] = set()
        try:
            stack.enter_context(hold(layout.outputs, lambda: _remove_leftovers(cleaned)))
        except OutputError as error:
            if not isinstance(error.__cause__, BlockingIOError):
                raise
            return NightReport((), layout.folder, f"another night is at work in {layout.outputs}")
        decisions = decide_all(request, layout, clock())
        cleaned |= {os.path.dirname(decision.output) for decision in decisions if decision.is_work}
        night = _Night(request, layout, run_one, clock)
        return NightReport(tuple(night.run(decisions, on_result)), layout.folder)


def _remove_leftovers(folders: set[str]) -> None:
    """Notes that a killed night had not finished writing."""
    for folder in sorted(folders):
        store.remove_leftovers(folder, "", below=False)


@dataclass(frozen=True)
class _Night:
    """One run over all acquisitions, with the outputs folder held."""

    request: NightRequest
    layout: Layout
    run_one: RunOne
    clock: Callable[[], float]

    def run(self, decisions: Sequence[Decision], on_result: Callable[[NightRow], None] | None) -> list[NightRow]:
        """What became of each; failures of earlier nights come last, then those of this one."""
        rows = {d.acquisition.name: _row(d, Outcome.SKIPPED, d.reason) for d in decisions}
        queue = deque(sorted((d for d in decisions if d.is_work), key=lambda d: d.action == Action.RETRY))
        while queue:
            decision = queue.popleft()
            name = decision.acquisition.name
            row = self._try(decision)
            if row.outcome == Outcome.LEFT and rows[name].outcome == Outcome.FAILED:
                continue  # it failed, and its next try is another night's
            row = replace(row, action=rows[name].action, seconds=rows[name].seconds + row.seconds)
            rows[name] = row
            if on_result is not None:
                on_result(row)
            if row.outcome == Outcome.FAILED:
                queue.append(replace(decision, action=Action.RETRY, reason=row.reason, tries=decision.tries + 1))
        return list(rows.values())

    def _try(self, decision: Decision) -> NightRow:
        """Segment one acquisition, and write down how that ended."""
        if _has_changed(decision):
            return _row(decision, Outcome.LEFT, "changed since the night began")
        self._check_model()
        began = time.perf_counter()
        report, error = self._attempt(decision)
        seconds = time.perf_counter() - began
        if _has_changed(decision):  # what was read may be half the old and half the new: made again in another night
            reason = "changed while it was segmented"
            self._note(decision, decision.tries, reason)
            return _row(decision, Outcome.LEFT, reason, seconds)
        if report is None:
            reason = _explain(error)
            self._note(decision, decision.tries + 1, reason)
            is_last = decision.tries + 1 >= self.request.max_tries
            return _row(decision, Outcome.SET_ASIDE if is_last else Outcome.FAILED, reason, seconds)
        done = self._finish(decision, report)
        counts = {"n_objects": done.n_objects, "n_pixels": done.n_pixels}
        return _row(decision, Outcome.SEGMENTED, decision.reason, seconds, **counts)

    def _attempt(self, decision: Decision) -> tuple[SlideReport | None, Exception | None]:
        """The report of all stages, or the error that is this acquisition's own; others are raised."""
        try:
            self._clear_the_way(decision)
            report = self.run_one(slide_request(self.request, decision), decision)
            missing = parts_missing(self.request.template, decision.output)
            if missing:
                raise IncompleteError(f"{', '.join(missing)} is missing in {decision.output} after all stages.")
        except Exception as error:
            if _is_cancellation(error) or _concerns_all(error):
                raise
            self.layout.check_writable()
            if not isinstance(error, PipelineError):
                log.warning("%s: an error that was not foreseen", decision.acquisition.name, exc_info=error)
            return None, error
        return report, None

    def _finish(self, decision: Decision, report: SlideReport) -> Done:
        n_objects = report.numbered.n_objects if report.numbered else None
        n_pixels = _count_pixels(decision.output, self.request.template.segment.options.name)
        seconds = report.stage_seconds
        done = night_outputs.write_done(self.layout, decision.acquisition, n_objects, n_pixels, seconds)
        night_outputs.delete_failure(decision.output)
        return done

    def _check_model(self) -> None:
        """A model that is replaced in the night would write into the folder of the one before."""
        if open_checkpoint(self.layout.model_path).sha256 != self.layout.model_sha256:
            raise InputError(f"model={self.layout.model_path} was replaced during the night; begin again.")

    def _clear_the_way(self, decision: Decision) -> None:
        """Delete what does not go with what is to be made: of an earlier content, or of parts that somebody deleted."""
        output, acquisition = decision.output, decision.acquisition
        failure = night_outputs.read_failure(output)
        if failure and failure.fingerprint != acquisition.fingerprint:
            night_outputs.delete_unfinished(output)
        night_outputs.reopen(output, self.request.template.segment.options.name)
        night_outputs.delete_stale_image(self.layout, acquisition)

    def _note(self, decision: Decision, tries: int, reason: str) -> None:
        last = datetime.fromtimestamp(self.clock(), UTC).isoformat(timespec="seconds")
        failure = Failure(tries, reason, decision.acquisition.fingerprint, self.layout.model_sha256, last)
        night_outputs.write_failure(decision.output, failure)


def _row(decision: Decision, outcome: Outcome, reason: str, seconds: float = 0.0, **counts: int | None) -> NightRow:
    name, action, output = decision.acquisition.name, decision.action, decision.output
    return NightRow(name, action, outcome, reason, seconds, output=output, **counts)


def _has_changed(decision: Decision) -> bool:
    now = read_again(decision.acquisition)
    return now is None or now.fingerprint != decision.acquisition.fingerprint


def _count_pixels(output: str, name: str) -> int:
    return math.prod(store.open_array(output, f"{label_group(name)}/0", zarr_format=3).shape)


def _explain(error: Exception | None) -> str:
    """The sentence of an error of ours; of others, their class too."""
    return str(error) if isinstance(error, PipelineError) else f"{type(error).__name__}: {error}"


def _is_cancellation(error: Exception) -> bool:
    """Whether somebody ended the run: whatever runs the stages has an exception of its own for that."""
    return any("Cancel" in kind.__name__ for kind in type(error).__mro__)


def _concerns_all(error: Exception) -> bool:
    """Whether an error would meet every acquisition: workers that do not come, the model, a disk that takes no more.

    Blocks tell the reason of a failed write as text, so that is where the disk's state is read.
    """
    disk = tuple(os.strerror(code) for code in (errno.ENOSPC, errno.EDQUOT, errno.EROFS))
    return isinstance(error, ClusterError | UnetError) or any(text in str(error) for text in disk)
