"""All blocks of an image, window by window, on a Dask cluster or here.

Each window becomes one Dask array whose chunks are blocks (whatever the input's own chunks); `map_overlap`
hands each block its context, and the block's task stores its shard. The next window is submitted while the
last one drains, so that workers never starve, and results are forgotten as they come.
"""

import contextlib
import functools
from collections.abc import Callable, Collection, Generator, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from segment_slide.pipeline.blocks.canvas import Canvas, result_of, submit_blocks
from segment_slide.pipeline.blocks.grid import Index, Window
from segment_slide.pipeline.blocks.tasks import Wording, keeping_what_is_done, run_all
from segment_slide.pipeline.blocks.windows import run_windows
from segment_slide.pipeline.errors import TasksFailedError, WorkerDiedError, is_of_content
from segment_slide.pipeline.segmentation.block import (
    BlockJob,
    BlockReport,
    run_background_block,
    run_block,
    run_block_alone,
)

if TYPE_CHECKING:
    from distributed import Client, Future

OnBlock = Callable[[BlockReport], None]
Tries = Generator[tuple[Index, BlockReport | None, Exception | None]]

WORDING = Wording(kept="Blocks that are done are kept.", plural="blocks")


@dataclass(frozen=True)
class BlockFailure:
    """A block that could not be done, why, whether it took workers with it, and whether another try may help."""

    index: Index
    reason: str
    ended_workers: bool = False
    may_pass: bool = True


def canvas_of(job: BlockJob, window: Window) -> Canvas:
    """The pixels of a window, all channels that the network takes."""
    return Canvas(job.source, window, n_channels=len(job.source.channels))


def segment_blocks(
    job: BlockJob,
    window_blocks: tuple[int, ...],
    done: Collection[Index],
    *,
    background: Collection[Index] = (),
    client: "Client | None" = None,
    on_block: OnBlock | None = None,
) -> list[BlockFailure]:
    """Segment and store all blocks that are not done yet.

    Parameters
    ----------
    job : BlockJob
        What to do with a block.
    window_blocks : tuple of int
        Blocks per axis in one Dask graph.
    done : collection of index
        Blocks whose shard is there.
    background : collection of index
        Blocks to write as background without looking at them.
    client : Client, optional
        Dask cluster; None runs here, block by block.
    on_block : callable, optional
        Called with the report of each block that was stored.

    Returns
    -------
    list of BlockFailure
        Blocks that failed twice for a reason of their own (an unreadable chunk, a value that is not finite, a worker
        that died under them again and again), in raster order; the others are stored.

    Raises
    ------
    IncompleteError
        If the output cannot be written (a full disk) or the model cannot be used any more: going on would fail for
        every block.
    """
    notify = on_block or (lambda report: None)
    skipped = [index for index in background if index not in done]
    failures = _run(client, functools.partial(run_background_block, job), skipped, notify)
    done = set(done) | set(background)
    pending = (index for index in job.grid.indices() if index not in done)
    windows = _run_windows(client, job, window_blocks, done) if client else None
    # In a window a block also fails when a neighbour's chunk cannot be read; alone it reads exactly its own box.
    failures += _run(client, functools.partial(run_block_alone, job), pending, notify, windows)
    return sorted(failures, key=lambda failure: failure.index)


def _run(
    client: "Client | None",
    function: Callable[[Index], BlockReport],
    indices: Iterable[Index],
    notify: OnBlock,
    windows: Tries | None = None,
) -> list[BlockFailure]:
    """Run blocks, first in windows if there are such; return those that failed twice."""
    try:
        with keeping_what_is_done(WORDING.kept):
            for _, report in run_all(client, function, indices, _name, first_tries=windows, wording=WORDING):
                notify(report)
    except TasksFailedError as failed:
        return [
            BlockFailure(
                failure.item,
                f"{failure.error}",
                ended_workers=isinstance(failure.error, WorkerDiedError),
                may_pass=not is_of_content(failure.error),
            )
            for failure in failed.failures
        ]
    return []


def _name(index: Index) -> str:
    return f"block {index}"


def _run_windows(client: "Client", job: BlockJob, window_blocks: tuple[int, ...], done: Collection[Index]) -> Tries:
    """Try all windows that have pending blocks."""

    def submit(window: Window, number: int) -> "dict[Index, Future[Any]]":
        return _submit_window(client, job, window, done, number)

    with contextlib.closing(run_windows(client, job.grid.windows(window_blocks), submit)) as results:
        for index, result, error in results:
            yield index, result_of(result), error


def _submit_window(
    client: "Client", job: BlockJob, window: Window, done: Collection[Index], number: int
) -> "dict[Index, Future[Any]]":
    """Futures of a window's pending blocks."""
    pending = [index for index in window.indices() if index not in done]
    task = functools.partial(run_block, job)
    return submit_blocks(client, canvas_of(job, window), task, pending, priority=-number)
