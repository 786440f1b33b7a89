"""Workers in jobs of a real Grid Engine: the bytes of a laptop, lost jobs replaced, none left in the queue."""

import os
import subprocess
import time

import pytest

from segment_slide.cluster.connect import connect
from segment_slide.cluster.describe import describe_cluster
from segment_slide.cluster.errors import ClusterError
from segment_slide.cluster.preflight import preflight
from tests.flows.support import noise, run_installed, tree, write_array, write_model
from tests.sge.conftest import HANGS_AFTER_S

pytestmark = pytest.mark.slow


def wait_until(condition, what):
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < HANGS_AFTER_S, f"never: {what}"
        time.sleep(0.1)


def all_jobs():
    return subprocess.run(["qstat", "-u", "*"], capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture(autouse=True)
def empty_queue(grid_engine):
    """The queue is empty before the test, and after it without anybody's help."""
    wait_until(lambda: not all_jobs(), "an empty queue before the test")
    yield
    wait_until(lambda: not all_jobs(), "an empty queue after the test")


def job_number(_=None):
    time.sleep(0.1)
    return os.environ["JOB_ID"]


def fail_here():
    raise ClusterError("it cannot")


def test_a_slide_is_segmented_on_jobs_as_here(write_cluster, tmp_path):
    model = write_model(tmp_path / "cells.safetensors")
    slide = write_array(tmp_path / "slide.zarr", noise(300, 300))
    outputs = []
    for where in ("local", write_cluster()):
        outputs.append(tmp_path / f"out-{len(outputs)}.ome.zarr")
        command = ("segment", slide, "--axes", "yx", "--model", model, "--block", "64", "-o", outputs[-1])
        outcome = run_installed(*command, "--cluster", where)
        assert outcome.exit_code == 0, outcome
    assert "kind sge: jobs do not ask for job_memory" in outcome.err
    assert tree(outputs[0]) == tree(outputs[1])


def test_a_cluster_is_looked_at_without_working_on_it(write_cluster, tmp_path):
    outcome = run_installed("cluster", "check", write_cluster(jobs=1), "--output", tmp_path)
    assert outcome.exit_code == 0, outcome
    assert "Workers (sge)" in outcome.out
    assert "1 worker(s) are ready" in outcome.out


def test_a_job_that_is_cancelled_is_replaced_and_all_speak_tls(write_cluster):
    spec = describe_cluster(str(write_cluster()))
    with connect(spec) as client:
        assert client.scheduler.address.startswith("tls://")
        jobs = set(client.run(job_number).values())
        assert len(jobs) == 2
        with pytest.raises(ClusterError, match=r"Grid Engine job \d+: scratch: it cannot"):
            preflight(client, spec, {"scratch": fail_here})
        (leaving,) = [worker for worker, job in client.run(job_number).items() if job == min(jobs)]
        subprocess.run(["qdel", min(jobs)], check=True, capture_output=True)
        wait_until(lambda: leaving not in client.nthreads(), "the cancelled worker leaves")
        wait_until(lambda: len(client.nthreads()) == 2, "a new job in its place")
        assert min(jobs) not in client.run(job_number).values()


def test_no_job_outlives_a_body_that_fails(write_cluster):
    spec = describe_cluster(str(write_cluster(jobs=1)))
    with pytest.raises(KeyError, match="the body"), connect(spec) as client:
        raise KeyError(f"the body of {client}")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"queue": "nosuch"}, 'Grid Engine refused the job: .*unknown queue "nosuch"'),
        (
            {"job_cores": 99, "processes": 1, "wait": 3},
            r'qstat says: qw, reason cannot run in PE "smp".*: job \d+, \d+',
        ),
        ({"python": "/no-such-python"}, r"(?s)Grid Engine job \d+ ended before its worker connected.*/no-such-python"),
    ],
    ids=["no such queue", "no node so large", "no such python"],
)
def test_why_workers_do_not_come_is_said(changes, words, write_cluster):
    spec = describe_cluster(str(write_cluster(**changes)))
    with pytest.raises(ClusterError, match=words), connect(spec):
        pass
