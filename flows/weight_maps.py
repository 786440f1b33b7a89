"""Make a training set of annotated images. Steps: check, ingest, find objects, count, create, weigh."""

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from segment_slide.cluster.spec import ClusterSpec
from segment_slide.flows.training_requests import WeightMapsRequest
from segment_slide.flows.workers import checks_of, open_cluster, plan_cluster
from segment_slide.pipeline.blocks.progress import QuietStages, Stages
from segment_slide.pipeline.manifest.homes import Made
from segment_slide.pipeline.manifest.sealing import sealing
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.lock import hold
from segment_slide.pipeline.training import weights_inputs
from segment_slide.pipeline.training.annotation import find_annotation
from segment_slide.pipeline.training.class_counts import count_classes, describe_set
from segment_slide.pipeline.training.training_set import (
    COUNTS,
    TrainingSet,
    create_training_set,
    pending_blocks,
    read_training_set,
)
from segment_slide.pipeline.training.weights_block import WeightJob, replace_weights
from segment_slide.pipeline.training.weights_plan import WeightPlan, is_counted, plan_weight_maps
from segment_slide.pipeline.training.weights_run import make_weights

if TYPE_CHECKING:
    from distributed import Client


@dataclass(frozen=True)
class WeightMapsReport:
    """The result of a run.

    Attributes
    ----------
    training_set : TrainingSet
        Classes, weights of classes, images with their counts.
    without_labels : tuple of str
        Images without annotation; they were left out.
    n_blocks, n_done_before : int
        Number of blocks of all images, and of those that an earlier run had made.
    n_pixels : int
        Number of pixels weighed by this run.
    seconds : float
        Wall time.
    notes : tuple of str
        What a person should know of the annotation.
    """

    training_set: TrainingSet
    without_labels: tuple[str, ...]
    n_blocks: int
    n_done_before: int
    n_pixels: int
    seconds: float
    notes: tuple[str, ...] = ()


def make_weight_maps(request: WeightMapsRequest, progress: Stages | None = None) -> WeightMapsReport:
    """Make the weight maps of a set of annotated images, or resume a run that was interrupted.

    Raises
    ------
    UnetError, PipelineError, ClusterError
        If the input is bad. Metadata are checked before anything is created, and label values before the set's record
        is written. If label values are refused, a set that did not exist before is removed again.
    IncompleteError
        If blocks were left undone. What is done is kept; the same command resumes.
    """
    progress, began = progress or QuietStages(), time.perf_counter()
    plan, cluster = plan_request(request)
    watched = weights_inputs.watch_inputs(plan)
    location = plan.location
    held = hold(location, lambda: store.remove_leftovers(location, ""))
    with (
        held,
        open_cluster(cluster, checks_of(reads=[], writes=location)) as client,
        sealing(Made(location, ("",), once=(COUNTS,)), client, progress),
        weights_inputs.take_back_if_refused(plan),
    ):
        jobs = _prepare(plan, client, progress)
        training_set = read_training_set(location)
        n_done, n_pixels = _weigh(training_set, jobs, client, progress)
        weights_inputs.check_inputs(plan, watched)
    seconds = time.perf_counter() - began
    left_out, notes = plan.annotation.without_labels, training_set.notes
    return WeightMapsReport(training_set, left_out, plan.n_blocks, n_done, n_pixels, seconds, notes)


def plan_request(request: WeightMapsRequest) -> tuple[WeightPlan, ClusterSpec]:
    """Plan a request and its workers, and check all that metadata show.

    Raises
    ------
    UnetError, PipelineError, ClusterError
        If the request cannot be carried out.
    """
    plan = plan_weight_maps(find_annotation(request.annotation), request.options, request.output)
    cluster = plan_cluster(request.workers)
    plan.check_memory(cluster.usable_bytes, cluster.tasks_per_worker)
    return plan, cluster


def _prepare(plan: WeightPlan, client: "Client", progress: Stages) -> list[WeightJob]:
    """Do all steps up to the set's record, and return jobs whose labels are objects."""
    weights_inputs.begin(plan)
    files = weights_inputs.inputs_to_ingest(plan)
    if files:
        with progress.stage("ingest", total=len(files), unit="images") as advance:
            for location, planned in files:
                weights_inputs.ingest(location, planned, threads=len(os.sched_getaffinity(0)))
                advance(0)
    found = weights_inputs.open_pixels(plan)
    jobs = _find_objects(plan, found, client, progress)
    if not is_counted(plan):
        with progress.stage("count", total=plan.n_blocks) as advance:
            counts, notes = count_classes(plan, jobs, client, advance)
        create_training_set(describe_set(plan, found, counts, notes), counts, (plan.chunk,) * plan.n_spatial)
    return jobs


def _find_objects(
    plan: WeightPlan, found: list[weights_inputs.AnnotatedPixels], client: "Client", progress: Stages
) -> list[WeightJob]:
    pending = weights_inputs.pending_planes(plan, found)
    if not any(pending.values()):
        return weights_inputs.object_jobs(plan, found)
    with progress.stage("objects", total=sum(map(len, pending.values())), unit="planes") as advance:
        weights_inputs.find_annotated_objects(found, pending, client, advance)
    return weights_inputs.object_jobs(plan, found)


def _weigh(training_set: TrainingSet, jobs: list[WeightJob], client: "Client", progress: Stages) -> tuple[int, int]:
    """Make missing weights. Return the number of blocks done before, and the number of pixels weighed now."""
    pending = [pending_blocks(training_set, image) for image in training_set.images]
    total, n_pixels = sum(job.grid.n_blocks for job in jobs), 0
    n_done = total - sum(map(len, pending))
    weighted = [replace_weights(job, training_set.class_weights) for job in jobs]
    with progress.stage("weights", total=total, done=n_done) as advance:

        def count(pixels: int) -> None:
            nonlocal n_pixels
            n_pixels += pixels
            advance(pixels)

        make_weights(weighted, pending, client, count)
    return n_done, n_pixels
