"""Default sizes, and checks of chosen ones: blocks, tiles, chunks, levels, windows. Integers only.

Each function says what it refuses and why; `pipeline.segmentation.plan` puts the sizes together.
"""

import math

from segment_slide.pipeline.blocks.grid import BlockGrid, ceil_divide
from segment_slide.pipeline.errors import PlanError
from segment_slide.unet.errors import GeometryError
from segment_slide.unet.geometry import Locality
from segment_slide.unet.network import NetworkDescription

MiB = 1 << 20
GiB = 1 << 30

# Defaults that suit most slides; the user may choose others.
DEFAULT_BLOCK = {2: 2048, 3: 256}  # seconds on a core, 0.1 s on a GPU: SCHEDULING_S is small beside both
DEFAULT_CHUNK = {2: 512, 3: 64}  # what a viewer fetches at once; larger ones are read at most 1.5 times as fast
# Feature maps of one forward pass. Larger tiles waste less on halos. Yet in 2D, tiles beyond this were slower and took
# twice the memory (benchmarks/allocator.py); why is not known. Volumes, where halos weigh more, were not measured.
TILE_BUDGET_BYTES = {2: 512 * MiB, 3: 3 * GiB // 2}

# One Dask graph: about 15 tasks per block.
MAX_WINDOW_BLOCKS = 64
WINDOW_BUDGET_BYTES = 512 * MiB
WINDOWS_IN_FLIGHT = 2  # the next one is submitted while the last one drains
BLOCKS_PER_THREAD = 2  # a window drains when no more blocks than this are left per thread
SCHEDULING_S = 0.016  # time per block of client and scheduler, on the one core that they share (benchmarks/scale.py)


def shared_locality(network: NetworkDescription) -> Locality:
    """Stride and halo of a network, which must be the same on all axes: blocks, tiles and chunks have one size for all.

    Raises
    ------
    PlanError
        If axes differ.
    """
    first, *others = network.axes
    if any(axis != first for axis in others):
        raise PlanError(f"axes={network.axes} of the network differ, expected the same stride and halo on all of them.")
    return first


def choose_block(block: int | None, network: NetworkDescription) -> int:
    """The user's block, checked, or the default, but at least the halo (at depth 6 above the default of volumes)."""
    axis = shared_locality(network)
    smallest = axis.round_up(axis.halo)
    if block is None:
        return max(axis.round_up(DEFAULT_BLOCK[len(network.axes)]), smallest)
    try:
        axis.check_multiple(block, "block")
    except GeometryError as error:
        raise PlanError(str(error)) from error
    if block < axis.halo:
        raise PlanError(
            f"block={block} px is smaller than the halo of {axis.halo} px: a block's context would lie beyond its "
            f"neighbour. Smallest at this depth: {smallest}."
        )
    return block


def choose_chunk(chunk: int | None, block: int, ndim: int) -> int:
    """The user's chunk, checked, or the largest divisor of the block that a viewer fetches at once."""
    if chunk is None:
        return largest_divisor(block, DEFAULT_CHUNK[ndim])
    if chunk < 1 or block % chunk:
        raise PlanError(f"chunk={chunk} px does not divide block={block} px; every block is one file of whole chunks.")
    return chunk


def choose_tile(tile: int | None, block: int, network: NetworkDescription, itemsize: int) -> int:
    """The user's tile, checked, or the largest divisor of the block whose feature maps fit the budget."""
    axis, ndim = shared_locality(network), len(network.axes)
    if tile is not None:
        try:
            axis.check_multiple(tile, "tile")
        except GeometryError as error:
            raise PlanError(str(error)) from error
        if block % tile:
            raise PlanError(f"tile={tile} px does not divide block={block} px; tiles would lie across block borders.")
        return tile
    candidates = [size for size in range(axis.stride, block + 1, axis.stride) if block % size == 0]
    fitting = [
        size for size in candidates if network.activation_bytes((size,) * ndim, itemsize) <= TILE_BUDGET_BYTES[ndim]
    ]
    return max(fitting, default=candidates[0])


def largest_divisor(size: int, at_most: int) -> int:
    """Largest divisor of `size` that is at most `at_most`.

    >>> largest_divisor(2048, 512), largest_divisor(1504, 512)
    (512, 376)
    """
    return max(divisor for divisor in range(1, min(size, at_most) + 1) if size % divisor == 0)


def count_levels(spatial: tuple[int, ...], chunk: int) -> int:
    """Levels until the whole image fits one chunk of a viewer.

    >>> count_levels((512, 100), 512), count_levels((513, 100), 512), count_levels((4096, 4096), 512)
    (1, 2, 4)
    """
    return 1 + (ceil_divide(max(spatial), chunk) - 1).bit_length()


def level_shapes(shape: tuple[int, ...], n_spatial: int, n_levels: int) -> list[tuple[int, ...]]:
    """Shapes of a pyramid that halves the last `n_spatial` axes, rounding up.

    >>> level_shapes((3, 5, 1), n_spatial=2, n_levels=3)
    [(3, 5, 1), (3, 3, 1), (3, 2, 1)]
    """
    planes = len(shape) - n_spatial
    return [
        shape[:planes] + tuple(ceil_divide(size, 1 << level) for size in shape[planes:]) for level in range(n_levels)
    ]


def window_bytes(grid: BlockGrid, window_blocks: tuple[int, ...], pixel_bytes: int) -> int:
    """Bytes of the input that one window holds at most, at `pixel_bytes` per pixel with all its channels."""
    pixels = math.prod(
        min(count, total) * grid.widen(size, axis) + 2 * grid.halo(axis)
        for axis, (count, total, size) in enumerate(zip(window_blocks, grid.counts, grid.block, strict=True))
    )
    return pixels * pixel_bytes


def choose_window(grid: BlockGrid, pixel_bytes: int) -> tuple[int, ...]:
    """Blocks per axis in a window: near cubic, at most 64 in all, within the byte budget; planes are added last."""
    side = int(MAX_WINDOW_BLOCKS ** (1 / grid.n_spatial) + 1e-9)
    planes = grid.n_planes_axes
    window = [1] * planes + [min(side, count) for count in grid.counts[planes:]]
    for axis in reversed(range(planes)):
        window[axis] = min(grid.counts[axis], MAX_WINDOW_BLOCKS // math.prod(window))
    while math.prod(window) > 1 and window_bytes(grid, tuple(window), pixel_bytes) > WINDOW_BUDGET_BYTES:
        largest = window.index(max(window))
        window[largest] = ceil_divide(window[largest], 2)
    return tuple(window)
