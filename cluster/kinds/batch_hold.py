"""Keep the number of jobs: Dask's adaptive scaling, extended to notice jobs that ended before a worker connected."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from distributed.deploy.adaptive import Adaptive

from segment_slide.cluster.errors import ClusterError
from segment_slide.cluster.kinds.batch_system import BatchSystem, QueuedJob

log = logging.getLogger(__name__)

_LOOK_EVERY_S = 2  # querying the queue slows it for the whole site, so it is done only while a worker is missing
_LONGEST_PAUSE_S = 300
_MOST_EARLY_ENDS = 10
_LAST_WAIT_S = 60
_TELL_AFTER_S = 20  # the time to the next message doubles each time


class HeldJobs(Adaptive):
    """Keep between a minimum and a maximum of jobs, and replace each job that ends.

    A job whose worker never connected is replaced too, after a pause that doubles each time. After ten such jobs in a
    row more jobs will not help: no more are submitted, and tasks that have no worker fail.

    While no worker is left and jobs wait in the queue, a message says so with the state of the queue. The time
    between these messages doubles.

    Parameters
    ----------
    system : BatchSystem
        The batch system that runs the jobs.
    refusals : sequence of str
        Error messages of the submitting command. The list grows while this object is used.

    Attributes
    ----------
    early_ends : list of str
        Numbers of the jobs in a row that ended before their workers connected. Emptied when a worker connects.
    """

    def __init__(self, cluster: Any, system: BatchSystem, refusals: Sequence[str] = (), **options: Any) -> None:
        self.cluster: Any  # a JobCluster
        self._system = system
        self._refusals = refusals
        self._waits_since: float | None = None
        self._times_told = 0
        self.early_ends: list[str] = []
        self._connected: set[str] = set()
        self._next_look = 0.0
        super().__init__(cluster, **options)

    async def adapt(self) -> None:
        """Adapt the number of jobs; called by Dask once a second."""
        if len(self.early_ends) >= _MOST_EARLY_ENDS:
            return
        if not self._adapting:
            await self._forget_ended_jobs()
        await super().adapt()

    async def _forget_ended_jobs(self) -> None:
        """Drop jobs that the queue no longer has from the cluster's records; Dask then submits new ones for them."""
        absent = self._jobs_without_workers()
        now = asyncio.get_running_loop().time()
        if self.cluster.scheduler_info["workers"]:
            self._waits_since, self._times_told = None, 0
        if not absent or now < self._next_look:
            return
        self._next_look = now + min(_LOOK_EVERY_S * 2 ** len(self.early_ends), _LONGEST_PAUSE_S)
        try:
            jobs = await asyncio.to_thread(self._system.list_jobs, self.cluster.name)
        except ClusterError as error:
            log.info("%s", error)
            return
        self._tell_of_waiting(jobs, now)
        alive = {job.number for job in jobs}
        for name, job in absent.items():
            if job.job_id not in alive and name in self.cluster.workers:
                await self._forget(name)

    def _tell_of_waiting(self, jobs: list[QueuedJob], now: float) -> None:
        """Say why no work is done while no worker is left. Before the first worker, `wait_for_workers` says so."""
        if not self._connected or self.cluster.scheduler_info["workers"]:
            return
        if self._waits_since is None:
            self._waits_since = now
        waited = now - self._waits_since
        if waited < _TELL_AFTER_S * 2**self._times_told:
            return
        self._times_told += 1
        refusal = f"; {self._system.submit} said: {self._refusals[-1]}" if self._refusals and not jobs else ""
        log.warning(
            "no worker has been there for %.0f s; %s%s. The run waits for new jobs; Ctrl-C ends it, and the same "
            "command goes on later.",
            waited,
            self._system.describe_queue(jobs),
            refusal,
        )

    def _jobs_without_workers(self) -> dict[str, Any]:
        arrived = {worker["name"] for worker in self.cluster.scheduler_info["workers"].values()}
        absent = {}
        for name, job in self.cluster.workers.items():
            group = self.cluster.worker_spec.get(name, {}).get("group", [""])
            if any(f"{name}{suffix}" in arrived for suffix in group):
                self._connected.add(name)
                self.early_ends.clear()
            else:
                absent[name] = job
        return absent

    async def _forget(self, name: str) -> None:
        job = self.cluster.workers.pop(name)
        self.cluster.worker_spec.pop(name, None)
        await job.close()
        if name in self._connected:
            log.info("job %s ended and is replaced", job.job_id)
            return
        self.early_ends.append(job.job_id or "(refused)")
        if len(self.early_ends) >= _MOST_EARLY_ENDS:
            log.error(
                "%d jobs in a row ended before their workers connected (%s); no more are submitted",
                len(self.early_ends),
                ", ".join(self.early_ends),
            )
            self.cluster.scheduler.no_workers_timeout = _LAST_WAIT_S
