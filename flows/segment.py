"""Segment one image. Steps: prepare, connect, run all stages."""

import contextlib
from typing import TYPE_CHECKING

from segment_slide.cluster.errors import ClusterError
from segment_slide.cluster.spec import ClusterSpec
from segment_slide.cluster.table import find_kind, is_elsewhere
from segment_slide.cluster.waiting import run_everywhere
from segment_slide.flows.requests import SegmentRequest
from segment_slide.flows.segment_request import resolve_segment_request
from segment_slide.flows.workers import checks_of, open_cluster
from segment_slide.pipeline.blocks.progress import QuietStages, Stages, timed
from segment_slide.pipeline.segmentation.prepare import PreparedSegmentation
from segment_slide.pipeline.segmentation.stages import SegmentReport, run_segmentation
from segment_slide.pipeline.storage import place

if TYPE_CHECKING:
    from distributed import Client

    from segment_slide.unet.device_facts import DeviceFacts


def segment_image(request: SegmentRequest, progress: Stages | None = None) -> SegmentReport:
    """Segment an image, or resume a segmentation that was interrupted.

    Raises
    ------
    UnetError, PipelineError, ClusterError
        If the request is bad; found before anything is created.
    IncompleteError
        If blocks were left undone. What is done is kept; the same command resumes.
    """
    clock: dict[str, float] = {}
    with timed(clock, "prepare"):
        prepared, cluster = resolve_segment_request(request)
    target = prepared.destination
    with place.exclusive(target.location, target.name), _open_workers(prepared, cluster) as client:
        if is_elsewhere(cluster):  # the workers' device is known only now
            prepared, cluster = resolve_segment_request(request, ask_workers(client, request))
        remedy = _explain_deaths(cluster)
        return run_segmentation(prepared, client, progress or QuietStages(), clock, if_workers_died=remedy)


def _open_workers(prepared: PreparedSegmentation, cluster: ClusterSpec) -> "contextlib.AbstractContextManager[Client]":
    network, plan = prepared.network, prepared.plan
    model = (str(network.path), network.sha256)
    checks = checks_of(reads=[plan.source.image], writes=prepared.destination.location, model=model)
    return open_cluster(cluster, checks, needed_bytes=plan.memory.total_bytes)


def ask_workers(client: "Client", request: SegmentRequest) -> "DeviceFacts":
    """Ask all workers for their device and precision. They must agree: results differ in the last bits otherwise.

    Raises
    ------
    ClusterError
        If they differ; the message names them.
    UnetError
        If a worker does not have the requested device.
    """
    from segment_slide.unet.device import describe_device

    found = run_everywhere(client, describe_device, request.device, request.options.precision or "auto")
    kinds = sorted({f"{facts.processor} ({facts.kind}, {facts.precision})" for facts in found.values()})
    if len(kinds) != 1:
        raise ClusterError(
            f"workers have different processors: {'; '.join(kinds)}. Their results differ in the last bits; ask for "
            f"nodes of one kind (SLURM: a --constraint in `directives`), or say --precision and --device."
        )
    return next(iter(found.values()))


def _explain_deaths(cluster: ClusterSpec) -> str:
    """Say where to look, and what to change, when workers died."""
    remedy = find_kind(cluster.kind).remedies(cluster).deaths
    if cluster.block_time_limit_s is not None:
        return (
            f"block_time_limit={cluster.block_time_limit_s} s ends workers too: does the storage answer, and is the "
            f"limit several times what a block needs? {remedy}"
        )
    return remedy
