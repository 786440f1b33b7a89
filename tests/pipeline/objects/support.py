"""Instances of small arrays through the true steps, with blocks of any shape."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from scipy import ndimage

from segment_slide.pipeline.blocks.array_spec import ArraySpec
from segment_slide.pipeline.objects import run
from segment_slide.pipeline.objects.block import ObjectsJob, RegrowJob
from segment_slide.pipeline.objects.holes import HolesJob, complement
from segment_slide.pipeline.objects.options import InstanceOptions
from segment_slide.pipeline.objects.plan import InstancePlan, plan_instances
from segment_slide.pipeline.objects.run import Numbering
from segment_slide.pipeline.objects.unite import JoinJob
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.image import describe_image
from segment_slide.pipeline.storage.labels import LabelSource
from segment_slide.pipeline.storage.work_folder import WorkFolder

GROUP, UNGROWN = "labels/cells-instances", "ungrown"


def no_step(n_pixels: int) -> None:
    """Nobody is told."""


def plan_array(
    folder: Path, classes: np.ndarray, block: tuple[int, ...], options: InstanceOptions, axes: str
) -> InstancePlan:
    """The plan of an array written as one chunk, with blocks of a shape that no command would choose."""
    array = zarr.create_array(folder / "classes", shape=classes.shape, chunks=classes.shape, dtype=classes.dtype)
    array[...] = classes
    plan = plan_instances(describe_image(folder / "classes", axes=axes), options)
    clipped = tuple(map(min, (1,) * (classes.ndim - len(block)) + block, classes.shape))
    return replace(plan, grid=replace(plan.grid, block=clipped), chunk=clipped)


def make_job(folder: Path, plan: InstancePlan, source: LabelSource | None = None) -> ObjectsJob:
    """What tasks need."""
    parameters = plan.parameters
    return ObjectsJob(
        source=source or plan.source,
        join=JoinJob(plan.grid, WorkFolder(str(folder), "work"), parameters.connectivity),
        min_size_px=parameters.min_size_px,
        split_depth_px=parameters.split,
        spacing=plan.spacing,
        location=str(folder),
        array_path=f"{UNGROWN if parameters.regrow else GROUP}/0",
    )


def fill(folder: Path, plan: InstancePlan, client: Any = None) -> LabelSource:
    """Classes with holes filled."""
    spec = ArraySpec("0", plan.grid.shape, plan.grid.block, plan.chunk, "uint8", plan.axes)
    store.create_group(str(folder), "filled", [spec], {})
    join = JoinJob(
        plan.grid,
        WorkFolder(str(folder), "holes"),
        complement(plan.parameters.connectivity, plan.grid.n_spatial),
    )
    job = HolesJob(plan.source, join, plan.parameters.fill_holes_px, str(folder), "filled/0")
    run.fill_all_holes(job, [], client, no_step)
    image = describe_image(folder / "filled/0", axes=plan.axes)
    return LabelSource(replace(plan.source.image, image=image))


def label_blocks(
    folder: Path,
    classes: np.ndarray,
    block: tuple[int, ...],
    options: InstanceOptions | None = None,
    axes: str = "",
    client: Any = None,
) -> tuple[np.ndarray, Numbering]:
    """Ids of an array, found block by block."""
    options = options or InstanceOptions()
    plan = plan_array(folder, classes, block, options, axes or "zyx"[-classes.ndim :])
    source = fill(folder, plan, client) if plan.parameters.fill_holes_px else None
    job = make_job(folder, plan, source)
    run.find_all_objects(job, client, no_step)
    nodes = run.join_blocks(job.join, client, no_step)
    numbering = run.number_objects(job, nodes, client, no_step)
    for group in (GROUP, UNGROWN):
        spec = ArraySpec("0", plan.grid.shape, plan.grid.block, plan.chunk, "uint32", plan.axes)
        store.create_group(str(folder), group, [spec], {})
    run.write_all_objects(job, numbering, [], client, no_step)
    if plan.parameters.regrow:
        regrow = RegrowJob(plan.grid, str(folder), job.array_path, f"{GROUP}/0")
        run.regrow_all_objects(regrow, [], client, no_step)
    return np.asarray(store.open_array(str(folder), f"{GROUP}/0")[...]), numbering


def whole_structure(ndim: int, n_spatial: int, connectivity: int) -> np.ndarray:
    """scipy's neighbourhood, which does not reach across planes."""
    structure = np.zeros((3,) * ndim, np.bool_)
    structure[(1,) * (ndim - n_spatial)] = ndimage.generate_binary_structure(n_spatial, connectivity)
    return structure


def spiral(size: int) -> np.ndarray:
    """Two interleaved spirals, one pixel wide, that wind through every block; nowhere do they touch."""
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    angle, radius = np.arctan2(y, x), np.hypot(y, x)
    turns = (radius - 4 * angle / math.pi) / 4
    return (np.floor(turns) % 2 == 0).astype(np.uint8)


def comb(size: int) -> np.ndarray:
    """Two combs whose teeth interlock: each is one object that reaches into all blocks."""
    classes = np.zeros((size, size), np.uint8)
    classes[0], classes[-1] = 1, 1
    classes[:-2, ::4] = 1
    classes[2:, 2::4] = 1
    return classes


def nuclei(shape: tuple[int, ...], radius: float, count: int, seed: int = 0) -> np.ndarray:
    """Balls at random places, many of them touching."""
    rng = np.random.default_rng(seed)
    places = np.indices(shape, float)
    classes = np.zeros(shape, np.uint8)
    for centre in rng.random((count, len(shape))) * shape:
        square = sum((axis - c) ** 2 for axis, c in zip(places, centre, strict=True))
        classes[square <= radius**2] = 1
    return classes
