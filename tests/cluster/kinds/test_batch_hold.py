"""Jobs are replaced by what squeue says of them; a stand-in for the cluster here, a real SLURM in tests/slurm."""

import asyncio
from types import SimpleNamespace

import pytest

from segment_slide.cluster.errors import ClusterError
from segment_slide.cluster.kinds.batch_hold import HeldJobs
from segment_slide.cluster.kinds.batch_system import QueuedJob
from segment_slide.cluster.kinds.slurm import Slurm


class Job:
    def __init__(self, number):
        self.job_id, self.closed = number, False

    async def close(self):
        self.closed = True


class Books:
    """What HeldJobs reads of a cluster, and a queue."""

    def __init__(self):
        self.name, self.workers, self.worker_spec = "run", {}, {}
        self.scheduler_info, self.scheduler = {"workers": {}}, SimpleNamespace(no_workers_timeout=None)
        self.queue: list[str] | None = []
        self.asked = 0

    def list_jobs(self, name):
        self.asked += 1
        assert name == "run"
        if self.queue is None:
            raise ClusterError("squeue failed")
        return [QueuedJob(number, "RUNNING", "None") for number in self.queue]

    def submit(self, name, number, group=None):
        self.workers[name] = Job(number)
        self.worker_spec[name] = {"group": group} if group else {}
        self.queue.append(number)

    def connect(self, *names):
        self.scheduler_info["workers"] = {f"tls://{name}": {"name": name} for name in names}


class StandIn(Slurm):
    def __init__(self, books):
        self.list_jobs = books.list_jobs


@pytest.fixture
def books():
    return Books()


@pytest.fixture
def held(books):
    return HeldJobs(books, StandIn(books), interval=0, minimum=1, maximum=1)


def look(held):
    held._next_look = 0
    asyncio.run(held._forget_ended_jobs())


def test_squeue_is_not_asked_while_all_workers_are_there(books, held):
    books.submit("a", "1")
    books.connect("a")
    look(held)
    assert books.asked == 0


def test_a_job_that_waits_or_starts_stays(books, held):
    books.submit("a", "1")
    look(held)
    assert books.asked == 1
    assert "a" in books.workers


def test_a_job_that_ended_is_forgotten_so_that_another_takes_its_place(books, held):
    books.submit("a", "1")
    books.connect("a")
    look(held)
    books.connect()
    books.queue.clear()
    job = books.workers["a"]
    look(held)
    assert books.workers == books.worker_spec == {}
    assert job.closed
    assert held.early_ends == [], "it had connected"


def test_of_a_job_of_several_workers_one_that_is_there_is_enough(books, held):
    books.submit("a", "1", group=["-0", "-1"])
    books.connect("a-1")
    books.queue.clear()
    look(held)
    assert "a" in books.workers


def test_when_squeue_does_not_answer_nothing_is_forgotten(books, held):
    books.submit("a", "1")
    books.queue = None
    look(held)
    assert "a" in books.workers


def test_jobs_that_end_early_are_counted_until_one_connects(books, held):
    for number in ("1", "2"):
        books.submit(number, number)
        books.queue.clear()
        look(held)
    assert held.early_ends == ["1", "2"]
    books.submit("3", "3")
    books.connect("3")
    look(held)
    assert held.early_ends == []


def test_pauses_grow_while_jobs_end_early(books, held):
    books.submit("a", "1")
    books.queue.clear()
    look(held)
    books.submit("b", "2")
    asyncio.run(held._forget_ended_jobs())
    assert books.asked == 1, "not so soon after the last look"


def test_after_ten_early_ends_no_more_are_submitted_and_tasks_fail_that_have_no_worker(books, held, caplog):
    for number in range(10):
        books.submit(str(number), str(number))
        books.queue.clear()
        look(held)
    assert "10 jobs in a row ended before their workers connected" in caplog.text
    assert books.scheduler.no_workers_timeout == 60
    asyncio.run(held.adapt())
    assert books.workers == {}


def look_at(held, monkeypatch, seconds):
    """Let it look when its clock shows so much."""
    held._next_look = 0

    async def see():
        monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: seconds)
        await held._forget_ended_jobs()

    asyncio.run(see())


def test_why_no_worker_is_left_is_said_ever_more_seldom(books, held, monkeypatch, caplog):
    books.submit("a", "1")
    look_at(held, monkeypatch, 100)
    look_at(held, monkeypatch, 200)
    assert caplog.messages == [], "before the first worker was there others say it"
    books.connect("a")
    look_at(held, monkeypatch, 300)
    books.connect()
    told = []
    for seconds in range(400, 520, 5):
        look_at(held, monkeypatch, seconds)
        told += [seconds - 400] * (len(caplog.messages) - len(told))
    assert told == [20, 40, 80]
    assert caplog.messages[0] == (
        "no worker has been there for 20 s; squeue says: RUNNING: job 1. The run waits for new jobs; Ctrl-C ends it, "
        "and the same command goes on later."
    )
    books.connect("a")
    look_at(held, monkeypatch, 600)
    books.connect()
    look_at(held, monkeypatch, 700)
    look_at(held, monkeypatch, 721)
    assert len(caplog.messages) == 4, "it begins anew"


def test_what_sbatch_said_is_told_while_no_worker_is_left(books, monkeypatch, caplog):
    held = HeldJobs(books, StandIn(books), refusals=["invalid account"], interval=0, minimum=1, maximum=1)
    books.submit("a", "1")
    books.connect("a")
    look_at(held, monkeypatch, 100)
    books.connect()
    books.queue.clear()
    for seconds in (200, 221):
        books.workers["a"] = Job(None)
        look_at(held, monkeypatch, seconds)
    assert "squeue shows none of them; sbatch said: invalid account. The run waits" in caplog.text


def test_a_job_that_sbatch_refused_later_is_tried_again(books, held):
    books.submit("a", None)
    books.queue.clear()
    look(held)
    assert held.early_ends == ["(refused)"]
    assert books.workers == {}
