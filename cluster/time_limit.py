"""End workers that hang, for instance while reading from a server that is gone. No error comes, so time is the sign.

A thread cannot be ended from outside, but a process can. So a worker whose task takes too long logs where its threads
are and ends itself. Its nanny starts a new worker. Dask tries the task elsewhere and gives it up after the allowed
number of deaths. This file imports Dask: import it only where it is needed.
"""

import contextlib
import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any

from distributed.diagnostics.plugin import WorkerPlugin

from segment_slide.cluster.errors import ClusterError
from segment_slide.cluster.waiting import repeat_while_lost

if TYPE_CHECKING:
    from distributed import Client

log = logging.getLogger(__name__)

# A logger below Dask's own, so its lines have Dask's format and go to the job's file or to the terminal.
_worker_log = logging.getLogger("distributed.worker.time_limit")

EXIT_CODE = os.EX_TEMPFAIL

# Time for a message to reach the client before the process ends.
_GRACE_S = 0.5

# States of a task that occupies a thread. A task that is cancelled while it runs keeps its thread until it ends.
_STILL_RUNNING = ("executing", "long-running", "cancelled", "resumed")

# A thread whose innermost call is in one of these files waits for work.
_IDLE = (
    "/threading.py",
    "/selectors.py",
    "/queue.py",
    "/multiprocessing/connection.py",
    "/concurrent/futures/thread.py",
    "/distributed/threadpoolexecutor.py",
)


class TimeLimit(WorkerPlugin):
    """End this worker's process when one of its tasks runs for longer than a limit.

    Parameters
    ----------
    limit_s : float
        Longest time, counted from when a task begins to execute. A task is what Dask schedules: a block, or several
        small ones.
    topic : str
        Dask topic under which clients are told.

    Notes
    -----
    Code that never releases Python's lock also stops this watch. Reading and computing do release it.
    """

    def __init__(self, limit_s: float, topic: str) -> None:
        self.limit_s = limit_s
        self.topic = topic
        self._began: dict[Any, float] = {}
        self._worker: Any = None

    def setup(self, worker: Any) -> None:
        """Begin to watch; called by Dask.

        Raises
        ------
        ClusterError
            If the worker has no nanny that would start it again.
        """
        if worker.nanny is None:
            raise ClusterError(_describe_bare([worker.address], self.limit_s))
        self._worker, self._is_over = worker, threading.Event()
        threading.Thread(target=self._watch, name="time-limit", daemon=True).start()

    def teardown(self, worker: Any) -> None:
        """Stop watching; called by Dask."""
        self._is_over.set()

    def transition(self, key: Any, start: str, finish: str, **_: Any) -> None:
        """Note when a task begins and ends; called by Dask."""
        if finish == "executing":
            self._began.setdefault(key, time.monotonic())
        elif finish not in _STILL_RUNNING:
            self._began.pop(key, None)

    def find_overdue(self, now_s: float) -> tuple[Any, float] | None:
        """Key and seconds of the task that has run longest, or None if it is within the limit.

        Examples
        --------
        >>> plugin = TimeLimit(10, "topic")
        >>> plugin.transition("block", "ready", "executing")
        >>> began = time.monotonic()
        >>> plugin.find_overdue(began + 9), plugin.find_overdue(began + 11)[0]
        (None, 'block')
        """
        began = self._began.copy()  # the event loop's thread may add to it meanwhile
        if not began:
            return None
        key = min(began, key=began.__getitem__)
        seconds = now_s - began[key]
        return (key, seconds) if seconds > self.limit_s else None

    def _watch(self) -> None:
        while not self._is_over.wait(min(1.0, self.limit_s / 4)):
            overdue = self.find_overdue(time.monotonic())
            if overdue is not None:
                self._end(*overdue)

    def _end(self, key: Any, seconds: float) -> None:
        """Report what hangs, in this worker's log and to the client, and end the process."""
        worker = self._worker
        with worker.active_threads_lock:
            stuck = [thread for thread, running in worker.active_threads.items() if running == key]
        stands = describe_threads(sys._current_frames(), stuck, {t.ident: t.name for t in threading.enumerate()})
        _worker_log.critical(
            "worker %s ends: task %s has run for %.0f s, block_time_limit is %g s; it is tried again elsewhere. %s",
            worker.address,
            key,
            seconds,
            self.limit_s,
            stands,
        )
        with contextlib.suppress(Exception):
            worker.log_event(self.topic, {"worker": worker.address, "seconds": seconds})
            time.sleep(_GRACE_S)
        os._exit(EXIT_CODE)


