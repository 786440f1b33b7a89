"""Measure the objects of a segmentation. Steps: open, plan, connect, measure blocks, write table, write summary."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from segment_slide.cluster.spec import ClusterSpec
from segment_slide.flows.requests import MeasureRequest
from segment_slide.flows.workers import checks_of, open_cluster, plan_cluster
from segment_slide.pipeline.blocks.grid import Index
from segment_slide.pipeline.blocks.progress import QuietStages, Stages, timed
from segment_slide.pipeline.blocks.tasks import keeping_what_is_done
from segment_slide.pipeline.errors import IncompleteError, InputError, UnreachableError
from segment_slide.pipeline.inputs.watch import READ, InputWatch, explain_changed, refuse_changed, watch
from segment_slide.pipeline.manifest.sealing import sealing
from segment_slide.pipeline.measurement.finish import (
    name_objects,
    page_path,
    remove_leftovers,
    show_results,
    what_it_makes,
    write_summary,
)
from segment_slide.pipeline.measurement.open import open_input
from segment_slide.pipeline.measurement.open_labels import open_labels
from segment_slide.pipeline.measurement.plan import MeasurePlan, begin, check_output, discard, plan_measurement
from segment_slide.pipeline.measurement.run import ROWS, measure_blocks, write_table
from segment_slide.pipeline.measurement.summary import SizeCounts, Summary
from segment_slide.pipeline.measurement.table import stored_parts
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.lock import hold

if TYPE_CHECKING:
    from distributed import Client


@dataclass(frozen=True)
class MeasureReport:
    """The result of a run.

    Attributes
    ----------
    table, page : str
        Folder of the table's parts, and the page that summarises the table.
    n_objects, n_parts : int
        Number of rows and of files of the table.
    n_blocks_done_before, n_parts_done_before : int
        Blocks and parts that an earlier run had made.
    channels : tuple of str
        Channels whose intensities were measured, with their names in the columns.
    summary : Summary
        Counts and sizes per class.
    notes : tuple of str
        What to know of the table: one sentence each.
    stage_seconds : dict
        Wall time per stage.
    """

    table: str
    page: str
    n_objects: int
    n_parts: int
    n_blocks_done_before: int
    n_parts_done_before: int
    channels: tuple[str, ...]
    summary: Summary
    stage_seconds: dict[str, float]
    notes: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        """Wall time of all stages."""
        return sum(self.stage_seconds.values())


def measure_objects(request: MeasureRequest, progress: Stages | None = None) -> MeasureReport:
    """Measure all objects of a segmentation, or resume a run that was interrupted.

    Raises
    ------
    PipelineError, ClusterError
        If the request is bad; found before anything is written.
    IncompleteError
        If blocks or parts were left undone. What is done is kept; the same command resumes.
    """
    progress = progress or QuietStages()
    clock: dict[str, float] = {}
    with timed(clock, "prepare"):
        plan, cluster = plan_request(request)
        watched = watch(plan.images, store.join(plan.location, plan.work.path, READ), {})
    location = plan.location
    held = hold(location, lambda: remove_leftovers(plan))
    with held, sealing(what_it_makes(plan), None, progress):
        begin(plan)
        _refuse_changed(plan, watched)
        with _discarding(plan), keeping_what_is_done():
            plan, counts, summary, blocks, parts = _run(plan, watched, cluster, progress, clock)
    return MeasureReport(
        table=store.join(location, plan.table),
        page=page_path(plan),
        n_objects=counts.n_objects,
        n_parts=plan.n_parts,
        n_blocks_done_before=blocks,
        n_parts_done_before=parts,
        channels=plan.source.spec.channels,
        summary=summary,
        stage_seconds=clock,
        notes=_notes(plan, counts),
    )


@contextlib.contextmanager
def _discarding(plan: MeasurePlan) -> Iterator[None]:
    """Leave nothing of a table that can never be made, because the label image holds values that are no ids."""
    try:
        yield
    except IncompleteError as error:
        if isinstance(error.__cause__, InputError) and not isinstance(error.__cause__, UnreachableError):
            discard(plan)
            raise InputError(str(error.__cause__)) from error
        raise


def _notes(plan: MeasurePlan, counts: SizeCounts) -> tuple[str, ...]:
    notes = []
    if plan.source.n_objects is None:
        notes.append("Ids are kept as they are. Pixels with one id are one object, also where they do not touch.")
    if counts.n_not_finite:
        notes.append(
            f"{counts.n_not_finite:,} object(s) have pixels that are NaN or infinite in a channel: their intensities "
            f"in it are null."
        )
    return tuple(notes)


def _run(
    plan: MeasurePlan, watched: InputWatch, cluster: ClusterSpec, progress: Stages, clock: dict[str, float]
) -> tuple[MeasurePlan, SizeCounts, Summary, int, int]:
    """Measure, and return the plan, counts, their summary, and how many blocks and parts an earlier run had made."""
    parts, blocks = stored_parts(plan.location, plan.table, plan.n_parts), plan.work.stored(ROWS)
    is_pending = not plan.n_parts or len(parts) < plan.n_parts
    with _open_workers(plan, cluster) if is_pending else contextlib.nullcontext() as client:
        with timed(clock, "measure"):
            plan = replace(plan, source=plan.source.with_lists(watched.images)) if is_pending else plan
            needed = _measure(plan, client, progress, len(blocks)) if is_pending else []
        with timed(clock, "table"):
            plan = plan.with_found_parts()
            counts = _write(plan, needed, client, progress, len(parts))
    if is_pending:
        _check_input(plan, watched)
    with timed(clock, "summary"):
        summary = write_summary(plan, counts)
        name_objects(plan)
        show_results(plan)
    plan.work.remove()
    return plan, counts, summary, len(blocks), len(parts)


def _refuse_changed(plan: MeasurePlan, watched: InputWatch) -> None:
    """Refuse to go on with rows of pixels that have changed since they were measured."""
    there = f"{store.join(plan.location, plan.work.path)} and {store.join(plan.location, plan.table)}"
    for name, image in plan.images.items():
        refuse_changed(image, watched.list_folder(name), f"Delete {there}, and run the same command again.")


def _check_input(plan: MeasurePlan, watched: InputWatch) -> None:
    """Refuse to finish a table of images that changed while they were measured; its rows are deleted.

    Raises
    ------
    IncompleteError
        Naming the files.
    """
    made_of = plan.provenance.input
    recorded = {name: getattr(made_of, name) or "" for name in watched.images}
    if changed := replace(watched, fingerprints=recorded).find_changed():
        discard(plan)
        remedy = f"The table {plan.table_name} is not complete and is deleted; run the same command again."
        raise IncompleteError(explain_changed(changed, remedy))


def _open_workers(plan: MeasurePlan, cluster: ClusterSpec) -> "contextlib.AbstractContextManager[Client]":
    source = plan.source
    images = [source.instances, source.classes, None if source.source is None else source.source.image]
    reads = [image for image in images if image is not None]
    needed = plan.worker_bytes(cluster.tasks_per_worker)
    return open_cluster(cluster, checks_of(reads=reads, writes=plan.location), needed_bytes=needed)


def plan_request(request: MeasureRequest) -> tuple[MeasurePlan, ClusterSpec]:
    """Plan a request and its workers, and check all that metadata show.

    Raises
    ------
    PipelineError, ClusterError
        If the request cannot be carried out.
    """
    location = store.resolve_location(request.location)
    labels = request.labels
    if labels.labels is None:
        name, source = request.name, open_input(location, request.name, request.image)
    else:
        name, source = labels.name, open_labels(location, labels, request.image)
    output = location if labels.output is None else store.resolve_location(labels.output)
    check_output(output)
    plan = plan_measurement(output, name, source, request.rows, labels.table)
    cluster = plan_cluster(request.workers, short_tasks=True)
    plan.check_memory(cluster.usable_bytes, cluster.tasks_per_worker)
    return plan, cluster


def _measure(plan: MeasurePlan, client: "Client | None", progress: Stages, done: int) -> list[list[Index]]:
    """Measure the rows of all blocks."""
    with progress.stage("measure", total=plan.source.grid.n_blocks, done=done) as advance:
        return measure_blocks(plan, client, advance)


def _write(
    plan: MeasurePlan, needed: list[list[Index]], client: "Client | None", progress: Stages, done: int
) -> SizeCounts:
    """Write all parts of the table."""
    with progress.stage("table", total=plan.n_parts, done=done, unit="parts") as advance:
        return write_table(plan, needed, client, lambda: advance(0))
