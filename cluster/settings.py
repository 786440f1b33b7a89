"""What every worker starts with, wherever it runs: environment and Dask settings, and both as shell lines for jobs."""

import json
import logging
import shlex
from collections.abc import Mapping
from typing import Any

# Feature maps of tens of MB come and go with every layer. By glibc's defaults each would be had from the kernel and
# given back, page by page. One heap that keeps what is freed, in huge pages, made forward passes 1.1 to 1.4 times as
# fast as heaps that give it back at once, in one run 0.95 times (benchmarks/allocator.py). What is larger than glibc's
# largest threshold is still given back: with that kept too, passes were hardly faster and took up to twice the memory.
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

PRELOAD = "segment_slide.cluster.preload"

# Share of its memory at which a worker is ended. Below it nothing happens.
TERMINATE_FRACTION = 0.98

# Errors of blocks are collected and reported once, by block; a worker that was ended is worth a line.
LOG_LEVELS = {"distributed": "error", "distributed.nanny": "warning", "distributed.worker": "critical"}

# A job's worker writes to a file of its own, which is read when something went wrong.
_JOB_LOG_LEVELS = {"distributed": "info"}

_MEMORY_SETTINGS: dict[str, Any] = {
    # Blocks go to their shards at once: spilling them to disk, or pausing until they are, only costs.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": TERMINATE_FRACTION,
}

# So long after a worker's death Dask looks whether it is there, and otherwise forgets it for good, though its nanny may
# be about to start it: with one worker the run would hang. Of what runs on this machine, nothing is to be forgotten.
_NEVER_S = 10**8

# Nannies that gave up leave nobody; starting a worker on a busy machine takes less.
_NO_WORKERS_S = 300

_QUIET_SETTINGS: dict[str, Any] = {
    # Dask looks at every thread's stack a hundred times a second and keeps what it saw for its dashboard, which is
    # off: 45 MiB and a third of the growth of each worker over a run of 2,500 blocks (benchmarks/memory_slope.py).
    "distributed.worker.profile.enabled": False,
}

# For the process that holds the scheduler, and the workers that it starts itself.
SETTINGS: dict[str, Any] = {
    "distributed.deploy.lost-worker-timeout": _NEVER_S,
    "distributed.scheduler.no-workers-timeout": _NO_WORKERS_S,
    "distributed.nanny.pre-spawn-environ": ENVIRONMENT,
    "distributed.worker.preload": [PRELOAD],
    **_MEMORY_SETTINGS,
    **_QUIET_SETTINGS,
    "distributed.scheduler.allowed-failures": 3,
    "logging": LOG_LEVELS,
}


def quieten() -> None:
    """Set the levels of Dask's loggers in this process; workers get them by the configuration."""
    for name, level in LOG_LEVELS.items():
        logging.getLogger(name).setLevel(level.upper())
    for name in ("distributed.scheduler", "distributed.client"):
        logging.getLogger(name).addFilter(_is_not_of_tasks)
    logging.getLogger("asyncio").addFilter(_is_not_of_waiting)


def _is_not_of_waiting(record: logging.LogRecord) -> bool:
    """Ctrl-C while a result is waited for leaves a coroutine of Dask's client whose end nobody asks for: no news."""
    return not record.exc_info or type(record.exc_info[1]).__name__ != "AllExit"


def _is_not_of_tasks(record: logging.LogRecord) -> bool:
    """Single tasks are named by key there; whoever asked for one is told in words of what it was for.

    Examples
    --------
    >>> of_task = {"msg": "Task %s marked as failed because %d workers died", "args": ("run_chunk-1", 4)}
    >>> _is_not_of_tasks(logging.makeLogRecord(of_task)), _is_not_of_tasks(logging.makeLogRecord({"msg": "no memory"}))
    (False, True)
    """
    return not str(record.msg).startswith(("Task %s marked as failed", "Couldn't gather"))


def job_exports(more: Mapping[str, Any]) -> list[str]:
    """Shell lines that give a worker started by a job script the environment and settings of a local one.

    Parameters
    ----------
    more : mapping
        Further settings of Dask, by dotted name.

    Examples
    --------
    >>> job_exports({"distributed.worker.lifetime.duration": "300s"})[-1]
    'export DASK_DISTRIBUTED__WORKER__LIFETIME__DURATION=300s'
    """
    settings = {**_MEMORY_SETTINGS, **_QUIET_SETTINGS, "logging": _JOB_LOG_LEVELS, **more}
    variables = {**ENVIRONMENT, **{_variable(name): _text(value) for name, value in settings.items()}}
    return [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]


def _text(value: Any) -> str:
    return json.dumps(value) if isinstance(value, dict) else str(value)


def _variable(name: str) -> str:
    """Environment variable from which Dask reads a setting."""
    return "DASK_" + name.upper().replace(".", "__").replace("-", "_")
