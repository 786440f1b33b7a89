"""Fill in what a description leaves open, before anything starts: a plan needs the cores and memory of each worker."""

from segment_slide.cluster.spec import ClusterSpec
from segment_slide.cluster.table import find_kind


def complete_spec(spec: ClusterSpec, *, short_tasks: bool = False) -> ClusterSpec:
    """Return the same cluster with `workers`, `cores` and `memory_bytes` filled in.

    Parameters
    ----------
    spec : ClusterSpec
        The description. A complete one is returned unchanged.
    short_tasks : bool
        Tasks take milliseconds and hold Python's lock for much of that time. On this machine the default is then one
        process per core instead of one per four cores.

    Raises
    ------
    ClusterError
        If a value is missing and this machine, the site's settings or the scheduler do not give it, or if the cluster
        is larger than the machine.
    """
    kind = find_kind(spec.kind)
    kind.check(spec)
    return kind.complete(spec, short_tasks=short_tasks)
