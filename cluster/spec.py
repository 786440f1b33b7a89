"""Where the work runs: one frozen description for a laptop, a machine with GPUs and a cluster.

This file holds only integers and names: no Dask, no SLURM. `cluster.describe` reads a description from a word or a
file, `cluster.complete` fills in what it leaves open, and `cluster.connect` turns it into a client. How each kind uses
it is in that kind's file: see `cluster.table`.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

from segment_slide.cluster.errors import ClusterError
from segment_slide.cluster.settings import TERMINATE_FRACTION


@dataclass(frozen=True)
class ClusterSpec:
    """One Dask cluster. None means: use the default of the machine or of the site's ``jobqueue.yaml``.

    Parameters
    ----------
    kind : str
        One of `cluster.table`: processes here, one process per GPU here, jobs of a batch system, or a scheduler that
        runs already.
    workers : int, optional
        Number of worker processes, for the kinds local and cuda. For the other kinds it is computed.
    cores : int, optional
        Forward passes at a time in each worker: its cores, or 1 with a GPU.
    memory_bytes : int, optional
        Memory of each worker. A worker that uses more is ended and its blocks are run again.
    jobs : int, optional
        Jobs of a batch system. A job that ends is replaced, so the number stays. Exclusive with `minimum` and
        `maximum`.
    minimum, maximum : int, optional
        Least and greatest number of jobs. The amount of waiting work decides how many there are.
    processes : int, optional
        Workers per job; by default one per four cores, or one per GPU.
    job_cores, job_memory_bytes : int, optional
        Cores and memory that each job requests.
    gpus : int
        GPUs of each job, or of each worker of kind cuda. A worker uses one.
    gres : str, optional
        SLURM only: text for ``--gres`` where the site needs another than ``gpu:N``, e.g. "gpu:a100:1".
    dask_cuda : bool
        Start dask-cuda workers; needed for more than one GPU per job.
    partition, account, walltime_s, directives, omit_directives
        Queue of the jobs, account that is charged, and time limit of a job. `directives` are further lines of the job
        script, such as ``#SBATCH`` lines; `omit_directives` are words of lines to leave out because the site refuses
        them.
    interface, host : str, optional
        Network interface of the scheduler and of workers in jobs; address at which the scheduler listens.
    lifetime_s, stagger_s : int, optional
        A worker in a job leaves after lifetime ± stagger: before its wall time ends, and not all workers at once.
    wait_s : int
        How long to wait for the workers.
    death_timeout_s : int
        A worker in a job ends itself when it has found no scheduler for this long.
    python : str, optional
        Interpreter on the nodes.
    prologue : tuple of str
        Shell lines of the job script before the worker starts.
    shared_directory, log_directory, local_directory : str, optional
        Folder that the nodes share, for certificates; folder of the jobs' output; folder in which workers make a
        private scratch folder.
    address : str, optional
        Scheduler to join: ``tcp://host:port`` or ``tls://host:port``.
    allow_unencrypted : bool
        Join an address with ``tcp://``, where whoever reaches the scheduler can run code as its owner.
    tls_ca_file, tls_cert, tls_key : str, optional
        PEM files for an address with ``tls://``.
    block_time_limit_s : int, optional
        A worker that is busy with one task for longer is taken to hang and is ended: see `cluster.time_limit`.
    own : tuple of (str, value)
        Values that only this kind uses, by name.

    Raises
    ------
    ClusterError
        If a number is not positive. Each kind checks its further conditions itself.
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
    allow_unencrypted: bool = False
    tls_ca_file: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    block_time_limit_s: int | None = None
    own: tuple[tuple[str, Any], ...] = ()

    def __post_init__(self) -> None:
        """Check that numbers are positive. Only `gpus` and `stagger_s` may be zero."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            least = 0 if field.name in ("gpus", "stagger_s") else 1
            if isinstance(value, int) and not isinstance(value, bool) and value < least:
                key = field.name.removesuffix("_s")
                unit = "" if key == field.name else " s"
                raise ClusterError(f"{key}={value}{unit}, expected {least} or more.")

    @property
    def usable_bytes(self) -> int:
        """Memory that a worker may use without being ended."""
        return int(self._known("memory_bytes") * TERMINATE_FRACTION)

    @property
    def tasks_per_worker(self) -> int:
        """Dask threads per worker: one more than its forward passes, so reading and writing overlap with computing."""
        return self._known("cores") + 1

    @property
    def workers_needed(self) -> int:
        """Number of workers that must have arrived before the work begins."""
        if self.address is not None:
            return 1
        return self._known("workers") if self.processes is None else self.jobs_needed * self.processes

    @property
    def jobs_needed(self) -> int:
        """Number of jobs that must run before the work begins."""
        return self.minimum or self._known("jobs")

    @property
    def jobs_most(self) -> int:
        """Greatest number of jobs."""
        return self.maximum or self._known("jobs")

    @property
    def has_gpus(self) -> bool:
        """Whether workers are promised a GPU."""
        return self.gpus > 0

    def own_value(self, name: str) -> Any:
        """A value that only this kind uses; None if it was not given."""
        return dict(self.own).get(name)

    def _known(self, name: str) -> int:
        value = getattr(self, name)
        if value is None:
            raise ClusterError(f"{name} of kind {self.kind} is not known yet; complete the description first.")
        return int(value)
