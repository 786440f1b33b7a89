"""The task for one block of a weight map: from its annotation to its classes and weights.

One axis of one block (`h` is the halo, which the border term and the cutting of ridges read)::

    read    |hhhh|wwwwwwwwwwww|hhhh|      beyond the image: background
    write        |wwwwwwwwwwww|           classes and weights, one shard each

Memory of a task: the block with its halo, times `task_bytes_per_pixel`.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from segment_slide.pipeline.blocks.grid import Index, LabelGrid
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.labels import LabelPixels
from segment_slide.pipeline.training.label_values import LabelRule, code_objects
from segment_slide.pipeline.training.training_set import CLASSES, WEIGHTS
from segment_slide.unet.boxes import Box
from segment_slide.unet.sample import IGNORE
from segment_slide.unet.weight_map import WeightMap, cut_ridges, weight_map
from segment_slide.unet.weight_settings import WeightSettings, ridge_halo


@dataclass(frozen=True)
class WeightJob:
    """Everything that a worker needs to make any block of one image's weight map. It is small and picklable.

    Parameters
    ----------
    name, group : str
        Name of the image, and group of its arrays in the set.
    location : str
        The training set.
    labels : LabelPixels
        The annotation, or the objects found in it (`LabelRule.is_coded`).
    grid : LabelGrid
        The blocks.
    rule : LabelRule
        Meaning of label values.
    settings : WeightSettings
        Parameters of Eq. 2.
    class_weights : tuple of float
        w_c of each class, counted over the whole set; empty while they are counted.
    """

    name: str
    group: str
    location: str
    labels: LabelPixels
    grid: LabelGrid
    rule: LabelRule
    settings: WeightSettings
    class_weights: tuple[float, ...] = ()

    @property
    def spatial(self) -> slice:
        """Which axes are spatial, not plane axes."""
        return slice(self.grid.n_planes_axes, None)


def replace_weights(job: WeightJob, class_weights: tuple[float, ...]) -> WeightJob:
    """The job with the class weights that result from the counts."""
    return replace(job, class_weights=class_weights)


def task_bytes_per_pixel(itemsize: int) -> int:
    """Largest number of bytes per pixel (halo included) that `weigh_values` needs: values, ids, candidates, results.

    It is the sum of three copies of the values, because Dask cuts, joins and converts them, 32 bytes of compact ids and
    candidates, 12 bytes of weights and terms, and 4 bytes of classes and masks.
    """
    return 3 * itemsize + 48


class BlockCount(NamedTuple):
    """Counts of one block.

    Attributes
    ----------
    per_class : ndarray of int64, (255,)
        Number of annotated pixels of each class, after ridges are cut.
    lowest_id, highest_id : int
        Lowest and highest id of its objects, before ridges are cut; both 0 if it has none.
    """

    per_class: np.ndarray
    lowest_id: int
    highest_id: int


def count_block(job: WeightJob, index: Index) -> BlockCount:
    """Count annotated pixels and find the range of ids, in a block's own pixels."""
    owned = job.grid.write_box(index)
    around = ridge_halo(job.settings)
    halos = [around if job.grid.is_spatial(axis) else 0 for axis in range(len(owned))]
    values = job.labels.read(_widen(owned, halos))
    ids, classes = job.rule.decode(values[_first_plane(job)])
    inner = _crop(owned, halos)[job.spatial]
    present = ids[inner][ids[inner] != 0]
    ids = _cut(job, ids, classes)
    classes = np.where((ids == 0) & (classes != IGNORE), np.uint8(0), classes)
    counts = np.bincount(classes[inner].ravel(), minlength=IGNORE + 1)[:IGNORE]
    return BlockCount(counts, int(present.min()), int(present.max())) if present.size else BlockCount(counts, 0, 0)


def _cut(job: WeightJob, ids: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Cut ridges between objects; in class maps, only between objects of the same class.

    Objects of different classes are separated by their class. A ridge would surround a nucleus (2) in its cytoplasm (1)
    with background that is not there.
    """
    width = job.settings.ridge_px
    if not job.rule.cuts_within_classes or not width:
        return cut_ridges(ids, width)
    cut = ids.copy()
    for value in np.flatnonzero(np.bincount(classes.ravel(), minlength=IGNORE)[1:IGNORE]) + 1:
        alone = np.where(classes == value, ids, ids.dtype.type(0))
        cut[(alone != 0) & (cut_ridges(alone, width) == 0)] = 0
    return cut


def weigh_values(job: WeightJob, values: np.ndarray, index: Index) -> WeightMap:
    """Classes and weights of a block's own pixels.

    Parameters
    ----------
    job : WeightJob
        The job that the block belongs to.
    values : ndarray, (*planes, *spatial)
        Label values of exactly the block's read box; plane axes have length 1.
    index : tuple of int
        Index of the block.
    """
    ids, classes = job.rule.decode(values[_first_plane(job)])
    ids = _cut(job, ids, classes)
    found = weight_map(ids, replace(job.settings, ridge_px=0), classes=classes, class_weights=job.class_weights)
    owned = job.grid.write_box(index)
    inner = _crop(owned, job.grid.halos)[job.spatial]
    shape = [part.stop - part.start for part in owned]
    return WeightMap(found.classes[inner].reshape(shape), found.weights[inner].reshape(shape))


def weigh_block(job: WeightJob, values: np.ndarray, index: Index) -> int:
    """Make and store one block. Return the number of its pixels. Classes are stored first, then weights.

    A block is done when both are stored.

    Raises
    ------
    OutputError
        If a shard cannot be written.
    """
    found = weigh_values(job, values, index)
    for name, content in ((CLASSES, found.classes), (WEIGHTS, found.weights)):
        array = store.open_array(job.location, store.join(job.group, name), writable=True)
        store.write_box(array, job.grid.write_box(index), content)
    return found.classes.size


def weigh_block_alone(job: WeightJob, index: Index) -> int:
    """Read one block's read box and make the block. Used for serial runs and to retry a failed block."""
    return weigh_block(job, job.labels.read(job.grid.read_box(index)), index)


def write_objects(job: WeightJob, path: str, plane: Index) -> int:
    """Find the objects in one plane of a class map and store them. Return the number of its pixels.

    Parameters
    ----------
    job : WeightJob
        The job, whose `labels` are the annotation itself.
    path : str
        Array of the objects in the set, uint64.
    plane : tuple of int
        Position on the plane axes.
    """
    box = (*(slice(i, i + 1) for i in plane), *(slice(0, size) for size in job.grid.shape[job.spatial]))
    coded = code_objects(job.rule.classes(job.labels.read(box)[_first_plane(job)]))
    array = store.open_array(job.location, path, writable=True)
    store.write_box(array, box, coded.reshape([part.stop - part.start for part in box]))
    return coded.size


def _first_plane(job: WeightJob) -> Index:
    return (0,) * job.grid.n_planes_axes


def _widen(box: Box, halos: list[int]) -> Box:
    return tuple(slice(part.start - around, part.stop + around) for part, around in zip(box, halos, strict=True))


def _crop(owned: Box, halos: "list[int] | tuple[int, ...]") -> Box:
    """The write box in coordinates of the read box."""
    return tuple(slice(around, around + part.stop - part.start) for part, around in zip(owned, halos, strict=True))
