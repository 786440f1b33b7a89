"""Processes that a test looks for, and that end while it looks."""

import psutil


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
