"""A real SLURM on this machine for the tests beside this file."""

import os
import subprocess
from pathlib import Path

import pytest

from segment_slide.cluster.complete import complete_spec
from segment_slide.cluster.kinds.slurm import Slurm
from segment_slide.cluster.spec import ClusterSpec
from tests.slurm.support import HANGS_AFTER_S, all_jobs, wait_until

BRING_UP = Path(__file__).with_name("bring_up.sh")
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def slurm():
    """SLURM_CONF points to two nodes that are up; what was up before stays up."""
    lab = Path(os.environ.get("SLURM_LAB", "/tmp/segment-slide-slurm"))
    was_up = (lab / "pid/slurmctld.pid").exists()
    done = subprocess.run([BRING_UP, "up"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(lab / "slurm.conf"))
        yield
    if not was_up:
        subprocess.run([BRING_UP, "down"], check=True)


@pytest.fixture(scope="session")
def describe(slurm, tmp_path_factory):
    """A complete description of small jobs; keywords change it."""
    folder = tmp_path_factory.mktemp("slurm")

    def make(**changes) -> ClusterSpec:
        values = {
            "kind": "slurm",
            "jobs": 2,
            "job_cores": 1,
            "job_memory_bytes": 1 << 30,
            "partition": "cpu",
            "walltime_s": 600,
            "wait_s": HANGS_AFTER_S,
            "death_timeout_s": 20,
            "shared_directory": str(folder / "shared"),
            "log_directory": str(folder / "logs"),
            # functions of these tests run in jobs, which import nothing from their working directory
            "prologue": (f"export PYTHONPATH={ROOT}${{PYTHONPATH:+:$PYTHONPATH}}",),
            **changes,
        }
        return complete_spec(ClusterSpec(**values))

    return make


@pytest.fixture
def empty_queue(slurm):
    """The queue is empty before the test, and after it nothing is left for the next."""
    wait_until(lambda: not all_jobs(), "an empty queue before the test")
    yield
    for name in {job.split()[2] for job in all_jobs().splitlines()}:
        if Slurm().list_jobs(name):
            Slurm().cancel_jobs(name)
