"""From one block's pixels to its shard: the only place where an image becomes labels.

Serial runs, Dask windows and retries all call `run_block`; they differ only in who reads the pixels.
"""

import functools
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from segment_slide.pipeline.blocks.grid import BlockGrid, Index
from segment_slide.pipeline.errors import BlockError, InputError
from segment_slide.pipeline.storage.source import ImageSource
from segment_slide.pipeline.storage.store import open_array, write_box
from segment_slide.unet.boxes import Box
from segment_slide.unet.errors import ScoresError
from segment_slide.unet.network import NetworkUse

if TYPE_CHECKING:
    from segment_slide.unet.predict import Prediction, Predictor


@dataclass(frozen=True)
class BlockJob:
    """Everything a worker needs to turn any block into its shard; small, picklable, hashable.

    Parameters
    ----------
    source : ImageSource
        Pixels.
    grid : BlockGrid
        Boxes.
    network : NetworkUse
        Which network, and how it is run.
    location, label_group : str
        Output store, and the label image in it.
    probability_group : str or None
        Probability image, if wanted.
    probabilities : str or None
        dtype of the probabilities, if wanted.
    channel_position : int
        Position of the channel axis in the probability image.
    """

    source: ImageSource
    grid: BlockGrid
    network: NetworkUse
    location: str
    label_group: str
    probability_group: str | None = None
    probabilities: str | None = None
    channel_position: int = 0


@dataclass(frozen=True)
class BlockReport:
    """What a block's task returns: which block, and how many pixels it stored."""

    index: Index
    n_pixels: int


_predictor_lock = threading.Lock()


@functools.lru_cache(maxsize=1)
def _load_predictor(use: NetworkUse) -> "Predictor":
    from segment_slide.unet.open_network import open_network
    from segment_slide.unet.predict import Predictor

    network = open_network(use.path)
    if network.sha256 != use.sha256:
        raise InputError(
            f"model={use.path} has sha256 {network.sha256[:12]}…, the run was planned with {use.sha256[:12]}…; "
            f"the file was replaced, or another one lies at this path on this machine."
        )
    return Predictor(network, use.settings)


def get_predictor(job: BlockJob) -> "Predictor":
    """The job's network, loaded once per process."""
    with _predictor_lock:
        return _load_predictor(job.network)


def segment_block(job: BlockJob, pixels: np.ndarray, index: Index) -> "Prediction":
    """Labels and probabilities of one block's own pixels.

    Parameters
    ----------
    job : BlockJob
        Network and grid.
    pixels : ndarray, (*planes, c, *spatial)
        Exactly the block's read box, mirrored where it leaves the image; plane axes of length 1.
    index : tuple of int
        Which block.

    Returns
    -------
    Prediction
        labels on the write box, (*planes, *spatial); probabilities (n_classes, *planes, *spatial) or None.

    Raises
    ------
    BlockError
        If the block's intensities make the network's scores NaN or infinite.
    ScoresError
        If its weights do.
    """
    from segment_slide.unet.predict import Prediction

    planes = job.grid.n_planes_axes
    try:
        predicted = get_predictor(job).predict(pixels.reshape(pixels.shape[planes:]), job.probabilities)
    except ScoresError as error:
        if error.is_of_input:  # other blocks may be well
            raise BlockError(str(error)) from error
        raise
    crop = job.grid.crop_box(index)
    labels = predicted.labels[crop[planes:]].reshape([s.stop for s in crop])
    if predicted.probabilities is None:
        return Prediction(labels, None)
    scores = predicted.probabilities[(slice(None), *crop[planes:])]
    return Prediction(labels, scores.reshape([scores.shape[0], *labels.shape]))


def run_block(job: BlockJob, pixels: np.ndarray, index: Index) -> BlockReport:
    """Segment one block and store its shard.

    Labels are written last: their shard says that the block is done.

    Raises
    ------
    OutputError
        If a shard cannot be written.
    """
    prediction = segment_block(job, pixels, index)
    store_block(job, index, prediction.labels, prediction.probabilities)
    return BlockReport(index, prediction.labels.size)


def run_block_alone(job: BlockJob, index: Index) -> BlockReport:
    """Read a block's own read box and run it: the serial path, and the second try of a failed block."""
    return run_block(job, job.source.read(job.grid.read_box(index)), index)


def run_background_block(job: BlockJob, index: Index) -> BlockReport:
    """Write a block that the tissue mask does not touch: class 0, with probability 1."""
    shape = [s.stop - s.start for s in job.grid.write_box(index)]
    scores = None
    if job.probabilities is not None:
        n_classes = open_array(job.location, f"{job.probability_group}/0").shape[job.channel_position]
        scores = np.zeros((n_classes, *shape), job.probabilities)
        scores[0] = 255 if job.probabilities == "uint8" else 1
    store_block(job, index, np.zeros(shape, np.uint8), scores)
    return BlockReport(index, int(np.prod(shape)))


def store_block(job: BlockJob, index: Index, labels: np.ndarray, scores: np.ndarray | None) -> None:
    """Write a block's shards, probabilities first.

    Parameters
    ----------
    labels : ndarray of uint8, (*planes, *spatial)
        Classes on the write box.
    scores : ndarray, (n_classes, *planes, *spatial), or None
        Probabilities.
    """
    box = job.grid.write_box(index)
    if scores is not None and job.probability_group is not None:
        where = job.channel_position
        _write(job, job.probability_group, (*box[:where], slice(None), *box[where:]), np.moveaxis(scores, 0, where))
    _write(job, job.label_group, box, labels)


def _write(job: BlockJob, group: str, box: Box, values: np.ndarray) -> None:
    write_box(open_array(job.location, f"{group}/0", writable=True), box, values)
