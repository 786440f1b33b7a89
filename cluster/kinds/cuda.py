"""One worker process per GPU of this machine, by dask-cuda."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from segment_slide.cluster.errors import ClusterError
from segment_slide.cluster.fields import Field, choose_fields
from segment_slide.cluster.kind import Kind, Remedies
from segment_slide.cluster.machine import memory_limit
from segment_slide.cluster.settings import PRELOAD
from segment_slide.cluster.spec import ClusterSpec
from segment_slide.cluster.waiting import wait_for_workers

if TYPE_CHECKING:
    from distributed import Client

_INSTALL = "pip install 'segment-slide[cuda]' (or [cuda12], to match the driver)"


class Cuda(Kind):
    """The GPUs of this machine."""

    fields: Mapping[str, Field] = choose_fields("workers", "memory", "cores", "local_directory", "block_time_limit")

    def complete(self, spec: ClusterSpec, *, short_tasks: bool = False) -> ClusterSpec:
        """One worker per GPU; `short_tasks` changes nothing."""
        return complete_cuda(spec)

    def open(self, spec: ClusterSpec) -> contextlib.AbstractContextManager["Client"]:
        """Start them."""
        return cuda_client(spec)

    def remedies(self, spec: ClusterSpec) -> Remedies:
        """Advice for workers that share this machine's memory."""
        deaths = "If memory was short, give each worker more of it: fewer --workers."
        return Remedies("memory", "check the driver", deaths)


def visible_gpus() -> tuple[str, ...]:
    """GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them.

    Raises
    ------
    ClusterError
        If there is none, or if the package that lists them is not installed.
    """
    try:
        import pynvml
    except ImportError:
        raise ClusterError(f"kind cuda needs the package dask-cuda with its extra: {_INSTALL}") from None
    try:
        pynvml.nvmlInit()
        count = pynvml.nvmlDeviceGetCount()
    except pynvml.NVMLError as error:
        raise ClusterError(
            f"kind cuda needs an NVIDIA GPU and its driver, and this machine shows none ({error}); use local."
        ) from None
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = tuple(str(number) for number in range(count)) if named is None else _split(named)
    if not gpus:
        raise ClusterError(
            f"kind cuda needs a GPU: the driver shows {count}, CUDA_VISIBLE_DEVICES={named!r}; use local."
        )
    if len(set(gpus)) < len(gpus):
        raise ClusterError(f"CUDA_VISIBLE_DEVICES={named!r} names a GPU twice; two workers on one GPU are refused.")
    return gpus


def _split(named: str) -> tuple[str, ...]:
    """The GPUs that CUDA itself would see: it stops at the first -1."""
    gpus = [gpu.strip() for gpu in named.split(",") if gpu.strip()]
    return tuple(gpus[: gpus.index("-1")] if "-1" in gpus else gpus)


def complete_cuda(spec: ClusterSpec) -> ClusterSpec:
    """Plan one worker for each GPU. Workers share the machine's memory, and each runs one forward pass at a time.

    Raises
    ------
    ClusterError
        If there are fewer GPUs than workers.
    """
    gpus = visible_gpus()
    workers = spec.workers or len(gpus)
    if workers > len(gpus):
        raise ClusterError(
            f"workers={workers}, expected 1 to {len(gpus)}: this machine has {len(gpus)} GPU(s), and two workers on "
            "one GPU would share its memory."
        )
    memory = spec.memory_bytes or int(memory_limit() * 0.9) // workers
    return replace(spec, workers=workers, cores=spec.cores or 1, memory_bytes=memory, gpus=1)


@contextlib.contextmanager
def cuda_client(spec: ClusterSpec) -> Iterator["Client"]:
    """Start one worker per GPU and yield a client. At the end, also after an error, end the workers.

    Parameters
    ----------
    spec : ClusterSpec
        Complete. Scheduler and workers listen on loopback only; there is no dashboard.

    Raises
    ------
    ClusterError
        If dask-cuda or its extra is not installed.
    """
    try:
        from dask_cuda import LocalCUDACluster
    except ImportError as error:  # without its extra, dask-cuda is installed but cannot be imported
        raise ClusterError(f"kind cuda needs the package dask-cuda with its extra ({error}): {_INSTALL}") from None
    gpus = visible_gpus()[: spec.workers]
    from segment_slide.cluster.kinds.this_machine import run_cluster

    with run_cluster(
        LocalCUDACluster,
        CUDA_VISIBLE_DEVICES=",".join(gpus),
        n_workers=len(gpus),
        threads_per_worker=spec.tasks_per_worker,
        memory_limit=spec.memory_bytes,
        device_memory_limit=0,  # results leave for their shards at once, so nothing is moved off the device
        preload=[PRELOAD],  # named here too, because dask-cuda sets its own in place of the configuration's
        local_directory=spec.local_directory,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        scheduler_kwargs={"dashboard": False},
        worker_dashboard_address=None,
    ) as client:
        wait_for_workers(client, spec)
        yield client


KIND = Cuda()
