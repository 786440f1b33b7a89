"""A night: each version of the model segments every complete acquisition once.

The order is visible below: plan, lock, one acquisition after the other, then the failed ones again.
"""

import contextlib
import logging
import math
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from segment_slide.flows.nights.errors import concerns_all, explain, explain_failure, is_nobodys_fault
from segment_slide.flows.nights.plan import Action, Decision, check_night, decide_all, parts_missing, slide_request
from segment_slide.flows.nights.report import NightReport, NightRow, Outcome
from segment_slide.flows.report import is_cancellation
from segment_slide.flows.requests import NightRequest, SlideRequest
from segment_slide.flows.slide import SlideReport, process_slide
from segment_slide.pipeline.errors import IncompleteError, InputError, OutputError, PipelineError
from segment_slide.pipeline.nights import notes, outputs
from segment_slide.pipeline.nights.acquisitions import read_again
from segment_slide.pipeline.nights.notes import Done, Failure
from segment_slide.pipeline.nights.outputs import Layout
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.lock import hold
from segment_slide.pipeline.storage.names import label_group
from segment_slide.unet.open_network import open_network

log = logging.getLogger(__name__)

RunOne = Callable[[SlideRequest, Decision], SlideReport]
OnReport = Callable[[NightReport], None]
IsInfrastructure = Callable[[Exception], bool]


def run_quietly(request: SlideRequest, _decision: Decision) -> SlideReport:
    """Run all stages of one acquisition in this process."""
    return process_slide(request)


def nothing_is_infrastructure(_error: Exception) -> bool:
    """Say that no error comes from infrastructure: for runs that use nothing but the stages themselves."""
    return False


