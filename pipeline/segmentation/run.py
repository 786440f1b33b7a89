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

import numpy as np

from segment_slide.pipeline.blocks.grid import Index, Window
from segment_slide.pipeline.blocks.tasks import Wording, keeping_what_is_done, run_all
from segment_slide.pipeline.blocks.windows import run_windows
from segment_slide.pipeline.errors import TasksFailedError, WorkerDiedError
from segment_slide.pipeline.segmentation.block import (
    BlockJob,
    BlockReport,
    run_background_block,
    run_block,
    run_block_alone,
)
from segment_slide.pipeline.storage.source import ImageSource
from segment_slide.unet.boxes import Box

if TYPE_CHECKING:
    import dask.array
    from distributed import Client, Future

OnBlock = Callable[[BlockReport], None]
Tries = Generator[tuple[Index, BlockReport | None, Exception | None]]

WORDING = Wording(kept="Blocks that are done are kept.", plural="blocks")


@dataclass(frozen=True)
class BlockFailure:
    """A block that could not be done, why, and whether it took workers with it."""

    index: Index
    reason: str
    ended_workers: bool = False


@dataclass(frozen=True)
class Canvas:
    """The pixels that a window's Dask array spans, read when they are sliced (see `pipeline.blocks.grid`).

    Looks like an array to `dask.array.from_array`: shape, dtype, ndim, slicing.
    """

    source: ImageSource
    window: Window

    @property
    def chunks(self) -> tuple[tuple[int, ...], ...]:
        """Chunk sizes with the channel axis between planes and space."""
        chunks, planes = self.window.canvas_chunks(), self.window.grid.n_planes_axes
        return (*chunks[:planes], (len(self.source.channels),), *chunks[planes:])

    @property
    def shape(self) -> tuple[int, ...]:
        """Size (px) on (*planes, c, *spatial)."""
        return tuple(map(sum, self.chunks))

    @property
    def dtype(self) -> np.dtype[Any]:
        """As stored."""
        return self.source.dtype

    @property
    def ndim(self) -> int:
        """Plane axes, channel axis, spatial axes."""
        return len(self.chunks)

    def __getitem__(self, box: Box) -> np.ndarray:
        """Pixels of a box in canvas coordinates, all channels."""
        planes = self.window.grid.n_planes_axes
        without_channels = (*box[:planes], *box[planes + 1 :])
        return self.source.read(
            tuple(
                slice(s.start + start, s.stop + start)
                for s, start in zip(without_channels, self.window.origin, strict=True)
            )
        )


def window_array(job: BlockJob, window: Window) -> "dask.array.Array":
    """The lazy segmentation of a window: one element per chunk, whose task segments and stores a block.

    The chunks of the surrounding halo have elements too, which are never asked for and so never computed.
    """
    import dask.array as da

    canvas = Canvas(job.source, window)
    pixels = da.from_array(
        canvas,
        chunks=canvas.chunks,
        name=False,
        asarray=False,
        inline_array=True,
        meta=np.empty((0,) * canvas.ndim, canvas.dtype),
    )
    depth = dict.fromkeys(range(canvas.ndim), 0)
    for axis in range(window.grid.n_planes_axes, len(window.grid.shape)):
        depth[axis + 1] = window.grid.halo(axis)
    return da.map_overlap(
        run_chunk,
        pixels,
        depth=depth,
        boundary="none",
        trim=False,
        allow_rechunk=False,
        chunks=tuple((1,) * len(sizes) for sizes in canvas.chunks),
        dtype=object,
        meta=np.empty((0,) * canvas.ndim, object),
        job=job,
        window=window,
    )


def run_chunk(pixels: np.ndarray, *, job: BlockJob, window: Window, block_id: Index) -> np.ndarray:
    """`run_block` as `map_overlap` calls it: the widened chunk is cut to the block's read box."""
    planes = window.grid.n_planes_axes
    index = window.index_of((*block_id[:planes], *block_id[planes + 1 :]))
    sizes = [s.stop - s.start for s in window.grid.read_box(index)[planes:]]
    inner: tuple[Any, ...] = (..., *(slice(size) for size in sizes))
    report = run_block(job, pixels[inner], index)
    result = np.empty((1,) * pixels.ndim, object)
    result.flat[0] = report
    return result


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
            BlockFailure(failure.item, f"{failure.error}", isinstance(failure.error, WorkerDiedError))
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
            yield index, None if result is None else result.flat[0], error


def _submit_window(
    client: "Client", job: BlockJob, window: Window, done: Collection[Index], number: int
) -> "dict[Index, Future[Any]]":
    """Futures of a window's pending blocks; Dask drops the tasks that no pending block needs."""
    pending = [index for index in window.indices() if index not in done]
    if not pending:
        return {}
    lazy = window_array(job, window).to_delayed()
    planes = window.grid.n_planes_axes
    wanted = []
    for index in pending:
        chunk = window.chunk_of(index)
        wanted.append(lazy[(*chunk[:planes], 0, *chunk[planes:])])
    futures = client.compute(wanted, priority=-number)
    return dict(zip(pending, futures, strict=True))
