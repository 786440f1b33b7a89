"""Pictures of a report: a part of the image, and beside it the same part with classes or objects drawn over it."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from segment_slide.pipeline.pictures.layer import Frame, Layer
from segment_slide.pipeline.pictures.paint import Colour, choose_bar, load_font, paint
from segment_slide.pipeline.pictures.thumbnail import panel_size, render, sample
from segment_slide.pipeline.storage.calibration import pixel_um

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

_FILL, _FILL_ALONE = 0.28, 0.6  # opacity of classes and objects over an image, and without one
_NO_IMAGE = (38, 38, 44)
_JPEG_QUALITIES = 84, 72, 58, 42
_MOST_BYTES = 200_000  # of one picture: a page has up to eight
_GOLDEN_ANGLE = 0.61803398875  # of a turn, so that successive ids have very different hues
_LETTER_PX = 15


@dataclass(frozen=True)
class Mark:
    """A rectangle in a picture that marks the part shown by another picture, and its letter."""

    letter: str
    frame: Frame


@dataclass(frozen=True, eq=False)
class View:
    """What to draw.

    Parameters
    ----------
    image : Layer or None
        The image; without it labels are drawn alone.
    labels : Layer
        Classes, or ids of objects.
    colours : mapping of int to (red, green, blue), optional
        Colours of classes; without them each id has a colour of its own.
    frame : Frame
        The part to show.
    side_px : int
        Longer side of a picture.
    marks : sequence of Mark
        Rectangles of other pictures.
    """

    image: Layer | None
    labels: Layer
    colours: Mapping[int, Colour] | None
    frame: Frame
    side_px: int
    marks: Sequence[Mark] = ()


@dataclass(frozen=True, eq=False)
class Drawn:
    """Pictures as bytes of a format that every browser opens, and the label values that they show.

    Attributes
    ----------
    plain : (str, bytes) or None
        MIME type and content; None without an image.
    shown : (str, bytes)
        MIME type and content of the picture with classes or objects drawn over it.
    values : ndarray
        Label values that are visible.
    size : (int, int)
        Height and width (px) of each picture.
    """

    plain: tuple[str, bytes] | None
    shown: tuple[str, bytes]
    values: np.ndarray
    size: tuple[int, int]


def draw_view(view: View) -> Drawn:
    """Read the pixels for the pictures, and draw them.

    Raises
    ------
    UnreadableChunkError
        If a chunk that should be shown is damaged.
    """
    base = view.labels.base
    size = panel_size(base, view.frame, view.side_px)
    values = sample(view.labels, view.frame, size, view.side_px)
    seen = np.unique(values[values != 0])
    colours = {int(value): colour_of_object(int(value)) for value in seen} if view.colours is None else view.colours
    if view.image is None:
        plain, under, fill = None, np.full((*size, 3), _NO_IMAGE, np.uint8), _FILL_ALONE
    else:
        plain = under = render(view.image, view.frame, size, view.side_px)
        fill = _FILL
    um = pixel_um(base, "x")
    panel_um = None if um is None else um * (view.frame["x"][1] - view.frame["x"][0])
    bar = None if panel_um is None else choose_bar(panel_um, size[1])
    shown = paint(under, values, colours, fill)
    return Drawn(
        plain=None if plain is None else encode(_annotate(plain, view, bar)),
        shown=encode(_annotate(shown, view, bar)),
        values=seen,
        size=size,
    )


def colour_of_object(value: int) -> Colour:
    """A bright colour for an id; successive ids have different colours.

    >>> colour_of_object(1), colour_of_object(2)
    ((20, 89, 255), (157, 255, 20))
    """
    import colorsys

    red, green, blue = colorsys.hsv_to_rgb(value * _GOLDEN_ANGLE % 1.0, 0.92, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


def encode(picture: "Image") -> tuple[str, bytes]:
    """Encode as PNG or as JPEG, whichever is smaller. JPEG's quality is lowered until the picture is small enough."""
    smallest = _encode(picture, "png", optimize=True)
    for quality in _JPEG_QUALITIES:
        if len(smallest[1]) > _MOST_BYTES or quality == _JPEG_QUALITIES[0]:
            sharp = {"subsampling": 0} if quality == _JPEG_QUALITIES[0] else {}
            smallest = min(smallest, _encode(picture, "jpeg", quality=quality, **sharp), key=lambda one: len(one[1]))
    return smallest


def _encode(picture: "Image", kind: str, **options: int) -> tuple[str, bytes]:
    file = io.BytesIO()
    picture.save(file, format=kind, **options)
    return f"image/{kind}", file.getvalue()


def _annotate(pixels: np.ndarray, view: View, bar: tuple[int, str] | None) -> "Image":
    """Draw the rectangles of other pictures, and a scale bar at the bottom left."""
    from PIL import Image, ImageDraw

    picture = Image.fromarray(pixels)
    pen = ImageDraw.Draw(picture)
    for mark in view.marks:
        _draw_mark(pen, mark, view.frame, picture.size)
    if bar is not None:
        _draw_bar(pen, bar, picture.size)
    return picture


def _draw_mark(pen: "ImageDraw", mark: Mark, frame: Frame, size: tuple[int, int]) -> None:
    """Draw a white rectangle between black ones, with its letter above it (or below, if there is no room above)."""
    ends = []
    for axis, n in zip("xy", size, strict=True):
        start, stop = frame[axis]
        ends.append([round((at - start) / (stop - start) * n) for at in mark.frame[axis]])
    (left, right), (top, bottom) = ends
    for grow, colour in ((2, "black"), (1, "white"), (0, "white"), (-1, "black")):
        if right - left > -2 * grow and bottom - top > -2 * grow:
            pen.rectangle((left - grow, top - grow, right - 1 + grow, bottom - 1 + grow), outline=colour)
    y = top - _LETTER_PX - 7 if top >= _LETTER_PX + 8 else bottom + 3
    pen.text(
        (max(left, 3), y), mark.letter, fill="white", font=load_font(_LETTER_PX), stroke_width=2, stroke_fill="black"
    )


def _draw_bar(pen: "ImageDraw", bar: tuple[int, str], size: tuple[int, int]) -> None:
    length, text = bar
    width, height = size
    if length < 1 or width < 2 * _LETTER_PX or height < 3 * _LETTER_PX:
        return
    left, bottom = 14, height - 12
    pen.rectangle((left - 1, bottom - 6, left + length, bottom + 1), fill="black")
    pen.rectangle((left, bottom - 5, left + length - 1, bottom), fill="white")
    corner = (left, bottom - 10 - _LETTER_PX - 4)
    pen.text(corner, text, fill="white", font=load_font(_LETTER_PX), stroke_width=2, stroke_fill="black")
