"""Fill in what a description leaves open, before anything is started: a plan needs cores and memory of each worker."""

from segment_slide.cluster.spec import ClusterSpec
from segment_slide.cluster.table import find_kind


def complete_spec(spec: ClusterSpec, *, short_tasks: bool = False) -> ClusterSpec:
    """The same cluster with `workers`, `cores` and `memory_bytes` of each worker known.

    Parameters
    ----------
    spec : ClusterSpec
        As described; one that is complete comes back as it is.
    short_tasks : bool
        Tasks take milliseconds and hold Python's lock for much of them: on this machine one process per core, unless
        chosen, instead of one per four.

    Raises
    ------
    ClusterError
        If this machine, the site's settings or the scheduler at the address cannot tell, or cannot hold it.
    """
    kind = find_kind(spec.kind)
    kind.check(spec)
    return kind.complete(spec, short_tasks=short_tasks)
