"""One checkpoint and one set of worker processes for all tests of commands that do not test these themselves."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from distributed import Client, Worker

import segment_slide.flows.instances
import segment_slide.flows.segment
import segment_slide.flows.training_data
import segment_slide.flows.weight_maps
from segment_slide.cluster.kinds.local import local_client, plan_local
from segment_slide.cluster.settings import SETTINGS
from tests.flows.support import write_model
from tests.processes import IDLE_QUIETLY


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> Path:
    """2D, one channel, two classes, depth 1: stride 2, halo 8."""
    return write_model(tmp_path_factory.mktemp("model") / "cells.safetensors")


@pytest.fixture(scope="session")
def workers():
    """Borrowed in place of `open_cluster`: real workers, started once."""
    with contextlib.ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in IDLE_QUIETLY.items():
                patch.setitem(SETTINGS, name, value)
            client = stack.enter_context(local_client(plan_local(1)))

        @contextlib.contextmanager
        def borrow(*_: object, **__: object) -> Iterator[Client]:
            try:
                yield client
            finally:
                _wait_until_idle(client)

        yield borrow


def _wait_until_idle(client: Client) -> None:
    """A command's own workers are gone when it ends; these must at least have finished what was cancelled."""
    while any(client.run(_count_running).values()):
        time.sleep(0.01)


def _count_running(dask_worker: Worker) -> int:
    return len(dask_worker.state.all_running_tasks)


@pytest.fixture
def warm(workers, monkeypatch):
    """Let commands run by `run_here` use workers that are already there."""
    for flow in (
        segment_slide.flows.instances,
        segment_slide.flows.segment,
        segment_slide.flows.training_data,
        segment_slide.flows.weight_maps,
    ):
        monkeypatch.setattr(flow, "open_cluster", workers)
