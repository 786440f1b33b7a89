"""Choose and measure the normalisation of a training set. It is never measured per tile."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from segment_slide.pipeline.statistics import measure as statistics
from segment_slide.pipeline.statistics.apply import measure_levels, measured_scaling
from segment_slide.pipeline.statistics.bound import bound_scaling
from segment_slide.pipeline.statistics.levels import Levels, Scaling, describe_intensities
from segment_slide.pipeline.statistics.measure import resolve_normalisation
from segment_slide.pipeline.statistics.result import ChannelStatistics
from segment_slide.pipeline.statistics.spread import choose_normalisation
from segment_slide.pipeline.training.samples_run import pool_statistics
from segment_slide.pipeline.training.stored_pixels import StoredAnnotation
from segment_slide.unet.normalisation import AUTO, Intensities, Normalisation

if TYPE_CHECKING:
    from distributed import Client

_SHOWN_NOTES = 3


@dataclass(frozen=True)
class SetNormalisation:
    """How the images of a training set are normalised.

    Attributes
    ----------
    normalisation : Normalisation
        The trained network's.
    scalings : dict
        By image name: offset and scale of each channel.
    intensities : Intensities or None
        Of the training images; None if constants were given and nothing was measured.
    reason : str
        Why this kind was chosen; "" if the user chose it.
    notes : tuple of str
        What a person should know, in sentences without a full stop.
    """

    normalisation: Normalisation
    scalings: dict[str, Scaling]
    intensities: Intensities | None = None
    reason: str = ""
    notes: tuple[str, ...] = ()


def find_normalisation(
    training: Sequence[StoredAnnotation],
    validation: Sequence[StoredAnnotation],
    wanted: Normalisation,
    client: "Client | None" = None,
    on_box: Callable[[int], None] | None = None,
) -> SetNormalisation:
    """Determine the normalisation of intensities.

    The kind, and what is recorded of intensities, depend on the training images with objects: images that are annotated
    as empty say nothing of exposure. If no image has objects, all count.

    Parameters
    ----------
    training, validation : sequence of StoredAnnotation
        Images of each part.
    wanted : Normalisation
        "auto": chosen by the training images (`pipeline.statistics.spread`). "constants" with given constants: these
        are used. "constants" without: mean and standard deviation over all pixels of all training images. The two other
        methods: measured on each whole image separately.
    client, on_box
        See `pipeline.statistics.measure.measure`.

    Raises
    ------
    InputError
        If an image is damaged or holds a value that is not finite.
    IncompleteError
        If an image could not be read completely.
    """
    if not _is_measured(wanted):
        given = {
            item.image.name: resolve_normalisation(item.source, wanted, client, on_box)
            for item in (*training, *validation)
        }
        return SetNormalisation(wanted, given)
    measured = [measure_levels(item.source, client, on_box) for item in training]
    shown = [i for i, item in enumerate(training) if sum(item.image.class_counts[1:])] or list(range(len(training)))
    normalisation, reason = _choose(wanted, measured, shown)
    scalings = [_scale(statistic, normalisation) for statistic, _ in measured]
    known = describe_intensities([measured[i][1] for i in shown], [_above_0(scalings[i]) for i in shown])
    images = list(
        zip([item.image.name for item in training], scalings, [levels for _, levels in measured], strict=True)
    )
    found: dict[str, Scaling] = {}
    for item in validation:
        if _reads_validation(wanted):
            statistic, levels = measure_levels(item.source, client, on_box)
            images.append((item.image.name, _scale(statistic, normalisation), levels))
        else:
            found[item.image.name] = resolve_normalisation(item.source, normalisation, client, on_box)
    notes: list[str] = []
    for name, scaling, levels in images:
        if normalisation.kind != "constants":
            bounded = bound_scaling(scaling, levels, normalisation, known)
            notes += [f"image {name}: {note}" for note in bounded.notes]
            scaling = bounded.offset, bounded.scale
        found[name] = scaling
    return SetNormalisation(normalisation, found, known, reason, tuple(_shorten(notes)))


def count_boxes(
    training: Sequence[StoredAnnotation], validation: Sequence[StoredAnnotation], wanted: Normalisation
) -> int:
    """Boxes that `find_normalisation` will read."""
    whole = Normalisation("mean-std")
    first, second = (whole if _is_measured(wanted) else wanted), (whole if _reads_validation(wanted) else wanted)
    return sum(statistics.count_boxes(item.source, first) for item in training) + sum(
        statistics.count_boxes(item.source, second) for item in validation
    )


def _is_measured(wanted: Normalisation) -> bool:
    """Whether the training images are measured: not if constants are given."""
    return wanted.kind != "constants" or not wanted.offset


def _reads_validation(wanted: Normalisation) -> bool:
    """Whether images for validation are measured: not if the user asked for constants."""
    return wanted.kind != "constants"


def _choose(
    wanted: Normalisation, measured: Sequence[tuple[ChannelStatistics, Levels]], shown: Sequence[int]
) -> tuple[Normalisation, str]:
    """The normalisation of the network, and why it was chosen; `shown` are the numbers of the images with objects."""
    kind, reason = wanted.kind, ""
    if kind == AUTO:
        choice = choose_normalisation([measured[i][1] for i in shown])
        kind, reason = choice.kind, choice.reason
    if kind == "constants":
        offset, scale = pool_statistics([statistic for statistic, _ in measured])
        return Normalisation(kind, offset, scale, wanted.low, wanted.high), reason
    return Normalisation(kind, low=wanted.low, high=wanted.high), reason


def _scale(measured: ChannelStatistics, normalisation: Normalisation) -> Scaling:
    """Offset and scale of an image before the bound; the scale of a flat channel is 0."""
    if normalisation.kind == "constants":
        return normalisation.offset, normalisation.scale
    return measured_scaling(measured, normalisation)


def _above_0(scaling: Scaling) -> Scaling:
    """A scaling that can be divided by: a flat channel has the scale 1."""
    offset, scale = scaling
    return offset, tuple(value or 1.0 for value in scale)


def _shorten(notes: Sequence[str]) -> list[str]:
    """The first notes, and how many more there are."""
    more = len(notes) - _SHOWN_NOTES
    return [*notes[:_SHOWN_NOTES], *([f"{more} more images or channels are nearly flat"] if more > 0 else [])]
