"""The script of a job, run here by bash as a node would: what it imports, where it writes, and what it leaves."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from distributed import Client, LocalCluster

from segment_slide.cluster.complete import complete_spec
from segment_slide.cluster.kinds.batch import job_script
from segment_slide.cluster.kinds.slurm import Slurm
from segment_slide.cluster.security import new_security
from segment_slide.cluster.spec import ClusterSpec
from tests.security.support import PLANTED, listening_ports, probe, semaphores

pytestmark = pytest.mark.slow  # starts workers


@pytest.fixture
def job(tmp_path):
    """A private scheduler without workers, its client, and the script of a job for it."""
    folders = {name: tmp_path / name for name in ("tls", "work", "scratch", "logs")}
    for folder in folders.values():
        folder.mkdir()
    security = new_security(str(folders["tls"]))
    spec = ClusterSpec(
        "slurm", job_cores=1, job_memory_bytes=1 << 30, walltime_s=600, python=sys.executable,
        log_directory=str(folders["logs"]), local_directory="$NODE_SCRATCH",
    )  # fmt: skip
    options = {"n_workers": 0, "protocol": "tls://", "host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
    with LocalCluster(security=security, **options) as cluster, Client(cluster) as client:
        script = job_script(complete_spec(spec), Slurm(), "run", cluster.scheduler_address, security)
        yield client, script, folders["work"], folders["scratch"]


def test_a_job_imports_nothing_from_its_working_directory_and_writes_into_a_private_folder(job):
    client, script, work, scratch = job
    for name in ("toolz", "distributed", "zarr"):
        (work / f"{name}.py").write_text(PLANTED)
    (scratch / "dask-scratch-space").mkdir()
    (scratch / "dask-scratch-space" / "zarr.py").write_text(PLANTED)
    environment = {**os.environ, "NODE_SCRATCH": str(scratch)}
    environment.pop("PYTHONSAFEPATH", None)
    process = subprocess.Popen(["bash", "-c", script], cwd=work, env=environment, start_new_session=True)
    try:
        client.wait_for_workers(1, timeout=240)
        (found,) = client.run(lambda dask_worker: (dask_worker.local_directory, __import__("zarr").__file__)).values()
        root = psutil.Process(process.pid)
        processes = [root, *root.children(recursive=True)]
        assert semaphores(processes) == set()
        assert probe(listening_ports(root)) == {}
        private = next(parent for parent in Path(found[0]).parents if parent.parent == scratch)
        assert stat.S_IMODE(private.stat().st_mode) == 0o700
        assert "site-packages" in found[1]
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=120)
    assert list(work.glob("*.ran")) == []
    assert [path.name for path in scratch.rglob("*")] == ["dask-scratch-space", "zarr.py"]


def test_without_the_line_that_protects_it_a_job_would_import_from_there(job):
    """The control."""
    _, script, work, scratch = job
    (work / "toolz.py").write_text(PLANTED + "; raise SystemExit")
    line = "export PYTHONSAFEPATH=1\n"
    assert line in script
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    command = ["bash", "-c", script.replace(line, "")]
    subprocess.run(command, cwd=work, env={**environment, "NODE_SCRATCH": str(scratch)}, check=False, timeout=240)
    assert (work / "toolz.ran").exists()
