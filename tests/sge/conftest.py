"""A real Grid Engine on this machine for the tests beside this file."""

import os
import subprocess
from pathlib import Path

import pytest
import yaml

BRING_UP = Path(__file__).with_name("bring_up.sh")
ROOT = Path(__file__).parents[2]
HANGS_AFTER_S = 120


@pytest.fixture(scope="session")
def grid_engine():
    """Its commands find a node that is up; what was up before stays up."""
    if not Path("/usr/lib/gridengine/sge_qmaster").exists():
        pytest.skip("Grid Engine is not installed here: tests/sge/bring_up.sh install")
    lab = Path(os.environ.get("SGE_LAB", "/tmp/segment-slide-sge"))
    was_up = (lab / "spool/qmaster/qmaster.pid").exists()
    done = subprocess.run([BRING_UP, "up"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with pytest.MonkeyPatch.context() as patch:
        for setting in done.stdout.removeprefix("export ").split():
            patch.setenv(*setting.split("=", 1))
        yield
    if not was_up:
        subprocess.run([BRING_UP, "down"], check=True)


@pytest.fixture
def cluster_values(grid_engine, tmp_path):
    """A description of two jobs of two cores each."""
    return {
        "kind": "sge",
        "jobs": 2,
        "job_cores": 2,
        "job_memory": "2GiB",
        "parallel_environment": "smp",
        "queue": "all.q",
        "walltime": "00:10:00",
        "wait": HANGS_AFTER_S,
        "death_timeout": 20,
        "shared_directory": str(tmp_path / "shared"),
        "log_directory": str(tmp_path / "logs"),
        # functions of these tests run in jobs, which import nothing from their working directory
        "prologue": [f"export PYTHONPATH={ROOT}${{PYTHONPATH:+:$PYTHONPATH}}"],
    }


@pytest.fixture
def write_cluster(cluster_values, tmp_path):
    """Write the description, changed by keywords, into a file; None removes a key."""

    def write(**changes):
        path = tmp_path / "cluster.yaml"
        values = {**cluster_values, **changes}
        path.write_text(yaml.safe_dump({key: value for key, value in values.items() if value is not None}))
        return path

    return write
