"""Worker processes on this machine."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from segment_slide.cluster.errors import ClusterError
from segment_slide.cluster.settings import SETTINGS, TERMINATE_FRACTION, quieten

if TYPE_CHECKING:
    from distributed import Client

# One process per so many cores: on two cores, one process of two forward passes took 0.58 of the memory of two of one,
# and no more processor time (benchmarks/threads.py); with many cores Python's lock asks for more processes.
CORES_PER_WORKER = 4


@dataclass(frozen=True)
class LocalSpec:
    """Processes on this machine.

    Parameters
    ----------
    workers : int
        Processes.
    cores : int
        Cores each may use: that many forward passes at a time.
    memory_bytes : int
        Memory each may use; a worker that passes it is ended and its blocks are run again.

    Raises
    ------
    ClusterError
        If a value is not positive.
    """

    workers: int
    cores: int
    memory_bytes: int

    def __post_init__(self) -> None:
        if min(self.workers, self.cores, self.memory_bytes) < 1:
            raise ClusterError(
                f"workers={self.workers}, cores={self.cores}, memory={self.memory_bytes}: expected positive values."
            )

    @property
    def usable_bytes(self) -> int:
        """Memory at which a worker is not yet ended."""
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
    from distributed.system import MEMORY_LIMIT

    cores = len(os.sched_getaffinity(0))
    workers = workers if workers is not None else -(-cores // CORES_PER_WORKER)
    if not 1 <= workers <= cores:
        raise ClusterError(f"workers={workers}, expected 1 to {cores}: this machine lends {cores} core(s).")
    return LocalSpec(workers, cores // workers, int(MEMORY_LIMIT * 0.9) // workers)


@contextlib.contextmanager
def local_client(spec: LocalSpec) -> Iterator["Client"]:
    """Start the workers, yield a client, and end them however the body ends.

    Parameters
    ----------
    spec : LocalSpec
        What to start.

    Yields
    ------
    Client
        Connected, all workers there. Scheduler and workers listen on loopback only; there is no dashboard.
    """
    import dask
    from distributed import Client, LocalCluster

    quieten()
    with (
        dask.config.set(SETTINGS),
        LocalCluster(
            n_workers=spec.workers,
            threads_per_worker=spec.tasks_per_worker,
            memory_limit=spec.memory_bytes,
            processes=True,
            host="127.0.0.1",
            # the scheduler's HTTP server always runs; Dask's default is port 8787 on every interface
            dashboard_address="127.0.0.1:0",
            scheduler_kwargs={"dashboard": False},
            worker_dashboard_address=None,
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client
