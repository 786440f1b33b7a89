"""Clusters that we start: within a time limit, and ended without a word. Worker processes on this machine.

How a cluster ends changes no result: every block is stored by then. So nothing that happens at the end is an error or
worth a line, and no process is left. This file imports Dask: import it only where it is needed.
"""

import asyncio
import contextlib
import logging
import multiprocessing
import os
import resource
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from multiprocessing import resource_tracker
from typing import Any, ClassVar

from distributed import Client, LocalCluster, Nanny
from distributed.core import Status

from segment_slide.cluster.configuration import exactly, note_broken_files
from segment_slide.cluster.errors import ClusterError
from segment_slide.cluster.patience import COMM_S, END_S, GONE_S, LEAVE_S, START_S
from segment_slide.cluster.settings import SETTINGS, quieten

log = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"

# Each nanny makes two queues of three semaphores each.
_SEMAPHORES_PER_WORKER = 6

# This process opens nine files for each worker: pipes and connections. It needs some for itself too.
_FILES_PER_WORKER = 12
_OWN_FILES = 64

# Loggers of what may go wrong between processes that start or end.
_LOGGERS = ("distributed", "distributed.nanny", "distributed.worker", "distributed.scheduler", "tornado", "asyncio")

_FAULTS = (OSError, RuntimeError, ValueError, EOFError, ImportError, AssertionError)


@contextlib.contextmanager
def run_cluster(cluster_class: type[LocalCluster], **options: Any) -> Iterator[Client]:
    """Start a cluster on this machine under exactly our configuration, yield a client, and end all processes.

    Parameters
    ----------
    cluster_class : type
        LocalCluster or a class derived from it.
    options
        Its options; `n_workers` and `local_directory` among them.

    Raises
    ------
    ClusterError
        If it does not start, or not in time. Nothing is left running.
    """
    _start_tracker()
    check_semaphores(options["n_workers"] * _SEMAPHORES_PER_WORKER)
    allow_open_files(options["n_workers"] * _FILES_PER_WORKER)
    check_loopback()
    options = {**options, "local_directory": prepare_scratch(options["local_directory"])}
    note_broken_files()
    quieten()
    with exactly(SETTINGS), start_cluster(cluster_class, **options) as (_, client):
        yield client


@contextlib.contextmanager
def start_cluster(cluster_class: type[Any], **options: Any) -> Iterator[tuple[Any, Client]]:
    """Start a cluster of any class of Dask's under the configuration in force, yield it and a client, and end both.

    Raises
    ------
    ClusterError
        If it does not start, or not in time. Nothing is left running.
    """
    nannies: list[Nanny] = []
    nanny_class = type("OurNanny", (PatientNanny,), {"nannies": nannies})
    bounded_class = type("OurCluster", (_Bounded, cluster_class), {"nanny_class": nanny_class})
    with contextlib.ExitStack() as started:
        started.callback(_end_processes, nannies)
        try:
            with _silence():
                cluster = started.enter_context(_closing(bounded_class(**options)))
                client = started.enter_context(_closing(Client(cluster)))
        except _FAULTS as error:
            raise ClusterError(f"the cluster cannot be started: {_find_reason(error)}") from error
        yield cluster, client


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


def check_semaphores(n: int) -> None:
    """Make as many semaphores as the workers need, and delete them. Without them workers would be waited for in vain.

    Raises
    ------
    ClusterError
        If they cannot be made.
    """
    context = multiprocessing.get_context("spawn")
    try:
        _ = [context.Lock() for _ in range(n)]
    except (OSError, ImportError) as error:
        raise ClusterError(
            f"workers need shared memory, and /dev/shm cannot be used: {error}. Mount it so that it can be written and "
            "has space; in a container, start it with --shm-size=64m."
        ) from None


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


def prepare_scratch(folder: str | None) -> str | None:
    """Make the scratch folder of the workers and check it; variables and ``~`` in its name are expanded.

    Raises
    ------
    ClusterError
        If nothing can be written there.
    """
    if folder is None:
        return None
    path = os.path.expanduser(os.path.expandvars(folder))
    try:
        os.makedirs(path, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise ClusterError(f"local_directory={path}: cannot be written: {error.strerror}.") from None
    return path


def _start_tracker() -> None:
    """Start Python's helper that tidies semaphores, deaf to SIGHUP: a terminal that closes says so to all processes.

    If it ended first, the next one would print a traceback for each semaphore that it does not know.
    """
    if threading.current_thread() is not threading.main_thread():  # only there can signals be ignored for a while
        resource_tracker.ensure_running()
        return
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        resource_tracker.ensure_running()
    finally:
        signal.signal(signal.SIGHUP, signal.SIG_DFL if before is None else before)


def check_loopback() -> None:
    """Connect to this process as workers will. Where that fails at once, Dask would try again and again.

    Raises
    ------
    ClusterError
        If there is no connection.
    """
    try:
        with socket.create_server((LOOPBACK, 0)) as server, socket.create_connection(server.getsockname(), COMM_S):
            pass
    except OSError as error:
        raise ClusterError(
            f"workers need the network interface of this machine alone, and {LOOPBACK} cannot be used: {error}. Switch "
            "the interface lo on."
        ) from None


class PatientNanny(Nanny):
    """A nanny that waits until a worker that was ended by force is gone, also on a busy machine."""

    nannies: ClassVar[list[Nanny]] = []

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.nannies.append(self)

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


def _end_processes(nannies: list[Nanny]) -> None:
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
