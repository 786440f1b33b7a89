"""Jobs of PBS (OpenPBS, PBS Professional): how to use ``qsub``, ``qselect``, ``qstat`` and ``qdel``.

Written from their manuals and not tried on a real PBS.
"""

import re
import secrets
from collections.abc import Mapping
from typing import Any

from segment_slide.cluster.fields import Field, choose_fields, read_text
from segment_slide.cluster.kind import Job
from segment_slide.cluster.kinds.batch import BatchKind
from segment_slide.cluster.kinds.batch_site import site_value
from segment_slide.cluster.kinds.batch_system import BatchSystem, QueuedJob, format_clock, job_mebibytes, user
from segment_slide.cluster.spec import ClusterSpec

_ENDED = ("C", "F", "X")
_GONE = ("Unknown Job", "has finished")


class Pbs(BatchSystem):
    """PBS. A job's number is the part of its identifier before the server's name."""

    kind = "pbs"
    title = "PBS"
    cluster_class = "PBSCluster"
    submit, queue, cancel = "qsub", "qstat", "qdel"
    job_variable = "PBS_JOBID"
    gpu_remedy = "check resource_spec and queue"
    fields: Mapping[str, Field] = {
        "queue": Field("partition", read_text),
        **choose_fields("account"),
        "resource_spec": Field("resource_spec", read_text, is_own=True),
    }

    def job_options(self, spec: ClusterSpec, name: str) -> dict[str, Any]:
        """Cores, memory and GPUs as one ``select``, unless the description or the site gives another.

        PBS itself writes a job's output on the node and copies it when the job has ended. So the script here writes
        the output into the log folder at once. Only output from before that line is left to PBS.
        """
        select = f"select=1:ncpus={spec.job_cores or 1}:mem={job_mebibytes(spec)}mb"
        if spec.gpus:
            select += f":ngpus={spec.gpus}"
        log = f"{spec.log_directory}/{name}-${{PBS_JOBID%%.*}}"
        return {
            "queue": spec.partition,
            "account": spec.account,
            "walltime": format_clock(spec.walltime_s or 0),
            "resource_spec": spec.own_value("resource_spec") or site_value(self.kind, "resource-spec") or select,
            "job_script_prologue": [f'exec >"{log}.out" 2>"{log}.err"'],
        }

    def list_jobs(self, name: str) -> list[QueuedJob]:
        """List jobs by name, with a letter for the state, and PBS's comment as the reason."""
        identifiers = self.call("qselect", "-u", user(), "-N", name).split()
        if not identifiers:
            return []
        # the list comes from qselect alone: qstat fails for a job that ended meanwhile
        details = _read_details(self.call("qstat", "-f", *identifiers, accepted=_GONE))
        jobs = [
            QueuedJob(_number(one), *(details.get(_number(one), {}).get(key, "") for key in ("job_state", "comment")))
            for one in identifiers
        ]
        return [job for job in jobs if job.state not in _ENDED]

    def cancel_jobs(self, name: str) -> None:
        """Cancel jobs by number."""
        identifiers = self.call("qselect", "-u", user(), "-N", name).split()
        if identifiers:
            self.call("qdel", *identifiers, accepted=_GONE)

    def find_gaps(self, spec: ClusterSpec) -> tuple[str, ...]:
        """Warn of what was never tried on a real PBS."""
        gap = (
            "kind pbs follows PBS's manual and has not been tried on a real PBS. Jobs that end should be replaced, and "
            "no job should be left in the queue: look at qstat when the run is over."
        )
        return (gap,)

    def make_name(self) -> str:
        """Make a name of at most 15 letters, the limit of older versions."""
        return f"slide-{secrets.token_hex(4)}"

    def find_job(self, environment: Mapping[str, str]) -> Job | None:
        """Find the job; its number comes without the server's name."""
        job = super().find_job(environment)
        return job and Job(job.system, _number(job.number))


def _number(identifier: str) -> str:
    """The number in an identifier such as ``123.server``."""
    return identifier.partition(".")[0]


def _read_details(text: str) -> dict[str, dict[str, str]]:
    r"""Read the attributes of each job from the output of ``qstat -f``, which folds long lines.

    Examples
    --------
    >>> _read_details("Job Id: 7.server\n    job_state = Q\n    comment = Not Running: no fr\n\tee node\n")
    {'7': {'job_state': 'Q', 'comment': 'Not Running: no free node'}}
    """
    found: dict[str, dict[str, str]] = {}
    for line in text.replace("\n\t", "").splitlines():
        if line.startswith("Job Id: "):
            job = found.setdefault(_number(line.removeprefix("Job Id: ")), {})
        elif match := re.fullmatch(r" +([\w.]+) = (.*)", line):
            job[match[1]] = match[2]
    return found


KIND = BatchKind(Pbs())
