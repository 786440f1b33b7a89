"""Nothing is left in the queue, and no worker process, however a run ends."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.slurm.support import HANGS_AFTER_S, all_jobs, wait_until, worker_processes

pytestmark = [pytest.mark.slurm, pytest.mark.usefixtures("empty_queue")]

RUN = Path(__file__).with_name("held_run.py")


def start_run(ending, spec):
    values = {name: value for name, value in dataclasses.asdict(spec).items() if value}
    command = [sys.executable, str(RUN), ending, json.dumps(values)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout.readline() == "ready\n", process.communicate()
    return process


def end_run(process, signum):
    """Seconds from the signal (or now) until the queue is empty and no worker process is left; what was on stderr."""
    began = time.monotonic()
    if signum:
        os.kill(process.pid, signum)
    _, stderr = process.communicate(timeout=HANGS_AFTER_S)
    wait_until(lambda: not all_jobs(), "an empty queue")
    queue_s = time.monotonic() - began
    wait_until(lambda: not worker_processes(), "no worker process")
    return queue_s, time.monotonic() - began, stderr


@pytest.mark.parametrize(
    ("ending", "signum", "status"),
    [
        ("success", None, 0),
        ("exception", None, 1),
        ("ctrl-c", signal.SIGINT, -signal.SIGINT),
        ("sigterm", signal.SIGTERM, 143),
        ("sigkill", signal.SIGKILL, -signal.SIGKILL),
    ],
)
def test_the_queue_is_empty_after(ending, signum, status, describe, capsys):
    process = start_run(ending, describe())
    if signum:
        assert len(all_jobs().splitlines()) == 2
        assert worker_processes()
    queue_s, processes_s, stderr = end_run(process, signum)
    with capsys.disabled():
        sys.stdout.write(
            f"\n  {ending}: queue empty after {queue_s:.1f} s, no worker process after {processes_s:.1f} s\n"
        )
    assert process.returncode == status
    assert "Exception ignored" not in stderr
    assert ("Traceback" in stderr) == (ending in ("exception", "ctrl-c")), stderr


def test_the_queue_is_empty_after_ctrl_c_while_jobs_are_waited_for(describe):
    process = start_run("signal-while-waiting", describe(partition="closed"))
    wait_until(lambda: len(all_jobs().splitlines()) == 2, "two pending jobs")
    end_run(process, signal.SIGINT)
    assert process.returncode == -signal.SIGINT


def test_certificates_are_gone_after_a_run(describe):
    spec = describe()
    process = start_run("success", spec)
    end_run(process, None)
    assert os.listdir(spec.shared_directory) == []
