"""Jobs of LSF: how to use ``bsub``, ``bjobs`` and ``bkill``.

Written from their manuals and not tried on a real LSF.
"""

import re
from collections.abc import Mapping
from typing import Any

from segment_slide.cluster.fields import Field, read_text
from segment_slide.cluster.kinds.batch import BatchKind
from segment_slide.cluster.kinds.batch_system import BatchSystem, QueuedJob, user
from segment_slide.cluster.spec import ClusterSpec

_ENDED = ("DONE", "EXIT")
_NONE = ("is not found", "No unfinished job found", "No matching job found")


class Lsf(BatchSystem):
    """LSF."""

    kind = "lsf"
    title = "LSF"
    cluster_class = "LSFCluster"
    submit, queue, cancel = "bsub", "bjobs", "bkill"
    job_variable = "LSB_JOBID"
    account_setting = "project"
    gpu_remedy = "check directives and queue"
    fields: Mapping[str, Field] = {"queue": Field("partition", read_text), "project": Field("account", read_text)}

    def job_options(self, spec: ClusterSpec, name: str) -> dict[str, Any]:
        """Cores on one host, memory as the limit ``-M``, GPUs as ``-gpu``; output files named by run and job number."""
        log = f"{spec.log_directory}/{name}-%J"
        return {
            "queue": spec.partition,
            "project": spec.account,
            "walltime": _format_walltime(spec.walltime_s or 0),
            "ncpus": spec.job_cores or 1,
            "mem": spec.job_memory_bytes,
            "job_extra_directives": [
                *(f"-e {log}.err", f"-o {log}.out"),
                *([f'-gpu "num={spec.gpus}"'] if spec.gpus else []),
            ],
            "job_directives_skip": ["#BSUB -e ", "#BSUB -o "],
        }

    def list_jobs(self, name: str) -> list[QueuedJob]:
        """List jobs by name, with a state such as PEND or RUN, and why they are pending."""
        form = "jobid stat pend_reason delimiter='|'"
        lines = self.call("bjobs", "-u", user(), "-J", name, "-noheader", "-o", form, accepted=_NONE)
        jobs = [QueuedJob(*line.split("|", 2)) for line in lines.splitlines() if line.count("|") > 1]
        shown = [QueuedJob(job.number, job.state, "" if job.reason == "-" else job.reason) for job in jobs]
        return [job for job in shown if job.state not in _ENDED]

    def cancel_jobs(self, name: str) -> None:
        """Cancel jobs by name; number 0 stands for all jobs of that name."""
        self.call("bkill", "-u", user(), "-J", name, "0", accepted=_NONE)

    def find_gaps(self, spec: ClusterSpec) -> tuple[str, ...]:
        """Warn of what was never tried on a real LSF."""
        gap = (
            "kind lsf follows LSF's manual and has not been tried on a real LSF. Jobs that end should be replaced, and "
            "no job should be left in the queue: look at bjobs when the run is over."
        )
        return (gap,)

    def read_walltime(self, value: Any) -> Any:
        """Also read LSF's own notation: hours and minutes, or minutes."""
        if isinstance(value, str) and re.fullmatch(r"(\d+:)?\d+", value.strip()):
            hours, _, minutes = value.strip().rpartition(":")
            return (int(hours or 0) * 60 + int(minutes)) * 60
        return super().read_walltime(value)


def _format_walltime(seconds: int) -> str:
    """Hours and minutes, rounded up.

    Examples
    --------
    >>> _format_walltime(5401)
    '01:31'
    """
    minutes = -(-seconds // 60)
    return f"{minutes // 60:02d}:{minutes % 60:02d}"


KIND = BatchKind(Lsf())
