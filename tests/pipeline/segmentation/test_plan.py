"""A plan against what a run would do: real Dask graphs, real files, tiles counted one by one."""

import dataclasses
import functools
import itertools
import math
import re
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest

from segment_slide.pipeline.blocks.canvas import window_array
from segment_slide.pipeline.blocks.grid import ceil_divide
from segment_slide.pipeline.blocks.sizes import (
    DEFAULT_CHUNK,
    MAX_WINDOW_BLOCKS,
    SCHEDULING_S,
    TILE_BUDGET_BYTES,
    WINDOW_BUDGET_BYTES,
    GiB,
    level_shapes,
    window_bytes,
)
from segment_slide.pipeline.errors import PlanError
from segment_slide.pipeline.segmentation.block import BlockJob, run_block
from segment_slide.pipeline.segmentation.options import SegmentOptions
from segment_slide.pipeline.segmentation.output import create_output
from segment_slide.pipeline.segmentation.plan import MemoryEstimate, SegmentPlan, plan_segmentation
from segment_slide.pipeline.segmentation.run import canvas_of
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.image import StoredImage
from segment_slide.pipeline.storage.label_records import Model, SegmentationRecord, SegmentParameters
from segment_slide.pipeline.storage.ome import Level, Multiscale
from segment_slide.pipeline.storage.pyramid import build_pyramid
from segment_slide.pipeline.storage.source import ImageSource, select_source
from segment_slide.unet.architecture import Architecture
from segment_slide.unet.geometry import Geometry, round_up
from segment_slide.unet.network import InferenceSettings, NetworkUse
from segment_slide.unet.options import option_fields


def imagined_source(axes: str, shape: tuple[int, ...], n_spatial: int = 2, dtype: str = "uint8") -> ImageSource:
    """A source that exists nowhere: planning must not need more."""
    ones, zeros, nothing = (1.0,) * len(axes), (0.0,) * len(axes), (None,) * len(axes)
    multiscale = Multiscale(axes, nothing, (Level("", ones, zeros),))
    chunks = tuple(min(size, 512) if axis in "yx" else 1 for axis, size in zip(axes, shape, strict=True))
    image = StoredImage("/nowhere", "", shape, chunks, dtype, multiscale, is_ome=False)
    return select_source(image, n_spatial=n_spatial, n_channels=image.size("c"))


def plan(
    axes: str,
    shape: tuple[int, ...],
    *,
    ndim: int = 2,
    depth: int = 4,
    base: int = 8,
    dtype: str = "uint8",
    **options: Any,
) -> SegmentPlan:
    source = imagined_source(axes, shape, ndim, dtype)
    concurrency = options.pop("concurrency", 1)
    architecture = Architecture(
        in_channels=len(source.channels), base_channels=base, depth=depth, ndim=ndim, n_classes=3
    )
    return plan_segmentation(source, architecture, SegmentOptions(**options), concurrency=concurrency)


def job_of(made: SegmentPlan, location: str = "/nowhere") -> BlockJob:
    return BlockJob(
        source=made.source,
        grid=made.grid,
        network=NetworkUse("model", "", InferenceSettings((0.0,), (1.0,), made.tile_px)),
        location=location,
        label_group="labels/segmentation",
    )


# Planes, channels, cut blocks, images thinner than the halo, whole windows.
PLANS = {
    "whole windows": plan("yx", (4096, 4096), block=256),
    "channels and a cut edge": plan("cyx", (3, 2100, 700), block=256),
    "planes": plan("tczyx", (2, 3, 5, 600, 500), block=256),
    "more planes than a window": plan("zyx", (200, 100, 300), block=256),
    "volume": plan("zyx", (130, 300, 200), ndim=3, depth=3, block=48),
    "volumes over time": plan("tczyx", (3, 2, 20, 150, 100), ndim=3, depth=2, block=32),
    "smaller than the halo": plan("yx", (5, 700), block=256),
    "one pixel": plan("yx", (1, 1)),
}
each_plan = pytest.mark.parametrize("made", PLANS.values(), ids=PLANS.keys())


