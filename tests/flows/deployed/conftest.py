"""One Prefect server with a worker for all tests of deployments, and inputs small enough for them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.flows.deployed.support import Site
from tests.flows.support import write_model


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """`prefect server start`, `prefect deploy --all` and `prefect worker start`, for real."""
    running = Site(tmp_path_factory.mktemp("prefect"))
    try:
        running.begin()
        yield running
    finally:
        running.end()


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2D, one channel, two classes, depth 1: stride 2, halo 8."""
    return write_model(tmp_path_factory.mktemp("model") / "cells.safetensors")
