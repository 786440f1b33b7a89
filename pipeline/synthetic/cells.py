"""Cells of a synthetic slide: where they lie, which pixels belong to each, how much stain they contain."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from segment_slide.pipeline.synthetic.noise import generator, smooth_noise
from segment_slide.unet.boxes import Box

# Sizes in px at 0.5 um: cells of 12 to 17 um.
PITCH_PX = 27  # side of the grid's squares; each holds one cell at most
REACH_PX = 26  # from a cell's centre to the end of its border: 22.6, and room for the blur
_JITTER_PX = 8.0
_RADIUS_PX = (12.0, 16.5)  # about half the pitch, so that neighbours in a nest touch
_MEAN_RADIUS_PX = sum(_RADIUS_PX) / 2
_SPARE_SQUARES = 8  # added before and behind the slide's grid, so that ids are positive
_CELL = 1  # number of this file's use of the seed
_NOWHERE = 9.0  # depth of pixels that no cell reaches


@dataclass(frozen=True)
class Cells:
    """Cells in a box.

    Attributes
    ----------
    ids : ndarray of uint32
        Id of the cell that owns a pixel, 0 for none; cells touch each other.
    hematoxylin, eosin : ndarray of float64
        Amount of stain in the cells.
    cover : ndarray of float64
        1 inside a cell, falling to 0 across its border.
    """

    ids: np.ndarray
    hematoxylin: np.ndarray
    eosin: np.ndarray
    cover: np.ndarray


def count_ids(shape: tuple[int, int]) -> int:
    """Number of squares in a slide's grid; each has an id of its own."""
    return (shape[0] // PITCH_PX + 2 * _SPARE_SQUARES) * (shape[1] // PITCH_PX + 2 * _SPARE_SQUARES)


def tissue(seed: int, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """1 in tissue, 0 on glass, at rows `y` and columns `x` (px)."""
    outline = smooth_noise(seed, 1, y, x, 900.0) + 0.15 * smooth_noise(seed, 2, y, x, 90.0)
    return 1 / (1 + np.exp(-(outline - 0.45) / 0.003))


def draw_cells(seed: int, box: Box, *, width_px: int) -> Cells:
    """Draw all cells of a box. If several cells claim a pixel, it goes to the one in which it lies deepest.

    Depth is the distance from the centre over the radius in that direction: 0 at the centre, 1 at the border.

    Parameters
    ----------
    seed : int
        Seed of the slide.
    box : tuple of slice
        (y, x), may reach beyond the slide.
    width_px : int
        Width of the slide: ids count the grid's squares row by row.
    """
    shape = tuple(part.stop - part.start for part in box)
    nearest, second = np.full(shape, _NOWHERE), np.full(shape, _NOWHERE)
    nucleus, tone = np.zeros(shape), np.zeros(shape)
    ids = np.zeros(shape, np.uint32)
    per_row = width_px // PITCH_PX + 2 * _SPARE_SQUARES
    for cell in _cells_near(seed, box):
        part = cell.overlap(box)
        if part is None:
            continue
        depth, core = cell.measure(box, part)
        wins = depth < nearest[part]
        second[part] = np.where(wins, nearest[part], np.minimum(second[part], depth))
        nearest[part] = np.where(wins, depth, nearest[part])
        nucleus[part] = np.where(wins, core, nucleus[part])
        tone[part] = np.where(wins, cell.tone, tone[part])
        number = (cell.row + _SPARE_SQUARES) * per_row + cell.column + _SPARE_SQUARES
        ids[part] = np.where(wins & (depth < 1), np.uint32(number), ids[part])
    return _stain(ids, nearest, second, nucleus, tone)


def _stain(ids: np.ndarray, nearest: np.ndarray, second: np.ndarray, nucleus: np.ndarray, tone: np.ndarray) -> Cells:
    """Stain of the cells: cytoplasm, a membrane where the cell ends or touches another, a nucleus."""
    cover = 1 / (1 + np.exp((nearest - 1) * _MEAN_RADIUS_PX / 0.8))
    gap_px = np.minimum(np.abs(1 - nearest), np.maximum(second - nearest, 0) / 2) * _MEAN_RADIUS_PX
    membrane = np.exp(-((gap_px / 1.3) ** 2)) * cover
    hematoxylin = cover * (0.30 * tone + 0.75 * nucleus * (0.6 + 0.5 * tone)) + 0.28 * membrane
    eosin = cover * (0.20 + 0.10 * tone) * (1 - 0.5 * nucleus) + 0.30 * membrane
    return Cells(ids, hematoxylin, eosin, cover)


def _cells_near(seed: int, box: Box) -> Iterator["_Cell"]:
    """Yield the cells of all squares from which a cell may reach the box."""
    rows, columns = (range(part.start // PITCH_PX - 2, part.stop // PITCH_PX + 3) for part in box)
    chances = _chance_of_a_cell(seed, np.array(rows), np.array(columns))
    for row in rows:
        for column in columns:
            random = generator(seed, _CELL, row, column).random(16)
            if random[0] < chances[row - rows.start, column - columns.start]:
                yield _Cell.place(random, row, column)


def _chance_of_a_cell(seed: int, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """High in nests, low in stroma, 0 on glass."""
    y, x = (rows + 0.5) * PITCH_PX, (columns + 0.5) * PITCH_PX
    nests = 1 / (1 + np.exp(-(smooth_noise(seed, 3, y, x, 230.0) - 0.45) / 0.05))
    return np.where(tissue(seed, y, x) > 0.6, 0.10 + 0.88 * nests, 0.0)


@dataclass(frozen=True)
class _Cell:
    """A cell's body and nucleus; positions in px of the slide."""

    row: int
    column: int
    y: float
    x: float
    radius: float
    stretch: float
    angle: float
    waves: np.ndarray  # amplitudes and phases of the 2nd to 4th harmonic of the outline
    nucleus_y: float
    nucleus_x: float
    nucleus_radius: float
    tone: float

    @classmethod
    def place(cls, random: np.ndarray, row: int, column: int) -> "_Cell":
        """Make the cell of a grid square; every second row is moved by half a square."""
        radius = _RADIUS_PX[0] + (_RADIUS_PX[1] - _RADIUS_PX[0]) * random[1]
        y = (row + 0.5) * PITCH_PX + (2 * random[2] - 1) * _JITTER_PX
        x = (column + 0.5 + 0.5 * (row % 2)) * PITCH_PX + (2 * random[3] - 1) * _JITTER_PX
        offset, direction = 0.22 * radius * random[4], 2 * np.pi * random[5]
        return cls(
            row,
            column,
            y,
            x,
            radius=radius,
            stretch=1.0 + 0.22 * random[6],
            angle=np.pi * random[7],
            waves=np.stack([np.array([0.04, 0.05, 0.03]) * random[8:11], 2 * np.pi * random[11:14]]),
            nucleus_y=offset * np.sin(direction),
            nucleus_x=offset * np.cos(direction),
            nucleus_radius=radius * (0.38 + 0.16 * random[14]),
            tone=random[15],
        )

    def overlap(self, box: Box) -> Box | None:
        """The part of a box that the cell can reach, in the box's coordinates; None if there is none."""
        parts = []
        for centre, part in zip((self.y, self.x), box, strict=True):
            start = max(int(np.floor(centre)) - REACH_PX, part.start)
            stop = min(int(np.ceil(centre)) + REACH_PX + 1, part.stop)
            if start >= stop:
                return None
            parts.append(slice(start - part.start, stop - part.start))
        return tuple(parts)

    def measure(self, box: Box, part: Box) -> tuple[np.ndarray, np.ndarray]:
        """Depth (0 at the centre, 1 at the border) and nucleus (1 inside, 0 outside) of pixels in a part of a box."""
        # The centre is subtracted from whole numbers, so that the result does not depend on where the box begins.
        y = np.arange(box[0].start + part[0].start, box[0].start + part[0].stop)[:, None] - self.y
        x = np.arange(box[1].start + part[1].start, box[1].start + part[1].stop)[None, :] - self.x
        along = (x * np.cos(self.angle) + y * np.sin(self.angle)) / self.stretch
        across = (y * np.cos(self.angle) - x * np.sin(self.angle)) * self.stretch
        theta = np.arctan2(across, along)
        outline = np.ones_like(theta)
        for harmonic, (amplitude, phase) in enumerate(self.waves.T, start=2):
            outline += amplitude * np.cos(harmonic * theta + phase)
        depth = np.sqrt(along**2 + across**2) / (self.radius * outline)
        core_px = np.hypot(y - self.nucleus_y, x - self.nucleus_x) - self.nucleus_radius * outline
        return depth, 1 / (1 + np.exp(core_px / 0.7))