# --- scale -----------------------------------------------------------------------------------------------------


@pytest.mark.timeout(60)  # walking 10^11 blocks would take a day
def test_a_plan_counts_a_quadrillion_pixels_without_walking_the_blocks() -> None:
    side = 10**9
    made = plan("cyx", (3, side, side), block=2048, tile=512)
    per_axis = ceil_divide(side, 2048)
    assert made.grid.n_blocks == per_axis**2
    assert made.n_windows == math.prod(ceil_divide(per_axis, blocks) for blocks in made.window_blocks)
    assert made.n_files > made.grid.n_blocks
    assert made.flops > side**2 * 1e4
    assert made.level_shapes()[0] == (side, side)
    assert made.memory.total_bytes < 4 * GiB


def test_memory_and_graph_do_not_grow_with_the_image() -> None:
    large, huge = plan("yx", (10**5, 10**5)), plan("yx", (10**7, 10**7))
    assert large.memory == huge.memory
    assert large.n_tasks_per_window == huge.n_tasks_per_window
    assert huge.n_windows > 1000 * large.n_windows  # what grows instead


def test_scheduling_grows_with_the_blocks_whatever_they_hold() -> None:
    small, large = (plan("yx", (2**17, 2**17), block=block, tile=512) for block in (2048, 8192))
    assert small.scheduling_s == 16 * large.scheduling_s == 2**12 * SCHEDULING_S


# --- one window's graph and bytes ------------------------------------------------------------------------------


