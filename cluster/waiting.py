"""Wait until the workers have connected, say why if they do not, and ask all of them, also while some are replaced."""

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from segment_slide.cluster.errors import ClusterError, WorkersLostError
from segment_slide.cluster.patience import START_S
from segment_slide.cluster.spec import ClusterSpec

if TYPE_CHECKING:
    from distributed import Client

log = logging.getLogger(__name__)

_POLL_S = 0.5
_TELL_EVERY_S = 60

# How often a question to all workers is asked again because one was lost meanwhile.
_TRIES = 4

Result = TypeVar("Result")


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


def run_everywhere(
    client: "Client", function: Callable[..., Any], *arguments: Any, may_fail: bool = False
) -> dict[str, Any]:
    """Call a function on every worker. If a worker is lost meanwhile, wait for another and ask all again.

    Parameters
    ----------
    client : Client
        Connected.
    function : callable
        Picklable; may be called several times on a worker.
    may_fail : bool
        Return the error of a worker as its result, instead of raising it.

    Returns
    -------
    dict of str to object
        Results by the worker's address; never empty.

    Raises
    ------
    WorkersLostError
        If workers are lost each time, or no other comes.
    """
    from distributed.comm.core import CommClosedError

    def ask() -> dict[str, Any]:
        found = client.run(function, *arguments, on_error="return")
        errors = [result for result in found.values() if isinstance(result, Exception)]
        left = client.nthreads()
        lost = [
            error
            for address, error in found.items()
            if isinstance(error, CommClosedError) or (isinstance(error, OSError) and address not in left)
        ]
        if lost or not found:
            raise lost[0] if lost else OSError("no worker is there")
        if errors and not may_fail:
            raise _FunctionError(errors[0])
        return found

    try:
        return repeat_while_lost(client, ask)
    except _FunctionError as failed:
        raise failed.error from None


class _FunctionError(Exception):
    """The function raised an error. Wrapped, because it may be an OSError, which means a lost worker here."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


def repeat_while_lost(client: "Client", ask: Callable[[], Result]) -> Result:
    """Call a function that asks all workers, again if one of them is lost meanwhile and the scheduler is still there.

    Raises
    ------
    WorkersLostError
        If workers are lost each time, or no other comes.
    """
    for _ in range(_TRIES):
        try:
            return ask()
        except OSError as error:
            if client.status != "running":
                raise
            log.info("a worker was lost, and all are asked again: %s", error)
        _wait_for_another(client)
    raise WorkersLostError(
        f"workers were lost {_TRIES} times in a row before the work began (out of memory, or killed)."
    )


def _wait_for_another(client: "Client") -> None:
    end = time.monotonic() + START_S
    time.sleep(_POLL_S)  # the scheduler may not have noticed yet
    while not count_workers(client):
        if time.monotonic() > end:
            raise WorkersLostError(f"the workers were lost before the work began, and none came within {START_S} s.")
        time.sleep(_POLL_S)
