"""Boxes, mirrors, windows and canvases, each against a brute-force count or a library's own result."""

import functools
import itertools

import dask.array
import dask.array.overlap
import numpy as np
import pytest

from segment_slide.pipeline.blocks.grid import BlockGrid, Window, ceil_divide, reflect
from segment_slide.unet.geometry import Geometry, round_up

DEPTHS = range(1, 7)


def legal_blocks(geometry: Geometry) -> list[int]:
    """The three smallest blocks that a plan allows: multiples of the stride, at least a halo wide."""
    smallest = round_up(geometry.halo, geometry.stride)
    return [smallest, smallest + geometry.stride, 2 * smallest]


def telling_sizes(block: int, geometry: Geometry) -> list[int]:
    """Sizes on both sides of everything that matters: 1 px, stride, halo, one, two and three blocks."""
    marks = {
        0,
        geometry.stride,
        geometry.halo,
        block,
        block + geometry.halo,
        2 * block,
        2 * block + geometry.halo,
        3 * block,
    }
    return sorted({mark + step for mark in marks for step in (-1, 0, 1, 2) if mark + step > 0})


def axis_grids() -> list[BlockGrid]:
    """1-D grids of all depths: every size up to three blocks at depth 1 and 2, the telling ones above."""
    grids = []
    for depth in DEPTHS:
        geometry = Geometry(depth)
        for block in legal_blocks(geometry):
            sizes = range(1, 3 * block + 3) if depth <= 2 else telling_sizes(block, geometry)
            # a plan clips the block of a small image to the image, rounded up to the stride
            grids += [BlockGrid((n,), (min(block, round_up(n, geometry.stride)),), geometry, 1) for n in sizes]
    return grids


def describe(grid: BlockGrid) -> str:
    return f"shape={grid.shape} block={grid.block} depth={grid.geometry.depth}"


# --- write boxes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_spatial", [2, 3])
def test_write_boxes_count_each_pixel_exactly_once(n_spatial: int) -> None:
    sizes = [1, 2, 7, 16, 17, 33, 40]
    shapes = itertools.product(sizes, repeat=2) if n_spatial == 2 else itertools.product([1, 9, 18], repeat=3)
    for spatial, planes, depth in itertools.product(shapes, [(), (1,), (3,), (2, 3)], [1, 2, 3]):
        geometry = Geometry(depth)
        block = (1,) * len(planes) + (geometry.stride, *[2 * geometry.stride] * (n_spatial - 1))
        grid = BlockGrid((*planes, *spatial), block, geometry, n_spatial)
        counts = np.zeros(grid.shape, np.int64)
        for index in grid.indices():
            counts[grid.write_box(index)] += 1
        assert (counts == 1).all(), describe(grid)
        assert grid.n_blocks == sum(1 for _ in grid.indices()), describe(grid)


def test_the_count_of_write_boxes_notices_an_overlap_of_one_pixel() -> None:
    grid = BlockGrid((40,), (16,), Geometry(3), 1)
    counts = np.zeros(grid.shape, np.int64)
    for index in grid.indices():
        (owned,) = grid.write_box(index)
        counts[owned.start : owned.stop + 1] += 1
    assert sorted(set(counts)) == [1, 2]


def test_every_block_owns_at_least_one_pixel_and_starts_on_the_stride() -> None:
    for grid in axis_grids():
        for index in grid.indices():
            (owned,) = grid.write_box(index)
            assert owned.start < owned.stop, describe(grid)
            assert owned.start % grid.geometry.stride == 0, describe(grid)


# --- read boxes ------------------------------------------------------------------------------------------------


def test_read_boxes_are_the_owned_pixels_rounded_up_to_the_stride_with_a_halo_on_both_sides() -> None:
    for grid in axis_grids():
        halo, stride = grid.geometry.halo, grid.geometry.stride
        for index in grid.indices():
            (owned,), (read,) = grid.write_box(index), grid.read_box(index)
            assert read.start == owned.start - halo, describe(grid)
            assert (read.start + halo) % stride == 0, describe(grid)
            inner = read.stop - read.start - 2 * halo
            assert inner % stride == 0, describe(grid)
            assert 0 <= inner - (owned.stop - owned.start) < stride, describe(grid)


def test_the_network_can_run_on_every_read_box() -> None:
    for grid in axis_grids():
        geometry = grid.geometry
        for index in grid.indices():
            (read,) = grid.read_box(index)
            assert geometry.is_valid_input_size(read.stop - read.start), describe(grid)


