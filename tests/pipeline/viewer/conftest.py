"""The browser that tests of the viewer look with."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.browser import AS_STORED, WITHOUT_GPU, open_browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with open_browser(*WITHOUT_GPU, *AS_STORED) as browser:
        yield browser
