"""Which kinds of cluster there are, one line each. All others reach `cluster.kinds` through this file.

A kind's file is loaded when the kind is asked for: its name here is that of its file, whose `KIND` fills the protocol
`cluster.kind.Kind`. The modules in `cluster.kinds` import nothing that imports this one.
"""

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

from segment_slide.cluster.errors import ClusterError

if TYPE_CHECKING:  # help texts read the names, and nothing may keep the command line from starting
    from segment_slide.cluster.kind import Job, Kind
    from segment_slide.cluster.spec import ClusterSpec

# Started by us, so that the name alone is a description; and what help says of it.
STARTED = {
    "local": "local",
    "cuda": "cuda (all GPUs of this machine)",
    "slurm": "slurm",
    "pbs": "pbs",
    "lsf": "lsf",
    "sge": "sge",
}

# Told by more than a name.
JOINED = ("address",)


def kinds() -> tuple[str, ...]:
    """Names of all kinds."""
    return (*STARTED, *JOINED)


def find_kind(name: object) -> "Kind":
    """Load the kind of that name.

    Raises
    ------
    ClusterError
        If there is none.

    Examples
    --------
    >>> find_kind("slurm").is_elsewhere, find_kind("local").is_elsewhere
    (True, False)
    """
    if name not in kinds():
        raise ClusterError(f"kind={name!r}, expected one of {', '.join(kinds())}.")
    return cast("Kind", importlib.import_module(f"segment_slide.cluster.kinds.{name}").KIND)


def is_elsewhere(spec: "ClusterSpec") -> bool:
    """Whether workers may run on other machines, of which nothing is known before they are there."""
    return find_kind(spec.kind).is_elsewhere


def find_job(environment: Mapping[str, str]) -> "Job | None":
    """The batch job that a process runs in, by its environment.

    Examples
    --------
    >>> find_job({"SLURM_JOB_ID": "7"}), find_job({})
    (Job(system='SLURM', number='7'), None)
    """
    for name in kinds():
        if (job := find_kind(name).find_job(environment)) is not None:
            return job
    return None
