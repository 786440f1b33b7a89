"""A night's decisions, its notes and what it counts: everything but the pixels, whose stages are replaced by a stub."""

import asyncio
import concurrent.futures
import contextlib
import errno
import json
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pyarrow.dataset
import pytest

import segment_slide.flows.measure
from segment_slide.cluster.errors import ClusterError
from segment_slide.flows.nights.plan import Action, plan_night, slide_request
from segment_slide.flows.nights.report import NightReport, Outcome
from segment_slide.flows.nights.run import segment_new
from segment_slide.flows.requests import Workers
from segment_slide.pipeline.errors import (
    IncompleteError,
    InputError,
    OutputError,
    OutputMismatchError,
    PipelineError,
    PlanError,
)
from segment_slide.pipeline.nights.notes import DONE_FILE
from segment_slide.pipeline.nights.outputs import output_name
from segment_slide.pipeline.objects.options import InstanceOptions
from segment_slide.pipeline.storage.lock import hold
from segment_slide.unet.errors import CheckpointError, DeviceError
from tests.flows.nights.support import (
    SHAPE,
    StubStages,
    bad,
    folder_of,
    growing,
    in_an_hour,
    night_request,
    notes,
    write_slide,
    write_tiff,
    write_truncated,
    write_zarr,
)
from tests.flows.support import can_mount, mounted, run_here, snapshot, tree, write_group, write_model

HOUR_S, DAY_S = 3600, 86400


@pytest.fixture
def watch(tmp_path) -> Path:
    """Three acquisitions: a.ome.zarr, b/slide.svs, c.tif."""
    folder = tmp_path / "watch"
    write_zarr(folder / "a.ome.zarr")
    write_slide(folder / "b/slide.svs")
    write_tiff(folder / "c.tif")
    return folder


@pytest.fixture
def outputs(tmp_path) -> Path:
    return tmp_path / "outputs"


@pytest.fixture
def request_(watch, outputs, model):
    return night_request(watch, outputs, model)


def run(request, stages=None, **options) -> NightReport:
    return segment_new(request, stages or StubStages(), clock=in_an_hour, **options)


def actions(request, now_s: float | None = None) -> dict[str, Action]:
    return {d.acquisition.name: d.action for d in plan_night(request, in_an_hour() if now_s is None else now_s)}


def outcomes(report: NightReport) -> dict[str, Outcome]:
    return {row.name: row.outcome for row in report.rows}


ALL = ["a.ome.zarr", "b/slide.svs", "c.tif"]


# -- what is done once ---------------------------------------------------------------------------------------------


def test_each_acquisition_is_segmented_once_and_says_so_itself(request_, outputs, model):
    assert actions(request_) == dict.fromkeys(ALL, Action.SEGMENT)
    assert not outputs.exists()  # a plan changes nothing
    stages, seen = StubStages(), []
    report = run(request_, stages, on_result=seen.append)
    assert stages.runs == ALL
    assert [row.name for row in report.rows] == ALL
    assert list(report.rows) == seen
    assert (report.n_segmented, report.n_failed, report.needs_operator) == (3, 0, False)
    assert [row.n_pixels for row in report.rows] == [SHAPE[0] * SHAPE[1]] * 3

    folder = folder_of(outputs)
    done = json.loads((folder / "b/slide.svs.ome.zarr" / DONE_FILE).read_text())
    assert done["name"] == "b/slide.svs"
    assert done["n_pixels"] == SHAPE[0] * SHAPE[1]
    assert folder.name == f"cells-{done['model_sha256'][:12]}"
    assert {str(p.relative_to(folder)) for p in folder.rglob(DONE_FILE)} == {
        f"{output_name(n)}/{DONE_FILE}" for n in ALL
    }
    assert not list(outputs.rglob("*.lock"))

    before = snapshot(outputs)
    again = StubStages()
    report = run(request_, again)
    assert again.runs == []
    assert outcomes(report) == dict.fromkeys(ALL, Outcome.SKIPPED)
    assert snapshot(outputs) == before


