"""Fill in what a description leaves open, before anything is started: a plan needs cores and memory of each worker."""

from dataclasses import replace

from segment_slide.cluster.errors import ClusterError
from segment_slide.cluster.kinds.local import plan_local
from segment_slide.cluster.spec import ClusterSpec


def complete_spec(spec: ClusterSpec) -> ClusterSpec:
    """The same cluster with `workers`, `cores` and `memory_bytes` of each worker known.

    Parameters
    ----------
    spec : ClusterSpec
        As described; one that is complete comes back as it is.

    Raises
    ------
    ClusterError
        If this machine, the site's settings or the scheduler at the address cannot tell, or cannot hold it.
    """
    if spec.kind in ("slurm", "address") and spec.memory_bytes is not None:
        return spec
    if spec.kind == "slurm":
        from segment_slide.cluster.kinds.slurm_site import complete_slurm

        return complete_slurm(spec)
    if spec.kind == "cuda":
        from segment_slide.cluster.kinds.cuda import complete_cuda

        return complete_cuda(spec)
    if spec.kind == "address":
        from segment_slide.cluster.kinds.address import complete_address

        return complete_address(spec)
    return _complete_local(spec)


def _complete_local(spec: ClusterSpec) -> ClusterSpec:
    planned = plan_local(spec.workers)
    if spec.cores is not None and spec.cores > planned.cores:
        raise ClusterError(
            f"cores={spec.cores} for each of {planned.workers} worker(s), expected at most {planned.cores}: this "
            "machine lends no more."
        )
    if spec.memory_bytes is not None and spec.memory_bytes > planned.memory_bytes / 0.9:
        raise ClusterError(
            f"memory={spec.memory_bytes / 2**30:.1f} GiB for each of {planned.workers} worker(s), expected at most "
            f"{planned.memory_bytes / 2**30:.1f} GiB: this machine has no more."
        )
    return replace(
        spec,
        workers=planned.workers,
        cores=spec.cores or planned.cores,
        memory_bytes=spec.memory_bytes or planned.memory_bytes,
    )
