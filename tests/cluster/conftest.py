"""Small clusters inside this process, of which strangers and clients are tried."""

import contextlib

import dask
import pytest


@pytest.fixture(scope="session")
def start_scheduler():
    """Start a scheduler with workers as threads; keywords are LocalCluster's."""
    from distributed import LocalCluster

    def start(**options) -> contextlib.AbstractContextManager:
        values = {
            "n_workers": 2,
            "threads_per_worker": 3,
            "memory_limit": 1 << 30,
            "processes": False,
            "protocol": "tcp://",  # without processes Dask would not listen at all
            "host": "127.0.0.1",
            "dashboard_address": "127.0.0.1:0",
            "scheduler_kwargs": {"dashboard": False},
            "worker_dashboard_address": None,
            **options,
        }
        return LocalCluster(**values)

    return start


@pytest.fixture(scope="module")
def scheduler(start_scheduler):
    # Dask's defaults, whatever workers of ours that other tests hold have set in this process
    defaults = {"distributed.worker.memory.pause": 0.8, "distributed.worker.memory.terminate": 0.95}
    with dask.config.set(defaults), start_scheduler() as cluster:
        yield cluster
