"""Where blocks and windows lie, in integers (imports no array library).

Axes here are canonical: plane axes first (each plane is segmented by itself), then the network's spatial axes.
One spatial axis with two whole blocks and a cut one; `h` is the halo::

    image           |----------------------------|
    write boxes     |wwwwwwwwwwww|wwwwwwwwwwww|ww|          a partition: each pixel has one owner
    read box of 1            |hhh|wwwwwwwwwwww|hhh|         beyond the image: mirrored

The canvas of a window is what its Dask array spans: the blocks' pixels and one halo around, so that
`dask.array.map_overlap` finds the context of each block in the neighbouring chunk::

    canvas      |hhh|wwwwwwwwwwww|wwwwwwwwwwww|ww+++|hhh|   `+`: rounded up to the stride and to the halo
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from segment_slide.unet.boxes import Box
from segment_slide.unet.geometry import round_up

Index = tuple[int, ...]


class Context(Protocol):
    """Stride and halo that blocks need: a network's `unet.geometry.Locality`, or one of stride 1 for other work."""

    @property
    def stride(self) -> int:
        """Blocks start at multiples of this (px)."""

    @property
    def halo(self) -> int:
        """Pixels per side and spatial axis that a block reads beyond what it writes."""


def ceil_divide(size: int, by: int) -> int:
    """Smallest n with n * by >= size.

    >>> ceil_divide(2049, 1024)
    3
    """
    return -(-size // by)


def reflect(position: int, size: int) -> int:
    """The pixel that is mirrored to a position outside an axis; the edge pixel is not repeated.

    The same as ``numpy.pad(mode="reflect")``, repeated as often as needed when the image is narrow.

    >>> [reflect(position, 4) for position in range(-4, 8)]
    [2, 3, 2, 1, 0, 1, 2, 3, 2, 1, 0, 1]
    """
    if size == 1:
        return 0
    position %= 2 * size - 2
    return position if position < size else 2 * size - 2 - position


@dataclass(frozen=True)
class BlockGrid:
    """The partition of an image into blocks, and the boxes each block reads and writes.

    Parameters
    ----------
    shape : tuple of int
        Image size (px), plane axes first, then spatial axes; no channel axis.
    block : tuple of int
        Block size (px) on the same axes: 1 on plane axes, a multiple of the stride on spatial ones.
    geometry : Context
        Stride and halo of the network.
    n_spatial : int
        2 or 3: how many of the last axes are spatial.
    """

    shape: tuple[int, ...]
    block: tuple[int, ...]
    geometry: Context
    n_spatial: int

    @property
    def n_planes_axes(self) -> int:
        """Number of leading axes along which planes (or volumes) are independent."""
        return len(self.shape) - self.n_spatial

    @property
    def counts(self) -> tuple[int, ...]:
        """Blocks per axis."""
        return tuple(ceil_divide(size, block) for size, block in zip(self.shape, self.block, strict=True))

    @property
    def n_blocks(self) -> int:
        """Blocks of the image, one shard each."""
        return math.prod(self.counts)

    def is_spatial(self, axis: int) -> bool:
        """Whether an axis gets a halo."""
        return axis >= self.n_planes_axes

    def halo(self, axis: int) -> int:
        """Context (px) per side on an axis."""
        return self.geometry.halo if self.is_spatial(axis) else 0

    def widen(self, owned_px: int, axis: int) -> int:
        """Size (px) of the canvas chunk that holds a block's pixels: whole strides, and at least a halo.

        The next block takes its context from this chunk alone, and `dask.array` refuses a chunk narrower than the halo.
        """
        return round_up(max(owned_px, self.halo(axis)), self.geometry.stride) if self.is_spatial(axis) else owned_px

    def write_box(self, index: Index) -> Box:
        """Pixels that a block owns; the boxes of all blocks cover each pixel exactly once."""
        return tuple(
            slice(i * block, min((i + 1) * block, size))
            for i, block, size in zip(index, self.block, self.shape, strict=True)
        )

    def read_box(self, index: Index) -> Box:
        """Pixels that a block needs, in image coordinates: below 0 and beyond the image they are mirrored.

        The owned part is rounded up to the stride, because the network runs on whole strides only.
        """
        box = []
        for axis, owned in enumerate(self.write_box(index)):
            step = self.geometry.stride if self.is_spatial(axis) else 1
            width = round_up(owned.stop - owned.start, step)
            box.append(slice(owned.start - self.halo(axis), owned.start + width + self.halo(axis)))
        return tuple(box)

    def crop_box(self, index: Index) -> Box:
        """The write box seen from what the network returns for the read box."""
        return tuple(slice(0, owned.stop - owned.start) for owned in self.write_box(index))

    def indices(self) -> Iterator[Index]:
        """All block indices in raster order."""
        return itertools.product(*map(range, self.counts))

    def windows(self, window_blocks: tuple[int, ...]) -> Iterator["Window"]:
        """Rectangles of blocks that cover the grid, in raster order."""
        axes = [
            [range(start, min(start + step, count)) for start in range(0, count, step)]
            for count, step in zip(self.counts, window_blocks, strict=True)
        ]
        for ranges in itertools.product(*axes):
            yield Window(self, ranges)


@dataclass(frozen=True)
class Window:
    """A rectangle of blocks that becomes one Dask graph; it bounds the graph whatever the image's size.

    Parameters
    ----------
    grid : BlockGrid
        The grid it is cut from.
    blocks : tuple of range
        Block indices per axis.
    """

    grid: BlockGrid
    blocks: tuple[range, ...]

    @property
    def n_blocks(self) -> int:
        """Blocks in the window."""
        return math.prod(map(len, self.blocks))

    def indices(self) -> Iterator[Index]:
        """Its block indices in raster order."""
        return itertools.product(*self.blocks)

    @property
    def origin(self) -> tuple[int, ...]:
        """Image coordinates of the canvas' first pixel."""
        return tuple(
            blocks.start * size - self.grid.halo(axis)
            for axis, (blocks, size) in enumerate(zip(self.blocks, self.grid.block, strict=True))
        )

    def canvas_chunks(self) -> tuple[tuple[int, ...], ...]:
        """Chunk sizes of the canvas: halo, widened blocks, halo on spatial axes; single planes on the others."""
        chunks = []
        for axis, blocks in enumerate(self.blocks):
            size, halo = self.grid.block[axis], self.grid.halo(axis)
            if not self.grid.is_spatial(axis):
                chunks.append((size,) * len(blocks))
                continue
            owned = [min(size, self.grid.shape[axis] - i * size) for i in blocks]
            chunks.append((halo, *(self.grid.widen(width, axis) for width in owned), halo))
        return tuple(chunks)

    def chunk_of(self, index: Index) -> Index:
        """Position of a block's chunk on the canvas: halo chunks come first on spatial axes."""
        return tuple(
            i - blocks.start + (1 if self.grid.is_spatial(axis) else 0)
            for axis, (i, blocks) in enumerate(zip(index, self.blocks, strict=True))
        )

    def index_of(self, chunk: Index) -> Index:
        """Inverse of `chunk_of`."""
        return tuple(
            position + blocks.start - (1 if self.grid.is_spatial(axis) else 0)
            for axis, (position, blocks) in enumerate(zip(chunk, self.blocks, strict=True))
        )


@dataclass(frozen=True)
class LabelGrid(BlockGrid):
    """Blocks whose halo differs from axis to axis.

    Parameters
    ----------
    halos : tuple of int
        Pixels per side on each axis.
    """

    halos: tuple[int, ...] = ()

    def halo(self, axis: int) -> int:
        """Context (px) per side on an axis."""
        return self.halos[axis]
