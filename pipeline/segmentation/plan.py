"""The whole run decided from shapes alone: grids, files, operations, bytes. Nothing is read or created.

A plan can be printed, counted and refused before a pixel is touched; `pipeline.segmentation.run` runs it.
"""

import math
from dataclasses import dataclass, fields, replace

from segment_slide.pipeline.blocks.array_spec import ArraySpec
from segment_slide.pipeline.blocks.grid import BlockGrid, ceil_divide
from segment_slide.pipeline.blocks.memory import PROCESS_BYTES, check_fits
from segment_slide.pipeline.blocks.sizes import (
    BLOCKS_PER_THREAD,
    DEFAULT_CHUNK,
    SCHEDULING_S,
    WINDOWS_IN_FLIGHT,
    GiB,
    choose_block,
    choose_chunk,
    choose_tile,
    choose_window,
    count_levels,
    largest_divisor,
    level_shapes,
    shared_locality,
    window_bytes,
)
from segment_slide.pipeline.segmentation.options import SegmentOptions
from segment_slide.pipeline.storage.label_records import SegmentParameters
from segment_slide.pipeline.storage.source import ImageSource
from segment_slide.unet.network import NetworkDescription

ITEMSIZE = {"float32": 4, "bfloat16": 2}

# Peak memory of a forward pass, divided by the bytes of its live feature maps. The rest is the convolution library's
# own buffers and what the allocator keeps. At most 1.47 in 44 runs in 2D and 3D, float32 and bfloat16.
FORWARD_SCRATCH = 1.5


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes that one worker needs at most, by use."""

    process_bytes: int
    model_bytes: int
    forward_bytes: int
    blocks_bytes: int
    windows_bytes: int

    @property
    def total_bytes(self) -> int:
        """Peak of the worker's resident memory."""
        return sum(getattr(self, item.name) for item in fields(self))


