"""The plan for weight maps of annotated images, made from metadata alone: sizes, memory, locations, provenance."""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from segment_slide.pipeline.blocks.grid import LabelGrid
from segment_slide.pipeline.blocks.memory import check_fits, format_bytes
from segment_slide.pipeline.blocks.sizes import WINDOWS_IN_FLIGHT, choose_window, largest_divisor, window_bytes
from segment_slide.pipeline.errors import InputError, OutputError, PlanError
from segment_slide.pipeline.ingest.plan import STORED_DTYPE
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.lock import LOCK_NAME
from segment_slide.pipeline.storage.record import Code, Results, code_version, compare_records, read_own
from segment_slide.pipeline.storage.sections import read_section
from segment_slide.pipeline.training.annotation import Annotation, AnnotationPair, FoundPixels, safe_name
from segment_slide.pipeline.training.label_values import check_plane
from segment_slide.pipeline.training.options import WeightOptions
from segment_slide.pipeline.training.records import AnnotationChoices, WeightRequest, WeightSizes
from segment_slide.pipeline.training.training_set import KIND
from segment_slide.pipeline.training.weights_block import task_bytes_per_pixel
from segment_slide.unet.geometry import Locality, round_up
from segment_slide.unet.sample import IGNORE
from segment_slide.unet.weight_settings import WeightSettings, halo

REQUEST_ATTRIBUTE = "segment_slide_request"  # beside the set's record, which is written after counting
DEFAULT_BLOCK = {2: 1024, 3: 128}
DEFAULT_CHUNK = {2: 256, 3: 64}
_PLANE_BYTES = 40  # per pixel of a plane whose objects are found in memory, in addition to its values; measured: 36


@dataclass(frozen=True)
class WeightPlan:
    """The complete plan for a training set, made before a pixel is read.

    Attributes
    ----------
    location : str
        The training set.
    annotation : Annotation
        Images and labels, in the order of their names.
    options : WeightOptions
        Options as the user chose them.
    block, chunk : int
        Pixels per spatial axis.
    request : WeightRequest
        What determines the set's bytes. It is compared when a run resumes.
    """

    location: str
    annotation: Annotation
    options: WeightOptions
    block: int
    chunk: int
    request: WeightRequest

    @property
    def n_spatial(self) -> int:
        """Number of spatial axes: 2 or 3."""
        return self.annotation.wanted.n_spatial

    def group(self, number: int) -> str:
        """Group of an image in the set: its position and its name."""
        return f"{number:03d}-{safe_name(self.annotation.pairs[number].name)}"

    def grid(self, pair: AnnotationPair) -> LabelGrid:
        """Blocks of an image."""
        return _make_grid(pair, self.n_spatial, self.block, self.options.settings)

    def itemsize(self, pair: AnnotationPair) -> int:
        """Bytes of a label value as blocks read it."""
        return 8 if self.options.rule.is_coded else _stored_dtype(pair.labels).itemsize

    @property
    def n_blocks(self) -> int:
        """Number of blocks of all images."""
        return sum(self.grid(pair).n_blocks for pair in self.annotation.pairs)

    @property
    def task_bytes(self) -> int:
        """Largest memory of one task, which makes a block or, for class maps, finds the objects of a plane."""
        return max(self.block_bytes, self._largest_plane()[0])

    @property
    def block_bytes(self) -> int:
        """Largest memory of a task that makes one block."""
        needed = [0]
        for pair in self.annotation.pairs:
            grid, itemsize = self.grid(pair), self.itemsize(pair)
            read = [
                grid.widen(min(block, size), axis) + 2 * grid.halo(axis)
                for axis, (block, size) in enumerate(zip(grid.block, grid.shape, strict=True))
            ]
            needed.append(int(np.prod(read)) * task_bytes_per_pixel(itemsize))
        return max(needed)

    def _largest_plane(self) -> tuple[int, str]:
        """Memory of the largest task that finds a plane's objects (0 if there is none), and the plane's labels."""
        if not self.options.rule.is_coded:
            return 0, ""
        planes = [(pair, math.prod(self.grid(pair).shape[-self.n_spatial :])) for pair in self.annotation.pairs]
        return max((px * (_PLANE_BYTES + _stored_dtype(pair.labels).itemsize), str(pair.labels)) for pair, px in planes)

    def worker_bytes(self, tasks: int) -> int:
        """Memory of a worker: this many tasks at a time, plus the label values that windows hold."""
        held = [0]
        for pair in self.annotation.pairs:
            grid, itemsize = self.grid(pair), self.itemsize(pair)
            held.append(window_bytes(grid, choose_window(grid, itemsize), itemsize))
        return tasks * self.task_bytes + WINDOWS_IN_FLIGHT * max(held)

    def check_memory(self, usable_bytes: int, tasks: int) -> None:
        """Refuse a plan that does not fit in a worker's memory.

        Raises
        ------
        PlanError
            The message names the amounts and what to change.
        """
        remedy = f"choose a smaller block (now {self.block} px), a smaller sigma, or fewer workers"
        plane_bytes, labels = self._largest_plane()
        if plane_bytes > self.block_bytes:  # a smaller block would not help
            remedy = (
                f"finding the objects of one plane of {labels} needs this much. Annotate with one id per object (kind "
                f"'instances'), leave both the border term (w0=0) and ridges (ridge=0) out, or choose fewer workers"
            )
        doing = f"with {tasks} tasks of {format_bytes(self.task_bytes)}"
        check_fits(self.worker_bytes(tasks), usable_bytes, remedy, doing=doing)