def test_a_read_box_without_the_cropped_pixels_is_no_valid_input() -> None:
    grid = BlockGrid((200,), (96,), Geometry(4), 1)
    (read,) = grid.read_box((0,))
    assert not grid.geometry.is_valid_input_size(read.stop - read.start - 2 * grid.geometry.crop)


def test_plane_axes_have_no_halo_and_are_never_rounded() -> None:
    grid = BlockGrid((3, 5, 40, 40), (1, 1, 16, 16), Geometry(1), 2)
    assert grid.read_box((2, 4, 0, 2)) == (slice(2, 3), slice(4, 5), slice(-8, 24), slice(24, 48))
    assert [grid.halo(axis) for axis in range(4)] == [0, 0, 8, 8]


def test_crop_boxes_bring_the_networks_output_back_onto_the_write_boxes() -> None:
    for grid in axis_grids():
        for index in grid.indices():
            (owned,), (read,), (crop,) = grid.write_box(index), grid.read_box(index), grid.crop_box(index)
            # the network's output, told by the image coordinate of each of its pixels
            output = np.arange(read.start, read.stop)[grid.geometry.halo : -grid.geometry.halo]
            np.testing.assert_array_equal(output[crop], np.arange(owned.start, owned.stop), describe(grid))


# --- mirroring -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", range(1, 21))
def test_reflect_is_numpys_reflect_however_far_outside(size: int) -> None:
    far = 5 * size + 3
    expected = np.pad(np.arange(size), far, mode="reflect")
    assert [reflect(position, size) for position in range(-far, size + far)] == expected.tolist()


@pytest.mark.parametrize("size", range(2, 21))
def test_reflect_is_not_numpys_symmetric(size: int) -> None:
    symmetric = np.pad(np.arange(size), 1, mode="symmetric")
    assert reflect(-1, size) != symmetric[0]
    assert reflect(size, size) != symmetric[-1]


# --- windows ---------------------------------------------------------------------------------------------------


def test_windows_partition_the_blocks_in_raster_order() -> None:
    geometry = Geometry(1)
    for counts in itertools.product([1, 2, 5], [1, 3, 4], [1, 2, 7]):
        grid = BlockGrid((counts[0], 8 * counts[1] - 3, 8 * counts[2]), (1, 8, 8), geometry, 2)
        assert grid.counts == counts
        for step in itertools.product([1, 2, 6], [1, 3], [2, 8]):
            seen = np.zeros(counts, np.int64)
            corners = []
            for window in grid.windows(step):
                assert window.n_blocks == sum(1 for _ in window.indices())
                assert all(len(blocks) <= most for blocks, most in zip(window.blocks, step, strict=True))
                corners.append(next(window.indices()))
                for index in window.indices():
                    seen[index] += 1
            assert (seen == 1).all(), (counts, step)
            assert corners == sorted(corners), (counts, step)


def test_chunk_of_and_index_of_are_inverse_and_stay_inside_the_canvas() -> None:
    grid = BlockGrid((3, 70, 45), (1, 16, 16), Geometry(1), 2)
    for window in grid.windows((2, 3, 2)):
        n_chunks = [len(sizes) for sizes in window.canvas_chunks()]
        chunks = [window.chunk_of(index) for index in window.indices()]
        assert len(set(chunks)) == window.n_blocks
        for index, chunk in zip(window.indices(), chunks, strict=True):
            assert window.index_of(chunk) == index
            assert chunk[0] < n_chunks[0]
            # spatial axes begin and end with a chunk of halo, which belongs to no block
            assert all(1 <= position < count - 1 for position, count in zip(chunk[1:], n_chunks[1:], strict=True))


# --- canvas ----------------------------------------------------------------------------------------------------


def overlapped(coordinates: np.ndarray, chunks: tuple[int, ...], depth: int) -> list[np.ndarray]:
    """What `map_overlap` hands to each chunk: itself and `depth` pixels of each direct neighbour, no more."""
    ends = list(itertools.accumulate(chunks))
    widened = []
    for number, (size, end) in enumerate(zip(chunks, ends, strict=True)):
        before = min(depth, chunks[number - 1]) if number else 0
        after = min(depth, chunks[number + 1]) if number + 1 < len(chunks) else 0
        widened.append(coordinates[end - size - before : end + after])
    return widened


def every_window(grid: BlockGrid) -> list[Window]:
    return [window for step in (1, 2, 64) for window in grid.windows((step,))]


