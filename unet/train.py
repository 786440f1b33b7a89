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
from unet.errors import UnetError
from unet.geometry import Geometry
from unet.model import UNet

IGNORE = 255  # label of pixels that nobody annotated: they weigh nothing
OPTIMISERS = ("adamw", "sgd")
_WARM_UP = 0.05  # share of the steps in which the learning rate rises; ReLUs without it may die in the first ones
_MEMORY_FORMAT = {2: torch.channels_last, 3: torch.channels_last_3d}

OnStep = Callable[[int, float], None]


class TrainingDataError(UnetError, ValueError):
    """Images, labels or settings that a network cannot be trained with."""


class DivergedError(UnetError, RuntimeError):
    """The loss became NaN or infinite; the weights are of no use."""


@dataclass(frozen=True)
class TrainSettings:
    """How to train; equal settings and data give equal weights on the same machine.

    Parameters
    ----------
    steps : int
        Tiles to learn from, one per step: "a batch of one large tile" (Sec. 3).
    tile_px : tuple of int
        Pixels per spatial axis whose classes a step compares, multiples of the stride.
    optimiser : {"adamw", "sgd"}
        "sgd" with momentum 0.99 is the paper's; "adamw" needs fewer steps where there is only a minute.
    learning_rate : float
        Highest rate. It rises over the first twentieth of the steps and then falls to 0 along a line; the
        paper does not say how its own changed.
    momentum : float
        Of "sgd".
    balance_classes : bool
        Weigh each pixel by the inverse frequency of its class in all labels: the w_c of Eq. 2.
    augment : bool
        Flip each tile along random axes and turn it by a random multiple of 90 degrees in (y, x).
    seed : int
        Chooses tiles, flips and dropout.
    device : str
        "auto", "cpu" or "cuda".

    Raises
    ------
    TrainingDataError
        If a value is out of range.
    """

    steps: int = 1000
    tile_px: tuple[int, ...] = (256, 256)
    optimiser: str = "adamw"
    learning_rate: float = 1e-3
    momentum: float = 0.99
    balance_classes: bool = False
    augment: bool = True
    seed: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.steps < 1 or self.seed < 0:
            raise TrainingDataError(f"steps={self.steps}, seed={self.seed}: expected at least 1 and 0.")
        if self.optimiser not in OPTIMISERS:
            raise TrainingDataError(f"optimiser={self.optimiser!r}, expected one of {OPTIMISERS}.")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0 and 0 <= self.momentum < 1):
            raise TrainingDataError(
                f"learning_rate={self.learning_rate}, momentum={self.momentum}: expected above 0, and 0 to below 1."
            )

    def rate(self, step: int) -> float:
        """Learning rate of a step, 0 the first.

        >>> settings = TrainSettings(steps=100, learning_rate=1.0)
        >>> [round(settings.rate(step), 2) for step in (0, 4, 5, 52, 99)]
        [0.2, 1.0, 1.0, 0.51, 0.01]
        """
        rising = max(1, round(self.steps * _WARM_UP))
        return self.learning_rate * min((step + 1) / rising, (self.steps - step) / max(1, self.steps - rising), 1.0)


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


