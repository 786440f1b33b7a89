"""Whether the arrays of an image of ours are as its record says: shapes, dtypes, fill values, axes, and all shards."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import zarr

from segment_slide.pipeline.blocks.array_spec import ArraySpec
from segment_slide.pipeline.blocks.grid import ceil_divide
from segment_slide.pipeline.integrity.finding import Fault, Finding, Found, Made, alone
from segment_slide.pipeline.storage import ome, store
from segment_slide.pipeline.storage.pyramid import Method
from segment_slide.pipeline.storage.store import join
from segment_slide.pipeline.zarr_stores.checked import has_listing

MOST_NAMED = 20  # missing files of an array that are named one by one


@dataclass(frozen=True)
class StoredPyramid:
    """An image of ours, and what its record says of it.

    Attributes
    ----------
    location, group : str
        The store, and the image's group in it.
    made : Made
        What made it.
    method : {"nearest", "local_mean"}
        How its levels were made.
    shape : mapping of str to int
        Pixels of level 0 by axis, as far as the record says.
    dtypes : tuple of str
        dtypes that it may have.
    file_px : int
        Pixels of a file per spatial axis at most; 0 if not recorded.
    """

    location: str
    group: str
    made: Made
    method: Method
    shape: dict[str, int]
    dtypes: tuple[str, ...]
    file_px: int = 0

    def finding(self, fault: Fault, path: str, problem: str) -> Finding:
        """A finding at a path below the group."""
        return Finding(fault, self.location, join(self.group, path), problem, self.made)


def read_multiscale(pyramid: StoredPyramid) -> ome.Multiscale | None:
    """What the group's metadata say of its levels; None if they say nothing."""
    return ome.parse_multiscale(
        store.read_attributes(pyramid.location, pyramid.group) or {}, join(pyramid.location, pyramid.group)
    )


def open_levels(pyramid: StoredPyramid) -> list[ArraySpec]:
    """The levels that the group's metadata name, finest first, as they are stored."""
    shown = read_multiscale(pyramid)
    return [] if shown is None else [_spec(pyramid, level.path, shown.axes) for level in shown.levels]


def _spec(pyramid: StoredPyramid, path: str, axes: str) -> ArraySpec:
    array = store.open_array(pyramid.location, join(pyramid.group, path), zarr_format=3)
    return ArraySpec(path, array.shape, array.shards or array.chunks, array.chunks, str(array.dtype), axes)


@alone
def check_arrays(pyramid: StoredPyramid) -> Found:
    """Compare each level with the record, and with the level before."""
    shown = read_multiscale(pyramid)
    if shown is None:
        yield pyramid.finding(Fault.CONTRADICTION, "zarr.json", "says nothing of an image (no multiscales)")
        return
    paths = [level.path for level in shown.levels]
    if paths != list(map(str, range(len(paths)))):
        yield pyramid.finding(Fault.CONTRADICTION, "zarr.json", f"names the levels {paths}, expected 0, 1, …")
    finer: zarr.Array[Any] | None = None
    for path in paths:
        array = store.open_array(pyramid.location, join(pyramid.group, path), zarr_format=3)
        for problem in _compare(pyramid, shown.axes, array, finer):
            yield pyramid.finding(Fault.CONTRADICTION, join(path, "zarr.json"), problem)
        finer = array


def _compare(pyramid: StoredPyramid, axes: str, array: zarr.Array[Any], finer: zarr.Array[Any] | None) -> Iterator[str]:
    """What of an array's metadata is not as it must be."""
    named = _names_of_axes(array)
    if named != tuple(axes):
        yield f"names the axes {named}, but the image has {axes!r}"
    if pyramid.dtypes and str(array.dtype) not in pyramid.dtypes:
        yield f"has dtype={array.dtype}, expected {' or '.join(pyramid.dtypes)}"
    if array.fill_value != 0:
        yield f"has fill_value={array.fill_value}, expected 0"
    if len(array.shape) != len(axes):
        yield f"has shape={array.shape} for the axes {axes!r}"
        return
    if finer is None:
        yield from _compare_with_record(pyramid, axes, array)
    else:
        wanted = [
            {size, ceil_divide(size, 2) if axis in "zyx" else size}
            for axis, size in zip(axes, finer.shape, strict=False)
        ]
        if not all(size in sizes for size, sizes in zip(array.shape, wanted, strict=False)):
            yield f"has shape={array.shape}, expected half of {finer.shape} along the image's spatial axes"
        if (array.shards or array.chunks) != (finer.shards or finer.chunks) or array.dtype != finer.dtype:
            yield "has other shards, or another dtype, than the level before"


