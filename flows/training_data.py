"""Make training samples of a training set. Steps: check, connect, measure, draw samples, draw a preview."""

import contextlib
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from segment_slide.flows.samples_plan import PreparedSamples, prepare_samples
from segment_slide.flows.training_requests import TrainingDataRequest
from segment_slide.flows.workers import checks_of, open_cluster
from segment_slide.pipeline.blocks.progress import QuietStages, Stages, ignore
from segment_slide.pipeline.errors import OutputError
from segment_slide.pipeline.manifest.homes import Made
from segment_slide.pipeline.manifest.sealing import sealing
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.lock import hold
from segment_slide.pipeline.training.contact_sheet import write_contact_sheet
from segment_slide.pipeline.training.pairing import tell_apart
from segment_slide.pipeline.training.sample_set import SampleSet, create_sample_set, find_sample_set
from segment_slide.pipeline.training.samples_run import (
    SampleJob,
    check_annotations,
    make_items,
    note_on_frames,
    watch_annotations,
    write_samples,
)
from segment_slide.pipeline.training.set_normalisation import count_boxes, find_normalisation
from segment_slide.pipeline.training.stored_pixels import StoredAnnotation
from segment_slide.pipeline.training.stored_samples import StoredSamples
from segment_slide.unet.draw import Place, plain_places

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["TrainingDataReport", "TrainingDataRequest", "make_training_data"]

log = logging.getLogger(__name__)

PREVIEW_NAME = "preview.png"
_PREVIEW_SAMPLES = 12
_FOLDING = 5  # control points nearer than this many standard deviations may swap places and fold the image


@dataclass(frozen=True)
class TrainingDataReport:
    """The result of a run.

    Attributes
    ----------
    samples : SampleSet
        The description of the samples.
    n_files, n_files_before : int
        Number of files of samples, and of those that an earlier run had made.
    preview : Path or None
        The contact sheet; None in an object store.
    notes : tuple of str
        What a person should know before training.
    seconds : float
        Wall time.
    """

    samples: SampleSet
    n_files: int
    n_files_before: int
    preview: Path | None
    notes: tuple[str, ...]
    seconds: float


def make_training_data(request: TrainingDataRequest, progress: Stages | None = None) -> TrainingDataReport:
    """Make training samples, or resume a run that was interrupted.

    Raises
    ------
    UnetError, PipelineError, ClusterError
        If the request is bad; found before anything is created.
    IncompleteError
        If some files could not be made. What is done is kept; the same command resumes.
    """
    began = time.perf_counter()
    progress = progress or QuietStages()
    prepared = prepare_samples(request)
    watched = watch_annotations([*prepared.training, *prepared.validation])
    location = prepared.samples.location
    held = hold(location, lambda: store.remove_leftovers(location, ""))
    with held, _open_workers(prepared) as client, sealing(Made(location, ("",)), client, progress):
        if find_sample_set(location) != prepared.begun:
            raise OutputError(f"output={location} was begun by another run in the meantime; run the command again.")
        samples, notes = (prepared.begun, []) if prepared.begun else _measure(prepared, request, client, progress)
        validation = _normalise(prepared.validation, samples)
        places = spread(list(plain_places(validation, samples.tile_px)), request.validation_tiles)
        samples = prepared.begun or replace(samples, n_validation=len(places))
        if not prepared.begun:
            create_sample_set(samples)
        job = SampleJob(
            samples,
            prepared.settings,
            {"training": _normalise(prepared.training, samples), "validation": validation},
        )
        items = make_items(samples, places)
        total = samples.n_shards("training") + samples.n_shards("validation")
        with progress.stage("samples", total, total - len(items), unit="files") as advance:
            write_samples(job, items, client, on_shard=advance)
        check_annotations(watched, samples)
        preview = _write_preview(samples, _say_pairs(prepared.training))
    seconds = time.perf_counter() - began
    return TrainingDataReport(samples, total, total - len(items), preview, (*_notes(prepared), *notes), seconds)


