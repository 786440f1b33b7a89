"""A description in, a Dask client out, whatever its kind."""

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
    with find_kind(spec.kind).open(complete_spec(spec)) as client, _limit_tasks(client, spec.block_time_limit_s):
        yield client


def _limit_tasks(client: "Client", limit_s: float | None) -> contextlib.AbstractContextManager[None]:
    if limit_s is None:
        return contextlib.nullcontext()
    from segment_slide.cluster.time_limit import limit_tasks

    return limit_tasks(client, limit_s)
