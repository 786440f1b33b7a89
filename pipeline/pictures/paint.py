"""Draw a thumbnail: arrays in, PNG bytes out. This file knows nothing of stores, levels and records."""

import functools
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont

Colour = tuple[int, ...]  # red, green, blue

_MAX_SAMPLED_PX = 1 << 20  # pixels from which a percentile is taken
_PERCENTILES = (1.0, 99.8)
_ROWS_AT_A_TIME = 1024
_FILL, _FILL_ALONE = 0.3, 0.6  # opacity of classes over an image, and without one
_CROWDED = 0.6  # if outlines cover more than this share of the objects' pixels, they become thinner
_SHARP_FROM = 4  # enlarged this much or more, pixels are shown as squares; below, they are smoothed
_MARGIN_PX, _GAP_PX, _LINE_PX, _TEXT_PX, _SWATCH_PX = 12, 10, 22, 13, 12
_NARROWEST_SLOT_PX, _MAX_NAME_PX = 240, 200
_INK, _FAINT, _NO_IMAGE = (32, 32, 36), (110, 110, 116), (38, 38, 44)


@dataclass(frozen=True)
class Page:
    """What to draw.

    Parameters
    ----------
    plain : ndarray of uint8, (y, x, 3), optional
        The image; without it labels are drawn alone.
    classes : ndarray of integers, (y, x)
        Label values, of the same size as the image; 0 is background.
    colours : mapping of int to (red, green, blue)
        Colour of each value.
    names : mapping of int to str
        Names of values, for the legend.
    captions : (str, str)
        Texts above the image and above the labels.
    panel_um : float, optional
        Width of a panel, for the scale bar.
    """

    plain: np.ndarray | None
    classes: np.ndarray
    colours: Mapping[int, Colour]
    names: Mapping[int, str]
    captions: tuple[str, str]
    panel_um: float | None = None


