"""One job of a batch system and a cluster of such jobs: dask-jobqueue's classes, with what they lack.

This file imports dask-jobqueue, which reads the site's ``jobqueue.yaml``: import it only where it is needed.
"""

import itertools
import shlex
from collections.abc import Callable
from typing import Any

from distributed.core import Status

from segment_slide.cluster.kinds.batch_system import BatchSystem
from segment_slide.cluster.kinds.jobqueue import import_jobqueue

_jobqueue = import_jobqueue("slurm")
from dask_jobqueue.core import Job, JobQueueCluster  # noqa: E402, not before the line above


class WorkerJob(Job):
    """A job that reports when the batch system refused it, and whose memory is exact.

    Parameters
    ----------
    on_refused : callable
        Called with jobqueue's message, which holds the command, its exit code, standard output and standard error.
    """

    def __init__(self, *args: Any, on_refused: Callable[[str], None] | None = None, **options: Any) -> None:
        super().__init__(*args, **options)
        self._on_refused = on_refused

    @property
    def worker_process_memory(self) -> str:
        """Exact bytes. dask-jobqueue rounds to hundredths of a GiB, which can be less than the plan needs."""
        return str(self.worker_memory // self.worker_processes)

    async def start(self) -> None:
        """Submit. A refusal goes to `on_refused`: for an error jobqueue counts the job as started and never retries."""
        try:
            await super().start()
        except (RuntimeError, OSError, ValueError) as error:
            if self._on_refused is not None:
                self._on_refused(str(error))
            self.status = Status.running

    async def _submit_job(self, script_filename: str) -> Any:
        """Submit a script, and keep what bsub says when it refuses one; jobqueue throws that away."""
        if getattr(self, "use_stdin", False):
            command = f"{self.submit_command} < {shlex.quote(script_filename)}"
            return await self._call([command], shell=True)  # noqa: S604, the file is ours
        return await super()._submit_job(script_filename)

    async def close(self) -> None:
        """Cancel the job and mark it closed. jobqueue leaves it marked as running, and the cluster reports a fault."""
        await super().close()
        self.status = Status.closed
        self._event_finished.set()


class JobCluster(JobQueueCluster):
    """A cluster that never uses a worker's name twice.

    Dask itself gives a new job the name of one that ended. Seconds later its check on lost workers then cancels the
    new job, which has not connected yet.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        self._numbers = itertools.count()
        super().__init__(*args, **options)

    def _new_worker_name(self, _: int) -> str:
        return f"{self._name}-{next(self._numbers)}"


def make_classes(system: BatchSystem) -> tuple[type[Any], type[Any]]:
    """Make the job class and the cluster class of a batch system: jobqueue's classes, extended by the two above."""
    theirs = getattr(_jobqueue, system.cluster_class)
    job = type("SystemJob", (WorkerJob, theirs.job_cls), {})
    return job, type("SystemCluster", (JobCluster, theirs), {"job_cls": job})
