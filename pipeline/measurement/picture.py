"""Summary of a table of objects as a picture: number of objects per class, and their sizes."""

import io
from typing import TYPE_CHECKING

import numpy as np

from segment_slide.pipeline.measurement.summary import OTHERS, SizeCounts, Summary, gather_rare
from segment_slide.pipeline.metadata.colours import hex_colour

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, FAINT = "#222222", "#999999"
_DPI = 120
_MAX_BINS = 36
_NARROW = 100  # if the largest size is below this many times the smallest, powers of ten alone are too few axis marks
MOST_CLASSES = 8  # in a plot; more colours are hard to tell apart
_NAME_LETTERS = 28
_GROUPED_FROM = 20  # with fewer objects of a class, its sizes show no distribution


def colour_of(value: int) -> str:
    """Colour of a class, as in the label image; grey for the classes that are drawn together.

    >>> colour_of(1), colour_of(8)
    ('#e69f00', '#e69f00')
    """
    return FAINT if value == OTHERS else hex_colour(value)


def draw_summary(summary: Summary, title: str) -> bytes:
    """PNG of counts per class, and of sizes per class on a logarithmic axis. Equal summaries give equal bytes.

    Parameters
    ----------
    summary : Summary
        Numbers to show.
    title : str
        Title above the plots.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.08, rect=(0, 0, 1, 0.86))
    figure = Figure(figsize=(10, 4.4), dpi=_DPI, facecolor="white", layout=layout)
    FigureCanvasAgg(figure)
    figure.text(0.015, 0.975, literal(title), fontsize=14, fontweight="bold", color=INK, va="top")
    figure.text(0.015, 0.905, describe(summary), fontsize=10.5, color="#555555", va="top")
    if summary.all.n_objects:
        summary = gather_rare(summary, MOST_CLASSES)
        several = len(summary.classes) > 1
        panels = figure.subplots(1, 1 + several, width_ratios=(3, 5) if several else None, squeeze=False)[0]
        draw_sizes(panels[-1], summary)
        if several:
            draw_counts(panels[0], summary)
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()


def describe(summary: Summary) -> str:
    """The most important numbers in a line."""
    found, small = summary.all, summary.small
    if not found.n_objects:
        return "no objects"
    return " · ".join(
        (
            f"{found.n_objects:,} objects",
            f"{number(found.density)} per {summary.density_unit}",
            f"{found.covered:.1%} of the image covered",
            f"median {summary.size_name} {number(found.quartiles[1])} {summary.size_unit}",
            f"{found.n_at_border:,} touch the image border",
            *([f"{small.share:.1%} are smaller than {small.below_px} px"] if small.n_small else []),
        )
    )


def number(value: float) -> str:
    """A measured value for people: three digits, or whole thousands.

    >>> number(0.01234), number(12.34), number(1234.5)
    ('0.0123', '12.3', '1,234')
    """
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def literal(text: str) -> str:
    r"""Escape a text so that matplotlib draws it unchanged: text between two dollar signs would become a formula.

    >>> print(literal("a$b$"))
    a\$b\$
    """
    return text.replace("$", r"\$")


def short_name(text: str) -> str:
    """A class name shortened for a plot. Its middle is left out, as names of a series often differ at their ends."""
    half = _NAME_LETTERS // 2
    return literal(text if len(text) <= _NAME_LETTERS else f"{text[:half]}…{text[-half + 1 :]}")


def draw_counts(axes: "Axes", summary: Summary) -> None:
    """A bar per class, the first on top, each with its number."""
    for place, (found, counts) in enumerate(zip(summary.classes, summary.counts, strict=True)):
        axes.barh(place, found.n_objects, height=0.55, color=colour_of(int(counts.classes[0])))
        axes.annotate(
            f"{found.n_objects:,} ({found.n_objects / summary.all.n_objects:.0%})",
            (found.n_objects, place),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=9.5,
            color=INK,
        )
    axes.set_yticks(range(len(summary.classes)), [short_name(found.name) for found in summary.classes])
    axes.set_ylim(max(len(summary.classes), 5) - 0.5, -0.6)  # keeps the bars thin if there are only a few
    axes.set_xlim(0, 1.5 * max(found.n_objects for found in summary.classes))
    axes.set_title("Objects per class", loc="left", fontsize=11, color=INK)
    axes.set_xticks([])  # not needed: each bar shows its number
    axes.spines[["top", "right", "bottom", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0, colors=INK, labelsize=9.5)


def draw_sizes(axes: "Axes", summary: Summary, *, key_below: bool = False) -> None:
    """Draw each class as shares of its own objects per logarithmic size bin, so that rare classes are visible too.

    Medians are drawn as dotted lines.

    Parameters
    ----------
    axes : Axes
        Axes to draw into.
    summary : Summary
        Numbers to draw.
    key_below : bool
        Whether class names are placed below the plot, where there is room for many.
    """
    axes.set_title(f"{summary.size_name.capitalize()} of objects", loc="left", fontsize=11, color=INK)
    axes.set_xlabel(f"{summary.size_name} ({summary.size_unit})", fontsize=9.5, color=INK)
    axes.set_ylabel(
        "share of the class's objects" if len(summary.counts) > 1 else "share of objects", fontsize=9.5, color=INK
    )
    edges = choose_bins(summary.counts)
    for found, counts in zip(summary.classes, summary.counts, strict=True):
        heights = np.histogram(counts.sizes, edges, weights=counts.counts)[0] / found.n_objects
        colour, x = colour_of(int(counts.classes[0])), edges * summary.size_factor
        axes.stairs(heights, x, fill=True, color=colour, alpha=0.3)
        label = f"{short_name(found.name)}, median {number(found.quartiles[1])} {summary.size_unit}"
        axes.stairs(heights, x, color=colour, linewidth=1.6, label=label)
        axes.axvline(found.quartiles[1], color=colour, linestyle=":", linewidth=1.6)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: number(value))
    is_narrow = edges[-1] < _NARROW * edges[0]
    axes.xaxis.set_minor_formatter(lambda value, _: number(value) if is_narrow and f"{value:e}"[0] in "25" else "")
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g} %")
    axes.margins(y=0.22)
    axes.set_ylim(bottom=0)
    draw_key(axes, below=key_below)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.tick_params(which="both", color=FAINT, labelcolor=INK, labelsize=9.5)


def draw_key(axes: "Axes", *, below: bool, place: str = "upper right") -> None:
    """Draw the legend in the plot, or below it."""
    style = {"edgecolor": "none", "framealpha": 0.85, "fontsize": 9.5, "labelcolor": INK}
    where = {"loc": "upper left", "bbox_to_anchor": (0.0, -0.2)} if below else {"loc": place}
    axes.legend(**style, **where)


def choose_bins(counts: tuple[SizeCounts, ...]) -> np.ndarray:
    """Edges (px) of bins of about equal width on a logarithmic axis.

    Edges lie between whole numbers, so that small sizes leave no empty bins between them.

    >>> choose_bins((SizeCounts(*np.array([[1, 1], [1, 4], [5, 5], [0, 0]])),)).tolist()
    [0.5, 1.5, 2.5, 3.5, 4.5]
    """
    smallest = min(int(part.sizes.min()) for part in counts)
    largest = max(int(part.sizes.max()) for part in counts)
    n_objects = max(part.n_objects for part in counts)
    n_bins = int(np.clip(2 * n_objects ** (1 / 2), 8, _MAX_BINS)) if n_objects >= _GROUPED_FROM else 8
    return np.unique(np.round(np.geomspace(smallest, largest + 1, n_bins + 1))) - 0.5
