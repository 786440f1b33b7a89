"""The memory of this machine against what distributed finds, and limits of control groups."""

from pathlib import Path

import pytest
from distributed import system

from segment_slide.cluster.machine import memory_limit


def test_the_limit_is_that_of_distributed() -> None:
    assert memory_limit() == system.memory_limit()


@pytest.mark.parametrize("name", ["memory.max", "memory.high", "memory/memory.limit_in_bytes"])
@pytest.mark.parametrize(("text", "expected"), [("1073741824\n", 1 << 30), ("max\n", None), ("0\n", None)])
def test_a_control_group_may_lend_less(tmp_path: Path, name: str, text: str, expected: int | None) -> None:
    whole = memory_limit(str(tmp_path))
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    assert memory_limit(str(tmp_path)) == (expected or whole)