def find_ends(channel: np.ndarray) -> tuple[float, float]:
    """Intensities to show as black and white: the 1st and the 99.8th percentile of the finite values.

    >>> find_ends(np.array([[np.nan, 0.0, 100.0]]))
    (1.0, 99.8)
    """
    step = math.isqrt(max(channel.size // _MAX_SAMPLED_PX, 1))
    values = channel[::step, ::step].astype(np.float64)
    values = values[np.isfinite(values)]
    if not values.size:
        return 0.0, 0.0
    low, high = (float(end) for end in np.percentile(values, _PERCENTILES))
    return (low, high) if low < high else (low, float(values.max()))  # a few bright spots on black


def stretch(channel: np.ndarray, low: float, high: float) -> np.ndarray:
    """Map a channel to uint8 between two intensities; NaN is black, a flat channel is grey unless it is 0.

    >>> stretch(np.array([[0.0, 5.0, 99.0, np.nan]]), 0.0, 10.0).tolist()
    [[0, 128, 255, 0]]
    """
    if not low < high:
        return np.where(np.isfinite(channel) & (channel != 0), np.uint8(128), np.uint8(0))
    shown = np.empty(channel.shape, np.uint8)
    with np.errstate(over="ignore", invalid="ignore"):  # float64 up to its largest value
        for top in range(0, len(channel), _ROWS_AT_A_TIME):
            rows = slice(top, top + _ROWS_AT_A_TIME)
            share = (channel[rows].astype(np.float64) - low) / (high - low)
            shown[rows] = np.nan_to_num(np.clip(share, 0, 1)) * 255 + 0.5
    return shown


def resize(
    channel: np.ndarray, size: tuple[int, int], y_edges: tuple[float, float], x_edges: tuple[float, float]
) -> np.ndarray:
    """Cut a part of a channel, with edges at fractions of pixels, and resize it to the size of a panel.

    Parameters
    ----------
    channel : ndarray of uint8, (y, x)
        If an edge lies outside, the outermost pixels are repeated.
    size : (int, int)
        Height and width (px) of the result.
    y_edges, x_edges : (float, float)
        Start and stop (px); the channel spans 0 to its size.
    """
    from PIL import Image

    around = [
        (max(0, math.ceil(-start)), max(0, math.ceil(stop - n)))
        for (start, stop), n in zip((y_edges, x_edges), channel.shape, strict=True)
    ]
    padded = np.pad(channel, around, mode="edge")
    (top, bottom), (left, right) = (
        (a + pad[0], b + pad[0]) for (a, b), pad in zip((y_edges, x_edges), around, strict=True)
    )
    enlarged = min(size[0] / (bottom - top), size[1] / (right - left))
    how = Image.Resampling.NEAREST if enlarged >= _SHARP_FROM else Image.Resampling.LANCZOS
    picture = Image.fromarray(padded).resize((size[1], size[0]), how, box=(left, top, right, bottom))
    return np.asarray(picture)


def mix(channels: Sequence[np.ndarray], colours: Sequence[Colour]) -> np.ndarray:
    """Add channels (uint8), each in its colour, to a picture (y, x, 3).

    >>> mix([np.array([[255, 0]]), np.array([[255, 0]])], [(255, 0, 0), (0, 255, 9)]).tolist()
    [[[255, 255, 9], [0, 0, 0]]]
    """
    total = np.full((*channels[0].shape, 3), 0.5, np.float32)
    for channel, colour in zip(channels, colours, strict=True):
        total += channel[..., None] * np.array(colour, np.float32) / 255
    mixed: np.ndarray = np.minimum(total, 255).astype(np.uint8)
    return mixed


def paint(plain: np.ndarray, classes: np.ndarray, colours: Mapping[int, Colour], fill: float) -> np.ndarray:
    """Draw classes over an image: half transparent, with outlines inside the objects, none along the picture's border.

    Lines are 2 px wide, or 1 px if wider ones would cover most of all objects. Objects less than 4 px across are
    opaque, so that they can be seen.
    """
    values, number = np.unique(classes, return_inverse=True)
    number = number.reshape(classes.shape).astype(np.int32)
    palette = np.array([colours.get(int(value), (0, 0, 0)) for value in values], np.float64)
    outline = _outline(number, 2) & (classes != 0)
    if outline.sum() > _CROWDED * (classes != 0).sum():
        outline = _outline(number, 1) | _is_thin(number)
    opacity = np.where(outline, 1.0, fill) * (classes != 0)
    mixed = plain + opacity[..., None] * (palette[number] - plain)
    painted: np.ndarray = (mixed + 0.5).astype(np.uint8)
    return painted


def _outline(number: np.ndarray, width_px: int) -> np.ndarray:
    """Pixels that have another value within `width_px`."""
    from scipy import ndimage

    around = 2 * width_px + 1
    least, most = (f(number, size=around, mode="nearest") for f in (ndimage.minimum_filter, ndimage.maximum_filter))
    differs: np.ndarray = least < most
    return differs


def _is_thin(number: np.ndarray) -> np.ndarray:
    """Pixels that lie in no 4 x 4 px square of equal values."""
    from scipy import ndimage

    least, most = (f(number, size=4, mode="nearest") for f in (ndimage.minimum_filter, ndimage.maximum_filter))
    covered: np.ndarray = ndimage.maximum_filter(least == most, size=4, origin=-1, mode="nearest")
    return ~covered


def draw_page(page: Page) -> bytes:
    """PNG with the image, the image with its classes, a scale bar and a legend; equal pages give equal bytes."""
    from PIL import Image, ImageDraw

    height, width = page.classes.shape
    if page.plain is None:
        empty = np.full((height, width, 3), _NO_IMAGE, np.uint8)
        panels = [
            (paint(empty, page.classes, page.colours, _FILL_ALONE), f"{page.captions[1]} (the image is not there)")
        ]
    else:
        shown = paint(page.plain, page.classes, page.colours, _FILL)
        panels = [(page.plain, page.captions[0]), (shown, page.captions[1])]
    slot = max(width, _NARROWEST_SLOT_PX)
    lefts = [_MARGIN_PX + number * (slot + _GAP_PX) for number in range(len(panels))]
    full_width = lefts[-1] + slot + _MARGIN_PX
    upper = _MARGIN_PX + _LINE_PX
    foot = upper + height + 8
    bar = None if page.panel_um is None else choose_bar(page.panel_um, width)
    pen = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    n_lines = _draw_foot(pen, page, bar, lefts[-1], foot, full_width)
    sheet = Image.new("RGB", (full_width, foot + n_lines * _LINE_PX + _MARGIN_PX // 2), "white")
    pen = ImageDraw.Draw(sheet)
    for left, (pixels, caption) in zip(lefts, panels, strict=True):
        sheet.paste(Image.fromarray(pixels), (left, upper))
        pen.text((left, _MARGIN_PX - 2), _shorten(pen, caption, slot), fill=_FAINT, font=load_font())
    _draw_foot(pen, page, bar, lefts[-1], foot, full_width)
    file = io.BytesIO()
    sheet.save(file, format="PNG", optimize=True)
    return file.getvalue()


def choose_bar(panel_um: float, width_px: int) -> tuple[int, str]:
    """Length (px) and name of a scale bar: the longest round length that takes at most a third of a panel.

    >>> choose_bar(1000.0, 768)
    (154, '200 µm')
    >>> choose_bar(0.25, 768)
    (154, '50 nm')
    """
    most = panel_um / 3
    power = 10.0 ** math.floor(math.log10(most) + 1e-9)
    length = max(step * power for step in (1, 2, 5) if step * power <= most * (1 + 1e-9))
    unit, factor = next(
        (u, f) for u, f in (("m", 1e6), ("cm", 1e4), ("mm", 1e3), ("µm", 1.0), ("nm", 0.0)) if length >= f
    )
    return round(length / panel_um * width_px), f"{length / (factor or 1e-3):.4g} {unit}"


def _draw_foot(
    pen: "ImageDraw", page: Page, bar: tuple[int, str] | None, left: float, top: float, full_width: float
) -> int:
    """Draw the scale bar below the first panel and the legend below the last; return the number of lines."""
    lines, legend_left, x = 1, left, left
    if bar is not None:
        length, text = bar
        pen.rectangle((_MARGIN_PX, top + 6, _MARGIN_PX + max(length, 2) - 1, top + 9), fill=_INK)
        pen.text((_MARGIN_PX + length + 8, top - 1), text, fill=_INK, font=load_font())
        legend_left = x = max(left, _MARGIN_PX + length + 8 + pen.textlength(text, font=load_font()) + 24)
    for value, name in page.names.items():
        name = _shorten(pen, name, _MAX_NAME_PX)
        width = _SWATCH_PX + 6 + pen.textlength(name, font=load_font())
        if x > legend_left and x + width > full_width - _MARGIN_PX:
            lines, x = lines + 1, legend_left
        y = top + (lines - 1) * _LINE_PX
        pen.rectangle((x, y + 2, x + _SWATCH_PX - 1, y + 1 + _SWATCH_PX), fill=page.colours[value])
        pen.text((x + _SWATCH_PX + 6, y - 1), name, fill=_INK, font=load_font())
        x += width + 18
    return lines


def _shorten(pen: "ImageDraw", text: str, width_px: int) -> str:
    """Shorten a text so that it ends before its neighbour begins."""
    kept = text
    while kept and pen.textlength(text if kept == text else kept + "…", font=load_font()) > width_px:
        kept = kept[:-1]
    return kept if kept == text else kept + "…"


@functools.cache
def load_font(size_px: int = _TEXT_PX) -> "FreeTypeFont":
    """Load DejaVu Sans, which comes with matplotlib: Pillow's own font lacks µ and the letters of most languages."""
    import matplotlib
    from PIL import ImageFont

    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"), size_px)
