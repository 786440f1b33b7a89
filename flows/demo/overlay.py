"""Draw an image with contours of the segmentation, as a PNG that is small enough to send."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH_PX = 1200
_DPI = 100


@dataclass(frozen=True)
class Panel:
    """One part of a picture.

    Parameters
    ----------
    image : ndarray of uint8, (y, x) or (y, x, 3)
        Grey or colour.
    title : str
        Text above it.
    contours : sequence of (mask, colour)
        Outlines to draw: a mask (y, x) and a matplotlib colour each.
    frame : (top, left, height, width), optional
        A rectangle to draw, which marks the part that another panel shows.
    """

    image: np.ndarray
    title: str = ""
    contours: Sequence[tuple[np.ndarray, str]] = ()
    frame: tuple[float, float, float, float] | None = None


def write_overlay(path: Path, panels: Sequence[Panel], caption: str = "") -> None:
    """Draw panels of equal height side by side and write them as a PNG of 256 colours.

    Parameters
    ----------
    path : Path
        File to write; replaced if it exists.
    panels : sequence of Panel
        From left to right.
    caption : str
        Text below them.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image

    shares = [panel.image.shape[1] / panel.image.shape[0] for panel in panels]
    width = _WIDTH_PX / _DPI
    foot = 0.36 if caption else 0.08  # inches
    height = width / sum(shares) + 0.32 + foot
    figure = Figure(figsize=(width, height), dpi=_DPI, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    grid = figure.add_gridspec(
        1, len(panels), width_ratios=shares, left=0.008, right=0.992, top=1 - 0.32 / height, bottom=foot / height
    )
    grid.update(wspace=0.02)
    for number, panel in enumerate(panels):
        _draw(figure.add_subplot(grid[number]), panel)
    figure.text(0.5, 0.10 / height, caption, ha="center", va="bottom", fontsize=9)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3]
    # An adaptive palette: a noisy photograph would be three times as large as a 24-bit PNG.
    Image.fromarray(pixels).quantize(256).save(path, optimize=True)


def _draw(axes: "Axes", panel: Panel) -> None:
    from matplotlib.patches import Rectangle

    axes.imshow(panel.image, cmap="gray", vmin=0, vmax=255, interpolation="antialiased")
    for mask, colour in panel.contours:
        if mask.any() and not mask.all():
            axes.contour(mask, levels=[0.5], colors=colour, linewidths=0.9)
    if panel.frame is not None:
        top, left, height, width = panel.frame
        axes.add_patch(Rectangle((left, top), width, height, fill=False, edgecolor="black", linewidth=1.5))
    axes.set_title(panel.title, fontsize=10)
    axes.set_axis_off()
