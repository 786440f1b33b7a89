"""The state from which a killed training resumes: one safetensors file, always replaced completely, no pickle.

It holds weights, the optimiser's sums, the best weights so far and the history. Everything random in a step is a
function of the step, so this is enough to end with the same weights as an undisturbed training.
"""

import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial as bind
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor

from segment_slide.unet.architecture import Architecture
from segment_slide.unet.checkpoint import load_tensors
from segment_slide.unet.errors import CheckpointError, TrainingDataError
from segment_slide.unet.file_checksum import EMPTY, FIELD, expect_as_written, with_checksum
from segment_slide.unet.train_settings import TrainSettings
from segment_slide.unet.typed import convert, from_object, parse_header

FORMAT = "segment-slide-training-state"
_KEY = "state"
# what reading a file raises that is cut off, or was edited; SafetensorError and CheckpointError among them
_DAMAGED = (SafetensorError, OSError, LookupError, ValueError, TypeError, AttributeError, ArithmeticError)
PROCESSORS = "processors"  # key of the list in an identity (`unet.train_elsewhere`); it is not compared
_PROCESSOR_HINT = (
    " Or add `accept_processor`: the training goes on, the last bits of its sums differ from there on, and its record "
    "says from which step on it was trained on which processor."
)


@dataclass(frozen=True)
class Validation:
    """Scores of the network on samples that it does not learn from.

    Attributes
    ----------
    step : int
        Number of steps done.
    loss : float
        Weighted loss: nats per pixel.
    iou : float
        Mean intersection over union of the foreground classes; 1 for a class that occurs in neither truth nor result.
    pixel_error : float
        Share of annotated pixels that get a wrong class.
    """

    step: int
    loss: float
    iou: float
    pixel_error: float

    def better_than(self, other: "Validation | None", monitor: str) -> bool:
        """Whether this one is better: lower loss, or higher IoU; a loss that is not finite is never better."""
        if not math.isfinite(self.loss):
            return False
        if other is None:
            return True
        return self.loss < other.loss if monitor == "loss" else self.iou > other.iou


@dataclass(frozen=True)
class History:
    """Losses and validations so far.

    Attributes
    ----------
    losses : tuple of float
        Mean loss of each step's tiles, before its update: nats per pixel.
    validations : tuple of Validation
        All validations, in order.
    best : Validation or None
        The best validation; its weights are kept.
    stopped : bool
        Whether the training ended early because validations did not improve.
    """

    losses: tuple[float, ...] = ()
    validations: tuple[Validation, ...] = ()
    best: Validation | None = None
    stopped: bool = False

    @property
    def steps(self) -> int:
        """Steps done."""
        return len(self.losses)

    def add(self, validation: Validation, monitor: str, patience: int) -> "History":
        """Return the history with one more validation."""
        best = validation if validation.better_than(self.best, monitor) else self.best
        waited = [v for v in (*self.validations, validation) if best is None or v.step > best.step]
        stopped = 0 < patience <= len(waited)
        return replace(self, validations=(*self.validations, validation), best=best, stopped=stopped)


@dataclass(frozen=True)
class TrainingState:
    """Everything that the next step depends on.

    Attributes
    ----------
    identity : dict
        Settings, samples and network, as JSON: the state of another training is refused.
    history : History
        Losses and validations.
    weights, best, optimiser : dict of Tensor
        Tensors of the network; of the best validation (empty before the first); of the optimiser (``<number>.<name>``).
    """

    identity: Mapping[str, Any]
    history: History = History()
    weights: Mapping[str, Tensor] = field(default_factory=dict)
    best: Mapping[str, Tensor] = field(default_factory=dict)
    optimiser: Mapping[str, Tensor] = field(default_factory=dict)