@dataclass(frozen=True)
class SegmentPlan:
    """All decisions about a segmentation.

    Attributes
    ----------
    source : ImageSource
        Which pixels.
    network : NetworkDescription
        Which network.
    grid : BlockGrid
        Where blocks lie.
    tile_px, chunk : tuple of int
        Sizes (px): of a tile per spatial axis, of a chunk per axis of the output.
    window_blocks : tuple of int
        Blocks per axis in one Dask graph.
    n_levels : int
        Levels of the output pyramid.
    parameters : SegmentParameters
        What determines the output's bytes, as recorded in it.
    concurrency : int
        Forward passes at a time per worker.
    """

    source: ImageSource
    network: NetworkDescription
    grid: BlockGrid
    tile_px: tuple[int, ...]
    chunk: tuple[int, ...]
    window_blocks: tuple[int, ...]
    n_levels: int
    parameters: SegmentParameters
    concurrency: int

    @property
    def n_windows(self) -> int:
        """Dask graphs, one after the other."""
        return math.prod(map(ceil_divide, self.grid.counts, self.window_blocks))

    @property
    def scheduling_s(self) -> float:
        """Seconds that client and scheduler spend on all blocks; more workers do not shorten them."""
        return self.grid.n_blocks * SCHEDULING_S

    @property
    def n_classes(self) -> int:
        """Classes of the labels, background included."""
        return self.network.outputs[0].n_channels

    @property
    def probabilities(self) -> str | None:
        """Stored dtype of the probabilities, None if they are not stored."""
        dtype = self.parameters.probabilities
        return None if dtype == "none" else dtype

    @property
    def n_files(self) -> int:
        """Files of the output, metadata included."""
        arrays = self.label_arrays() + self.probability_arrays()
        groups = 3 + 2 * bool(self.probabilities)
        manifest = 2  # the list of all other files, and the group that it lies in
        return sum(spec.n_shards + 1 for spec in arrays) + groups + manifest

    @property
    def n_tasks_per_window(self) -> int:
        """Upper bound of the tasks in one Dask graph: reading, cutting and joining halos, segmenting."""
        per_block = 2 + 2 * 3**self.grid.n_spatial
        chunks = math.prod(count + 2 * self.grid.is_spatial(axis) for axis, count in enumerate(self.window_blocks))
        return per_block * chunks

    @property
    def flops(self) -> int:
        """Floating-point operations of all forward passes, flips included."""
        combinations: list[tuple[int, tuple[int, ...]]] = [(1, ())]
        spatial = self.grid.shape[self.grid.n_planes_axes :]
        for axis, size, tile in zip(self.network.axes, spatial, self.tile_px, strict=True):
            full, rest = divmod(size, tile)
            parts = [(full, tile)] * bool(full) + [(1, axis.round_up(rest))] * bool(rest)
            combinations = [(n * m, (*sizes, part)) for n, sizes in combinations for m, part in parts]
        per_plane = sum(n * self.network.forward_flops(sizes) for n, sizes in combinations)
        flips = 2**self.grid.n_spatial if self.parameters.tta == "flips" else 1
        return per_plane * math.prod(self.grid.shape[: self.grid.n_planes_axes]) * flips

    @property
    def memory(self) -> MemoryEstimate:
        """What one worker needs."""
        itemsize = ITEMSIZE[self.parameters.precision]
        parameters = self.network.n_parameters
        features = self.network.activation_bytes(self.tile_px, itemsize)
        tile_px = math.prod(axis.read_size(size) for axis, size in zip(self.network.axes, self.tile_px, strict=True))
        # float32 input twice, logits, their softmax and 8-byte class indices, at the tile's size
        edges = tile_px * (8 * self.network.in_channels + 8 * self.n_classes + 16)
        return MemoryEstimate(
            process_bytes=PROCESS_BYTES,
            model_bytes=parameters * (4 + itemsize),
            forward_bytes=self.concurrency * (int(features * FORWARD_SCRATCH) + edges),
            blocks_bytes=(self.concurrency + 1) * self._block_bytes(),  # + 1: one more is read or written meanwhile
            windows_bytes=self._windows_bytes(),
        )

    def _windows_bytes(self) -> int:
        """Input pixels that wait for their neighbours: two windows, or enough small ones to keep all threads busy."""
        pixel_bytes, one_block = self.source.pixel_bytes, (1,) * len(self.window_blocks)
        windows = min(WINDOWS_IN_FLIGHT, self.n_windows) * window_bytes(self.grid, self.window_blocks, pixel_bytes)
        blocks = min(BLOCKS_PER_THREAD * (self.concurrency + 1), self.grid.n_blocks)
        return max(windows, blocks * window_bytes(self.grid, one_block, pixel_bytes))

    def _block_bytes(self) -> int:
        """Bytes that one block needs: chunks decoded, read box joined, then labels and probabilities encoded."""
        read = math.prod(
            self.grid.widen(size, axis) + 2 * self.grid.halo(axis) for axis, size in enumerate(self.grid.block)
        )
        owned = math.prod(self.grid.block)
        scores = {None: 0, "uint8": 1, "float32": 4}[self.probabilities] * self.n_classes
        stored = read * self.source.stored_pixel_bytes + self.source.image.decoding_bytes
        return stored + 2 * read * self.source.pixel_bytes + 3 * owned * (1 + scores)

    def level_shapes(self) -> list[tuple[int, ...]]:
        """Shape of each pyramid level on the segmentation's axes, finest first."""
        return level_shapes(self.grid.shape, self.grid.n_spatial, self.n_levels)

    def label_arrays(self) -> list[ArraySpec]:
        """Arrays of the label image, finest first."""
        return [
            ArraySpec(str(level), shape, self.grid.block, self.chunk, "uint8", self.source.axes)
            for level, shape in enumerate(self.level_shapes())
        ]

    def probability_arrays(self) -> list[ArraySpec]:
        """Arrays of the probability image, empty if it is not stored; the channel axis comes before z and y."""
        if self.probabilities is None:
            return []
        n_classes, where = self.n_classes, self.channel_position
        return [
            ArraySpec(
                str(level),
                (*shape[:where], n_classes, *shape[where:]),
                (*self.grid.block[:where], n_classes, *self.grid.block[where:]),
                (*self.chunk[:where], 1, *self.chunk[where:]),
                self.probabilities,
                self.source.axes[:where] + "c" + self.source.axes[where:],
            )
            for level, shape in enumerate(self.level_shapes())
        ]

    @property
    def channel_position(self) -> int:
        """Where the channel axis goes in the probability image: after t, before z, y, x."""
        return 1 if self.source.axes.startswith("t") else 0

    def check_memory(self, available_bytes: int) -> None:
        """Refuse a plan that does not fit the memory of a worker.

        Raises
        ------
        PlanError
            With the amounts and what to change.
        """
        memory = self.memory
        parts = ", ".join(
            f"{item.name.removesuffix('_bytes')} {getattr(memory, item.name) / GiB:.2f}" for item in fields(memory)
        )
        remedy = (
            f"choose fewer `workers`, or a smaller `tile` (now {max(self.tile_px)} px) or `block` "
            f"(now {max(self.grid.block)} px)"
        )
        check_fits(memory.total_bytes, available_bytes, remedy, made_of=parts)


def plan_segmentation(
    source: ImageSource, network: NetworkDescription, options: SegmentOptions, *, concurrency: int = 1
) -> SegmentPlan:
    """Decide everything about a segmentation from shapes.

    Parameters
    ----------
    source : ImageSource
        The chosen pixels.
    network : NetworkDescription
        The network in numbers.
    options : SegmentOptions
        The user's choices; `precision` must be resolved ("float32" or "bfloat16").
    concurrency : int
        Forward passes at a time per worker.

    Raises
    ------
    PlanError
        If block, tile and chunk do not fit each other or the network, or a choice does not exist.
    """
    axis, ndim = shared_locality(network), len(network.axes)
    precision = options.precision or "float32"
    options.check()
    block = choose_block(options.block, network)
    tile = choose_tile(options.tile, block, network, ITEMSIZE[precision])
    chunk = choose_chunk(options.chunk, block, ndim)
    planes = len(source.plane_axes)
    spatial = source.shape[planes:]
    clipped = tuple(min(block, axis.round_up(size)) for size in spatial)
    grid = BlockGrid(source.shape, (1,) * planes + clipped, axis, ndim)
    chunks = tuple(chunk if size == block else largest_divisor(size, chunk) for size in clipped)
    return SegmentPlan(
        source=source,
        network=network,
        grid=grid,
        tile_px=tuple(min(tile, size) for size in clipped),
        chunk=(1,) * planes + chunks,
        window_blocks=choose_window(grid, source.pixel_bytes),
        n_levels=count_levels(spatial, DEFAULT_CHUNK[ndim]),
        parameters=replace(options, block=block, tile=tile, chunk=chunk, precision=precision).record(),
        concurrency=concurrency,
    )
