"""Weight maps of annotated images of any size, the second pass: classes and weights of each block, into its shards.

Each window of blocks becomes one Dask array of label values; `dask.array.map_overlap` hands each block its halo, and
the block's task stores its two shards. Windows of all images form one queue, so that many small images keep workers as
busy as one slide.
"""

import contextlib
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from segment_slide.pipeline.blocks.grid import Index, Window
from segment_slide.pipeline.blocks.sizes import choose_window
from segment_slide.pipeline.blocks.tasks import Wording, keeping_what_is_done, run_all
from segment_slide.pipeline.blocks.windows import run_windows
from segment_slide.pipeline.training.weights_block import WeightJob, weigh_block, weigh_block_alone
from segment_slide.pipeline.training.weights_inputs import OnBlock
from segment_slide.unet.boxes import Box

if TYPE_CHECKING:
    import dask.array
    from distributed import Client, Future

Place = tuple[int, Index]  # number of the image, block
Item = tuple[int, WeightJob, Index]
Tries = Generator[tuple[Item, int | None, Exception | None]]

WORDING = Wording("blocks of weight maps could not be made:", "Blocks that are done are kept.", "blocks")


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
    windows = None if client is None else _run_windows(client, jobs, pending)
    items = ((number, jobs[number], index) for number, index in places)
    with keeping_what_is_done(WORDING.kept):
        # in a window a block also fails when its neighbour's chunk cannot be read; alone it reads its own box
        for _, n_pixels in run_all(client, _run_item, items, _name, first_tries=windows, wording=WORDING):
            on_block(n_pixels)


def _run_item(item: Item) -> int:
    return weigh_block_alone(*item[1:])


def _name(item: Item) -> str:
    return f"{item[1].name}, block {item[2]}"


def _run_windows(client: "Client", jobs: Sequence[WeightJob], pending: Sequence[Sequence[Index]]) -> Tries:
    """Try all windows that have pending blocks, of all images."""
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
        for (number, index), stored, error in results:
            yield (number, jobs[number], index), None if stored is None else int(stored.flat[0]), error
