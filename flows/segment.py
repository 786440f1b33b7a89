"""Segment one image: prepare, connect, normalise, begin, segment, pyramid, in this order, visible below."""

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from segment_slide.cluster.errors import ClusterError
from segment_slide.cluster.spec import ClusterSpec
from segment_slide.flows.segment_request import Prepared, SegmentRequest, prepare
from segment_slide.flows.workers import checks_of, open_cluster
from segment_slide.pipeline.blocks.grid import Index
from segment_slide.pipeline.blocks.progress import QuietStages, Stages, ignore, timed
from segment_slide.pipeline.errors import IncompleteError, OutputError, PipelineError
from segment_slide.pipeline.segmentation import output
from segment_slide.pipeline.segmentation.background import background_blocks
from segment_slide.pipeline.segmentation.block import BlockJob
from segment_slide.pipeline.segmentation.plan import SegmentPlan
from segment_slide.pipeline.segmentation.record import update_record
from segment_slide.pipeline.segmentation.run import BlockFailure, segment_blocks
from segment_slide.pipeline.storage import names, place, statistics, store
from segment_slide.pipeline.storage.pyramid import Method, build_pyramid
from segment_slide.pipeline.storage.record import read_record

if TYPE_CHECKING:
    from distributed import Client

    from segment_slide.unet.device import DeviceFacts


