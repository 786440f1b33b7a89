"""What SLURM says of our jobs, and their end: thin calls of ``squeue`` and ``scancel``, by the jobs' name.

The name is one run's own, so that jobs are found, and ended, whose numbers nobody wrote down.
"""

import getpass
import subprocess
from dataclasses import dataclass

from segment_slide.cluster.errors import ClusterError

_TIMEOUT_S = 60


@dataclass(frozen=True)
class QueuedJob:
    """A line of ``squeue``: number, state as PENDING or RUNNING, and SLURM's reason, as Resources or PartitionDown."""

    number: str
    state: str
    reason: str


def list_jobs(name: str) -> list[QueuedJob]:
    """Our jobs of that name that have not ended.

    Raises
    ------
    ClusterError
        If SLURM does not answer.
    """
    lines = _call("squeue", "--noheader", "--user", getpass.getuser(), "--name", name, "--format", "%i|%T|%r")
    jobs = [QueuedJob(*line.split("|", 2)) for line in lines.splitlines() if line.count("|") > 1]
    return [job for job in jobs if job.state not in ("COMPLETED", "CANCELLED", "FAILED", "TIMEOUT")]


def cancel_jobs(name: str) -> None:
    """End our jobs of that name, pending and running.

    Raises
    ------
    ClusterError
        If SLURM does not answer.
    """
    _call("scancel", "--user", getpass.getuser(), "--name", name)


def describe_queue(jobs: list[QueuedJob]) -> str:
    """What squeue says, in a sentence.

    Examples
    --------
    >>> describe_queue([QueuedJob("7", "PENDING", "PartitionDown"), QueuedJob("8", "PENDING", "PartitionDown")])
    'squeue says: PENDING, reason PartitionDown: job 7, 8'
    >>> describe_queue([])
    'squeue shows none of them'
    """
    if not jobs:
        return "squeue shows none of them"
    groups: dict[str, list[str]] = {}
    for job in jobs:
        reason = "" if job.reason in ("None", "") else f", reason {job.reason}"
        groups.setdefault(f"{job.state}{reason}", []).append(job.number)
    return "squeue says: " + "; ".join(f"{state}: job {', '.join(numbers)}" for state, numbers in groups.items())


def _call(*command: str) -> str:
    try:
        done = subprocess.run(  # noqa: S603, no shell, and the words are ours
            command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except FileNotFoundError:
        raise ClusterError(
            f"{command[0]} is not installed here; kind slurm works where sbatch, squeue and scancel do, on a "
            "login node as a rule."
        ) from None
    except subprocess.TimeoutExpired:
        raise ClusterError(f"{command[0]} did not answer within {_TIMEOUT_S} s.") from None
    if done.returncode:
        raise ClusterError(f"{command[0]} failed: {' '.join(done.stderr.split())}")
    return done.stdout
