"""Workers in jobs of a batch system: the options of each job, and a client while they run. No job is left behind."""

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from segment_slide.cluster.configuration import exactly
from segment_slide.cluster.errors import ClusterError
from segment_slide.cluster.fields import Field, choose_fields
from segment_slide.cluster.kind import Job, Kind, Remedies
from segment_slide.cluster.kinds.batch_check import check_jobs
from segment_slide.cluster.kinds.batch_site import SITE_SECTIONS, complete_jobs, site_value
from segment_slide.cluster.kinds.batch_system import BatchSystem
from segment_slide.cluster.kinds.batch_watch import JobWatch
from segment_slide.cluster.security import new_security, private_folder
from segment_slide.cluster.settings import PRELOAD, PRIVATE_SETTINGS, SETTINGS, job_exports, quieten
from segment_slide.cluster.spec import ClusterSpec
from segment_slide.cluster.waiting import wait_for_workers

if TYPE_CHECKING:
    from distributed import Client
    from distributed.security import Security

log = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1:0"

_LAUNCHER = "segment_slide.cluster.kinds.batch_worker"

# Wait this long for a worker that was lost while its job runs: its nanny may start it again, and importing takes a
# while on a busy file system. Jobs that ended are replaced sooner, because the queue shows that they ended.
_LOST_WORKER_S = 60

# Where `maximum` is above `minimum`, a job is given back after this many seconds without work.
_IDLE_S = 60

# Connections of a worker to the scheduler, and some to spare while it is replaced by another.
_FILES_PER_WORKER = 4


class BatchKind(Kind):
    """Jobs of any batch system.

    Parameters
    ----------
    system : BatchSystem
        The directives and commands of that batch system.
    """

    counted = "jobs"
    is_elsewhere = True

    def __init__(self, system: BatchSystem) -> None:
        self.system = system
        self.fields: Mapping[str, Field] = {
            **choose_fields("jobs", "minimum", "maximum", "processes", "job_cores", "job_memory", "cores"),
            **choose_fields("gpus", "dask_cuda", "walltime", "lifetime", "stagger", "wait", "death_timeout"),
            **choose_fields("directives", "omit_directives", "prologue", "python", "interface", "host"),
            **choose_fields("shared_directory", "log_directory", "local_directory", "block_time_limit"),
            **system.fields,
        }

    def check(self, spec: ClusterSpec) -> None:
        """Check that the numbers of jobs, GPUs and times do not contradict each other."""
        check_jobs(spec, self.system.title)

    def complete(self, spec: ClusterSpec, *, short_tasks: bool = False) -> ClusterSpec:
        """Fill in from the site's settings. `short_tasks` changes nothing: a job's cores are always divided alike."""
        if spec.memory_bytes is not None:
            return spec
        complete = complete_jobs(spec, self.system)
        self.check(complete)
        return complete

    def open(self, spec: ClusterSpec) -> contextlib.AbstractContextManager["Client"]:
        """Submit the jobs."""
        return batch_client(spec, self.system)

    def remedies(self, spec: ClusterSpec) -> Remedies:
        """Advice: a job can ask for more memory."""
        deaths = f"If memory was short, ask for more job_memory; what the workers wrote is in {spec.log_directory}."
        return Remedies("job_memory", self.system.gpu_remedy, deaths)

    def find_job(self, environment: Mapping[str, str]) -> Job | None:
        """Find the job by the environment variable that holds its number."""
        return self.system.find_job(environment)


def job_options(spec: ClusterSpec, system: BatchSystem, name: str) -> dict[str, Any]:
    """The options that dask-jobqueue gets for each job.

    Parameters
    ----------
    spec : ClusterSpec
        Complete.
    system : BatchSystem
        The batch system that takes the job.
    name : str
        Name of the run's jobs.
    """
    processes, own = spec.processes or 1, system.job_options(spec, name)
    lifetime = {
        "distributed.worker.lifetime.duration": f"{spec.lifetime_s}s",
        "distributed.worker.lifetime.stagger": f"{spec.stagger_s}s",
    }
    return {
        **own,
        "job_name": name,
        "processes": processes,
        # the number of Dask's threads, one more per worker than its cores; the batch system gets its own numbers
        "cores": processes * spec.tasks_per_worker,
        "memory": f"{processes * (spec.memory_bytes or 0)}B",
        "job_extra_directives": [*own.get("job_extra_directives", ()), *spec.directives],
        "job_directives_skip": [*own.get("job_directives_skip", ()), *spec.omit_directives],
        "interface": spec.interface,
        "death_timeout": spec.death_timeout_s,
        "local_directory": spec.local_directory,
        "log_directory": spec.log_directory,
        "python": spec.python,
        # The lifetime goes through the environment: dask-cuda's command has no --lifetime and would pass it on to the
        # preload as an argument.
        "job_script_prologue": [
            *own.get("job_script_prologue", ()),
            *job_exports(lifetime),
            *spec.prologue,
        ],
        # dask-jobqueue puts `python -m` before it
        "worker_command": f"{_LAUNCHER} {'dask_cuda.cli' if spec.dask_cuda else 'distributed.cli.dask_worker'}",
        "worker_extra_args": [
            *(("--nworkers", processes) if processes > 1 and not spec.dask_cuda else ()),
            *(() if spec.dask_cuda else ("--nanny",)),
            *(site_value(system.kind, "worker-extra-args") or ()),
            *("--preload", PRELOAD),
            *("--dashboard-address", LOOPBACK, "--no-dashboard"),
            *(("--device-memory-limit", "0") if spec.dask_cuda else ()),
        ],
    }


