"""Class map to objects: check, connect, run all stages, in this order."""

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from segment_slide.cluster.spec import ClusterSpec
from segment_slide.flows.workers import checks_of, open_cluster, plan_cluster
from segment_slide.pipeline.blocks.progress import QuietStages, Stages
from segment_slide.pipeline.objects.options import InstanceOptions
from segment_slide.pipeline.objects.plan import plan_instances
from segment_slide.pipeline.objects.prepare import PreparedInstances, find_class_map, prepare_instances
from segment_slide.pipeline.objects.stages import InstancesReport, run_instances
from segment_slide.pipeline.storage import names, place

if TYPE_CHECKING:
    from distributed import Client


@dataclass(frozen=True)
class InstancesRequest:
    """What to find objects in, and where ids go.

    Parameters
    ----------
    input : str
        A segmentation (its label image `name`), or an image of classes.
    name : str
        Of the class map; the instances' is ``<name>-instances``.
    output : str
        Another store for the ids; by default the segmentation itself.
    options : InstanceOptions
        What becomes an object.
    level, axes
        Of the input: see `pipeline.storage.image.describe_image`.
    workers : int, optional
        Worker processes on this machine, or jobs.
    cluster : str
        Where to work: see `flows.workers.plan_cluster`.
    in_place : bool
        Write into an input that this package did not make.
    block_time_limit_s : int, optional
        After which a worker that is busy with one task is ended.
    """

    input: str
    name: str = "segmentation"
    output: str = ""
    options: InstanceOptions = InstanceOptions()
    level: int = 0
    axes: str | None = None
    workers: int | None = None
    cluster: str = "local"
    in_place: bool = False
    block_time_limit_s: int | None = None


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
    cluster = plan_cluster(
        request.cluster, request.workers, block_time_limit_s=request.block_time_limit_s, short_tasks=True
    )
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