def test_the_second_night_does_only_what_is_new(request_, watch):
    run(request_)
    write_tiff(watch / "d.tif", seed=9)
    stages = StubStages()
    report = run(request_, stages)
    assert stages.runs == ["d.tif"]
    assert report.n_segmented == 1


def test_a_finished_night_of_an_earlier_version_stays_finished_and_so_do_copies_of_both(
    request_, watch, outputs, tmp_path
):
    run(request_)
    found = {d.acquisition.name: d.acquisition for d in plan_night(request_, in_an_hour())}
    files = {name: folder_of(outputs) / output_name(name) / DONE_FILE for name in ALL}
    for name, path in files.items():  # as 0.1.0 wrote it
        note = {**json.loads(path.read_text()), "fingerprint": found[name].times}
        del note["times"], note["sha256"]
        path.write_text(json.dumps(note))
    assert actions(request_) == dict.fromkeys(ALL, Action.DONE)
    run(request_, stages := StubStages())
    assert stages.runs == []
    for name, path in files.items():
        assert json.loads(path.read_text())["fingerprint"] == found[name].fingerprint != found[name].times
    copied = replace(request_, watch=str(tmp_path / "copy/watch"), outputs=str(tmp_path / "copy/outputs"))
    shutil.copytree(watch, copied.watch, copy_function=shutil.copyfile)
    shutil.copytree(outputs, copied.outputs, copy_function=shutil.copyfile)
    assert actions(copied) == dict.fromkeys(ALL, Action.DONE)
    write_tiff(Path(copied.watch, "c.tif"), seed=9)  # negative control
    assert actions(copied)["c.tif"] == Action.CHANGED


def test_files_are_converted_beside_the_models_folders_and_stores_are_not(request_, watch, outputs):
    made = {d.acquisition.name: slide_request(request_, d) for d in plan_night(request_, in_an_hour())}
    slide = made["b/slide.svs"]
    assert slide.segment.input == str(watch / "b/slide.svs")
    assert slide.image == str(outputs / "images/b/slide.svs.ome.zarr")
    assert Path(slide.segment.output).relative_to(outputs).parts[1:] == ("b", "slide.svs.ome.zarr")
    assert slide.segment.options == request_.template.segment.options
    assert made["a.ome.zarr"].image == ""


@pytest.mark.parametrize("part", ["whole output", "label image", DONE_FILE])
def test_what_somebody_deletes_is_made_again(part, request_, outputs):
    run(request_)
    output = folder_of(outputs) / "c.tif.ome.zarr"
    if part == DONE_FILE:
        (output / part).unlink()
    else:
        shutil.rmtree(output if part == "whole output" else output / "labels/segmentation")
    expected = Action.SEGMENT if part == "whole output" else Action.RESUME
    assert actions(request_) == {ALL[0]: Action.DONE, ALL[1]: Action.DONE, ALL[2]: expected}
    stages = StubStages()
    assert run(request_, stages).n_segmented == 1
    assert stages.runs == ["c.tif"]
    assert actions(request_)["c.tif"] == Action.DONE


def test_an_interruption_while_a_deleted_part_is_made_again_does_not_leave_the_output_done(request_, outputs):
    run(request_)
    labels = folder_of(outputs) / "c.tif.ome.zarr/labels/segmentation"
    shutil.rmtree(labels)

    def begin(_decision):
        write_group(labels, {})
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(request_, StubStages(before=begin))
    assert actions(request_)["c.tif"] == Action.RESUME


def test_nothing_is_deleted_in_a_place_that_is_somebody_elses(request_, watch, outputs):
    """A failed acquisition that changed has its own beginnings deleted, and nothing more."""
    run(replace(request_, max_tries=1), StubStages({"c.tif": bad()}))
    foreign = folder_of(outputs) / "c.tif.ome.zarr"
    write_group(foreign / "labels/segmentation-instances", {})
    write_group(foreign, {"theirs": 1})
    before = tree(foreign)
    write_tiff(watch / "c.tif", seed=6)
    run(replace(request_, max_tries=1), StubStages({"c.tif": bad()}))
    assert tree(foreign) == before


