"""The steps of a training, in one of the processes that train together."""

import math
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor, nn

from segment_slide.unet.device import CHANNELS_LAST, use_exact_float32
from segment_slide.unet.errors import DivergedError
from segment_slide.unet.loss import crop_to, weighted_loss
from segment_slide.unet.model import UNet
from segment_slide.unet.ranks import Ranks
from segment_slide.unet.sample import IGNORE, Sample
from segment_slide.unet.train_settings import Training, TrainSettings, sample_number, step_seed
from segment_slide.unet.training_state import History, TrainingState, Validation, optimiser_tensors, restore_optimiser

_READ_AHEAD = 2  # steps whose samples are read or drawn ahead while the device computes


class TrainLoop:
    """A network during training.

    Parameters
    ----------
    model : UNet
        The network; its weights change with each step.
    training : Training
        Samples and settings.
    ranks : Ranks
        This process among those that train together.
    """

    def __init__(self, model: UNet, training: Training, ranks: Ranks) -> None:
        if ranks.device.type == "cuda":
            use_exact_float32()  # and repeatable, as far as sums on a GPU are
        self._training, self._settings, self._ranks = training, training.settings, ranks
        self._format = CHANNELS_LAST[model.architecture.ndim]
        self._model = model.to(ranks.device, memory_format=self._format)  # type: ignore[call-overload]
        self._optimiser = _make_optimiser(model, training.settings)
        self._losses: list[float] = []
        self._history = History()
        self._best: dict[str, Tensor] = {}

    @property
    def history(self) -> History:
        """Losses and validations so far."""
        return History(tuple(self._losses), self._history.validations, self._history.best, self._history.stopped)

    def restore(self, state: TrainingState) -> None:
        """Continue from a state."""
        self._model.load_state_dict(dict(state.weights))
        restore_optimiser(self._optimiser, state.optimiser)
        self._losses, self._history, self._best = list(state.history.losses), state.history, dict(state.best)

    def state(self) -> TrainingState:
        """Everything that the next step depends on."""
        weights = self._model.state_dict()
        return TrainingState(
            self._training.identity or {}, self.history, weights, self._best, optimiser_tensors(self._optimiser)
        )

    def finish(self) -> None:
        """Switch to the weights of the best validation, ready to predict."""
        if self._best:
            self._model.load_state_dict(self._best)
        self._model.eval()

    def steps(self) -> Iterator[tuple[int, float]]:
        """Do the remaining steps; after each one, yield the number of steps done and its loss before the update.

        Raises
        ------
        DivergedError
            If a loss is not finite; the message names the step and the sample.
        """
        wrapped, cuda = self._ranks.wrap(self._model), self._ranks.device.type == "cuda"
        first, end = len(self._losses), self._settings.steps
        with torch.random.fork_rng(devices=[self._ranks.device] if cuda else []), ThreadPoolExecutor(1) as reader:
            waiting = [reader.submit(self._read, step) for step in range(first, min(first + _READ_AHEAD, end))]
            for step in range(first, end):
                if self._history.stopped:
                    return
                if step + _READ_AHEAD < end:
                    waiting.append(reader.submit(self._read, step + _READ_AHEAD))
                self._losses.append(self._update(wrapped, step, waiting.pop(0)))
                if self._settings.is_validated(step) and len(self._training.validation):
                    self._validate(step + 1)
                yield step + 1, self._losses[-1]

    def _read(self, step: int) -> list[Sample]:
        """Read the samples of a step that belong to this process."""
        samples, batch = self._training.samples, self._settings.batch
        first = (step * self._ranks.size + self._ranks.rank) * batch
        return [samples[sample_number(self._settings, len(samples), first + place)] for place in range(batch)]

    def _update(self, wrapped: nn.Module, step: int, waiting: "Future[list[Sample]]") -> float:
        """Update the weights once; return the mean loss of the tiles of all processes."""
        image, classes, weights = self._to_device(waiting.result())
        for group in self._optimiser.param_groups:
            group["lr"] = self._settings.rate(step)
        torch.manual_seed(step_seed(self._settings, step, self._ranks.rank))  # for dropout
        wrapped.train()
        self._optimiser.zero_grad()
        with self._precision():
            logits = wrapped(image)
        losses = weighted_loss(logits, classes, weights)
        found = self._ranks.gather(losses.detach().tolist())
        self._expect_finite(found, step)
        losses.mean().backward()
        if self._settings.clip_norm:
            nn.utils.clip_grad_norm_(wrapped.parameters(), self._settings.clip_norm)
        self._optimiser.step()
        return math.fsum(found) / len(found)

    def _expect_finite(self, losses: list[float], step: int) -> None:
        for place, loss in enumerate(losses):
            if not math.isfinite(loss):
                number = sample_number(self._settings, len(self._training.samples), step * len(losses) + place)
                raise DivergedError(
                    f"step {step + 1}: the loss of sample {number} is {loss}, expected a finite number; the weights "
                    f"are of no use from here on. Train with a lower learning rate (now "
                    f"{self._settings.rate(step):.3g}), or look at that sample.",
                    step=step + 1,
                    sample=number,
                )

    def _to_device(self, samples: list[Sample]) -> tuple[Tensor, Tensor, Tensor]:
        device = self._ranks.device
        image = torch.from_numpy(np.stack([sample.image for sample in samples]))
        classes = torch.from_numpy(np.stack([sample.classes for sample in samples]))
        weights = torch.from_numpy(np.stack([sample.weights for sample in samples]))
        return image.to(device, memory_format=self._format), classes.to(device), weights.to(device)

    def _precision(self) -> torch.autocast:
        enabled = self._settings.precision == "bfloat16"
        return torch.autocast(self._ranks.device.type, dtype=torch.bfloat16, enabled=enabled)

    def _validate(self, step: int) -> None:
        """Validate the network, and keep its weights if it is the best; each process takes its share of the samples."""
        n_classes = self._model.architecture.n_classes
        total, confusion = 0.0, np.zeros((n_classes, n_classes), np.int64)
        self._model.eval()
        with torch.inference_mode(), self._precision():
            for number in range(self._ranks.rank, len(self._training.validation), self._ranks.size):
                sample = self._training.validation[number]
                image, classes, weights = self._to_device([sample])
                logits = self._model(image)
                total += float(weighted_loss(logits, classes, weights)) * sample.classes.size
                predicted = crop_to(logits, classes).argmax(1)[0].cpu().numpy()
                confusion += _count_pairs(sample.classes, predicted, n_classes)
        sums = self._ranks.sum(np.array([total, *confusion.ravel()]))
        validation = _summarise(step, float(sums[0]), sums[1:].reshape(n_classes, n_classes))
        self._history = self._history.add(validation, self._settings.monitor, self._settings.patience)
        if self._history.best == validation:
            self._best = {name: tensor.detach().cpu().clone() for name, tensor in self._model.state_dict().items()}


def _count_pairs(truth: np.ndarray, predicted: np.ndarray, n_classes: int) -> np.ndarray:
    """Count annotated pixels by true class (row) and predicted class (column)."""
    annotated = truth != IGNORE
    pairs = truth[annotated].astype(np.int64) * n_classes + predicted[annotated]
    return np.bincount(pairs, minlength=n_classes * n_classes).reshape(n_classes, n_classes)


def _summarise(step: int, total: float, confusion: np.ndarray) -> Validation:
    """Compute loss per annotated pixel, mean foreground IoU and pixel error."""
    n_pixels, agree = max(confusion.sum(), 1.0), np.diag(confusion)
    union = confusion.sum(0) + confusion.sum(1) - agree
    iou = np.divide(agree, union, out=np.ones_like(agree), where=union > 0)
    return Validation(step, float(total / n_pixels), float(iou[1:].mean()), float(1 - agree.sum() / n_pixels))


def _make_optimiser(model: UNet, settings: TrainSettings) -> torch.optim.Optimizer:
    rate, decay = settings.peak_rate, settings.weight_decay
    if settings.optimiser == "sgd":
        return torch.optim.SGD(model.parameters(), lr=rate, momentum=settings.momentum, weight_decay=decay)
    return torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=decay)
