"""Find the objects of a class map. Steps: check, connect, run all stages."""

import contextlib
from typing import TYPE_CHECKING

from segment_slide.cluster.spec import ClusterSpec
from segment_slide.flows.requests import InstancesRequest
from segment_slide.flows.workers import checks_of, open_cluster, plan_cluster
from segment_slide.pipeline.blocks.progress import QuietStages, Stages
from segment_slide.pipeline.objects.plan import plan_instances
from segment_slide.pipeline.objects.prepare import PreparedInstances, find_class_map, prepare_instances
from segment_slide.pipeline.objects.recommended import adopt_recommended
from segment_slide.pipeline.objects.stages import InstancesReport, run_instances
from segment_slide.pipeline.storage import names, place

if TYPE_CHECKING:
    from distributed import Client


def resolve_instances_request(request: InstancesRequest) -> tuple[PreparedInstances, ClusterSpec]:
    """Check all that metadata show, and choose the workers. No pixel is read and nothing is created."""
    classes = find_class_map(
        request.input,
        request.name,
        request.output,
        level=request.level,
        axes=request.axes,
        in_place=request.in_place,
    )
    options, from_model = adopt_recommended(request.options, classes.image)
    plan = plan_instances(classes.image, options)
    cluster = plan_cluster(request.workers, short_tasks=True)
    plan.check_memory(cluster.usable_bytes, cluster.tasks_per_worker)
    return prepare_instances(classes, plan, from_model), cluster


def label_objects(request: InstancesRequest, progress: Stages | None = None) -> InstancesReport:
    """Find the objects of a class map, or resume a run that was interrupted.

    Raises
    ------
    PipelineError, ClusterError
        If the request is bad; found before anything is created.
    IncompleteError
        If blocks were left undone. What is done is kept; the same command resumes.
    """
    prepared, cluster = resolve_instances_request(request)
    held = place.exclusive(prepared.location, names.instances_name(prepared.name))
    with held, _open_workers(prepared, cluster) as client:
        return run_instances(prepared, client, progress or QuietStages())


def _open_workers(prepared: PreparedInstances, cluster: ClusterSpec) -> "contextlib.AbstractContextManager[Client]":
    checks = checks_of(reads=[prepared.plan.image], writes=prepared.location)
    return open_cluster(cluster, checks, needed_bytes=prepared.plan.worker_bytes(cluster.tasks_per_worker))
