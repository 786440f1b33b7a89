"""Which device, precision and memory layout to use, decided in one place; this file knows nothing of networks."""

import torch

from segment_slide.unet.device_facts import DeviceFacts
from segment_slide.unet.errors import DeviceError

PRECISIONS = ("auto", "float32", "bfloat16")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
# Convolutions are 1.1 to 1.6 times as fast in this layout as with channels first (benchmarks/limits.py).
CHANNELS_LAST = {2: torch.channels_last, 3: torch.channels_last_3d}  # by the number of spatial axes


def resolve_device(device: str = "auto") -> torch.device:
    """Return the torch device for "auto" (the first GPU, else the CPU), "cpu" or "cuda".

    Raises
    ------
    DeviceError
        If CUDA is requested and this machine has none, or if the name is not one of these.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise DeviceError(f"device={device!r}: torch sees no CUDA GPU on this machine; expected a GPU, or 'cpu'.")
    if device not in ("cpu", "cuda"):
        raise DeviceError(
            f"device={device!r}: expected 'auto', 'cpu' or 'cuda' (which GPU: the variable CUDA_VISIBLE_DEVICES)."
        )
    return torch.device(device)


def describe_processor(device: torch.device) -> str:
    """Name what determines the last bits of a score: the GPU, or the instructions that oneDNN uses on this CPU.

    >>> describe_processor(torch.device("cpu")).split()[0] in ("AVX512", "AVX2", "DEFAULT", "NO")
    True
    """
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    has = {"bf16": torch.cpu._is_avx512_bf16_supported(), "amx": torch.cpu._is_amx_tile_supported()}
    return " ".join([torch.backends.cpu.get_cpu_capability(), *(name for name, there in has.items() if there)])


def multiplies_in_bfloat16(device: torch.device) -> bool:
    """Whether a GPU or this machine's processor has instructions for bfloat16, and does not emulate it.

    oneDNN uses the tiles of AMX only where there are the instructions of AVX-512 for bfloat16 too.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported()  # torch has no public query


def resolve_precision(precision: str, device: torch.device) -> str:
    """Resolve "auto" to bfloat16 if the hardware multiplies in it, else to float32.

    bfloat16 takes half the time; 99.9 % of the labels of real slices equal those of float32 (benchmarks/limits.py).

    Raises
    ------
    DeviceError
        If `precision` is not one of `PRECISIONS`.
    """
    if precision not in PRECISIONS:
        raise DeviceError(f"precision={precision!r}, expected one of {PRECISIONS}.")
    if precision != "auto":
        return precision
    return "bfloat16" if multiplies_in_bfloat16(device) else "float32"


def describe_device(device: str = "auto", precision: str = "auto") -> DeviceFacts:
    """Resolve device and precision on this machine.

    Raises
    ------
    DeviceError
        See `resolve_device` and `resolve_precision`.
    """
    found = resolve_device(device)
    return DeviceFacts(found.type, describe_processor(found), resolve_precision(precision, found))


def use_one_core() -> None:
    """Make this thread's forward passes run on one core.

    The number is read first because of a side effect: at a thread's first use of torch, the thread takes over the
    number that the process set last. If that happened after the second line, it would replace the 1.
    """
    torch.get_num_threads()
    torch.set_num_threads(1)


def use_exact_float32() -> None:
    """Make CUDA convolutions use float32 and give repeatable results.

    By default cuDNN rounds float32 inputs to TF32 (10 bits of mantissa), which would change labels between tile sizes.
    It may also choose algorithms whose sums depend on timing. The setting holds for the whole process.
    """
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
