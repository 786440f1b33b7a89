"""Check a cluster without working on it: connect, examine every worker, disconnect."""

import os
from dataclasses import dataclass
from typing import Any

from segment_slide.cluster.connect import connect
from segment_slide.cluster.preflight import preflight
from segment_slide.cluster.spec import ClusterSpec
from segment_slide.cluster.table import find_job
from segment_slide.cluster.waiting import run_everywhere
from segment_slide.flows.requests import Workers
from segment_slide.flows.workers import checks_of, plan_cluster
from segment_slide.pipeline.errors import OutputError
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.image import describe_image


@dataclass(frozen=True)
class CheckRequest:
    """Which cluster, and what its workers must be able to reach.

    Parameters
    ----------
    workers : Workers
        Which cluster.
    input, output, model : str, optional
        An image that workers must read, a folder that they must write into, a network that they must read.
    axes : str, optional
        Axes of the image, if it is a bare Zarr array.
    """

    workers: Workers
    input: str | None = None
    output: str | None = None
    model: str | None = None
    axes: str | None = None


@dataclass(frozen=True)
class ClusterReport:
    """A cluster whose workers passed all checks: each worker's name, host, threads, memory and processor."""

    spec: ClusterSpec
    workers: list[dict[str, Any]]


def check_cluster(request: CheckRequest) -> ClusterReport:
    """Connect, check every worker, and end what was started.

    Raises
    ------
    UnetError, PipelineError, ClusterError
        If something is wrong on this machine (found before anything starts) or with a worker.
    """
    from segment_slide.unet.open_network import open_network

    spec = plan_cluster(request.workers)
    image = None if request.input is None else describe_image(request.input, axes=request.axes)
    folder = None if request.output is None else store.resolve_location(request.output)
    if folder is not None and not store.is_remote(folder) and not os.path.isdir(folder):
        raise OutputError(f"output={folder} is not a folder; make it on storage that all workers share.")
    model = None
    if request.model is not None:
        network = open_network(request.model)
        model = (str(network.path), network.sha256)
    checks = checks_of(reads=[] if image is None else [image], writes=folder, model=model)
    with connect(spec) as client:
        preflight(client, spec, checks)
        return ClusterReport(
            spec, sorted(run_everywhere(client, describe_worker).values(), key=lambda one: str(one["name"]))
        )


def describe_worker(dask_worker: Any) -> dict[str, Any]:
    """Describe a worker for people. Runs on the worker."""
    import socket

    from segment_slide.unet.device import describe_device

    facts, job = describe_device(), find_job(os.environ)
    return {
        "name": dask_worker.name,
        "host": socket.gethostname(),
        "job": job.number if job else "",
        "threads": dask_worker.state.nthreads,
        "memory_bytes": dask_worker.memory_manager.memory_limit or 0,
        "device": f"{facts.processor} ({facts.kind}, {facts.precision})",
    }
