"""What a kind of cluster has to say of itself: its file in `cluster.kinds` says it, `cluster.table` finds the file."""

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
    """A batch job, as people name it: "SLURM", "4711"."""

    system: str
    number: str


@dataclass(frozen=True)
class Remedies:
    """What to change when something was short.

    Parameters
    ----------
    memory : str
        What a worker is to be given more of: a key of the cluster file.
    gpu : str
        What to do when a worker does not see the GPU that it was promised.
    deaths : str
        A sentence: what to change, and where to look, when workers died.
    """

    memory: str
    gpu: str
    deaths: str


class Kind(Protocol):
    """One kind of cluster. Loading its file imports neither Dask nor what the kind needs; `complete` and `open` do.

    Attributes
    ----------
    fields : mapping of str to Field
        Keys of a cluster file that it knows.
    counted : str, optional
        Attribute of the description that a number of workers from the command line sets; None: it takes none.
    is_elsewhere : bool
        Whether workers may run on other machines.
    """

    fields: Mapping[str, Field]
    counted: str | None = "workers"
    is_elsewhere: bool = False

    def check(self, spec: ClusterSpec) -> None:
        """Raise ClusterError if values contradict each other; counts are positive already."""
        return

    def complete(self, spec: ClusterSpec, *, short_tasks: bool = False) -> ClusterSpec:
        """The same with `workers`, `cores` and `memory_bytes` known; see `cluster.complete.complete_spec`."""
        ...

    def open(self, spec: ClusterSpec) -> AbstractContextManager["Client"]:
        """Start or join what a complete description says, yield a client, and end what was started."""
        ...

    def remedies(self, spec: ClusterSpec) -> Remedies:
        """What to say when workers lack something or died."""
        ...

    def find_job(self, environment: Mapping[str, str]) -> Job | None:
        """The job of this kind that a process with that environment runs in, if it does."""
        return None