def _names_of_axes(array: zarr.Array[Any]) -> tuple[str | None, ...]:
    return tuple(getattr(array.metadata, "dimension_names", None) or ())


def _compare_with_record(pyramid: StoredPyramid, axes: str, array: zarr.Array[Any]) -> Iterator[str]:
    said = tuple(pyramid.shape.get(axis, size) for axis, size in zip(axes, array.shape, strict=True))
    if array.shape != said:
        yield f"has shape={array.shape}, but the record says {said}"
    files = array.shards or array.chunks
    for axis, file_px, size in zip(axes, files, array.shape, strict=True):
        is_whole = file_px == pyramid.file_px or size <= file_px < pyramid.file_px
        if axis in "yx" and pyramid.file_px and not is_whole:
            yield f"has files of {file_px} px along {axis}, but the record says {pyramid.file_px}"


@alone
def check_shards(pyramid: StoredPyramid) -> Found:
    """Compare the shards that are there with those that the arrays must have."""
    for level in open_levels(pyramid):
        yield from compare_shards(pyramid.location, pyramid.group, level, pyramid.made)


@alone
def compare_shards(location: str, group: str, array: ArraySpec, made: Made) -> Found:
    """Compare the shards of one array with those that it must have. Web servers list nothing: there none is missed."""
    if not has_listing(location):
        return
    path = join(group, array.path)
    counts = [ceil_divide(size, shard) for size, shard in zip(array.shape, array.shard, strict=True)]
    there = store.stored_shards(location, path)
    missing = (index for index in itertools.product(*map(range, counts)) if index not in there)
    for index in itertools.islice(missing, MOST_NAMED):
        yield Finding(Fault.MISSING, location, shard_key(path, index), "is missing", made)
    if more := sum(1 for _ in missing):
        problem = f"lacks {more} more of its {math.prod(counts)} files"
        yield Finding(Fault.MISSING, location, path, problem, made)
    for index in sorted(there):
        if len(index) != len(counts) or any(i >= n for i, n in zip(index, counts, strict=False)):
            yield Finding(Fault.SURPLUS, location, shard_key(path, index), "lies outside of the array", made)


@alone
def compare_array(location: str, group: str, wanted: ArraySpec, made: Made) -> Found:
    """Compare an array with what the record says of it: all of its metadata and its shards."""
    path = join(group, wanted.path)
    array = store.open_array(location, path, zarr_format=3)
    found = ArraySpec(
        wanted.path,
        array.shape,
        array.shards or array.chunks,
        array.chunks,
        str(array.dtype),
        "".join(name or "?" for name in _names_of_axes(array)),
    )
    for item in fields(ArraySpec):
        is_value, expected = getattr(found, item.name), getattr(wanted, item.name)
        if is_value != expected:
            problem = f"has {item.name}={is_value}, but the record says {expected}"
            yield Finding(Fault.CONTRADICTION, location, join(path, "zarr.json"), problem, made)
    if array.fill_value != 0:
        problem = f"has fill_value={array.fill_value}, expected 0"
        yield Finding(Fault.CONTRADICTION, location, join(path, "zarr.json"), problem, made)
    yield from compare_shards(location, group, wanted, made)


def shard_key(array_path: str, index: tuple[int, ...]) -> str:
    """File of a shard in its store."""
    return "/".join([array_path, "c", *map(str, index)])


def halved_axes(finer: ArraySpec, coarser: ArraySpec) -> tuple[int, ...]:
    """Numbers of the axes that a level halves; an axis of 1 px counts if its neighbour that is longer is halved.

    >>> shapes, files = ((3, 9, 1), (3, 5, 1)), (1, 64, 64)
    >>> halved_axes(*(ArraySpec("", shape, files, files, "uint8", "zyx") for shape in shapes))
    (1, 2)
    """
    changed = {axis for axis, a, b in zip(finer.axes, finer.shape, coarser.shape, strict=True) if a != b}
    halved = {"y", "x"} | changed
    return tuple(number for number, axis in enumerate(finer.axes) if axis in halved)


def as_pixels(array: np.ndarray) -> np.ndarray:
    """An array whose equal values are equal bytes: NaN equals NaN."""
    return np.ascontiguousarray(array).view(np.uint8)
