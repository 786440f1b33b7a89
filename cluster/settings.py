"""What every worker starts with, wherever it runs: environment and Dask settings, and both as shell lines for jobs."""

import json
import logging
import shlex
from collections.abc import Mapping
from typing import Any

# Feature maps of hundreds of MB come and go with every layer: huge pages cut the page faults (35 % more tiles per
# second measured), returning memory at once keeps the resident size at what is planned.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
    "THP_MEM_ALLOC_ENABLE": "1",
    "MALLOC_TRIM_THRESHOLD_": "65536",
    "MALLOC_ARENA_MAX": "2",
}

PRELOAD = "cluster.preload"

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

# For the process that holds the scheduler, and the workers that it starts itself.
SETTINGS: dict[str, Any] = {
    "distributed.nanny.pre-spawn-environ": ENVIRONMENT,
    "distributed.worker.preload": [PRELOAD],
    **_MEMORY_SETTINGS,
    "distributed.scheduler.allowed-failures": 3,
    "logging": LOG_LEVELS,
}


def quieten() -> None:
    """Set the levels of Dask's loggers in this process; workers get them by the configuration."""
    for name, level in LOG_LEVELS.items():
        logging.getLogger(name).setLevel(level.upper())


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
    settings = {**_MEMORY_SETTINGS, "logging": _JOB_LOG_LEVELS, **more}
    variables = {**ENVIRONMENT, **{_variable(name): _text(value) for name, value in settings.items()}}
    return [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]


def _text(value: Any) -> str:
    return json.dumps(value) if isinstance(value, dict) else str(value)


def _variable(name: str) -> str:
    """Environment variable from which Dask reads a setting."""
    return "DASK_" + name.upper().replace(".", "__").replace("-", "_")
