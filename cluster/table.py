"""The table of the kinds of cluster, one line each. All other files reach `cluster.kinds` through this one.

A kind's file is loaded only when the kind is used. The name here is the name of the file, and the file's `KIND` fills
the protocol `cluster.kind.Kind`. The modules in `cluster.kinds` import nothing that imports this one.
"""

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

from segment_slide.cluster.errors import ClusterError

if TYPE_CHECKING:  # help texts need the names below, and an import here could keep the command line from starting
    from segment_slide.cluster.kind import Job, Kind
    from segment_slide.cluster.spec import ClusterSpec

# Kinds that we start ourselves: the name alone is a description. The value is what help texts show.
STARTED = {
    "local": "local",
    "cuda": "cuda (all GPUs of this machine)",
    "slurm": "slurm",
    "pbs": "pbs",
    "lsf": "lsf",
    "sge": "sge",
}

# Kinds whose name alone is not a description.
JOINED = ("address",)


def kinds() -> tuple[str, ...]:
    """Names of all kinds."""
    return (*STARTED, *JOINED)


def find_kind(name: object) -> "Kind":
    """Load the kind of that name.

    Raises
    ------
    ClusterError
        If there is no such kind.

    Examples
    --------
    >>> find_kind("slurm").is_elsewhere, find_kind("local").is_elsewhere
    (True, False)
    """
    if name not in kinds():
        raise ClusterError(f"kind={name!r}, expected one of {', '.join(kinds())}.")
    return cast("Kind", importlib.import_module(f"segment_slide.cluster.kinds.{name}").KIND)


def is_elsewhere(spec: "ClusterSpec") -> bool:
    """Whether workers may run on other machines. Nothing is known of those before their workers have connected."""
    return find_kind(spec.kind).is_elsewhere


def find_job(environment: Mapping[str, str]) -> "Job | None":
    """Find the batch job that a process runs in, from its environment variables; None if it runs in none.

    Examples
    --------
    >>> find_job({"SLURM_JOB_ID": "7"}), find_job({})
    (Job(system='SLURM', number='7'), None)
    """
    for name in kinds():
        if (job := find_kind(name).find_job(environment)) is not None:
            return job
    return None
