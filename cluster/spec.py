"""Where the work runs, decided before anything starts: one frozen description for a laptop, a GPU box and a cluster.

Only integers and names here: no Dask, no SLURM. `cluster.describe` reads one from a word or a file, `cluster.complete`
fills in what it leaves open, `cluster.connect` turns it into a client.
"""

import dataclasses
from dataclasses import dataclass
from typing import Literal, get_args

from segment_slide.cluster.errors import ClusterError
from segment_slide.cluster.settings import TERMINATE_FRACTION

Kind = Literal["local", "cuda", "slurm", "address"]
KINDS: tuple[Kind, ...] = get_args(Kind)

MAX_PORT = 65535


@dataclass(frozen=True)
class ClusterSpec:
    """One Dask cluster. None means: decide for me, by the machine or the site's ``jobqueue.yaml``.

    Parameters
    ----------
    kind : {"local", "cuda", "slurm", "address"}
        Processes here, one process per GPU here, SLURM jobs, or a scheduler that runs already.
    workers : int, optional
        Worker processes, of kinds local and cuda. Of the others it is filled in.
    cores : int, optional
        Forward passes at a time in each worker: its cores, or 1 with a GPU.
    memory_bytes : int, optional
        Memory of each worker; one that passes it is ended and its blocks are run again.
    jobs : int, optional
        SLURM: jobs, held at that number: one that ends is replaced. Exclusive with `minimum` and `maximum`.
    minimum, maximum : int, optional
        SLURM: jobs that there are at least and at most; how many is decided by the work that waits.
    processes : int, optional
        SLURM: workers per job; by default one per four cores, or one per GPU.
    job_cores, job_memory_bytes : int, optional
        SLURM: what each job asks for.
    gpus : int
        SLURM: GPUs of each job. A worker uses one.
    gres : str, optional
        SLURM: text for ``--gres`` where ``gpu:N`` is not it, e.g. "gpu:a100:1".
    dask_cuda : bool
        SLURM: start dask-cuda workers; needed for more than one GPU per job.
    partition, account, walltime_s, directives, omit_directives
        SLURM: further ``#SBATCH`` lines, and words of those that the site refuses.
    interface, host : str, optional
        Network interface of scheduler and workers (SLURM), address at which the scheduler listens.
    lifetime_s, stagger_s : int, optional
        SLURM: a worker leaves after lifetime ± stagger, before its wall time ends, and not all at once.
    wait_s : int
        How long to wait for the workers.
    death_timeout_s : int
        SLURM: a worker that has found no scheduler for so long ends itself.
    python : str, optional
        SLURM: interpreter on the nodes.
    prologue : tuple of str
        SLURM: shell lines before the worker starts.
    shared_directory, log_directory, local_directory : str, optional
        Folder that the nodes share, for certificates; folder of the jobs' output; scratch of each worker.
    address : str, optional
        Scheduler to join: ``tcp://host:port`` or ``tls://host:port``.
    tls_ca_file, tls_cert, tls_key : str, optional
        PEM files for an address with ``tls://``.
    block_time_limit_s : int, optional
        A worker that is busy with one task for longer hangs and is ended: see `cluster.time_limit`.

    Raises
    ------
    ClusterError
        Impossible values, or a value that the kind does not know.
    """

    kind: Kind = "local"
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

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ClusterError(f"kind={self.kind!r}, expected one of {', '.join(KINDS)}.")
        self._check_counts()
        if self.kind == "slurm":
            self._check_jobs()
        if self.kind == "address":
            self._check_address()

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
        if self.kind == "slurm":
            return self.jobs_needed * self._known("processes")
        return 1 if self.kind == "address" else self._known("workers")

    @property
    def jobs_needed(self) -> int:
        """SLURM jobs that have to run before the work begins."""
        return self.minimum or self._known("jobs")

    @property
    def jobs_most(self) -> int:
        """SLURM jobs at the most."""
        return self.maximum or self._known("jobs")

    @property
    def has_gpus(self) -> bool:
        """Whether workers are promised a GPU."""
        return self.kind == "cuda" or self.gpus > 0

    def _known(self, name: str) -> int:
        value = getattr(self, name)
        if value is None:
            raise ClusterError(f"{name} of kind {self.kind} is not known yet; complete the description first.")
        return int(value)

    def _check_counts(self) -> None:
        """Numbers that are given are positive; zero is a number of GPUs only."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            least = 0 if field.name in ("gpus", "stagger_s") else 1
            if isinstance(value, int) and not isinstance(value, bool) and value < least:
                raise ClusterError(f"{field.name}={value}, expected {least} or more.")

    def _check_jobs(self) -> None:
        if (self.minimum is None) != (self.maximum is None):
            raise ClusterError(f"minimum={self.minimum}, maximum={self.maximum}: expected both or neither.")
        if self.minimum is not None and self.maximum is not None:
            if self.jobs is not None:
                raise ClusterError(
                    f"jobs={self.jobs} with minimum={self.minimum}: expected either a fixed number or both limits."
                )
            if self.minimum > self.maximum:
                raise ClusterError(f"minimum={self.minimum}, expected at most maximum={self.maximum}.")
        if self.dask_cuda and not self.gpus:
            raise ClusterError("dask_cuda=true with gpus=0: expected gpus of 1 or more.")
        if self.gpus > 1 and not self.dask_cuda:
            raise ClusterError(
                f"gpus={self.gpus} with dask_cuda=false: a worker uses one GPU, the others would idle; expected gpus=1 "
                "or dask_cuda=true."
            )
        if self.gpus and self.processes not in (None, self.gpus):
            raise ClusterError(f"processes={self.processes}, expected gpus={self.gpus}: one worker per GPU.")
        if self.host is not None and self.interface is not None:
            raise ClusterError(f"host={self.host} with interface={self.interface}: expected one of them.")
        self._check_lifetime()

    def _check_lifetime(self) -> None:
        lifetime, stagger = self.lifetime_s, self.stagger_s or 0
        if lifetime is not None and stagger >= lifetime:
            raise ClusterError(f"stagger={stagger} s, expected less than lifetime={lifetime} s.")
        if lifetime is not None and self.walltime_s is not None and lifetime + stagger >= self.walltime_s:
            raise ClusterError(
                f"lifetime={lifetime} s ± {stagger} s, expected to end before walltime={self.walltime_s} s: SLURM "
                "would kill the workers first."
            )

    def _check_address(self) -> None:
        scheme, _, rest = (self.address or "").partition("://")
        host, _, port = rest.rpartition(":")
        if scheme not in ("tcp", "tls") or not host or not port.isdecimal() or not 0 < int(port) <= MAX_PORT:
            raise ClusterError(f"address={self.address!r}, expected tcp://host:port or tls://host:port.")
        files = (self.tls_ca_file, self.tls_cert, self.tls_key)
        if scheme == "tcp" and any(files):
            raise ClusterError(f"address={self.address}: certificates are of no use with tcp://; expected tls://.")
        if any(files) and not all(files):
            raise ClusterError("tls_ca_file, tls_cert and tls_key: expected all three, or none (Dask's own settings).")
