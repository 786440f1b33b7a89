"""A night: every acquisition that is complete is segmented once by each version of the model.

Plan, lock, one acquisition after the other, failures again after all others: in this order, visible below.
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
    """All stages of one acquisition, here."""
    return process_slide(request)


def nothing_is_infrastructure(_error: Exception) -> bool:
    """Where nothing but the stages themselves can fail."""
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
    is_infrastructure : callable
        Whether an error that `run_one` raised is of what carries out the stages, and not of the acquisition: a server
        that does not answer. Such an error ends the night and counts for nobody.
    on_broken_off : callable, optional
        Called with the report so far if the night ends by an error or is interrupted, before that is raised.

    Raises
    ------
    InputError, PlanError, UnetError, ClusterError, OutputError
        What no acquisition could be segmented with: at the beginning, with nothing created; or later (workers that do
        not come, a full disk, another model in the place of the first), with what is done kept.
    Exception
        What `is_infrastructure` is true of.
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
    """Notes that a killed night had not finished writing."""
    for folder in sorted(folders):
        store.remove_leftovers(folder, "", below=False)


def _show_broken_off(on_broken_off: OnReport | None, report: NightReport) -> None:
    """Show what was done; if that cannot be done either, the error that ended the night is the one to raise."""
    try:
        if on_broken_off is not None:
            on_broken_off(report)
    except Exception as error:
        log.warning("the report of what was done before the night ended could not be shown", exc_info=error)


@dataclass(frozen=True)
class _Night:
    """One run over all acquisitions, with the outputs folder held."""

    request: NightRequest
    layout: Layout
    run_one: RunOne
    clock: Callable[[], float]
    is_infrastructure: IsInfrastructure
    rows: dict[str, NightRow] = field(default_factory=dict)

    def report(self, ended_by: str = "") -> NightReport:
        """What became of each so far, by name."""
        return NightReport(tuple(self.rows.values()), self.layout.folder, ended_by=ended_by)

    def run(self, decisions: Sequence[Decision], on_result: Callable[[NightRow], None] | None) -> None:
        """Everything that is to be done; failures of earlier nights come last, then those of this one."""
        self.rows.update({d.acquisition.name: _first_row(d) for d in decisions})
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
                continue  # it failed, and its next try is another night's
            row = replace(row, action=before.action, seconds=before.seconds + row.seconds)
            self.rows[row.name] = row
            if on_result is not None:
                on_result(row)
            if row.outcome == Outcome.FAILED:
                queue.append(replace(decision, action=Action.RETRY, reason=row.reason, tries=decision.tries + 1))
        for decision in decisions:  # last, so that what was shown to nobody is asked again
            if decision.needs_decision:
                notes.write_question(decision.output, decision.acquisition.name, decision.reason)

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
        if error is not None and is_nobodys_fault(error):
            return _row(decision, Outcome.LEFT, explain(error), seconds)
        if report is None:
            return self._fail(decision, error or RuntimeError("no report"), seconds)
        done = self._finish(decision, report)
        counts = {"n_objects": done.n_objects, "n_pixels": done.n_pixels}
        return _row(decision, Outcome.SEGMENTED, decision.reason, seconds, report.page, **counts)

    def _attempt(self, decision: Decision) -> tuple[SlideReport | None, Exception | None]:
        """The report of all stages, or the error that is this acquisition's own or nobody's; others are raised."""
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
        """A model that is replaced in the night would write into the folder of the one before."""
        if open_network(self.layout.model_path).sha256 != self.layout.model_sha256:
            raise InputError(f"model={self.layout.model_path} was replaced during the night; begin again.")

    def _clear_the_way(self, decision: Decision) -> None:
        """Delete what does not go with what is to be made: of an earlier content, or of parts that somebody deleted."""
        output, acquisition = decision.output, decision.acquisition
        outputs.check_free(output)
        if notes.begun_from(output) not in (None, acquisition.fingerprint):
            outputs.delete_unfinished(output)
        outputs.reopen(output, self.request.template.segment.options.name)
        outputs.delete_stale_image(self.layout, acquisition)
        notes.write_begun(output, acquisition.fingerprint)

    def _note(self, decision: Decision, tries: int, reason: str) -> None:
        last = datetime.fromtimestamp(self.clock(), UTC).isoformat(timespec="seconds")
        failure = Failure(tries, reason, decision.acquisition.fingerprint, self.layout.model_sha256, last)
        notes.write_failure(decision.output, failure)


def _first_row(decision: Decision) -> NightRow:
    """What became of an acquisition if the night ended now."""
    if decision.is_work:
        return _row(decision, Outcome.LEFT, f"its turn did not come: {decision.reason}")
    if decision.needs_decision:
        known = notes.read_questions(decision.output).get(decision.acquisition.name)
        is_new = known != decision.reason
        return _row(decision, Outcome.NEEDS_DECISION if is_new else Outcome.SKIPPED, decision.reason)
    return _row(decision, Outcome.SKIPPED, decision.reason)


def _row(
    decision: Decision, outcome: Outcome, reason: str, seconds: float = 0.0, page: str = "", **counts: int | None
) -> NightRow:
    name, action, output = decision.acquisition.name, decision.action, decision.output
    return NightRow(name, action, outcome, reason, seconds, output=output, page=page, **counts)


def _has_changed(decision: Decision) -> bool:
    now = read_again(decision.acquisition)
    return now is None or now.fingerprint != decision.acquisition.fingerprint


def _count_pixels(output: str, name: str) -> int:
    return math.prod(store.open_array(output, f"{label_group(name)}/0", zarr_format=3).shape)