def plan_weight_maps(annotation: Annotation, options: WeightOptions, location: str) -> WeightPlan:
    """Plan everything, and refuse what cannot work, before any pixel is read or anything created.

    Raises
    ------
    InputError
        If planes are too large to find objects in memory, a mask is read with a kind other than 'binary', or names of
        classes do not fit.
    PlanError
        If blocks are smaller than the halo or are no multiple of the chunk.
    OutputError
        If the output lies in an input, or holds something else.
    OutputMismatchError
        If it was begun with other settings or inputs. The message names what differs.
    UnetError
        If the settings do not fit the number of axes.
    """
    location = store.resolve_location(location)
    n_spatial, rule = annotation.wanted.n_spatial, options.rule
    options.settings.steps(n_spatial)
    _check_class_names(options)
    for pair in annotation.pairs:
        rule.check_dtype(pair.labels.dtype, str(pair.labels))
        if rule.is_coded:
            check_plane(tuple(pair.labels.size(axis) for axis in "zyx"[-n_spatial:]), str(pair.labels))
    block, chunk = _choose_sizes(annotation, options)
    _check_place(location, annotation)
    begun = read_request(location)
    request = _make_request(annotation, options, block, chunk, {} if begun is None else begun.inputs)
    plan = WeightPlan(location, annotation, options, block, chunk, request)
    if is_counted(plan):  # what is made before counting can be made again with other settings
        compare_records(read_request(location), request, location)
    return plan


def read_request(location: str) -> WeightRequest | None:
    """Read the request that a set was begun with, or None if there is none.

    Raises
    ------
    OutputError
        If it is damaged. The message names file and key.
    """
    content = (store.read_attributes(location) or {}).get(REQUEST_ATTRIBUTE)
    return read_section(WeightRequest, content, store.join(location, "zarr.json")) if content else None


def is_counted(plan: WeightPlan) -> bool:
    """Whether the set's record exists: then everything except the weights is known."""
    return "images" in read_own(plan.location)


def _check_class_names(options: WeightOptions) -> None:
    names = options.class_names
    if names and options.kind != "classes" and len(names) != 2:
        raise InputError(f"class_names={names}: kind {options.kind!r} has 2 classes, background and foreground.")
    if names and (len(names) < 2 or len(set(names)) < len(names) or len(names) > IGNORE):
        raise InputError(f"class_names={names}: expected 2 to {IGNORE} different names, background first.")


def _image_shape(pair: AnnotationPair, n_spatial: int) -> tuple[str, tuple[int, ...]]:
    """Axes and size of an image without channels, plane axes first."""
    spatial = "zyx"[-n_spatial:]
    planes = "".join(axis for axis in "tz" if axis in pair.image.content.axes and axis not in spatial)
    return planes + spatial, tuple(pair.image.size(axis) for axis in planes + spatial)