def job_script(
    spec: ClusterSpec, system: BatchSystem, name: str, scheduler: str, security: "Security | None" = None
) -> str:
    """The batch script of one job as it would be submitted, for people to look at.

    Parameters
    ----------
    spec : ClusterSpec
        Complete.
    system : BatchSystem
        The batch system that would take it.
    name, scheduler : str
        Name of the run's jobs, and the address of the scheduler that its workers join.
    security : Security, optional
        With certificates in files.
    """
    from segment_slide.cluster.kinds.batch_job import make_classes

    protocol = None if security is None else "tls://"
    options = job_options(spec, system, name)
    job, _ = make_classes(system)
    return str(job(scheduler, name=f"{name}-0", protocol=protocol, security=security, **options).job_script())


@contextlib.contextmanager
def batch_client(spec: ClusterSpec, system: BatchSystem) -> Iterator["Client"]:
    """Submit the jobs, yield a client once their workers have connected, and cancel the jobs at the end in any case.

    Parameters
    ----------
    spec : ClusterSpec
        Complete.
    system : BatchSystem
        The batch system that takes the jobs.

    Raises
    ------
    ClusterError
        If the scheduler cannot be started, if the batch system refuses the jobs, or if their workers do not connect in
        time. The message says what the queue shows.
    """
    from segment_slide.cluster.kinds.batch_hold import HeldJobs
    from segment_slide.cluster.kinds.batch_job import make_classes
    from segment_slide.cluster.processes import allow_open_files, start_cluster

    allow_open_files((spec.workers or 1) * _FILES_PER_WORKER)
    name = system.make_name()
    system.list_jobs(name)  # fails early if this machine has no such batch system
    quieten()
    for gap in system.find_gaps(spec):
        log.warning("%s", gap)
    _, cluster_class = make_classes(system)
    refusals: list[str] = []
    settings = {
        **{name: value for name, value in SETTINGS.items() if not name.startswith("distributed.comm.")},
        **PRIVATE_SETTINGS,
        "distributed.deploy.lost-worker-timeout": _LOST_WORKER_S,
        "distributed.scheduler.no-workers-timeout": None,  # jobs may be in the queue for days
    }
    with (
        exactly(settings, keep=SITE_SECTIONS),
        _folders(spec, name) as shared,
        _no_job_left(system, name),
        start_cluster(
            cluster_class,
            name=name,
            security=new_security(shared),
            scheduler_options=_scheduler_options(spec, system),
            on_refused=lambda message: refusals.append(system.read_refusal(message)),
            **job_options(spec, system, name),
        ) as (cluster, client),
    ):
        held = cluster.adapt(
            Adaptive=HeldJobs,
            system=system,
            refusals=refusals,
            minimum_jobs=spec.jobs_needed,
            maximum_jobs=spec.jobs_most,
            interval="1s",
            wait_count=_IDLE_S,
        )
        wait_for_workers(client, spec, JobWatch(system, name, refusals, held.early_ends, spec.log_directory or ""))
        yield client


def _scheduler_options(spec: ClusterSpec, system: BatchSystem) -> dict[str, Any]:
    """The site's options, and where the scheduler listens: for workers with TLS, for HTTP on loopback, no dashboard."""
    options = {
        **(site_value(system.kind, "scheduler-options") or {}),
        "dashboard_address": LOOPBACK,
        "dashboard": False,
    }
    if spec.host:
        options["host"] = spec.host
    return options


@contextlib.contextmanager
def _folders(spec: ClusterSpec, name: str) -> Iterator[str]:
    """Make the jobs' log folder, which is kept, and a folder for certificates, which is yielded and then removed."""
    log_directory = spec.log_directory or ""
    try:
        os.makedirs(log_directory, mode=0o700, exist_ok=True)
    except OSError as error:
        raise ClusterError(f"log_directory={log_directory}: cannot be made: {error.strerror}.") from None
    with private_folder(spec.shared_directory or "", f"{name.removeprefix('segment-slide-')}-") as shared:
        yield shared


@contextlib.contextmanager
def _no_job_left(system: BatchSystem, name: str) -> Iterator[None]:
    """At the end, cancel by name the jobs that are left: the cluster's own clean-up may have been interrupted."""
    try:
        yield
    finally:
        try:
            if system.list_jobs(name):
                system.cancel_jobs(name)
        except ClusterError as error:  # do not hide the body's error; workers without a scheduler end themselves
            log.warning("jobs %s may be left in the queue: %s", name, error)
