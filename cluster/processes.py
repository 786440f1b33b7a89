"""Clusters that we start: within a time limit, and ended without a word. Nannies that replace workers from the start.

How a cluster ends changes no result: every block is stored by then. So nothing that happens at the end is an error or
worth a line, and no process is left. This file imports Dask: import it only where it is needed.
"""

import asyncio
import contextlib
import logging
import os
import resource
import signal
from collections.abc import Iterator
from typing import Any, ClassVar

from distributed import Client, Nanny
from distributed.core import Status

from segment_slide.cluster.errors import ClusterError, WorkersLostError
from segment_slide.cluster.patience import END_S, GONE_S, LEAVE_S, START_S
from segment_slide.cluster.preload import leave_scratch_out

log = logging.getLogger(__name__)

# What this process needs of open files for itself.
_OWN_FILES = 64

# A worker that is killed before it has connected is started again, this often in all.
_STARTS = 3
_LOOK_AGAIN_S = 0.05

# States of a nanny that is to start no worker.
_ENDING = (Status.closing, Status.closed, Status.closing_gracefully, Status.failed)

# Loggers of what may go wrong between processes that start or end.
_LOGGERS = ("distributed", "distributed.nanny", "distributed.worker", "distributed.scheduler", "tornado", "asyncio")

_FAULTS = (OSError, RuntimeError, ValueError, EOFError, ImportError, AssertionError)


@contextlib.contextmanager
def start_cluster(cluster_class: type[Any], **options: Any) -> Iterator[tuple[Any, Client]]:
    """Start a cluster of any class of Dask's under the configuration in force, yield it and a client, and end both.

    Raises
    ------
    ClusterError
        If it does not start, or not in time. Nothing is left running.
    """
    nannies: list[PatientNanny] = []
    nanny_class = type("OurNanny", (PatientNanny,), {"nannies": nannies})
    bounded_class = type("OurCluster", (_Bounded, cluster_class), {"nanny_class": nanny_class})
    with contextlib.ExitStack() as started:
        started.callback(_end_processes, nannies)
        try:
            with _silence():
                cluster = started.enter_context(_closing(bounded_class(**options)))
                client = started.enter_context(_closing(Client(cluster)))
        except _FAULTS as error:
            if any(nanny.was_killed for nanny in nannies):
                raise WorkersLostError(_describe_killed()) from error
            raise ClusterError(f"the cluster cannot be started: {_find_reason(error)}") from error
        leave_scratch_out()
        yield cluster, client


def _describe_killed() -> str:
    return (
        f"the cluster cannot be started: a worker process was killed {_STARTS} times before it had connected. If "
        "memory was short, give the machine more or ask for fewer workers."
    )


def _find_reason(error: BaseException) -> str:
    """What the first of the errors says that caused this one; Dask's own around it only say that something failed."""
    while error.__cause__ is not None and not isinstance(error, TimeoutError):
        error = error.__cause__
    if isinstance(error, TimeoutError):
        return f"there was no answer within {START_S} s."
    reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    if "Nanny failed to start worker process" in reason:
        return "a worker process ended before it had connected; it may have said why above."
    return f"{reason}."


def allow_open_files(n: int) -> None:
    """Let this process open so many more files than it does alone. Without them workers would be waited for in vain.

    Raises
    ------
    ClusterError
        If the system allows fewer.
    """
    needed = _OWN_FILES + n
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise ClusterError(
            f"workers need {needed} open files in this process, and the system allows {hard} (ulimit -n). Raise this "
            "limit, or ask for fewer workers."
        )
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


