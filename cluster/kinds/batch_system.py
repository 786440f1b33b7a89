"""What differs between batch systems: the directives of a job, the commands, and how to read their output.

Jobs are found and ended by their name, which is unique to one run. So jobs whose numbers were never recorded are
found too. What all batch systems share is in `batch` and the other files with that prefix.
"""

import abc
import getpass
import secrets
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from segment_slide.cluster.errors import ClusterError
from segment_slide.cluster.fields import FIELDS, Field
from segment_slide.cluster.kind import Job
from segment_slide.cluster.patience import QUEUE_S
from segment_slide.cluster.spec import ClusterSpec


@dataclass(frozen=True)
class QueuedJob:
    """A job that has not ended: its number, its state as the batch system calls it, and the reason if it gives one."""

    number: str
    state: str
    reason: str = ""


class BatchSystem(abc.ABC):
    """One batch system.

    Attributes
    ----------
    kind : str
        Its name in a cluster file; also the name of its section in Dask's ``jobqueue.yaml``.
    title : str
        Its name in messages.
    cluster_class : str
        Name of its class in dask-jobqueue.
    submit, queue, cancel : str
        Its commands, as messages name them.
    job_variable : str
        Environment variable of a job that holds its number.
    account_setting : str
        Name in ``jobqueue.yaml`` of the account that is charged.
    gpu_remedy : str
        What to check when a job does not see its GPU.
    fields : mapping of str to Field
        Keys of a cluster file besides those that all batch systems know.
    """

    kind: str
    title: str
    cluster_class: str
    submit: str
    queue: str
    cancel: str
    job_variable: str
    account_setting: str = "account"
    gpu_remedy: str
    fields: Mapping[str, Field]

    def check(self, spec: ClusterSpec) -> None:
        """Raise ClusterError if a complete description lacks what this system needs."""
        return

    @abc.abstractmethod
    def job_options(self, spec: ClusterSpec, name: str) -> dict[str, Any]:
        """The options of a job for dask-jobqueue that are particular to this system.

        ``job_extra_directives``, ``job_directives_skip`` and ``job_script_prologue`` come before those of the
        description.
        """

    @abc.abstractmethod
    def list_jobs(self, name: str) -> list[QueuedJob]:
        """List our jobs of that name that have not ended.

        Raises
        ------
        ClusterError
            If the batch system does not answer.
        """

    @abc.abstractmethod
    def cancel_jobs(self, name: str) -> None:
        """End our jobs of that name, pending and running.

        Raises
        ------
        ClusterError
            If the batch system does not answer.
        """

    def find_gaps(self, spec: ClusterSpec) -> tuple[str, ...]:
        """Warnings, one sentence each: what works with SLURM and not, or not surely, with this system."""
        return ()

    def make_name(self) -> str:
        """A name for the jobs of one run."""
        return f"segment-slide-{secrets.token_hex(4)}"

    def read_walltime(self, value: Any) -> Any:
        """Convert a wall time from the site's settings to seconds."""
        return FIELDS["walltime"].read(value)

    def read_refusal(self, message: str) -> str:
        """Extract what the submitting command said from jobqueue's message, which holds more than that."""
        said = message.partition("stderr:\n")[2].strip() or message
        return " ".join(said.split())

    def find_job(self, environment: Mapping[str, str]) -> Job | None:
        """The job that a process with that environment runs in."""
        number = environment.get(self.job_variable)
        return Job(self.title, number) if number else None

    def describe_queue(self, jobs: Sequence[QueuedJob]) -> str:
        """Say, as part of a sentence, what the queue shows."""
        if not jobs:
            return f"{self.queue} shows none of them"
        groups: dict[str, list[str]] = {}
        for job in jobs:
            reason = "" if job.reason in ("None", "") else f", reason {job.reason}"
            groups.setdefault(f"{job.state}{reason}", []).append(job.number)
        said = "; ".join(f"{state}: job {', '.join(numbers)}" for state, numbers in groups.items())
        return f"{self.queue} says: {said}"

    def call(self, *command: str, accepted: Sequence[str] = ()) -> str:
        """Run one of its commands and return the standard output.

        Parameters
        ----------
        accepted : sequence of str
            Parts of error messages that are no failure, for instance because a job to cancel has already ended.

        Raises
        ------
        ClusterError
            If there is no such command, or if it fails or does not answer.
        """
        try:
            done = subprocess.run(  # noqa: S603, no shell, and the words are ours
                command, capture_output=True, text=True, timeout=QUEUE_S, check=False
            )
        except FileNotFoundError:
            raise ClusterError(
                f"{command[0]} is not installed here; kind {self.kind} works where {self.submit}, {self.queue} and "
                f"{self.cancel} do, on a login node as a rule."
            ) from None
        except subprocess.TimeoutExpired:
            raise ClusterError(f"{command[0]} did not answer within {QUEUE_S} s.") from None
        said = f"{done.stderr} {done.stdout}"
        if done.returncode and not any(words in said for words in accepted):
            raise ClusterError(f"{command[0]} failed: {' '.join((done.stderr or done.stdout).split())}")
        return done.stdout


def user() -> str:
    """The user whose jobs are ours."""
    return getpass.getuser()


def format_clock(seconds: int) -> str:
    """Hours, minutes and seconds.

    Examples
    --------
    >>> format_clock(5400)
    '01:30:00'
    """
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


def job_mebibytes(spec: ClusterSpec) -> int:
    """Memory of a job in MiB, rounded up."""
    return -(-(spec.job_memory_bytes or 0) // 2**20)
