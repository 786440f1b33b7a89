"""Small training sets on disk, made without `weight-maps`: classes and weights as a test wants them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import zarr

from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.image import describe_image
from segment_slide.pipeline.storage.source import select_source
from segment_slide.pipeline.training.records import WeightChoices
from segment_slide.pipeline.training.training_set import (
    CLASSES,
    WEIGHTS,
    AnnotatedImage,
    StoredPixels,
    TrainingSet,
    create_training_set,
)
from segment_slide.unet.sample import IGNORE


def write_training_set(
    folder: Path,
    images: Mapping[str, tuple[np.ndarray, np.ndarray]],
    *,
    axes: str = "cyx",
    block_px: int = 64,
    chunk_px: int = 32,
    n_classes: int = 2,
    pixel_size_um: Sequence[float] = (),
    weights: Mapping[str, np.ndarray] | None = None,
) -> TrainingSet:
    """A set of images (stored pixels, classes) by name; `axes` are the pixels', classes have them without c."""
    n_spatial = 3 if axes.endswith("zyx") else 2
    described, counts = [], {}
    for name, (pixels, classes) in sorted(images.items()):
        zarr.create_array(folder / f"{name}.zarr", shape=pixels.shape, chunks=pixels.shape, dtype=pixels.dtype)[...] = (
            pixels
        )
        image = describe_image(folder / f"{name}.zarr", axes=axes)
        n_channels = image.size("c")
        source = select_source(image, n_spatial=n_spatial, n_channels=n_channels)
        block = (1,) * (classes.ndim - n_spatial) + (block_px,) * n_spatial
        where = StoredPixels.describe(source)
        totals = [int((classes == value).sum()) for value in range(n_classes)]
        described.append(AnnotatedImage(name, name, classes.shape, block, tuple(totals), where, where))
        counts[name] = count_blocks(classes, block, n_classes)
    names = ("background", *(f"class {value}" for value in range(1, n_classes)))
    training_set = TrainingSet(
        str(folder / "set.zarr"),
        n_spatial,
        names,
        (1.0,) * n_classes,
        tuple(described),
        WeightChoices(),
        pixel_size_um=tuple(pixel_size_um),
    )
    create_training_set(training_set, counts, (chunk_px,) * n_spatial)
    for image in training_set.images:
        classes = images[image.name][1]
        values = (weights or {}).get(image.name, np.where(classes == IGNORE, 0, 1 + classes % 7).astype(np.float32))
        for name, written in ((CLASSES, classes), (WEIGHTS, values)):
            path = store.join(image.group, name)
            store.open_array(training_set.location, path, writable=True)[...] = written
    return training_set


def count_blocks(classes: np.ndarray, block: tuple[int, ...], n_classes: int) -> np.ndarray:
    """Pixels per block and class."""
    grid = [-(-size // step) for size, step in zip(classes.shape, block, strict=True)]
    table = np.zeros((*grid, n_classes), np.int64)
    for index in np.ndindex(*grid):
        part = classes[tuple(slice(i * step, (i + 1) * step) for i, step in zip(index, block, strict=True))]
        table[index] = [(part == value).sum() for value in range(n_classes)]
    return table