def test_objects_and_a_table_that_are_asked_for_and_not_there_are_reasons_to_go_on(request_):
    run(request_)
    asked = replace(request_, template=replace(request_.template, objects=InstanceOptions(), measure=False))
    decisions = plan_night(asked, in_an_hour())
    assert {d.action for d in decisions} == {Action.RESUME}
    assert decisions[0].reason == "labels/segmentation-instances is missing"
    asked = replace(asked, template=replace(asked.template, measure=True))
    assert "tables/segmentation-instances.parquet is missing" in plan_night(asked, in_an_hour())[0].reason


def test_another_version_of_the_model_does_everything_again_in_a_folder_of_its_own(request_, outputs, tmp_path):
    run(request_)
    first = tree(outputs)
    other = write_model(tmp_path / "cells.safetensors", seed=5)
    segment = replace(request_.template.segment, model=str(other))
    newer = replace(request_, template=replace(request_.template, segment=segment))
    stages = StubStages()
    run(newer, stages)
    assert stages.runs == ALL
    assert len(list(outputs.glob("cells-*"))) == 2
    assert tree(outputs).items() >= first.items()


def test_a_changed_input_is_left_alone_until_its_output_is_deleted(request_, watch, outputs):
    run(request_)
    write_tiff(watch / "c.tif", seed=8)
    stages = StubStages()
    report = run(request_, stages)
    output = folder_of(outputs) / "c.tif.ome.zarr"
    assert (stages.runs, report.needs_operator) == ([], True)
    assert (report.rows[2].action, report.rows[2].outcome) == (Action.CHANGED, Outcome.NEEDS_DECISION)
    assert report.rows[2].reason == f"changed since it was segmented: delete {output} to segment it again"
    shutil.rmtree(output)
    run(request_, stages)
    assert stages.runs == ["c.tif"]


def test_of_two_acquisitions_with_one_output_the_second_is_refused(watch, outputs, model):
    write_zarr(watch / "a.zarr")
    request = night_request(watch, outputs, model)
    by_name = {d.acquisition.name: d for d in plan_night(request, in_an_hour())}
    assert by_name["a.ome.zarr"].action == Action.SEGMENT
    assert by_name["a.zarr"].action == Action.REFUSED
    assert by_name["a.zarr"].reason == "its output would be that of a.ome.zarr: rename one of them"
    stages = StubStages()
    assert run(request, stages).n_segmented == 3
    assert stages.runs == ALL


# -- what is left alone --------------------------------------------------------------------------------------------


def test_what_changed_lately_is_left_for_another_night(request_):
    assert set(actions(request_, time.time()).values()) == {Action.GROWING}
    stages = StubStages()
    report = segment_new(request_, stages)
    assert (stages.runs, report.needs_operator) == ([], False)
    assert not Path(request_.outputs).exists()


def test_what_grows_between_the_plan_and_its_turn_is_left_for_another_night(request_, watch):
    def grow(decision):
        if decision.acquisition.name == "a.ome.zarr":
            (watch / "c.tif").write_bytes(b"longer")

    stages = StubStages(before=grow)
    report = run(request_, stages)
    assert stages.runs == ALL[:2]
    assert outcomes(report)["c.tif"] == Outcome.LEFT
    assert not report.needs_operator
    assert actions(request_)["c.tif"] == Action.SEGMENT


