"""What a weight map costs: ours against one distance transform per cell, and from 100 to 10,000 cells.

Run: ``python benchmarks/weight_map.py --output weight_map.png``. Times are seconds of one core
(`time.process_time`), so that other work on the machine does not count; compiling is done before. Brute force is Eq. 2
as it is written: a distance transform of the whole image per cell, of which the two smallest values are kept. With
``--brute-cells N`` only N cells are measured, spread over all, and the rest is extrapolated: each costs the same,
whatever it looks like.
"""

import argparse
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.ndimage import distance_transform_edt
from skimage.segmentation import expand_labels

from segment_slide.unet.weight_map import count_class_weights, cut_ridges, weight_map
from segment_slide.unet.weight_settings import WeightSettings

SIZES = ((100, 650), (300, 1126), (1_000, 2048), (3_000, 3560), (10_000, 6500))  # the same density of cells
COMPARED = 1_000
SETTINGS = WeightSettings()


@dataclass(frozen=True)
class Row:
    """One image size."""

    cells: int
    side: int
    ours_s: float
    brute_s: float | None = None
    difference: float | None = None


def draw_cells(cells: int, side: int, seed: int = 0) -> np.ndarray:
    """Label image of discs of varied size on a jittered grid, grown until many touch; int32."""
    random = np.random.default_rng(seed)
    per_row = math.ceil(math.sqrt(cells))
    step = side / per_row
    labels = np.zeros((side, side), np.int32)
    for number in range(cells):
        centre = (np.array(divmod(number, per_row)) + 0.5 + random.uniform(-0.15, 0.15, 2)) * step
        radius = step * random.uniform(0.25, 0.42)
        box = tuple(slice(max(int(c - radius), 0), min(int(c + radius) + 2, side)) for c in centre)
        y, x = np.ogrid[box]
        labels[box][(y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= radius**2] = number + 1
    return expand_labels(labels, step * 0.08)


def seconds(work: Callable[[], object], repeats: int = 1) -> float:
    """Smallest processor time of some runs."""
    best = math.inf
    for _ in range(repeats):
        began = time.process_time()
        work()
        best = min(best, time.process_time() - began)
    return best


def brute_force(labels: np.ndarray, cells: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """d1 and d2 of some cells: one distance transform of the whole image for each."""
    nearest, second = np.full(labels.shape, np.inf), np.full(labels.shape, np.inf)
    for cell in cells:
        distance = distance_transform_edt(labels != cell)
        second = np.minimum(second, np.maximum(nearest, distance))
        nearest = np.minimum(nearest, distance)
    return nearest, second


def weigh_brute(labels: np.ndarray) -> np.ndarray:
    """Eq. 2 by brute force, all cells: what ours is compared with."""
    cut = cut_ridges(labels)
    d1, d2 = brute_force(cut, [int(cell) for cell in np.unique(cut) if cell])
    w_c = np.array(count_class_weights(np.bincount((cut > 0).ravel(), minlength=2)))
    border = SETTINGS.w0 * np.exp(-((d1 + d2) ** 2) / (2 * SETTINGS.sigma_px**2))
    return w_c[(cut > 0).astype(int)] + np.where(cut > 0, 0, border)


def measure(cells: int, side: int, brute_cells: int) -> Row:
    """One size; brute force at `COMPARED` cells only."""
    labels = draw_cells(cells, side)
    ours = seconds(lambda: weight_map(labels, SETTINGS), repeats=3)
    if cells != COMPARED:
        return Row(cells, side, ours)
    if brute_cells >= cells:
        began = time.process_time()
        expected = weigh_brute(labels)
        brute = time.process_time() - began
        return Row(cells, side, ours, brute, float(np.abs(weight_map(labels, SETTINGS).weights - expected).max()))
    sample = [int(cell) for cell in np.linspace(1, cells, brute_cells)]
    return Row(cells, side, ours, seconds(lambda: brute_force(labels, sample)) * cells / brute_cells)


def plot(rows: list[Row], output: Path) -> None:
    """Time over cells, with a line of slope 1."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    cells = [row.cells for row in rows]
    axes.loglog(cells, [row.ours_s for row in rows], "o-", label="weight_map")
    per_cell = rows[-1].ours_s / rows[-1].cells
    axes.loglog(cells, [per_cell * n for n in cells], ":", color="grey", label="linear")
    for row in rows:
        if row.brute_s is not None:
            axes.loglog(row.cells, row.brute_s, "s", color="tab:red", label="a distance transform per cell")
    axes.set(xlabel="cells, at the same density", ylabel="seconds of one core", title="Weight maps (Eq. 2)")
    axes.legend()
    figure.savefig(output, dpi=150)


def main() -> None:
    """Measure, print, plot."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, default=Path("weight_map.png"), help="plot (PNG)")
    parser.add_argument("--brute-cells", type=int, default=COMPARED, help="cells of brute force to measure")
    arguments = parser.parse_args()
    weight_map(draw_cells(4, 64), SETTINGS)  # compiles
    print("cells    image         Mpx   ours (s)   ns/px   brute force (s)   factor   max difference")
    rows = []
    for cells, side in SIZES:
        row = measure(cells, side, arguments.brute_cells)
        rows.append(row)
        brute = "" if row.brute_s is None else f"{row.brute_s:15.1f}   {row.brute_s / row.ours_s:6.0f}"
        error = "" if row.difference is None else f"   {row.difference:.1e}"
        pixels, size = side * side, f"{side}x{side}"
        ours = f"{row.ours_s:8.3f}   {row.ours_s / pixels * 1e9:5.0f}"
        print(f"{cells:6d}   {size:<11} {pixels / 1e6:5.1f}   {ours}   {brute}{error}", flush=True)
    if arguments.brute_cells < COMPARED:
        print(f"brute force: extrapolated from {arguments.brute_cells} of {COMPARED} cells")
    plot(rows, arguments.output)
    print(f"plot: {arguments.output}")


if __name__ == "__main__":
    main()
