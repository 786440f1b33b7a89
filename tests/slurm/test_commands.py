"""The same commands as on a laptop, on jobs of a real SLURM: same bytes, and nothing left in the queue."""

import subprocess

import numpy as np
import pytest
import yaml

from cluster.slurm_queue import cancel_jobs
from tests.flows.support import finish, noise, run_installed, shards, start, tree, write_array, write_model
from tests.slurm.support import all_jobs, wait_until

pytestmark = [pytest.mark.slurm, pytest.mark.usefixtures("empty_queue")]

SIZE, LABELS = 600, "labels/segmentation/0"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "cells.safetensors")


@pytest.fixture
def cluster_file(slurm, tmp_path):
    """Two jobs of one core each."""
    values = {
        "kind": "slurm",
        "jobs": 2,
        "job_cores": 1,
        "job_memory": "3GiB",
        "partition": "cpu",
        "walltime": "00:10:00",
        "wait": 90,
        "death_timeout": 20,
        "shared_directory": str(tmp_path / "shared"),
        "log_directory": str(tmp_path / "logs"),
    }
    path = tmp_path / "cluster.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def arguments(slide, model, output, *more):
    return ("segment", slide, "--axes", "yx", "--model", model, "-o", output, "--block", "32", *more)


def test_a_job_cancelled_in_the_middle_changes_no_byte(model, cluster_file, tmp_path):
    slide = write_array(tmp_path / "slide.zarr", noise(SIZE, SIZE))
    alone, spread = tmp_path / "alone.ome.zarr", tmp_path / "spread.ome.zarr"
    assert run_installed(*arguments(slide, model, alone)).exit_code == 0
    process = start(*arguments(slide, model, spread, "--cluster", cluster_file))
    wait_until(lambda: len(shards(spread / LABELS)) >= 20 or process.poll() is not None, "some blocks")
    running = [line.split()[0] for line in all_jobs().splitlines()]
    assert running
    subprocess.run(["scancel", running[0]], check=True)
    outcome = finish(process)
    assert outcome.exit_code == 0, outcome
    assert tree(spread) == tree(alone)
    assert "SLURM" not in outcome.err
    wait_until(lambda: not all_jobs(), "an empty queue")


def test_objects_are_numbered_and_measured_on_jobs_as_here(cluster_file, tmp_path):
    mask = (noise(SIZE, SIZE) > np.median(noise(SIZE, SIZE))).astype(np.uint8)
    path = write_array(tmp_path / "mask.zarr", mask)
    outputs = []
    for where in ("local", cluster_file):
        outputs.append(tmp_path / f"objects-{len(outputs)}.ome.zarr")
        command = ("instances", path, "--axes", "yx", "--block", 128, "-o", outputs[-1], "--cluster", where)
        outcome = run_installed(*command)
        assert outcome.exit_code == 0, outcome
    assert tree(outputs[0]) == tree(outputs[1])
    wait_until(lambda: not all_jobs(), "an empty queue")


def test_a_cluster_is_looked_at_without_working_on_it(model, cluster_file, tmp_path):
    slide = write_array(tmp_path / "slide.zarr", noise(64, 64))
    outcome = run_installed("cluster", "check", cluster_file, "--model", model, "--output", tmp_path)
    assert outcome.exit_code == 0, outcome
    assert "2 worker(s) are ready" in outcome.out
    (tmp_path / "there").mkdir()
    wait_until(lambda: not all_jobs(), "an empty queue")
    assert slide.exists()


def test_a_partition_that_takes_no_job_is_refused_before_anything_is_written(model, cluster_file, tmp_path):
    values = yaml.safe_load(cluster_file.read_text())
    cluster_file.write_text(yaml.safe_dump({**values, "partition": "nowhere"}))
    slide = write_array(tmp_path / "slide.zarr", noise(64, 64))
    outcome = run_installed(*arguments(slide, model, tmp_path / "out.ome.zarr", "--cluster", cluster_file))
    assert outcome.exit_code == 2, outcome
    assert "nowhere" in outcome.err or "partition" in outcome.err.lower()
    assert "Traceback" not in outcome.err
    assert not (tmp_path / "out.ome.zarr").exists()
    for job in all_jobs().splitlines():
        cancel_jobs(job.split()[2])
