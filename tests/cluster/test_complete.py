"""What a description leaves open is known before anything starts."""

import dataclasses
import os
import sys

import dask
import pytest

from segment_slide.cluster.complete import complete_spec
from segment_slide.cluster.errors import ClusterError
from segment_slide.cluster.kinds.jobqueue import import_jobqueue
from segment_slide.cluster.kinds.local import plan_local
from segment_slide.cluster.spec import ClusterSpec

GiB = 1 << 30


@pytest.fixture
def site():
    """A site's jobqueue.yaml, as keywords."""
    import_jobqueue("slurm")
    with dask.config.set({"jobqueue.slurm.cores": 16, "jobqueue.slurm.memory": "64 GiB"}):
        yield lambda **values: dask.config.set({f"jobqueue.slurm.{name}": value for name, value in values.items()})


def test_locally_the_machine_is_shared_as_ever():
    planned, spec = plan_local(), complete_spec(ClusterSpec())
    assert (spec.workers, spec.cores, spec.memory_bytes) == (planned.workers, planned.cores, planned.memory_bytes)
    assert (spec.usable_bytes, spec.tasks_per_worker) == (planned.usable_bytes, planned.tasks_per_worker)
    assert spec.workers_needed == planned.workers


def test_short_tasks_get_a_worker_per_core_of_this_machine_unless_chosen():
    cores = len(os.sched_getaffinity(0))
    assert complete_spec(ClusterSpec(), short_tasks=True).workers == cores
    assert complete_spec(ClusterSpec(workers=1), short_tasks=True).workers == 1


@pytest.mark.parametrize("kind", ["local", "slurm"])
def test_a_complete_description_stays_as_it_is(kind, site):
    spec = complete_spec(ClusterSpec(kind, directives=("-x",) if kind == "slurm" else ()))
    assert complete_spec(spec) == spec


def test_more_than_this_machine_has_is_refused():
    cores = len(os.sched_getaffinity(0))
    with pytest.raises(ClusterError, match=rf"workers={cores + 1}, expected 1 to {cores}"):
        complete_spec(ClusterSpec(workers=cores + 1))
    with pytest.raises(ClusterError, match=rf"cores={cores + 1} for each of 1 worker"):
        complete_spec(ClusterSpec(workers=1, cores=cores + 1))
    with pytest.raises(ClusterError, match=r"memory=1048576.0 GiB for each of 1 worker"):
        complete_spec(ClusterSpec(workers=1, memory_bytes=1 << 50))


def test_the_sites_defaults_are_adopted_and_each_job_is_divided_among_its_workers(site):
    with site(queue="long", account="a", walltime="12:00:00", interface="lo", python="/opt/python"):
        spec = complete_spec(ClusterSpec("slurm", jobs=3))
    assert (spec.partition, spec.account, spec.interface, spec.python) == ("long", "a", "lo", "/opt/python")
    assert (spec.walltime_s, spec.job_cores, spec.job_memory_bytes) == (12 * 3600, 16, 64 * GiB)
    assert (spec.processes, spec.workers, spec.cores, spec.tasks_per_worker) == (4, 12, 4, 5)
    assert spec.memory_bytes == 60 * GiB // 4, "4 GiB of each job stay for what is no worker's"
    assert spec.workers_needed == 12


def test_the_description_wins_over_the_site(site):
    with site(queue="long", processes=8):
        spec = complete_spec(ClusterSpec("slurm", partition="short", processes=2, job_cores=8))
    assert (spec.partition, spec.processes, spec.cores) == ("short", 2, 4)


def test_lists_of_site_and_description_are_joined(site):
    with site(**{"job-extra-directives": ["--qos=x"], "job-script-prologue": ["module load a"]}):
        spec = complete_spec(ClusterSpec("slurm", directives=("--exclusive",), prologue=("module load b",)))
    assert spec.directives == ("--qos=x", "--exclusive")
    assert spec.prologue == ("module load a", "module load b")


def test_a_job_with_a_gpu_has_one_worker_that_runs_one_forward_pass_at_a_time(site):
    spec = complete_spec(ClusterSpec("slurm", gpus=1))
    assert (spec.processes, spec.cores, spec.tasks_per_worker, spec.job_cores) == (1, 1, 2, 16)
    four = complete_spec(ClusterSpec("slurm", gpus=4, dask_cuda=True))
    assert (four.processes, four.workers) == (4, 4)


def test_between_limits_the_work_begins_with_the_least(site):
    spec = complete_spec(ClusterSpec("slurm", minimum=2, maximum=6))
    assert (spec.jobs_needed, spec.jobs_most, spec.workers_needed, spec.workers) == (2, 6, 8, 24)


@pytest.mark.parametrize("walltime_s", [60, 600, 1800, 86400, 30 * 86400])
def test_workers_leave_before_their_wall_time_and_not_at_once(walltime_s, site):
    spec = complete_spec(ClusterSpec("slurm", walltime_s=walltime_s))
    assert 0 < spec.lifetime_s - spec.stagger_s < spec.lifetime_s + spec.stagger_s < walltime_s
    assert walltime_s - spec.lifetime_s <= 900


def test_a_site_that_does_not_say_what_a_job_asks_for_is_refused():
    import_jobqueue("slurm")
    with pytest.raises(ClusterError, match=r"job_cores=None, job_memory=None: kind slurm has to know"):
        complete_spec(ClusterSpec("slurm"))


def test_what_the_site_has_wrong_is_said_with_its_key(site):
    with (
        site(walltime="30"),
        pytest.raises(ClusterError, match=r"jobqueue.slurm.walltime='30' in Dask's configuration"),
    ):
        complete_spec(ClusterSpec("slurm"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"job_memory_bytes": 1 << 20}, "job_memory=1 MiB, expected 1 GiB or more"),
        ({"log_directory": "/a b"}, "log_directory='/a b', expected a path without spaces"),
        ({"processes": 17}, "processes=17, expected at most job_cores=16"),
    ],
)
def test_jobs_that_hold_no_workers_are_refused(changes, words, site):
    with pytest.raises(ClusterError, match=words):
        complete_spec(ClusterSpec("slurm", **changes))


def test_what_is_not_known_yet_is_said():
    with pytest.raises(ClusterError, match="memory_bytes of kind slurm is not known yet"):
        _ = ClusterSpec("slurm").usable_bytes


def test_without_dask_jobqueue_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "dask_jobqueue", None)
    with pytest.raises(ClusterError, match="kind slurm needs the package dask-jobqueue: pip install dask-jobqueue"):
        complete_spec(ClusterSpec("slurm"))


def test_a_description_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        ClusterSpec().workers = 3
