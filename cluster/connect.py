"""Start or join a cluster of any kind: a description goes in, a Dask client comes out."""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from segment_slide.cluster.complete import complete_spec
from segment_slide.cluster.spec import ClusterSpec
from segment_slide.cluster.table import find_kind

if TYPE_CHECKING:
    from distributed import Client


@contextlib.contextmanager
def connect(spec: ClusterSpec) -> Iterator["Client"]:
    """Start or join a cluster and yield a client. At the end, also after an error, stop everything that was started.

    Parameters
    ----------
    spec : ClusterSpec
        Which cluster to use. Values that it leaves open are filled in.

    Yields
    ------
    Client
        Connected. As many workers as the work needs to begin have arrived.

    Raises
    ------
    ClusterError
        If the cluster cannot be started or joined; the message says why. Nothing is left running.
    """
    with find_kind(spec.kind).open(complete_spec(spec)) as client, _limit_tasks(client, spec.block_time_limit_s):
        yield client


def _limit_tasks(client: "Client", limit_s: float | None) -> contextlib.AbstractContextManager[None]:
    if limit_s is None:
        return contextlib.nullcontext()
    from segment_slide.cluster.time_limit import limit_tasks

    return limit_tasks(client, limit_s)
