"""A description in, a Dask client out: the one place that knows which kind is started how."""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from segment_slide.cluster.complete import complete_spec
from segment_slide.cluster.kinds.local import LocalSpec, local_client
from segment_slide.cluster.spec import ClusterSpec

if TYPE_CHECKING:
    from distributed import Client


@contextlib.contextmanager
def connect(spec: ClusterSpec) -> Iterator["Client"]:
    """Start or join a cluster, yield a client, and end all that was started however the body ends.

    Parameters
    ----------
    spec : ClusterSpec
        Where to work; what it leaves open is filled in.

    Yields
    ------
    Client
        Connected, with the workers there that the work needs to begin.

    Raises
    ------
    ClusterError
        What is missing or in the way. Nothing is left running.
    """
    with _open_client(complete_spec(spec)) as client, _limit_tasks(client, spec.block_time_limit_s):
        yield client


def _limit_tasks(client: "Client", limit_s: float | None) -> contextlib.AbstractContextManager[None]:
    if limit_s is None:
        return contextlib.nullcontext()
    from segment_slide.cluster.time_limit import limit_tasks

    return limit_tasks(client, limit_s)


def _open_client(spec: ClusterSpec) -> contextlib.AbstractContextManager["Client"]:
    """The client of a complete description; what a kind needs is imported for that kind only."""
    if spec.kind == "slurm":
        from segment_slide.cluster.kinds.slurm import slurm_client

        return slurm_client(spec)
    if spec.kind == "cuda":
        from segment_slide.cluster.kinds.cuda import cuda_client

        return cuda_client(spec)
    if spec.kind == "address":
        from segment_slide.cluster.kinds.address import address_client

        return address_client(spec)
    return local_client(LocalSpec(spec.workers or 1, spec.cores or 1, spec.memory_bytes or 1))
