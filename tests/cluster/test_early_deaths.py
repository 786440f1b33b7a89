"""Workers that are killed in their first seconds, each by a real SIGKILL: replaced, or one sentence."""

import contextlib
import os
import signal
import threading
import time

import psutil
import pytest
from distributed import LocalCluster
from distributed.diagnostics.plugin import WorkerPlugin

from segment_slide.cluster.errors import WorkersLostError
from segment_slide.cluster.kinds.local import LocalSpec, local_client
from segment_slide.cluster.time_limit import limit_tasks
from segment_slide.cluster.waiting import run_everywhere
from tests.processes import spawned_below

pytestmark = pytest.mark.slow  # half a minute of starting workers

SPEC = LocalSpec(workers=1, cores=1, memory_bytes=1 << 30)


def has_begun(process: psutil.Process) -> bool:
    """Python has just started."""
    return process.is_running()


def listens(process: psutil.Process) -> bool:
    """The worker has opened its port, and is about to connect to the scheduler."""
    return any(connection.status == psutil.CONN_LISTEN for connection in process.net_connections("inet"))


@contextlib.contextmanager
def killing(moment, times: int):
    """Kill workers that this process starts at that moment of their lives, so many in all; yields those killed."""
    before, killed, is_over = set(spawned_below(psutil.Process())), [], threading.Event()

    def watch():
        while not is_over.wait(0.01) and len(killed) < times:
            for process in spawned_below(psutil.Process()):
                with contextlib.suppress(psutil.Error):
                    if process not in (*before, *killed) and moment(process):
                        process.kill()
                        killed.append(process)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield killed
    finally:
        is_over.set()
        thread.join()


@pytest.mark.parametrize("moment", [has_begun, listens])
def test_a_worker_that_is_killed_before_it_has_connected_is_replaced(moment):
    with killing(moment, times=1) as killed, local_client(SPEC) as client:
        assert client.submit(sum, [1, 2]).result(timeout=240) == 3
    assert len(killed) == 1


def test_dask_itself_gives_up():
    """The control: of Dask's own, one such death ends the whole start."""
    options = {"n_workers": 1, "threads_per_worker": 1, "host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
    with (
        killing(has_begun, times=1),
        pytest.raises(RuntimeError, match="Nanny failed to start"),
        LocalCluster(**options, worker_dashboard_address=None),
    ):
        pass


def test_workers_that_are_killed_each_time_are_said_in_one_sentence():
    said = r"^the cluster cannot be started: a worker process was killed 3 times before it had connected\. If memory"
    with killing(has_begun, times=9) as killed, pytest.raises(WorkersLostError, match=said), local_client(SPEC):
        pass
    assert len(killed) == 3


def kill_once(file) -> int:
    """End this worker by force, only the first that gets here; runs there."""
    with contextlib.suppress(FileExistsError):
        file.touch(exist_ok=False)
        os.kill(os.getpid(), signal.SIGKILL)
    return os.getpid()


class KillOnce(WorkerPlugin):
    """Ends its worker while it is registered."""

    def __init__(self, file) -> None:
        self.file = file

    def setup(self, worker) -> None:
        """Called by Dask."""
        kill_once(self.file)


def test_after_the_start_questions_and_limits_outlive_the_death_of_the_only_worker(tmp_path, monkeypatch):
    with local_client(SPEC) as client:
        (first,) = client.run(os.getpid).values()
        os.kill(first, signal.SIGKILL)
        (second,) = run_everywhere(client, os.getpid).values()
        (third,) = run_everywhere(client, kill_once, tmp_path / "asked").values()
        assert len({first, second, third}) == 3
        monkeypatch.setattr("segment_slide.cluster.time_limit.TimeLimit", lambda *_: KillOnce(tmp_path / "registered"))
        with limit_tasks(client, 60):
            (fourth,) = run_everywhere(client, os.getpid).values()
            assert fourth != third
        with pytest.raises(ConnectionResetError):
            run_everywhere(client, reset)


def reset() -> None:
    """An error of the question itself, not of a lost worker."""
    time.sleep(0.1)
    raise ConnectionResetError("by a server")
