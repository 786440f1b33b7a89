"""Python runs this first in every process whose PYTHONPATH holds its folder; it disturbs whoever works there.

KILLED_BLOCK names a block, as "1,2", whose process is killed; KILLED_NOTES a file that gets a line for each death.
While HOLD_FILE, a path, exists, no block is segmented.
BRAKED_FOLDER is the end of a folder's path. Once BRAKED_FROM files are below it, each further one takes BRAKE_S longer,
so that whoever sees so many has the time to do something in the middle; as long as BRAKE_FILE, a path, exists.
Without them, nothing happens.
"""

import importlib.util
import os
import signal
import sys
import time
from importlib.abc import MetaPathFinder
from pathlib import Path

MODULE = "segment_slide.pipeline.segmentation.block"
BRAKE_S = 1.0


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


def brake(folder, from_files, brake_file):
    """Let finished files appear as ever, and whoever has written one go on later."""
    rename = Path.replace

    def replace(path, target):
        renamed = rename(path, target)
        before, found, _ = str(target).partition(folder)
        if found and count_files(before + found) >= from_files:
            ends = time.monotonic() + BRAKE_S
            while brake_file.exists() and time.monotonic() < ends:
                time.sleep(0.02)
        return renamed

    Path.replace = replace


def count_files(path):
    if os.path.isfile(path):
        return 1
    return sum(not name.endswith(".partial") for _, _, names in os.walk(path) for name in names)


if os.environ.get("KILLED_BLOCK") or os.environ.get("HOLD_FILE"):
    sys.meta_path.insert(0, Disturber())
if os.environ.get("BRAKE_FILE"):
    brake(os.environ["BRAKED_FOLDER"], int(os.environ["BRAKED_FROM"]), Path(os.environ["BRAKE_FILE"]))
