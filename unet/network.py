"""What the rest of the program may know of a network, whichever kind it is (no torch).

Plans, blocks and `unet.predict` use these protocols and no class of a network. Another kind of network fills them and
gets a line in `unet.open_network.OPENERS`; nothing else changes. The paper's U-Net fills them with
`unet.architecture.Architecture` (description), `unet.model.UNet` (network) and `unet.checkpoint.Checkpoint` (file).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from segment_slide.unet.geometry import Locality

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class Output:
    """One head of a network.

    Parameters
    ----------
    name : str
        What it is called.
    kind : {"scores"}
        What its values are: one score per class (logits), the highest of which is the label.
    n_channels : int
        How many channels it has; for scores the number of classes.
    """

    name: str
    kind: str
    n_channels: int


class NetworkDescription(Protocol):
    """A network in numbers, from which a segmentation is planned; frozen, picklable, without weights."""

    @property
    def axes(self) -> tuple[Locality, ...]:
        """Stride, halo and valid sizes of each spatial axis: (y, x) or (z, y, x)."""

    @property
    def in_channels(self) -> int:
        """Channels of the input."""

    @property
    def outputs(self) -> tuple[Output, ...]:
        """Heads in the order of the channels; the first holds the scores that labels are made of."""

    @property
    def n_parameters(self) -> int:
        """Weights and biases."""

    @property
    def summary(self) -> str:
        """What kind of network it is, in a word or two, for people."""

    def forward_flops(self, tile_px: tuple[int, ...]) -> int:
        """Floating-point operations of one pass for a tile of these owned pixels."""

    def activation_bytes(self, tile_px: tuple[int, ...], itemsize: int) -> int:
        """Most bytes of feature maps that are alive at one moment of such a pass, at `itemsize` bytes a feature."""


class ForwardPass(Protocol):
    """A network that is ready on a device."""

    def __call__(self, batch: "Tensor", /) -> "Tensor":
        """Scores of a batch of tiles; the caller has switched gradients off.

        Parameters
        ----------
        batch : Tensor, (n, in_channels, *spatial)
            Normalised intensities on the device, channels last in memory, in the precision of the features. Each
            spatial axis is a tile with its halo on both sides.

        Returns
        -------
        Tensor, (n, n_channels, *spatial), float32
            Each spatial axis is 2 * halo shorter: the pixels that the tile owns. The caller may change it in place.
        """


class Network(Protocol):
    """A network with weights."""

    @property
    def description(self) -> NetworkDescription:
        """The network in numbers."""

    def load(self, device: "torch.device", precision: str) -> ForwardPass:
        """Make it ready on a device, in "float32" or "bfloat16"; the pass may be called from several threads."""


@dataclass(frozen=True)
class InferenceSettings:
    """How a network is run.

    Parameters
    ----------
    offset, scale : tuple of float
        Input is ``(x - offset) / scale``, one value per channel.
    tile_px : tuple of int
        Pixels a forward pass owns, per spatial axis, multiples of the stride.
    device : str
        "auto", "cpu" or "cuda".
    precision : str
        "auto", "float32" or "bfloat16".
    tta : {"none", "flips"}
        "flips": scores averaged over all flips of the spatial axes (4 in 2D, 8 in 3D), as the authors'
        release does for PhC-U373.
    concurrency : int
        Forward passes at a time. On the CPU each runs on one core, because oneDNN's results depend on the
        number of threads in the last bit: cores work on different tiles, so that labels are bit-identical
        whatever the number of workers and cores. On a GPU it is 1.
    """

    offset: tuple[float, ...]
    scale: tuple[float, ...]
    tile_px: tuple[int, ...]
    device: str = "auto"
    precision: str = "auto"
    tta: str = "none"
    concurrency: int = 1


@dataclass(frozen=True)
class NetworkUse:
    """Which network a run uses, and how: all that a worker needs to make it ready; picklable, hashable.

    Parameters
    ----------
    path, sha256 : str
        Its file, and the identity that the file must have.
    settings : InferenceSettings
        How it is run.
    """

    path: str
    sha256: str
    settings: InferenceSettings
