"""What each worker process does first: Dask calls it by the name in `cluster.settings`."""

import logging
import signal
from typing import Any

import dask


def dask_setup(worker: Any) -> None:
    """Leave Ctrl-C and the reporting of errors to the parent.

    A terminal sends Ctrl-C to every process of the group; the parent then ends its workers one by one, and a
    worker that ended itself would only print its stack. The levels of the loggers are in the configuration, but
    a worker imports distributed, which reads them, before it gets the configuration.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for name, level in dask.config.get("logging").items():
        logging.getLogger(name).setLevel(level.upper())
