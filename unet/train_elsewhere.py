"""What a training keeps when it goes on: its precision, and the processors that its steps were made on.

A training may be begun on one kind of machine and go on with another. It keeps its precision, because that decides the
weights. Another device or torch is refused, because the last bits of its sums differ, unless the user accepts it. Then
the state lists from which step on it was trained on which.
"""

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from segment_slide.unet.device import describe_processor, multiplies_in_bfloat16, resolve_precision
from segment_slide.unet.train_settings import TrainSettings
from segment_slide.unet.training_state import PROCESSORS, count_steps, read_identity

_COMPARED = ("device", "torch")

log = logging.getLogger(__name__)


def settle_precision(settings: TrainSettings, device: torch.device, state_path: Path | None) -> TrainSettings:
    """Settings with the precision that is used: "auto" becomes the recorded one, or the one that suits the device.

    Parameters
    ----------
    settings : TrainSettings
        Settings of the training.
    device : torch.device
        Where it goes on.
    state_path : Path or None
        State from which it resumes, if it is there.

    Raises
    ------
    CheckpointError
        If the state is damaged.
    """
    if settings.precision != "auto":
        return settings
    begun = read_identity(state_path) if state_path is not None else {}
    recorded = begun.get("settings", {}).get("precision")
    return replace(settings, precision=recorded or resolve_precision("auto", device))


def warn_of_emulation(precision: str, device: torch.device) -> None:
    """Warn if the processor has no instructions for the precision."""
    if precision == "bfloat16" and not multiplies_in_bfloat16(device):
        log.warning(
            "this processor has no instructions for bfloat16, which takes several times longer here than float32; "
            "`precision` auto chooses what suits the processor that a training is begun on"
        )


def settle_processor(
    identity: Mapping[str, Any], device: torch.device, state_path: Path | None, *, accept: bool
) -> dict[str, Any]:
    """The identity with which a training goes on here.

    Parameters
    ----------
    identity : mapping
        Of this training, on this processor.
    device : torch.device
        Where it goes on.
    state_path : Path or None
        State from which it resumes, if it is there.
    accept : bool
        Whether to go on although the state is of another device or torch.

    Returns
    -------
    dict
        If it goes on elsewhere, it names the device and torch that the training was begun with, and lists from which
        step on which were used. Otherwise as it was given: a state that differs is refused.
    """
    begun = read_identity(state_path) if state_path is not None else {}
    if state_path is None or not begun:
        return dict(identity)
    here = {name: identity[name] for name in _COMPARED}
    uses = list(begun.get(PROCESSORS) or [{"from_step": 0, **{name: begun.get(name) for name in _COMPARED}}])
    is_known = any(_is_same(use, here) for use in uses)
    if not (accept or is_known):
        return dict(identity)
    if not _is_same(uses[-1], here):
        steps = count_steps(state_path)
        uses = [use for use in uses if use["from_step"] < steps]  # the last one may not have saved a step
        if not uses or not _is_same(uses[-1], here):
            uses.append({"from_step": steps, **here, "processor": describe_processor(device)})
    listed = {PROCESSORS: uses} if len(uses) > 1 or PROCESSORS in begun else {}
    return {**identity, **{name: begun.get(name) for name in _COMPARED}, **listed}


def _is_same(use: Mapping[str, Any], here: Mapping[str, Any]) -> bool:
    return all(use.get(name) in (None, here[name]) for name in _COMPARED)
