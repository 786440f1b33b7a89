"""Python runs this first in every process whose PYTHONPATH holds its folder; it disturbs whoever segments a block.

KILLED_BLOCK names a block, as "1,2", whose process is killed; KILLED_NOTES a file that gets a line for each death.
While HOLD_FILE, a path, exists, no block is segmented. Without them, nothing happens.
"""

import importlib.util
import os
import signal
import sys
import time
from importlib.abc import MetaPathFinder
from pathlib import Path

MODULE = "pipeline.block"


class Disturber(MetaPathFinder):
    """Loads the module as it is, then changes it."""

    def find_spec(self, fullname, path, target=None):
        if fullname != MODULE:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        load = spec.loader.exec_module
        spec.loader.exec_module = lambda module: (load(module), disturb(module))
        return spec


def disturb(module):
    index_of_death = os.environ.get("KILLED_BLOCK")
    hold_file = os.environ.get("HOLD_FILE")
    segment_block = module.segment_block

    def disturbed(job, pixels, index):
        if ",".join(map(str, index)) == index_of_death:
            with Path(os.environ["KILLED_NOTES"]).open("a") as notes:
                notes.write(f"{os.environ.get('SLURM_JOB_ID', '-')} {os.getpid()}\n")
            os.kill(os.getpid(), signal.SIGKILL)
        while hold_file and Path(hold_file).exists():
            time.sleep(0.05)
        return segment_block(job, pixels, index)

    module.segment_block = disturbed


if os.environ.get("KILLED_BLOCK") or os.environ.get("HOLD_FILE"):
    sys.meta_path.insert(0, Disturber())
