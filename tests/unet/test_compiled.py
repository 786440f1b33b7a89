"""Compiled loops work where nothing can be kept on disk."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SCRIPT = """
import numpy as np
from segment_slide.unet.weight_map import cut_ridges
print(cut_ridges(np.array([[1, 1, 2, 2]])).tolist())
"""


def test_loops_are_compiled_where_no_folder_can_be_written():
    # the only place left to numba is one that IPython alone has
    environment = {**os.environ, "NUMBA_CACHE_LOCATOR_CLASSES": "IPythonCacheLocator", "PYTHONPATH": str(ROOT)}
    run = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "[[1, 1, 0, 2]]"


def test_the_setting_of_this_test_would_stop_numba():
    """Negative control."""
    environment = {**os.environ, "NUMBA_CACHE_LOCATOR_CLASSES": "IPythonCacheLocator", "PYTHONPATH": str(ROOT)}
    script = "from numba import njit\nfrom segment_slide.unet import geometry\nnjit(cache=True)(geometry.round_up)"
    run = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert "no locator available" in run.stderr
