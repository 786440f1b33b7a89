"""One job of a batch system and a cluster of them: dask-jobqueue's classes, with what they lack.

Imports dask-jobqueue, which reads the site's ``jobqueue.yaml``; import this where it is needed only.
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
    """A job that says when the batch system refused it, with its memory exact.

    Parameters
    ----------
    on_refused : callable
        Gets jobqueue's message, which holds command, exit code and both outputs.
    """

    def __init__(self, *args: Any, on_refused: Callable[[str], None] | None = None, **options: Any) -> None:
        super().__init__(*args, **options)
        self._on_refused = on_refused

    @property
    def worker_process_memory(self) -> str:
        """Bytes; dask-jobqueue rounds to hundredths of a GiB, and the plan counts on more."""
        return str(self.worker_memory // self.worker_processes)

    async def start(self) -> None:
        """Submit. A refusal is told and no error: jobqueue would log it, count the job as started and never retry."""
        try:
            await super().start()
        except (RuntimeError, OSError, ValueError) as error:
            if self._on_refused is not None:
                self._on_refused(str(error))
            self.status = Status.running

    async def _submit_job(self, script_filename: str) -> Any:
        """Submit a script; what bsub says when it refuses one is not thrown away, as jobqueue does."""
        if getattr(self, "use_stdin", False):
            command = f"{self.submit_command} < {shlex.quote(script_filename)}"
            return await self._call([command], shell=True)  # noqa: S604, the file is ours
        return await super()._submit_job(script_filename)

    async def close(self) -> None:
        """Cancel, and say so: jobqueue leaves the status at running, which the cluster takes for a fault."""
        await super().close()
        self.status = Status.closed
        self._event_finished.set()


class JobCluster(JobQueueCluster):
    """Jobs whose workers' names are never used twice.

    Dask gives a new job the name of one that ended, and its check on lost workers, seconds later, then cancels the
    new one, which has not connected yet.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        self._numbers = itertools.count()
        super().__init__(*args, **options)

    def _new_worker_name(self, _: int) -> str:
        return f"{self._name}-{next(self._numbers)}"


def make_classes(system: BatchSystem) -> tuple[type[Any], type[Any]]:
    """Job and cluster of a batch system: jobqueue's classes for it with what these two add."""
    theirs = getattr(_jobqueue, system.cluster_class)
    job = type("SystemJob", (WorkerJob, theirs.job_cls), {})
    return job, type("SystemCluster", (JobCluster, theirs), {"job_cls": job})
