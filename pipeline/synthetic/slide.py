"""A synthetic slide of textured, touching cells with exact ground truth, at any size.

Every pixel is a function of (seed, position). Each cell has its own random numbers, which depend on its square in a
jittered grid; textures likewise. Any region can therefore be drawn alone, by any worker, and equals the same region of
the whole. This file knows nothing of networks or stores.

The picture imitates a stained section: glass, pink fibrous stroma, nests of lilac cells with purple nuclei. Two
stains absorb the light (Beer-Lambert). The result is blurred, shaded and made noisy.
"""

import functools
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from segment_slide.pipeline.errors import PlanError
from segment_slide.pipeline.synthetic.cells import REACH_PX, Cells, count_ids, draw_cells, tissue
from segment_slide.pipeline.synthetic.noise import smooth_noise, white_noise
from segment_slide.unet.boxes import Box

CLASSES = ("background", "cell")
CHANNELS = ("red", "green", "blue")
PIXEL_SIZE_UM = 0.5

# The apron is wide enough to hold every cell that touches a region, and all cells that touch such a cell.
_APRON_PX = 4 * REACH_PX
_BLUR_PX = 0.8
_NOISE = 3.5  # standard deviation, in grey values

# Optical density per unit of hematoxylin and eosin in red, green, blue, as a scanner sees them; white of the lamp.
_HEMATOXYLIN = (0.65, 0.78, 0.38)
_EOSIN = (0.10, 0.80, 0.42)
_WHITE = (243.0, 241.0, 244.0)


@dataclass(frozen=True)
class SyntheticSlide:
    """A slide, defined by its size and seed.

    Parameters
    ----------
    shape : (int, int)
        Size (px), (y, x).
    seed : int
        Each seed gives another slide.

    Raises
    ------
    PlanError
        If a size is not positive, the seed is negative, or the slide has more cells than uint32 has ids.
    """

    shape: tuple[int, int]
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.shape) < 1 or self.seed < 0:
            raise PlanError(f"shape={self.shape} px, seed={self.seed}: expected two sizes above 0, and a seed >= 0.")
        if count_ids(self.shape) > np.iinfo(np.uint32).max:
            raise PlanError(f"shape={self.shape} px has more cells than ids of uint32; expected fewer pixels.")

    @property
    def whole(self) -> Box:
        """The box of the whole slide."""
        return tuple(slice(0, size) for size in self.shape)


@dataclass(frozen=True)
class SyntheticRegion:
    """A part of a slide and its truth.

    Attributes
    ----------
    image : ndarray of uint8, (c, y, x)
        Red, green, blue.
    instances : ndarray of uint32, (y, x)
        Id of the cell, 0 outside cells. A ridge of one background pixel separates cells that touch. A cell has the same
        id in every region that shows it.
    """

    image: np.ndarray
    instances: np.ndarray

    @property
    def classes(self) -> np.ndarray:
        """Class map, uint8: 0 background and ridges, 1 cell."""
        return (self.instances > 0).astype(np.uint8)


def draw_region(slide: SyntheticSlide, box: Box) -> SyntheticRegion:
    """Draw a region of a slide; it equals the same region of the whole slide, bit for bit.

    Parameters
    ----------
    slide : SyntheticSlide
        The slide to draw from.
    box : tuple of slice
        (y, x), inside the slide.

    Raises
    ------
    PlanError
        If the box is empty or reaches beyond the slide.
    """
    for part, size in zip(box, slide.shape, strict=True):
        if not 0 <= part.start < part.stop <= size:
            raise PlanError(f"box={box}, expected a box inside the slide's {slide.shape} px.")
    # The surroundings of the slide are drawn too, because the blur uses them, but cells are cut at the slide's border.
    wide = tuple(slice(part.start - _APRON_PX, part.stop + _APRON_PX) for part in box)
    cells = draw_cells(slide.seed, wide, width_px=slide.shape[1])
    inside = tuple(
        slice(max(0, -part.start), min(part.stop, size) - part.start)
        for part, size in zip(wide, slide.shape, strict=True)
    )
    ids = np.zeros_like(cells.ids)
    ids[inside] = cells.ids[inside]
    crop = (slice(_APRON_PX, -_APRON_PX),) * 2
    return SyntheticRegion(_expose(slide.seed, wide, cells)[(slice(None), *crop)], part_cells(ids)[crop])


