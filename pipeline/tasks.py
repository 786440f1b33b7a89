"""One function over many items, here or on a Dask cluster: who calls it is the only difference.

At most a bounded number of tasks exist at a time, so a slide of a million blocks costs the scheduler no more
than one of a thousand. Results are gathered and forgotten as they come: nothing stays on workers.
"""

from collections.abc import Callable, Generator, Iterable
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from distributed import Client, Future

Item = TypeVar("Item")
Result = TypeVar("Result")

TASKS_PER_THREAD = 3  # enough that a worker always has its next task at hand


def run_tasks(
    client: "Client | None", function: Callable[[Item], Result], items: Iterable[Item]
) -> Generator[tuple[Item, Result | None, Exception | None]]:
    """Call a function for each item; yield item, result and error in order of completion.

    Parameters
    ----------
    client : Client or None
        Where to run; None runs here, one after the other.
    function : callable
        Pure of its item, and picklable.
    items : iterable
        Picklable items, consumed lazily.

    Yields
    ------
    (item, result, error)
        `error` is None and `result` set, or the other way round.
    """
    if client is None:
        for item in items:
            yield item, *_attempt(function, item)
        return
    yield from _run_on_cluster(client, function, items)


def _attempt(function: Callable[[Item], Result], item: Item) -> tuple[Result | None, Exception | None]:
    try:
        return function(item), None
    except Exception as error:  # noqa: BLE001, whatever it is, it belongs to this item
        return None, error


def _run_on_cluster(
    client: "Client", function: Callable[[Item], Result], items: Iterable[Item]
) -> Generator[tuple[Item, Result | None, Exception | None]]:
    from distributed import as_completed

    waiting, remaining = as_completed(), iter(items)
    item_of: dict[Any, Item] = {}

    def submit(count: int) -> None:
        for item in islice(remaining, count):
            future = client.submit(function, item, pure=False)
            item_of[future.key] = item
            waiting.add(future)

    try:
        submit(max(2, count_threads(client) * TASKS_PER_THREAD))
        for future in waiting:
            item = item_of.pop(future.key)
            result, error = outcome(future)
            submit(1)
            yield item, result, error
    finally:
        client.cancel(list(waiting.futures))


def outcome(future: "Future[Any]") -> tuple[Any, Exception | None]:
    """Result or error of a finished future."""
    if future.status == "finished":
        return future.result(), None
    error = future.exception() if future.status == "error" else RuntimeError(f"task was {future.status}")
    return None, error if isinstance(error, Exception) else RuntimeError(repr(error))


def count_threads(client: "Client") -> int:
    """Threads of all workers at this moment."""
    return sum(client.nthreads().values())
