"""The command `report`, and the page that every slide of a night gets."""

import logging
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import segment_slide.flows.report
import segment_slide.flows.slide
from segment_slide.flows.report import try_report
from segment_slide.flows.requests import SegmentRequest, SlideRequest
from segment_slide.flows.slide import SlideReport, process_slide
from segment_slide.pipeline.errors import IncompleteError, OutputError
from segment_slide.pipeline.report.commands import command
from segment_slide.pipeline.report.run import write_report
from segment_slide.pipeline.segmentation.options import SegmentOptions
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.label_records import read_record
from tests.flows.support import (
    can_mount,
    mounted,
    noise,
    run_here,
    run_without_workers,
    tree,
    write_ome,
    write_segmentation,
)
from tests.pipeline.measurement.support import draw_objects, measure, write_store
from tests.pipeline.report.support import parse


@pytest.fixture
def output(tmp_path) -> Path:
    return write_segmentation(tmp_path / "cells.ome.zarr", (noise(90, 80) > 200).astype("uint8"))


def test_the_command_writes_one_file_and_says_which(output):
    outcome = run_here("report", output)
    path = output.with_name("cells.report.html")
    assert outcome.exit_code == 0
    assert str(path) in outcome.out
    assert "Of " in parse(path.read_text()).text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing.ome.zarr"], "no OME-Zarr is there"),
        (["cells.ome.zarr", "--name", "other"], "no segmentation 'other'"),
        (["cells.ome.zarr", "--name", "../x"], "expected letters"),
        (["cells.ome.zarr", "-o", "missing/a.html"], "missing is not there"),
        (["cells.ome.zarr", "-o", "cells.ome.zarr"], "is a folder"),
        (["cells.ome.zarr", "-o", "theirs.html"], "not a report of segment-slide"),
    ],
)
def test_what_cannot_be_done_is_refused_in_a_sentence_and_nothing_is_written(
    output, tmp_path, monkeypatch, arguments, said
):
    (tmp_path / "theirs.html").write_text("theirs")
    monkeypatch.chdir(tmp_path)
    before = tree(tmp_path)
    outcome = run_here("report", *arguments)
    assert outcome.exit_code == 2
    assert said in " ".join(outcome.err.split())
    assert tree(tmp_path) == before


@pytest.mark.skipif(not can_mount(), reason="may not mount")
def test_a_full_disk_leaves_no_half_of_a_report(output, tmp_path):
    with mounted(tmp_path / "small", "size=16k") as folder:
        outcome = run_here("report", output, "-o", folder / "a.html")
        assert outcome.exit_code == 2
        assert "cannot be written" in outcome.err
        assert list(folder.iterdir()) == []


@pytest.mark.slow
def test_the_command_in_a_report_makes_the_same_output_again(tmp_path, model):
    slide = write_ome(tmp_path / "my slide.ome.zarr", noise(3, 130, 110), "zyx")
    first, second = tmp_path / "first.ome.zarr", tmp_path / "second.ome.zarr"
    begun = run_without_workers("segment", slide, "-m", model, "-o", first, "--block=64", "--tile=32", "--z=1:3")
    assert begun.exit_code == 0, begun.err
    assert run_here("report", first).exit_code == 0
    page = parse((tmp_path / "first.report.html").read_text())
    (line,) = page.blocks[-1].splitlines()
    assert "'" in line, "a path with a blank is quoted"
    # the model is recorded by its name: where it lies is for the reader to say
    words = [word.replace(str(first), str(second)).replace(model.name, str(model)) for word in shlex.split(line)]
    again = run_without_workers(*words[1:])
    assert again.exit_code == 0, again.err
    assert read_record(str(second), "segmentation") == read_record(str(first), "segmentation")
    assert tree(second / "labels/segmentation/0") == tree(first / "labels/segmentation/0")


def test_the_report_of_a_measured_output_names_the_commands_of_all_stages(tmp_path):
    location = write_store(tmp_path, draw_objects((40, 50)), (32, 32), image=noise(40, 50))
    measure(location)
    blocks = parse(Path(write_report(location).path).read_text()).blocks
    assert command("segment-slide", "view", location, "--name", "cells") in blocks
    assert any(block.startswith("napari --plugin napari-ome-zarr") and block.endswith(location) for block in blocks)
    python = next(block for block in blocks if block.startswith("import zarr"))
    found: dict = {}
    exec(python, found)
    assert found["ids"].shape == found["classes"].shape == (40, 50)
    assert len(found["objects"]) == found["ids"][...].max()


