"""What a night says in Prefect, without a server: pages of any night stay short, and hold no Markdown but their own."""

import contextlib
import json
import logging
import os
from dataclasses import replace

import httpx
import pytest
from prefect.concurrency.asyncio import ConcurrencySlotAcquisitionError
from prefect.exceptions import MissingResult

import segment_slide.flows.deployed.segment_new_acquisitions as night
from segment_slide.flows.deployed.night_reports import describe_night, publish_night, summarise
from segment_slide.flows.deployed.parameters import ConversionParameters, SegmentParameters, WatchParameters
from segment_slide.flows.deployed.segment_new_acquisitions import is_outage
from segment_slide.flows.nights.plan import Action
from segment_slide.flows.nights.report import NightReport, NightRow, Outcome
from segment_slide.pipeline.errors import IncompleteError, InputError
from segment_slide.pipeline.statistics.object_sizes import SmallObjects
from tests.flows.nights.support import write_zarr


def rows(n: int, outcome: Outcome, action: Action = Action.SEGMENT) -> tuple[NightRow, ...]:
    return tuple(NightRow(f"{n}-{outcome}.tif", action, outcome, "because") for n in range(n))


def section(page: str, title: str) -> str:
    return page.partition(f"## {title}\n")[2].partition("\n## ")[0]


def test_a_sentence_names_five_of_many_failures():
    assert summarise(NightReport(rows(5, Outcome.FAILED))).endswith("3-failed.tif, 4-failed.tif")
    assert summarise(NightReport(rows(1234, Outcome.FAILED))).endswith("4-failed.tif and 1,229 more")


@pytest.mark.parametrize(
    ("title", "outcome", "action"),
    [
        ("Failed in this night", Outcome.SET_ASIDE, Action.SEGMENT),
        ("Needs a decision", Outcome.NEEDS_DECISION, Action.REFUSED),
        ("Set aside before", Outcome.SKIPPED, Action.SET_ASIDE),
        ("Not yet", Outcome.SKIPPED, Action.GROWING),
        ("Segmented", Outcome.SEGMENTED, Action.SEGMENT),
    ],
)
def test_a_page_lists_a_hundred_of_each_kind_and_counts_the_rest(title, outcome, action):
    page = describe_night(NightReport(rows(150, outcome, action)), "/in")
    assert [line for line in page.splitlines() if line.startswith("## ")] == [f"## {title}"]
    assert section(page, title).count(".tif") == 100
    assert "and 50 more (see the table)" in section(page, title)


def test_small_objects_are_named_with_what_drops_them():
    (row,) = rows(1, Outcome.SEGMENTED)
    row = replace(row, n_objects=200)
    page = describe_night(NightReport((replace(row, small=SmallObjects(150, 200, 9)),)), "/in")
    assert "| 200 | 75.0% (below 9 px) |" in page
    assert "`min_size`" in page
    for small in (None, SmallObjects(0, 200, 9)):
        assert "`min_size`" not in describe_night(NightReport((replace(row, small=small),)), "/in")


def test_a_change_is_a_decision_and_was_never_set_aside():
    page = describe_night(NightReport(rows(1, Outcome.SKIPPED, Action.CHANGED)), "/in")
    assert ("Needs a decision" in page, "Set aside" in page) == (True, False)


def test_a_night_that_was_broken_off_says_so_first():
    report = NightReport(rows(1, Outcome.SEGMENTED), ended_by="no workers came")
    page = describe_night(report, "/in")
    assert page.index("no workers came") < page.index("## Segmented")
    assert summarise(report) == "ended before its end, 1 segmented, 0 failed"


def test_a_reason_of_any_length_takes_one_short_line():
    row = NightRow("a.tif", Action.SEGMENT, Outcome.FAILED, "block failed\n" * 10_000)
    (line,) = section(describe_night(NightReport((row,)), "/in"), "Failed in this night").strip().splitlines()[:1]
    assert len(line) < 1000


EVIL = "a`![x](http://evil/x.png)<img src=http://evil>|.tif"


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.SEGMENTED])
def test_names_and_reasons_are_no_markdown(outcome):
    markdown_it = pytest.importorskip("markdown_it")
    row = NightRow(EVIL, Action.SEGMENT, outcome, EVIL)
    page = describe_night(NightReport((row,), EVIL, ended_by=EVIL), EVIL)
    html = markdown_it.MarkdownIt("commonmark").enable("table").render(page)
    assert "<img" not in html
    assert "<a " not in html


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (httpx.ConnectError("refused"), True),
        (httpx.ReadTimeout("late"), True),
        (httpx.HTTPStatusError("503", request=httpx.Request("GET", "http://a"), response=httpx.Response(503)), True),
        (MissingResult("gone"), True),
        (ConcurrencySlotAcquisitionError("no turn on the machine"), True),
        (InputError("odd pixels"), False),
        (ConnectionError("of an object store"), False),
        (IncompleteError("3 of 9 blocks"), False),
        (RuntimeError("a bug"), False),
    ],
    ids=repr,
)
def test_an_outage_of_prefect_is_told_from_what_stages_raise(error, expected):
    assert is_outage(error) == expected


def test_an_outage_is_seen_through_what_prefect_wraps_it_in_and_not_below_an_error_of_a_stage():
    for kind, expected in ((RuntimeError, True), (InputError, False)):
        error = kind("Failed to reach API")
        error.__cause__ = httpx.ConnectError("refused")
        assert is_outage(error) == expected


def test_a_flow_that_meets_an_outage_shows_what_was_done_and_counts_nothing(tmp_path, model, monkeypatch):
    def refuse(**_parameters):
        raise httpx.ConnectError("refused")

    published = []
    monkeypatch.setattr(night, "get_run_logger", logging.getLogger)
    monkeypatch.setattr(night, "having_the_machine", contextlib.nullcontext)
    monkeypatch.setattr(night, "segment_slide", refuse)
    monkeypatch.setattr(night, "publish_night", lambda report, watch: published.append((report, watch)))
    write_zarr(tmp_path / "watch/a.zarr")
    with pytest.raises(httpx.ConnectError):
        night.segment_new_acquisitions.fn(
            watch=str(tmp_path / "watch"),
            outputs=str(tmp_path / "outputs"),
            model=str(model),
            dry_run=False,
            watching=WatchParameters(stable_minutes=0),
            cluster="local",
            workers=1,
            segmentation=SegmentParameters(device="cpu"),
            objects=None,
            conversion=ConversionParameters(),
            stage_hours=None,
        )
    ((report, watch),) = published
    assert (watch, report.ended_by) == (str(tmp_path / "watch"), "ConnectError: refused")
    assert [row.outcome for row in report.rows] == [Outcome.LEFT]
    assert not list((tmp_path / "outputs").rglob("*.failed.json"))


def test_a_file_name_that_is_no_text_reaches_the_server_as_text(monkeypatch):
    name = os.fsdecode(b"Pr\xe4parat")
    sent = []
    for kind in ("table", "markdown"):
        monkeypatch.setattr(
            f"segment_slide.flows.deployed.artifacts.create_{kind}_artifact",
            lambda content, **more: sent.append(json.dumps([content, more], ensure_ascii=False).encode()),
        )
    row = NightRow(f"{name}.tif", Action.SEGMENT, Outcome.FAILED, reason=f"{name} is damaged", output=f"/out/{name}")
    publish_night(NightReport(folder=f"/out/{name}", rows=(row,)), f"/scans/{name}")
    assert len(sent) == 2
    assert all(b"udce4" in content for content in sent)
    assert "Pr\\udce4parat.tif" in describe_night(NightReport(folder="/out", rows=(row,)), "/scans")
