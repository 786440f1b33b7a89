"""Import dask-jobqueue without the side effect that its import has on Ctrl-C."""

import importlib
import signal
import sys
from typing import Any

from segment_slide.cluster.errors import ClusterError

_PACKAGE = "dask_jobqueue"


def import_jobqueue(kind: str) -> Any:
    """Import and return dask-jobqueue. The import reads the site's ``jobqueue.yaml`` into Dask's configuration.

    When imported, dask-jobqueue 0.9 sets a handler for SIGINT. With it Ctrl-C ends the process as if all had gone well
    (exit code 0, no KeyboardInterrupt). Setting it also makes the import fail outside the main thread. So during the
    import `signal.signal` does nothing.

    Parameters
    ----------
    kind : str
        The kind of cluster that needs it, for the message.

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
