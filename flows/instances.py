"""Class map to objects: check, connect, run all stages, in this order."""

import contextlib
from typing import TYPE_CHECKING

from segment_slide.cluster.spec import ClusterSpec
from segment_slide.flows.requests import InstancesRequest
from segment_slide.flows.workers import checks_of, open_cluster, plan_cluster
from segment_slide.pipeline.blocks.progress import QuietStages, Stages
from segment_slide.pipeline.objects.plan import plan_instances
from segment_slide.pipeline.objects.prepare import PreparedInstances, find_class_map, prepare_instances
from segment_slide.pipeline.objects.stages import InstancesReport, run_instances
from segment_slide.pipeline.storage import names, place

if TYPE_CHECKING:
    from distributed import Client


def resolve_instances_request(request: InstancesRequest) -> tuple[PreparedInstances, ClusterSpec]:
    """Check everything that metadata tell, and choose the workers; nothing is read or created."""
    classes = find_class_map(
        request.input,
        request.name,
        request.output,
        level=request.level,
        axes=request.axes,
        in_place=request.in_place,
    )
    plan = plan_instances(classes.image, request.options)
    cluster = plan_cluster(request.workers, short_tasks=True)
    plan.check_memory(cluster.usable_bytes, cluster.tasks_per_worker)
    return prepare_instances(classes, plan), cluster


def label_objects(request: InstancesRequest, progress: Stages | None = None) -> InstancesReport:
    """Find the objects of a class map, or go on with what was interrupted.

    Raises
    ------
    PipelineError, ClusterError
        Bad input, before anything is created.
    IncompleteError
        Blocks were left undone; what is done is kept and the same command goes on.
    """
    prepared, cluster = resolve_instances_request(request)
    held = place.exclusive(prepared.location, names.instances_name(prepared.name))
    with held, _open_workers(prepared, cluster) as client:
        return run_instances(prepared, client, progress or QuietStages())


def _open_workers(prepared: PreparedInstances, cluster: ClusterSpec) -> "contextlib.AbstractContextManager[Client]":
    checks = checks_of(reads=[prepared.plan.image], writes=prepared.location)
    return open_cluster(cluster, checks, needed_bytes=prepared.plan.worker_bytes(cluster.tasks_per_worker))
