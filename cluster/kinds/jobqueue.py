"""Import dask-jobqueue without what its import does to this process."""

import importlib
import signal
import sys
from typing import Any

from segment_slide.cluster.errors import ClusterError

_PACKAGE = "dask_jobqueue"


def import_jobqueue(kind: str) -> Any:
    """The package dask-jobqueue; its import reads the site's ``jobqueue.yaml`` into Dask's configuration.

    dask-jobqueue 0.9 sets a handler for SIGINT when it is imported, by which Ctrl-C ends the process as if all had
    gone well (exit code 0, no KeyboardInterrupt), and which makes the import fail outside the main thread. So it is
    imported with `signal.signal` doing nothing.

    Parameters
    ----------
    kind : str
        For which it is needed.

    Raises
    ------
    ClusterError
        If it is not installed.
    """
    if (loaded := sys.modules.get(_PACKAGE)) is not None:
        return loaded
    original = signal.signal
    signal.signal = _keep_handler  # type: ignore[assignment]
    try:
        return importlib.import_module(_PACKAGE)
    except ImportError:
        raise ClusterError(f"kind {kind} needs the package dask-jobqueue: pip install dask-jobqueue") from None
    finally:
        signal.signal = original


def _keep_handler(signum: int, _: Any) -> Any:
    return signal.getsignal(signum)