def _expose(seed: int, box: Box, cells: Cells) -> np.ndarray:
    """Draw the picture (c, y, x), uint8: stroma around the cells, absorption, blur, uneven light, noise."""
    y, x = (np.arange(part.start, part.stop, dtype=np.float64) for part in box)
    field = functools.partial(smooth_noise, seed, y=y, x=x)
    grain, coarse = field(11, pitch=3.0), field(12, pitch=9.0)
    stroma = tissue(seed, y, x) * (1 - cells.cover)
    fibres = _fibres(seed, y, x)
    eosin = cells.eosin * (0.75 + 0.5 * grain) + stroma * (0.16 + 0.22 * fibres * (0.6 + 0.8 * coarse))
    hematoxylin = cells.hematoxylin * (0.55 + 0.55 * grain + 0.35 * coarse) + stroma * (0.03 + 0.10 * coarse * fibres)
    light = 1.0 + 0.10 * (field(13, pitch=1500.0) - 0.5)
    noise = white_noise(seed, box, len(CHANNELS))
    image = np.empty(noise.shape, np.uint8)
    for channel, (purple, pink, white) in enumerate(zip(_HEMATOXYLIN, _EOSIN, _WHITE, strict=True)):
        passed = np.exp(-2.0 * (hematoxylin * purple + eosin * pink))
        passed = ndimage.gaussian_filter(passed, _BLUR_PX, mode="nearest")
        image[channel] = np.clip(np.rint(white * light * passed + _NOISE * noise[channel]), 0, 255)
    return image


def _fibres(seed: int, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Wavy fibres of two directions, 0..1. The slope across them exceeds that of the waves, so that no rings appear."""
    field = functools.partial(smooth_noise, seed, y=y, x=x)
    waves = field(14, pitch=130.0) * 4.5 + field(15, pitch=23.0) * 0.5
    steep = (0.8 * y[:, None] + 0.6 * x) / 13 + waves
    flat = (0.9 * y[:, None] - 0.4 * x) / 17 - waves
    turn = np.where(field(16, pitch=180.0) > 0.5, steep, flat)
    return 0.5 + 0.5 * np.sin(2 * np.pi * turn) * field(17, pitch=31.0)


def part_cells(ids: np.ndarray) -> np.ndarray:
    """Separate touching cells by a ridge of background, and keep each cell's largest piece.

    A pixel becomes background if another cell lies among its W, NW, N and NE neighbours, as in the authors' later code.
    Afterwards no two cells touch, not even at corners.

    Parameters
    ----------
    ids : ndarray of uint32, (y, x)
        Ids of cells; each cell must be complete.

    Examples
    --------
    >>> part_cells(np.array([[1, 1, 2, 2], [1, 1, 2, 2]], np.uint32))
    array([[1, 1, 0, 2],
           [1, 0, 0, 2]], dtype=uint32)
    """
    padded = np.pad(ids, 1)
    height, width = ids.shape
    touches = np.zeros(ids.shape, bool)
    for down, right in ((1, 0), (0, 0), (0, 1), (0, 2)):  # W, NW, N, NE
        neighbour = padded[down : down + height, right : right + width]
        touches |= (neighbour != ids) & (neighbour != 0)
    parted = np.where(touches, np.uint32(0), ids)
    pieces, count = ndimage.label(parted)
    owner = np.zeros(count + 1, ids.dtype)
    owner[pieces] = parted
    areas = np.bincount(pieces.ravel(), minlength=count + 1)
    order = np.lexsort((np.arange(count + 1), -areas, owner))  # per cell: largest first, then raster order
    is_largest = np.zeros(count + 1, bool)
    is_largest[order[1:][np.diff(owner[order]) > 0]] = True
    return np.where(is_largest[pieces], parted, np.uint32(0))
