"""Small networks of many kinds with random weights, as functions of numpy arrays."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

CONVOLUTION = {2: nn.Conv2d, 3: nn.Conv3d}
BATCH_NORM = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
MAX_POOL = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
MODES = {2: "bilinear", 3: "trilinear"}


def as_function(network: nn.Module, *, dtype: torch.dtype = torch.float64) -> Callable[[np.ndarray], np.ndarray]:
    """A network in float64, in evaluation mode, on one thread."""
    network = network.to(dtype).eval()
    for part in network.modules():
        if isinstance(part, nn.Conv2d | nn.Conv3d):  # as He 2015, so that deep branches count
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
        if isinstance(part, nn.BatchNorm2d | nn.BatchNorm3d):
            part.running_mean.normal_(0, 0.1)
            part.running_var.uniform_(0.5, 1.5)

    @torch.inference_mode()
    def run(image: np.ndarray) -> np.ndarray:
        return network(torch.from_numpy(image)).numpy()

    return run


def block(ndim: int, before: int, after: int) -> nn.Module:
    """Two padded convolutions with batch normalisation."""
    layers = []
    for inputs in (before, after):
        layers += [CONVOLUTION[ndim](inputs, after, 3, padding=1), BATCH_NORM[ndim](after), nn.ReLU()]
    return nn.Sequential(*layers)


class PaddedUNet(nn.Module):
    """A U-Net whose output has the size of its input; `how` it enlarges maps: "nearest" or an interpolation."""

    def __init__(self, ndim: int = 2, depth: int = 2, width: int = 3, *, how: str = "nearest", head: int = 2) -> None:
        super().__init__()
        widths = [width << level for level in range(depth + 1)]
        self.down = nn.ModuleList(block(ndim, a, b) for a, b in pairwise([1, *widths]))
        self.pool = MAX_POOL[ndim](2)
        self.merge = nn.ModuleList(block(ndim, a + b, a) for a, b in pairwise(widths))
        self.head = CONVOLUTION[ndim](width, head, 1)
        corners = {} if how == "nearest" else {"align_corners": False}
        self.enlarge = nn.Upsample(scale_factor=2, mode=how if how == "nearest" else MODES[ndim], **corners)

    def forward(self, image: Tensor) -> Tensor:
        skips, features = [], image
        for level, layer in enumerate(self.down):
            features = layer(self.pool(features) if level else features)
            skips.append(features)
        features = skips.pop()
        for layer in reversed(self.merge):
            features = layer(torch.cat([self.enlarge(features), skips.pop()], 1))
        return self.head(features)


class HalfSize(nn.Module):
    """As StarDist with a grid of 2: the answer has half the size."""

    def __init__(self) -> None:
        super().__init__()
        self.first = block(2, 1, 3)
        self.rest = PaddedUNet(depth=1, head=4)
        self.rest.down[0] = block(2, 3, 3)
        self.pool = nn.MaxPool2d(2)

    def forward(self, image: Tensor) -> Tensor:
        return self.rest(self.pool(self.first(image)))


class HiddenBranch(nn.Module):
    """A wide branch at full resolution hides a pooled one: footprints alone do not show the grid of 8."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Sequential(nn.Conv2d(1, 2, 9, padding=32, dilation=8), nn.ReLU(), nn.Conv2d(2, 2, 1))
        self.pooled = nn.Sequential(nn.AvgPool2d(8), nn.Conv2d(1, 2, 1), nn.Upsample(scale_factor=8, mode="nearest"))

    def forward(self, image: Tensor) -> Tensor:
        return self.wide(image) + 0.05 * self.pooled(image)


class PadsInside(nn.Module):
    """Pads its input to a multiple of 8 on both sides, runs, and crops: its grid moves with the image's size."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = PaddedUNet(depth=3)

    def forward(self, image: Tensor) -> Tensor:
        missing = [-size % 8 for size in image.shape[2:]]
        widths = [side for each in reversed(missing) for side in (each // 2, each - each // 2)]
        answer = self.inner(nn.functional.pad(image, widths))
        return answer[
            ...,
            missing[0] // 2 : missing[0] // 2 + image.shape[2],
            missing[1] // 2 : missing[1] // 2 + image.shape[3],
        ]


class With(nn.Module):
    """A padded U-Net with another layer before its head."""

    def __init__(self, layer: nn.Module, channels: int = 3) -> None:
        super().__init__()
        self.body = PaddedUNet(depth=1, width=channels)
        self.body.head = nn.Identity()
        self.layer, self.head = layer, nn.Conv2d(channels, 2, 1)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.layer(self.body(image)))


class GlobalPooling(nn.Module):
    """Squeeze and excitation: channels are weighted by their means over the image."""

    def forward(self, features: Tensor) -> Tensor:
        return features * features.mean(dim=(2, 3), keepdim=True).sigmoid()


class Attention(nn.Module):
    """Every pixel looks at every other one, at a quarter of the resolution."""

    def forward(self, features: Tensor) -> Tensor:
        small = nn.functional.avg_pool2d(features, 4)
        tokens = small.flatten(2).transpose(1, 2)
        mixed = (tokens @ tokens.transpose(1, 2)).softmax(-1) @ tokens
        mixed = mixed.transpose(1, 2).reshape(small.shape)
        return features + nn.functional.interpolate(mixed, scale_factor=4, mode="nearest")


class Positions(nn.Module):
    """Adds how far a pixel lies from the image's corner."""

    def forward(self, features: Tensor) -> Tensor:
        rows = torch.arange(features.shape[2], dtype=features.dtype)[:, None] / 7
        return features + torch.sin(rows + torch.arange(features.shape[3], dtype=features.dtype) / 5)


class AlignedCorners(nn.Module):
    """Halves and enlarges with corners aligned."""

    def forward(self, features: Tensor) -> Tensor:
        small = nn.functional.avg_pool2d(features, 2)
        return nn.functional.interpolate(small, size=features.shape[2:], mode="bilinear", align_corners=True)


class Strides(nn.Module):
    """Another factor on each axis, and a context that is longer on one side."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 3, (3, 4), padding=(1, 0))
        self.pool = nn.MaxPool2d((2, 3))

    def forward(self, image: Tensor) -> Tensor:
        features = self.first(nn.functional.pad(image, (0, 3)))
        return nn.functional.interpolate(self.pool(features), scale_factor=(2.0, 3.0), mode="nearest")
