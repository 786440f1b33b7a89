"""How nights end and what they leave to people: outages, errors for all, outputs in use, changed inputs, questions."""

import errno
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import segment_slide.flows.slide
from segment_slide.cluster.errors import ClusterError
from segment_slide.flows.nights.plan import Action, plan_night
from segment_slide.flows.nights.report import NightReport, Outcome
from segment_slide.flows.nights.run import segment_new
from segment_slide.pipeline.errors import IncompleteError, OutputError, OutputMismatchError
from segment_slide.pipeline.storage.lock import hold
from tests.flows.nights.support import (
    SHAPE,
    StubStages,
    bad,
    folder_of,
    in_an_hour,
    night_request,
    notes,
    write_tiff,
    write_zarr,
)
from tests.flows.support import run_here, tree, write_segmentation

A, B, C = ALL = ["a.ome.zarr", "b.tif", "c.tif"]


@pytest.fixture
def watch(tmp_path) -> Path:
    folder = tmp_path / "watch"
    write_zarr(folder / A)
    write_tiff(folder / B, seed=1)
    write_tiff(folder / C)
    return folder


@pytest.fixture
def outputs(tmp_path) -> Path:
    return tmp_path / "outputs"


@pytest.fixture
def request_(watch, outputs, model):
    return night_request(watch, outputs, model)


def run(request, stages=None, **options) -> NightReport:
    return segment_new(request, stages or StubStages(), clock=in_an_hour, **options)


def outcomes(report: NightReport) -> list[Outcome]:
    return [row.outcome for row in report.rows]


def raised_from(error: Exception, cause: BaseException) -> Exception:
    error.__cause__ = cause
    return error


class OutageError(Exception):
    """A server that does not answer."""


# -- what ends a night ---------------------------------------------------------------------------------------------


def test_an_outage_ends_the_night_and_counts_for_nobody(request_, outputs):
    stages = StubStages({B: [OutageError("no answer")]})
    with pytest.raises(OutageError, match="no answer"):
        run(request_, stages, is_infrastructure=lambda error: isinstance(error, OutageError))
    assert (stages.runs, notes(outputs)) == ([A, B], {})
    assert run(request_, stages).n_segmented == 2
    assert stages.runs == [A, B, B, C]


def test_the_same_error_of_the_stages_themselves_counts(request_, outputs):
    report = run(replace(request_, max_tries=1), StubStages({B: OutageError("no answer")}))
    assert outcomes(report) == [Outcome.SEGMENTED, Outcome.SET_ASIDE, Outcome.SEGMENTED]
    assert notes(outputs)[B]["reason"] == "OutageError: no answer"


ENDINGS = [
    ClusterError("no workers came"),
    OutputError(f"cannot be written: {os.strerror(errno.ENOSPC)}"),
    KeyboardInterrupt(),
]


@pytest.mark.parametrize("error", ENDINGS, ids=lambda error: type(error).__name__)
def test_what_was_done_before_a_night_ended_is_reported(request_, error):
    reports: list[NightReport] = []
    with pytest.raises(type(error)):
        run(request_, StubStages({B: error}), on_broken_off=reports.append)
    (report,) = reports
    assert outcomes(report) == [Outcome.SEGMENTED, Outcome.LEFT, Outcome.LEFT]
    assert report.rows[0].n_pixels == SHAPE[0] * SHAPE[1]
    assert report.rows[1].reason == f"ended with the night: {report.ended_by}"
    assert report.rows[2].reason == "its turn did not come: new"
    assert (report.needs_operator, str(error) in report.ended_by) == (True, True)


def test_a_failure_before_the_night_ended_stays_one_in_its_report(request_):
    reports: list[NightReport] = []
    with pytest.raises(ClusterError):
        run(request_, StubStages({A: [bad(), ClusterError("gone")]}), on_broken_off=reports.append)
    assert outcomes(reports[0]) == [Outcome.FAILED, Outcome.SEGMENTED, Outcome.SEGMENTED]


def test_a_report_that_cannot_be_shown_does_not_hide_what_ended_the_night(request_, caplog):
    def refuse(_report):
        raise OutageError("nor this")

    with pytest.raises(ClusterError, match="gone"):
        run(request_, StubStages({B: ClusterError("gone")}), on_broken_off=refuse)
    assert "nor this" in caplog.text


def test_a_night_that_ends_well_is_not_broken_off(request_):
    reports: list[NightReport] = []
    assert run(request_, on_broken_off=reports.append).ended_by == ""
    assert reports == []


def test_the_command_shows_what_was_done_before_the_night_ended(watch, outputs, model, monkeypatch):
    def stages(slide, _progress):
        if slide.segment.input.endswith(B):
            raise ClusterError("no workers came")
        write_segmentation(Path(slide.segment.output), np.ones(SHAPE, np.uint8))
        return StubStages()(slide, next(d for d in decisions if d.acquisition.path == slide.segment.input))

    monkeypatch.setattr(segment_slide.flows.slide, "process_slide", stages)
    decisions = plan_night(night_request(watch, outputs, model), in_an_hour())
    options = ("--stable-minutes", 0, "--block", 64, "--precision", "float32", "--no-instances")
    outcome = run_here("segment-new", watch, "-o", outputs, "-m", model, *options)
    assert (outcome.exit_code, "no workers came" in outcome.err) == (2, True), outcome
    assert "Ended early: 1 segmented, 0 failed, of 3 acquisition(s)" in outcome.out
    assert "its turn did not come" in outcome.out


