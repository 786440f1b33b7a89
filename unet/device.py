"""Which device and precision this machine has, decided once; knows nothing of networks."""

import torch

from unet.errors import DeviceError

PRECISIONS = ("auto", "float32", "bfloat16")


def resolve_device(device: str = "auto") -> torch.device:
    """The torch device of "auto" (the first GPU, else the CPU), "cpu" or "cuda".

    Raises
    ------
    DeviceError
        If CUDA is asked for and this machine has none, or the device is another one.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise DeviceError(f"device={device!r}: torch sees no CUDA GPU on this machine; expected a GPU, or 'cpu'.")
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise DeviceError(f"device={device!r}: expected 'auto', 'cpu' or 'cuda'.") from error
    if found.type not in ("cpu", "cuda"):
        raise DeviceError(f"device={device!r}: expected 'auto', 'cpu' or 'cuda'; nothing else is tested.")
    return found


def resolve_precision(precision: str, device: torch.device) -> str:
    """Precision of "auto" on a device: bfloat16 where the hardware multiplies in it, else float32.

    Raises
    ------
    DeviceError
        If `precision` is not one of `PRECISIONS`.
    """
    if precision not in PRECISIONS:
        raise DeviceError(f"precision={precision!r}, expected one of {PRECISIONS}.")
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    # Without these instructions bfloat16 is emulated and slower than float32; torch has no public query.
    return "bfloat16" if torch.cpu._is_avx512_bf16_supported() else "float32"
