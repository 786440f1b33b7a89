"""Memory of a pass, measured in a process of its own: ``python -m segment_slide.unet.importing.cost FILE SIZE...``.

Nobody knows which maps of a foreign network are alive at the same time, so two sizes are run and the line through them
is taken.
"""

import contextlib
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from segment_slide.unet.engines.onnx_network import make_session
from segment_slide.unet.errors import CheckpointError
from segment_slide.unet.geometry import round_up

_KIB = 1024
_TIMEOUT_S = 300
_STEP_BYTES = 8 << 20


def peak_bytes(path: Path, in_channels: int, sizes: Sequence[int]) -> int:
    """Bytes that one pass adds to a process that has loaded the network.

    Raises
    ------
    CheckpointError
        If the pass fails there.
    """
    words = [sys.executable, "-P", "-m", __name__, str(path), str(in_channels), *map(str, sizes)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(  # noqa: S603
            words, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False, env=environment
        )
    except subprocess.TimeoutExpired as error:
        raise CheckpointError(f"a pass of {' x '.join(map(str, sizes))} px takes more than {_TIMEOUT_S} s.") from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it was killed"])[-1]
        raise CheckpointError(
            f"a pass of {' x '.join(map(str, sizes))} px failed while its memory was measured: {last}"
        )
    return int(done.stdout)


def fit(smaller: tuple[int, int], larger: tuple[int, int]) -> tuple[float, int]:
    """Bytes per pixel and fixed bytes of the line through two points (pixels, bytes).

    Both are rounded up, to two digits and to whole steps of 8 MiB, because measurements vary by some pages.

    >>> fit((1000, 13_000_000), (3000, 15_480_000))
    (1300.0, 16777216)
    """
    slope = max(1.0, (larger[1] - smaller[1]) / (larger[0] - smaller[0]))
    digit = 10 ** (math.floor(math.log10(slope)) - 1)
    return float(math.ceil(slope / digit) * digit), round_up(max(1, int(smaller[1] - slope * smaller[0])), _STEP_BYTES)


def measure_cost(path: Path, in_channels: int, smaller: Sequence[int], larger: Sequence[int]) -> tuple[float, int]:
    """Bytes per pixel of a tile with its halos, and bytes that do not grow with it."""
    found = [(math.prod(sizes), peak_bytes(path, in_channels, sizes)) for sizes in (smaller, larger)]
    return fit(*found)


def _reset_peak() -> int:
    """Forget the peak of loading the network; return the bytes that this process has in memory now."""
    with contextlib.suppress(OSError):  # where the kernel does not allow it, the peak is at least that of loading
        Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _status(name: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * _KIB


def _main(path: str, in_channels: str, *sizes: str) -> None:
    session = make_session(path)
    image = np.zeros((1, int(in_channels), *map(int, sizes)), np.float32)
    before = _reset_peak()
    session.run(None, {session.get_inputs()[0].name: image})
    sys.stdout.write(str(max(0, _status("VmHWM") - before)))


if __name__ == "__main__":
    _main(*sys.argv[1:])
