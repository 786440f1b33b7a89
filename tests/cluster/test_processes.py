"""Clusters that we start: bounded at the start, quiet at the end, nothing left."""

import asyncio
import errno
import gc
import logging
import resource
import subprocess
import sys
import time
from dataclasses import replace

import psutil
import pytest
from distributed import LocalCluster
from distributed.nanny import WorkerProcess

from segment_slide.cluster import processes
from segment_slide.cluster.errors import ClusterError
from segment_slide.cluster.kinds.local import LocalSpec, local_client
from tests.processes import spawned_below

SPEC = LocalSpec(workers=1, cores=1, memory_bytes=1 << 30)


@pytest.fixture
def started():
    """Worker processes that the test has started and that still run."""
    before = set(spawned_below(psutil.Process()))
    return lambda: [process for process in spawned_below(psutil.Process()) if process not in before]


def assert_gone(started):
    assert psutil.wait_procs(started(), timeout=60)[1] == []


def test_without_loopback_nothing_is_started(monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.ENETUNREACH, "Network is unreachable")

    monkeypatch.setattr("socket.create_connection", refuse)
    said = r"127\.0\.0\.1 cannot be used: .* Switch the interface lo on"
    with pytest.raises(ClusterError, match=said), local_client(SPEC):
        pass


def test_a_worker_that_ends_at_its_start_is_said(monkeypatch, started):
    monkeypatch.setenv("PYTHONHOME", "/none/such")  # Python itself does not start
    said = "cannot be started: a worker process ended before it had connected"
    with pytest.raises(ClusterError, match=said), local_client(SPEC):
        pass
    assert_gone(started)


def test_the_limit_of_open_files_is_raised_as_far_as_workers_need_it_or_they_are_refused():
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (128, before[1]))
        processes.allow_open_files(10)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (128, before[1])
        processes.allow_open_files(200)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (264, before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (70, 70))\n"
        "from segment_slide.cluster.kinds.local import LocalSpec, local_client\n"
        "with local_client(LocalSpec(2, 1, 1 << 30)): pass"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "ClusterError: workers need 88 open files in this process, and the system allows 70" in done.stderr


def test_the_scratch_folder_of_the_description_is_used_and_one_that_cannot_be_written_is_said(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    said = r"local_directory=.*file: cannot be written: File exists\."
    with pytest.raises(ClusterError, match=said), local_client(replace(SPEC, local_directory=str(tmp_path / "file"))):
        pass
    monkeypatch.setenv("SCRATCH", str(tmp_path / "scratch"))
    with local_client(replace(SPEC, local_directory="$SCRATCH/mine")) as client:
        (used,) = client.run(lambda dask_worker: dask_worker.local_directory).values()
    assert used.startswith(str(tmp_path / "scratch" / "mine"))


def test_files_named_like_modules_of_python_are_not_taken_for_them(monkeypatch, tmp_path):
    (tmp_path / "random.py").write_text("raise RuntimeError")
    monkeypatch.chdir(tmp_path)
    with local_client(SPEC) as client:
        assert client.submit(_name_of_random).result() == "random.Random"


def _name_of_random() -> str:
    import random

    return f"{random.Random.__module__}.{random.Random.__name__}"


def test_workers_that_never_start_are_given_up_and_ended(monkeypatch, started):
    async def wait_forever(*_):
        await asyncio.sleep(10**6)

    monkeypatch.setattr(WorkerProcess, "_wait_until_connected", wait_forever)
    monkeypatch.setattr(processes, "START_S", 1)
    with (
        pytest.raises(ClusterError, match=r"^the cluster cannot be started: there was no answer within 1 s\.$"),
        local_client(SPEC),
    ):
        pass
    assert_gone(started)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Dask leaves the sockets that it tried
def test_a_scheduler_that_cannot_listen_is_said_in_one_line():
    options = {"n_workers": 0, "host": "192.0.2.1", "dashboard_address": None}
    with (
        pytest.raises(ClusterError, match=r"cannot be started: .*Cannot assign requested") as e,
        processes.start_cluster(LocalCluster, **options),
    ):
        pass
    assert "\n" not in str(e.value)
    del e
    gc.collect()


def test_a_worker_that_does_not_leave_in_time_is_ended_and_nothing_is_raised_or_logged(monkeypatch, started, caplog):
    """As on a busy machine: the process is neither gone when it is asked nor at once when it is ended by force."""
    waits = []

    async def late(self, timeout=None, **options):
        waits.append(timeout)
        raise TimeoutError

    monkeypatch.setattr("distributed.process.AsyncProcess.join", late)
    with caplog.at_level(logging.INFO), local_client(SPEC) as client:
        assert client.submit(sum, [1, 2]).result() == 3
        caplog.clear()
    assert len(waits) == 2
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
    assert_gone(started)


def test_a_fault_while_closing_is_not_raised(monkeypatch, started):
    async def fail(*_, **__):
        raise TimeoutError

    with local_client(SPEC) as client:
        monkeypatch.setattr(processes.PatientNanny, "close", fail)
        began = time.monotonic()
        assert client.submit(sum, [1, 2]).result() == 3
    assert time.monotonic() - began < processes.END_S
    monkeypatch.undo()
    assert_gone(started)