# -- what is nobody's fault ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        raised_from(OutputError("is being written by another run"), BlockingIOError()),
        raised_from(IncompleteError("go on"), raised_from(IncompleteError("longer than stage_hours"), TimeoutError())),
    ],
    ids=["held by another run", "its time is used up"],
)
def test_what_only_has_to_wait_is_left_for_another_night_and_tried_once(request_, outputs, error):
    stages = StubStages({A: error})
    report = run(request_, stages)
    assert (stages.runs, notes(outputs)) == (ALL, {})
    assert outcomes(report) == [Outcome.LEFT, Outcome.SEGMENTED, Outcome.SEGMENTED]
    assert (report.rows[0].reason, report.needs_operator) == (str(error), False)


@pytest.mark.parametrize("error", [OutputError("no"), IncompleteError("no"), TimeoutError("no")], ids=repr)
def test_the_same_errors_for_another_cause_count(request_, error):
    assert outcomes(run(replace(request_, max_tries=1), StubStages({A: error})))[0] == Outcome.SET_ASIDE


def test_of_an_output_that_another_run_holds_nothing_is_deleted(request_, watch, outputs):
    interrupt(request_)
    write_tiff(watch / C, seed=9)
    output = folder_of(outputs) / "c.tif.ome.zarr"
    before = tree(output)
    with hold(str(output), lambda: None):
        report = run(request_)
        assert {name: digest for name, digest in tree(output).items() if ".lock" not in name} == before
    assert outcomes(report) == [Outcome.SKIPPED, Outcome.SKIPPED, Outcome.LEFT]
    assert "is being written by another run" in report.rows[2].reason


# -- what changes --------------------------------------------------------------------------------------------------


def interrupt(request) -> None:
    """A night that is ended while it writes the output of c.tif."""

    def begin(decision):
        if decision.acquisition.name == C:
            write_segmentation(Path(decision.output), np.zeros(SHAPE, np.uint8))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(request, StubStages(before=begin))


@pytest.mark.parametrize("is_changed", [False, True], ids=["as it was", "changed"])
def test_an_interrupted_output_is_begun_anew_only_if_its_input_changed(request_, watch, outputs, is_changed):
    interrupt(request_)
    assert notes(outputs) == {}
    old = folder_of(outputs) / "c.tif.ome.zarr/left behind"
    old.touch()
    if is_changed:
        write_tiff(watch / C, seed=9)
    decision = plan_night(request_, in_an_hour())[2]
    expected = (Action.SEGMENT, "changed since it was begun") if is_changed else (Action.RESUME, "begun earlier")
    assert (decision.action, decision.reason) == expected
    assert run(request_).n_segmented == 1
    assert old.exists() != is_changed
    assert not list(outputs.rglob("*.begun.json"))


def test_a_second_interruption_after_a_change_keeps_what_is_of_the_new_content(request_, watch, outputs):
    run(replace(request_, max_tries=1), StubStages({C: bad()}))
    write_tiff(watch / C, seed=9)
    interrupt(request_)
    new = folder_of(outputs) / "c.tif.ome.zarr/of the new content"
    new.touch()
    assert run(request_).n_segmented == 1
    assert new.exists()


def test_an_output_that_was_begun_otherwise_is_named_with_what_to_delete(request_, outputs):
    output, image = folder_paths(request_, outputs)
    errors = {B: OutputMismatchError("differs."), C: OutputMismatchError(f"output={image} was made by others.")}
    report = run(replace(request_, max_tries=1), StubStages(errors))
    assert report.rows[1].reason == f"differs. To begin it anew, delete {output}"
    assert report.rows[2].reason.endswith(f"To begin it anew, delete {image}")


def folder_paths(request, outputs) -> tuple[str, Path]:
    """Output of b.tif, and conversion of c.tif."""
    return plan_night(request, in_an_hour())[1].output, outputs / "images/c.tif.ome.zarr"


# -- questions -----------------------------------------------------------------------------------------------------


def test_a_change_fails_one_night_and_is_asked_again_only_after_it_was_decided(request_, watch, outputs):
    for seed in (8, 9):
        run(request_)
        write_tiff(watch / C, seed=seed)
        first, second = run(request_), run(request_)
        assert [report.needs_operator for report in (first, second)] == [True, False]
        assert [report.rows[2].action for report in (first, second)] == [Action.CHANGED] * 2
        assert (first.rows[2].outcome, second.rows[2].outcome) == (Outcome.NEEDS_DECISION, Outcome.SKIPPED)
        assert (first.n_failed, second.n_failed) == (0, 0)
        shutil.rmtree(folder_of(outputs) / "c.tif.ome.zarr")


def test_of_two_inputs_for_one_output_the_refusal_fails_one_night(request_, watch):
    write_zarr(watch / "a.zarr")
    first, second = run(request_), run(request_)
    assert (first.n_segmented, first.needs_operator) == (3, True)
    assert [row.name for row in first.newly_undecided] == ["a.zarr"]
    assert (second.rows[1].action, second.rows[1].outcome) == (Action.REFUSED, Outcome.SKIPPED)
    assert not second.needs_operator


def test_a_question_that_a_broken_off_night_had_is_asked_by_the_next(request_, watch):
    write_zarr(watch / "a.zarr")
    with pytest.raises(KeyboardInterrupt):
        run(request_, StubStages({C: KeyboardInterrupt()}))
    assert run(request_).needs_operator
