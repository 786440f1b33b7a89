"""Find out why the workers of jobs do not come: refused jobs, jobs that ended early, the state of the queue."""

from dataclasses import dataclass
from pathlib import Path

from segment_slide.cluster.errors import ClusterError
from segment_slide.cluster.kinds.batch_system import BatchSystem

_TOO_MANY_EARLY_ENDS = 2
_LOG_LINES = 5
_LOG_TAIL_BYTES = 4096


@dataclass(frozen=True)
class JobWatch:
    """Says why the workers of jobs do not come.

    Parameters
    ----------
    system : BatchSystem
        The batch system that runs the jobs.
    name : str
        Name of the jobs.
    refusals : list of str
        Error messages of the submitting command. The list grows while this object is used.
    early_ends : list of str
        Numbers of jobs that ended before their workers connected. The list grows likewise.
    log_directory : str
        Folder that the jobs write their output into.
    """

    system: BatchSystem
    name: str
    refusals: list[str]
    early_ends: list[str]
    log_directory: str

    def check(self) -> None:
        """Raise if waiting is of no use."""
        if self.refusals:
            raise ClusterError(f"{self.system.title} refused the job: {self.refusals[0]}")
        if len(self.early_ends) >= _TOO_MANY_EARLY_ENDS:  # one may have been cancelled, or its node was lost
            number = self.early_ends[0]
            raise ClusterError(
                f"{self.system.title} job {number} ended before its worker connected. {self._last_words(number)}"
            )

    def describe(self) -> str:
        """Say what the queue shows."""
        try:
            return self.system.describe_queue(self.system.list_jobs(self.name))
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
