"""Worker processes on this machine: what they start with, and that none outlives its run."""

import copy
import logging
import os
import signal
import time

import dask
import distributed  # noqa: F401  its defaults join Dask's configuration at import
import psutil
import pytest

from segment_slide.cluster.errors import ClusterError
from segment_slide.cluster.kinds.local import LocalSpec, local_client, plan_local
from tests.processes import spawned_below

CORES = len(os.sched_getaffinity(0))
GONE_WITHIN_S = 60  # for what hangs; it takes far less


def workers_below_this_process() -> list[psutil.Process]:
    return spawned_below(psutil.Process())


def describe_worker(dask_worker) -> dict:
    """What a worker process knows of itself; runs there."""
    import torch

    memory = dask_worker.memory_manager
    return {
        "pid": os.getpid(),
        "environment": dict(os.environ),
        "threads": dask_worker.state.nthreads,
        "torch_threads": torch.get_num_threads(),
        "memory_limit": memory.memory_limit,
        "spilling": (memory.memory_target_fraction, memory.memory_spill_fraction, memory.memory_pause_fraction),
        "profiles": len(dask_worker.profile_history) + len(dask_worker.io_loop.profile),
        "interrupt": signal.getsignal(signal.SIGINT),
        "log_level": logging.getLogger("distributed.worker").level,
        "failures": dask.config.get("distributed.scheduler.allowed-failures"),
    }


def listening() -> set[str]:
    """Addresses on which this process and its workers take connections."""
    connections = []
    for process in (psutil.Process(), *workers_below_this_process()):
        connections += process.net_connections("inet")
    return {connection.laddr.ip for connection in connections if connection.status == psutil.CONN_LISTEN}


@pytest.fixture(scope="module")
def seen() -> dict:
    """Everything that is to be seen of one cluster while it lives, and which of its processes are left after."""
    before = set(workers_below_this_process())
    listened, settings, environment = listening(), copy.deepcopy(dask.config.config), dict(os.environ)
    spec = LocalSpec(workers=min(2, CORES), cores=1, memory_bytes=1 << 31)
    with local_client(spec) as client:
        processes = [process for process in workers_below_this_process() if process not in before]
        found = {
            "spec": spec,
            "workers": list(client.run(describe_worker).values()),
            "n_threads": client.nthreads(),
            "processes": processes,
            "listening": listening() - listened,
            "answer": client.submit(sum, [1, 2]).result(),
        }
    left = psutil.wait_procs(processes, timeout=GONE_WITHIN_S)[1]
    after = {"left": left, "settings": (settings, dask.config.config), "environment": (environment, dict(os.environ))}
    return {**found, **after}


def test_all_workers_are_there_and_compute(seen):
    spec = seen["spec"]
    assert len(seen["workers"]) == len(seen["processes"]) == spec.workers
    assert {worker["pid"] for worker in seen["workers"]} == {process.pid for process in seen["processes"]}
    assert set(seen["n_threads"].values()) == {spec.tasks_per_worker} == {2}
    assert seen["answer"] == 3


def test_no_worker_is_left_after_the_body(seen):
    assert seen["processes"]
    assert seen["left"] == []


def test_only_this_machine_can_connect(seen):
    """Dask's own default would listen on every interface, at port 8787."""
    assert seen["listening"] <= {"127.0.0.1"}


def test_workers_start_with_what_keeps_them_on_their_cores_and_within_their_memory(seen):
    for worker in seen["workers"]:
        environment = worker["environment"]
        assert {environment[name] for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")} == {"1"}
        assert worker["torch_threads"] == 1
        assert environment["GLIBC_TUNABLES"] == "glibc.malloc.hugetlb=1"
        assert environment["THP_MEM_ALLOC_ENABLE"] == "1"
        assert worker["memory_limit"] == seen["spec"].memory_bytes


def test_workers_do_not_spill_or_pause(seen):
    assert {worker["spilling"] for worker in seen["workers"]} == {(False, False, False)}


def test_workers_keep_no_profile_of_themselves(seen):
    """It would grow for a quarter of an hour and nobody would look at it."""
    assert {worker["profiles"] for worker in seen["workers"]} == {0}


def test_workers_leave_ctrl_c_and_the_reporting_of_errors_to_the_parent(seen):
    assert {worker["interrupt"] for worker in seen["workers"]} == {signal.SIG_IGN}
    assert {worker["log_level"] for worker in seen["workers"]} == {logging.CRITICAL}


def test_settings_of_dask_are_as_before_when_the_body_has_ended(seen):
    before, after = seen["settings"]
    assert after == before


def test_variables_of_this_process_are_as_before_when_the_body_has_ended(seen):
    """Dask's nannies set those of the workers here; programs that are started later would get them."""
    before, after = seen["environment"]
    assert after == before


@pytest.mark.slow
def test_a_killed_worker_is_replaced_and_an_error_in_the_body_ends_all():
    before = set(workers_below_this_process())
    met = []

    def run_body():
        with local_client(LocalSpec(workers=1, cores=1, memory_bytes=1 << 31)) as client:
            (first,) = met[:] = [process for process in workers_below_this_process() if process not in before]
            assert client.submit(os.getpid).result() == first.pid
            first.kill()
            pid = client.submit(os.getpid, pure=False).result(timeout=240)
            assert pid != first.pid
            met.append(psutil.Process(pid))
            (worker,) = client.run(describe_worker).values()
            assert worker["interrupt"] == signal.SIG_IGN
            assert worker["environment"]["THP_MEM_ALLOC_ENABLE"] == "1"
            running = client.submit(time.sleep, 600)
            raise KeyError(running.key)

    with pytest.raises(KeyError):
        run_body()
    assert len(met) == 2
    assert psutil.wait_procs(met, timeout=GONE_WITHIN_S)[1] == []


# -- sharing the machine ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("cores", "workers"), [(1, 1), (2, 1), (4, 1), (5, 2), (8, 2), (64, 16)])
def test_by_default_there_is_a_worker_per_four_cores(cores, workers, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    assert plan_local().workers == workers


@pytest.mark.parametrize("workers", [1, 2, 3, 8])
def test_workers_share_the_cores_and_the_memory(workers, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr("segment_slide.cluster.kinds.local.memory_limit", lambda: 8 << 30)
    spec = plan_local(workers)
    assert spec.workers * spec.cores <= 8 < spec.workers * (spec.cores + 1)
    assert 0.89 * (8 << 30) < spec.workers * spec.memory_bytes <= 0.9 * (8 << 30)


@pytest.mark.parametrize("workers", [-1, 0, CORES + 1])
def test_no_workers_and_more_than_cores_are_refused(workers):
    with pytest.raises(
        ClusterError, match=rf"workers={workers}, expected 1 to {CORES}: this machine lends {CORES} core"
    ):
        plan_local(workers)


@pytest.mark.parametrize("field", ["workers", "cores", "memory_bytes"])
def test_a_cluster_of_nothing_is_refused(field):
    with pytest.raises(ClusterError, match="expected positive values"):
        LocalSpec(**{"workers": 1, "cores": 1, "memory_bytes": 1, field: 0})