def segment_new(
    request: NightRequest,
    run_one: RunOne = run_quietly,
    on_result: Callable[[NightRow], None] | None = None,
    clock: Callable[[], float] = time.time,
    *,
    is_infrastructure: IsInfrastructure = nothing_is_infrastructure,
    on_broken_off: OnReport | None = None,
) -> NightReport:
    """Segment new and complete acquisitions, continue interrupted ones, and try failed ones again.

    A failed acquisition is tried again after all others. It is set aside when it has failed `max_tries` times, in this
    night or in earlier ones. An interruption is not a failure. A lock lets only one night at a time work in an outputs
    folder. Object stores have no locks: there, two nights at once do the same work twice and write the same bytes.

    Parameters
    ----------
    request : NightRequest
        The request of the night.
    run_one : callable
        Runs the stages of one acquisition.
    on_result : callable, optional
        Called after each try.
    clock : callable
        Time of day (epoch).
    Present time (s since the epoch).
        Whether an error that `run_one` raised comes from the infrastructure (such as a server that does not answer) and
        not from the acquisition. Such an error ends the night and is not counted as a failure.
    on_broken_off : callable, optional
        Called with the report so far if an error or an interruption ends the night, before the error is raised.

    Raises
    ------
    InputError, PlanError, UnetError, ClusterError, OutputError
        If no acquisition can be segmented. This is found at the beginning, before anything is created, or later
        (missing workers, a full disk, a replaced model); then finished work stays.
    Exception
        An error for which `is_infrastructure` returns True.
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
        night = _Night(request, layout, run_one, clock, is_infrastructure)
        try:
            night.run(decisions, on_result)
        except BaseException as error:
            _show_broken_off(on_broken_off, night.report(explain(error)))
            raise
        return night.report()


def _remove_leftovers(folders: set[str]) -> None:
    """Delete notes that a killed night did not finish writing."""
    for folder in sorted(folders):
        store.remove_leftovers(folder, "", below=False)


def _show_broken_off(on_broken_off: OnReport | None, report: NightReport) -> None:
    """Show what was done. If this fails too, the error that ended the night is still the one to raise."""
    try:
        if on_broken_off is not None:
            on_broken_off(report)
    except Exception as error:
        log.warning("the report of what was done before the night ended could not be shown", exc_info=error)


@dataclass(frozen=True)
class _Night:
    """One run over all acquisitions, while the outputs folder is locked."""

    request: NightRequest
    layout: Layout
    run_one: RunOne
    clock: Callable[[], float]
    is_infrastructure: IsInfrastructure
    rows: dict[str, NightRow] = field(default_factory=dict)

    def report(self, ended_by: str = "") -> NightReport:
        """What happened to each acquisition so far, sorted by name."""
        return NightReport(tuple(self.rows.values()), self.layout.folder, ended_by=ended_by)

    def run(self, decisions: Sequence[Decision], on_result: Callable[[NightRow], None] | None) -> None:
        """Do all planned work. Failures of earlier nights come after it, and failures of this night last."""
        self.rows.update({d.acquisition.name: _first_row(d) for d in decisions})
        for decision in decisions:
            if decision.action == Action.DONE:
                notes.renew_done(decision.output, decision.acquisition)
        queue = deque(sorted((d for d in decisions if d.is_work), key=lambda d: d.action == Action.RETRY))
        while queue:
            decision = queue.popleft()
            before = self.rows[decision.acquisition.name]
            try:
                row = self._try(decision)
            except BaseException as error:
                if before.outcome == Outcome.LEFT:
                    self.rows[before.name] = replace(before, reason=f"ended with the night: {explain(error)}")
                raise
            if row.outcome == Outcome.LEFT and before.outcome == Outcome.FAILED:
                continue  # keep the row of its failure; another night tries again
            row = replace(row, action=before.action, seconds=before.seconds + row.seconds)
            self.rows[row.name] = row
            if on_result is not None:
                on_result(row)
            if row.outcome == Outcome.FAILED:
                queue.append(replace(decision, action=Action.RETRY, reason=row.reason, tries=decision.tries + 1))
        for decision in decisions:  # last, so that questions that nobody has seen are asked again
            if decision.needs_decision:
                notes.write_question(decision.output, decision.acquisition.name, decision.reason)

    def _try(self, decision: Decision) -> NightRow:
        """Segment one acquisition, and write down the result."""
        if _has_changed(decision):
            return _row(decision, Outcome.LEFT, "changed since the night began")
        self._check_model()
        began = time.perf_counter()
        report, error = self._attempt(decision)
        seconds = time.perf_counter() - began
        if _has_changed(decision):  # the result may mix old and new content: another night makes it again
            reason = "changed while it was segmented"
            self._note(decision, decision.tries, reason)
            return _row(decision, Outcome.LEFT, reason, seconds)
        if error is not None and is_nobodys_fault(error):
            return _row(decision, Outcome.LEFT, explain(error), seconds)
        if report is None:
            return self._fail(decision, error or RuntimeError("no report"), seconds)
        done = self._finish(decision, report)
        row = _row(decision, Outcome.SEGMENTED, decision.reason, seconds)
        return replace(row, page=report.page, n_objects=done.n_objects, n_pixels=done.n_pixels, small=report.small)

    def _attempt(self, decision: Decision) -> tuple[SlideReport | None, Exception | None]:
        """Return the report of all stages, or the error of this acquisition (or nobody's); raise all other errors."""
        try:
            self._clear_the_way(decision)
            report = self.run_one(slide_request(self.request, decision), decision)
            missing = parts_missing(self.request.template, decision.output)
            if missing:
                raise IncompleteError(f"{', '.join(missing)} is missing in {decision.output} after all stages.")
        except Exception as error:
            if is_cancellation(error) or concerns_all(error) or self.is_infrastructure(error):
                raise
            self.layout.check_writable()
            if not isinstance(error, PipelineError):
                log.warning("%s: an error that was not foreseen", decision.acquisition.name, exc_info=error)
            return None, error
        return report, None

    def _fail(self, decision: Decision, error: Exception, seconds: float) -> NightRow:
        """Count a failure."""
        reason = explain_failure(error, decision.output, slide_request(self.request, decision).image)
        self._note(decision, decision.tries + 1, reason)
        is_last = decision.tries + 1 >= self.request.max_tries
        return _row(decision, Outcome.SET_ASIDE if is_last else Outcome.FAILED, reason, seconds)

    def _finish(self, decision: Decision, report: SlideReport) -> Done:
        n_objects = report.numbered.n_objects if report.numbered else None
        n_pixels = _count_pixels(decision.output, self.request.template.segment.options.name)
        output, acquisition = decision.output, decision.acquisition
        sha256, seconds = self.layout.model_sha256, report.stage_seconds
        done = notes.write_done(output, acquisition, sha256, n_objects, n_pixels, seconds)
        notes.forget_tries(output)
        notes.write_question(output, acquisition.name, "")
        return done

    def _check_model(self) -> None:
        """Refuse a model that was replaced during the night: its results would go into the old model's folder."""
        if open_network(self.layout.model_path).sha256 != self.layout.model_sha256:
            raise InputError(f"model={self.layout.model_path} was replaced during the night; begin again.")

    def _clear_the_way(self, decision: Decision) -> None:
        """Delete what does not fit what will be made: parts of an earlier content, or parts made from deleted ones."""
        output, acquisition = decision.output, decision.acquisition
        outputs.check_free(output)
        begun = notes.begun_from(output)
        if begun is not None and not acquisition.is_as(begun.fingerprint, begun.times):
            outputs.delete_unfinished(output)
        outputs.reopen(output, self.request.template.segment.options.name)
        outputs.delete_stale_image(self.layout, acquisition)
        notes.write_begun(output, acquisition.fingerprint, acquisition.times)

    def _note(self, decision: Decision, tries: int, reason: str) -> None:
        last = datetime.fromtimestamp(self.clock(), UTC).isoformat(timespec="seconds")
        content = decision.acquisition
        failure = Failure(tries, reason, content.fingerprint, self.layout.model_sha256, last, content.times)
        notes.write_failure(decision.output, failure)


def _first_row(decision: Decision) -> NightRow:
    """Row of an acquisition as it would be if the night ended now."""
    if decision.is_work:
        return _row(decision, Outcome.LEFT, f"its turn did not come: {decision.reason}")
    if decision.needs_decision:
        known = notes.read_questions(decision.output).get(decision.acquisition.name)
        is_new = known != decision.reason
        return _row(decision, Outcome.NEEDS_DECISION if is_new else Outcome.SKIPPED, decision.reason)
    return _row(decision, Outcome.SKIPPED, decision.reason)


def _row(decision: Decision, outcome: Outcome, reason: str, seconds: float = 0.0) -> NightRow:
    name, action, output = decision.acquisition.name, decision.action, decision.output
    return NightRow(name, action, outcome, reason, seconds, output=output)


def _has_changed(decision: Decision) -> bool:
    now = read_again(decision.acquisition)
    return now is None or not now.is_still(decision.acquisition)


def _count_pixels(output: str, name: str) -> int:
    return math.prod(store.open_array(output, f"{label_group(name)}/0", zarr_format=3).shape)
