"""The protocol of a kind of cluster. Each kind is one file in `cluster.kinds`; `cluster.table` finds the file."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from segment_slide.cluster.fields import Field
from segment_slide.cluster.spec import ClusterSpec

if TYPE_CHECKING:
    from distributed import Client


@dataclass(frozen=True)
class Job:
    """A batch job: name of the batch system and number of the job, as in "SLURM", "4711"."""

    system: str
    number: str


@dataclass(frozen=True)
class Remedies:
    """Advice for error messages: what to change when a worker lacks something.

    Parameters
    ----------
    memory : str
        Key of the cluster file that gives a worker more memory.
    gpu : str
        What to do when a worker does not see the GPU that it was promised.
    deaths : str
        A sentence: what to change, and where to look, when workers died.
    """

    memory: str
    gpu: str
    deaths: str


class Kind(Protocol):
    """One kind of cluster.

    Loading its file must import neither Dask nor the packages that the kind needs. Only `complete` and `open` import
    them.

    Attributes
    ----------
    fields : mapping of str to Field
        The keys of a cluster file that this kind knows.
    counted : str, optional
        Attribute of the description that ``--workers`` sets. None if the kind takes no number of workers.
    is_elsewhere : bool
        Whether workers may run on other machines.
    """

    fields: Mapping[str, Field]
    counted: str | None = "workers"
    is_elsewhere: bool = False

    def check(self, spec: ClusterSpec) -> None:
        """Raise ClusterError if values contradict each other. That counts are positive was checked before."""
        return

    def complete(self, spec: ClusterSpec, *, short_tasks: bool = False) -> ClusterSpec:
        """Fill in `workers`, `cores` and `memory_bytes`; see `cluster.complete.complete_spec`."""
        ...

    def open(self, spec: ClusterSpec) -> AbstractContextManager["Client"]:
        """Start or join the cluster of a complete description, yield a client, and end what was started."""
        ...

    def remedies(self, spec: ClusterSpec) -> Remedies:
        """Advice for the case that workers lack something or died."""
        ...

    def find_job(self, environment: Mapping[str, str]) -> Job | None:
        """The job of this kind that a process with that environment runs in, or None."""
        return None