@pytest.mark.parametrize("error", [None, bad()], ids=["that goes well", "that fails"])
def test_what_grows_during_its_turn_counts_no_failure_and_is_made_again(request_, watch, outputs, error):
    def grow(decision):
        if decision.acquisition.name == "c.tif":
            write_tiff(watch / "c.tif", seed=7)

    report = run(replace(request_, max_tries=1), StubStages({"c.tif": error}, before=grow))
    assert (outcomes(report)["c.tif"], report.needs_operator) == (Outcome.LEFT, False)
    assert notes(outputs)["c.tif"]["tries"] == 0
    assert not list(folder_of(outputs).glob(f"c.tif.ome.zarr/{DONE_FILE}"))
    old = folder_of(outputs) / "c.tif.ome.zarr"
    (old / "left behind").mkdir(parents=True, exist_ok=True)
    stages = StubStages()
    run(request_, stages)
    assert stages.runs == ["c.tif"]
    assert actions(request_)["c.tif"] == Action.DONE
    assert (old / "left behind").exists() == (error is not None)  # of an output that was begun, nothing old stays
    assert notes(outputs) == {}


def test_a_marker_is_asked_for_instead_of_a_time(request_, watch):
    marked = replace(request_, marker="{name}.done")
    (watch / "c.tif.done").touch()
    expected = {"a.ome.zarr": Action.GROWING, "b/slide.svs": Action.GROWING, "c.tif": Action.SEGMENT}
    assert actions(marked) == actions(marked, 0.0) == expected


def test_what_is_too_old_is_left_alone_unless_it_was_begun(request_, outputs):
    limited = replace(request_, max_age_days=2)
    assert set(actions(limited, time.time() + DAY_S).values()) == {Action.SEGMENT}
    with pytest.raises(KeyboardInterrupt):
        run(request_, StubStages({"b/slide.svs": KeyboardInterrupt()}))
    write_group(folder_of(outputs) / "b/slide.svs.ome.zarr", {})
    later = actions(limited, time.time() + 3 * DAY_S)
    assert later == {"a.ome.zarr": Action.DONE, "b/slide.svs": Action.RESUME, "c.tif": Action.TOO_OLD}


def test_outputs_in_the_watched_folder_are_no_acquisitions(watch, model):
    request = night_request(watch, watch / "results", model)
    run(request)
    write_tiff(watch / "results/images/x.tif")
    stages = StubStages()
    run(request, stages)
    assert stages.runs == []
    assert list(actions(request)) == ALL


# -- failures ------------------------------------------------------------------------------------------------------


def test_a_failure_is_tried_again_after_all_others_and_then_set_aside(request_, outputs, watch):
    stages = StubStages({"a.ome.zarr": bad()})
    seen = []
    report = run(request_, stages, on_result=seen.append)
    assert stages.runs == ["a.ome.zarr", "b/slide.svs", "c.tif", "a.ome.zarr", "a.ome.zarr"]
    assert stages.tries == [0, 0, 0, 1, 2]
    assert [row.outcome for row in seen if row.name == "a.ome.zarr"] == [
        Outcome.FAILED,
        Outcome.FAILED,
        Outcome.SET_ASIDE,
    ]
    assert [row.name for row in report.newly_set_aside] == ["a.ome.zarr"]
    assert (report.n_segmented, report.n_failed, report.needs_operator) == (2, 1, True)
    note = notes(outputs)["a"]
    assert (note["tries"], note["reason"]) == (3, "its pixels are odd")
    assert note["last"].endswith("+00:00")

    later = StubStages()
    report = run(request_, later)
    assert (later.runs, report.needs_operator) == ([], False)
    assert report.rows[0].action == Action.SET_ASIDE
    path = folder_of(outputs) / "a.ome.zarr.failed.json"
    assert report.rows[0].reason == f"failed 3 time(s): its pixels are odd (delete {path} to try it again)"

    path.unlink()
    assert run(request_, later).n_segmented == 1
    assert later.runs == ["a.ome.zarr"]


def test_a_success_forgets_the_failures_before_it(request_, outputs):
    report = run(request_, StubStages({"a.ome.zarr": [bad(), bad()]}))
    assert outcomes(report) == dict.fromkeys(ALL, Outcome.SEGMENTED)
    assert not report.needs_operator
    assert notes(outputs) == {}


