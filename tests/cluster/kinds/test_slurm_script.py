"""What a SLURM job is told, and the files that sbatch gets: compared with files in ``golden/``.

They were written by this test (``UPDATE_GOLDEN=1 pytest …``) and read by eye; jobs of that form ran in tests/slurm.
"""

import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import dask
import pytest

from segment_slide.cluster.complete import complete_spec
from segment_slide.cluster.errors import ClusterError
from segment_slide.cluster.kinds.batch import job_script
from segment_slide.cluster.kinds.batch_system import QueuedJob
from segment_slide.cluster.kinds.jobqueue import import_jobqueue
from segment_slide.cluster.kinds.slurm import KIND, Slurm
from segment_slide.cluster.spec import ClusterSpec

GOLDEN = Path(__file__).with_name("golden")

SPECS = {
    "cpu": {"jobs": 10, "job_cores": 16, "job_memory_bytes": 64 << 30, "partition": "imaging", "account": "core"},
    "gpu": {
        "jobs": 2,
        "job_cores": 8,
        "job_memory_bytes": 32 << 30,
        "gpus": 1,
        "gres": "gpu:a100:1",
        "prologue": ("module load cuda/12.4",),
        "directives": ("--qos=short",),
        "local_directory": "$TMPDIR",
    },
    "dask-cuda": {
        "minimum": 1,
        "maximum": 4,
        "job_cores": 32,
        "job_memory_bytes": 256 << 30,
        "gpus": 4,
        "dask_cuda": True,
        "omit_directives": ("--mem",),
        "interface": "lo",
    },
}


def certificates():
    from distributed.security import Security

    files = {"tls_ca_file": "/shared/me/ca_file.pem"}
    for part in ("cert", "key"):
        files[f"tls_worker_{part}"] = f"/shared/me/{part}.pem"
    return Security(require_encryption=True, **files)


@pytest.mark.parametrize("name", SPECS)
def test_the_script_of_a_job_is_the_golden_one(name, tmp_path):
    import_jobqueue("slurm")
    spec = ClusterSpec(
        "slurm", walltime_s=4 * 3600, python="/opt/seg/bin/python", log_directory=str(tmp_path), **SPECS[name]
    )
    script = job_script(complete_spec(spec), Slurm(), "segment-slide-0a1b2c3d", "tls://10.0.0.1:8786", certificates())
    script = script.replace(str(tmp_path), "/shared/me/logs")
    path = GOLDEN / f"{name}.sh"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(script)
    assert script == path.read_text()


@pytest.mark.parametrize("name", SPECS)
def test_what_a_golden_script_exports_is_read_by_dask_as_the_settings_of_local_workers(name):
    from segment_slide.cluster.settings import SETTINGS

    exports = "\n".join(line for line in (GOLDEN / f"{name}.sh").read_text().splitlines() if line.startswith("export"))
    shown = "import dask, json; print(json.dumps(dask.config.config))"
    command = f"{exports}\n{sys.executable} -c 'import distributed; {shown}'"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    import json

    config = json.loads(done.stdout)
    for setting in ("target", "spill", "pause", "terminate"):
        name = f"distributed.worker.memory.{setting}"
        assert dask.config.get(name, config=config) == SETTINGS[name]
    assert dask.config.get("distributed.worker.lifetime", config=config) == {
        "duration": "13500s",
        "stagger": "600s",
        "restart": False,
    }
    assert dask.config.get("logging", config=config) == {"distributed": "info"}


# -- dask-jobqueue's import ------------------------------------------------------------------------------------


def test_importing_jobqueue_leaves_ctrl_c_alone():
    code = (
        "import signal; from segment_slide.cluster.kinds.jobqueue import import_jobqueue as i; "
        "before = signal.default_int_handler; "
        "signal.signal(signal.SIGINT, before); "  # a shell that starts us in the background has it ignored
    )
    code += "i('slurm'); assert signal.getsignal(signal.SIGINT) is before is signal.default_int_handler"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_jobqueue_can_be_imported_in_a_thread():
    code = "import threading; from segment_slide.cluster.kinds.jobqueue import import_jobqueue as i; done = []; "
    code += "t = threading.Thread(target=lambda: done.append(i('slurm'))); t.start(); t.join(); assert done"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_signals_can_be_handled_after_the_import():
    import_jobqueue("slurm")
    assert threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    assert signal.signal(signal.SIGUSR1, before) is signal.SIG_IGN


# -- squeue ----------------------------------------------------------------------------------------------------


@pytest.fixture
def fake_squeue(tmp_path, monkeypatch):
    """A squeue that prints what it is told."""

    def install(body):
        path = tmp_path / "squeue"
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    return install


def test_jobs_are_read_with_their_reason(fake_squeue):
    fake_squeue("echo '12|RUNNING|None'; echo '13|PENDING|Nodes down, or|odd'; echo '14|CANCELLED|None'; echo")
    assert Slurm().list_jobs("x") == [
        QueuedJob("12", "RUNNING", "None"),
        QueuedJob("13", "PENDING", "Nodes down, or|odd"),
    ]


def test_a_slurm_that_does_not_answer_is_said(fake_squeue):
    fake_squeue("echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1")
    with pytest.raises(ClusterError, match="squeue failed: slurm_load_jobs error: Unable to contact slurm controller"):
        Slurm().list_jobs("x")


def test_a_machine_without_slurm_is_said_before_anything_starts(monkeypatch, tmp_path):
    import_jobqueue("slurm")
    monkeypatch.setenv("PATH", str(tmp_path))
    folder = str(tmp_path / "made")
    spec = complete_spec(ClusterSpec("slurm", **SPECS["cpu"], shared_directory=folder, log_directory=folder))
    with pytest.raises(ClusterError, match="squeue is not installed here; kind slurm works where"), KIND.open(spec):
        pass
    assert not Path(folder).exists()


def test_no_secret_is_in_a_script():
    for path in GOLDEN.iterdir():  # those of other kinds too
        assert not re.search(r"BEGIN|PRIVATE", path.read_text())
