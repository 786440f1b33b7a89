"""Outputs that are made once; tests damage copies of them."""

import shutil
from pathlib import Path

import pytest

from tests.integrity.support import make_segmentation, make_training


@pytest.fixture(scope="session")
def segmented(tmp_path_factory) -> Path:
    """See `make_segmentation`; nothing may change it."""
    return make_segmentation(tmp_path_factory.mktemp("segmented"))


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Path:
    """See `make_training`; nothing may change it."""
    return make_training(tmp_path_factory.mktemp("trained"))


@pytest.fixture
def slide(segmented, tmp_path) -> Path:
    """A copy, at the place that the records name."""
    return shutil.copytree(segmented, tmp_path / "slide")
