"""A network from a few annotated images, as in Ronneberger 2015, Sec. 3: one large random tile per step.

The loop knows arrays, not files: who calls it has read and normalised the images. Every tile is a function of
(seed, step) alone. It leaves out, so far, the border term of the weight map (Eq. 2) and elastic deformations
(Sec. 3.1).
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from unet.architecture import Architecture
from unet.device import resolve_device
from unet.errors import DivergedError
from unet.model import UNet
from unet.sample import IGNORE, TrainSettings, check_training_data, count_class_weights, draw_sample

_MEMORY_FORMAT = {2: torch.channels_last, 3: torch.channels_last_3d}

OnStep = Callable[[int, float], None]


__all__ = ["TrainResult", "TrainSettings", "build_model", "pixel_loss", "train"]


@dataclass(frozen=True)
class TrainResult:
    """What a training left behind, beside the weights.

    Attributes
    ----------
    losses : tuple of float
        Loss of each step, before its update: nats per weighted pixel.
    class_weights : tuple of float
        Weight of a pixel of each class.
    seconds : float
        Wall-clock time.
    """

    losses: tuple[float, ...]
    class_weights: tuple[float, ...]
    seconds: float


def build_model(architecture: Architecture, seed: int) -> UNet:
    """A network whose initial weights depend on the seed alone; torch's global generator stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return UNet(architecture)


def train(
    model: UNet,
    images: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
    settings: TrainSettings,
    on_step: OnStep | None = None,
) -> TrainResult:
    """Fit a network to annotated images, in place.

    Parameters
    ----------
    model : UNet
        float32 network; left on its device in evaluation mode.
    images : sequence of ndarray of float32, (c, *spatial)
        Normalised intensities. Beyond their border they go on as their own mirror image (edge pixel not
        repeated), as a slide's do in `unet.predict`.
    labels : sequence of ndarray of uint8, (*spatial)
        Class of each pixel; 255 is ignored.
    settings : TrainSettings
        How to train.
    on_step : callable, optional
        Called with (steps done, loss) after each step.

    Returns
    -------
    TrainResult
        Loss history and what it took.

    Raises
    ------
    TrainingDataError
        If images and labels do not fit each other or the network.
    GeometryError
        If the tile is not a multiple of the stride.
    DivergedError
        If a loss is not finite, naming the step.

    Notes
    -----
    Departures from the paper: the loss is the mean over the tile's pixels and not their sum, so that a learning
    rate suits every tile size. Equal seeds give equal weights for a given device and number of threads.
    """
    check_training_data(model.architecture, images, labels, settings)
    device = resolve_device(settings.device)
    class_weights = count_class_weights(labels, model.architecture.n_classes, balance=settings.balance_classes)
    weights = torch.tensor(class_weights, dtype=torch.float32, device=device)
    memory_format = _MEMORY_FORMAT[model.architecture.ndim]
    model.to(device, memory_format=memory_format).train()  # type: ignore[call-overload]
    optimiser = _make_optimiser(model, settings)
    losses: list[float] = []
    started = time.perf_counter()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(settings.seed)  # dropout's; tiles have a generator per step
        for step in range(settings.steps):
            tile, classes = draw_sample(images, labels, settings, model.architecture.geometry, step)
            batch = torch.from_numpy(tile)[None].to(device, memory_format=memory_format)
            for group in optimiser.param_groups:
                group["lr"] = settings.rate(step)
            optimiser.zero_grad()
            loss = pixel_loss(model(batch), torch.from_numpy(classes)[None].to(device), weights)
            losses.append(_finite(loss, step, settings))
            loss.backward()
            optimiser.step()
            if on_step is not None:
                on_step(step + 1, losses[-1])
    model.eval()
    return TrainResult(tuple(losses), class_weights, time.perf_counter() - started)


def pixel_loss(logits: Tensor, classes: Tensor, class_weights: Tensor) -> Tensor:
    """Softmax and cross-entropy (Eq. 1), the weighted mean over annotated pixels.

    Parameters
    ----------
    logits : Tensor of float32, (n, n_classes, *network output)
        Scores, symmetrically wider than `classes` by what tiles crop.
    classes : Tensor of uint8, (n, *spatial)
        Classes; 255 counts for nothing, neither in the sum nor in the mean.
    class_weights : Tensor of float32, (n_classes,)
        Weight of a pixel of each class.

    Returns
    -------
    Tensor
        Nats per pixel; 0 if no pixel is annotated.
    """
    for axis in range(1, classes.ndim):
        surplus = logits.shape[axis + 1] - classes.shape[axis]
        logits = logits.narrow(axis + 1, surplus // 2, classes.shape[axis])
    target = classes.long()
    annotated = target != IGNORE
    weights = class_weights[target.where(annotated, 0)] * annotated
    losses = functional.cross_entropy(logits, target, ignore_index=IGNORE, reduction="none")
    return (weights * losses).sum() / weights.sum().clamp_min(1.0)


def _make_optimiser(model: UNet, settings: TrainSettings) -> torch.optim.Optimizer:
    if settings.optimiser == "sgd":
        return torch.optim.SGD(model.parameters(), lr=settings.learning_rate, momentum=settings.momentum)
    return torch.optim.AdamW(model.parameters(), lr=settings.learning_rate)


def _finite(loss: Tensor, step: int, settings: TrainSettings) -> float:
    """The loss as a number."""
    value = float(loss.detach())
    if not math.isfinite(value):
        raise DivergedError(
            f"step {step}: loss={value}, expected a finite number; the weights are of no use. Train with a lower "
            f"learning rate (now {settings.learning_rate}), or check that the images are normalised."
        )
    return value