def save_state(path: Path, state: TrainingState) -> None:
    """Write a state completely or not at all (`OSError`: the disk is full); it is on the disk when this returns."""
    from safetensors.torch import save

    history = state.history
    header = {
        "format": FORMAT,
        "identity": state.identity,
        "validations": [vars(validation) for validation in history.validations],
        "best": vars(history.best) if history.best else None,
        "stopped": history.stopped,
        FIELD: EMPTY,
    }
    tensors = {"losses": torch.tensor(history.losses, dtype=torch.float64)}
    for prefix, group in (("weights", state.weights), ("best", state.best), ("optimiser", state.optimiser)):
        tensors |= {f"{prefix}/{name}": tensor.detach().cpu().contiguous() for name, tensor in group.items()}
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as file:
            file.write(with_checksum(save(tensors, metadata={_KEY: json.dumps(header, sort_keys=True)})))
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def load_state(
    path: Path, identity: Mapping[str, Any], compared: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict
) -> TrainingState | None:
    """The state of a training that was interrupted, or None if it has none.

    Parameters
    ----------
    path : Path
        Its file.
    identity : mapping
        Of this training, as JSON.
    compared : callable
        From an identity to what of it is compared.

    Raises
    ------
    TrainingDataError
        If the state belongs to another training; the message names what differs.
    CheckpointError
        If the file is damaged.
    """
    from safetensors import safe_open

    if not path.exists():
        return None
    try:
        with safe_open(path, framework="numpy") as file:
            header = parse_header((file.metadata() or {})[_KEY])
        expect_as_written(path)
        tensors = load_tensors(path)
        begun = dict(header["identity"])
        wanted = json.loads(json.dumps(identity))
        flat, flat_wanted = (_flatten(_with_defaults(compared(kept))) for kept in (begun, wanted))
    except _DAMAGED as error:
        raise _damaged(path, error) from error
    _compare(flat, flat_wanted, path)
    read = bind(from_object, Validation, is_finite=False)  # a loss may be NaN
    try:
        history = History(
            tuple(np.asarray(tensors.pop("losses")).tolist()),
            tuple(read(content, "validation") for content in header["validations"]),
            read(header["best"], "best") if header["best"] else None,
            convert(bool, header["stopped"], "stopped"),
        )
        groups: dict[str, dict[str, Tensor]] = {"weights": {}, "best": {}, "optimiser": {}}
        for name, tensor in tensors.items():
            prefix, _, rest = name.partition("/")
            groups[prefix][rest] = tensor
    except _DAMAGED as error:
        raise _damaged(path, error) from error
    return TrainingState(begun, history, groups["weights"], groups["best"], groups["optimiser"])


def read_identity(path: Path) -> dict[str, Any]:
    """The identity of the training that a state is of; empty if there is no state.

    Raises
    ------
    CheckpointError
        If the file is damaged.
    """
    from safetensors import safe_open

    if not path.exists():
        return {}
    try:
        with safe_open(path, framework="numpy") as file:
            return dict(parse_header((file.metadata() or {})[_KEY])["identity"])
    except _DAMAGED as error:
        raise _damaged(path, error) from error


def count_steps(path: Path) -> int:
    """Number of steps done by the training of a state; 0 if there is no state.

    Raises
    ------
    CheckpointError
        If the file is damaged.
    """
    from safetensors import safe_open

    if not path.exists():
        return 0
    try:
        with safe_open(path, framework="numpy") as file:
            return int(file.get_slice("losses").get_shape()[0])
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> CheckpointError:
    why = f"{type(error).__name__}: {error!s:.200}"
    return CheckpointError(f"{path} is not a whole training state ({why}); delete it to begin anew.")


def _compare(flat: Mapping[str, Any], flat_wanted: Mapping[str, Any], path: Path) -> None:
    differences = [
        f"{name}: begun with {flat.get(name)!r:.60}, now {flat_wanted.get(name)!r:.60}"
        for name in sorted({*flat, *flat_wanted} - {PROCESSORS})
        if flat.get(name) != flat_wanted.get(name)
    ]
    if differences:
        only_processor = {text.partition(":")[0] for text in differences} <= {"device", "torch"}
        raise TrainingDataError(
            f"{path} is of a training that differs: {'; '.join(differences)}. Train as it was begun, choose another "
            f"output, or delete it.{_PROCESSOR_HINT if only_processor else ''}"
        )


def _with_defaults(identity: Mapping[str, Any]) -> dict[str, Any]:
    """An identity with the defaults of settings that did not exist when it was written."""
    kinds = {"settings": TrainSettings, "architecture": Architecture}
    completed = {name: {**asdict(kind()), **identity[name]} for name, kind in kinds.items() if name in identity}
    return {**identity, **completed}


def _flatten(content: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Map dotted names to values.

    >>> _flatten({"settings": {"steps": 5}, "n": 2})
    {'settings.steps': 5, 'n': 2}
    """
    flat: dict[str, Any] = {}
    for name, value in content.items():
        flat |= _flatten(value, f"{before}{name}.") if isinstance(value, Mapping) else {f"{before}{name}": value}
    return flat


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Tensors of the optimiser, by ``<number of the parameter>.<name>``."""
    return {
        f"{number}.{name}": value
        for number, values in optimiser.state_dict()["state"].items()
        for name, value in values.items()
        if isinstance(value, Tensor)
    }


def restore_optimiser(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Inverse of `optimiser_tensors`."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        number, _, name = key.partition(".")
        state.setdefault(int(number), {})[name] = value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
