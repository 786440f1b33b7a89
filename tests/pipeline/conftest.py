"""One set of worker processes for all tests of rooms that run their blocks on Dask."""

from collections.abc import Iterator

import dask
import pytest
from distributed import Client, LocalCluster

from tests.processes import IDLE_QUIETLY


@pytest.fixture(scope="session")
def worker_processes() -> Iterator[LocalCluster]:
    """Two worker processes of two threads each."""
    with dask.config.set({**IDLE_QUIETLY, "distributed.worker.profile.enabled": False}):
        cluster = LocalCluster(n_workers=2, threads_per_worker=2, dashboard_address="127.0.0.1:0")
    with cluster:
        yield cluster


@pytest.fixture(scope="module")
def client(worker_processes: LocalCluster) -> Iterator[Client]:
    """Their client; it is Dask's default one, so it ends with the file that asked for it."""
    with Client(worker_processes) as client:
        yield client