def _make_grid(pair: AnnotationPair, n_spatial: int, block: int, settings: WeightSettings) -> LabelGrid:
    _, shape = _image_shape(pair, n_spatial)
    planes = len(shape) - n_spatial
    halos = [0] * planes
    for size, around in zip(shape[planes:], halo(settings, n_spatial), strict=True):
        # A single block has no neighbour to read from, and no pixel is farther away than the image is wide.
        halos.append(1 if size <= block else max(1, min(around, size)))
    return LabelGrid(shape, (1,) * planes + (block,) * n_spatial, Locality(stride=1, halo=0), n_spatial, tuple(halos))


def _choose_sizes(annotation: Annotation, options: WeightOptions) -> tuple[int, int]:
    n_spatial = annotation.wanted.n_spatial
    block = DEFAULT_BLOCK[n_spatial] if options.block is None else options.block
    if block < 1 or (options.chunk is not None and options.chunk < 1):
        raise PlanError(f"block={options.block}, chunk={options.chunk}: expected positive sizes (px).")
    widest = max(max(_make_grid(pair, n_spatial, block, options.settings).halos) for pair in annotation.pairs)
    if options.block is not None and widest > block:
        raise PlanError(
            f"block={block} px is smaller than the halo of {widest} px (sigma={options.settings.sigma_px} px): the "
            f"context of a block would lie beyond its neighbour. Choose block={round_up(widest, 16)} or more, or a "
            f"smaller sigma."
        )
    chunk = options.chunk or largest_divisor(block, DEFAULT_CHUNK[n_spatial])
    if block % chunk:
        raise PlanError(f"chunk={chunk} px does not divide block={block} px; every block is one file of whole chunks.")
    return round_up(max(block, widest), chunk), chunk


def _stored_dtype(labels: FoundPixels) -> "np.dtype[Any]":
    return np.dtype(STORED_DTYPE.get(labels.dtype, labels.dtype))


def _make_request(
    annotation: Annotation, options: WeightOptions, block: int, chunk: int, begun_with: Mapping[str, str]
) -> WeightRequest:
    """The request, with everything that determines the set's bytes; `begun_with` are inputs of an earlier one."""
    wanted = annotation.wanted
    inputs = {}
    for what in ("image", "labels"):
        for pair in annotation.pairs:
            pixels = pair.image if what == "image" else pair.labels
            key = f"{pair.name} ({what})"
            inputs[key] = pixels.fingerprint(begun_with.get(key, ""))
    choices = AnnotationChoices(
        kind=options.kind,
        ignore=options.ignore,
        class_names=tuple(options.class_names),
        n_spatial=wanted.n_spatial,
        channels=tuple(wanted.channels),
        level=wanted.level,
        names=tuple(pair.name for pair in annotation.pairs),
    )
    code = Code(version=code_version(), results=Results.WEIGHT_MAPS)
    return WeightRequest(choices, options.settings, WeightSizes(block, chunk), code, inputs)


def _check_place(location: str, annotation: Annotation) -> None:
    named = map(store.resolve_location, (*annotation.wanted.images, *annotation.wanted.labels))
    folders = [path for path in named if os.path.isdir(path)]
    for pair in annotation.pairs:
        for path in (*pair.image.files, *pair.labels.files, *folders):
            if _is_inside(location, path) or _is_inside(path, location):
                raise OutputError(
                    f"output={location} and input={path} lie in each other; inputs are read-only. Choose a path beside."
                )
    if store.is_file(location):
        raise OutputError(f"output={location} is a file; expected a new directory, by convention NAME.zarr.")
    attributes = store.read_attributes(location)
    if attributes is None and store.list_names(location) - {LOCK_NAME}:
        raise OutputError(f"output={location} holds something else; choose another path, or delete it.")
    if attributes is not None and read_own(location).get("kind") != KIND:
        raise OutputError(f"output={location} exists and is not a training set; choose another path, or delete it.")


def _is_inside(inner: str, outer: str) -> bool:
    inner, outer = (path if store.is_remote(path) else os.path.realpath(path) for path in (inner, outer))
    return inner == outer or inner.startswith(outer.rstrip("/") + "/")