def test_failures_of_earlier_nights_count_and_come_last(request_, outputs):
    with pytest.raises(KeyboardInterrupt):
        run(request_, StubStages({"a.ome.zarr": bad(), "b/slide.svs": KeyboardInterrupt()}))
    assert notes(outputs)["a"]["tries"] == 1
    stages = StubStages({"a.ome.zarr": bad()})
    assert actions(request_)["a.ome.zarr"] == Action.RETRY
    run(request_, stages)
    assert stages.runs == ["b/slide.svs", "c.tif", "a.ome.zarr", "a.ome.zarr"]


def test_what_was_set_aside_is_tried_again_when_it_changes(request_, watch):
    run(replace(request_, max_tries=1), StubStages({"c.tif": bad()}))
    assert actions(replace(request_, max_tries=1))["c.tif"] == Action.SET_ASIDE
    assert actions(request_)["c.tif"] == Action.RETRY  # more tries are allowed now
    write_tiff(watch / "c.tif", seed=6)
    decision = plan_night(request_, in_an_hour())[2]
    assert (decision.action, decision.tries, decision.reason) == (Action.SEGMENT, 0, "changed since it failed")
    assert run(request_).n_segmented == 1


@pytest.mark.parametrize(
    "error",
    [
        IncompleteError("3 of 9 blocks could not be done"),
        OutputMismatchError("begun by a run that differs"),
        OutputError("is being written by another run"),
        PlanError("too large"),
        RuntimeError("a bug"),
        OSError(errno.EACCES, "Permission denied"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_of_one_acquisition_does_not_stop_the_others(error, request_, outputs, caplog):
    report = run(replace(request_, max_tries=1), StubStages({"a.ome.zarr": error}))
    assert report.n_segmented == 2
    assert str(error) in notes(outputs)["a"]["reason"]
    assert ("Traceback" in caplog.text) == (not isinstance(error, PipelineError))


@pytest.mark.parametrize(
    "error",
    [
        ClusterError("no workers came"),
        CheckpointError("truncated"),
        DeviceError("no GPU"),
        OutputError(f"cannot be written: {os.strerror(errno.ENOSPC)}"),
        IncompleteError(f"block (0, 1): cannot be written: {os.strerror(errno.EROFS)}"),
        KeyboardInterrupt(),
        SystemExit(143),
        asyncio.CancelledError(),
        concurrent.futures.CancelledError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_concerns_all_ends_the_night_and_counts_nothing(error, request_, outputs):
    stages = StubStages({"b/slide.svs": error})
    with pytest.raises(type(error)):
        run(request_, stages)
    assert stages.runs == ALL[:2]
    assert notes(outputs) == {}
    assert not list(outputs.rglob("*.lock"))
    assert actions(request_) == {ALL[0]: Action.DONE, ALL[1]: Action.SEGMENT, ALL[2]: Action.SEGMENT}


def test_an_outputs_folder_that_takes_no_more_files_ends_the_night(request_, monkeypatch):
    """Whatever the error was: the next acquisition would meet the same."""
    monkeypatch.setattr("segment_slide.pipeline.nights.outputs._PROBE_BYTES", 1 << 62)  # no disk takes so much
    with pytest.raises((OutputError, OverflowError, MemoryError)):
        run(request_, StubStages({"a.ome.zarr": bad()}))


@pytest.mark.skipif(not can_mount(), reason="needs the right to mount a file system")
def test_a_full_disk_ends_the_night_whatever_a_stage_makes_of_it(watch, tmp_path, model):
    with mounted(tmp_path / "disk", "size=512k") as disk:
        stages = StubStages({"a.ome.zarr": bad("something else")})
        with pytest.raises(OutputError, match="No space left on device"):
            run(night_request(watch, disk / "outputs", model), stages)
        assert stages.runs == ["a.ome.zarr"]
        assert notes(disk / "outputs") == {}


def test_a_stage_that_left_its_part_out_is_a_failure(request_):
    asked = replace(request_, max_tries=1, template=replace(request_.template, objects=InstanceOptions()))
    report = run(asked)
    assert report.n_failed == 3
    assert "labels/segmentation-instances" in report.rows[0].reason


def test_a_model_that_is_replaced_in_the_night_ends_it(watch, outputs, tmp_path):
    model = write_model(tmp_path / "cells.safetensors")
    stages = StubStages(before=lambda _: write_model(model, seed=3))
    with pytest.raises(InputError, match="was replaced during the night"):
        run(night_request(watch, outputs, model), stages)
    assert stages.runs == ["a.ome.zarr"]


def test_a_damaged_note_is_as_good_as_none(request_, outputs, caplog):
    run(request_, StubStages({"c.tif": bad()}))
    run(request_)
    (folder_of(outputs) / "c.tif.ome.zarr.failed.json").write_text("{")
    (folder_of(outputs) / "a.ome.zarr" / DONE_FILE).write_text('{"other": 1}')
    assert actions(request_) == {ALL[0]: Action.RESUME, ALL[1]: Action.DONE, ALL[2]: Action.SEGMENT}
    assert "is damaged" in caplog.text


# -- two nights ----------------------------------------------------------------------------------------------------


def test_a_second_night_at_once_does_nothing_and_is_no_failure(request_, outputs):
    inner = []

    def run_another(_decision):
        if not inner:
            inner.append(run(request_, StubStages({name: bad() for name in ALL})))

    report = run(request_, StubStages(before=run_another))
    assert report.n_segmented == 3
    assert inner[0].skipped_because == f"another night is at work in {outputs}"
    assert (inner[0].rows, inner[0].needs_operator) == ((), False)


# -- refusals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"watch": "nowhere"}, InputError, "no such folder"),
        ({"outputs": "watch"}, InputError, "lies in outputs="),
        ({"outputs": "."}, InputError, "lies in outputs="),
        ({"outputs": "watch/c.tif"}, OutputError, "is a file"),
        ({"stable_minutes": -1}, InputError, "stable_minutes=-1"),
        ({"stable_minutes": float("nan")}, InputError, "stable_minutes=nan"),
        ({"max_tries": 0}, InputError, "max_tries=0"),
        ({"max_age_days": 0}, InputError, "max_age_days=0"),
        ({"marker": "a/{name}"}, InputError, "marker="),
        ({"model": "nowhere.safetensors"}, CheckpointError, "no such file"),
        ({"in_place": True}, InputError, "in_place"),
        ({"workers": Workers(cluster="moon")}, ClusterError, "moon"),
        ({"block": 33}, PlanError, "block=33"),
        ({"tile": 48}, PlanError, "tile=48"),
        ({"name": "../x"}, OutputError, "name="),
    ],
    ids=str,
)
def test_what_no_acquisition_could_be_segmented_with_is_refused_at_once(request_, tmp_path, changes, error, says):
    segment = request_.template.segment
    options = {key: changes.pop(key) for key in ("block", "tile", "name") if key in changes}
    stages = {key: changes.pop(key) for key in ("model", "in_place", "workers") if key in changes}
    places = {key: str(tmp_path / changes.pop(key)) for key in ("watch", "outputs") if key in changes}
    segment = replace(segment, options=replace(segment.options, **options), **stages)
    request = replace(request_, template=replace(request_.template, segment=segment), **places, **changes)
    before = snapshot(tmp_path)
    for attempt in (lambda: plan_night(request, time.time()), lambda: run(request)):
        with pytest.raises(error, match=says):
            attempt()
    assert snapshot(tmp_path) == before


# -- the command, with real stages ---------------------------------------------------------------------------------


@pytest.fixture
def _here(warm, monkeypatch):
    monkeypatch.setattr(segment_slide.flows.measure, "open_cluster", lambda *_, **__: contextlib.nullcontext())


def command(watch, outputs, model, *options):
    return run_here(
        "segment-new", watch, "--outputs", outputs, "--model", model, "--block", 64, "--precision", "float32", *options
    )


@pytest.mark.slow
@pytest.mark.usefixtures("_here")
def test_five_acquisitions_of_which_one_is_damaged_and_one_still_grows(watch, outputs, model):
    write_truncated(watch / "d.tif")
    time.sleep(6.1)
    with growing(watch / "e.tif"):
        options = ("--stable-minutes", 6 / 60, "--max-tries", 2, "--no-measure")
        before = snapshot(watch / "a.ome.zarr")
        dry = command(watch, outputs, model, "--dry-run", *options)
        assert (dry.exit_code, dry.err) == (0, "")
        assert not outputs.exists()
        assert "5 acquisition(s), 4 to segment. Nothing was changed." in dry.out
        first = command(watch, outputs, model, *options)
    assert first.exit_code == 3, first
    assert "3 segmented, 1 failed, of 5 acquisition(s)" in first.out
    assert "d.tif is cut short" in first.out
    assert "Traceback" not in first.err
    assert snapshot(watch / "a.ome.zarr") == before
    folder = folder_of(outputs)
    for name in ("a.ome.zarr", "b/slide.svs.ome.zarr", "c.tif.ome.zarr"):
        done = json.loads((folder / name / DONE_FILE).read_text())
        assert done["n_objects"] > 10
        assert set(done["stage_seconds"]) == {"convert", "segment", "number", "measure"}
    assert sorted(str(p.relative_to(outputs / "images")) for p in (outputs / "images").rglob("*.ome.zarr")) == [
        "b/slide.svs.ome.zarr",
        "c.tif.ome.zarr",
    ]
    assert notes(outputs)["d.tif"]["tries"] == 2

    write_zarr(watch / "f.zarr", seed=9)
    second = command(watch, outputs, model, *options, "--stable-minutes", 0, "--pattern", "[!e]*")
    assert second.exit_code == 0, second  # what was set aside before needs nobody's look again
    assert "1 segmented, 0 failed" in second.out


def read_table(output: Path) -> list:
    """Rows alone: a part's own metadata name what it was made of."""
    return pyarrow.dataset.dataset(output / "tables/segmentation-instances.parquet").to_table().to_pylist()


@pytest.mark.slow
@pytest.mark.usefixtures("_here")
def test_a_class_map_that_is_deleted_takes_its_objects_along_and_all_is_made_again(watch, outputs, model):
    options = ("--stable-minutes", 0, "--pattern", "*.svs")
    assert command(watch, outputs, model, *options).exit_code == 0
    output = folder_of(outputs) / "b/slide.svs.ome.zarr"
    first, table = tree(output), read_table(output)
    shutil.rmtree(output / "labels/segmentation")
    outcome = command(watch, outputs, model, *options)
    assert (outcome.exit_code, "1 segmented" in outcome.out) == (0, True), outcome
    assert tree(output).keys() == first.keys()
    shards = [name for name in first if "/c/" in name]
    assert {name: tree(output)[name] for name in shards} == {name: first[name] for name in shards}
    assert read_table(output) == table


@pytest.mark.usefixtures("_here")
def test_a_file_that_was_replaced_is_converted_anew_once_its_output_is_deleted(watch, outputs, model):
    options = ("--stable-minutes", 0, "--pattern", "c.tif", "--no-instances", "--max-tries", 1)
    assert command(watch, outputs, model, *options).exit_code == 0
    image = tree(outputs / "images")
    write_tiff(watch / "c.tif", seed=8)
    assert "changed since it was segmented" in command(watch, outputs, model, *options).out
    assert tree(outputs / "images") == image
    shutil.rmtree(folder_of(outputs) / "c.tif.ome.zarr")
    outcome = command(watch, outputs, model, *options)
    assert (outcome.exit_code, "1 segmented" in outcome.out) == (0, True), outcome
    assert tree(outputs / "images") != image


def test_the_command_refuses_with_a_sentence_and_says_when_another_night_is_at_work(watch, outputs, model):
    refused = command(watch, outputs, model, "--max-tries", 0)
    assert (refused.exit_code, "max_tries=0" in refused.err) == (2, True)
    with hold(str(outputs), lambda: None):
        outcome = command(watch, outputs, model)
    assert outcome.exit_code == 0
    assert "Nothing was done: another night is at work in" in outcome.out
