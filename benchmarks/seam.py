"""The seam that tiles leave which do not start at multiples of the stride: a picture, and how many pixels change.

    python benchmarks/seam.py --output seam.png                                     initial weights, a synthetic slide
    python benchmarks/seam.py --output seam.png --model M.safetensors --image I     and a trained network, on its image

A network and an image, three times: the whole image in one pass, tiles at multiples of the stride, and tiles that are
4 px wider, so that most of them start between multiples. Each tile has all the context that it needs. An image is an
OME-Zarr, or a picture that Pillow reads; its top left part is used.
"""

import argparse
import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from PIL import Image

from segment_slide.pipeline.storage.image import describe_image
from segment_slide.pipeline.synthetic.slide import CHANNELS, SyntheticSlide, draw_region
from segment_slide.unet.architecture import Architecture
from segment_slide.unet.checkpoint import open_checkpoint
from segment_slide.unet.model import UNet, whole_image_logits

WIDER_PX = 4
N_TILES = 3
ZOOM_PX = 80
RED = "#e6005c"
TRAINED = "trained network"


@dataclass(frozen=True)
class Comparison:
    """What one network says of an image, whole and in tiles of two sizes."""

    name: str
    stride: int
    whole: np.ndarray
    tiled: dict[int, np.ndarray]

    def change(self, tile_px: int) -> np.ndarray:
        """By how much the probability of the last class differs from the whole image's."""
        return np.abs(probability(self.tiled[tile_px]) - probability(self.whole))

    def changed_share(self, tile_px: int) -> float:
        """Share of the pixels that have another label."""
        return float((self.labels(tile_px) != self.whole.argmax(0)).mean())

    def labels(self, tile_px: int) -> np.ndarray:
        return self.tiled[tile_px].argmax(0)


def tiled_logits(model: UNet, image: np.ndarray, tile_px: int) -> np.ndarray:
    """Scores (n_classes, y, x) of a normalised image (c, y, x), tile by tile, wherever tiles of this size start."""
    geometry = model.architecture.geometry
    read_px = next(n for n in itertools.count(tile_px + 2 * geometry.halo) if geometry.is_valid_input_size(n))
    padded = np.pad(image, [(0, 0), *[(geometry.halo, geometry.halo + tile_px + read_px)] * 2], mode="reflect")
    height, width = image.shape[1:]
    scores = np.empty((model.architecture.n_classes, height, width), np.float32)
    for top, left in itertools.product(range(0, height, tile_px), range(0, width, tile_px)):
        read = np.ascontiguousarray(padded[:, top : top + read_px, left : left + read_px])
        with torch.inference_mode():
            tile = model(torch.from_numpy(read)[None])[0].numpy()[:, geometry.crop :, geometry.crop :]
        write = scores[:, top : top + tile_px, left : left + tile_px]
        write[...] = tile[:, : write.shape[1], : write.shape[2]]
    return scores


def probability(scores: np.ndarray) -> np.ndarray:
    """Probability of the last class."""
    return torch.from_numpy(scores).softmax(dim=0)[-1].numpy()


def compare(name: str, model: UNet, image: np.ndarray, tiles_px: tuple[int, int]) -> Comparison:
    """Run a network on a normalised image (c, y, x), whole and in tiles, and say what differs."""
    model.eval()
    whole = whole_image_logits(model, image)
    tiled = {size: tiled_logits(model, image, size) for size in tiles_px}
    found = Comparison(name, model.architecture.geometry.stride, whole, tiled)
    for size, scores in tiled.items():
        print(
            f"{name}, stride {found.stride} px, tiles of {size} px: largest difference of scores "
            f"{np.abs(scores - whole).max():.2g}, of probabilities {found.change(size).max():.2g}; "
            f"labels changed: {found.changed_share(size):.3%}"
        )
    return found


def read_pixels(path: Path | None, side: int) -> np.ndarray:
    """The top left part of an image (c, y, x)."""
    box = (slice(0, side), slice(0, side))
    if path is None:
        return draw_region(SyntheticSlide((side, side), seed=7), box).image
    if ".zarr" in path.name:
        return np.asarray(describe_image(path).array()[(slice(None), *box)])
    with Image.open(path) as picture:
        pixels = np.asarray(picture)
    return np.moveaxis(pixels[box], -1, 0) if pixels.ndim == 3 else pixels[None, :side, :side]


def networks(model_path: Path | None, pixels: np.ndarray) -> list[tuple[str, UNet, np.ndarray]]:
    """What each network is called, the network, and the image as it wants it."""
    architecture, trained = Architecture(in_channels=len(CHANNELS), base_channels=8), []
    if model_path is not None:
        checkpoint = open_checkpoint(str(model_path))
        architecture, constants = checkpoint.config.architecture, checkpoint.config.normalisation
        normalised = normalise(pixels, np.array(constants.offset), np.array(constants.scale))
        trained = [(TRAINED, checkpoint.load_model(), normalised)]
    torch.manual_seed(0)
    standard = normalise(pixels, pixels.mean(axis=(1, 2)), pixels.std(axis=(1, 2)))
    return [("random weights", UNet(architecture), standard), *trained]


def normalise(pixels: np.ndarray, offset: np.ndarray, scale: np.ndarray) -> np.ndarray:
    return ((pixels - offset[:, None, None]) / scale[:, None, None]).astype(np.float32)


