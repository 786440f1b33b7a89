"""What each program of `peers_run.py` is given: the network, the image, and where labels go; torch and zarr alone."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import zarr
from torch.nn.functional import pad

from segment_slide.unet.checkpoint import Checkpoint

SHARD, CHUNK = 2048, 512  # px; of the image and of what we write


class Network(torch.nn.Module):
    """The project's network for square windows of any size, in the precision and memory format that we use."""

    def __init__(self, checkpoint: Checkpoint, precision: str) -> None:
        super().__init__()
        self.unet = checkpoint.load_model().to(memory_format=torch.channels_last)
        self.dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[precision]
        for part in (self.unet.down, self.unet.up, self.unet.merge):  # scores are float32, as in unet.predict
            part.to(self.dtype)
        geometry = checkpoint.config.architecture.geometry
        self.halo, self.crop, self.stride = geometry.halo, geometry.crop, geometry.stride
        constants = checkpoint.config.normalisation
        self.offset, self.scale = np.float32(constants.offset[0]), np.float32(constants.scale[0])

    def normalise(self, pixels: np.ndarray) -> np.ndarray:
        """Network input of the whole image or a part: constants, so that it does not matter which."""
        return (np.asarray(pixels, dtype=np.float32) - self.offset) / self.scale

    @torch.inference_mode()
    def inner(self, pixels: torch.Tensor) -> torch.Tensor:
        """Scores (n, c, y - 2*halo, x - 2*halo) of normalised pixels (n, 1, y, x)."""
        height, width = (size - 2 * self.halo for size in pixels.shape[2:])
        if height % self.stride or width % self.stride:  # sizes for which no pooling cuts a pixel
            pixels = pad(pixels, (0, -width % self.stride, 0, -height % self.stride), mode="reflect")
        scores = self.unet(pixels.to(self.dtype))
        return scores[:, :, self.crop : self.crop + height, self.crop : self.crop + width]

    def same_size(self, pixels: torch.Tensor) -> torch.Tensor:
        """Scores of as many pixels as are given, mirrored at the window's edges."""
        return self.inner(pad(pixels, (self.halo,) * 4, mode="reflect"))

    def padded(self, pixels: torch.Tensor) -> torch.Tensor:
        """Scores of as many pixels as are given, 0 on the halo."""
        return pad(self.inner(pixels), (self.halo,) * 4)


@dataclass(frozen=True)
class Task:
    """What to segment, into what, and how."""

    network: Network
    image: str
    output: str
    tile: int
    threads: int
    sample: dict[str, float] = field(default_factory=dict)  # of `patches`: pixels, and the seconds that they took

    def read(self) -> np.ndarray:
        """The whole image, normalised, (y, x)."""
        return self.network.normalise(self.open()[:])

    def open(self) -> zarr.Array[Any]:
        return zarr.open_array(self.image, mode="r")

    def create(self, shards: bool) -> zarr.Array[Any]:
        """Empty labels in our chunks; zarr's default codec is ours. Shards only for who writes all at once."""
        size = self.open().shape
        shard = (SHARD, SHARD) if shards else None
        return zarr.create_array(self.output, shape=size, chunks=(CHUNK, CHUNK), shards=shard, dtype="uint8")

    def write(self, logits: torch.Tensor) -> None:
        """Store the labels of logits (n_classes, y, x)."""
        self.create(shards=True)[:] = logits.argmax(dim=0).to(torch.uint8).numpy()
