"""Processes that a test looks for and that end while it looks, and workers that many tests share."""

import psutil

# Dask's clocks in a process that waits for the next test: by default they take 3 % of a core, in every process. To be
# set while a cluster is started, which is when they are read.
IDLE_QUIETLY = {"distributed.admin.tick.interval": "1s", "distributed.admin.system-monitor.interval": "10s"}


def spawned_below(parent: psutil.Process) -> list[psutil.Process]:
    """All processes below one that multiprocessing started: workers."""
    found = []
    for process in parent.children(recursive=True):
        try:
            if "multiprocessing.spawn" in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:  # ended in the meantime, or nobody has asked how yet
            continue
    return found