def draw_change(axes: Axes, found: Comparison, tile_px: int) -> None:
    """A map of differences with the tiles, each with how far past a multiple of the stride it starts."""
    change, white = found.change(tile_px), max(float(found.change(size).max()) for size in found.tiled)
    axes.imshow(change, cmap="gray", norm=PowerNorm(0.5, 0, white), interpolation="antialiased")
    for top, left in itertools.product(range(0, change.shape[0], tile_px), range(0, change.shape[1], tile_px)):
        if min(change.shape[0] - top, change.shape[1] - left) > tile_px // 2:  # but what is left at the border
            where = f"+{top % found.stride}, +{left % found.stride}"
            axes.text(left + 8, top + 8, where, color="white", backgroundcolor="black", fontsize=8, va="top")
    for edge in range(tile_px, max(change.shape), tile_px):
        axes.axhline(edge - 0.5, color=RED, linewidth=0.8)
        axes.axvline(edge - 0.5, color=RED, linewidth=0.8)
    share = found.changed_share(tile_px)
    axes.set_title(f"tiles of {tile_px} px: {share:.2%} of labels change", fontsize=9, loc="left")
    axes.text(0, len(change), f"difference of probabilities: black 0, white {white:.2g}", fontsize=7.5, va="top")


def draw_outlines(axes: Axes, shown: np.ndarray, found: Comparison, tile_px: int, corner: tuple[int, int]) -> None:
    """An enlarged part: the whole image's outlines in white, the tiles' in black, the tiles' edge in red."""
    top, left = corner
    zoom = (slice(top, top + ZOOM_PX), slice(left, left + ZOOM_PX))
    axes.imshow(shown[zoom], cmap="gray")
    axes.contour(found.whole.argmax(0)[zoom] > 0, levels=[0.5], colors="white", linewidths=3.2)
    axes.contour(found.labels(tile_px)[zoom] > 0, levels=[0.5], colors="black", linewidths=1.2)
    edge = next((edge for edge in range(tile_px, shown.shape[1], tile_px) if left < edge < left + ZOOM_PX), None)
    if edge is not None:
        axes.axvline(edge - left - 0.5, color=RED, linewidth=1.2, linestyle="--")
    axes.set_title(f"enlarged: tiles of {tile_px} px", fontsize=9, loc="left")
    axes.text(0, ZOOM_PX, "white: the whole image, black: tiles, dashed: their edge", fontsize=7.5, va="top")


def busiest(changed: np.ndarray, tile_px: int) -> tuple[int, int]:
    """Top left corner of the square on a vertical edge of tiles where most changes."""
    lefts = [edge - ZOOM_PX // 2 for edge in range(tile_px, changed.shape[1] - ZOOM_PX // 2, tile_px)]
    corners = itertools.product(range(0, changed.shape[0] - ZOOM_PX, 4), lefts)
    return max(corners, key=lambda at: changed[at[0] : at[0] + ZOOM_PX, at[1] : at[1] + ZOOM_PX].sum())


def draw(path: Path, pixels: np.ndarray, found: list[Comparison], tiles_px: tuple[int, int]) -> None:
    """A row of difference maps for each network, and the last one's outlines enlarged where most changes."""
    shown = np.moveaxis(pixels, 0, -1).squeeze()
    trained = len(found) > 1
    figure = Figure(figsize=(11, 4 * (len(found) + trained)), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(found) + trained, 3, squeeze=False)
    for row, comparison in zip(grid, found, strict=False):
        row[0].imshow(shown, cmap="gray")
        if comparison.name == TRAINED:
            row[0].contour(comparison.whole.argmax(0) > 0, levels=[0.5], colors=RED, linewidths=0.7)
        row[0].set_title(f"{comparison.name}, the whole image at once", fontsize=9, loc="left")
        for axes, size in zip(row[1:], tiles_px, strict=True):
            draw_change(axes, comparison, size)
    if trained:
        corner = busiest(found[-1].labels(tiles_px[1]) != found[-1].whole.argmax(0), tiles_px[1])
        top, left = corner
        grid[-1, 0].imshow(shown[top : top + ZOOM_PX, left : left + ZOOM_PX], cmap="gray")
        grid[-1, 0].set_title("enlarged: the image", fontsize=9, loc="left")
        for axes, size in zip(grid[-1, 1:], tiles_px, strict=True):
            draw_outlines(axes, shown, found[-1], size, corner)
    for axes in grid.flat:
        axes.set_axis_off()
    figure.savefig(path, bbox_inches="tight")
    with Image.open(path) as picture:  # an adaptive palette: a third of the bytes
        smaller = picture.convert("RGB").quantize(256)
    smaller.save(path, optimize=True)


def main() -> None:
    """Compute, print and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--image", type=Path)
    parser.add_argument("--tile", type=int, default=256, help="a multiple of 16")
    options = parser.parse_args()
    tiles_px = (options.tile, options.tile + WIDER_PX)
    pixels = read_pixels(options.image, N_TILES * tiles_px[1])
    found = [compare(name, model, image, tiles_px) for name, model, image in networks(options.model, pixels)]
    draw(options.output, pixels, found, tiles_px)


if __name__ == "__main__":
    main()
