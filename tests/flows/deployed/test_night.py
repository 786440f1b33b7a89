"""Nights through a real server and worker: what is new and complete, whatever is killed, and a page in the morning."""

import contextlib
import json
import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.flows.deployed.support import Site, wait_for
from tests.flows.nights.support import folder_of, growing, results, write_slide, write_tiff, write_truncated, write_zarr
from tests.flows.support import brake, shards, tree

pytestmark = pytest.mark.slow

NIGHTLY = "segment-new-acquisitions/nightly"
SMALL = {"block": 32, "tile": 32, "precision": "float32", "device": "cpu"}
STABLE_S = 6.0


def parameters(folder: Path, model: Path, **more: Any) -> dict[str, Any]:
    return {
        "watch": str(folder / "watch"),
        "outputs": str(folder / "outputs"),
        "model": str(model),
        "watching": {"stable_minutes": STABLE_S / 60, "max_tries": 2},
        "segmentation": SMALL,
        "objects": None,
        **more,
    }


def night(site: Site, asked: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    time.sleep(STABLE_S)  # what has arrived is complete when nothing has changed for so long
    run = site.begin_run(NIGHTLY, **asked)
    return run, site.finish(run)


def rows(site: Site, run: str) -> dict[str, dict[str, Any]]:
    """The table of a night by acquisition."""
    (table,) = site.artifacts(run, "table")
    return {row["acquisition"]: row for row in json.loads(table["data"])}


def test_the_timetable_has_the_nights_to_come_at_two_once_it_is_switched_on(site: Site) -> None:
    deployment = site.get(f"deployments/name/{NIGHTLY}")
    wanted = {
        "deployments": {"id": {"any_": [deployment["id"]]}},
        "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}},
    }
    assert [schedule["active"] for schedule in deployment["schedules"]] == [False]
    assert site.post("flow_runs/filter", wanted) == []
    site.prefect("deployment", "schedule", "resume", NIGHTLY, deployment["schedules"][0]["id"])
    try:
        runs = wait_for(lambda: site.post("flow_runs/filter", wanted), f"a night: {site.log('server')}")
        assert {run["expected_start_time"][11:16] for run in runs} == {"02:00"}
    finally:
        site.prefect("deployment", "schedule", "pause", NIGHTLY, deployment["schedules"][0]["id"])


def test_five_acquisitions_in_two_nights(site: Site, model: Path, tmp_path: Path) -> None:
    watch, asked = tmp_path / "watch", parameters(tmp_path, model)
    write_zarr(watch / "a.ome.zarr")
    write_slide(watch / "b/slide.svs")
    write_tiff(watch / "c.tif")
    write_truncated(watch / "d.tif")

    with growing(watch / "growing.tif"):
        planned, state = night(site, {**asked, "dry_run": True})
        assert state["type"] == "COMPLETED", site.log("worker")
        assert "4 of 5" in state["message"]
        assert {name: row["action"] for name, row in rows(site, planned).items()} == {
            "a.ome.zarr": "segment",
            "b/slide.svs": "segment",
            "c.tif": "segment",
            "d.tif": "segment",
            "growing.tif": "growing",
        }
        assert not (tmp_path / "outputs").exists()

        first, state = night(site, asked)
        assert state["type"] == "FAILED", site.log("worker")  # one of them is bad: somebody has to look at it
        assert "3 segmented, 1 failed, 1 still growing: look at d.tif" in state["message"]
        found = rows(site, first)
        assert {name: row["result"] for name, row in found.items()} == {
            "a.ome.zarr": "segmented",
            "b/slide.svs": "segmented",
            "c.tif": "segmented",
            "d.tif": "set aside",
            "growing.tif": "skipped",
        }
        (page,) = site.artifacts(first, "markdown")
        assert page["data"].index("Failed in this night") < page["data"].index("## Segmented")
        assert "d.tif" in page["data"]

        write_tiff(watch / "e.tif", seed=7)
        before = tree(folder_of(tmp_path / "outputs") / "a.ome.zarr")
        second, state = night(site, asked)
        assert state["type"] == "COMPLETED", state  # what was set aside before is listed, and fails no further night
        assert "1 segmented, 0 failed, 1 still growing, 1 set aside before" in state["message"]
        assert [name for name, row in rows(site, second).items() if row["result"] == "segmented"] == ["e.tif"]
        assert tree(folder_of(tmp_path / "outputs") / "a.ome.zarr") == before


def test_a_night_whose_worker_and_flow_are_killed_is_finished_by_the_next_with_equal_bytes(
    site: Site, model: Path, tmp_path: Path
) -> None:
    watch, outputs, asked = tmp_path / "watch", tmp_path / "outputs", parameters(tmp_path, model)
    for name, seed in (("a.ome.zarr", 1), ("b.ome.zarr", 2)):
        write_zarr(watch / name, seed=seed, shape=(500, 480))
    time.sleep(STABLE_S)
    second = "b.ome.zarr/labels/segmentation/0"
    killed = site.begin_run(NIGHTLY, brake(tmp_path / "brake", f"{second}/c", 1), **asked)
    wait_for(lambda: any(shards(path) for path in outputs.glob(f"*/{second}")), f"blocks of b: {site.log('worker')}")
    worker = psutil.Process(site.processes["worker"].pid)
    for process in [worker, *worker.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGKILL)
    site.processes["worker"].wait()
    stored = shards(folder_of(outputs) / second)
    assert len(stored) < 16 * 15
    assert site.state(killed)["type"] == "RUNNING"  # nobody was left to say otherwise
    site.start_worker()
    assert site.finish(site.begin_run(NIGHTLY, **asked))["type"] == "CANCELLED"  # that run has the deployment's slot
    site.post(f"flow_runs/{killed}/set_state", {"state": {"type": "CRASHED"}, "force": True})  # as the browser does
    state = site.finish(site.begin_run(NIGHTLY, **asked))
    assert state["type"] == "COMPLETED", site.log("worker")

    undisturbed = {**asked, "outputs": str(tmp_path / "undisturbed")}
    _, state = night(site, undisturbed)
    assert state["type"] == "COMPLETED", site.log("worker")
    assert results(outputs) == results(tmp_path / "undisturbed")
    assert len(list(outputs.rglob("segment-slide.done.json"))) == 2
