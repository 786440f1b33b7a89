"""Plots of a report as SVG inside the page: lines and text take the page's colours, light or dark."""

import io
import math
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from segment_slide.pipeline.measurement.picture import (
    FAINT,
    INK,
    MOST_CLASSES,
    colour_of,
    draw_counts,
    draw_key,
    draw_sizes,
    literal,
    number,
    short_name,
)
from segment_slide.pipeline.measurement.summary import Summary, choose_groups, gather_rare
from segment_slide.pipeline.report.places import CountMap
from segment_slide.pipeline.report.table import Intensities

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_FEWEST_HEAT_BINS, _HEAT_BINS = 6, 56  # along the longer side; fewer bins if few objects would leave most of them empty
_PAPER = "#fefefe"  # replaced by the page's own background colour
_WIDTH, _HEIGHT = 5.2, 3.3  # inch
_ROW_INCH = 0.21  # height of a row of the legend
_MOST_INSIDE = 4  # class names that fit into a plot


def plot_counts(summary: Summary) -> str:
    """Draw a bar per class; if there are many, rare ones share the last bar."""
    shown = gather_rare(summary, MOST_CLASSES)
    return _draw("counts", lambda figure: draw_counts(figure.subplots(), shown), height=1.2 + 0.4 * len(shown.counts))


def plot_sizes(summary: Summary) -> str:
    """Draw sizes per class on a logarithmic axis."""
    shown = gather_rare(summary, MOST_CLASSES)
    n_below = _rows_below(shown)
    height = _HEIGHT + _ROW_INCH * n_below
    return _draw("sizes", lambda figure: draw_sizes(figure.subplots(), shown, key_below=n_below > 0), height=height)


def _rows_below(summary: Summary) -> int:
    """Rows of a legend that does not fit into the plot."""
    return len(summary.classes) if len(summary.classes) > _MOST_INSIDE else 0


def plot_intensities(found: Intensities, summary: Summary, key: str) -> str:
    """Draw mean intensities of objects in a channel, per class.

    Parameters
    ----------
    found : Intensities
        Intensities of one channel.
    summary : Summary
        The summary with its classes.
    key : str
        A key that is unique among the plots of a page.
    """
    groups = choose_groups(summary, MOST_CLASSES)
    gathered = gather_rare(summary, MOST_CLASSES)
    n_below = _rows_below(gathered)

    def draw(figure: "Figure") -> None:
        axes = figure.subplots()
        classes = zip(
            gathered.classes, gathered.counts, (found.counts[rows].sum(axis=0) for rows in groups), strict=True
        )
        for of_class, sizes, counts in classes:
            colour = colour_of(int(sizes.classes[0]))
            shares = counts / max(int(counts.sum()), 1)
            axes.stairs(shares, found.edges, fill=True, color=colour, alpha=0.3)
            axes.stairs(shares, found.edges, color=colour, linewidth=1.6, label=short_name(of_class.name))
        axes.set_ylabel(
            "share of the class's objects" if len(summary.counts) > 1 else "share of objects", fontsize=9.5, color=INK
        )
        _style(
            axes, f"Intensity in {'channel ' * found.channel.isdecimal()}{found.channel}", "mean intensity of an object"
        )
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g} %")
        axes.set_ylim(bottom=0)
        if len(summary.counts) > 1:
            draw_key(axes, below=n_below > 0, place="best")

    return _draw(key, draw, height=_HEIGHT + _ROW_INCH * n_below)


def plot_planes(values: np.ndarray, axis: str, what: str, *, shown: int | None, is_share: bool = False) -> str:
    """Draw what is found in each plane or at each time, and mark the plane that the pictures show."""
    from matplotlib.ticker import MaxNLocator

    name = "plane" if axis == "z" else "time point"

    def draw(figure: "Figure") -> None:
        axes = figure.subplots()
        axes.stairs(values, np.arange(len(values) + 1) - 0.5, fill=True, color=colour_of(4), alpha=0.3)
        axes.stairs(values, np.arange(len(values) + 1) - 0.5, color=colour_of(4), linewidth=1.6)
        if shown is not None:
            axes.axvline(shown, color=INK, linestyle=":", linewidth=1.2)
        _style(axes, f"{what} per {name}", f"{axis} ({name})")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(integer=not is_share))
        if is_share:
            axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g} %")
        axes.set_ylim(0, max(float(values.max()) * 1.1, 1e-9))

    return _draw("planes", draw)