@dataclass(frozen=True)
class SegmentReport:
    """What a run did.

    Attributes
    ----------
    location, name : str
        Output store and label image.
    n_blocks, n_done_before, n_background : int
        Blocks of the image, those found done, those written as background unseen.
    n_pixels : int
        Pixels segmented by this run.
    seconds : dict
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


def segment_slide(request: SegmentRequest, progress: Stages | None = None) -> SegmentReport:
    """Segment an image, or go on with a segmentation that was interrupted.

    Raises
    ------
    UnetError, PipelineError, ClusterError
        Bad input, before anything is created.
    IncompleteError
        Blocks were left undone; what is done is kept and the same command goes on.
    """
    progress = progress or QuietStages()
    clock: dict[str, float] = {}
    with timed(clock, "prepare"):
        prepared = prepare(request)
    location, name = prepared.location, request.options.name
    with place.exclusive(location, name), _open_workers(prepared) as client:
        if not prepared.is_settled:
            prepared = prepare(request, ask_workers(client, request))
        if bool(read_record(location, name)) != prepared.begun:
            raise OutputError(
                f"output={location} was begun by another run in the meantime; run the same command again."
            )
        with timed(clock, "measure"):
            record = normalise(prepared, client, progress)
            background = _find_background(prepared)
        if not prepared.begun:
            output.create_output(location, name, prepared.plan, record, in_place=request.in_place)
        elif request.input_repaired:
            update_record(location, name, record)
        with timed(clock, "segment"):
            counts, failures = _segment(prepared, record, background, client, progress)
        with timed(clock, "pyramid"):
            _pyramids(prepared, client, progress)
    if failures:
        raise IncompleteError(_explain_failures(prepared, failures))
    return SegmentReport(location, name, stage_seconds=clock, **counts)


def _open_workers(prepared: Prepared) -> "contextlib.AbstractContextManager[Client]":
    checkpoint, plan = prepared.checkpoint, prepared.plan
    model = (str(checkpoint.path), checkpoint.sha256)
    checks = checks_of(reads=[plan.source.image], writes=prepared.location, model=model)
    return open_cluster(prepared.cluster, checks, needed_bytes=plan.memory.total_bytes)


def ask_workers(client: "Client", request: SegmentRequest) -> "DeviceFacts":
    """Device and precision of all workers, which must be the same: else the last bits would depend on the worker.

    Raises
    ------
    ClusterError
        If they differ, naming them.
    UnetError
        If a worker has no such device.
    """
    from segment_slide.unet.device import describe_device

    found = client.run(describe_device, request.device, request.options.precision or "auto")
    kinds = sorted({f"{facts.processor} ({facts.kind}, {facts.precision})" for facts in found.values()})
    if len(kinds) != 1:
        raise ClusterError(
            f"workers have different processors: {'; '.join(kinds)}. Their results differ in the last bits; ask for "
            f"nodes of one kind (SLURM: a --constraint in `directives`), or say --precision and --device."
        )
    return next(iter(found.values()))


def normalise(prepared: Prepared, client: "Client", progress: Stages) -> dict[str, Any]:
    """The record with the constants of the normalisation: the model's, the whole image's, or as recorded."""
    if prepared.begun:
        return prepared.record
    normalisation, source = prepared.checkpoint.config.normalisation, prepared.plan.source
    total = statistics.count_boxes(source, normalisation)
    with progress.stage("measure", total) if total else contextlib.nullcontext(ignore) as advance:
        offset, scale = statistics.resolve_normalisation(source, normalisation, client, on_box=advance)
    content = {"kind": normalisation.kind, "offset": list(offset), "scale": list(scale)}
    return {**prepared.record, "normalisation": content}


def _find_background(prepared: Prepared) -> set[Index]:
    """Blocks of bare glass, if they are to be left out."""
    plan = prepared.plan
    return set(background_blocks(plan.source, plan.grid)) if plan.parameters["skip_background"] else set()


def stored_blocks(location: str, name: str, plan: SegmentPlan) -> set[Index]:
    """Blocks all of whose shards are there: labels, and probabilities if they are stored."""
    done = store.stored_shards(location, f"{names.label_group(name)}/0")
    if plan.probabilities is None:
        return done
    where = plan.channel_position
    scores = store.stored_shards(location, f"{names.probability_group(name)}/0")
    return done & {(*index[:where], *index[where + 1 :]) for index in scores}


def _segment(
    prepared: Prepared, record: dict[str, Any], background: set[Index], client: "Client", progress: Stages
) -> tuple[dict[str, int], list[BlockFailure]]:
    """Run all pending blocks."""
    plan = prepared.plan
    job = _make_job(prepared, record)
    done = stored_blocks(prepared.location, prepared.request.options.name, plan)
    pixels = 0
    with progress.stage("segment", total=plan.grid.n_blocks, done=len(done)) as advance:

        def count(report: Any) -> None:
            nonlocal pixels
            pixels += report.n_pixels
            advance(report.n_pixels)

        failures = segment_blocks(job, plan.window_blocks, done, background=background, client=client, on_block=count)
    counts = {
        "n_blocks": plan.grid.n_blocks,
        "n_done_before": len(done),
        "n_background": len(background - done),
        "n_pixels": pixels,
    }
    return counts, failures


def _make_job(prepared: Prepared, record: dict[str, Any]) -> BlockJob:
    plan, name = prepared.plan, prepared.request.options.name
    wants_scores = plan.probabilities is not None
    return BlockJob(
        source=plan.source,
        grid=plan.grid,
        model_path=str(prepared.checkpoint.path),
        model_sha256=prepared.checkpoint.sha256,
        offset=tuple(record["normalisation"]["offset"]),
        scale=tuple(record["normalisation"]["scale"]),
        tile_px=plan.tile_px,
        precision=plan.parameters["precision"],
        tta=plan.parameters["tta"],
        device=prepared.device_kind,
        concurrency=plan.concurrency,
        location=prepared.location,
        label_group=names.label_group(name),
        probability_group=names.probability_group(name) if wants_scores else None,
        probabilities=plan.probabilities,
        channel_position=plan.channel_position,
    )


def _pyramids(prepared: Prepared, client: "Client", progress: Stages) -> None:
    """Coarser levels of labels and probabilities, where all their sources are there."""
    plan, name = prepared.plan, prepared.request.options.name
    images: list[tuple[str, list[store.ArraySpec], Method]]
    images = [(names.label_group(name), plan.label_arrays(), "nearest")]
    if plan.probabilities is not None:
        images.append((names.probability_group(name), plan.probability_arrays(), "local_mean"))
    coarser = [(group, spec) for group, arrays, _ in images for spec in arrays[1:]]
    total = sum(spec.n_shards for _, spec in coarser)
    done = sum(len(store.stored_shards(prepared.location, store.join(group, spec.path))) for group, spec in coarser)
    with progress.stage("pyramid", total=total, done=done, unit="files") as advance:
        for group, arrays, method in images:
            try:
                build_pyramid(
                    prepared.location,
                    group,
                    arrays,
                    plan.source.spatial_axes,
                    method,
                    client=client,
                    on_shard=lambda: advance(0),
                )
            except PipelineError as error:
                raise IncompleteError(f"pyramid: {error}. What is done is kept.") from error


def _explain_failures(prepared: Prepared, failures: list[BlockFailure]) -> str:
    shown = "\n".join(f"  block {failure.index}: {failure.reason}" for failure in failures[:10])
    more = f"\n  … and {len(failures) - 10} more" if len(failures) > 10 else ""
    remedy = f"\n{_explain_deaths(prepared.cluster)}" if any(failure.ended_workers for failure in failures) else ""
    return (
        f"{len(failures)} of {prepared.plan.grid.n_blocks} blocks could not be done; all others are stored in "
        f"{prepared.location}:\n{shown}{more}{remedy}"
    )


def _explain_deaths(cluster: ClusterSpec) -> str:
    """Where to look, and what to change, when workers died."""
    if cluster.block_time_limit_s is not None:
        return (
            f"block_time_limit={cluster.block_time_limit_s} s ends workers too: does the storage answer, and is the "
            f"limit several times what a block needs? {_explain_memory(cluster)}"
        )
    return _explain_memory(cluster)


def _explain_memory(cluster: ClusterSpec) -> str:
    if cluster.kind == "slurm":
        return f"If memory was short, ask for more job_memory; what the workers wrote is in {cluster.log_directory}."
    if cluster.kind == "address":
        return "If memory was short, give each worker more; what they wrote is where they run."
    return "If memory was short, give each worker more of it: fewer --workers."
