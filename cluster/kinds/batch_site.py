"""The site's settings of its batch system: defaults from Dask's ``jobqueue.yaml``, and values computed from them."""

import functools
import os
import sys
from dataclasses import replace
from typing import Any

from segment_slide.cluster.configuration import NETWORK, adopt_site
from segment_slide.cluster.errors import ClusterError
from segment_slide.cluster.fields import FIELDS, WrongValueError
from segment_slide.cluster.kinds.batch_check import check_interface
from segment_slide.cluster.kinds.batch_system import BatchSystem
from segment_slide.cluster.kinds.jobqueue import import_jobqueue
from segment_slide.cluster.kinds.local import CORES_PER_WORKER
from segment_slide.cluster.spec import ClusterSpec

# What counts of the site's own configuration of Dask: its batch system, and how its network is to be used.
SITE_SECTIONS = ("jobqueue", NETWORK)

_HOME_FOLDER = "~/.segment-slide"
_DEFAULT_WALLTIME_S = 1800

# The part of a job's memory that its workers do not get: for the nanny process, and for memory of the kernel that is
# counted as the job's.
_JOB_OVERHEAD_SHARE = 0.1
_LEAST_OVERHEAD_BYTES = 256 << 20
_MOST_OVERHEAD_BYTES = 4 << 30
LEAST_JOB_BYTES = 1 << 30

# A worker leaves this long before its wall time, and workers leave this far apart; at most a tenth of the wall time.
_MARGIN_S = 300
_STAGGER_S = 600


def site_value(kind: str, name: str) -> Any:
    """A setting from the site's section for that kind, such as ``jobqueue.slurm``; None if it is not set.

    Raises
    ------
    ClusterError
        If dask-jobqueue is not installed.
    """
    import dask

    import_jobqueue(kind)
    return dask.config.get(f"jobqueue.{kind}.{name}", None)


def complete_jobs(spec: ClusterSpec, system: BatchSystem) -> ClusterSpec:
    """Fill in from the site's settings, then divide each job among its workers.

    Raises
    ------
    ClusterError
        If neither the description nor the site says how much a job asks for, if that is too little, or if something is
        missing that the batch system needs. If the site's configuration cannot be read.
    """
    adopt_site(*SITE_SECTIONS)
    spec = _adopt_site(spec, system)
    check_interface(spec.interface)
    kind = system.kind
    job_cores, job_memory = spec.job_cores, spec.job_memory_bytes
    if job_cores is None or job_memory is None:
        raise ClusterError(
            f"job_cores={job_cores}, job_memory={job_memory}: kind {kind} has to know what each job asks for; "
            f"expected them in a YAML file, or cores and memory under jobqueue.{kind} in ~/.config/dask/jobqueue.yaml."
        )
    if job_memory < LEAST_JOB_BYTES:
        raise ClusterError(f"job_memory={job_memory / 2**20:.0f} MiB, expected 1 GiB or more.")
    system.check(spec)
    for key in ("python", "shared_directory", "log_directory"):
        if any(letter.isspace() for letter in getattr(spec, key)):
            raise ClusterError(
                f"{key}={getattr(spec, key)!r}, expected a path without spaces: it goes into a batch script."
            )
    processes = spec.processes or spec.gpus or -(-job_cores // CORES_PER_WORKER)
    if processes > job_cores:
        raise ClusterError(f"processes={processes}, expected at most job_cores={job_cores}.")
    overhead = min(max(int(job_memory * _JOB_OVERHEAD_SHARE), _LEAST_OVERHEAD_BYTES), _MOST_OVERHEAD_BYTES)
    jobs = spec.maximum or spec.jobs or 1
    return _with_lifetime(
        replace(
            spec,
            jobs=None if spec.maximum else jobs,
            processes=processes,
            workers=jobs * processes,
            cores=spec.cores or (1 if spec.gpus else job_cores // processes),
            memory_bytes=(job_memory - overhead) // processes,
        )
    )


def _adopt_site(spec: ClusterSpec, system: BatchSystem) -> ClusterSpec:
    """Fill in from the site's settings what the description leaves open."""
    folder = os.path.join(os.path.expanduser(_HOME_FOLDER), system.kind)
    read = functools.partial(_read_site, system)
    lines = functools.partial(site_value, system.kind)
    return replace(
        spec,
        job_cores=spec.job_cores or read("cores", "job_cores"),
        job_memory_bytes=spec.job_memory_bytes or read("memory", "job_memory"),
        processes=spec.processes or (None if spec.gpus else read("processes", "processes")),
        walltime_s=spec.walltime_s or read("walltime", "walltime") or _DEFAULT_WALLTIME_S,
        partition=spec.partition or read("queue", "partition"),
        account=spec.account or read(system.account_setting, "account"),
        interface=spec.interface or (None if spec.host else read("interface", "interface")),
        python=spec.python or read("python", "python") or sys.executable,
        shared_directory=spec.shared_directory or read("shared-temp-directory", "shared_directory") or folder,
        log_directory=spec.log_directory or read("log-directory", "log_directory") or os.path.join(folder, "logs"),
        local_directory=spec.local_directory or read("local-directory", "local_directory"),
        directives=(*(lines("job-extra-directives") or ()), *spec.directives),
        omit_directives=(*(lines("job-directives-skip") or ()), *spec.omit_directives),
        prologue=(*(lines("job-script-prologue") or ()), *spec.prologue),
    )


def _read_site(system: BatchSystem, name: str, key: str) -> Any:
    value = site_value(system.kind, name)
    if value is None:
        return None
    try:
        return system.read_walltime(value) if key == "walltime" else FIELDS[key].read(value)
    except WrongValueError as error:
        raise ClusterError(
            f"jobqueue.{system.kind}.{name}={value!r} in Dask's configuration, expected {error}."
        ) from None


def _with_lifetime(spec: ClusterSpec) -> ClusterSpec:
    walltime = spec.walltime_s or _DEFAULT_WALLTIME_S
    stagger = spec.stagger_s if spec.stagger_s is not None else min(_STAGGER_S, walltime // 10)
    lifetime = spec.lifetime_s or max(walltime - min(_MARGIN_S, walltime // 10) - stagger, 1)
    return replace(spec, lifetime_s=lifetime, stagger_s=stagger)