def plot_heat(places: CountMap, scale: tuple[float, float], *, unit: str, density_factor: float, density: str) -> str:
    """Draw the number of objects per area over the slide.

    Parameters
    ----------
    places : CountMap
        Number of objects per bin.
    scale : (float, float)
        Size of a pixel along y and x, in `unit`.
    unit : str
        Unit of the axes: "mm", "µm" or "px".
    density_factor : float
        Value of one object per pixel, in `density`.
    density : str
        Unit of the colours.
    """
    n_bins = int(np.clip(0.8 * math.sqrt(places.counts.sum()), _FEWEST_HEAT_BINS, _HEAT_BINS))
    values = places.per_px(n_bins) * density_factor
    height, width = (size * step for size, step in zip(places.size, scale, strict=True))
    # Bins at the far ends are narrower: the picture covers whole bins and is cut at the image's end.
    step = -(-max(places.counts.shape) // n_bins) * places.bin_px
    full_y, full_x = (n * step * size for n, size in zip(values.shape, scale, strict=True))

    def draw(figure: "Figure") -> None:
        axes = figure.subplots()
        extent = (0.0, full_x, full_y, 0.0)
        drawn = axes.imshow(values, extent=extent, cmap="viridis", vmin=0, interpolation="nearest", aspect="equal")
        axes.set_xlim(0, width)
        axes.set_ylim(height, 0)
        bar = figure.colorbar(drawn, ax=axes, shrink=0.9, pad=0.02)
        bar.outline.set_visible(False)
        bar.set_label(f"objects per {density}", fontsize=9.5, color=INK)
        bar.ax.yaxis.set_major_formatter(lambda value, _: number(value))
        bar.ax.tick_params(color=FAINT, labelcolor=INK, labelsize=9.5)
        _style(axes, "Density of objects", f"x ({unit})")
        axes.set_ylabel(f"y ({unit})", fontsize=9.5, color=INK)

    return _draw("heat", draw, height=min(5.2, max(2.2, 0.85 * _WIDTH * height / width + 0.7)))


def _style(axes: "Axes", title: str, below: str) -> None:
    axes.set_title(literal(title), loc="left", fontsize=11, color=INK)
    axes.set_xlabel(below, fontsize=9.5, color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.tick_params(which="both", color=FAINT, labelcolor=INK, labelsize=9.5)


def _draw(key: str, draw: "Callable[[Figure], None]", height: float = _HEIGHT) -> str:
    """Draw a figure as SVG for the page; equal figures give equal text."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": key}):
        figure = Figure(figsize=(_WIDTH, height), layout="compressed", facecolor="none")
        FigureCanvasSVG(figure)
        draw(figure)
        for axes in figure.axes:
            axes.set_facecolor("none")
            if (legend := axes.get_legend()) is not None:
                legend.get_frame().set_facecolor(_PAPER)
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata=nothing, bbox_inches="tight", pad_inches=0.06)
    return _tidy(file.getvalue(), key)


def _tidy(svg: str, key: str) -> str:
    """Remove what a page does not need: prolog, metadata, unused names; and use the page's colours."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, count=1, flags=re.DOTALL)
    head, rest = svg.split(">", 1)
    box = re.search(r'viewBox="[^"]*"', head)
    head = f'<svg class="plot" role="img" {box.group(0) if box else ""}'
    wanted = set(re.findall(r'(?:href="#|url\(#)([\w-]+)', rest))
    rest = re.sub(r' id="([\w-]+)"', lambda found: found.group(0) if found.group(1) in wanted else "", rest)
    for name in wanted:
        rest = rest.replace(f'id="{name}"', f'id="{key}-{name}"')
        rest = rest.replace(f'"#{name}"', f'"#{key}-{name}"').replace(f"url(#{name})", f"url(#{key}-{name})")
    rest = rest.replace(INK, "currentColor").replace(FAINT, "var(--faint)").replace(_PAPER, "var(--paper)")
    return f"{head}>{rest}".strip()