@each_plan
def test_a_real_dask_graph_has_no_more_tasks_than_planned_and_not_far_fewer(made: SegmentPlan) -> None:
    lengths, windows = [], list(made.grid.windows(made.window_blocks))
    for window in windows[:: 1 + len(windows) // 8]:  # most are alike
        (optimised,) = dask.optimize(
            window_array(canvas_of(job_of(made), window), functools.partial(run_block, job_of(made)))
        )
        lengths.append(len(dict(optimised.__dask_graph__())))
    assert max(lengths) <= made.n_tasks_per_window
    assert max(lengths) >= made.n_tasks_per_window / 3  # a bound that says nothing would pass the line above


@each_plan
def test_a_window_keeps_to_its_blocks_and_bytes(made: SegmentPlan) -> None:
    for window in made.grid.windows(made.window_blocks):
        assert window.n_blocks <= MAX_WINDOW_BLOCKS
        canvas = canvas_of(job_of(made), window)
        canvas_bytes = math.prod(canvas.shape) * canvas.dtype.itemsize
        assert (
            canvas_bytes <= window_bytes(made.grid, made.window_blocks, made.source.pixel_bytes) <= WINDOW_BUDGET_BYTES
        )


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float64"])
@pytest.mark.parametrize("n_channels", [1, 3, 40])
@pytest.mark.parametrize("block", [256, 2048, 8192])
def test_a_window_above_the_byte_budget_is_a_single_block(dtype: str, n_channels: int, block: int) -> None:
    made = plan("cyx", (n_channels, 10**5, 10**5), dtype=dtype, block=block)
    needed = window_bytes(made.grid, made.window_blocks, made.source.pixel_bytes)
    assert needed <= WINDOW_BUDGET_BYTES or made.window_blocks == (1, 1)
    assert math.prod(made.window_blocks) <= MAX_WINDOW_BLOCKS


def test_a_window_shrinks_only_where_the_budget_demands_it() -> None:
    assert plan("yx", (10**5, 10**5), block=2048).window_blocks == (8, 8)
    assert math.prod(plan("yx", (10**5, 10**5), block=8192).window_blocks) < 64


@each_plan
def test_the_planned_bytes_of_a_block_cover_what_map_overlap_joins_for_it(made: SegmentPlan) -> None:
    halo = [made.grid.halo(axis) for axis in range(len(made.grid.shape))]
    for window in made.grid.windows(made.window_blocks):
        widest = [max(sizes) for sizes in window.canvas_chunks()]
        joined = math.prod(size + 2 * h for size, h in zip(widest, halo, strict=True)) * made.source.pixel_bytes
        assert 2 * joined <= made.memory.blocks_bytes / (made.concurrency + 1)  # the parts, and joined


# --- files -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("probabilities", ["none", "uint8"])
@pytest.mark.parametrize(
    ("axes", "shape", "ndim"), [("yx", (700, 130), 2), ("tcyx", (2, 1, 600, 70), 2), ("zyx", (70, 20, 40), 3)]
)
def test_n_files_is_the_number_of_files_of_a_whole_output(
    tmp_path: Path, axes: str, shape: tuple[int, ...], ndim: int, probabilities: str
) -> None:
    made = plan(axes, shape, ndim=ndim, depth=1, block=64 if ndim == 2 else 16, probabilities=probabilities)
    location = str(tmp_path / "out.ome.zarr")
    record = SegmentationRecord(model=Model(classes=("background", "cell", "border")))
    create_output(location, "cells", made, record, in_place=False)
    groups = [("labels/cells", made.label_arrays(), "nearest")]
    if made.probabilities:
        groups.append(("probability/cells", made.probability_arrays(), "local_mean"))
    for group, arrays, method in groups:
        assert len(arrays) > 1
        finest = arrays[0]
        array = store.open_array(location, f"{group}/0", writable=True)
        for corner in itertools.product(*map(range, [0] * len(finest.shape), finest.shape, finest.shard)):
            box = tuple(slice(start, start + step) for start, step in zip(corner, finest.shard, strict=True))
            array[box] = 0  # a background block is a file like any other
        build_pyramid(location, group, arrays, made.source.spatial_axes, method)  # type: ignore[arg-type]
    files = [file for file in Path(location).rglob("*") if file.is_file()]
    manifest = 2  # made by the run
    assert len(files) + manifest == made.n_files
    n_shards = sum(spec.n_shards for _, arrays, _ in groups for spec in arrays)
    assert len([file for file in files if file.name != "zarr.json"]) == n_shards


@each_plan
def test_each_block_is_one_shard_of_whole_chunks(made: SegmentPlan) -> None:
    for spec in made.label_arrays():
        assert spec.shard == made.grid.block
        assert all(shard % chunk == 0 for shard, chunk in zip(spec.shard, spec.chunk, strict=True))
        assert spec.axes == made.source.axes
    assert made.label_arrays()[0].n_shards == made.grid.n_blocks


@pytest.mark.parametrize(
    ("axes", "shape"), [("yx", (300, 200)), ("zyx", (2, 300, 200)), ("tczyx", (2, 1, 3, 300, 200))]
)
def test_a_probability_shard_holds_all_classes_of_a_block(axes: str, shape: tuple[int, ...]) -> None:
    made = plan(axes, shape, depth=1, block=64, probabilities="float32")
    for labels, scores in zip(made.label_arrays(), made.probability_arrays(), strict=True):
        where = scores.axes.index("c")
        assert scores.axes == "".join(axis for axis in "tczyx" if axis in scores.axes)  # the order OME-Zarr demands
        assert (scores.shape[where], scores.shard[where], scores.chunk[where]) == (3, 3, 1)
        assert scores.shape[:where] + scores.shape[where + 1 :] == labels.shape
        assert scores.shard[:where] + scores.shard[where + 1 :] == labels.shard
        assert scores.n_shards == labels.n_shards
        assert scores.dtype == "float32"


def test_without_probabilities_there_are_no_probability_arrays() -> None:
    assert plan("yx", (300, 200)).probability_arrays() == []


# --- operations ------------------------------------------------------------------------------------------------


def tiles_of_axis(size: int, block: int, tile: int, stride: int) -> list[int]:
    """Owned pixels of each forward pass along an axis, as `unet.predict` walks block after block."""
    passes = []
    for start in range(0, size, block):
        inner = round_up(min(block, size - start), stride)
        passes += [min(tile, inner - corner) for corner in range(0, inner, tile)]
    return passes


@each_plan
@pytest.mark.parametrize("tta", ["none", "flips"])
def test_flops_are_the_sum_over_all_tiles(made: SegmentPlan, tta: str) -> None:
    made = dataclasses.replace(made, parameters=dataclasses.replace(made.parameters, tta=tta))
    planes, ndim = made.grid.n_planes_axes, made.grid.n_spatial
    axes = [
        tiles_of_axis(size, block, tile, made.grid.geometry.stride)
        for size, block, tile in zip(made.grid.shape[planes:], made.grid.block[planes:], made.tile_px, strict=True)
    ]
    per_plane = sum(made.network.forward_flops(tile) for tile in itertools.product(*axes))
    passes = 2**ndim if tta == "flips" else 1
    assert made.flops == per_plane * math.prod(made.grid.shape[:planes]) * passes


def test_flops_of_the_papers_tile_are_the_papers() -> None:
    source = imagined_source("yx", (384, 384))
    made = plan_segmentation(source, Architecture(), SegmentOptions(block=384, tile=384))
    assert round(made.flops / 1e9, 1) == 300.9


# --- memory ----------------------------------------------------------------------------------------------------


def total(**changes: Any) -> int:
    return plan("cyx", (3, 10**5, 10**5), **{"block": 2048, "tile": 512, **changes}).memory.total_bytes


@pytest.mark.parametrize(
    ("less", "more"),
    [
        ({"tile": 256}, {"tile": 512}),
        ({"tile": 512}, {"tile": 1024}),
        ({"block": 1024}, {"block": 2048}),
        ({"concurrency": 1}, {"concurrency": 2}),
        ({"base": 8}, {"base": 16}),
        ({"dtype": "uint8"}, {"dtype": "uint16"}),
        ({"precision": "bfloat16"}, {"precision": "float32"}),
        ({"probabilities": "none"}, {"probabilities": "uint8"}),
        ({"probabilities": "uint8"}, {"probabilities": "float32"}),
    ],
    ids=lambda change: " ".join(f"{name}={value}" for name, value in change.items()),
)
def test_more_of_anything_is_planned_with_more_memory(less: dict[str, Any], more: dict[str, Any]) -> None:
    assert total(**less) < total(**more)


def test_each_forward_pass_at_a_time_needs_its_own_memory() -> None:
    one, three = (plan("yx", (9000, 9000), concurrency=concurrency).memory for concurrency in (1, 3))
    assert three.forward_bytes == 3 * one.forward_bytes
    assert three.blocks_bytes == 2 * one.blocks_bytes  # one more block is read or written meanwhile
    assert three.model_bytes == one.model_bytes


def test_flips_and_skipped_background_need_no_more_memory() -> None:
    assert total() == total(tta="flips") == total(skip_background=True)


def test_the_estimate_is_the_sum_of_its_parts() -> None:
    memory = plan("yx", (5000, 5000)).memory
    assert memory.total_bytes == sum(dataclasses.astuple(memory))
    assert MemoryEstimate(1, 20, 300, 4000, 50000).total_bytes == 54321


def test_a_plan_that_fits_to_the_byte_is_accepted_and_one_byte_less_is_refused_with_all_amounts() -> None:
    made = plan("cyx", (3, 9000, 9000), block=2048, tile=1024)
    needed = made.memory.total_bytes
    made.check_memory(needed)
    with pytest.raises(PlanError) as refusal:
        made.check_memory(needed - 1)
    message = str(refusal.value)
    whole, *parts, available = map(float, re.findall(r"(\d+\.\d\d)", message))
    assert whole == available == round(needed / GiB, 2)
    assert len(parts) == len(dataclasses.fields(MemoryEstimate))
    assert sum(parts) == pytest.approx(whole, abs=0.03)
    assert "1024 px" in message
    assert "2048 px" in message
    assert "`workers`" in message


# --- refusals --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"block": 500}, r"block=500 px is not a positive multiple of .* stride 16.* Nearest: 496, 512"),
        ({"block": 0}, r"block=0 px is not a positive multiple"),
        ({"block": -2048}, r"block=-2048 px is not a positive multiple"),
        ({"block": 80}, r"block=80 px is smaller than the halo of 94 px.* Smallest at this depth: 96"),
        ({"tile": 388}, r"tile=388 px is not a positive multiple of .* stride 16.* Nearest: 384, 400"),
        ({"tile": 0}, r"tile=0 px is not a positive multiple"),
        ({"block": 1024, "tile": 384}, r"tile=384 px does not divide block=1024 px"),
        ({"block": 1024, "tile": 2048}, r"tile=2048 px does not divide block=1024 px"),
        ({"block": 1024, "chunk": 300}, r"chunk=300 px does not divide block=1024 px"),
        ({"chunk": 0}, r"chunk=0 px does not divide block=2048 px"),
        ({"chunk": -512}, r"chunk=-512 px does not divide"),
        ({"probabilities": "float16"}, r"probabilities='float16', expected one of .*'uint8'"),
        ({"tta": "rotations"}, r"tta='rotations', expected one of .*'flips'"),
        ({"precision": "float16"}, r"precision='float16', expected one of .*'bfloat16'"),
    ],
    ids=lambda value: " ".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else "",
)
def test_sizes_and_choices_that_cannot_work_are_refused_with_what_to_change(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(PlanError, match=message) as refusal:
        plan("yx", (5000, 5000), **options)
    assert isinstance(refusal.value, ValueError)


def test_the_smallest_block_that_a_refusal_names_is_accepted() -> None:
    for depth in range(1, 7):
        smallest = round_up(Geometry(depth).halo, 1 << depth)
        assert plan("yx", (3000, 3000), depth=depth, base=1, block=smallest).parameters.block == smallest
        with pytest.raises(PlanError, match=f"Smallest at this depth: {smallest}|stride"):
            plan("yx", (3000, 3000), depth=depth, base=1, block=smallest - (1 << depth))


def test_tta_modes_are_those_of_the_predictor() -> None:
    from segment_slide.unet import predict

    tta = next(field for field in option_fields(SegmentOptions) if field.name == "tta")
    assert tta.option.choices == predict.TTA_MODES


# --- defaults --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", range(1, 7))
@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("base", [1, 64])
def test_defaults_fit_each_other_at_every_depth(depth: int, ndim: int, base: int) -> None:
    made = plan("zyx", (3000, 3000, 3000), ndim=ndim, depth=depth, base=base)
    block, tile, chunk = (getattr(made.parameters, name) for name in ("block", "tile", "chunk"))
    assert block % (1 << depth) == 0
    assert block >= Geometry(depth).halo
    assert block % tile == 0
    assert tile % (1 << depth) == 0
    assert block % chunk == 0
    assert chunk <= DEFAULT_CHUNK[ndim]
    assert made.tile_px == (tile,) * ndim


@pytest.mark.parametrize("block", [512, 1008, 1024, 1504, 2048, 4096, 8192])
def test_the_default_tile_is_the_largest_divisor_of_the_block_within_the_budget(block: int) -> None:
    made = plan("yx", (20000, 20000), base=64, block=block)
    (tile, _) = made.tile_px
    assert block % tile == 0

    def fits(size: int) -> bool:
        return made.network.activation_bytes((size, size), 4) <= TILE_BUDGET_BYTES[2]

    assert fits(tile)
    assert not any(fits(size) for size in range(tile + 16, block + 1, 16) if block % size == 0)


@pytest.mark.parametrize("shape", [(1, 1), (5, 700), (96, 96), (300, 2049), (2047, 2048)])
def test_a_small_image_gets_a_block_tile_and_chunk_of_its_own_size(shape: tuple[int, int]) -> None:
    made = plan("yx", shape)
    for size, block, tile, chunk in zip(shape, made.grid.block, made.tile_px, made.chunk, strict=True):
        assert block == min(2048, round_up(size, 16))
        assert tile <= block
        assert tile % 16 == 0
        assert block % chunk == 0
        assert chunk <= 512


def test_the_choices_of_a_clipped_block_are_recorded_as_chosen() -> None:
    made = plan("yx", (100, 5000), block=1024, tile=512, chunk=256)
    assert made.grid.block == (112, 1024)
    assert {name: getattr(made.parameters, name) for name in ("block", "tile", "chunk")} == {
        "block": 1024,
        "tile": 512,
        "chunk": 256,
    }


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("size", [1, 63, 64, 65, 511, 512, 513, 1024, 1025, 100_000])
def test_levels_end_when_the_image_fits_what_a_viewer_fetches_at_once(ndim: int, size: int) -> None:
    levels = plan("zyx", (7, size, 10), ndim=ndim, depth=1).level_shapes()
    limit = DEFAULT_CHUNK[ndim]
    assert max(levels[-1][-ndim:]) <= limit
    assert all(max(shape[-ndim:]) > limit for shape in levels[:-1])


def test_level_shapes_are_those_of_taking_every_second_pixel() -> None:
    for shape in itertools.product([1, 2, 3, 5, 8, 13], repeat=2):
        pixels = np.empty((4, *shape))
        for expected in level_shapes(pixels.shape, n_spatial=2, n_levels=6):
            assert expected == pixels.shape
            pixels = pixels[:, ::2, ::2]


# --- options ---------------------------------------------------------------------------------------------------


def test_adopt_fills_only_what_was_left_open() -> None:
    recorded = SegmentParameters(block=1024, tile=256, chunk=128, precision="bfloat16", tta="flips", device="cuda")
    chosen = SegmentOptions(name="cells", tile=512)
    adopted = chosen.adopt(recorded)
    assert (adopted.block, adopted.chunk, adopted.precision) == (1024, 128, "bfloat16")
    assert (adopted.name, adopted.tile, adopted.tta) == ("cells", 512, "none")  # chosen ones stay, to be compared
    assert chosen == SegmentOptions(name="cells", tile=512)


def test_adopt_keeps_open_what_a_record_does_not_say() -> None:
    assert SegmentOptions().adopt(SegmentParameters(read_from={})) == SegmentOptions()


def test_a_plan_made_of_adopted_options_is_the_recorded_plan() -> None:
    begun = plan("yx", (5000, 5000), block=1024, tile=256, chunk=128, precision="bfloat16")
    again = plan_segmentation(begun.source, begun.network, SegmentOptions().adopt(begun.parameters))
    assert again == begun
    assert plan_segmentation(begun.source, begun.network, SegmentOptions()) != begun


def test_an_input_whose_chunks_do_not_fit_in_memory_is_refused():
    """One chunk of 32768^2 px is decoded whole, however small the part that is read."""
    made = plan("yx", (32768, 32768), dtype="uint16")
    image = dataclasses.replace(made.source.image, chunks=(32768, 32768))
    huge = dataclasses.replace(made, source=dataclasses.replace(made.source, image=image))
    assert huge.memory.blocks_bytes - made.memory.blocks_bytes > 2 * 2 * GiB - 2 * 10 * 512 * 512 * 2 - 1
    made.check_memory(4 * GiB)
    with pytest.raises(PlanError, match="blocks 4"):
        huge.check_memory(4 * GiB)


def test_channels_that_lie_apart_are_counted_with_what_lies_between():
    source = imagined_source("cyx", (40, 4096, 4096), 2, "uint16")
    apart = select_source(source.image, n_spatial=2, n_channels=2, channels=(0, 39))
    beside = select_source(source.image, n_spatial=2, n_channels=2, channels=(0, 1))
    plans = [
        plan_segmentation(chosen, Architecture(in_channels=2, base_channels=8), SegmentOptions(precision="float32"))
        for chosen in (apart, beside)
    ]
    read = (2048 + 2 * 94) ** 2
    assert plans[0].memory.blocks_bytes - plans[1].memory.blocks_bytes == 2 * read * 38 * 2
