"""Draw the first samples on one page (image, classes, weights), to check them before hours of training."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from segment_slide.pipeline.metadata.colours import class_colour
from segment_slide.unet.sample import IGNORE, Sample

if TYPE_CHECKING:
    from PIL.Image import Image as Picture
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont, ImageFont

_PANEL_PX = 168
_GAP_PX, _GUTTER_PX = 4, 28
_CAPTION_LINES, _LINE_PX = 2, 15
_CAPTION_PX, _HEAD_PX, _MARGIN_PX = 5 + _CAPTION_LINES * _LINE_PX, 64, 24
_COLUMNS = 3  # samples in a row
_INK, _FAINT, _FRAME = (32, 32, 36), (120, 120, 126), (255, 196, 0)
_BACKGROUND = (38, 38, 44)
_IGNORED = ((236, 236, 238), (214, 214, 218))  # striped where nothing was annotated


def write_contact_sheet(
    path: Path, samples: Sequence[Sample], captions: Sequence[str], class_names: Sequence[str], title: str = ""
) -> None:
    """Draw samples as a PNG; volumes show their middle layer.

    Parameters
    ----------
    path : Path
        File to write; replaced if it exists.
    samples : sequence of Sample
        Samples, from left to right, top to bottom.
    captions : sequence of str
        Text below each sample, one or two lines: where it comes from, and which files it was made of.
    class_names : sequence of str
        Names of the classes; the first is background.
    title : str
        Title of the page.
    """
    from PIL import Image, ImageDraw

    layers = [_middle_layer(sample) for sample in samples]
    ends, top = _grey_ends(layers), max(float(layer.weights.max()) for layer in layers)
    width = 3 * _PANEL_PX + 2 * _GAP_PX
    columns = min(_COLUMNS, len(layers))
    rows = -(-len(layers) // columns)
    scratch = Image.new("RGB", (1, 1))
    head = _draw_head(scratch, ImageDraw.Draw(scratch), title, class_names, top)
    size = (
        _MARGIN_PX + max(columns * width + (columns - 1) * _GUTTER_PX + _MARGIN_PX, head),
        _MARGIN_PX + _HEAD_PX + rows * (_PANEL_PX + _CAPTION_PX + _GAP_PX) + _MARGIN_PX // 2,
    )
    page = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(page)
    _draw_head(page, pen, title, class_names, top)
    for number, (layer, caption) in enumerate(zip(layers, captions, strict=True)):
        row, column = divmod(number, columns)
        left = _MARGIN_PX + column * (width + _GUTTER_PX)
        upper = _MARGIN_PX + _HEAD_PX + row * (_PANEL_PX + _CAPTION_PX + _GAP_PX)
        panels = (_image_panel(layer, ends), _panel(_paint_classes(layer.classes)), _panel(_paint_weights(layer, top)))
        for position, panel in enumerate(panels):
            page.paste(panel, (left + position * (_PANEL_PX + _GAP_PX), upper))
        for line, text in enumerate(caption.split("\n", _CAPTION_LINES - 1)):
            place = (left, upper + _PANEL_PX + 3 + line * _LINE_PX)
            pen.text(place, _shorten(pen, text, width), fill=_FAINT, font=_font(12))
    page.save(path, format="PNG", optimize=True)


def _middle_layer(sample: Sample) -> Sample:
    if sample.classes.ndim == 2:
        return sample
    depth, tile = sample.image.shape[1], sample.classes.shape[0]
    return Sample(sample.image[:, depth // 2], sample.classes[tile // 2], sample.weights[tile // 2])


def _grey_ends(layers: Sequence[Sample]) -> np.ndarray:
    """Darkest and brightest intensity shown, (2, c). All samples share them, so grey values are comparable."""
    found = [np.percentile(layer.image, (0.5, 99.5), axis=(1, 2)) for layer in layers]
    ends: np.ndarray = np.median(found, axis=0)
    return ends


def _image_panel(layer: Sample, ends: np.ndarray) -> "Picture":
    """The image that the network reads. The halo is drawn paler, the tile has a frame."""
    from PIL import ImageDraw

    low, high = (end.reshape(-1, 1, 1) for end in ends)
    grey = np.clip((layer.image - low) / np.maximum(high - low, 1e-6), 0, 1)
    halo = [(read - tile) // 2 for read, tile in zip(grey.shape[1:], layer.classes.shape, strict=True)]
    tile = tuple(slice(part, part + size) for part, size in zip(halo, layer.classes.shape, strict=True))
    shown = 0.45 + 0.55 * grey
    shown[(slice(None), *tile)] = grey[(slice(None), *tile)]
    panel = _panel((_to_rgb(shown) * 255).astype(np.uint8), smooth=True)
    width, height = panel.size
    upper, left = round(halo[0] / grey.shape[1] * height), round(halo[1] / grey.shape[2] * width)
    ImageDraw.Draw(panel).rectangle((left, upper, width - 1 - left, height - 1 - upper), outline=_FRAME)
    return panel


def _to_rgb(channels: np.ndarray) -> np.ndarray:
    """(c, y, x) to (y, x, 3): one channel is grey, two are green and magenta; of more, the first three are shown."""
    if len(channels) == 1:
        channels = np.repeat(channels, 3, axis=0)
    elif len(channels) == 2:
        channels = channels[[1, 0, 1]]
    return np.moveaxis(channels[:3], 0, -1)


def _paint_classes(classes: np.ndarray) -> np.ndarray:
    palette = np.zeros((256, 3), np.uint8)
    palette[:IGNORE] = [_colour(value) for value in range(IGNORE)]
    return np.where((classes == IGNORE)[..., None], _stripes(classes.shape), palette[classes])


def _colour(value: int) -> tuple[int, int, int]:
    return class_colour(value) if value else _BACKGROUND


def _stripes(shape: tuple[int, ...]) -> np.ndarray:
    period = max(max(shape) // 16, 2)
    diagonal = np.add.outer(np.arange(shape[0]), np.arange(shape[1])) // period % 2
    return np.array(_IGNORED, np.uint8)[diagonal]


def _paint_weights(layer: Sample, top: float) -> np.ndarray:
    painted = _colour_map(layer.weights / max(top, 1e-6))
    return np.where((layer.classes == IGNORE)[..., None], _stripes(layer.classes.shape), painted)


def _colour_map(values: np.ndarray) -> np.ndarray:
    """0..1 to colours, through a square root, because most weights are near 1 and those between cells near 10."""
    from matplotlib import colormaps

    colours: np.ndarray = colormaps["inferno"](np.sqrt(np.clip(values, 0, 1)), bytes=True)[..., :3]
    return colours


def _panel(pixels: np.ndarray, *, smooth: bool = False) -> "Picture":
    """Enlarge the pixels (y, x, 3) as much as fits into a panel."""
    from PIL import Image

    height, width = (max(1, round(size * _PANEL_PX / max(pixels.shape[:2]))) for size in pixels.shape[:2])
    resample = Image.Resampling.LANCZOS if smooth else Image.Resampling.BOX
    return Image.fromarray(np.ascontiguousarray(pixels, np.uint8)).resize((width, height), resample)


def _draw_head(page: "Picture", pen: "ImageDraw", title: str, class_names: Sequence[str], top: float) -> int:
    """Draw the title, the names of the three panels and the legend. Return their right edge (px)."""
    from PIL import Image

    pen.text((_MARGIN_PX, 14), title, fill=_INK, font=_font(17))
    line, left = 46, float(_MARGIN_PX)

    def say(text: str) -> None:
        nonlocal left
        pen.text((left, line), text, fill=_INK, font=_font(13))
        left += pen.textlength(text, font=_font(13)) + 18

    def swatch(box: np.ndarray) -> None:
        nonlocal left
        page.paste(Image.fromarray(box), (round(left), line + 1))
        left += box.shape[1] + 6

    pen.rectangle((left, line + 1, left + 13, line + 14), outline=_FRAME, width=2)
    left += 20
    say("tile in what the network reads")
    for value, name in enumerate(class_names):
        swatch(np.full((14, 14, 3), _colour(value), np.uint8))
        say(name)
    swatch(_stripes((14, 14)))
    say("not annotated")
    say("weight  0")
    left -= 12
    swatch(np.repeat(_colour_map(np.linspace(0, 1, 90))[None], 14, axis=0))
    say(f"{top:.3g}")
    return round(max(left, _MARGIN_PX + pen.textlength(title, font=_font(17))))


def _shorten(pen: "ImageDraw", text: str, width_px: int) -> str:
    """Shorten a caption so that it ends before the next one begins."""
    if pen.textlength(text, font=_font(12)) <= width_px:
        return text
    while text and pen.textlength(text + "…", font=_font(12)) > width_px:
        text = text[:-1]
    return text + "…"


def _font(size: int) -> "FreeTypeFont | ImageFont":
    from PIL import ImageFont

    return ImageFont.load_default(size)
