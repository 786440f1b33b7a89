"""Segment one image, stage by stage: normalise, begin, segment, pyramid, in this order, visible below.

This file does not know who starts the workers: it gets a Dask client, or None to work in this process, block by block.
"""

import contextlib
import logging
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from segment_slide.pipeline.blocks.array_spec import ArraySpec
from segment_slide.pipeline.blocks.grid import Index
from segment_slide.pipeline.blocks.progress import Stages, ignore, timed
from segment_slide.pipeline.blocks.tasks import explain_failures
from segment_slide.pipeline.errors import Failure, IncompleteError, OutputError, PipelineError, TasksFailedError
from segment_slide.pipeline.manifest.sealing import sealing
from segment_slide.pipeline.segmentation.background import background_blocks
from segment_slide.pipeline.segmentation.block import BlockJob
from segment_slide.pipeline.segmentation.output import create_output, stored_blocks, what_it_makes
from segment_slide.pipeline.segmentation.plan import SegmentPlan
from segment_slide.pipeline.segmentation.prepare import PreparedSegmentation
from segment_slide.pipeline.segmentation.processors import note_processor
from segment_slide.pipeline.segmentation.record import recommended_objects, update_record
from segment_slide.pipeline.segmentation.replaced import check_input, forget_replaced, keep_list
from segment_slide.pipeline.segmentation.run import BlockFailure, segment_blocks
from segment_slide.pipeline.statistics import measure as statistics
from segment_slide.pipeline.statistics.apply import scale_image
from segment_slide.pipeline.storage import names, store
from segment_slide.pipeline.storage.label_records import SegmentationRecord, UsedNormalisation, read_record
from segment_slide.pipeline.storage.place import show_to_all
from segment_slide.pipeline.storage.pyramid import Method, build_pyramid
from segment_slide.unet.network import InferenceSettings, NetworkUse
from segment_slide.unet.open_network import find_intensities
from segment_slide.unet.scaling import needs_float64

if TYPE_CHECKING:
    from distributed import Client

log = logging.getLogger(__name__)

_SHOWN_FAILURES = 10


@dataclass(frozen=True)
class SegmentReport:
    """What a run did.

    Attributes
    ----------
    location, name : str
        Output store and label image.
    n_blocks, n_done_before, n_background : int
        Blocks of the image, blocks that were done before, blocks written as background without the network.
    n_pixels : int
        Pixels segmented by this run.
    stage_seconds : dict
        Wall time per stage.
    """

    location: str
    name: str
    n_blocks: int
    n_done_before: int
    n_background: int
    n_pixels: int
    stage_seconds: dict[str, float]

    @property
    def seconds(self) -> float:
        """Wall time of all stages."""
        return sum(self.stage_seconds.values())

    @property
    def pixels_per_s(self) -> float:
        """Pixels of the segmentation per second of its stage."""
        return self.n_pixels / max(self.stage_seconds["segment"], 1e-9)


def run_segmentation(
    prepared: PreparedSegmentation,
    client: "Client | None",
    progress: Stages,
    clock: dict[str, float],
    *,
    if_workers_died: str = "",
) -> SegmentReport:
    """Run all stages; the caller must hold the output (`storage.place.exclusive`).

    Parameters
    ----------
    prepared : PreparedSegmentation
        What to do.
    client : Client, optional
        Dask cluster; None works in this process, block by block.
    progress : Stages
        What the run reports its progress to.
    clock : dict
        Gains the wall time of each stage.
    if_workers_died : str
        What to change if blocks ended their workers.

    Raises
    ------
    PipelineError
        Bad input, before anything is created.
    IncompleteError
        Blocks were left undone; what is done is kept, and the same call continues the run.
    """
    destination, plan = prepared.destination, prepared.plan
    begun = read_record(destination.location, destination.name)
    if bool(begun) != prepared.begun:
        raise OutputError(
            f"output={destination.location} was begun by another run in the meantime; run the same command again."
        )
    with sealing(what_it_makes(destination.location, destination.name, plan), client, progress):
        return _run_stages(prepared, begun, client, progress, clock, if_workers_died)


def _run_stages(
    prepared: PreparedSegmentation,
    begun: SegmentationRecord | None,
    client: "Client | None",
    progress: Stages,
    clock: dict[str, float],
    if_workers_died: str,
) -> SegmentReport:
    """Run all stages while the output's manifest is open."""
    destination, plan = prepared.destination, prepared.plan
    with timed(clock, "measure"):
        record = normalise(prepared, client, progress)
        background = find_background(plan)
    if not prepared.begun:
        create_output(destination.location, destination.name, plan, record, in_place=destination.in_place)
    elif destination.input_repaired:
        forget_replaced(plan, destination.location, destination.name)
    done = stored_blocks(destination.location, destination.name, plan)
    prepared = replace(prepared, plan=keep_list(plan, prepared.watched, n_done=len(done)))
    if begun:
        record = replace(record, processors=begun.processors)  # re-read: another run may have gone on in the meantime
        record = note_processor(record, prepared.processor, done, plan.grid.counts)
        update_record(destination.location, destination.name, record)
    with timed(clock, "segment"):
        report, failures = _segment(prepared, record, done, background, client, progress, clock)
    explained = [_explain(prepared, failures, if_workers_died)] if failures else []
    may_pass = any(failure.may_pass for failure in failures)
    try:
        with timed(clock, "pyramid"):
            build_pyramids(prepared, client, progress)
    except IncompleteError as error:
        raise IncompleteError("\n".join([*explained, str(error)]), may_pass=may_pass or error.may_pass) from error
    if failures:
        raise IncompleteError(*explained, may_pass=may_pass)
    check_input(prepared.watched, destination.location, destination.name, record)
    show_to_all(destination.location, names.label_group(destination.name))
    if plan.probabilities is not None:
        show_to_all(destination.location, names.probability_group(destination.name))
    return report


