"""One SLURM job and a cluster of them: dask-jobqueue's classes, with what they lack.

Imports dask-jobqueue, which reads the site's ``jobqueue.yaml``; import this where it is needed only.
"""

import itertools
from collections.abc import Callable
from typing import Any

from distributed.core import Status

from segment_slide.cluster.kinds.jobqueue import import_jobqueue

_jobqueue = import_jobqueue()
from dask_jobqueue.slurm import SLURMCluster, SLURMJob  # noqa: E402, not before the line above


class WorkerJob(SLURMJob):
    """A job that says when SLURM refused it, with its memory exact.

    Parameters
    ----------
    on_refused : callable
        Gets what sbatch said.
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
                self._on_refused(_sbatch_words(str(error)))
            self.status = Status.running

    async def close(self) -> None:
        """Cancel, and say so: jobqueue leaves the status at running, which the cluster takes for a fault."""
        await super().close()
        self.status = Status.closed
        self._event_finished.set()


class JobCluster(SLURMCluster):
    """Jobs whose workers' names are never used twice.

    Dask gives a new job the name of one that ended, and its check on lost workers, seconds later, then cancels the
    new one, which has not connected yet.
    """

    job_cls = WorkerJob

    def __init__(self, *args: Any, **options: Any) -> None:
        self._numbers = itertools.count()
        super().__init__(*args, **options)

    def _new_worker_name(self, _: int) -> str:
        return f"{self._name}-{next(self._numbers)}"


def _sbatch_words(message: str) -> str:
    """What sbatch said, out of jobqueue's message, which holds command, exit code and both outputs too."""
    errors = [line.partition("sbatch: error: ")[2] for line in message.splitlines() if "sbatch: error: " in line]
    return "; ".join(errors) or " ".join(message.split())
