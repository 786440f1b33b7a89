"""The same commands as on a laptop, on jobs of a real SLURM: same bytes, and nothing left in the queue."""

import numpy as np
import pytest

from segment_slide.cluster.kinds.slurm import Slurm
from tests.flows.support import noise, run_installed, tree, write_array, write_model
from tests.slurm.support import all_jobs, segment_arguments, wait_until, write_cluster

pytestmark = [pytest.mark.slurm, pytest.mark.usefixtures("empty_queue")]

SIZE = 600


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "cells.safetensors")


@pytest.fixture
def cluster_file(slurm, tmp_path):
    return write_cluster(tmp_path)


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


def test_a_partition_that_takes_no_job_is_refused_before_anything_is_written(model, slurm, tmp_path):
    cluster_file = write_cluster(tmp_path, partition="nowhere")
    slide = write_array(tmp_path / "slide.zarr", noise(64, 64))
    outcome = run_installed(*segment_arguments(slide, model, tmp_path / "out.ome.zarr", "--cluster", cluster_file))
    assert outcome.exit_code == 2, outcome
    assert "nowhere" in outcome.err or "partition" in outcome.err.lower()
    assert "Traceback" not in outcome.err
    assert not (tmp_path / "out.ome.zarr").exists()
    for job in all_jobs().splitlines():
        Slurm().cancel_jobs(job.split()[2])
