"""Many Dask graphs, one after the other without a pause: the next is submitted while the last one drains."""

from collections.abc import Callable, Generator, Hashable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from segment_slide.pipeline.blocks.attempts import cancel, count_threads, outcome
from segment_slide.pipeline.blocks.sizes import BLOCKS_PER_THREAD

if TYPE_CHECKING:
    from distributed import Client, Future

Part = TypeVar("Part")
Key = TypeVar("Key", bound=Hashable)


def run_windows(
    client: "Client", windows: Iterable[Part], submit: "Callable[[Part, int], dict[Key, Future[Any]]]"
) -> Generator[tuple[Key, Any, Exception | None]]:
    """Submit a window when workers run out of blocks; yield each block's key, result and error in order of completion.

    Close the generator (`contextlib.closing`) if it is left before its end: that cancels the tasks that still run.

    Parameters
    ----------
    client : Client
        Dask cluster.
    windows : iterable
        Each becomes one graph; consumed lazily.
    submit : callable
        Takes a window and its number, returns futures of its pending blocks by key; empty if nothing is left to do.
    """
    from distributed import as_completed

    remaining, running = enumerate(windows), as_completed(loop=client.loop)
    key_of: dict[Any, Key] = {}

    def submit_next() -> bool:
        for number, window in remaining:
            futures = submit(window, number)
            if futures:
                key_of.update({future.key: key for key, future in futures.items()})
                running.update(futures.values())
                return True
        return False

    try:
        submit_next()
        for future in running:
            key = key_of.pop(future.key)
            result, error = outcome(future)
            # draining: no more blocks are left than the workers will ask for next
            while len(key_of) <= BLOCKS_PER_THREAD * count_threads(client) and submit_next():
                pass
            yield key, result, error
    finally:
        cancel(client, running.futures)
