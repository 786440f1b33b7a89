"""The image and the network that `peers.py` gives to all: real EM slices, and weights of one file."""

import argparse
import itertools
from pathlib import Path

import numpy as np
import psutil
import zarr
from common import DATA, GiB

from segment_slide.pipeline.synthetic.slide import SyntheticSlide, draw_region
from segment_slide.unet.architecture import Architecture
from segment_slide.unet.checkpoint import ModelConfig, Normalisation, save_checkpoint

SHARD, CHUNK = 2048, 512  # px


def draw_image(size: int) -> np.ndarray:
    """Real EM slices side by side, every other one mirrored; without the data a synthetic slide; uint8 (y, x)."""
    paths = sorted((DATA / "isbi2012" / "image").glob("*.png"))
    if not paths:
        box = (slice(0, size), slice(0, size))
        return np.asarray(draw_region(SyntheticSlide((size, size), seed=7), box).image[1])  # green has most contrast
    from skimage.io import imread

    slices = [np.asarray(imread(path), np.uint8) for path in paths]
    side, image = slices[0].shape[0], np.empty((size, size), np.uint8)
    places = itertools.product(range(0, size, side), range(0, size, side))
    for number, (top, left) in enumerate(places):
        one = slices[number % len(slices)][:: 1 - 2 * (top // side % 2), :: 1 - 2 * (left // side % 2)]
        part = image[top : top + side, left : left + side]
        part[...] = one[: part.shape[0], : part.shape[1]]
    return image


def store_image(folder: Path, size: int) -> Path:
    """The image as Zarr 3 in shards, and for TIAToolbox as OME-Zarr 0.4 in RGB, which is what it reads."""
    path, pixels = folder / f"image-{size}.zarr", draw_image(size)
    stored = zarr.create_array(path, shape=pixels.shape, chunks=(CHUNK,) * 2, shards=(SHARD,) * 2, dtype="uint8")
    stored[:] = pixels
    group = zarr.open_group(folder / f"image-{size}-rgb.zarr", mode="w", zarr_format=2)
    group.create_array("0", shape=(size, size, 3), chunks=(CHUNK, CHUNK, 3), dtype="uint8")[:] = pixels[..., None]
    axes = [{"name": name, "type": "space", "unit": "micrometer"} for name in "yx"] + [{"name": "c", "type": "channel"}]
    scale = [{"type": "scale", "scale": [0.5, 0.5, 1.0]}]
    datasets = [{"path": "0", "coordinateTransformations": scale}]
    channels = [{"label": name} for name in ("red", "green", "blue")]
    omero = {"version": "0.4", "channels": channels, "rdefs": {"model": "color"}}
    group.attrs.update({"multiscales": [{"version": "0.4", "axes": axes, "datasets": datasets}], "omero": omero})
    return path


def store_model(folder: Path, given: argparse.Namespace, image: Path) -> str:
    """A trained network, or one of initial weights that normalises by the image's mean and deviation."""
    if given.model:
        return str(given.model.absolute())
    import torch

    from segment_slide.unet.model import UNet

    pixels = np.asarray(zarr.open_array(image, mode="r")[:])
    constants = Normalisation(offset=(float(pixels.mean()),), scale=(float(pixels.std()),))
    architecture = Architecture(base_channels=given.base, depth=given.depth)
    torch.manual_seed(0)
    config = ModelConfig(architecture, normalisation=constants)
    return str(save_checkpoint(folder / "model.safetensors", UNet(architecture), config).path)


def refuse_what_peers_cannot(config: ModelConfig) -> None:
    """`peers_run.py` reads images of one channel, and normalises by constants."""
    n_channels, kind = config.architecture.in_channels, config.normalisation.kind
    if n_channels != 1 or kind != "constants" or config.architecture.ndim != 2:
        raise SystemExit(f"--model: {n_channels} channels, normalisation {kind!r}; expected 1, 'constants', 2D.")


def refuse_what_does_not_fit(architecture: Architecture, size: int) -> None:
    """The whole image in one pass is what all are compared with: its activations have to fit memory."""
    wanted, there = architecture.activation_bytes((size, size), 4) * 1.2, psutil.virtual_memory().available
    if wanted > there:
        raise SystemExit(
            f"--size {size}: the whole image in one pass, with which all are compared, takes {wanted / GiB:.1f} GiB, "
            f"and {there / GiB:.1f} GiB are free; choose a smaller --size or --base."
        )
