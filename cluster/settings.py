"""The environment and the Dask settings of every worker, and both as shell lines for job scripts."""

import json
import logging
import shlex
from collections.abc import Mapping
from typing import Any

from segment_slide.cluster.patience import COMM_S, NO_WORKERS_S, SILENT_WORKER_S

# Every layer allocates and frees feature maps of tens of MB. By default, glibc gets each from the kernel and returns
# it, page by page. One heap in huge pages that keeps freed memory made forward passes 1.1 to 1.4 times as fast as heaps
# that return it at once; in one run 0.95 times (benchmarks/allocator.py). Allocations above glibc's largest threshold
# are still returned: keeping these too hardly made passes faster and took up to twice the memory.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
    "THP_MEM_ALLOC_ENABLE": "1",
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": f"{32 << 20}",
    "MALLOC_TRIM_THRESHOLD_": f"{128 << 20}",
}

# Python looks for modules in the current folder first when it starts a worker. A file named `random.py` or `copy.py`
# there would be taken for Python's own, and no worker would start.
SAFE_PATH = {"PYTHONSAFEPATH": "1"}

PRELOAD = "segment_slide.cluster.preload"

# A worker is ended when it uses this share of its memory. Below it nothing happens.
TERMINATE_FRACTION = 0.98

# Errors of blocks are collected and reported once per block, so Dask need not log them. A worker that was ended is
# worth a line.
LOG_LEVELS = {
    "distributed": "error",
    "distributed.nanny": "warning",
    "distributed.worker": "critical",
    "distributed.diskutils": "critical",  # the scratch folder is removed by us, as a whole
}

# A worker in a job logs to a file of its own. It is read only when something went wrong, so it may be long.
_JOB_LOG_LEVELS = {"distributed": "info"}

_MEMORY_SETTINGS: dict[str, Any] = {
    # Blocks are written to their shards at once. Spilling them to disk, or pausing a worker, would only cost time.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": TERMINATE_FRACTION,
}

# Dask waits this long after a worker's death and then forgets the worker for good, although its nanny may be about to
# start it again. With a single worker the run would hang. So workers on this machine are never forgotten.
_NEVER_S = 10**8

_QUIET_SETTINGS: dict[str, Any] = {
    # Dask samples every thread's stack a hundred times a second and keeps the samples for its dashboard, which is off.
    # That took 45 MiB, a third of the growth of each worker over a run of 2,500 blocks (benchmarks/memory_slope.py).
    "distributed.worker.profile.enabled": False,
}

# Dask always starts HTTP servers, which ask nobody for a certificate, so they have no pages. That all else is encrypted
# is required of each process by the certificates that it is given, not by a setting: that would hold for other clusters
# of the same program, too.
PRIVATE_SETTINGS: dict[str, Any] = {
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
}

# All that differs from Dask's own defaults in the process that holds the scheduler and the client, and in the workers
# that it starts itself. `cluster.configuration.exactly` puts it in force. What a user's own configuration of Dask says
# does not count there.
SETTINGS: dict[str, Any] = {
    "distributed.deploy.lost-worker-timeout": _NEVER_S,
    "distributed.scheduler.no-workers-timeout": NO_WORKERS_S,
    "distributed.scheduler.worker-ttl": SILENT_WORKER_S,
    "distributed.comm.timeouts.connect": COMM_S,
    "distributed.comm.timeouts.tcp": COMM_S,
    "distributed.nanny.pre-spawn-environ": {**ENVIRONMENT, **SAFE_PATH},
    "distributed.worker.preload": [PRELOAD],
    **_MEMORY_SETTINGS,
    **_QUIET_SETTINGS,
    **PRIVATE_SETTINGS,
    "distributed.scheduler.allowed-failures": 3,
    "logging": LOG_LEVELS,
}


# A worker in a job runs where the site's own files are, so it is told what they may not add.
_NOTHING_ELSE: dict[str, Any] = {
    "distributed.nanny.preload": [],
    "distributed.worker.preload": [],
    "distributed.worker.lifetime.restart": False,
}


def quieten() -> None:
    """Set the levels of Dask's loggers in this process. Workers get them from the configuration."""
    for name, level in LOG_LEVELS.items():
        logging.getLogger(name).setLevel(level.upper())
    for name in ("distributed.scheduler", "distributed.client"):
        logging.getLogger(name).addFilter(_is_not_of_tasks)
    logging.getLogger("asyncio").addFilter(_is_not_of_waiting)


def _is_not_of_waiting(record: logging.LogRecord) -> bool:
    """Hide two harmless messages about coroutines that nobody awaited.

    Ctrl-C while waiting for a result leaves one of Dask's client; Ctrl-C while workers start leaves their nannies'.
    """
    error = record.exc_info[1] if record.exc_info else None
    return type(error).__name__ != "AllExit" and not str(error).endswith("Nanny failed to start.")


def _is_not_of_tasks(record: logging.LogRecord) -> bool:
    """Hide messages about single tasks: they name only a key, and our own error says which block failed.

    Also hide that a worker was lost while all were asked something: `cluster.waiting` asks again.

    Examples
    --------
    >>> of_task = {"msg": "Task %s marked as failed because %d workers died", "args": ("run_chunk-1", 4)}
    >>> _is_not_of_tasks(logging.makeLogRecord(of_task)), _is_not_of_tasks(logging.makeLogRecord({"msg": "no memory"}))
    (False, True)
    """
    return not str(record.msg).startswith(("Task %s marked as failed", "Couldn't gather", "broadcast to "))


def job_exports(more: Mapping[str, Any]) -> list[str]:
    """Shell lines for a job script: they give its worker the environment and settings of a local worker.

    Parameters
    ----------
    more : mapping
        Further settings of Dask, by dotted name.

    Examples
    --------
    >>> job_exports({"distributed.worker.lifetime.duration": "300s"})[-1]
    'export DASK_DISTRIBUTED__WORKER__LIFETIME__DURATION=300s'
    """
    settings = {
        **_MEMORY_SETTINGS,
        **_QUIET_SETTINGS,
        "distributed.comm.require-encryption": True,
        **PRIVATE_SETTINGS,
        **_NOTHING_ELSE,
        "logging": _JOB_LOG_LEVELS,
        **more,
    }
    variables = {**ENVIRONMENT, **SAFE_PATH, **{_variable(name): _text(value) for name, value in settings.items()}}
    return [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]


def _text(value: Any) -> str:
    return json.dumps(value) if isinstance(value, dict) else str(value)


def _variable(name: str) -> str:
    """The environment variable from which Dask reads this setting."""
    return "DASK_" + name.upper().replace(".", "__").replace("-", "_")