def normalise(prepared: PreparedSegmentation, client: "Client | None", progress: Stages) -> SegmentationRecord:
    """The record with what the model recommends for objects, and the constants of the normalisation.

    The constants are the model's, the whole image's, or as recorded. A log message warns of what looks unlike the
    training images.
    """
    if not prepared.begun:
        used = _measure(prepared, client, progress)
        record = replace(prepared.record, normalisation=used, objects=recommended_objects(prepared.network))
    else:
        record = prepared.record
    for note in record.normalisation.notes if record.normalisation else ():
        log.warning("%s", note)
    return record


def _measure(prepared: PreparedSegmentation, client: "Client | None", progress: Stages) -> UsedNormalisation:
    config, source = prepared.network.config, prepared.plan.source
    total = statistics.count_boxes(source, config.normalisation)
    with progress.stage("measure", total) if total else contextlib.nullcontext(ignore) as advance:
        found = scale_image(source, config.normalisation, find_intensities(config), client, on_box=advance)
    is_exact = needs_float64(source.dtype, found.offset, found.scale)
    return UsedNormalisation(config.normalisation.kind, found.offset, found.scale, found.notes, is_exact)


def find_background(plan: SegmentPlan) -> set[Index]:
    """Blocks of bare glass, if background is to be skipped; else none."""
    return set(background_blocks(plan.source, plan.grid)) if plan.parameters.skip_background else set()


def _segment(
    prepared: PreparedSegmentation,
    record: SegmentationRecord,
    done: set[Index],
    background: Collection[Index],
    client: "Client | None",
    progress: Stages,
    clock: dict[str, float],
) -> tuple[SegmentReport, list[BlockFailure]]:
    """Run all pending blocks."""
    plan, destination = prepared.plan, prepared.destination
    job = _make_job(prepared, record)
    pixels = 0
    with progress.stage("segment", total=plan.grid.n_blocks, done=len(done)) as advance:

        def count(report: Any) -> None:
            nonlocal pixels
            pixels += report.n_pixels
            advance(report.n_pixels)

        failures = segment_blocks(job, plan.window_blocks, done, background=background, client=client, on_block=count)
    report = SegmentReport(
        destination.location,
        destination.name,
        n_blocks=plan.grid.n_blocks,
        n_done_before=len(done),
        n_background=len(set(background) - done),
        n_pixels=pixels,
        stage_seconds=clock,
    )
    return report, failures


def _make_job(prepared: PreparedSegmentation, record: SegmentationRecord) -> BlockJob:
    plan, destination = prepared.plan, prepared.destination
    wants_scores = plan.probabilities is not None
    normalisation = record.normalisation or UsedNormalisation()
    settings = InferenceSettings(
        offset=normalisation.offset,
        scale=normalisation.scale,
        tile_px=plan.tile_px,
        device=prepared.device_kind,
        precision=plan.parameters.precision,
        tta=plan.parameters.tta,
        concurrency=plan.concurrency,
        is_exact=normalisation.is_exact,
    )
    return BlockJob(
        source=plan.source,
        grid=plan.grid,
        network=NetworkUse(str(prepared.network.path), prepared.network.sha256, settings),
        location=destination.location,
        label_group=names.label_group(destination.name),
        probability_group=names.probability_group(destination.name) if wants_scores else None,
        probabilities=plan.probabilities,
        channel_position=plan.channel_position,
    )


def build_pyramids(prepared: PreparedSegmentation, client: "Client | None", progress: Stages) -> None:
    """Make the coarser levels of labels and probabilities, as far as their sources are there.

    Raises
    ------
    IncompleteError
        If files failed twice, naming them, after all others are made. At once if none can be written.
    """
    plan, destination = prepared.plan, prepared.destination
    images: list[tuple[str, list[ArraySpec], Method]]
    images = [(names.label_group(destination.name), plan.label_arrays(), "nearest")]
    if plan.probabilities is not None:
        images.append((names.probability_group(destination.name), plan.probability_arrays(), "local_mean"))
    coarser = [(group, spec) for group, arrays, _ in images for spec in arrays[1:]]
    total = sum(spec.n_shards for _, spec in coarser)
    done = sum(len(store.stored_shards(destination.location, store.join(group, spec.path))) for group, spec in coarser)
    with progress.stage("pyramid", total=total, done=done, unit="files") as advance:
        failures: list[Failure] = []
        for group, arrays, method in images:
            try:
                build_pyramid(
                    destination.location,
                    group,
                    arrays,
                    plan.source.spatial_axes,
                    method,
                    client=client,
                    on_shard=lambda: advance(0),
                )
            except TasksFailedError as failed:
                failures += failed.failures
            except PipelineError as error:
                raise IncompleteError(f"pyramid: {error}", may_pass=getattr(error, "may_pass", True)) from error
        if failures:
            explained = explain_failures(failures)
            raise IncompleteError(f"pyramid: {explained}", may_pass=explained.may_pass)


def _explain(prepared: PreparedSegmentation, failures: list[BlockFailure], if_workers_died: str) -> str:
    shown = "\n".join(f"  block {failure.index}: {failure.reason}" for failure in failures[:_SHOWN_FAILURES])
    more = f"\n  … and {len(failures) - _SHOWN_FAILURES} more" if len(failures) > _SHOWN_FAILURES else ""
    remedy = f"\n{if_workers_died}" if if_workers_died and any(failure.ended_workers for failure in failures) else ""
    return (
        f"{len(failures)} of {prepared.plan.grid.n_blocks} blocks could not be done; all others are stored in "
        f"{prepared.destination.location}:\n{shown}{more}{remedy}"
    )
