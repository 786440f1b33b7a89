"""A window of blocks as one Dask graph: `map_overlap` hands each block the context that it reads.

The canvas of a window (see `pipeline.blocks.grid`) looks like an array whose chunks are blocks, whatever the chunks of
the stored image. Pixels are read when Dask slices it. Nothing here knows what a block is turned into: that is a task's.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from segment_slide.pipeline.blocks.grid import Index, Window
from segment_slide.unet.boxes import Box

if TYPE_CHECKING:
    import dask.array
    from distributed import Client, Future

Part = TypeVar("Part")
Task = Callable[[np.ndarray, Index], Any]  # pixels of a block's read box and its index, to what the task returns


class Source(Protocol):
    """Where pixels come from."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """As stored."""

    def read(self, box: Box) -> np.ndarray:
        """Read a box in image coordinates; it may reach beyond the image."""


@dataclass(frozen=True)
class Canvas:
    """The pixels that a window's Dask array spans, read when they are sliced.

    It looks like an array to `dask.array.from_array`: shape, dtype, ndim, slicing.

    Parameters
    ----------
    source : Source
        Pixels of the image.
    window : Window
        Which blocks.
    n_channels : int, optional
        Size of the channel axis, which lies between planes and space; None if there is no such axis.
    """

    source: Source
    window: Window
    n_channels: int | None = None

    @property
    def chunks(self) -> tuple[tuple[int, ...], ...]:
        """Chunk sizes (px) per axis."""
        return self.with_channel(self.window.canvas_chunks(), (self.n_channels or 0,))

    @property
    def shape(self) -> tuple[int, ...]:
        """Size (px) on (*planes, c, *spatial), or without c."""
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
        parts = zip(self.without_channel(box), self.window.origin, strict=True)
        return self.source.read(tuple(slice(part.start + start, part.stop + start) for part, start in parts))

    def with_channel(self, values: tuple[Part, ...], value: Part) -> tuple[Part, ...]:
        """One value per axis of the image, with that of the channel axis put in its place, if there is one."""
        planes = self.window.grid.n_planes_axes
        return values if self.n_channels is None else (*values[:planes], value, *values[planes:])

    def without_channel(self, values: tuple[Part, ...]) -> tuple[Part, ...]:
        """The other way round."""
        planes = self.window.grid.n_planes_axes
        return values if self.n_channels is None else (*values[:planes], *values[planes + 1 :])


def window_array(canvas: Canvas, task: Task) -> "dask.array.Array":
    """A window's lazy results: one element per chunk, which holds what the task returned for that block.

    The chunks of the surrounding halo have elements too. They are never asked for, and so never computed.

    Parameters
    ----------
    canvas : Canvas
        Pixels.
    task : callable
        Picklable.
    """
    import dask.array as da

    pixels = da.from_array(
        canvas,
        chunks=canvas.chunks,
        name=False,
        asarray=False,
        inline_array=True,
        meta=np.empty((0,) * canvas.ndim, canvas.dtype),
    )
    grid = canvas.window.grid
    halos = canvas.with_channel(tuple(grid.halo(axis) for axis in range(len(grid.shape))), 0)
    return da.map_overlap(
        run_chunk,
        pixels,
        depth=dict(enumerate(halos)),
        boundary="none",
        trim=False,
        allow_rechunk=False,
        chunks=tuple((1,) * len(sizes) for sizes in canvas.chunks),
        dtype=object,
        meta=np.empty((0,) * canvas.ndim, object),
        task=task,
        canvas=canvas,
    )


def run_chunk(pixels: np.ndarray, *, task: Task, canvas: Canvas, block_id: Index) -> np.ndarray:
    """A task as `map_overlap` calls it: the widened chunk is cut to the block's read box."""
    index = canvas.window.index_of(canvas.without_channel(block_id))
    sizes = tuple(slice(part.stop - part.start) for part in canvas.window.grid.read_box(index))
    result = np.empty((1,) * pixels.ndim, object)
    result.flat[0] = task(pixels[canvas.with_channel(sizes, slice(None))], index)
    return result


def submit_blocks(
    client: "Client", canvas: Canvas, task: Task, pending: Collection[Index], *, priority: int
) -> "dict[Index, Future[Any]]":
    """Futures of a window's pending blocks; Dask drops the chunks that no pending block needs.

    What a future gives is an array of one element: see `result_of`.
    """
    if not pending:
        return {}
    lazy = window_array(canvas, task).to_delayed()
    wanted = [lazy[canvas.with_channel(canvas.window.chunk_of(index), 0)] for index in pending]
    return dict(zip(pending, client.compute(wanted, priority=priority), strict=True))


def result_of(element: np.ndarray | None) -> Any:
    """What the task returned, out of a future's result; None if it failed."""
    return None if element is None else element.flat[0]
