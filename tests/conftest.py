"""Settings for all tests. Fixtures live beside the tests that use them."""

import os
import signal
from typing import Any

import hypothesis
import pytest

# One core per process, subprocesses included, read when torch is first imported. The test processes share the cores
# already; more threads than cores wait for each other, and tiny networks then take 20 times as long. Tests about
# threads set their own number.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Once a test has imported Prefect, what commands log in this process is of no flow's run.
os.environ.setdefault("PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW", "ignore")

# The same examples on every run, and no time limit for them: shared machines stall.
hypothesis.settings.register_profile(
    "repeatable",
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("repeatable")

# A shell that starts pytest in the background lets it ignore Ctrl-C; what tests start would inherit that and never end.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _variables_of_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs that a test starts import from their own folder, although workers that tests share do not.

    Dask sets the variables of its workers in the process that starts them, for as long as they live.
    """
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)


MARKED_PATIENCE_S = 1800
DEPLOYED = "tests/flows/deployed/"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `--dist loadfile` one process takes all files of deployments: they share a Prefect server."""
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class OneServer(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return DEPLOYED if nodeid.startswith(DEPLOYED) else str(super()._split_scope(nodeid))

    return OneServer(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give tests of real systems more time than pyproject.toml does, unless they say how much.

    For what hangs, on a machine that is busy.
    """
    for item in items:
        is_marked = any(item.get_closest_marker(name) for name in ("slow", "slurm", "browser", "exhaustive"))
        if is_marked and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(MARKED_PATIENCE_S))
