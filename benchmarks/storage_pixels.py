"""Four kinds of pixels that `storage.py` writes and reads: what a run makes, and what it is given."""

from pathlib import Path

import numpy as np
import tifffile
from common import DATA
from scipy import ndimage

from segment_slide.pipeline.synthetic.slide import SyntheticSlide, draw_region

DRAWN = 1024  # px of a synthetic slide that are drawn; beyond, they are repeated: no codec sees that far


def make_pixels(folder: Path, size: int) -> dict[str, Path]:
    """The four kinds of pixels, as .npy files."""
    drawn = draw_region(SyntheticSlide((DRAWN, DRAWN)), (slice(0, DRAWN), slice(0, DRAWN)))
    repeats = (-(-size // DRAWN),) * 2
    ids = np.tile(drawn.instances, repeats)[:size, :size]
    period = np.add.outer(np.arange(size) // DRAWN * repeats[0], np.arange(size) // DRAWN)
    ids = np.where(ids > 0, ids + period.astype(np.uint32) * ids.max(), 0).astype(np.uint32)
    rng = np.random.default_rng(0)
    inside, outside = (ndimage.distance_transform_edt(part) for part in (drawn.classes > 0, drawn.classes == 0))
    depth = (inside - outside) / 2 + ndimage.gaussian_filter(rng.normal(size=inside.shape), 2) * 4
    scores = np.rint(255 / (1 + np.exp(-depth))).astype(np.uint8)
    kinds = {
        "classes": (ids > 0).astype(np.uint8),
        "ids": ids,
        "probabilities": np.tile(scores, repeats)[:size, :size],
        "rgb": read_slide(size, drawn.image),
    }
    for name, values in kinds.items():
        np.save(folder / f"{name}.npy", np.ascontiguousarray(values))
    return {name: folder / f"{name}.npy" for name in kinds}


def read_slide(size: int, otherwise: np.ndarray) -> np.ndarray:
    """(3, size, size) of a real slide, mirrored as far as needed."""
    path = DATA / "wsi/CMU-1-Small-Region.svs"
    slide = np.moveaxis(tifffile.imread(path, key=0), -1, 0) if path.exists() else otherwise
    height, width = (min(length, size) for length in slide.shape[1:])
    pads = [(0, 0), (0, size - height), (0, size - width)]
    return np.pad(slide[:, :height, :width], pads, mode="reflect")
