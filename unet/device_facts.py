"""What a plan must know of a device, without torch: importing torch takes longer than all else that a plan does."""

import functools
import importlib.metadata
import sys
from dataclasses import dataclass
from pathlib import Path

_GPU_DRIVERS = ("/proc/driver/nvidia/version", "/dev/nvidiactl", "/dev/kfd", "/dev/dxg")  # dxg: Windows' Linux


@dataclass(frozen=True)
class DeviceFacts:
    """What determines the bits of a result: "cpu" or "cuda", its name (`describe_processor`), and the precision."""

    kind: str
    processor: str
    precision: str


def guess_device(device: str, precision: str) -> DeviceFacts | None:
    """What `unet.device.describe_device` would find, but for the processor's name; None if only torch can tell.

    Parameters
    ----------
    device : str
        "auto", "cpu" or "cuda".
    precision : str
        "auto", "float32" or "bfloat16".

    Returns
    -------
    DeviceFacts or None
        None on a machine with a GPU, unless the CPU is asked for; and where the processor's instructions are unknown.
    """
    if device == "cuda" or (device == "auto" and _may_have_gpu()):
        return None
    if device not in ("auto", "cpu") or precision not in ("auto", "float32", "bfloat16"):
        return None  # refused with a message
    if precision != "auto":
        return DeviceFacts("cpu", "", precision)
    has_bfloat16 = _has_bfloat16()
    return None if has_bfloat16 is None else DeviceFacts("cpu", "", "bfloat16" if has_bfloat16 else "float32")


def _may_have_gpu() -> bool:
    """Whether torch could see a GPU: it is built for one, and a driver is there."""
    is_built_for_cpu = importlib.metadata.version("torch").endswith("+cpu")
    return not is_built_for_cpu and any(Path(driver).exists() for driver in _GPU_DRIVERS)


@functools.cache
def _has_bfloat16() -> bool | None:
    """Whether this CPU multiplies in bfloat16, as `unet.device.resolve_precision` asks; None if unknown."""
    try:
        described = Path("/proc/cpuinfo").read_text() if sys.platform == "linux" else ""
    except OSError:
        return None
    flags = [line for line in described.splitlines() if line.startswith("flags")]
    return "avx512_bf16" in flags[0].split() if flags else None
