"""The training of the paper: one large tile per step, weighted loss, SGD, momentum 0.99 (Ronneberger 2015, Sec. 3).

The loop knows numbered samples, not files: `unet.draw` makes them from arrays, `pipeline.training.sample_set` reads
stored ones. Everything random in a step is a function of (seed, step). A training that was killed therefore resumes
from its last state and ends with the same weights as an undisturbed one.
"""

import copy
import functools
from collections.abc import Callable
from dataclasses import asdict, replace

import numpy as np
import torch

from segment_slide.unet.architecture import Architecture
from segment_slide.unet.device import resolve_device
from segment_slide.unet.errors import TrainingDataError
from segment_slide.unet.model import UNet
from segment_slide.unet.ranks import Ranks, count_processes, start_ranks
from segment_slide.unet.sample import IGNORE, Sample, Samples
from segment_slide.unet.train_elsewhere import settle_precision, settle_processor, warn_of_emulation
from segment_slide.unet.train_loop import TrainLoop
from segment_slide.unet.train_settings import Training, TrainSettings
from segment_slide.unet.training_state import History, load_state, save_state

__all__ = ["TrainSettings", "Training", "build_model", "train"]

OnStep = Callable[[int, float], None]
OnSave = Callable[[History], None]


def build_model(architecture: Architecture, seed: int) -> UNet:
    """Make a network whose initial weights depend on the seed alone; torch's global generator is left unchanged."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return UNet(architecture)


def train(model: UNet, training: Training, *, on_step: OnStep | None = None, on_save: OnSave | None = None) -> History:
    """Fit a network to samples, in place, or resume an interrupted training.

    Parameters
    ----------
    model : UNet
        float32 network. It stays on its device and ends in evaluation mode, with the weights of the best validation
        (or the last weights, if there is no validation).
    training : Training
        Samples and settings.
    on_step : callable, optional
        Called with the number of steps done and the loss after each step.
    on_save : callable, optional
        Called with the history whenever the state is saved, and at the end.

    Returns
    -------
    History
        Losses and validations, including those before an interruption.

    Raises
    ------
    TrainingDataError
        If the samples do not fit the network, or the state belongs to another training.
    DivergedError
        If a loss is not finite; the message names the step and the sample.
    RankError
        If another process of this training ended.

    Notes
    -----
    Departure from the paper: the loss is the mean over a tile's pixels and not their sum (`unet.loss`).
    """
    device = resolve_device(training.device)
    check_samples(model.architecture, training.samples, "samples")
    if len(training.validation):
        check_samples(model.architecture, training.validation, "validation")
    size = training.processes or count_processes(device)
    settings = settle_precision(training.settings, device, training.state_path)
    warn_of_emulation(settings.precision, device)
    identity = {
        **(training.identity or {}),
        "settings": asdict(settings),
        "architecture": asdict(model.architecture),
        "n_samples": len(training.samples),
        "processes": size,
        "device": device.type,
        "torch": torch.__version__.partition("+")[0],
    }
    identity = settle_processor(identity, device, training.state_path, accept=training.accept_processor)
    training = replace(training, settings=settings, identity=identity)
    others = functools.partial(_run, model if size == 1 else copy.deepcopy(model).cpu(), training)
    folder = training.state_path.parent if training.state_path is not None else None
    with start_ranks(size, device, others, folder) as ranks:
        return _run(model, training, ranks, on_step, on_save)


def _run(
    model: UNet, training: Training, ranks: Ranks, on_step: OnStep | None = None, on_save: OnSave | None = None
) -> History:
    """Train in one of the processes; only rank 0 saves the state."""
    loop, path = TrainLoop(model, training, ranks), training.state_path
    if path is not None and (begun := load_state(path, training.identity or {}, training.compared)) is not None:
        loop.restore(begun)
    ranks.sum(np.zeros(1))  # wait until all have read the state, because rank 0 will replace it
    for step, loss in loop.steps():
        if on_step is not None:
            on_step(step, loss)
        if training.settings.is_saved(step - 1) and ranks.rank == 0:
            if path is not None:
                save_state(path, loop.state())
            if on_save is not None:
                on_save(loop.history)
    loop.finish()
    return loop.history


def check_samples(architecture: Architecture, samples: Samples | tuple[Sample, ...], name: str) -> None:
    """Before the first step, refuse samples that do not fit the network; only the first one is checked.

    Raises
    ------
    TrainingDataError
        The message says what does not fit.
    GeometryError
        If the tile is not a multiple of the stride.
    """
    if not len(samples):
        raise TrainingDataError(f"{name}: there are none to learn from.")
    sample, tile = samples[0], samples[0].classes.shape
    if len(tile) != architecture.ndim:
        raise TrainingDataError(f"{name}: classes of shape {tile}, but the network is {architecture.ndim}D.")
    expected = (architecture.in_channels, *(architecture.geometry.read_size(size) for size in tile))
    if sample.image.shape != expected:
        raise TrainingDataError(
            f"{name}: an image of shape {sample.image.shape}; a network of depth {architecture.depth} with "
            f"{architecture.in_channels} channel(s) expects {expected} for classes of shape {tile}."
        )
    if sample.weights.shape != sample.classes.shape:
        raise TrainingDataError(f"{name}: weights of shape {sample.weights.shape}, expected {sample.classes.shape}.")
    known = sample.classes[sample.classes != IGNORE]
    if known.size and int(known.max()) >= architecture.n_classes:
        raise TrainingDataError(f"{name}: class {known.max()}, but the network has {architecture.n_classes} classes.")
