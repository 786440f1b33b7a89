"""Jobs of Grid Engine (SGE, Son of Grid Engine, Univa): how to use ``qsub``, ``qstat`` and ``qdel``."""

import contextlib
import re
from collections.abc import Mapping
from typing import Any

from segment_slide.cluster.errors import ClusterError
from segment_slide.cluster.fields import Field, read_text
from segment_slide.cluster.kind import Job
from segment_slide.cluster.kinds.batch import BatchKind
from segment_slide.cluster.kinds.batch_site import site_value
from segment_slide.cluster.kinds.batch_system import BatchSystem, QueuedJob, format_clock, user
from segment_slide.cluster.spec import ClusterSpec

_NONE = ("does not exist",)


class Sge(BatchSystem):
    """Grid Engine. Each site chooses its own names for requests of several cores and of memory."""

    kind = "sge"
    title = "Grid Engine"
    cluster_class = "SGECluster"
    submit, queue, cancel = "qsub", "qstat", "qdel"
    job_variable = "JOB_ID"
    account_setting = "project"
    gpu_remedy = "check resource_spec and queue"
    fields: Mapping[str, Field] = {
        "queue": Field("partition", read_text),
        "project": Field("account", read_text),
        "parallel_environment": Field("parallel_environment", read_text, is_own=True),
        "resource_spec": Field("resource_spec", read_text, is_own=True),
    }

    def check(self, spec: ClusterSpec) -> None:
        """Refuse several cores without a parallel environment that asks for them."""
        cores = spec.job_cores or 1
        asks = spec.own_value("parallel_environment") or any(line.startswith("-pe ") for line in spec.directives)
        if cores > 1 and not asks:
            raise ClusterError(
                f"job_cores={cores}: Grid Engine gives a job several cores only by a parallel environment; expected "
                "parallel_environment, one that `qconf -spl` lists and whose allocation rule is $pe_slots."
            )

    def job_options(self, spec: ClusterSpec, name: str) -> dict[str, Any]:
        """Cores by the parallel environment; GPUs as ``gpu``, unless `resource_spec` says what to request."""
        environment, resources = spec.own_value("parallel_environment"), _find_resources(spec)
        log = f"{spec.log_directory}/$JOB_NAME-$JOB_ID"
        return {
            "queue": spec.partition,
            "project": spec.account,
            "walltime": format_clock(spec.walltime_s or 0),
            "resource_spec": resources,
            "job_extra_directives": [
                "-S /bin/bash",  # the queue's default shell may be csh
                *(f"-e {log}.err", f"-o {log}.out"),
                *([f"-pe {environment} {spec.job_cores or 1}"] if environment else []),
                *([f"-l gpu={spec.gpus}"] if spec.gpus and resources is None else []),
            ],
            "job_directives_skip": ["#$ -e ", "#$ -o ", "#$ -j y"],
        }

    def list_jobs(self, name: str) -> list[QueuedJob]:
        """List jobs by name, with a state such as qw, r or Eqw, and why they wait or failed, if the site shows that."""
        found = [
            (number, state)
            for number, its_name, state in _read_jobs(self.call("qstat", "-u", user(), "-xml"))
            if its_name == name
        ]
        waiting = [number for number, state in found if "q" in state]
        text = self.call("qstat", "-j", ",".join(waiting), accepted=("do not exist",)) if waiting else ""
        reasons = _read_reasons(text)
        return [QueuedJob(number, state, reasons.get(number, "")) for number, state in found]

    def cancel_jobs(self, name: str) -> None:
        """Cancel jobs by name."""
        self.call("qdel", "-u", user(), name, accepted=_NONE)

    def find_gaps(self, spec: ClusterSpec) -> tuple[str, ...]:
        """Warn if jobs do not request memory, as each site names it differently, or if the site hides reasons."""
        gaps = []
        if _find_resources(spec) is None:
            gaps.append(
                "kind sge: jobs do not ask for job_memory, as each site names memory in its own way; say how in "
                "resource_spec, e.g. mem_free=4G, or a node may get more jobs than it has memory for."
            )
        with contextlib.suppress(ClusterError):
            if re.search(r"^schedd_job_info +false", self.call("qconf", "-ssconf"), re.MULTILINE):
                gaps.append(
                    "kind sge: while a job waits, the reason cannot be shown: this site does not collect it "
                    "(schedd_job_info is false)."
                )
        return tuple(gaps)

    def find_job(self, environment: Mapping[str, str]) -> Job | None:
        """Find the job. JOB_ID alone does not prove Grid Engine, so a second variable is required."""
        return super().find_job(environment) if "SGE_JOB_SPOOL_DIR" in environment else None


def _find_resources(spec: ClusterSpec) -> Any:
    return spec.own_value("resource_spec") or site_value(Sge.kind, "resource-spec")


def _read_jobs(text: str) -> list[tuple[str, str, str]]:
    """Number, name and state of each job in what ``qstat -xml`` prints.

    Examples
    --------
    >>> _read_jobs("<job_list><JB_job_number>7</JB_job_number><JB_name>a</JB_name><state>qw</state></job_list>")
    [('7', 'a', 'qw')]
    """
    keys = ("JB_job_number", "JB_name", "state")
    jobs = re.findall(r"<job_list\b.*?</job_list>", text, re.DOTALL)
    found = [[re.search(rf"<{key}>(.*?)</{key}>", job) for key in keys] for job in jobs]
    return [(one[1], two[1], three[1]) for one, two, three in found if one and two and three]


def _read_reasons(text: str) -> dict[str, str]:
    r"""Read from ``qstat -j``, for each job number, its error or else the scheduling information.

    Examples
    --------
    >>> _read_reasons("job_number:   7\nscheduling info:   queue is full\n             no slots\n")
    {'7': 'queue is full'}
    """
    reasons: dict[str, str] = {}
    number = ""
    for line in text.splitlines():
        if match := re.fullmatch(r"job_number: +(\d+) *", line):
            number = match[1]
        elif match := re.fullmatch(r"(?:error reason +\d+|scheduling info): +(.*?) *", line):
            reasons.setdefault(number, match[1])
    return reasons


KIND = BatchKind(Sge())
