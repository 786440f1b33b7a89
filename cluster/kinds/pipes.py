"""Pipes in place of the queues between a nanny and its worker, because queues leave files in /dev/shm.

A queue of Python's multiprocessing has three named semaphores, each a file ``sem.mp-…`` there, and a nanny makes two
queues. They are deleted by their owner, or by a helper process if the owner was killed. If all processes are killed,
they stay until the machine is started again. One process writes and one reads here, so a pipe without locks is enough.
"""

import contextlib
from collections.abc import Iterator
from queue import Empty
from typing import Any

import distributed.nanny


class PipeQueue:
    """What Dask's nanny uses of a queue: a few small messages in one direction.

    Parameters
    ----------
    context : multiprocessing context
        Makes the pipe.

    Examples
    --------
    >>> import multiprocessing
    >>> queue = PipeQueue(multiprocessing.get_context("spawn"))
    >>> queue.put("stop")
    >>> queue.get()
    'stop'
    """

    def __init__(self, context: Any) -> None:
        self._reader, self._writer = context.Pipe(duplex=False)
        self._is_closed = False

    def put(self, message: Any) -> None:
        """Send. The kernel keeps messages below 4096 bytes whole, whoever else writes.

        Raises
        ------
        ValueError
            If this end was closed.
        """
        if self._is_closed:
            raise ValueError("the queue is closed")
        with contextlib.suppress(BrokenPipeError):  # nobody reads any more; a queue would not say so either
            self._writer.send(message)

    def get(self) -> Any:
        """Wait for a message."""
        return self._reader.recv()

    def get_nowait(self) -> Any:
        """Return a message that is there.

        Raises
        ------
        Empty
            If there is none.
        """
        if not self._reader.poll():
            raise Empty
        return self._reader.recv()

    def close(self) -> None:
        """Send nothing more. The pipe itself ends with this object, because another thread may still read."""
        self._is_closed = True

    def join_thread(self) -> None:
        """Do nothing: what was put is in the pipe already."""


@contextlib.contextmanager
def pipes_for_queues() -> Iterator[None]:
    """While the body runs, nannies in this process talk to their workers through `PipeQueue`."""
    nanny: Any = distributed.nanny
    original = nanny.get_mp_context
    nanny.get_mp_context = lambda: _Context(original())
    try:
        yield
    finally:
        nanny.get_mp_context = original


class _Context:
    """A context of multiprocessing whose queues are pipes."""

    def __init__(self, context: Any) -> None:
        self._context = context

    def Queue(self) -> PipeQueue:  # noqa: N802, the name is Python's
        """Make a queue."""
        return PipeQueue(self._context)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)
