"""What the site says of its SLURM: defaults from Dask's ``jobqueue.yaml``, and what follows from them."""

import os
import sys
from dataclasses import replace
from typing import Any

from segment_slide.cluster.errors import ClusterError
from segment_slide.cluster.fields import FIELDS, WrongValueError
from segment_slide.cluster.kinds.jobqueue import import_jobqueue
from segment_slide.cluster.kinds.local import CORES_PER_WORKER
from segment_slide.cluster.spec import ClusterSpec

_HOME_FOLDER = "~/.segment-slide/slurm"
_DEFAULT_WALLTIME_S = 1800

# Of a job's memory, what its workers do not get: the nanny process, and what the kernel counts as the job's.
_JOB_OVERHEAD_SHARE = 0.1
_LEAST_OVERHEAD_BYTES = 256 << 20
_MOST_OVERHEAD_BYTES = 4 << 30
LEAST_JOB_BYTES = 1 << 30

# A worker leaves so long before its wall time, and so far apart from the others, or a tenth of it if that is less.
_MARGIN_S = 300
_STAGGER_S = 600


def site_value(name: str) -> Any:
    """A setting of the site's ``jobqueue.slurm`` section; None if there is none.

    Raises
    ------
    ClusterError
        If dask-jobqueue is not installed.
    """
    import dask

    import_jobqueue()
    return dask.config.get(f"jobqueue.slurm.{name}", None)


def complete_slurm(spec: ClusterSpec) -> ClusterSpec:
    """Fill in from the site's settings, then divide each job among its workers.

    Raises
    ------
    ClusterError
        If neither says how much a job asks for, or it is too little.
    """
    spec = _adopt_site(spec)
    job_cores, job_memory = spec.job_cores, spec.job_memory_bytes
    if job_cores is None or job_memory is None:
        raise ClusterError(
            f"job_cores={job_cores}, job_memory={job_memory}: kind slurm has to know what each job asks for; expected "
            "them in a YAML file, or cores and memory under jobqueue.slurm in ~/.config/dask/jobqueue.yaml."
        )
    if job_memory < LEAST_JOB_BYTES:
        raise ClusterError(f"job_memory={job_memory / 2**20:.0f} MiB, expected 1 GiB or more.")
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


def _adopt_site(spec: ClusterSpec) -> ClusterSpec:
    """What the description leaves open and the site says."""
    folder = os.path.expanduser(_HOME_FOLDER)
    return replace(
        spec,
        job_cores=spec.job_cores or _read_site("cores", "job_cores"),
        job_memory_bytes=spec.job_memory_bytes or _read_site("memory", "job_memory"),
        processes=spec.processes or (None if spec.gpus else _read_site("processes", "processes")),
        walltime_s=spec.walltime_s or _read_site("walltime", "walltime") or _DEFAULT_WALLTIME_S,
        partition=spec.partition or _read_site("queue", "partition"),
        account=spec.account or _read_site("account", "account"),
        interface=spec.interface or (None if spec.host else _read_site("interface", "interface")),
        python=spec.python or _read_site("python", "python") or sys.executable,
        shared_directory=spec.shared_directory or _read_site("shared-temp-directory", "shared_directory") or folder,
        log_directory=spec.log_directory
        or _read_site("log-directory", "log_directory")
        or os.path.join(folder, "logs"),
        local_directory=spec.local_directory or _read_site("local-directory", "local_directory"),
        directives=(*(site_value("job-extra-directives") or ()), *spec.directives),
        omit_directives=(*(site_value("job-directives-skip") or ()), *spec.omit_directives),
        prologue=(*(site_value("job-script-prologue") or ()), *spec.prologue),
    )


def _read_site(name: str, key: str) -> Any:
    value = site_value(name)
    if value is None:
        return None
    try:
        return FIELDS[key].read(value)
    except WrongValueError as error:
        raise ClusterError(f"jobqueue.slurm.{name}={value!r} in Dask's configuration, expected {error}.") from None


def _with_lifetime(spec: ClusterSpec) -> ClusterSpec:
    walltime = spec.walltime_s or _DEFAULT_WALLTIME_S
    stagger = spec.stagger_s if spec.stagger_s is not None else min(_STAGGER_S, walltime // 10)
    lifetime = spec.lifetime_s or max(walltime - min(_MARGIN_S, walltime // 10) - stagger, 1)
    return replace(spec, lifetime_s=lifetime, stagger_s=stagger)
