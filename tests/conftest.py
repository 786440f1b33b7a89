"""Settings for all tests. Fixtures live beside the tests that use them."""

import os

import hypothesis
import pytest

# One core per process, subprocesses included, read when torch is first imported. The test processes share the cores
# already; more threads than cores wait for each other, and tiny networks then take 20 times as long. Tests about
# threads set their own number.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# The same examples on every run, and no time limit per example: shared machines stall.
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("repeatable")

MARKED_PATIENCE_S = 1800


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Say of tests of real systems what holds on any machine, and what may run side by side.

    They get more time than pyproject.toml gives: for what hangs, on a machine that is busy. With ``--dist loadgroup``
    the tests of one file share what they start; those of SLURM share its one queue.
    """
    for item in items:
        if any(item.get_closest_marker(name) for name in ("slow", "slurm", "browser")):
            item.add_marker(pytest.mark.timeout(MARKED_PATIENCE_S), append=False)
            group = "slurm" if item.get_closest_marker("slurm") else item.location[0]
            item.add_marker(pytest.mark.xdist_group(group))
