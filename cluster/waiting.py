"""Wait until the workers have connected, and say why if they do not."""

import logging
import time
from typing import TYPE_CHECKING, Protocol

from segment_slide.cluster.errors import ClusterError
from segment_slide.cluster.spec import ClusterSpec

if TYPE_CHECKING:
    from distributed import Client

log = logging.getLogger(__name__)

_POLL_S = 0.5
_TELL_EVERY_S = 60


class Watch(Protocol):
    """Something that knows why workers do not come."""

    def check(self) -> None:
        """Raise ClusterError if waiting is of no use."""

    def describe(self) -> str:
        """Say, as part of a sentence, why workers are missing at this moment."""
        ...


def count_workers(client: "Client") -> int:
    """Number of workers that the scheduler has at this moment."""
    return len(client.nthreads())


def wait_for_workers(client: "Client", spec: ClusterSpec, jobs: Watch | None = None) -> None:
    """Return when as many workers have connected as the work needs to begin.

    Parameters
    ----------
    client : Client
        Connected.
    spec : ClusterSpec
        Complete; says how many workers are needed, and how long to wait.
    jobs : Watch, optional
        Says why workers are missing, where that can be asked, as of a batch system.

    Raises
    ------
    ClusterError
        If the workers do not connect within the limit, or will never come.
    """
    needed, began, told = spec.workers_needed, time.monotonic(), 0.0
    while (arrived := count_workers(client)) < needed:
        if jobs is not None:
            jobs.check()
        waited = time.monotonic() - began
        if waited > spec.wait_s:
            raise ClusterError(_describe_absence(arrived, spec, jobs))
        if jobs is not None and waited - told > _TELL_EVERY_S:
            told = waited
            log.warning("%d of %d workers after %.0f s; %s", arrived, needed, waited, jobs.describe())
        time.sleep(_POLL_S)


def _describe_absence(arrived: int, spec: ClusterSpec, jobs: Watch | None) -> str:
    absence = f"{arrived} of {spec.workers_needed} workers are there after wait={spec.wait_s} s"
    if jobs is None:
        return f"{absence}."
    return f"{absence}; {jobs.describe()}. A longer wait, or fewer or smaller jobs, may help."
