"""Where the work runs, decided before anything starts: one frozen description for a laptop, a GPU box and a cluster.

Only integers and names here: no Dask, no SLURM. `cluster.describe` reads one from a word or a file, `cluster.complete`
fills in what it leaves open, `cluster.connect` turns it into a client. What a kind makes of it is in its own file: see
`cluster.table`.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

from segment_slide.cluster.errors import ClusterError
from segment_slide.cluster.settings import TERMINATE_FRACTION


@dataclass(frozen=True)
class ClusterSpec:
    """One Dask cluster. None means: decide for me, by the machine or the site's ``jobqueue.yaml``.

    Parameters
    ----------
    kind : str
        One of `cluster.table`: processes here, one process per GPU here, jobs of a batch system, or a scheduler that
        runs already.
    workers : int, optional
        Worker processes, of kinds local and cuda. Of the others it is filled in.
    cores : int, optional
        Forward passes at a time in each worker: its cores, or 1 with a GPU.
    memory_bytes : int, optional
        Memory of each worker; one that passes it is ended and its blocks are run again.
    jobs : int, optional
        Jobs of a batch system, held at that number: one that ends is replaced. Exclusive with `minimum` and `maximum`.
    minimum, maximum : int, optional
        Jobs that there are at least and at most; how many is decided by the work that waits.
    processes : int, optional
        Workers per job; by default one per four cores, or one per GPU.
    job_cores, job_memory_bytes : int, optional
        What each job asks for.
    gpus : int
        GPUs of each job, or of each worker of kind cuda. A worker uses one.
    gres : str, optional
        SLURM: text for ``--gres`` where ``gpu:N`` is not it, e.g. "gpu:a100:1".
    dask_cuda : bool
        Start dask-cuda workers; needed for more than one GPU per job.
    partition, account, walltime_s, directives, omit_directives
        Queue of the jobs, who pays, longest time; further directives of the job script as ``#SBATCH`` lines, and words
        of those that the site refuses.
    interface, host : str, optional
        Network interface of scheduler and workers in jobs, address at which the scheduler listens.
    lifetime_s, stagger_s : int, optional
        A worker in a job leaves after lifetime ± stagger, before its wall time ends, and not all at once.
    wait_s : int
        How long to wait for the workers.
    death_timeout_s : int
        A worker in a job that has found no scheduler for so long ends itself.
    python : str, optional
        Interpreter on the nodes.
    prologue : tuple of str
        Shell lines of the job script before the worker starts.
    shared_directory, log_directory, local_directory : str, optional
        Folder that the nodes share, for certificates; folder of the jobs' output; scratch of each worker.
    address : str, optional
        Scheduler to join: ``tcp://host:port`` or ``tls://host:port``.
    tls_ca_file, tls_cert, tls_key : str, optional
        PEM files for an address with ``tls://``.
    block_time_limit_s : int, optional
        A worker that is busy with one task for longer hangs and is ended: see `cluster.time_limit`.
    own : tuple of (str, value)
        What only this kind makes sense of, by name.

    Raises
    ------
    ClusterError
        If a number is not positive. What a kind needs besides, it checks itself.
    """

    kind: str = "local"
    workers: int | None = None
    cores: int | None = None
    memory_bytes: int | None = None
    jobs: int | None = None
    minimum: int | None = None
    maximum: int | None = None
    processes: int | None = None
    job_cores: int | None = None
    job_memory_bytes: int | None = None
    gpus: int = 0
    gres: str | None = None
    dask_cuda: bool = False
    partition: str | None = None
    account: str | None = None
    walltime_s: int | None = None
    directives: tuple[str, ...] = ()
    omit_directives: tuple[str, ...] = ()
    interface: str | None = None
    host: str | None = None
    lifetime_s: int | None = None
    stagger_s: int | None = None
    wait_s: int = 600
    death_timeout_s: int = 60
    python: str | None = None
    prologue: tuple[str, ...] = ()
    shared_directory: str | None = None
    log_directory: str | None = None
    local_directory: str | None = None
    address: str | None = None
    tls_ca_file: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    block_time_limit_s: int | None = None
    own: tuple[tuple[str, Any], ...] = ()

    def __post_init__(self) -> None:
        """Numbers that are given are positive; zero is a number of GPUs only."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            least = 0 if field.name in ("gpus", "stagger_s") else 1
            if isinstance(value, int) and not isinstance(value, bool) and value < least:
                raise ClusterError(f"{field.name}={value}, expected {least} or more.")

    @property
    def usable_bytes(self) -> int:
        """Memory at which a worker is not yet ended."""
        return int(self._known("memory_bytes") * TERMINATE_FRACTION)

    @property
    def tasks_per_worker(self) -> int:
        """Dask threads per worker: one more than forward passes, so that reading and writing overlap with computing."""
        return self._known("cores") + 1

    @property
    def workers_needed(self) -> int:
        """Workers that have to be there before the work begins."""
        if self.address is not None:
            return 1
        return self._known("workers") if self.processes is None else self.jobs_needed * self.processes

    @property
    def jobs_needed(self) -> int:
        """Jobs that have to run before the work begins."""
        return self.minimum or self._known("jobs")

    @property
    def jobs_most(self) -> int:
        """Jobs at the most."""
        return self.maximum or self._known("jobs")

    @property
    def has_gpus(self) -> bool:
        """Whether workers are promised a GPU."""
        return self.gpus > 0

    def own_value(self, name: str) -> Any:
        """A value that only this kind makes sense of; None if it was not given."""
        return dict(self.own).get(name)

    def _known(self, name: str) -> int:
        value = getattr(self, name)
        if value is None:
            raise ClusterError(f"{name} of kind {self.kind} is not known yet; complete the description first.")
        return int(value)
