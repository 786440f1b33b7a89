"""Weight maps of annotated images of any size, the second pass: classes and weights of each block, into its shards.

Each window of blocks becomes one Dask array of label values; `dask.array.map_overlap` hands each block its halo, and
the block's task stores its two shards. Windows of all images form one queue, so that many small images keep workers as
busy as one slide.
"""

import contextlib
import functools
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any

from segment_slide.pipeline.blocks.canvas import Canvas, result_of, submit_blocks
from segment_slide.pipeline.blocks.grid import Index, Window
from segment_slide.pipeline.blocks.sizes import choose_window
from segment_slide.pipeline.blocks.tasks import Wording, keeping_what_is_done, run_all
from segment_slide.pipeline.blocks.windows import run_windows
from segment_slide.pipeline.training.weights_block import WeightJob, weigh_block, weigh_block_alone
from segment_slide.pipeline.training.weights_inputs import OnBlock

if TYPE_CHECKING:
    from distributed import Client, Future

Place = tuple[int, Index]  # number of the image, block
Item = tuple[int, WeightJob, Index]
Tries = Generator[tuple[Item, int | None, Exception | None]]

WORDING = Wording("blocks of weight maps could not be made:", "Blocks that are done are kept.", "blocks")


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
        task = functools.partial(weigh_block, jobs[number])
        canvas = Canvas(jobs[number].labels, window)
        futures = submit_blocks(client, canvas, task, blocks, priority=-priority)
        return {(number, index): future for index, future in futures.items()}

    with contextlib.closing(run_windows(client, windows, submit)) as results:
        for (number, index), stored, error in results:
            yield (number, jobs[number], index), result_of(stored), error
