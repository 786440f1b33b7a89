"""Memory of this machine, as far as this process may use it.

`distributed.system.MEMORY_LIMIT` is the same number, but importing it takes longer than a plan may take.
"""

import contextlib
import os
import resource
from pathlib import Path

_CONTROL_GROUPS = (
    "memory/memory.limit_in_bytes",  # version 1
    "memory/memory.soft_limit_in_bytes",
    "memory.max",  # version 2
    "memory.high",
    "memory.low",
)


def memory_limit(control_groups: str = "/sys/fs/cgroup") -> int:
    """Smallest of the machine's memory (bytes), the limits of its control groups, and that of resident memory.

    Parameters
    ----------
    control_groups : str
        Folder of the control groups.
    """
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), resource.getrlimit(resource.RLIMIT_RSS)[1]]
    for name in _CONTROL_GROUPS:
        with contextlib.suppress(OSError, ValueError):  # not there, or "max"
            limits.append(int(Path(control_groups, name).read_text()))
    return min(limit for limit in limits if limit > 0)
