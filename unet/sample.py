"""What one training step sees: settings in, tile and classes out, each a function of (data, settings, step) alone.

Arrays only, no torch: what a step learns from can be looked at, and tested, without a network.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from unet.architecture import Architecture
from unet.errors import TrainingDataError
from unet.geometry import Geometry

IGNORE = 255  # label of pixels that nobody annotated: they weigh nothing
OPTIMISERS = ("adamw", "sgd")
_WARM_UP = 0.05  # share of the steps in which the learning rate rises; ReLUs without it may die in the first ones


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