def describe_threads(frames: dict[int, FrameType], stuck: list[int], names: dict[int | None, str]) -> str:
    """Say on one line where threads are, innermost call first: the stuck ones, and others that do not wait for work.

    The others matter because a task often waits for another thread that reads for it.

    Parameters
    ----------
    frames : dict
        Innermost frame of each thread by its number.
    stuck : list of int
        Threads of the task.
    names : dict
        Of the threads.
    """
    stacks = {thread: traceback.extract_stack(frame) for thread, frame in frames.items()}
    parts = [f"It stands at {_describe_stack(stacks[thread])}." for thread in stuck if thread in stacks]
    for thread, calls in stacks.items():
        if thread not in (*stuck, threading.get_ident()) and not calls[-1].filename.endswith(_IDLE):
            parts.append(f"Thread {names.get(thread)} is at {_describe_call(calls[-1])}.")
    return " ".join(parts)


def _describe_stack(calls: traceback.StackSummary) -> str:
    """The calls of the task itself, without Dask's calls around it, which are the same for every task."""
    dask = [place for place, call in enumerate(calls) if "/distributed/" in call.filename]
    return " < ".join(_describe_call(call) for call in reversed(calls[(dask or [-1])[-1] + 1 :]))


def _describe_call(call: traceback.FrameSummary) -> str:
    return f"{'/'.join(call.filename.split('/')[-2:])}:{call.lineno} {call.name}"


@contextlib.contextmanager
def limit_tasks(client: "Client", limit_s: float) -> Iterator[None]:
    """While the body runs, end every worker that is busy with one task for longer than a limit.

    This includes workers that join later. On a shared scheduler the limit also applies to the tasks of others on the
    same workers.

    Parameters
    ----------
    client : Client
        Connected, with its workers.
    limit_s : float
        See `TimeLimit`.

    Raises
    ------
    ClusterError
        If a worker has no nanny, or cannot run our code. If workers are lost again and again.
    """
    workers = client.scheduler_info(n_workers=-1)["workers"]
    bare = [address for address, worker in workers.items() if not worker["nanny"]]
    if bare:
        raise ClusterError(_describe_bare(bare, limit_s))
    name = f"segment-slide-time-limit-{client.id}"
    try:
        repeat_while_lost(client, lambda: client.register_plugin(TimeLimit(limit_s, name), name=name))
    except (ImportError, AttributeError) as error:
        raise ClusterError(
            f"block_time_limit={limit_s:g} s: a worker cannot run our code ({error!r}); is segment-slide installed "
            "there?"
        ) from error
    client.subscribe_topic(name, lambda event: _tell(event[1], limit_s))
    try:
        yield
    finally:
        with contextlib.suppress(OSError, RuntimeError, TimeoutError):  # the scheduler may have gone away
            client.unregister_worker_plugin(name)


def _tell(event: dict[str, Any], limit_s: float) -> None:
    """Tell the person at the client, who may not see the workers' logs."""
    log.warning(
        "worker %s was ended: a task ran for %.0f s, block_time_limit is %g s; the worker's log says where it hung.",
        event["worker"],
        event["seconds"],
        limit_s,
    )


def _describe_bare(addresses: list[str], limit_s: float) -> str:
    more = f" and {len(addresses) - 1} more" if len(addresses) > 1 else ""
    return (
        f"block_time_limit={limit_s:g} s: worker {addresses[0]}{more} has no nanny, the process that would start it "
        "again once it was ended; start workers with --nanny, or leave the limit out."
    )