class PatientNanny(Nanny):
    """A nanny that starts its worker again if it is killed before it has connected, and waits until it is gone.

    Attributes
    ----------
    was_killed : bool
        Whether the worker that ended last was ended by a signal from outside.
    """

    nannies: ClassVar[list[Any]] = []
    was_killed = False
    _has_connected = False
    _has_failed = False

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        leave_scratch_out()  # workers get a copy of this process's path
        self.nannies.append(self)

    async def instantiate(self) -> Status:
        """Start the worker. Dask's own nanny gives up if the first one is killed before it has connected."""
        try:
            status = await super().instantiate()
            for _ in range(1, _STARTS):
                if status == Status.running or self.status != Status.init or not self.was_killed:
                    break
                status = await super().instantiate()
        except BaseException:
            self._has_failed = True  # it said why; that it is ended now is no news
            raise
        self._has_connected = status == Status.running
        return status

    def _on_worker_exit_sync(self, exitcode: int) -> None:
        self.was_killed = exitcode < 0 and self.status not in _ENDING and not self._has_failed
        super()._on_worker_exit_sync(exitcode)

    async def _on_worker_exit(self, exitcode: int) -> None:
        """Replace the worker, also if it ends just after it has connected, when Dask does not count it as started."""
        while self._has_connected and self.status == Status.init:
            await asyncio.sleep(_LOOK_AGAIN_S)
        await super()._on_worker_exit(exitcode)

    async def kill(self, timeout: float = LEAVE_S, reason: str = "nanny-kill") -> None:
        """End the worker. Dask's own nanny raises TimeoutError if the process is not gone within one second."""
        process = self.process
        try:
            await super().kill(timeout=timeout, reason=reason)
        except TimeoutError:
            if process is not None:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(process.stopped.wait(), GONE_S)


class _Bounded:
    """Mixed into a cluster class: it neither starts nor ends for ever, and its nannies are ours."""

    nanny_class: type[PatientNanny]
    has_failed = False
    shutdown_on_close = True
    worker_spec: dict[Any, dict[str, Any]]

    def __init__(self, *args: Any, **options: Any) -> None:
        try:
            super().__init__(*args, **options)
        except BaseException:  # Ctrl-C too
            self.shutdown_on_close = False  # what was begun is ended below, and not by Dask when Python ends
            raise

    def sync(self, func: Any, *args: Any, callback_timeout: Any = None, **options: Any) -> Any:
        """Run a coroutine in the thread of Dask's loop. A limit that is not given is ours."""
        is_end = getattr(func, "__name__", "") in ("close", "_close")
        limit_s = callback_timeout or (END_S if is_end else START_S)
        try:
            return super().sync(func, *args, callback_timeout=limit_s, **options)  # type: ignore[misc]
        except Exception as error:
            if isinstance(error, TimeoutError):
                _end_processes(self.nanny_class.nannies)  # so that closing has nothing to wait for
            if is_end and self.has_failed:
                return None  # the first error counts, not what closing says of the same fault
            self.has_failed = True
            raise

    def _correct_state(self) -> Any:
        for name, worker in self.worker_spec.items():
            if worker["cls"] is Nanny:
                self.worker_spec[name] = {**worker, "cls": self.nanny_class}
        return super()._correct_state()  # type: ignore[misc]


@contextlib.contextmanager
def _closing(opened: Any) -> Iterator[Any]:
    """Close a client or a cluster after the body. A fault while closing is logged for developers, and not raised."""
    try:
        yield opened
    finally:
        with _silence():
            try:
                opened.close(timeout=END_S)
            except Exception as error:  # noqa: BLE001, the work is done, and its processes are ended in any case
                log.debug("while closing: %r", error)
                opened.shutdown_on_close = False  # nor does Dask try again when Python ends


def _end_processes(nannies: "list[PatientNanny]") -> None:
    """End by force the workers that are left; none after a cluster was closed as usual."""
    for nanny in nannies:
        if nanny.status not in (Status.closed, Status.closing):
            nanny.status = Status.closing_gracefully  # so that it starts no other
        with contextlib.suppress(OSError, AttributeError):
            if pid := nanny.pid:
                os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Hide what Dask logs while it starts or ends. What matters is raised."""
    levels = {name: logging.getLogger(name).level for name in _LOGGERS}
    for name in levels:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
