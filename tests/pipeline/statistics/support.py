"""Pictures of round cells, and images made of them."""

from pathlib import Path

import numpy as np
import zarr

from segment_slide.pipeline.storage.image import describe_image
from segment_slide.pipeline.storage.source import ImageSource, select_source


def draw_cells(
    size: int,
    n: int,
    amplitude: float,
    background: float,
    noise: float,
    dtype: str = "uint8",
    *,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """A picture of `n` discs (brighter than the background; darker if the amplitude is below 0), and where they are."""
    rng = np.random.default_rng(seed)
    radius = 8
    grid = np.hypot(*np.mgrid[-radius : radius + 1, -radius : radius + 1])
    discs = np.zeros((size, size))
    for y, x in rng.integers(radius, size - radius, (n, 2)):
        box = slice(y - radius, y + radius + 1), slice(x - radius, x + radius + 1)
        discs[box] = np.maximum(discs[box], (grid < radius) * rng.uniform(0.6, 1))
    values = background + amplitude * discs + rng.normal(0, noise, discs.shape)
    if np.dtype(dtype).kind != "f":
        values = values.round().clip(0, np.iinfo(dtype).max)
    return values.astype(dtype), discs > 0


def source_of(folder: Path, pixels: np.ndarray, axes: str = "yx") -> ImageSource:
    """An image as it is stored."""
    zarr.create_array(str(folder), data=pixels, chunks=tuple(min(256, size) for size in pixels.shape))
    image = describe_image(folder, axes=axes)
    return select_source(image, n_spatial=2, n_channels=image.size("c"))
