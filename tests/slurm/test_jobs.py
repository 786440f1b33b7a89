"""Workers in jobs of a real SLURM: they do the work, are replaced, and let no stranger in."""

import asyncio
import dataclasses
import os
import signal
import socket
import ssl
import subprocess
import sys
import time

import psutil
import pytest
from distributed import Client, as_completed
from distributed.security import Security

from segment_slide.cluster.connect import connect
from segment_slide.cluster.errors import ClusterError
from segment_slide.cluster.preflight import preflight
from tests.slurm.support import HANGS_AFTER_S, all_jobs, open_ports, wait_until, worker_processes

pytestmark = [pytest.mark.slurm, pytest.mark.usefixtures("empty_queue")]


def job_number(_=None):
    time.sleep(0.2)
    return os.environ["SLURM_JOB_ID"]


def see_worker(dask_worker):
    memory = dask_worker.memory_manager
    return {
        "threads": dask_worker.state.nthreads,
        "memory_limit": memory.memory_limit,
        "fractions": (memory.memory_target_fraction, memory.memory_spill_fraction, memory.memory_pause_fraction),
        "interrupt": signal.getsignal(signal.SIGINT),
        "arenas": os.environ["MALLOC_ARENA_MAX"],
        "lifetime": dask_worker.lifetime,
        "gpu": os.environ.get("CUDA_VISIBLE_DEVICES"),
    }


def len_of_nothing():
    len("")


def fail_here():
    raise ClusterError(f"job {os.environ['SLURM_JOB_ID']} cannot; ask the site")


def test_two_jobs_do_the_work_and_a_cancelled_one_is_replaced(describe, capsys):
    spec = describe()
    with connect(spec) as client:
        jobs = set(client.gather(client.map(job_number, range(20), pure=False)))
        assert len(jobs) == 2

        workers = client.run(see_worker).values()
        assert {worker["threads"] for worker in workers} == {spec.tasks_per_worker}
        assert {worker["memory_limit"] for worker in workers} == {spec.memory_bytes}
        assert {worker["fractions"] for worker in workers} == {(False, False, False)}
        assert {worker["interrupt"] for worker in workers} == {signal.SIG_IGN}
        assert {worker["arenas"] for worker in workers} == {"1"}
        assert len({worker["lifetime"] for worker in workers}) == 2, "they leave one by one"

        preflight(client, spec, {"nothing": len_of_nothing})
        with pytest.raises(ClusterError, match=r"SLURM job \d+: scratch: job \d+ cannot; ask the site"):
            preflight(client, spec, {"scratch": fail_here})

        (leaving,) = [worker for worker, job in client.run(job_number).items() if job == min(jobs)]
        subprocess.run(["scancel", min(jobs)], check=True)
        wait_until(lambda: leaving not in client.nthreads(), "the cancelled worker leaves")
        seconds = wait_until(lambda: len(client.nthreads()) == 2, "a new job in its place")
        now = set(client.gather(client.map(job_number, range(20), pure=False)))
        with capsys.disabled():
            sys.stdout.write(f"\n  scancel: replaced after {seconds:.1f} s; jobs {sorted(jobs)}, then {sorted(now)}\n")
        assert len(now) == 2
        assert min(jobs) not in now
    wait_until(lambda: not all_jobs(), "an empty queue")


def test_a_job_of_two_workers_is_replaced_as_one(describe):
    with connect(describe(jobs=1, job_cores=2, processes=2, job_memory_bytes=2 << 30)) as client:
        first = set(client.run(job_number).values())
        assert len(client.nthreads()) == 2
        assert len(first) == 1
        leaving = set(client.nthreads())
        subprocess.run(["scancel", *first], check=True)
        wait_until(lambda: leaving.isdisjoint(client.nthreads()), "both workers leave")
        wait_until(lambda: len(client.nthreads()) == 2, "two workers of a new job")
        assert first.isdisjoint(client.run(job_number).values())


def test_a_worker_that_is_killed_is_started_again_in_its_job(describe):
    with connect(describe(jobs=1)) as client:
        (before,) = client.run(job_number).values()
        ((leaving, pid),) = client.run(os.getpid).items()
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: leaving not in client.nthreads(), "the worker is gone")
        assert client.submit(job_number, pure=False).result(timeout=HANGS_AFTER_S) == before


