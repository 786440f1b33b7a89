"""Workers in SLURM jobs: what each job is told, and a client while they run. Nothing is left in the queue."""

import contextlib
import logging
import os
import secrets
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from segment_slide.cluster.errors import ClusterError
from segment_slide.cluster.kinds.slurm_queue import cancel_jobs, list_jobs
from segment_slide.cluster.kinds.slurm_site import site_value
from segment_slide.cluster.security import new_security, private_folder
from segment_slide.cluster.settings import PRELOAD, SETTINGS, job_exports, quieten
from segment_slide.cluster.spec import ClusterSpec
from segment_slide.cluster.waiting import JobWatch, wait_for_workers

if TYPE_CHECKING:
    from distributed import Client
    from distributed.security import Security

log = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1:0"

# A worker that is lost while its job runs may be one that its nanny starts again: importing takes a while on a busy
# file system. Jobs that ended are replaced sooner, by what squeue says.
_LOST_WORKER_S = 60

# With limits that differ, a job is given back after so many seconds without work for it.
_IDLE_S = 60


def job_options(spec: ClusterSpec, name: str) -> dict[str, Any]:
    """What dask-jobqueue is told of each job.

    Parameters
    ----------
    spec : ClusterSpec
        Complete.
    name : str
        Of the run's jobs.
    """
    processes, cores = spec.processes or 1, spec.job_cores or 1
    mebibytes = -(-(spec.job_memory_bytes or 0) // 2**20)
    directives = list(spec.directives)
    if spec.gpus:
        directives.insert(0, f"--gres={spec.gres or f'gpu:{spec.gpus}'}")
    lifetime = {
        "distributed.worker.lifetime.duration": f"{spec.lifetime_s}s",
        "distributed.worker.lifetime.stagger": f"{spec.stagger_s}s",
    }
    return {
        "job_name": name,
        "queue": spec.partition,
        "account": spec.account,
        "walltime": _clock(spec.walltime_s or 0),
        "processes": processes,
        # Dask's threads, of which there is one more than the job's cores; SLURM gets its own numbers
        "cores": processes * spec.tasks_per_worker,
        "memory": f"{processes * (spec.memory_bytes or 0)}B",
        "job_cpu": cores,
        "job_mem": f"{mebibytes}M",
        "job_extra_directives": directives,
        "job_directives_skip": list(spec.omit_directives),
        "interface": spec.interface,
        "death_timeout": spec.death_timeout_s,
        "local_directory": spec.local_directory,
        "log_directory": spec.log_directory,
        "python": spec.python,
        # dask-cuda's command knows no --lifetime and would take it for an argument of the preload: so the environment
        "job_script_prologue": [*job_exports(lifetime), *spec.prologue],
        "worker_command": "dask_cuda.cli" if spec.dask_cuda else "distributed.cli.dask_worker",
        "worker_extra_args": [
            *(site_value("worker-extra-args") or ()),
            *("--preload", PRELOAD),
            *("--dashboard-address", LOOPBACK, "--no-dashboard"),
            *(("--device-memory-limit", "0") if spec.dask_cuda else ()),
        ],
    }


def job_script(spec: ClusterSpec, name: str, scheduler: str, security: "Security | None" = None) -> str:
    """The batch script of one job, as it would be given to ``sbatch``; to be looked at.

    Parameters
    ----------
    spec : ClusterSpec
        Complete.
    name, scheduler : str
        Of the run's jobs, and the address that its workers join.
    security : Security, optional
        With certificates in files.
    """
    from segment_slide.cluster.kinds.slurm_job import WorkerJob

    protocol = None if security is None else "tls://"
    options = job_options(spec, name)
    return str(WorkerJob(scheduler, name=f"{name}-0", protocol=protocol, security=security, **options).job_script())


@contextlib.contextmanager
def slurm_client(spec: ClusterSpec) -> Iterator["Client"]:
    """Submit the jobs, yield a client once their workers are there, and cancel them however the body ends.

    Parameters
    ----------
    spec : ClusterSpec
        Complete.

    Raises
    ------
    ClusterError
        If SLURM refuses the jobs, or their workers do not come in time, with what squeue says.
    """
    import dask
    from distributed import Client

    from segment_slide.cluster.kinds.slurm_hold import HeldJobs
    from segment_slide.cluster.kinds.slurm_job import JobCluster

    name = f"segment-slide-{secrets.token_hex(4)}"
    list_jobs(name)  # is there a SLURM at all?
    quieten()
    refusals: list[str] = []
    settings = {
        **SETTINGS,
        "distributed.deploy.lost-worker-timeout": _LOST_WORKER_S,
        "distributed.scheduler.no-workers-timeout": None,  # jobs may be in the queue for days
    }
    with (
        dask.config.set(settings),
        _folders(spec, name) as shared,
        _no_job_left(name),
        JobCluster(
            name=name,
            security=new_security(shared),
            scheduler_options=_scheduler_options(spec),
            on_refused=refusals.append,
            **job_options(spec, name),
        ) as cluster,
        Client(cluster) as client,
    ):
        held = cluster.adapt(
            Adaptive=HeldJobs,
            refusals=refusals,
            minimum_jobs=spec.jobs_needed,
            maximum_jobs=spec.jobs_most,
            interval="1s",
            wait_count=_IDLE_S,
        )
        wait_for_workers(client, spec, JobWatch(name, refusals, held.early_ends, spec.log_directory or ""))
        yield client


def _scheduler_options(spec: ClusterSpec) -> dict[str, Any]:
    """The site's, and where the scheduler listens: for workers with TLS, for browsers on loopback, no dashboard."""
    options = {**(site_value("scheduler-options") or {}), "dashboard_address": LOOPBACK, "dashboard": False}
    if spec.host:
        options["host"] = spec.host
    return options


@contextlib.contextmanager
def _folders(spec: ClusterSpec, name: str) -> Iterator[str]:
    """The jobs' log folder, which stays, and one for certificates."""
    log_directory = spec.log_directory or ""
    try:
        os.makedirs(log_directory, mode=0o700, exist_ok=True)
    except OSError as error:
        raise ClusterError(f"log_directory={log_directory}: cannot be made: {error.strerror}.") from None
    with private_folder(spec.shared_directory or "", f"{name}-") as shared:
        yield shared


@contextlib.contextmanager
def _no_job_left(name: str) -> Iterator[None]:
    """Cancel by name what the cluster, whose end can itself be interrupted, did not."""
    try:
        yield
    finally:
        try:
            if list_jobs(name):
                cancel_jobs(name)
        except ClusterError as error:  # what ended the body matters more; workers end without a scheduler
            log.warning("jobs %s may be left in the queue: %s", name, error)


def _clock(seconds: int) -> str:
    """SLURM's notation.

    Examples
    --------
    >>> _clock(5400)
    '01:30:00'
    """
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
