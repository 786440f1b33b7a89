"""Jobs of SLURM: how to use ``sbatch``, ``squeue`` and ``scancel``."""

from collections.abc import Mapping
from typing import Any

from segment_slide.cluster.fields import Field, choose_fields
from segment_slide.cluster.kinds.batch import BatchKind
from segment_slide.cluster.kinds.batch_system import BatchSystem, QueuedJob, format_clock, job_mebibytes, user
from segment_slide.cluster.spec import ClusterSpec

_ENDED = ("COMPLETED", "CANCELLED", "FAILED", "TIMEOUT")


class Slurm(BatchSystem):
    """SLURM, the batch system whose jobs are fully tested on a real scheduler."""

    kind = "slurm"
    title = "SLURM"
    cluster_class = "SLURMCluster"
    submit, queue, cancel = "sbatch", "squeue", "scancel"
    job_variable = "SLURM_JOB_ID"
    gpu_remedy = "check gres and partition"
    fields: Mapping[str, Field] = choose_fields("partition", "account", "gres")

    def job_options(self, spec: ClusterSpec, name: str) -> dict[str, Any]:
        """Cores and memory as ``#SBATCH`` lines, GPUs as ``--gres``."""
        return {
            "queue": spec.partition,
            "account": spec.account,
            "walltime": format_clock(spec.walltime_s or 0),
            "job_cpu": spec.job_cores or 1,
            "job_mem": f"{job_mebibytes(spec)}M",
            "job_extra_directives": [f"--gres={spec.gres or f'gpu:{spec.gpus}'}"] if spec.gpus else [],
        }

    def list_jobs(self, name: str) -> list[QueuedJob]:
        """List jobs by name, with a state such as PENDING or RUNNING, and a reason such as Resources."""
        lines = self.call("squeue", "--noheader", "--user", user(), "--name", name, "--format", "%i|%T|%r")
        jobs = [QueuedJob(*line.split("|", 2)) for line in lines.splitlines() if line.count("|") > 1]
        return [job for job in jobs if job.state not in _ENDED]

    def cancel_jobs(self, name: str) -> None:
        """Cancel jobs by name."""
        self.call("scancel", "--user", user(), "--name", name)

    def read_refusal(self, message: str) -> str:
        """Extract the text after ``sbatch: error:``."""
        errors = [line.partition("sbatch: error: ")[2] for line in message.splitlines() if "sbatch: error: " in line]
        return "; ".join(errors) or " ".join(message.split())


KIND = BatchKind(Slurm())
