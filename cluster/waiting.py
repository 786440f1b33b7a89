"""Wait until the workers are there, and say what is in the way if they are not."""

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from segment_slide.cluster.errors import ClusterError
from segment_slide.cluster.kinds.slurm_queue import describe_queue, list_jobs
from segment_slide.cluster.spec import ClusterSpec

if TYPE_CHECKING:
    from distributed import Client

log = logging.getLogger(__name__)

_POLL_S = 0.5
_TELL_EVERY_S = 60
_LOG_LINES = 5
_LOG_TAIL_BYTES = 4096


@dataclass(frozen=True)
class JobWatch:
    """Where to look when the workers of SLURM jobs do not come.

    Parameters
    ----------
    name : str
        Of the jobs.
    refusals : list of str
        What sbatch said, filled in as it says it.
    early_ends : list of str
        Numbers of jobs that ended before their workers connected, filled in likewise.
    log_directory : str
        Where the jobs write.
    """

    name: str
    refusals: list[str]
    early_ends: list[str]
    log_directory: str

    def check(self) -> None:
        """Raise if waiting is of no use."""
        if self.refusals:
            raise ClusterError(f"SLURM refused the job: {self.refusals[0]}")
        if self.early_ends:
            number = self.early_ends[0]
            raise ClusterError(f"SLURM job {number} ended before its worker connected. {self._last_words(number)}")

    def describe(self) -> str:
        """What squeue says."""
        try:
            return describe_queue(list_jobs(self.name))
        except ClusterError as error:
            return str(error)

    def _last_words(self, number: str) -> str:
        path = Path(self.log_directory) / f"{self.name}-{number}.err"
        try:
            text = path.read_bytes()[-_LOG_TAIL_BYTES:].decode(errors="replace")
        except OSError:
            return f"It wrote nothing to {path}: it was cancelled, or its node cannot see that folder."
        lines = "\n".join(f"  {line}" for line in text.strip().splitlines()[-_LOG_LINES:])
        return f"{path} ends with:\n{lines}" if lines else f"{path} is empty."


def count_workers(client: "Client") -> int:
    """Workers that the scheduler has at this moment."""
    return len(client.nthreads())


def wait_for_workers(client: "Client", spec: ClusterSpec, jobs: JobWatch | None = None) -> None:
    """Return when the workers are there that the work needs to begin.

    Parameters
    ----------
    client : Client
        Connected.
    spec : ClusterSpec
        Complete: how many, and how long to wait.
    jobs : JobWatch, optional
        For kind slurm.

    Raises
    ------
    ClusterError
        If they are not there within the limit, or will not come.
    """
    needed, began, told = spec.workers_needed, time.monotonic(), 0.0
    while (arrived := count_workers(client)) < needed:
        if jobs is not None:
            jobs.check()
        waited = time.monotonic() - began
        if waited > spec.wait_s:
            raise ClusterError(_describe_absence(arrived, spec, jobs))
        if jobs is not None and waited - told > _TELL_EVERY_S:
            told = waited
            log.warning("%d of %d workers after %.0f s; %s", arrived, needed, waited, jobs.describe())
        time.sleep(_POLL_S)


def _describe_absence(arrived: int, spec: ClusterSpec, jobs: JobWatch | None) -> str:
    absence = f"{arrived} of {spec.workers_needed} workers are there after wait={spec.wait_s} s"
    if jobs is None:
        return f"{absence}."
    return f"{absence}; {jobs.describe()}. A longer wait, or fewer or smaller jobs, may help."
