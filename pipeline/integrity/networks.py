"""Models and training states: whole safetensors files whose tensors fit their headers and are finite."""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segment_slide.pipeline.integrity.finding import Fault, Finding, Found, Made, Note, Stage, alone
from segment_slide.pipeline.storage.store import join
from segment_slide.unet.checkpoint import HEADER_KEY, open_checkpoint
from segment_slide.unet.errors import CheckpointError
from segment_slide.unet.file_checksum import FIELD, expect_as_written

if TYPE_CHECKING:
    import numpy as np

STATE_KEY, STATE_NAME = "state", "state.safetensors"
_DIGITS = 64
_HEXADECIMAL = re.compile(r"[0-9a-f]{64}")


def read_header(path: str) -> dict[str, str] | None:
    """The texts in the header of a safetensors file; None if it is no such file."""
    from safetensors import SafetensorError, safe_open

    try:
        with Path(path).open("rb") as file, safe_open(f"/dev/fd/{file.fileno()}", framework="numpy") as content:
            return dict(content.metadata() or {})
    except (SafetensorError, OSError, ValueError):
        return None


def check_checksum(path: str, key: str, made: Made) -> Found:
    """Compare a file with the checksum in its header; `key` is the name of the header's text."""
    try:
        content = json.loads((read_header(path) or {})[key])
        expect_as_written(Path(path))
    except (CheckpointError, KeyError, ValueError) as error:
        yield Finding(Fault.CHANGED, path, "", f"holds other bytes than were written ({error})", made)
        return
    digits = {name: value for name, value in content.items() if isinstance(value, str) and len(value) == _DIGITS}
    if FIELD in content and _HEXADECIMAL.fullmatch(str(content[FIELD])) is None:
        yield Finding(Fault.CHANGED, path, "", "has a damaged checksum in its header", made)
    elif FIELD not in content and digits:  # the field's own name is damaged
        yield Finding(Fault.CHANGED, path, "", f"has no {FIELD} in its header, but {min(digits)!r}", made)
    elif FIELD not in content:
        yield Note(path, "No checksum of this file is known: the version that made it wrote none.")


@alone
def check_model(path: str) -> Found:
    """Check that a checkpoint's header can be read, and that its weights are finite and fit the architecture."""
    import numpy as np

    made = Made(Stage.TRAIN, path)
    yield from check_checksum(path, HEADER_KEY, made)
    try:
        checkpoint = open_checkpoint(path)
    except CheckpointError as error:
        yield Finding(Fault.UNREADABLE, path, "", f"is no whole model: {error}", made)
        return
    tensors = _read_tensors(path)
    wanted = _expected_tensors(checkpoint.config.architecture)
    found = {name: tuple(values.shape) for name, values in tensors.items()}
    if found != wanted:
        differing = sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name))
        yield Finding(
            Fault.CONTRADICTION, path, "", f"has weights that do not fit its architecture: {differing[0]}", made
        )
    for name, values in sorted(tensors.items()):
        if not np.isfinite(values).all():
            yield Finding(Fault.CONTRADICTION, path, "", f"holds values of {name} that are NaN or infinite", made)


def _read_tensors(path: str) -> "dict[str, np.ndarray]":
    from safetensors import safe_open

    with Path(path).open("rb") as file, safe_open(f"/dev/fd/{file.fileno()}", framework="numpy") as content:
        return {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118, it is no mapping


def _expected_tensors(architecture: Any) -> dict[str, tuple[int, ...]]:
    import torch

    from segment_slide.unet.model import UNet

    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in UNet(architecture).state_dict().items()}


@alone
def check_state(path: str) -> Found:
    """Check that a training state can be read whole, and that its tensors fit each other."""
    import numpy as np

    made = Made(Stage.TRAIN, path)
    yield from check_checksum(path, STATE_KEY, made)
    header = json.loads((read_header(path) or {})[STATE_KEY])
    tensors = _read_tensors(path)
    by_group: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, values in tensors.items():
        group, _, rest = name.partition("/")
        by_group.setdefault(group, {})[rest] = tuple(values.shape)
    weights = by_group.get("weights", {})
    if by_group.get("best") not in (None, weights):
        yield Finding(Fault.CONTRADICTION, path, "", "has best weights of other shapes than its weights", made)
    if bool(by_group.get("best")) != (header["best"] is not None):
        yield Finding(Fault.CONTRADICTION, path, "", "has best weights without their scores, or the reverse", made)
    steps, validations = len(tensors["losses"]), header["validations"]
    if validations and validations[-1]["step"] > steps:
        yield Finding(Fault.CONTRADICTION, path, "", "was validated after more steps than it has losses", made)
    wanted = header["identity"].get("architecture")
    if isinstance(wanted, dict) and weights != _expected_tensors(_architecture(wanted)):
        yield Finding(Fault.CONTRADICTION, path, "", "has weights that do not fit its architecture", made)
    for name, values in sorted(tensors.items()):
        if not np.isfinite(values).all():
            yield Finding(Fault.CONTRADICTION, path, "", f"holds values of {name} that are NaN or infinite", made)


@alone
def check_training(folder: str) -> Found:
    """Check the state in the folder of a training."""
    path = join(folder, STATE_NAME)
    if Path(path).exists():
        yield from check_state(path)


def _architecture(content: dict[str, Any]) -> Any:
    from segment_slide.unet.architecture import Architecture

    return Architecture(**content)


def find_kind(header: dict[str, str]) -> str:
    """What a safetensors file is: "model", "state" or ""."""
    return "model" if HEADER_KEY in header else "state" if STATE_KEY in header else ""
