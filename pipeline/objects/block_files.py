"""The objects of one block, saved as two files: runs, which the block itself needs, and faces, for its neighbours.

A face object touches a face that the block shares with another block, so it may continue there. All other objects lie
completely inside the block. Only face objects are compared across blocks, so they alone decide how much memory that
takes.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from segment_slide.pipeline.blocks.grid import BlockGrid, Index
from segment_slide.pipeline.objects.components import Components
from segment_slide.pipeline.objects.faces import Face
from segment_slide.pipeline.storage.work_folder import Arrays, WorkFolder

RUNS, FACES = "runs", "faces"
Columns = Mapping[str, np.ndarray]  # a value per object


@dataclass(frozen=True)
class BlockObjects:
    """All objects of a block.

    Attributes
    ----------
    components : Components
        The objects, numbered from 1 within the block.
    columns : mapping
        Values per object.
    """

    components: Components
    columns: Columns


@dataclass(frozen=True)
class FaceObjects:
    """Face objects of a block, numbered from 1 in the order of their object numbers.

    Attributes
    ----------
    numbers : ndarray of uint32, (face objects,)
        Their numbers in the block, ascending.
    columns : mapping
        Values per face object.
    faces : mapping of Face to ndarray of uint32
        Face object number of each pixel, for each face shared with another block.
    starts : ndarray of uint32, (lines,)
        How many kept objects that are not face objects begin in each line of the block.
    line : ndarray of uint32, (face objects,)
        Line of the block in which the face object begins.
    position : ndarray of uint32, (face objects,)
        How many kept objects that are not face objects begin before it in that line.
    sizes, size_counts : ndarray of int64, or None
        Sizes (px) of the kept objects that are not face objects, and how many have each; None in files of 0.1.0.
    """

    numbers: np.ndarray
    columns: Columns
    faces: dict[Face, np.ndarray]
    starts: np.ndarray
    line: np.ndarray
    position: np.ndarray
    sizes: np.ndarray | None = None
    size_counts: np.ndarray | None = None

    @property
    def count(self) -> int:
        """Number of face objects."""
        return len(self.numbers)


def shared_faces(grid: BlockGrid, index: Index) -> list[Face]:
    """Faces that a block shares with another block, on spatial axes."""
    spatial = range(grid.n_planes_axes, len(grid.shape))
    return [
        (axis, side) for axis in spatial for side in (0, 1) if 0 <= index[axis] + (2 * side - 1) < grid.counts[axis]
    ]


def first_pixels(grid: BlockGrid, index: Index, components: Components) -> np.ndarray:
    """Linear index in the whole image (C order) of each object's first pixel, int64."""
    local = np.unravel_index(components.first_pixel, components.shape)
    origin = [part.start for part in grid.write_box(index)]
    strides = [math.prod(grid.shape[axis + 1 :]) for axis in range(len(grid.shape))]
    total = np.zeros(components.count, np.int64)
    for position, start, stride in zip(local, origin, strides, strict=True):
        total += (position + start) * stride
    return total


def save_block(work: WorkFolder, index: Index, objects: BlockObjects, shared: list[Face], kept: np.ndarray) -> None:
    """Write a block's runs, then its faces. If the faces' file exists, the block is done.

    Parameters
    ----------
    work : WorkFolder
        Folder to write to.
    index : tuple of int
        The block.
    objects : BlockObjects
        Its objects.
    shared : list of Face
        Faces shared with another block.
    kept : ndarray of bool, (objects,)
        Which objects are kept, judged from this block alone.
    """
    components, width = objects.components, objects.components.shape[-1]
    position_dtype = np.uint16 if width <= np.iinfo(np.uint16).max else np.uint32
    runs: Arrays = {
        "shape": np.array(components.shape, np.int64),
        "runs": np.diff(components.line).astype(np.uint32),
        "start": components.start.astype(position_dtype),
        "stop": components.stop.astype(position_dtype),
        "number": components.number,
    }
    work.save(RUNS, index, runs | {f"column.{name}": values for name, values in objects.columns.items()})
    work.save(FACES, index, _face_arrays(objects, shared, kept))


