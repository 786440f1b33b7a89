"""Find and fill the holes of one block: background that one class encloses.

A hole is a connected component of background that does not reach the image's border and touches one class only. Its
connectivity is the complement of the objects' connectivity (8 neighbours if objects use 4, and the other way round).
Otherwise a hole could leak out between two pixels of an object that touch at a corner.
"""

from dataclasses import dataclass

import numpy as np

from segment_slide.pipeline.blocks.grid import Index
from segment_slide.pipeline.objects.block_files import (
    BlockObjects,
    first_pixels,
    load_faces,
    load_objects,
    save_block,
    shared_faces,
)
from segment_slide.pipeline.objects.components import Components, label_components
from segment_slide.pipeline.objects.unite import JoinJob
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.labels import LabelSource
from segment_slide.unet.boxes import clip_box, widen_box
from segment_slide.unet.compiled import compiled

_NO_CLASS = 255  # start value for the lowest class, while no class touches


@dataclass(frozen=True)
class HolesJob:
    """What tasks need to fill holes.

    Parameters
    ----------
    source : LabelSource
        Class of each pixel.
    join : JoinJob
        Blocks, connectivity of background, intermediate files.
    max_size_px : int
        Smaller holes are filled.
    location, array_path : str
        Store and array that the filled classes are written into.
    """

    source: LabelSource
    join: JoinJob
    max_size_px: int
    location: str
    array_path: str


@dataclass(frozen=True)
class FillItem:
    """A block to fill, with the class that fills each face object of its background; 0 leaves it as background."""

    index: Index
    fill: np.ndarray


def complement(connectivity: int, ndim: int) -> int:
    """Connectivity of the background for a given connectivity of the objects.

    >>> complement(1, 2), complement(2, 2), complement(1, 3), complement(2, 3)
    (2, 1, 3, 1)
    """
    return ndim if connectivity == 1 else 1


def find_holes(job: HolesJob, index: Index) -> None:
    """Find a block's background components, with the classes that touch them."""
    grid, join = job.join.grid, job.join
    planes, owned = grid.n_planes_axes, grid.write_box(index)
    near = clip_box(widen_box(owned, 1, n_planes=planes), grid.shape)
    around = [(n.start - o.start + 1, o.stop + 1 - n.stop) for n, o in zip(near, owned, strict=True)]
    classes = np.pad(job.source.read(near), [(0, 0)] * planes + around[planes:])
    inside = (slice(None),) * planes + (slice(1, -1),) * grid.n_spatial
    found = label_components(classes[inside] == 0, join.connectivity, planes=planes)
    low, high = touching_classes(classes.reshape(classes.shape[planes:]), found)
    columns = {
        "size": found.sizes,
        "first": first_pixels(grid, index, found),
        "class": np.zeros(found.count, np.uint8),
        "low": low,
        "high": high,
        "border": _at_border(job, index, found),
    }
    # pixels that have no number need no class
    save_block(join.work, index, BlockObjects(found, columns), shared_faces(grid, index), np.zeros(found.count, bool))


def touching_classes(classes: np.ndarray, background: Components) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest class among the neighbours (one step along one axis) of each background component.

    Parameters
    ----------
    classes : ndarray of uint8
        2 or 3 axes, with one pixel of context per side.
    background : Components
        Components of the array without its context.

    Returns
    -------
    low, high : ndarray of uint8, (components,)
        255 and 0 if no class touches the component.

    Examples
    --------
    >>> classes = np.array([[0, 0, 0, 0], [0, 0, 3, 0], [0, 0, 1, 0], [0, 0, 0, 0]], np.uint8)
    >>> touching_classes(classes, label_components(classes[1:-1, 1:-1] == 0, 1))
    (array([1], dtype=uint8), array([3], dtype=uint8))
    """
    numbers = background.paint(np.arange(1, background.count + 1, dtype=np.uint32))
    low = np.full(background.count, _NO_CLASS, np.uint8)
    high = np.zeros(background.count, np.uint8)
    # an image is treated as a volume of one plane, with nothing above and below
    volume = np.pad(classes[None], ((1, 1), (0, 0), (0, 0))) if classes.ndim == 2 else classes
    _look_around(volume, numbers.reshape([size - 2 for size in volume.shape]), low, high)
    return low, high


@compiled
def _look_around(classes: np.ndarray, numbers: np.ndarray, low: np.ndarray, high: np.ndarray) -> None:
    steps = ((-1, 0, 0), (1, 0, 0), (0, -1, 0), (0, 1, 0), (0, 0, -1), (0, 0, 1))
    for z in range(numbers.shape[0]):
        for y in range(numbers.shape[1]):
            for x in range(numbers.shape[2]):
                number = numbers[z, y, x]
                if number == 0:
                    continue
                for dz, dy, dx in steps:
                    value = classes[z + 1 + dz, y + 1 + dy, x + 1 + dx]
                    if value != 0:
                        low[number - 1] = min(low[number - 1], value)
                        high[number - 1] = max(high[number - 1], value)


def _at_border(job: HolesJob, index: Index, found: Components) -> np.ndarray:
    """Whether components reach the image's border."""
    grid = job.join.grid
    numbers = found.paint(np.arange(1, found.count + 1, dtype=np.uint32))
    reached = np.zeros(found.count + 1, np.bool_)
    shared = shared_faces(grid, index)
    for axis in range(grid.n_planes_axes, len(grid.shape)):
        for side in (0, 1):
            if (axis, side) not in shared:
                reached[numbers[(slice(None),) * axis + (-side,)]] = True
    return reached[1:]


def choose_fill(columns: dict[str, np.ndarray], max_size_px: int) -> np.ndarray:
    """Class that fills each component; 0 if it stays background.

    Parameters
    ----------
    columns : dict
        "size", "border", "low" and "high" per component.
    max_size_px : int
        Components smaller than this are filled.
    """
    enclosed = (columns["size"] < max_size_px) & ~columns["border"] & (columns["low"] == columns["high"])
    return np.where(enclosed, columns["low"], np.uint8(0))


def fill_holes(job: HolesJob, item: FillItem) -> None:
    """Write a block's classes with its holes filled."""
    grid, work = job.join.grid, job.join.work
    found, faces = load_objects(work, item.index), load_faces(work, item.index)
    fill = choose_fill(dict(found.columns), job.max_size_px)
    fill[faces.numbers - 1] = item.fill
    classes = job.source.read(grid.write_box(item.index))
    filled = found.components.paint(fill, onto=classes)
    array = store.open_array(job.location, job.array_path, writable=True)
    store.write_box(array, grid.write_box(item.index), filled)
