"""What each worker process does first. Dask loads this module by its name in `cluster.settings`."""

import logging
import signal
import sys
from typing import Any

import dask

# Part of the name of each scratch folder.
_SCRATCH = "dask-scratch-space"


def dask_setup(worker: Any) -> None:
    """Ignore Ctrl-C and the end of a terminal, and set the levels of the loggers: the parent handles all of them.

    A terminal sends both to every process of the group. The parent then ends its workers one by one. A worker that
    ended itself would only print its stack. The levels of the loggers are in the configuration, but a worker imports
    distributed, which reads them, before it gets the configuration. So they are set again here.

    Nothing is imported from the scratch folder.
    """
    leave_scratch_out()
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    for name, level in dask.config.get("logging").items():
        logging.getLogger(name).setLevel(level.upper())


def leave_scratch_out() -> None:
    """Take Dask's scratch folders from Python's path. Dask puts them first, for files that clients upload; none does.

    Whoever could write there, or put another folder in their place, would have their code run.
    """
    sys.path[:] = [folder for folder in sys.path if _SCRATCH not in folder]
