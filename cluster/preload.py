"""What each worker process does first. Dask loads this module by its name in `cluster.settings`."""

import logging
import signal
from typing import Any

import dask


def dask_setup(worker: Any) -> None:
    """Ignore Ctrl-C and the end of a terminal, and set the levels of the loggers: the parent handles all of them.

    A terminal sends both to every process of the group. The parent then ends its workers one by one. A worker that
    ended itself would only print its stack. The levels of the loggers are in the configuration, but a worker imports
    distributed, which reads them, before it gets the configuration. So they are set again here.
    """
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    for name, level in dask.config.get("logging").items():
        logging.getLogger(name).setLevel(level.upper())
