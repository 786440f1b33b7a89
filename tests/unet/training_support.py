"""Small samples to learn from, which any process can import."""

from dataclasses import dataclass

import numpy as np

from segment_slide.unet.architecture import Architecture
from segment_slide.unet.geometry import Geometry
from segment_slide.unet.sample import IGNORE, Sample
from segment_slide.unet.train_settings import Training, TrainSettings

SMALL = Architecture(base_channels=4, depth=1, dropout=0.0)
TILE_PX = 32


def rough_and_smooth(seed: int, size: int = 96) -> tuple[np.ndarray, np.ndarray]:
    """An image of which a third is rougher than the rest, at the same mean brightness, and where."""
    random = np.random.default_rng(seed)
    rough = np.zeros((size, size), bool)
    for _ in range(3):
        top, left = random.integers(0, size - 32, 2)
        rough[top : top + 32, left : left + 32] = True
    noise = random.standard_normal((size, size))
    return np.where(rough, noise, 0.2 * noise).astype(np.float32)[None], rough.astype(np.uint8)


@dataclass(frozen=True)
class RoughSamples:
    """Tiles of `rough_and_smooth` images; sample i is a function of (seed, i)."""

    count: int = 30
    seed: int = 0
    bad: int = -1  # number of a sample that holds a NaN

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int, /) -> Sample:
        if not 0 <= number < self.count:
            raise IndexError(number)
        halo = Geometry(SMALL.depth).halo
        image, rough = rough_and_smooth(1000 * self.seed + number)
        top, left = np.random.default_rng([self.seed, number]).integers(0, 96 - TILE_PX - 2 * halo, 2)
        place = (slice(top, top + TILE_PX + 2 * halo), slice(left, left + TILE_PX + 2 * halo))
        image, classes = image[(0, *place)][None].copy(), rough[place][halo:-halo, halo:-halo].copy()
        classes[:2] = IGNORE
        if number == self.bad:
            image[0, 20, 20] = np.nan
        return Sample(image, classes, np.where(classes == IGNORE, 0, 1 + classes).astype(np.float32))


def training(**changes: object) -> Training:
    """A short training on them; fields of `TrainSettings` and of `Training` by name."""
    names = TrainSettings.__dataclass_fields__
    defaults = {"steps": 12, "optimiser": "adamw", "learning_rate": 1e-2, "validate_every": 5, "save_every": 3}
    settings = TrainSettings(**{**defaults, **{key: value for key, value in changes.items() if key in names}})
    rest = {key: value for key, value in changes.items() if key not in names}
    return Training(**{"samples": RoughSamples(), "device": "cpu", "processes": 1, "settings": settings, **rest})
