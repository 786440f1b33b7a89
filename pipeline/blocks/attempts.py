"""Call one function once for each of many items, in this process or on a Dask cluster.

The number of tasks that exist at a time is bounded, so a slide of a million blocks costs the scheduler no more
than a slide of a thousand. Each result is fetched as it arrives and then released: no result stays on a worker.

A failed item comes back with its error. `pipeline.blocks.tasks`, through which all stages run, decides what to do.
"""

from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent import futures
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from segment_slide.pipeline.errors import IncompleteError, WorkerDiedError

if TYPE_CHECKING:
    from distributed import Client, Future

Item = TypeVar("Item")
Result = TypeVar("Result")

MAX_BATCH = 16
SCHEDULER_GONE = "the Dask scheduler is gone: it ended, or the connection to it broke."
TASKS_PER_THREAD = 3  # enough that a worker always has its next task at hand


def run_tasks(
    client: "Client | None", function: Callable[[Item], Result], items: Iterable[Item], *, batch: int = 1
) -> Generator[tuple[Item, Result | None, Exception | None]]:
    """Call a function for each item; yield item, result and error in order of completion.

    Parameters
    ----------
    client : Client or None
        Where to run; None runs in this process, one item after the other.
    function : callable
        Picklable; its result depends on the item alone.
    items : iterable
        Picklable items, consumed lazily.
    batch : int
        Items per Dask task. To schedule a task takes some milliseconds, as long as some items take themselves.

    Yields
    ------
    (item, result, error)
        If the item succeeded, `error` is None. If it failed, `result` is None.
    """
    if client is None:
        for item in items:
            yield item, *_attempt(function, item)
        return
    yield from _run_on_cluster(client, function, items, batch)


def try_in_threads(
    function: Callable[[Item], Result], items: Iterable[Item], threads: int
) -> Generator[tuple[Item, Result | None, Exception | None]]:
    """The same as `run_tasks`, in threads of this process; it takes at most one item more than there are threads."""
    running: dict[futures.Future[tuple[Result | None, Exception | None]], Item] = {}

    def take_finished() -> Iterator[tuple[Item, Result | None, Exception | None]]:
        for future in futures.wait(running, return_when=futures.FIRST_COMPLETED).done:
            yield running.pop(future), *future.result()

    with futures.ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                running[pool.submit(_attempt, function, item)] = item
                if len(running) > threads:
                    yield from take_finished()
            while running:
                yield from take_finished()
        finally:
            for future in running:
                future.cancel()


def _attempt(function: Callable[[Item], Result], item: Item) -> tuple[Result | None, Exception | None]:
    try:
        return function(item), None
    except Exception as error:  # noqa: BLE001, any error belongs to this item
        return None, error


def _attempt_all(function: Callable[[Item], Result], items: list[Item]) -> list[tuple[Result | None, Exception | None]]:
    """Results and errors of a batch; runs on a worker."""
    attempts = (_attempt(function, item) for item in items)
    return [(result, None if error is None else portable(error)) for result, error in attempts]


def portable(error: Exception) -> Exception:
    """An error that can be sent: without its causes, and as a RuntimeError if its own class cannot be unpickled.

    >>> import zarr
    >>> from segment_slide.pipeline.errors import OutputError
    >>> portable(OutputError("no room"))
    OutputError('no room')
    >>> portable(zarr.errors.ArrayNotFoundError("no array"))
    RuntimeError('ArrayNotFoundError: no array')
    """
    from distributed.protocol.pickle import dumps, loads

    error.__cause__ = error.__context__ = None
    error = error.with_traceback(None)
    try:
        loads(dumps(error))  # some of zarr's errors can be pickled but not unpickled
    except Exception:  # noqa: BLE001, a constructor may raise anything
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _run_on_cluster(
    client: "Client", function: Callable[[Item], Result], items: Iterable[Item], batch: int
) -> Generator[tuple[Item, Result | None, Exception | None]]:
    from distributed import as_completed

    waiting, remaining = as_completed(loop=client.loop), iter(items)  # there may be other clients
    items_of: dict[Any, list[Item]] = {}

    def submit(count: int) -> None:
        for _ in range(count):
            if part := list(islice(remaining, batch)):
                future = client.submit(_attempt_all, function, part, pure=False)
                items_of[future.key] = part
                waiting.add(future)

    try:
        submit(max(2, count_threads(client) * TASKS_PER_THREAD))
        for future in waiting:
            part = items_of.pop(future.key)
            results, error = outcome(future)
            submit(1)
            for item, (result, own) in zip(part, results or [(None, error)] * len(part), strict=True):
                yield item, result, own
    finally:
        cancel(client, waiting.futures)


def outcome(future: "Future[Any]") -> tuple[Any, Exception | None]:
    """Result or error of a finished future; errors of Dask itself get a readable message.

    Raises
    ------
    IncompleteError
        If the scheduler or all workers are gone: then no other task can run either.
    """
    error: Any = None
    if future.status == "finished":
        try:
            return future.result(), None
        except Exception as lost:  # noqa: BLE001, the result was lost with its worker and not recomputed
            error = lost
    if future.client.status != "running":
        raise IncompleteError(f"{SCHEDULER_GONE} What is done is kept.")
    if future.status == "error":
        error = future.exception()
    error = error or RuntimeError(f"task was {future.status}")
    return None, _in_words(error) if isinstance(error, Exception) else RuntimeError(repr(error))


def _in_words(error: Exception) -> Exception:
    """A readable message for errors of Dask, which name a task by its key; any other error is returned unchanged."""
    from distributed.scheduler import KilledWorker, NoValidWorkerError, NoWorkerError

    if isinstance(error, KilledWorker):
        return WorkerDiedError(f"its worker died {error.allowed_failures + 1} times (out of memory, or killed)")
    if isinstance(error, NoWorkerError | NoValidWorkerError):
        raise IncompleteError(
            f"no worker is left, and none came within {error.timeout:.0f} s. What is done is kept."
        ) from error
    return error


def cancel(client: "Client", futures: "Iterable[Future[Any]]") -> None:
    """Cancel tasks, so that those not yet begun never begin; do nothing if the scheduler is gone."""
    if client.status == "running":
        client.cancel(list(futures))


def choose_batch(client: "Client | None", n_items: int) -> int:
    """Items per task: enough to hide the cost of scheduling, few enough that all threads end at about the same time."""
    if client is None:
        return 1
    return max(1, min(MAX_BATCH, n_items // (count_threads(client) * 2 * TASKS_PER_THREAD)))


def count_threads(client: "Client") -> int:
    """Threads of all workers at this moment; 1 while the only worker is being replaced."""
    return max(1, sum(client.nthreads().values()))
