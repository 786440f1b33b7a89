"""One set of workers for several stages: the same while they ask for the same and nothing fails."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace

import pytest

from segment_slide.cluster.spec import ClusterSpec
from segment_slide.flows import workers
from segment_slide.flows.workers import SHARED, sharing_workers

SPEC = ClusterSpec(kind="local", workers=1)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is opened and closed, in order; a client is a name for what a stage would be given."""
    events: list[str] = []

    @contextlib.contextmanager
    def connect(spec: ClusterSpec) -> Iterator[SimpleNamespace]:
        number = sum(event.startswith("open") for event in events)
        events.append(f"open {number} of {spec.workers}")
        try:
            yield SimpleNamespace(number=number, status="running")
        finally:
            events.append(f"close {number}")

    monkeypatch.setattr(workers, "connect", connect)
    return events


def stage(spec: ClusterSpec = SPEC) -> int:
    shared = SHARED.get()
    assert shared is not None
    with shared.connect(spec) as client:
        return client.number


def test_stages_that_ask_for_the_same_get_the_same_workers(opened: list[str]) -> None:
    with sharing_workers():
        assert [stage(), stage(), stage()] == [0, 0, 0]
        assert opened == ["open 0 of 1"]
    assert opened == ["open 0 of 1", "close 0"]
    assert SHARED.get() is None


def test_a_stage_that_asks_for_others_gets_those_and_the_first_are_ended_before(opened: list[str]) -> None:
    with sharing_workers():
        assert [stage(), stage(replace(SPEC, workers=2))] == [0, 1]
    assert opened == ["open 0 of 1", "close 0", "open 1 of 2", "close 1"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_workers_of_a_stage_that_failed_are_not_used_again(opened: list[str], error: type[BaseException]) -> None:
    with sharing_workers():
        shared = SHARED.get()
        assert shared is not None
        with pytest.raises(error), shared.connect(SPEC):
            raise error
        assert opened == ["open 0 of 1", "close 0"]
        assert stage() == 1


def test_workers_that_are_gone_are_replaced(opened: list[str]) -> None:
    with sharing_workers():
        shared = SHARED.get()
        assert shared is not None
        with shared.connect(SPEC) as client:
            client.status = "closed"
        assert stage() == 1


def test_only_the_outermost_block_ends_them(opened: list[str]) -> None:
    with sharing_workers():
        with sharing_workers():
            stage()
        assert opened == ["open 0 of 1"]
        stage()
    assert opened == ["open 0 of 1", "close 0"]