def draw_sample(
    images: Sequence[np.ndarray], labels: Sequence[np.ndarray], settings: TrainSettings, geometry: Geometry, step: int
) -> tuple[np.ndarray, np.ndarray]:
    """The tile of a step: a function of data, settings and step alone.

    A pixel of all images is drawn, the tile is laid around it and moved inside the image where it would leave
    it, so that pixels at the border are learnt from too.

    Parameters
    ----------
    images, labels : sequence of ndarray
        As for `train`.
    settings : TrainSettings
        Tile size, augmentation and seed.
    geometry : Geometry
        Of the network.
    step : int
        0 the first.

    Returns
    -------
    tile : ndarray of float32, (c, *spatial)
        ``geometry.read_size(tile)`` px per axis, mirrored at the image's border.
    classes : ndarray of uint8, (*spatial)
        `tile_px` px per axis; 255 where the image is smaller than the tile.
    """
    random = np.random.default_rng([settings.seed, step])
    sizes = np.array([classes.size for classes in labels], np.float64)
    chosen = int(random.choice(len(images), p=sizes / sizes.sum()))
    spatial = labels[chosen].shape
    origin = [
        min(max(int(random.integers(size)) - tile // 2, 0), max(size - tile, 0))
        for size, tile in zip(spatial, settings.tile_px, strict=True)
    ]
    tile, classes = cut_tile(images[chosen], labels[chosen], origin, settings.tile_px, geometry.halo)
    if settings.augment:
        tile, classes = _turn(tile, classes, random)
    return np.ascontiguousarray(tile), np.ascontiguousarray(classes)


def cut_tile(
    image: np.ndarray, classes: np.ndarray, origin: Sequence[int], tile_px: Sequence[int], halo_px: int
) -> tuple[np.ndarray, np.ndarray]:
    """A tile with its halo, mirrored beyond the image, and the classes of the tile alone.

    Parameters
    ----------
    image : ndarray, (c, *spatial)
        Intensities.
    classes : ndarray of uint8, (*spatial)
        Classes; what the tile has beyond the image becomes 255, so that no pixel counts twice.
    origin, tile_px : sequence of int
        The tile's first pixel, inside the image, and its size.
    halo_px : int
        Context per side.

    Examples
    --------
    >>> tile, classes = cut_tile(np.array([[10, 11, 12]]), np.array([0, 1, 2], np.uint8), [1], [4], 2)
    >>> tile.tolist(), classes.tolist()
    ([[11, 10, 11, 12, 11, 10, 11, 12]], [1, 2, 255, 255])
    """
    rows = [
        np.pad(np.arange(size), (halo_px, halo_px + tile), mode="reflect")[start : start + tile + 2 * halo_px]
        for size, start, tile in zip(classes.shape, origin, tile_px, strict=True)
    ]
    pixels = image[np.ix_(np.arange(image.shape[0]), *rows)]
    inside = classes[tuple(slice(start, start + tile) for start, tile in zip(origin, tile_px, strict=True))]
    missing = [(0, tile - size) for tile, size in zip(tile_px, inside.shape, strict=True)]
    return pixels, np.pad(inside, missing, constant_values=IGNORE)


def _turn(tile: np.ndarray, classes: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Image and classes flipped along random axes and, if they are square in (y, x), turned together."""
    flipped = tuple(axis for axis in range(-classes.ndim, 0) if random.random() < 0.5)
    quarters = int(random.integers(4)) if classes.shape[-1] == classes.shape[-2] else 0
    tile, classes = np.flip(tile, flipped), np.flip(classes, flipped)
    return np.rot90(tile, quarters, axes=(-2, -1)), np.rot90(classes, quarters, axes=(-2, -1))


def count_class_weights(labels: Sequence[np.ndarray], n_classes: int, *, balance: bool) -> tuple[float, ...]:
    """Weight of a pixel of each class; the mean over all annotated pixels is 1.

    >>> count_class_weights([np.array([0, 0, 0, 1, 255], np.uint8)], 2, balance=True)
    (0.6666666666666666, 2.0)
    """
    if not balance:
        return (1.0,) * n_classes
    counts = sum(np.bincount(classes.ravel(), minlength=256)[:n_classes] for classes in labels)
    present, total = np.count_nonzero(counts), np.sum(counts)
    return tuple(float(total / (present * count)) if count else 0.0 for count in np.asarray(counts))


def check_training_data(
    architecture: Architecture, images: Sequence[np.ndarray], labels: Sequence[np.ndarray], settings: TrainSettings
) -> None:
    """Refuse, before the first step, what a network cannot learn from.

    Raises
    ------
    TrainingDataError
        Naming the image by its position.
    GeometryError
        If the tile is not a multiple of the stride.
    """
    if len(settings.tile_px) != architecture.ndim:
        raise TrainingDataError(f"tile_px={settings.tile_px}, expected {architecture.ndim} sizes.")
    for size in settings.tile_px:
        architecture.geometry.check_multiple(size, "tile")
    if not images or len(images) != len(labels):
        raise TrainingDataError(f"{len(images)} images and {len(labels)} label images, expected as many, at least 1.")
    for number, (image, classes) in enumerate(zip(images, labels, strict=True)):
        _check_pair(architecture, image, classes, f"image {number}")
    if all((classes == IGNORE).all() for classes in labels):
        raise TrainingDataError(f"all pixels are labelled {IGNORE} (ignored): there is nothing to learn from.")


def _check_pair(architecture: Architecture, image: np.ndarray, classes: np.ndarray, name: str) -> None:
    channels, n_classes = architecture.in_channels, architecture.n_classes
    if image.dtype != np.float32 or image.ndim != architecture.ndim + 1 or image.shape[0] != channels:
        raise TrainingDataError(
            f"{name}: dtype={image.dtype}, shape={image.shape}; expected float32 with {channels} channel(s) first and "
            f"{architecture.ndim} spatial axes, normalised."
        )
    if classes.dtype != np.uint8 or classes.shape != image.shape[1:] or classes.size == 0:
        raise TrainingDataError(
            f"{name}: labels are {classes.dtype} of shape {classes.shape}, expected uint8 of shape {image.shape[1:]}."
        )
    if not np.isfinite(image).all():
        raise TrainingDataError(f"{name} holds values that are not finite.")
    unknown = np.setdiff1d(classes, [*range(n_classes), IGNORE])
    if unknown.size:
        raise TrainingDataError(
            f"{name}: label value {unknown[0]}, expected 0 to {n_classes - 1}, or {IGNORE} where nothing is annotated."
        )


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