FAR_PX = 3 * 1024  # beyond every canvas of these tests


@functools.lru_cache(maxsize=4)
def surroundings(size: int) -> np.ndarray:
    """Pixels that mirror the positions -FAR_PX, …, size + FAR_PX - 1 of an axis."""
    return np.pad(np.arange(size), FAR_PX, mode="reflect")


def mirrored(start: int, stop: int, size: int) -> np.ndarray:
    return surroundings(size)[start + FAR_PX : stop + FAR_PX]


def context_is_complete(window: Window, chunks: tuple[int, ...], depth: int) -> bool:
    """Whether each block finds exactly its mirrored read box at the start of its widened chunk."""
    size, origin = window.grid.shape[0], window.origin[0]
    widened = overlapped(mirrored(origin, origin + sum(chunks), size), chunks, depth)
    boxes = {window.chunk_of(index)[0]: window.grid.read_box(index)[0] for index in window.indices()}
    return all(
        np.array_equal(widened[chunk][: read.stop - read.start], mirrored(read.start, read.stop, size))
        for chunk, read in boxes.items()
    )


def test_each_block_finds_its_mirrored_read_box_in_its_chunk_and_the_halo_of_its_direct_neighbours() -> None:
    for grid in axis_grids():
        for window in every_window(grid):
            (chunks,) = window.canvas_chunks()
            # dask refuses, or re-chunks, an array with a chunk that is smaller than the depth
            assert min(chunks) >= grid.geometry.halo, describe(grid)
            assert context_is_complete(window, chunks, grid.geometry.halo), describe(grid)


def test_a_halo_of_one_pixel_less_is_noticed_on_every_grid() -> None:
    for grid in axis_grids():
        if grid.shape[0] == 1:
            continue  # every pixel mirrors the same one
        for window in every_window(grid):
            (chunks,) = window.canvas_chunks()
            assert not context_is_complete(window, chunks, grid.geometry.halo - 1), describe(grid)


def test_without_widening_a_cut_last_block_its_neighbour_would_lack_context() -> None:
    grid = BlockGrid((20,), (16,), Geometry(1), 1)  # halo 8, the last block owns 4 px
    (window,) = grid.windows((2,))
    assert window.canvas_chunks() == ((8, 16, 8, 8),)
    assert context_is_complete(window, (8, 16, 8, 8), 8)
    assert not context_is_complete(window, (8, 16, 4, 8), 8)


@pytest.mark.parametrize(("size", "block"), [(3, 4), (16, 16), (17, 16), (20, 16), (45, 16), (64, 24)])
def test_dasks_own_overlap_hands_each_chunk_what_the_simulation_says(size: int, block: int) -> None:
    grid = BlockGrid((size,), (block,), Geometry(1), 1)
    for window in every_window(grid):
        (chunks,) = window.canvas_chunks()
        canvas = mirrored(window.origin[0], window.origin[0] + sum(chunks), size)
        lazy = dask.array.from_array(canvas, chunks=(chunks,))
        halo = grid.geometry.halo
        shared = dask.array.overlap.overlap(lazy, depth={0: halo}, boundary={0: "none"}, allow_rechunk=False)
        for block_of_dask, simulated in zip(shared.blocks, overlapped(canvas, chunks, halo), strict=True):
            np.testing.assert_array_equal(block_of_dask.compute(scheduler="synchronous"), simulated)


def test_plane_axes_of_the_canvas_are_single_planes_without_halo() -> None:
    grid = BlockGrid((5, 40, 20), (1, 16, 16), Geometry(1), 2)
    window = list(grid.windows((3, 2, 2)))[-1]
    assert window.canvas_chunks() == ((1, 1), (8, 8, 8), (8, 16, 8, 8))
    assert window.origin == (3, 24, -8)


# --- integers --------------------------------------------------------------------------------------------------


def test_ceil_divide_counts_the_pieces_that_cover_a_length() -> None:
    for size, by in itertools.product(range(1, 60), range(1, 20)):
        assert ceil_divide(size, by) == len(range(0, size, by))


def test_a_grid_of_a_trillion_blocks_is_described_without_walking_it() -> None:
    grid = BlockGrid((16 * 10**6, 16 * 10**6), (16, 16), Geometry(1), 2)
    assert grid.n_blocks == 10**12
    assert next(grid.indices()) == (0, 0)
    assert next(grid.windows((8, 8))).n_blocks == 64
