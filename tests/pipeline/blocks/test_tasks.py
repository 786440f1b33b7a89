"""What becomes of a task that fails: tried again, alone where its worker died, then named, with all others done."""

from collections.abc import Callable, Generator, Iterable
from typing import Any

import pytest

from segment_slide.pipeline.blocks import tasks
from segment_slide.pipeline.blocks.tasks import MOST_DEATHS, MOST_DEATHS_ALONE, Wording, keeping_what_is_done, run_all
from segment_slide.pipeline.errors import (
    ChunkAccessError,
    IncompleteError,
    InputError,
    NotFiniteError,
    OutputError,
    TasksFailedError,
    UnreadableChunkError,
    WorkerDiedError,
)
from segment_slide.unet.errors import UnetError

DIED = WorkerDiedError("its worker died 4 times")
Fails = Callable[[int, int, int], Exception | None]


class Cluster:
    """Answers as one would, and notes which items it was given together.

    `fails` says of an item, the number of its try and the number of items that run with it how it fails.
    """

    def __init__(self, fails: Fails) -> None:
        self.fails, self.rounds, self.tries = fails, list[list[int]](), dict[int, int]()

    def run_tasks(
        self, _client: None, function: Callable[[int], int], items: Iterable[int], *, batch: int = 1
    ) -> Generator[tuple[int, int | None, Exception | None]]:
        """In the place of the real one."""
        together = list(items)
        if together:
            self.rounds.append(together)
        for item in together:
            self.tries[item] = self.tries.get(item, 0) + 1
            error = self.fails(item, self.tries[item], len(together))
            yield item, None if error else function(item), error


def run(monkeypatch: pytest.MonkeyPatch, fails: Fails, n_items: int = 12, **more: Any) -> tuple[list[int], Cluster]:
    cluster = Cluster(fails)
    monkeypatch.setattr(tasks, "run_tasks", cluster.run_tasks)
    done: list[int] = []
    try:
        done += [item for item, _ in run_all(None, lambda item: item, range(n_items), "task {}".format, **more)]
    finally:
        monkeypatch.undo()
    return done, cluster


def test_what_failed_is_tried_again_together_when_all_others_are_done(monkeypatch: pytest.MonkeyPatch) -> None:
    done, cluster = run(monkeypatch, lambda item, tried, _: OSError("away") if item in (3, 5) and tried == 1 else None)
    assert done == [0, 1, 2, 4, 6, 7, 8, 9, 10, 11, 3, 5]
    assert cluster.rounds == [list(range(12)), [3, 5]]


def test_what_died_is_tried_again_alone_for_a_neighbour_may_be_the_culprit(monkeypatch: pytest.MonkeyPatch) -> None:
    """4 ends the worker in company only, 3 and 5 fail beside it; 7 dies when it is tried again among others."""

    def fails(item: int, tried: int, n_together: int) -> Exception | None:
        if item in (3, 4, 5) and n_together > 1:
            return DIED
        if item in (7, 8):
            return OSError("away") if tried == 1 else DIED if n_together > 1 and item == 7 else None
        return None

    done, cluster = run(monkeypatch, fails)
    assert sorted(done) == list(range(12))
    assert cluster.rounds[1:] == [[7, 8], [3], [4], [5], [7]]


def test_what_failed_twice_is_named_in_order_of_numbers_and_all_others_are_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done: list[int] = []
    cluster = Cluster(lambda item, *_: OSError("away") if item in (10, 2) else None)
    monkeypatch.setattr(tasks, "run_tasks", cluster.run_tasks)
    with pytest.raises(TasksFailedError) as caught:
        done.extend(item for item, _ in run_all(None, abs, [10, 2, 7, 1], "task {}".format))
    assert str(caught.value) == "2 step(s) could not be done; all others are kept:\n  task 2: away\n  task 10: away"
    assert [failure.item for failure in caught.value.failures] == [2, 10]
    assert done == [7, 1]


def test_of_many_failures_the_first_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TasksFailedError, match=r"(?s)^30 blocks are missing:\n  task 0: .*\n  … and 20 more$"):
        run(monkeypatch, lambda *_: OSError("away"), 30, wording=Wording("blocks are missing:"))


@pytest.mark.parametrize("when", [1, 2], ids=["first try", "second try"])
@pytest.mark.parametrize(
    ("error", "expected", "message"),
    [
        (OutputError("no room."), IncompleteError, r"^task 3: no room\. All is kept\.$"),
        (InputError("no classes"), InputError, "^task 3: no classes$"),
        (UnetError("another file"), InputError, "^task 3: another file$"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_would_fail_for_every_task_ends_the_run_at_once(
    monkeypatch: pytest.MonkeyPatch, when: int, error: Exception, expected: type[Exception], message: str
) -> None:
    def fails(item: int, tried: int, _: int) -> Exception | None:
        if item == 3:
            return error if tried == when else OSError("away")
        return OSError("away") if item == 5 else None

    with pytest.raises(expected, match=message) as caught:
        run(monkeypatch, fails, wording=Wording(kept="All is kept."))
    assert caught.value.__cause__ is error


@pytest.mark.parametrize(
    ("fails", "n_tries"),
    [
        (lambda *_: DIED, MOST_DEATHS),
        (lambda item, tried, n: DIED if item < MOST_DEATHS - 1 else None, 100 + MOST_DEATHS_ALONE),
    ],
    ids=["in company", "alone"],
)
def test_a_run_ends_when_task_after_task_ends_its_worker(
    monkeypatch: pytest.MonkeyPatch, fails: Fails, n_tries: int
) -> None:
    cluster = Cluster(fails)
    monkeypatch.setattr(tasks, "run_tasks", cluster.run_tasks)
    with pytest.raises(IncompleteError, match="steps in a row ended their workers"):
        list(run_all(None, abs, range(100), "task {}".format))
    assert sum(cluster.tries.values()) == n_tries


def test_a_batch_that_dies_counts_as_one_death(monkeypatch: pytest.MonkeyPatch) -> None:
    done, _ = run(monkeypatch, lambda item, tried, _: DIED if item < 32 and tried == 1 else None, 100, batch=16)
    assert sorted(done) == list(range(100))


def test_first_tries_by_other_means_are_tried_again_as_all_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def windows() -> Generator[tuple[int, int | None, Exception | None]]:
        yield 1, 1, None
        yield 2, None, OSError("a neighbour's chunk")

    done, cluster = run(monkeypatch, lambda *_: None, first_tries=windows())
    assert (done, cluster.rounds) == ([1, 2], [[2]])


def test_only_what_is_in_the_input_is_its_fault() -> None:
    def fault(*errors: Exception) -> Exception | None:
        failed = tasks.explain_failures([tasks.Failure(0, "task 0", error) for error in errors])
        return failed.fault_of_input.error if failed.fault_of_input else None

    damaged, nan = UnreadableChunkError("damaged"), NotFiniteError("nan")
    assert fault(OSError("away"), DIED, ChunkAccessError("away")) is None
    assert fault(OSError("away"), damaged) is damaged
    assert fault(nan) is nan


def test_a_run_that_has_begun_is_incomplete_whatever_ends_it() -> None:
    with pytest.raises(IncompleteError, match=r"^no classes\. All is kept\.$"), keeping_what_is_done("All is kept."):
        raise InputError("no classes.")
