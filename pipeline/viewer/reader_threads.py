"""Threads that read from one store and that nobody has to wait for: a disk that hangs must not block the process."""

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class Readers:
    """As `concurrent.futures.ThreadPoolExecutor`, but the interpreter does not wait for these threads when it ends."""

    def __init__(self, n_threads: int, name: str) -> None:
        self._n_threads, self._name = n_threads, name
        self._tasks: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._closed = threading.Event()
        self._lock = threading.Lock()

    def submit(
        self, function: Callable[Arguments, Result], *args: Arguments.args, **options: Arguments.kwargs
    ) -> "Future[Result]":
        """Call a function in one of the threads; after `close` the call is cancelled."""
        future: Future[Result] = Future()

        def task() -> None:
            if self._closed.is_set():
                future.cancel()
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = function(*args, **options)
            except BaseException as error:  # noqa: BLE001  the caller who waits for the future gets it
                future.set_exception(error)
            else:
                future.set_result(result)

        with self._lock:
            if self._closed.is_set():
                future.cancel()
                return future
            self._tasks.put(task)
            if len(self._threads) < self._n_threads:
                number = len(self._threads)
                thread = threading.Thread(target=self._run, name=f"{self._name}-{number}", daemon=True)
                self._threads.append(thread)
                thread.start()
        return future

    def _run(self) -> None:
        while (task := self._tasks.get()) is not None:
            task()

    def close(self, wait_s: float = 0.0) -> None:
        """Cancel tasks that have not begun; wait at most `wait_s` for those in progress."""
        with self._lock:
            self._closed.set()
            for _ in self._threads:
                self._tasks.put(None)
        ends = time.monotonic() + wait_s
        for thread in self._threads:
            thread.join(max(0.0, ends - time.monotonic()))
