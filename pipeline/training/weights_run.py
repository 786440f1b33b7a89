"""Weight maps of annotated images of any size, the second pass: classes and weights of each block, into its shards.

Each window of blocks becomes one Dask array of label values; `dask.array.map_overlap` hands each block its halo, and
the block's task stores its two shards. Windows of all images form one queue, so that many small images keep workers as
busy as one slide.
"""

import contextlib
import logging
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from segment_slide.pipeline.blocks.grid import Index, Window
from segment_slide.pipeline.blocks.sizes import choose_window
from segment_slide.pipeline.blocks.tasks import run_tasks
from segment_slide.pipeline.blocks.windows import run_windows
from segment_slide.pipeline.errors import IncompleteError, InputError, OutputError
from segment_slide.pipeline.training.weights_block import WeightJob, weigh_block, weigh_block_alone
from segment_slide.pipeline.training.weights_inputs import OnBlock
from segment_slide.unet.boxes import Box
from segment_slide.unet.errors import UnetError

if TYPE_CHECKING:
    import dask.array
    from distributed import Client, Future

log = logging.getLogger(__name__)

Place = tuple[int, Index]  # number of the image, block
Results = Generator[tuple[Place, int | None, Exception | None]]
_SHOWN = 10


@dataclass(frozen=True)
class LabelCanvas:
    """The label values that a window's Dask array spans, read when they are sliced; background beyond the image.

    Looks like an array to `dask.array.from_array`: shape, dtype, ndim, slicing.
    """

    job: WeightJob
    window: Window

    @property
    def shape(self) -> tuple[int, ...]:
        """Size (px) on the image's axes."""
        return tuple(map(sum, self.window.canvas_chunks()))

    @property
    def dtype(self) -> np.dtype[Any]:
        """As stored."""
        return self.job.labels.dtype

    @property
    def ndim(self) -> int:
        """Plane axes and spatial axes."""
        return len(self.window.blocks)

    def __getitem__(self, box: Box) -> np.ndarray:
        """Values of a box in canvas coordinates."""
        return self.job.labels.read(
            tuple(slice(s.start + start, s.stop + start) for s, start in zip(box, self.window.origin, strict=True))
        )


def window_array(job: WeightJob, window: Window) -> "dask.array.Array":
    """The lazy weight map of a window: one element per chunk, whose task makes and stores a block.

    The chunks of the surrounding halo have elements too, which are never asked for and so never computed.
    """
    import dask.array as da

    canvas, chunks = LabelCanvas(job, window), window.canvas_chunks()
    values = da.from_array(
        canvas,
        chunks=chunks,
        name=False,
        asarray=False,
        inline_array=True,
        meta=np.empty((0,) * canvas.ndim, canvas.dtype),
    )
    return da.map_overlap(
        run_chunk,
        values,
        depth={axis: job.grid.halo(axis) for axis in range(canvas.ndim)},
        boundary="none",
        trim=False,
        allow_rechunk=False,
        chunks=tuple((1,) * len(sizes) for sizes in chunks),
        dtype=np.int64,
        meta=np.empty((0,) * canvas.ndim, np.int64),
        job=job,
        window=window,
    )


def run_chunk(values: np.ndarray, *, job: WeightJob, window: Window, block_id: Index) -> np.ndarray:
    """`weigh_block` as `map_overlap` calls it: the widened chunk is cut to the block's read box."""
    index = window.index_of(block_id)
    inner = tuple(slice(part.stop - part.start) for part in window.grid.read_box(index))
    return np.full((1,) * values.ndim, weigh_block(job, values[inner], index), np.int64)


def make_weights(
    jobs: Sequence[WeightJob], pending: Sequence[Sequence[Index]], client: "Client | None", on_block: OnBlock
) -> None:
    """Make and store all blocks that are not done yet.

    Parameters
    ----------
    jobs : sequence of WeightJob
        One per image, with the class weights of the whole set.
    pending : sequence of sequence of index
        Blocks to do, per job.
    client : Client or None
        Dask cluster; None runs here, block by block.
    on_block : callable
        Called with the pixels of each block that was stored.

    Raises
    ------
    IncompleteError
        If blocks failed twice, naming them, or the output cannot be written; the others are stored.
    """
    places = [(number, index) for number, blocks in enumerate(pending) for index in blocks]
    results = _run_alone(None, jobs, places) if client is None else _run_windows(client, jobs, pending)
    failed = _collect(jobs, results, on_block)
    # again, alone: in a window a block also fails when its neighbour's chunk cannot be read
    failed = _collect(jobs, _run_alone(client, jobs, sorted(failed)), on_block)
    if failed:
        shown = [f"  {jobs[number].name}, block {index}: {error}" for (number, index), error in sorted(failed.items())]
        more = [f"  … and {len(shown) - _SHOWN} more"] if len(shown) > _SHOWN else []
        raise IncompleteError(
            "\n".join([f"{len(failed)} blocks of weight maps could not be made:", *shown[:_SHOWN], *more])
        )


def _run_alone(client: "Client | None", jobs: Sequence[WeightJob], places: Sequence[Place]) -> Results:
    """Blocks one by one, each reading its own box."""
    items = ((number, jobs[number], index) for number, index in places)
    with contextlib.closing(run_tasks(client, _run_item, items)) as results:
        for (number, _, index), n_pixels, error in results:
            yield (number, index), n_pixels, error


def _run_item(item: tuple[int, WeightJob, Index]) -> int:
    return weigh_block_alone(*item[1:])


def _run_windows(client: "Client", jobs: Sequence[WeightJob], pending: Sequence[Sequence[Index]]) -> Results:
    """All windows that have pending blocks, of all images."""
    wanted = [set(blocks) for blocks in pending]
    windows = (
        (number, window)
        for number, job in enumerate(jobs)
        for window in job.grid.windows(choose_window(job.grid, job.labels.dtype.itemsize))
    )

    def submit(part: tuple[int, Window], priority: int) -> "dict[Place, Future[Any]]":
        number, window = part
        blocks = [index for index in window.indices() if index in wanted[number]]
        if not blocks:
            return {}
        lazy = window_array(jobs[number], window).to_delayed()
        futures = client.compute([lazy[window.chunk_of(index)] for index in blocks], priority=-priority)
        return {(number, index): future for index, future in zip(blocks, futures, strict=True)}

    with contextlib.closing(run_windows(client, windows, submit)) as results:
        for place, stored, error in results:
            yield place, None if stored is None else int(stored.flat[0]), error


def _collect(jobs: Sequence[WeightJob], results: Results, on_block: OnBlock) -> dict[Place, Exception | None]:
    """Count what was stored and return what failed; what would fail for every block ends the run."""
    failed = {}
    with contextlib.closing(results):
        for place, n_pixels, error in results:
            if isinstance(error, OutputError | InputError | UnetError):
                name = f"{jobs[place[0]].name}, block {place[1]}"
                raise IncompleteError(f"{name}: {error}. Blocks that are done are kept.") from error
            if n_pixels is None:
                log.info("%s, block %s failed: %s", jobs[place[0]].name, place[1], error)
                failed[place] = error
            else:
                on_block(n_pixels)
    return failed
