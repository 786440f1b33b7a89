"""The plan to label a slide, made from metadata: blocks, halo, memory, provenance. Reads no pixel, creates nothing."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from segment_slide.pipeline.blocks.array_spec import ArraySpec
from segment_slide.pipeline.blocks.grid import BlockGrid
from segment_slide.pipeline.blocks.memory import PROCESS_BYTES, check_fits, format_bytes
from segment_slide.pipeline.blocks.sizes import (
    DEFAULT_BLOCK,
    DEFAULT_CHUNK,
    choose_chunk,
    count_levels,
    largest_divisor,
    level_shapes,
)
from segment_slide.pipeline.errors import InputError, PlanError
from segment_slide.pipeline.objects.options import InstanceOptions, ObjectSize
from segment_slide.pipeline.storage.calibration import calibrate_um
from segment_slide.pipeline.storage.fingerprint import fingerprint, is_by_times
from segment_slide.pipeline.storage.image import StoredImage
from segment_slide.pipeline.storage.label_records import InstanceParameters, InstancesRecord, LabelledInput
from segment_slide.pipeline.storage.labels import LabelSource
from segment_slide.pipeline.storage.names import say_location
from segment_slide.pipeline.storage.record import Results, identify_group, this_code
from segment_slide.pipeline.storage.source import ImageSource
from segment_slide.unet.geometry import Locality, round_up

Value = TypeVar("Value")

DEFAULT_SPLIT_HALO = {2: 128, 3: 32}
_BLOCK_STEP = 16  # chunks divide blocks
# Upper limits of a task's bytes per pixel. The worst case is noise, with a run for every second pixel.
_LABEL_BYTES = 48  # a checkerboard takes 43
_SPLIT_BYTES = 70  # 30 of them the watershed


@dataclass(frozen=True)
class InstancePlan:
    """A decided plan to label a slide.

    Attributes
    ----------
    source : LabelSource
        The class labels to read.
    grid : BlockGrid
        Positions of the blocks. The halo is the context in which objects are split.
    chunk : tuple of int
        Chunk size of the output, on its axes.
    n_levels : int
        Levels of the output's pyramid.
    spacing : tuple of float
        Pixel size per spatial axis, relative to the last one's.
    parameters : InstanceParameters
        The parameters that determine the output's bytes, as recorded in the output.
    """

    source: LabelSource
    grid: BlockGrid
    chunk: tuple[int, ...]
    n_levels: int
    spacing: tuple[float, ...]
    parameters: InstanceParameters

    @property
    def image(self) -> StoredImage:
        """The stored class labels."""
        return self.source.image.image

    @property
    def axes(self) -> str:
        """Axes of the labels, without a channel axis."""
        return self.source.image.axes

    @property
    def spatial_axes(self) -> str:
        """Axes along which pixels of an object are connected."""
        return self.source.image.spatial_axes

    @property
    def task_bytes(self) -> int:
        """Largest memory of one task."""
        read = math.prod(part.stop - part.start for part in self.grid.read_box((0,) * len(self.grid.shape)))
        per_pixel = _LABEL_BYTES if self.parameters.split is None else _SPLIT_BYTES
        return read * per_pixel + self.image.decoding_bytes

    def worker_bytes(self, tasks: int) -> int:
        """Memory of a worker that runs this many tasks at a time."""
        return PROCESS_BYTES + tasks * self.task_bytes

    def check_memory(self, usable_bytes: int, tasks: int) -> None:
        """Refuse blocks that do not fit in a worker's memory.

        Raises
        ------
        PlanError
            The message names the amounts and what to change.
        """
        remedy = f"choose a smaller `block` (now {max(self.grid.block)} px) or fewer `workers`"
        doing = f"with {tasks} tasks of {format_bytes(self.task_bytes)}"
        check_fits(self.worker_bytes(tasks), usable_bytes, remedy, doing=doing)

    def arrays(self, dtype: str) -> list[ArraySpec]:
        """Arrays of the instance image, finest first."""
        shapes = level_shapes(self.grid.shape, self.grid.n_spatial, self.n_levels)
        return [
            ArraySpec(str(level), shape, self.grid.block, self.chunk, dtype, self.axes)
            for level, shape in enumerate(shapes)
        ]

    def record(self, output: str, begun: InstancesRecord | None = None, *, full: bool = False) -> InstancesRecord:
        """The record of ids in an output, which must match that of a begun run for it to go on.

        Of older versions the fingerprint of a begun run holds times of files. If these have changed (a block was made
        again, or all was copied), the record of the class map tells whether its classes are still the same.
        """
        image, begun_with = self.image, begun.input.fingerprint if begun else ""
        found = fingerprint(image, begun_with, full=full)
        noted = begun and begun.identity and begun.identity.classes
        if is_by_times(begun_with) and noted and noted == identify_group(image.location):
            found = begun_with
        place = say_location(image.location, output)
        made_of = LabelledInput(place, image.array_path, tuple(image.shape), image.dtype, found)
        return InstancesRecord(this_code(Results.INSTANCES), made_of, self.parameters)

    def renew(self, begun: InstancesRecord, *, full: bool = False) -> InstancesRecord:
        """A begun record that agrees with its input, with a fingerprint of content in place of one with times."""
        earlier = begun.input.fingerprint
        if not is_by_times(earlier):
            return begun
        made_of = replace(begun.input, fingerprint=fingerprint(self.image, full=full), earlier_fingerprint=earlier)
        return replace(begun, input=made_of)


def plan_instances(image: StoredImage, options: InstanceOptions) -> InstancePlan:
    """Decide everything about a labelling from metadata.

    Parameters
    ----------
    image : StoredImage
        Stored classes.
    options : InstanceOptions
        The user's choices.

    Raises
    ------
    InputError
        If the image cannot be a map of classes.
    PlanError
        If a choice does not exist or does not fit the image.
    """
    _check_image(image)
    ndim = _choose_ndim(image, options.ndim)
    view = ImageSource(image, ndim, (0,), ())
    source = replace(view, ranges=tuple((0, image.size(axis)) for axis in view.plane_axes))
    _check_choices(options, ndim)
    calibration = calibrate_um(image, ndim)
    pixel_um = None if calibration is None else calibration.voxel
    block = _choose_block(image, options.block, ndim)
    halo = _choose_halo(options, block, ndim)
    planes = len(source.plane_axes)
    spatial = source.shape[planes:]
    # A shard may be wider than the image. If it were clipped to a prime number of pixels, chunks would be 1 px wide.
    clipped = tuple(min(block, round_up(size, _BLOCK_STEP)) for size in spatial)
    grid = BlockGrid(source.shape, (1,) * planes + clipped, Locality(stride=1, halo=halo), ndim)
    chunk = choose_chunk(None, block, ndim)
    chunks = tuple(chunk if size == block else largest_divisor(size, chunk) for size in clipped)
    return InstancePlan(
        source=LabelSource(source),
        grid=grid,
        chunk=(1,) * planes + chunks,
        n_levels=count_levels(spatial, DEFAULT_CHUNK[ndim]),
        spacing=_relative(image, ndim),
        parameters=InstanceParameters(
            ndim=ndim,
            connectivity=options.connectivity,
            fill_holes_px=_pixels(options.fill_holes, pixel_um, ndim, "fill_holes"),
            min_size_px=_pixels(options.min_size, pixel_um, ndim, "min_size"),
            split=options.split,
            split_halo=halo,
            regrow=options.regrow,
            block=block,
        ),
    )


def _check_image(image: StoredImage) -> None:
    where = f"{image.location}/{image.array_path}".rstrip("/")
    if np.dtype(image.dtype).kind not in "bui":
        raise InputError(
            f"{where} has dtype={image.dtype}; expected classes, whole numbers from 0 (background) to 255."
        )
    if image.size("c") > 1:
        raise InputError(f"{where} has {image.size('c')} channels; expected a map of classes, which has one.")


def _choose_ndim(image: StoredImage, ndim: int | None) -> int:
    """The chosen number of axes. By default 3 if files hold several planes, as those of a 2D segmentation hold one."""
    if ndim is None:
        return 3 if "z" in image.axes and image.chunks[image.axes.index("z")] > 1 else 2
    if ndim not in (2, 3) or (ndim == 3 and "z" not in image.axes):
        raise PlanError(f"ndim={ndim}, expected 2, or 3 where there is a z axis; the labels have axes {image.axes!r}.")
    return ndim


def _check_choices(options: InstanceOptions, ndim: int) -> None:
    if not 1 <= options.connectivity <= ndim:
        raise PlanError(
            f"connectivity={options.connectivity}, expected 1 to {ndim}: the axes along which neighbours may differ."
        )
    for name, value in (("split", options.split), ("split_halo", options.split_halo), ("block", options.block)):
        if value is not None and not 0 < value < math.inf:
            raise PlanError(f"{name}={value}, expected a positive number of pixels.")
    if options.block is not None and options.block % _BLOCK_STEP:
        low = options.block // _BLOCK_STEP * _BLOCK_STEP
        raise PlanError(
            f"block={options.block} px is not a multiple of {_BLOCK_STEP}: it could not be cut into chunks of a good "
            f"size. Nearest: {f'{low}, ' if low else ''}{low + _BLOCK_STEP}."
        )
    if options.split is None and options.split_halo is not None:
        raise PlanError(f"split_halo={options.split_halo} px was given, but nothing is to be split; add split.")


def _choose_block(image: StoredImage, block: int | None, ndim: int) -> int:
    """The chosen block size. By default that of the input's files if it suits, so that a task reads only its own."""
    if block is not None:
        return block
    stored = max(_spatial(image, image.chunks, ndim))
    usual = DEFAULT_BLOCK[ndim]
    return round_up(stored, _BLOCK_STEP) if usual // 4 <= stored <= 2 * usual else usual


def _choose_halo(options: InstanceOptions, block: int, ndim: int) -> int:
    if options.split is None:
        return 0
    return DEFAULT_SPLIT_HALO[ndim] if options.split_halo is None else options.split_halo


def _relative(image: StoredImage, ndim: int) -> tuple[float, ...]:
    """Pixel size per spatial axis, divided by that of the last axis; 1 if the sizes cannot be compared."""
    calibration = calibrate_um(image, ndim)
    scale = _spatial(image, image.multiscale.levels[image.level].scale, ndim)
    if calibration is not None:
        scale = calibration.scale
    elif len(set(_spatial(image, image.multiscale.units, ndim))) > 1 or min(scale) <= 0:
        return (1.0,) * ndim
    return tuple(size / scale[-1] for size in scale)


def _spatial(image: StoredImage, values: Sequence[Value], ndim: int) -> tuple[Value, ...]:
    """Pick the values of the spatial axes from the values of all stored axes."""
    return tuple(values[image.axes.index(axis)] for axis in "zyx"[-ndim:])


def _pixels(size: ObjectSize | None, pixel_um: float | None, ndim: int, name: str) -> int:
    return 0 if size is None else size.to_pixels(pixel_um, ndim, name)
