"""One writer at a time: a lock file in a local output. The system releases the lock however its holder ends."""

import contextlib
import fcntl
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from segment_slide.pipeline.errors import OutputError
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.zarr_stores.archive import refuse_unwritable

log = logging.getLogger(__name__)

LOCK_NAME = ".segment-slide.lock"


@contextlib.contextmanager
def hold(location: str, clean: Callable[[], None]) -> Iterator[None]:
    """Hold an output for this process; the system releases it however the process ends.

    At the end, half-written files, the lock and directories that stayed empty are removed.
    Object stores have no locks: there, two equal runs do the same work twice and write the same bytes.

    Parameters
    ----------
    location : str
        Output; its folder is made if it is not there.
    clean : callable
        Removes half-written files of writers that were killed; called at the end.

    Raises
    ------
    OutputError
        If another process holds it, or the directory cannot be made.
    """
    refuse_unwritable(location)
    if store.is_remote(location):
        yield
        return
    path = Path(location, LOCK_NAME)
    missing = [folder for folder in (path.parent, *path.parent.parents) if not folder.exists()]
    with _locked(path, location):
        try:
            yield
        finally:
            clean()
            path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # stops at the first that is not empty: it and all above it stay
                for folder in missing:
                    folder.rmdir()


def _locked(path: Path, location: str) -> IO[str]:
    """The lock file, open and locked; closing it releases the lock."""
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("a+")
        except OSError as error:
            raise OutputError(f"output={location} cannot be written: {error}") from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.close()
            raise OutputError(f"output={location} is being written by another run; wait for it, or end it.") from error
        except OSError as error:
            log.warning("output=%s cannot be locked (%s): take care that no other run writes there", location, error)
        if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
            return file
        file.close()  # its last holder has just removed it: lock a new one
