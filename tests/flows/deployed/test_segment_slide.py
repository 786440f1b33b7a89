"""The flow ``segment-slide`` through a real server and worker: the bytes of the commands, and what a browser shows."""

import base64
import io
import itertools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
import tifffile
from PIL import Image

from tests.flows.deployed.support import HANGS_AFTER_S, REPOSITORY, Site, as_json, environment, run_id, wait_for
from tests.flows.support import brake, noise, run_installed, shards, tree, write_array, write_model, write_ome
from tests.processes import spawned_below

pytestmark = pytest.mark.slow

LABELS = "labels/segmentation/0"
SMALL: dict[str, Any] = {"block": 64, "tile": 64, "precision": "float32", "device": "cpu"}
AS_SMALL = ("--block", "64", "--tile", "64", "--precision", "float32", "--device", "cpu")


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_ome(tmp_path_factory.mktemp("slide") / "slide.ome.zarr", noise(200, 180), "yx", n_levels=2)


@pytest.fixture(scope="module")
def by_command(slide: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the command line makes of the slide."""
    output = tmp_path_factory.mktemp("command") / "out.ome.zarr"
    outcome = run_installed("segment", slide, "--model", model, "-o", output, *AS_SMALL, "--measure")
    assert outcome.exit_code == 0, outcome
    return output


def test_a_deployment_run_from_the_shell_writes_the_bytes_of_the_command(
    site: Site, slide: Path, model: Path, by_command: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out.ome.zarr"
    parameters = as_json(input=str(slide), model=str(model), output=str(output), segmentation=SMALL)
    printed = site.prefect("deployment", "run", "segment-slide/local", "--watch", *parameters)
    run = run_id(printed)
    assert site.state(run)["type"] == "COMPLETED", site.log("worker")
    assert_same(output, by_command)

    assert site.get(f"flow_runs/{run}")["name"] == "slide.ome.zarr → out.ome.zarr"
    assert site.stages(run, len(_STAGES)) == [f"{what} slide.ome.zarr" for what in _STAGES]
    progress = site.artifacts(run, "progress")
    assert {artifact["description"].partition(":")[0] for artifact in progress} >= {"segment", "find", "measure"}
    assert {artifact["data"] for artifact in progress} == {100.0}

    (page,) = site.artifacts(run, "markdown")
    assert page["key"].startswith("out-")
    text = page["data"]
    for told in (
        str(slide),
        str(model),
        str(output),
        "objects",
        "Mpx/s",
        "segment-slide view",
        "napari",
        "## Time by stage",
    ):
        assert told in text
    picture = Image.open(io.BytesIO(base64.b64decode(text.partition("base64,")[2].partition(")")[0])))
    assert min(picture.size) > 100
    assert len(np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0)) > 10


def assert_same(output: Path, other: Path) -> None:
    """All bytes, but for what tells where an output lies and when the parts that later stages read were written."""
    found, wanted = tree(output), tree(other)
    assert list(found) == list(wanted)
    tell = {"labels/segmentation-instances/zarr.json", "tables/zarr.json"}
    tables = {name for name in found if name.endswith(".parquet")}
    assert len(tables) == 1
    assert {name for name in found if found[name] != wanted[name]} <= tell | tables
    for name in tables:
        assert pq.read_table(output / name).to_pydict() == pq.read_table(other / name).to_pydict()


_STAGES = ("convert", "segment", "number objects of", "measure objects of", "report of")


def test_a_file_of_a_microscope_is_converted_first(site: Site, model: Path, tmp_path: Path) -> None:
    file, output = tmp_path / "slide.tif", tmp_path / "cells.ome.zarr"
    tifffile.imwrite(file, noise(150, 130), tile=(64, 64))
    names = {"input": str(file), "model": str(model), "output": str(output), "segmentation": SMALL}
    run = site.begin_run("segment-slide/local", **names, objects=None)
    assert site.finish(run)["type"] == "COMPLETED", site.log("worker")
    image = tmp_path / "cells.image.ome.zarr"
    assert run_installed("ingest", file, tmp_path / "by-command.ome.zarr").exit_code == 0
    assert tree(image) == tree(tmp_path / "by-command.ome.zarr")
    assert run_installed("segment", image, "-m", model, "-o", tmp_path / "again.ome.zarr", *AS_SMALL).exit_code == 0
    assert tree(output) == tree(tmp_path / "again.ome.zarr")
    assert site.stages(run, 3)[-1].startswith("report of")  # no objects were asked for


def test_what_works_on_this_machine_takes_turns_whichever_deployment_began_it(
    site: Site, slide: Path, model: Path, tmp_path: Path
) -> None:
    asked = {"input": str(slide), "model": str(model), "segmentation": SMALL, "objects": None, "cluster": "local"}
    runs = [
        site.begin_run(f"segment-slide/{name}", **asked, output=str(tmp_path / f"{name}.ome.zarr"))
        for name in ("local", "gpu", "slurm")
    ]
    assert [site.finish(run)["type"] for run in runs] == ["COMPLETED"] * 3, site.log("worker")
    worked = sorted(site.working_times(run) for run in runs)
    assert all(earlier[1] <= later[0] for earlier, later in itertools.pairwise(worked))
    assert tree(tmp_path / "local.ome.zarr") == tree(tmp_path / "gpu.ome.zarr")


def test_what_a_stage_warns_of_is_shown_with_the_run(site: Site, tmp_path: Path) -> None:
    slide = write_ome(tmp_path / "slide.ome.zarr", noise(70, 70), "yx", scale=(1.0, 1.0))
    trained = write_model(tmp_path / "cells.safetensors", pixel_size_um=(0.25, 0.25))
    parameters = {"input": str(slide), "model": str(trained), "output": str(tmp_path / "out.ome.zarr")}
    run = site.begin_run("segment-slide/local", **parameters, segmentation=SMALL, objects=None)
    assert site.finish(run)["type"] == "COMPLETED", site.log("worker")
    assert [line for line in site.logs(run) if "the model was trained at 0.25 um" in line]


def test_a_damaged_chunk_fails_the_run_with_the_block_and_the_remedy_and_the_rest_is_kept(
    site: Site, model: Path, tmp_path: Path
) -> None:
    slide, output = write_array(tmp_path / "slide.zarr", noise(200, 180)), tmp_path / "out.ome.zarr"
    chunk = slide / "c/2/1"
    whole = chunk.read_bytes()
    chunk.write_bytes(b"damaged")
    parameters = {"input": str(slide), "model": str(model), "output": str(output), "objects": None}
    parameters["segmentation"] = {**SMALL, "axes": "yx"}
    run = site.begin_run("segment-slide/local", **parameters)
    state = site.finish(run)
    assert state["type"] == "FAILED"
    assert "block (2, 1)" in state["message"]
    assert "Then the flow goes on with the same parameters" in state["message"]
    assert 0 < len(shards(output / LABELS)) < 12
    chunk.write_bytes(whole)
    parameters["segmentation"]["input_repaired"] = True
    again = site.begin_run("segment-slide/local", **parameters)
    assert site.finish(again)["type"] == "COMPLETED", site.log("worker")
    assert len(shards(output / LABELS)) == 12


@pytest.mark.parametrize(
    ("change", "told"),
    [({"model": "/nowhere.safetensors"}, "/nowhere.safetensors"), ({"cluster": "cloud"}, "cloud")],
)
def test_what_cannot_be_carried_out_fails_at_once_and_leaves_nothing(
    site: Site, slide: Path, model: Path, tmp_path: Path, change: dict[str, str], told: str
) -> None:
    output = tmp_path / "out.ome.zarr"
    parameters = {"input": str(slide), "model": str(model), "output": str(output), **change}
    run = site.begin_run("segment-slide/local", **parameters)
    state = site.finish(run)
    assert state["type"] == "FAILED"
    assert told in state["message"]
    assert site.tasks(run) == []
    assert not output.exists()


def test_a_cancelled_run_ends_its_workers_and_the_next_one_finishes(site: Site, model: Path, tmp_path: Path) -> None:
    slide, output = write_array(tmp_path / "slide.zarr", noise(800, 800)), tmp_path / "out.ome.zarr"
    parameters = {"input": str(slide), "model": str(model), "output": str(output), "objects": None}
    parameters["segmentation"] = {**SMALL, "axes": "yx", "block": 48, "tile": 48}
    slowly = brake(tmp_path / "brake", output / LABELS / "c", 21)
    run = site.begin_run("segment-slide/local", slowly, **parameters)
    wait_for(lambda: len(shards(output / LABELS)) > 20 if output.exists() else 0, f"blocks: {site.log('worker')}")
    workers = dask_workers(site)
    assert workers
    site.cancel(run)
    wait_for(lambda: not [process for process in workers if process.is_running()], "an end of the workers")
    assert site.finish(run)["type"] == "CANCELLED"
    done = len(shards(output / LABELS))
    assert 20 < done < 17 * 17
    again = site.begin_run("segment-slide/local", **parameters)
    assert site.finish(again)["type"] == "COMPLETED", site.log("worker")
    (page,) = site.artifacts(again, "markdown")
    assert f"{done:,} of them from before" in page["data"]
    whole = tmp_path / "whole.ome.zarr"
    small = ("--block", "48", "--tile", "48", "--precision", "float32", "--device", "cpu")
    assert run_installed("segment", slide, "--axes", "yx", "-m", model, "-o", whole, *small).exit_code == 0
    assert tree(output) == tree(whole)


def test_a_stage_that_takes_longer_than_it_may_ends_and_the_next_run_goes_on(
    site: Site, model: Path, tmp_path: Path
) -> None:
    slide, output = write_array(tmp_path / "slide.zarr", noise(800, 800)), tmp_path / "out.ome.zarr"
    parameters = {"input": str(slide), "model": str(model), "output": str(output), "objects": None}
    parameters["segmentation"] = {**SMALL, "axes": "yx", "block": 16, "tile": 16}  # 2,500 blocks
    slowly = brake(tmp_path / "brake", output / LABELS / "c", 1)
    run = site.begin_run("segment-slide/local", slowly, **parameters, stage_hours=12 / 3600)
    state = site.finish(run)
    assert state["type"] == "FAILED", site.log("worker")
    assert "stage_hours" in state["message"]
    assert "to go on" in state["message"]
    wait_for(lambda: not dask_workers(site), "an end of the workers")
    assert len(shards(output / LABELS)) < 50 * 50
    assert run_installed("info", output).exit_code == 0


def dask_workers(site: Site) -> list[psutil.Process]:
    """Worker processes of flows that this site runs."""
    return spawned_below(psutil.Process(site.processes["worker"].pid))


OFFLINE = """
import fcntl, os, socket, struct, sys
up = struct.pack("16sh", b"lo", 0x49)  # a new network has loopback, switched off
fcntl.ioctl(socket.socket(), 0x8914, up)
if __name__ == "__main__":  # workers have the secret of this process's server
    assert not [name for name in os.environ if name.startswith("PREFECT_API")]
from segment_slide.flows.deployed.parameters import SegmentParameters
from segment_slide.flows.deployed.segment_slide import segment_slide

if __name__ == "__main__":
    report = segment_slide(
        input=sys.argv[1], model=sys.argv[2], output=sys.argv[3],
        segmentation=SegmentParameters(block=64, tile=64, precision="float32", device="cpu"),
    )
    print(report.numbered.n_objects, "objects")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="a network of its own needs root")
def test_a_flow_is_plain_python_and_needs_neither_server_nor_network(
    slide: Path, model: Path, by_command: Path, tmp_path: Path
) -> None:
    script, output = tmp_path / "script.py", tmp_path / "out.ome.zarr"
    script.write_text(OFFLINE)
    done = subprocess.run(
        ["unshare", "-n", sys.executable, script, slide, model, output],
        env=environment(tmp_path / "home", PYTHONPATH=str(REPOSITORY)),
        capture_output=True,
        text=True,
        timeout=HANGS_AFTER_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " objects" in done.stdout
    assert "telemetry" not in (done.stdout + done.stderr).lower()
    assert_same(output, by_command)