# -- after a slide -------------------------------------------------------------------------------------------------


@pytest.fixture
def request_one(tmp_path, model, monkeypatch, warm) -> SlideRequest:
    slide = write_ome(tmp_path / "slide.ome.zarr", noise(100, 90), "yx")
    options = SegmentOptions(block=64)
    segment = SegmentRequest(str(slide), str(model), str(tmp_path / "out.ome.zarr"), options)
    return SlideRequest(segment, objects=None, measure=False)


@pytest.mark.slow
def test_a_slide_gets_its_report_with_the_times_of_its_stages(request_one, tmp_path):
    report = process_slide(request_one)
    assert report.page == str(tmp_path / "out.report.html")
    text = parse(Path(report.page).read_text()).text
    assert "complete" in text
    assert "As measured by the run" in text


def test_a_report_that_fails_costs_no_segmentation(request_one, tmp_path, monkeypatch, caplog):
    def fail(*_, **__):
        raise OutputError("the disk is full")

    monkeypatch.setattr(segment_slide.flows.report, "write_report", fail)
    with caplog.at_level(logging.WARNING):
        report = process_slide(request_one)
    assert report.page == ""
    assert "the disk is full" in caplog.text
    assert store.stored_shards(report.segmented.location, "labels/segmentation/0")
    assert not list(tmp_path.glob("*.html"))


def test_whatever_a_report_fails_by_is_logged(output, caplog):
    shutil.rmtree(output / "labels")
    with caplog.at_level(logging.WARNING):
        assert try_report(str(output), "segmentation", {}) == ""
    assert "could not be written" in caplog.text


def test_a_report_that_fails_leaves_none_of_an_earlier_state(output):
    assert try_report(str(output), "segmentation", {}) == str(output.with_name("cells.report.html"))
    theirs = output.with_name("theirs.html")
    theirs.write_text("theirs")
    shutil.rmtree(output / "labels")
    assert try_report(str(output), "segmentation", {}) == ""
    assert sorted(path.name for path in output.parent.glob("*.html")) == ["theirs.html"]


def test_who_ends_a_run_ends_its_report_too(output, monkeypatch):
    class CancelledRunError(Exception):
        """As an orchestrator has it."""

    def cancel(*_, **__):
        raise CancelledRunError

    monkeypatch.setattr(segment_slide.flows.report, "write_report", cancel)
    with pytest.raises(CancelledRunError):
        try_report(str(output), "segmentation", {})


@pytest.mark.slow
@pytest.mark.parametrize("hours", [None, 0.5, 8.0])
def test_a_report_that_takes_too_long_costs_the_page_alone(monkeypatch, hours):
    from segment_slide.flows.deployed import segment_slide as deployed

    given = []

    def too_slow(stage, limit):
        given.append((stage.name, limit))

        def run(*_):
            raise IncompleteError("it took longer")

        return run

    monkeypatch.setattr(deployed, "limited", too_slow)
    said = []
    monkeypatch.setattr(deployed.log, "warning", lambda text, *words: said.append(text % words))
    assert deployed._report(None, "/out/a.ome.zarr", {}, hours) == ""
    assert given == [("report", min(hours or 1.0, 1.0))]
    assert said == ["the report of /out/a.ome.zarr is left out: it took longer"]


def test_the_morning_page_names_the_report_of_each_slide():
    from segment_slide.flows.deployed.night_reports import describe_night
    from segment_slide.flows.nights.plan import Action
    from segment_slide.flows.nights.report import NightReport, NightRow, Outcome

    row = NightRow(
        "a.svs", Action.SEGMENT, Outcome.SEGMENTED, "new", 12.0, 5, 1_000_000, "/out/a.ome.zarr", "/out/a.report.html"
    )
    page = describe_night(NightReport((row, replace(row, name="b.svs", page="")), "/out"), "/in")
    (line,) = (line for line in page.splitlines() if "a.svs" in line)
    assert "`/out/a.report.html`" in line
    assert page.count("report.html") == 1


def test_a_report_without_a_page_is_as_good_as_before():
    assert SlideReport(None, None, None, None, {}).page == ""