def _face_arrays(objects: BlockObjects, shared: list[Face], kept: np.ndarray) -> Arrays:
    components = objects.components
    painted = components.paint(np.arange(1, components.count + 1, dtype=np.uint32))
    faces = {face: painted[(slice(None),) * face[0] + (-face[1],)] for face in shared}  # -0 is the first, -1 the last
    is_face = np.zeros(components.count + 1, np.bool_)
    for pixels in faces.values():
        is_face[pixels] = True
    is_face[0] = False
    rank = np.cumsum(is_face, dtype=np.uint32) * is_face  # 0 stays 0: only face objects are on a face
    inner = kept & ~is_face[1:]
    lines, first_line = len(components.line) - 1, components.first_line
    numbers = np.flatnonzero(is_face)
    sizes, size_counts = np.unique(objects.columns["size"][inner], return_counts=True)
    return {
        "sizes": sizes.astype(np.int64),
        "size_counts": size_counts.astype(np.int64),
        "numbers": numbers.astype(np.uint32),
        "starts": np.bincount(first_line[inner], minlength=lines).astype(np.uint32),
        "line": first_line[numbers - 1].astype(np.uint32),
        "position": count_before(first_line, inner, lines)[numbers - 1].astype(np.uint32),
        **{f"column.{name}": values[numbers - 1] for name, values in objects.columns.items()},
        **{f"face.{axis}.{side}": rank[pixels] for (axis, side), pixels in faces.items()},
    }


def count_before(line: np.ndarray, counted: np.ndarray, n_lines: int) -> np.ndarray:
    """How many of the counted objects begin before each object in its own line.

    Parameters
    ----------
    line : ndarray of integer, (objects,)
        Line in which each object begins, ascending.
    counted : ndarray of bool, (objects,)
        Which objects are counted.
    n_lines : int
        Number of lines.

    Examples
    --------
    >>> count_before(np.array([0, 0, 2, 2]), np.array([True, True, False, True]), 3).tolist()
    [0, 1, 0, 0]
    """
    starts = np.bincount(line[counted], minlength=n_lines)
    before_line = np.cumsum(starts) - starts
    before: np.ndarray = np.cumsum(counted) - counted - before_line[line]
    return before


def load_objects(work: WorkFolder, index: Index) -> BlockObjects:
    """A block's objects, as `save_block` wrote them."""
    arrays = work.load(RUNS, index)
    line = np.zeros(len(arrays["runs"]) + 1, np.int64)
    np.cumsum(arrays["runs"], out=line[1:])
    number = arrays["number"]
    first_run = np.flatnonzero(np.diff(np.maximum.accumulate(number.astype(np.int64)), prepend=0))
    start, stop = arrays["start"].astype(np.uint32), arrays["stop"].astype(np.uint32)
    shape = tuple(int(size) for size in arrays["shape"])
    return BlockObjects(Components(shape, line, start, stop, number, first_run), _columns(arrays))


def load_faces(work: WorkFolder, index: Index) -> FaceObjects:
    """A block's face objects, as `save_block` wrote them."""
    arrays = work.load(FACES, index)
    faces = {}
    for name, pixels in arrays.items():
        if name.startswith("face."):
            _, axis, side = name.split(".")
            faces[int(axis), int(side)] = pixels
    return FaceObjects(
        arrays["numbers"],
        _columns(arrays),
        faces,
        arrays["starts"],
        arrays["line"],
        arrays["position"],
        arrays.get("sizes"),
        arrays.get("size_counts"),
    )


def _columns(arrays: Arrays) -> dict[str, np.ndarray]:
    return {name.removeprefix("column."): values for name, values in arrays.items() if name.startswith("column.")}
