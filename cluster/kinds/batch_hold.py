"""Keep the number of jobs: Dask's adaptive scaling, which also sees jobs that ended without a worker to tell of it."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from distributed.deploy.adaptive import Adaptive

from segment_slide.cluster.errors import ClusterError
from segment_slide.cluster.kinds.batch_system import BatchSystem, QueuedJob

log = logging.getLogger(__name__)

_LOOK_EVERY_S = 2  # asking for the queue costs the whole site: it is asked only while a worker is missing
_LONGEST_PAUSE_S = 300
_MOST_EARLY_ENDS = 10
_LAST_WAIT_S = 60
_TELL_AFTER_S = 20  # then each time after twice as long


class HeldJobs(Adaptive):
    """Between a minimum and a maximum of jobs, each replaced when it ends.

    A job whose worker never connected is replaced too, after a pause that doubles; after ten such in a row there is
    something wrong that more jobs will not cure: no more are submitted, and tasks that have no worker fail.

    While no worker is left, and jobs wait in the queue, that is said with what the queue says, ever more seldom.

    Parameters
    ----------
    system : BatchSystem
        Of whose jobs the cluster is.
    refusals : sequence of str
        What the submitting command said, filled in as it says it.

    Attributes
    ----------
    early_ends : list of str
        Jobs in a row that ended before their workers connected; empty again once one connects.
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
        """Called by Dask once a second."""
        if len(self.early_ends) >= _MOST_EARLY_ENDS:
            return
        if not self._adapting:
            await self._forget_ended_jobs()
        await super().adapt()

    async def _forget_ended_jobs(self) -> None:
        """Drop jobs from the cluster's books that the queue no longer has: the number is then made up by new ones."""
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
        """Say why nothing is done while no worker is left; until the first ones are there, `wait_for_workers` does."""
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