def _open_workers(prepared: PreparedSamples) -> "contextlib.AbstractContextManager[Client]":
    images = [item.source.image for item in (*prepared.training, *prepared.validation)]
    return open_cluster(prepared.cluster, checks_of(reads=images, writes=prepared.samples.location))


def _measure(
    prepared: PreparedSamples, request: TrainingDataRequest, client: "Client", progress: Stages
) -> tuple[SampleSet, list[str]]:
    """Choose and measure the normalisation and add it to the sample set. Return what a person should know, too."""
    training, validation, wanted = prepared.training, prepared.validation, request.normalisation
    total = count_boxes(training, validation, wanted)
    with progress.stage("measure", total) if total else contextlib.nullcontext(ignore) as advance:
        found = find_normalisation(training, validation, wanted, client, on_box=advance)
    if found.reason:
        log.info("normalisation by %s: %s", found.normalisation.kind, found.reason)
    samples = replace(
        prepared.samples,
        normalisation=found.normalisation,
        image_scales=found.scalings,
        intensities=found.intensities,
        reason=found.reason,
    )
    return samples, list(found.notes)


def _normalise(items: Sequence[StoredAnnotation], samples: SampleSet) -> list[StoredAnnotation]:
    scales = samples.image_scales
    return [replace(item, offset=scales[item.image.name][0], scale=scales[item.image.name][1]) for item in items]


def _say_pairs(items: Sequence[StoredAnnotation]) -> list[str]:
    """For each image, which file of labels belongs to which image."""
    images, labels = (tell_apart([item.image.pair[side] for item in items]) for side in (0, 1))
    return [f"{image} with {label}" for image, label in zip(images, labels, strict=True)]


def _write_preview(samples: SampleSet, pairs: Sequence[str]) -> Path | None:
    """Draw the first samples on one page, with the pair of files of each. Each run draws the same page again."""
    if store.is_remote(samples.location):
        return None
    stored = StoredSamples(samples, "training")
    shown = range(min(len(stored), _PREVIEW_SAMPLES))
    captions = []
    for number in shown:
        image, *place = stored.place(number)
        where = ", ".join(f"{a} {p:.0f}" for a, p in zip(samples.settings.place_axes, place, strict=True))
        captions.append(f"{number}: {samples.training_images[int(image)]}, {where}\n{pairs[int(image)]}")
    path = Path(samples.location, PREVIEW_NAME)
    title = f"{Path(samples.location).name}: the first {len(shown)} of {len(stored)} training samples"
    try:
        write_contact_sheet(path, [stored[number] for number in shown], captions, samples.class_names, title)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error}; all samples are stored.") from error
    return path


def spread(places: Sequence[Place], most: int) -> list[Place]:
    """Choose at most this many places, evenly spread over all, in their order.

    >>> from segment_slide.unet.draw import Place
    >>> tiles = [Place(0, (), (float(y), 0.0)) for y in range(10)]
    >>> [int(place.centre_px[0]) for place in spread(tiles, 4)]
    [0, 2, 5, 7]
    """
    n = min(len(places), most)
    return [places[number * len(places) // n] for number in range(n)]


def _notes(prepared: PreparedSamples) -> list[str]:
    """List what a person should know before training."""
    samples, augment = prepared.samples, prepared.settings.augment
    notes = []
    if not prepared.validation:
        n = len(prepared.training)
        notes.append(
            f"no image validates ({n} annotated image{'s' if n > 1 else ''}): annotate another image for a score on "
            f"data that training has not seen."
        )
    frames = note_on_frames(samples.training_images, samples.validation_images)
    if frames:
        notes.append(frames)
    moves = zip(augment.stds_px(samples.n_spatial), map(augment.spacing_px, samples.read_px), strict=True)
    folding = [(std, spacing) for std, spacing in moves if spacing < _FOLDING * std]
    if folding:
        notes.append(
            f"displacements of {folding[0][0]:g} px (std) between control points {folding[0][1]:.0f} px apart may fold "
            f"the image; choose a larger --tile, or a smaller --elastic-std."
        )
    return notes
