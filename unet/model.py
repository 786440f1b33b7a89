"""The network of the paper, complete, in one file (Ronneberger 2015, Sec. 2, Fig. 1).

Valid 3x3 convolutions with ReLU, 2x2 max-pooling, 2x2 up-convolutions that halve the channels,
concatenation with the centre-cropped map of the same level, a last 1x1 convolution. Where the authors' release
differs from the paper, we follow the paper: the last up-convolution halves its channels, and no ReLU follows an
up-convolution. This gives 31,030,658 parameters.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from segment_slide.unet.architecture import Architecture
from segment_slide.unet.device import CHANNELS_LAST, DTYPES

_CONVOLUTION = {2: nn.Conv2d, 3: nn.Conv3d}
_UP_CONVOLUTION = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_MAX_POOL = {2: nn.MaxPool2d, 3: nn.MaxPool3d}


def centre_crop(features: Tensor, like: Tensor) -> Tensor:
    """Centre part of `features` (n, c, *spatial) with the spatial size of `like`, as a view."""
    for axis in range(2, features.ndim):
        surplus = features.shape[axis] - like.shape[axis]
        features = features.narrow(axis, surplus // 2, like.shape[axis])
    return features


class DoubleConvolution(nn.Module):
    """Two valid 3x3 convolutions, each followed by a ReLU; loses 2 px per side."""

    def __init__(self, ndim: int, channels_in: int, channels_out: int) -> None:
        super().__init__()
        convolution = _CONVOLUTION[ndim]
        self.first = convolution(channels_in, channels_out, kernel_size=3)
        self.second = convolution(channels_out, channels_out, kernel_size=3)

    def forward(self, features: Tensor) -> Tensor:
        """Features (n, channels_out, *spatial), each spatial axis 4 px shorter."""
        features = self.first(features).relu_()
        return self.second(features).relu_()


class UNet(nn.Module):
    """The U-Net, 2D or 3D, with newly initialised weights.

    Parameters
    ----------
    architecture : Architecture
        Channels, classes, depth, dimensions, dropout.

    Notes
    -----
    Weights are Gaussian with standard deviation sqrt(2/N), where N is the number of incoming nodes of one neuron.
    Biases are 0 (Sec. 3, after He 2015). Torch's global generator draws them: seed it for reproducible weights.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        ndim, depth = architecture.ndim, architecture.depth
        widths = [architecture.channels(level) for level in range(depth + 1)]
        inputs = [architecture.in_channels, *widths[:-1]]
        self.down = nn.ModuleList(
            DoubleConvolution(ndim, before, width) for before, width in zip(inputs, widths, strict=True)
        )
        self.pool = _MAX_POOL[ndim](kernel_size=2)
        # The release applies dropout after the second ReLU of its two lowest levels.
        self.dropout = nn.Dropout(architecture.dropout)
        self.up = nn.ModuleList(
            _UP_CONVOLUTION[ndim](2 * width, width, kernel_size=2, stride=2) for width in widths[:-1]
        )
        self.merge = nn.ModuleList(DoubleConvolution(ndim, 2 * width, width) for width in widths[:-1])
        self.classify = _CONVOLUTION[ndim](widths[0], architecture.n_classes, kernel_size=1)
        self.apply(_initialise)

    def forward(self, image: Tensor) -> Tensor:
        """Compute the class scores (logits) of an image.

        Parameters
        ----------
        image : Tensor, (n, in_channels, *spatial)
            Normalised intensities; spatial sizes valid by `Geometry.is_valid_input_size`.

        Returns
        -------
        Tensor, (n, n_classes, *spatial), float32
            Logits; each spatial axis is 2 * margin shorter than the input's. The last 1x1 convolution always runs in
            float32, whatever the precision of the features, so that scores are not rounded.
        """
        depth = self.architecture.depth
        features, skips = image, []
        for level, block in enumerate(self.down):
            features = block(features)  # 572 -> 568 at level 0, 32 -> 28 at the bottom
            if level >= depth - 1:
                features = self.dropout(features)
            if level < depth:
                skips.append(features)
                features = self.pool(features)  # 568 -> 284
        for level in reversed(range(depth)):
            features = self.up[level](features)  # 28 -> 56, channels halved
            skip = centre_crop(skips.pop(), like=features)  # 64 -> 56
            features = torch.cat([features, skip], dim=1)  # up-sampled first, then the skip
            del skip
            features = self.merge[level](features)  # 56 -> 52
        with torch.autocast("cuda" if features.is_cuda else "cpu", enabled=False):  # mixed precision ends here
            return self.classify(features.to(self.classify.weight.dtype)).float()

    @property
    def description(self) -> Architecture:
        """The network in numbers, as `unet.network.Network` requires it."""
        return self.architecture

    def load(self, device: torch.device, precision: str) -> "UNetPass":
        """Move this network (not a copy) to a device, features in "float32" or "bfloat16"; return its forward pass."""
        self.to(device, memory_format=CHANNELS_LAST[self.architecture.ndim]).eval()  # type: ignore[call-overload]
        for part in (self.down, self.up, self.merge):  # `classify` stays float32, see `forward`
            part.to(DTYPES[precision])
        return UNetPass(self)


@dataclass(frozen=True)
class UNetPass:
    """Forward pass of a U-Net that returns only the scores of the pixels that the tile owns.

    Parameters
    ----------
    model : UNet
        The network, on its device and in its precision.
    """

    model: UNet

    def __call__(self, batch: Tensor, /) -> Tensor:
        """Scores (n, n_classes, *tile), float32, of tiles with their halos (n, in_channels, *spatial).

        The output of the valid convolutions is up to 4 px wider than the tile, so it is cropped.
        """
        logits: Tensor = self.model(batch)
        crop = self.model.architecture.geometry.crop
        for axis in range(2, logits.ndim):
            logits = logits.narrow(axis, crop, logits.shape[axis] - 2 * crop)
        return logits


def whole_image_logits(model: UNet, image: np.ndarray) -> np.ndarray:
    """Compute the scores of a whole image in one pass. Every tiling must reproduce them.

    Parameters
    ----------
    model : UNet
        float32 network.
    image : ndarray of float32, (c, *spatial)
        Normalised intensities, without halo.

    Returns
    -------
    ndarray of float32, (n_classes, *spatial)
        Logits. The image is mirrored at its border without repeating the edge pixel (numpy.pad "reflect").
    """
    geometry = model.architecture.geometry
    pads = [(0, 0)]
    for size in image.shape[1:]:
        pads.append((geometry.halo, geometry.halo + -size % geometry.stride))
    padded = np.pad(image, pads, mode="reflect")
    with torch.inference_mode():
        logits: np.ndarray = model(torch.from_numpy(np.ascontiguousarray(padded, np.float32))[None])[0].numpy()
    crop = tuple(slice(geometry.crop, geometry.crop + size) for size in image.shape[1:])
    return logits[(slice(None), *crop)]


def _initialise(module: nn.Module) -> None:
    """Gaussian weights with std sqrt(2/N), N incoming nodes of one neuron; biases 0 (Sec. 3)."""
    if isinstance(module, nn.Conv2d | nn.Conv3d):
        incoming = module.weight[0].numel()
    elif isinstance(module, nn.ConvTranspose2d | nn.ConvTranspose3d):
        incoming = module.in_channels  # kernel = stride: each output pixel sees one input pixel
    else:
        return
    if module.weight.is_meta:  # to be filled from a file; "drawing" it would import torch's compiler, 2 s
        return
    nn.init.normal_(module.weight, std=math.sqrt(2 / incoming))
    if module.bias is not None:
        nn.init.zeros_(module.bias)