def test_strangers_are_refused_with_and_without_tls(describe):
    with connect(describe(jobs=1)) as client:
        address = client.scheduler.address
        assert address.startswith("tls://")
        worker = next(iter(client.nthreads()))
        for target in (address, worker):
            host, port = target.removeprefix("tls://").rsplit(":", 1)
            with pytest.raises(OSError, match="(?i)certificate|timed out"):  # a certificate of another authority
                Client(target, security=Security.temporary(), timeout=5, set_as_default=False)
            with pytest.raises(OSError, match="(?i)timed out|closed|reset"):
                Client(
                    f"tcp://{host}:{port}", security=Security(require_encryption=False), timeout=3, set_as_default=False
                )
            with pytest.raises((ssl.SSLError, OSError)):  # encrypted, and no certificate at all
                asyncio.run(speak_without_certificate(host, int(port)))
        processes = [psutil.Process(), *worker_processes()]
        for nanny in worker_processes():
            processes += nanny.children(recursive=True)
        ports = open_ports(processes)
        assert len(ports) >= 3, "scheduler, nanny, worker"
        for host, port in ports:
            assert speak_plainly("127.0.0.1" if host == "0.0.0.0" else host, port) <= 7, "a TLS alert has seven bytes"
        assert client.submit(sum, [1, 2]).result() == 3


def speak_plainly(host, port):
    """How many bytes come back."""
    with socket.create_connection((host, port), timeout=10) as plain:
        plain.sendall(b"\x00" * 64)
        try:
            return len(plain.recv(1000))
        except ConnectionResetError:
            return 0


async def speak_without_certificate(host, port):
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    reader, writer = await asyncio.open_connection(host, port, ssl=context)
    writer.write(b"\x00" * 64)
    await writer.drain()
    answer = await reader.read(100)
    if not answer:
        raise ConnectionResetError("closed")


def test_a_job_with_a_gpu_sees_it(describe):
    spec = describe(jobs=1, gpus=1, partition="gpu")
    with connect(spec) as client:
        (worker,) = client.run(see_worker).values()
        assert worker["gpu"] in ("0", "1")
        assert worker["threads"] == spec.tasks_per_worker == 2
        preflight(client, spec)


def test_a_job_without_a_gpu_is_told_so_when_one_was_asked_for(describe):
    with connect(describe(jobs=1)) as client, pytest.raises(ClusterError, match=r"SLURM job \d+: gpu: none is visible"):
        preflight(client, dataclasses.replace(describe(jobs=1), gpus=1))


def test_the_reason_is_named_when_jobs_stay_pending(describe):
    with (
        pytest.raises(
            ClusterError,
            match=r"0 of 2 workers are there after wait=3 s; squeue says: PENDING, reason PartitionDown: job \d+, \d+",
        ),
        connect(describe(partition="closed", wait_s=3)),
    ):
        pass
    wait_until(lambda: not all_jobs(), "an empty queue")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"partition": "nosuch"}, "SLURM refused the job: invalid partition specified: nosuch"),
        ({"job_memory_bytes": 1 << 45}, "SLURM refused the job: .*Requested node configuration is not available"),
    ],
    ids=["no such partition", "no node so large"],
)
def test_what_sbatch_refuses_is_said_at_once(describe, changes, words):
    with pytest.raises(ClusterError, match=words), connect(describe(**changes)):
        pass


def test_a_job_that_ends_before_its_worker_connects_is_said_with_the_end_of_its_log(describe):
    with (
        pytest.raises(ClusterError, match=r"(?s)SLURM job \d+ ended before its worker connected.*no-such-python"),
        connect(describe(jobs=1, python="/opt/no-such-python")),
    ):
        pass
    wait_until(lambda: not all_jobs(), "an empty queue")


def test_between_limits_jobs_are_added_when_there_is_work(describe):
    with connect(describe(jobs=None, minimum=1, maximum=2)) as client:
        assert len(client.nthreads()) == 1
        work = client.map(time.sleep, [1] * 600, pure=False)
        wait_until(lambda: len(client.nthreads()) == 2, "a second job")
        client.cancel(work)


def test_workers_leave_before_their_wall_time_and_the_work_is_done_by_others(describe):
    with connect(describe(lifetime_s=5, stagger_s=2)) as client:
        # taken as they come: what a leaving worker holds is computed again
        jobs = [job for _, job in as_completed(client.map(job_number, range(400), pure=False), with_results=True)]
    assert len(jobs) == 400  # of 0.2 s on four threads: three lives of a worker
    assert len(set(jobs)) > 2
