"""Worker processes on this machine."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from segment_slide.cluster.errors import ClusterError
from segment_slide.cluster.fields import Field, choose_fields
from segment_slide.cluster.kind import Kind, Remedies
from segment_slide.cluster.machine import memory_limit
from segment_slide.cluster.settings import TERMINATE_FRACTION
from segment_slide.cluster.spec import ClusterSpec

if TYPE_CHECKING:
    from distributed import Client

# One process for this many cores. On two cores, one process with two forward passes took 0.58 of the memory of two
# processes with one each, and no more processor time (benchmarks/threads.py). With many cores in one process, threads
# would wait for Python's lock.
CORES_PER_WORKER = 4


class Local(Kind):
    """Processes on this machine."""

    fields: Mapping[str, Field] = choose_fields("workers", "memory", "cores", "local_directory", "block_time_limit")

    def complete(self, spec: ClusterSpec, *, short_tasks: bool = False) -> ClusterSpec:
        """Give each worker a share of this machine. For short tasks the default is one worker per core."""
        complete = complete_local(spec)
        if short_tasks and spec.workers is None:
            return complete_local(replace(spec, workers=(complete.workers or 1) * (complete.cores or 1)))
        return complete

    def open(self, spec: ClusterSpec) -> contextlib.AbstractContextManager["Client"]:
        """Start them."""
        return local_client(LocalSpec(spec.workers or 1, spec.cores or 1, spec.memory_bytes or 1, spec.local_directory))

    def remedies(self, spec: ClusterSpec) -> Remedies:
        """Advice for workers that share this machine's memory."""
        deaths = "If memory was short, give each worker more of it: fewer --workers."
        return Remedies("memory", "check the driver", deaths)


@dataclass(frozen=True)
class LocalSpec:
    """Processes on this machine.

    Parameters
    ----------
    workers : int
        Number of processes.
    cores : int
        Cores that each may use; each runs this many forward passes at a time.
    memory_bytes : int
        Memory that each may use. A worker that uses more is ended and its blocks are run again.
    local_directory : str, optional
        Scratch folder of the workers; by default in the system's folder for temporary files.

    Raises
    ------
    ClusterError
        If a value is not positive.
    """

    workers: int
    cores: int
    memory_bytes: int
    local_directory: str | None = None

    def __post_init__(self) -> None:
        if min(self.workers, self.cores, self.memory_bytes) < 1:
            raise ClusterError(
                f"workers={self.workers}, cores={self.cores}, memory={self.memory_bytes}: expected positive values."
            )

    @property
    def usable_bytes(self) -> int:
        """Memory that a worker may use without being ended."""
        return int(self.memory_bytes * TERMINATE_FRACTION)

    @property
    def tasks_per_worker(self) -> int:
        """Dask threads per worker: one more than cores, so that reading and writing overlap with computing."""
        return self.cores + 1


def plan_local(workers: int | None = None) -> LocalSpec:
    """Share this machine's cores and memory among worker processes.

    Parameters
    ----------
    workers : int, optional
        Processes; by default one per four cores.

    Raises
    ------
    ClusterError
        If more workers are asked for than there are cores.
    """
    cores = len(os.sched_getaffinity(0))
    workers = workers if workers is not None else -(-cores // CORES_PER_WORKER)
    if not 1 <= workers <= cores:
        raise ClusterError(f"workers={workers}, expected 1 to {cores}: this machine lends {cores} core(s).")
    return LocalSpec(workers, cores // workers, int(memory_limit() * 0.9) // workers)


def complete_local(spec: ClusterSpec) -> ClusterSpec:
    """Fill in each worker's share.

    Raises
    ------
    ClusterError
        If it is more than this machine has.
    """
    planned = plan_local(spec.workers)
    if spec.cores is not None and spec.cores > planned.cores:
        raise ClusterError(
            f"cores={spec.cores} for each of {planned.workers} worker(s), expected at most {planned.cores}: this "
            "machine lends no more."
        )
    if spec.memory_bytes is not None and spec.memory_bytes > planned.memory_bytes / 0.9:
        raise ClusterError(
            f"memory={spec.memory_bytes / 2**30:.1f} GiB for each of {planned.workers} worker(s), expected at most "
            f"{planned.memory_bytes / 2**30:.1f} GiB: this machine has no more."
        )
    return replace(
        spec,
        workers=planned.workers,
        cores=spec.cores or planned.cores,
        memory_bytes=spec.memory_bytes or planned.memory_bytes,
    )


@contextlib.contextmanager
def local_client(spec: LocalSpec) -> Iterator["Client"]:
    """Start the workers and yield a client. At the end, also after an error, end the workers.

    Parameters
    ----------
    spec : LocalSpec
        What to start.

    Yields
    ------
    Client
        Connected, with all workers. Scheduler and workers listen on loopback only; there is no dashboard.

    Raises
    ------
    ClusterError
        If the workers cannot be started.
    """
    from distributed import LocalCluster

    from segment_slide.cluster.kinds.this_machine import run_cluster

    with run_cluster(
        LocalCluster,
        n_workers=spec.workers,
        threads_per_worker=spec.tasks_per_worker,
        memory_limit=spec.memory_bytes,
        local_directory=spec.local_directory,
        processes=True,
        host="127.0.0.1",
        # the scheduler's HTTP server always runs; Dask's default is port 8787 on every interface
        dashboard_address="127.0.0.1:0",
        scheduler_kwargs={"dashboard": False},
        worker_dashboard_address=None,
    ) as client:
        yield client


KIND = Local()
