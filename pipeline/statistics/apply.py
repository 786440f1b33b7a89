"""Find the offset and scale that an image is normalised with, and say what looks unlike the training images."""

import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from segment_slide.pipeline.errors import TasksFailedError
from segment_slide.pipeline.statistics.bound import bound_scaling
from segment_slide.pipeline.statistics.compare import compare_constants, compare_intensities
from segment_slide.pipeline.statistics.degenerate import note_degenerate
from segment_slide.pipeline.statistics.levels import Levels, Scaling, levels_of_image, levels_of_sample
from segment_slide.pipeline.statistics.measure import measure, resolve_normalisation
from segment_slide.pipeline.statistics.result import ChannelStatistics
from segment_slide.pipeline.statistics.sample import PATIENCE_S, Sample, sample_image
from segment_slide.pipeline.storage.source import ImageSource
from segment_slide.unet.normalisation import Intensities, Normalisation

if TYPE_CHECKING:
    from distributed import Client

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImageScaling:
    """How an image is normalised.

    Attributes
    ----------
    offset, scale : tuple of float
        One per channel.
    notes : tuple of str
        Which channels are constant or saturated, what looks unlike the training images, and what was done about it;
        sentences without a full stop.
    """

    offset: tuple[float, ...]
    scale: tuple[float, ...]
    notes: tuple[str, ...] = ()


def scale_image(
    source: ImageSource,
    normalisation: Normalisation,
    trained: Intensities | None,
    client: "Client | None" = None,
    on_box: Callable[[int], None] | None = None,
) -> ImageScaling:
    """Normalise an image as a network wants it.

    Constants are used as they are, and a small sample of the image is compared with the training images. Otherwise the
    whole image is measured. A checkpoint that knows nothing of its training images, because it is older, is applied as
    before: nothing is bounded, and only constants are compared.

    Parameters
    ----------
    source : ImageSource
        The image.
    normalisation : Normalisation
        The network's.
    trained : Intensities, optional
        Of the training images.
    client, on_box
        See `pipeline.statistics.measure.measure`; `count_boxes` there gives the number of boxes.

    Raises
    ------
    InputError, IncompleteError
        See `pipeline.statistics.measure.resolve_normalisation`.
    """
    if normalisation.kind == "constants" or trained is None:
        sample = _sample_in_time(source, client)
        degenerate = note_degenerate(source, sample) if sample else []
        compares = normalisation.kind == "constants"
        compared = _compare_sample(source, sample, normalisation, trained) if sample and compares else []
        return ImageScaling(*resolve_normalisation(source, normalisation, client, on_box), (*compared, *degenerate))
    measured = measure(source, client, on_box)
    sample = sample_image(source, client)
    degenerate = note_degenerate(source, sample) if sample else []
    levels = levels_of_image(source, measured, sample)
    bounded = bound_scaling(measured_scaling(measured, normalisation), levels, normalisation, trained)
    notes = [] if bounded.notes else compare_intensities(levels, trained, normalisation.kind)
    return ImageScaling(bounded.offset, bounded.scale, (*bounded.notes, *notes, *degenerate))


def _sample_in_time(source: ImageSource, client: "Client | None") -> Sample | None:
    """A sample of an image, for what only helps: None if it takes too long."""
    sample = None
    with contextlib.suppress(TasksFailedError):
        sample = sample_image(source, client, PATIENCE_S)
    if sample is None:
        log.info("%s: no sample could be read in time, so nothing is said of its values", source.image.location)
    return sample


def _compare_sample(
    source: ImageSource, sample: Sample, normalisation: Normalisation, trained: Intensities | None
) -> list[str]:
    """What looks different in a small sample of an image."""
    levels = levels_of_sample(source, sample)
    return compare_intensities(levels, trained, "constants") if trained else compare_constants(levels, normalisation)


def measure_levels(
    source: ImageSource, client: "Client | None" = None, on_box: Callable[[int], None] | None = None
) -> tuple[ChannelStatistics, Levels]:
    """Measure a whole image, and its noise on a sample."""
    measured = measure(source, client, on_box)
    return measured, levels_of_image(source, measured, sample_image(source, client))


def measured_scaling(measured: ChannelStatistics, normalisation: Normalisation) -> Scaling:
    """Offset and scale as measured; the scale of a flat channel is 0."""
    if normalisation.kind == "mean-std":
        return measured.mean, measured.std
    low, high = measured.percentile(normalisation.low), measured.percentile(normalisation.high)
    return low, tuple(b - a for a, b in zip(low, high, strict=True))
