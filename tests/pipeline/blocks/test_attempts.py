"""The same results from here and from a cluster, a bounded number of tasks at a time, nothing left behind."""

import itertools
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from types import SimpleNamespace
from typing import Any

import dask
import pytest
import zarr
from distributed import Client
from distributed.scheduler import KilledWorker

from segment_slide.pipeline.blocks.attempts import TASKS_PER_THREAD, choose_batch, count_threads, outcome, run_tasks
from segment_slide.pipeline.errors import IncompleteError, OutputError, WorkerDiedError

THREADS = 2


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with Client(processes=False, n_workers=1, threads_per_worker=THREADS, dashboard_address="127.0.0.1:0") as client:
        yield client


@pytest.fixture(params=["serial", "cluster"])
def anywhere(request: pytest.FixtureRequest) -> Client | None:
    """Both ways to run."""
    return None if request.param == "serial" else request.getfixturevalue("client")


def square(item: int) -> int:
    return item * item


def square_but_odd_ones(item: int) -> int:
    if item % 2:
        raise LookupError(f"no square of {item}")
    return item * item


def wait_until(happened: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 60
    while not happened() and time.monotonic() < deadline:
        time.sleep(0.005)
    return happened()


class Counted:
    """An endless supply of items that knows how many were taken."""

    def __init__(self) -> None:
        self.taken = 0

    def __iter__(self) -> Iterator[int]:
        for item in itertools.count():
            self.taken += 1
            yield item


# --- results ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 5, 100])
def test_every_item_comes_back_once_with_its_result(anywhere: Client | None, count: int) -> None:
    found = list(run_tasks(anywhere, square, range(count)))
    assert sorted(found) == [(item, item * item, None) for item in range(count)]


def test_here_items_come_in_their_order() -> None:
    assert [item for item, _, _ in run_tasks(None, square, [5, 3, 9, 3])] == [5, 3, 9, 3]


def test_equal_items_are_run_each(anywhere: Client | None) -> None:
    assert list(run_tasks(anywhere, square, [7, 7, 7])) == [(7, 49, None)] * 3


def test_an_error_comes_back_with_its_item_and_stops_no_other(anywhere: Client | None) -> None:
    found = {item: (result, error) for item, result, error in run_tasks(anywhere, square_but_odd_ones, range(20))}
    assert len(found) == 20
    for item, (result, error) in found.items():
        if item % 2:
            assert result is None
            assert isinstance(error, LookupError)
            assert str(item) in str(error)
        else:
            assert (result, error) == (item * item, None)


def test_an_error_of_the_items_themselves_is_raised(anywhere: Client | None) -> None:
    def items() -> Iterator[int]:
        yield from range(3)
        raise OSError("listing failed")

    with pytest.raises(OSError, match="listing failed"):
        list(run_tasks(anywhere, square, items()))


def test_an_error_of_the_consumer_is_not_taken_for_an_items(anywhere: Client | None) -> None:
    results = run_tasks(anywhere, square, range(20))
    next(results)
    with pytest.raises(ArithmeticError, match="the consumer's"):
        results.throw(ArithmeticError("the consumer's"))  # type: ignore[attr-defined]


# --- bounds ----------------------------------------------------------------------------------------------------


def test_here_an_item_is_taken_only_when_its_result_is_asked_for() -> None:
    items = Counted()
    results = run_tasks(None, square, items)
    assert items.taken == 0
    for asked in range(1, 5):
        next(results)
        assert items.taken == asked


def test_on_a_cluster_a_bounded_number_of_tasks_is_outstanding(client: Client) -> None:
    items = Counted()
    results = run_tasks(client, square, items)
    most = THREADS * TASKS_PER_THREAD
    outstanding = []
    for finished in range(200):
        next(results)
        outstanding.append(items.taken - finished)
        assert len(client.futures) <= most + 1
    results.close()  # type: ignore[attr-defined]
    assert max(outstanding) <= most + 1
    assert min(outstanding) >= most  # and workers always have their next task at hand


def test_threads_of_all_workers_are_counted(client: Client) -> None:
    assert count_threads(client) == THREADS


# --- the end ---------------------------------------------------------------------------------------------------

gate = threading.Event()
started: list[int] = []


def wait_at_the_gate(item: int) -> int:
    started.append(item)
    if item:
        gate.wait(120)
    return item


def test_when_the_consumer_stops_tasks_that_have_not_begun_never_do(client: Client) -> None:
    gate.clear()
    started.clear()
    items = Counted()
    results = run_tasks(client, wait_at_the_gate, items)
    assert next(results)[0] == 0
    assert wait_until(lambda: len(started) == 1 + THREADS)  # item 0, and one at the gate per thread
    assert items.taken > len(started)
    results.close()  # type: ignore[attr-defined]
    assert wait_until(lambda: sum(client.run(count_tasks_of_worker).values()) <= THREADS)
    gate.set()
    assert wait_until(lambda: nothing_left(client))
    assert len(started) == 1 + THREADS


def test_without_stopping_the_gate_lets_the_other_tasks_in(client: Client) -> None:
    gate.clear()
    started.clear()
    results = run_tasks(client, wait_at_the_gate, range(6))
    next(results)
    gate.set()
    assert wait_until(lambda: len(started) == 6)
    assert len(list(results)) == 5


def count_tasks_of_worker(dask_worker: Any) -> int:
    return len(dask_worker.state.tasks)


def nothing_left(client: Client) -> bool:
    tasks: int = client.run_on_scheduler(count_tasks)
    return not client.futures and tasks == 0


def count_tasks(dask_scheduler: Any) -> int:
    return len(dask_scheduler.tasks)


@pytest.mark.parametrize("end", ["finished", "broken off", "failed"])
def test_nothing_stays_on_the_cluster(client: Client, end: str) -> None:
    match end:
        case "finished":
            list(run_tasks(client, square_but_odd_ones, range(50)))
        case "broken off":
            for item, _, _ in run_tasks(client, square, Counted()):
                if item > 20:
                    break
        case "failed":
            results = run_tasks(client, square, Counted())
            next(results)
            with pytest.raises(ZeroDivisionError):
                results.throw(ZeroDivisionError)  # type: ignore[attr-defined]
    assert wait_until(lambda: nothing_left(client))


def test_a_cancelled_future_is_an_error_and_not_a_result(client: Client) -> None:
    future = client.submit(square, 3)
    assert future.result() == 9
    assert outcome(future) == (9, None)
    cancelled = client.submit(square, 4)
    cancelled.cancel()
    result, error = outcome(cancelled)
    assert result is None
    assert isinstance(error, RuntimeError)
    assert "cancelled" in str(error)


class Ended:
    """What `outcome` asks of a future that ended with one of Dask's own errors, or without its scheduler."""

    def __init__(self, status: str, error: Exception | None = None, client_status: str = "running") -> None:
        self.status, self._error = status, error
        self.client = SimpleNamespace(status=client_status)

    def result(self) -> Any:
        """It was finished; then its worker died, and it was run again."""
        self.status = "error" if self._error else "cancelled"
        raise self._error or CancelledError

    def exception(self) -> Exception | None:
        return self._error


WORKER = SimpleNamespace(address="tcp://127.0.0.1:1")


@pytest.mark.parametrize("status", ["error", "finished"])
def test_a_task_whose_workers_died_is_told_in_words(status: str) -> None:
    result, error = outcome(Ended(status, KilledWorker("run_chunk-1a2b", WORKER, 3)))  # type: ignore[arg-type]
    assert result is None
    assert isinstance(error, WorkerDiedError)
    assert str(error) == "its worker died 4 times (out of memory, or killed)"


@pytest.mark.parametrize("status", ["cancelled", "lost", "finished"])
def test_without_a_scheduler_the_run_ends(status: str) -> None:
    with pytest.raises(IncompleteError, match=r"the Dask scheduler is gone: .* What is done is kept\.$"):
        outcome(Ended(status, client_status="connecting"))  # type: ignore[arg-type]


def test_an_error_of_its_own_found_when_a_result_is_computed_again_is_the_items() -> None:
    own = LookupError("no square of 3")
    assert outcome(Ended("finished", own)) == (None, own)  # type: ignore[arg-type]


def test_without_workers_for_too_long_the_run_ends_and_does_not_wait_for_each_item() -> None:
    with (
        dask.config.set({"distributed.scheduler.no-workers-timeout": "100ms"}),
        Client(processes=False, n_workers=0, dashboard_address="127.0.0.1:0") as client,
    ):
        with pytest.raises(
            IncompleteError, match=r"no worker is left, and none came within 0 s\. What is done is kept"
        ):
            list(run_tasks(client, square, range(3)))
        assert wait_until(lambda: nothing_left(client))


def test_a_client_that_never_connected_does_not_keep_results_from_this_one(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distributed.client._global_clients", weakref.WeakValueDictionary({0: client}))
    with dask.config.set(scheduler="threads"):  # and as it was, at the end
        with pytest.raises(OSError, match="Timed out|in vain|connect"):
            Client("tcp://127.0.0.1:1", timeout=0.2)  # Dask's default client from now on
        assert {item: result for item, result, _ in run_tasks(client, square, range(3))} == {0: 0, 1: 1, 2: 4}


def fail_as_zarr_does(number: int) -> int:
    """Odd numbers fail with an error that can be sent and not received."""
    if number % 2:
        raise OutputError("no room") from zarr.errors.ArrayNotFoundError(f"no array {number}")
    if number == 4:
        raise zarr.errors.ArrayNotFoundError("no array 4")
    return number


@pytest.mark.parametrize("batch", [1, 3, 100])
def test_items_of_a_batch_come_back_each_with_its_own_result_or_error(anywhere: Client | None, batch: int) -> None:
    attempts = run_tasks(anywhere, fail_as_zarr_does, range(7), batch=batch)
    found = {item: (result, error) for item, result, error in attempts}
    assert sorted(found) == list(range(7))
    assert [found[number][0] for number in range(7)] == [0, None, 2, None, None, None, 6]
    assert all(isinstance(found[number][1], OutputError) for number in (1, 3, 5))
    assert "no array 4" in str(found[4][1])


def test_a_batch_is_small_where_there_are_few_items(client: Client) -> None:
    threads = count_threads(client)
    assert choose_batch(None, 10**6) == choose_batch(client, 3) == 1
    assert 1 <= choose_batch(client, 40 * threads) <= choose_batch(client, 10**6) <= 64
