"""The protocols of a network: what the rest of the program may know of any kind of network (no torch).

Plans, blocks and `unet.predict` use only these protocols, not a network's class. To add a kind of network, fill them
and add a line to `unet.open_network.OPENERS`; nothing else changes. The paper's U-Net fills them with
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
        Its name.
    kind : {"scores"}
        Meaning of its values: one score (logit) per class; the class with the highest score is the label.
    n_channels : int
        Number of channels; for scores the number of classes.
    """

    name: str
    kind: str
    n_channels: int


class NetworkDescription(Protocol):
    """A network in numbers, for planning a segmentation; frozen, picklable, without weights."""

    @property
    def axes(self) -> tuple[Locality, ...]:
        """Stride, halo and valid sizes of each spatial axis: (y, x) or (z, y, x)."""

    @property
    def in_channels(self) -> int:
        """Number of channels of the input."""

    @property
    def outputs(self) -> tuple[Output, ...]:
        """Heads in the order of the channels; labels are made of the scores of the first."""

    @property
    def n_parameters(self) -> int:
        """Number of weights and biases."""

    @property
    def summary(self) -> str:
        """The kind of network in a few words, for people."""

    def forward_flops(self, tile_px: tuple[int, ...]) -> int:
        """Floating-point operations of one pass for a tile of these owned pixels."""

    def activation_bytes(self, tile_px: tuple[int, ...], itemsize: int) -> int:
        """Peak bytes of feature maps alive at the same time in one pass; each feature takes `itemsize` bytes."""


class ForwardPass(Protocol):
    """A network that is ready on a device."""

    def __call__(self, batch: "Tensor", /) -> "Tensor":
        """Compute the scores of a batch of tiles. The caller has switched gradients off.

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
        """Prepare it on a device, in "float32" or "bfloat16". Several threads may call the returned pass."""


@dataclass(frozen=True)
class InferenceSettings:
    """How a network is run.

    Parameters
    ----------
    offset, scale : tuple of float
        The network's input is ``(x - offset) / scale``, one value per channel.
    tile_px : tuple of int
        Pixels that a forward pass owns, per spatial axis; multiples of the stride.
    device : str
        "auto", "cpu" or "cuda".
    precision : str
        "auto", "float32" or "bfloat16".
    tta : {"none", "flips"}
        "flips": scores averaged over all flips of the spatial axes (4 in 2D, 8 in 3D), as the authors'
        release does for PhC-U373.
    concurrency : int
        Forward passes at a time. On the CPU each pass runs on one core, because the last bit of oneDNN's results
        depends on the number of threads. Cores work on different tiles, so labels are bit-identical for every number of
        workers and cores. On a GPU it is 1.
    is_exact : bool
        Whether the offset is subtracted before values are rounded to float32 (`unet.scaling`).
    """

    offset: tuple[float, ...]
    scale: tuple[float, ...]
    tile_px: tuple[int, ...]
    device: str = "auto"
    precision: str = "auto"
    tta: str = "none"
    concurrency: int = 1
    is_exact: bool = False


@dataclass(frozen=True)
class NetworkUse:
    """Which network a run uses, and how: all that a worker needs to prepare it; picklable, hashable.

    Parameters
    ----------
    path, sha256 : str
        The network's file, and the sha256 that the file must have.
    settings : InferenceSettings
        How the network is run.
    """

    path: str
    sha256: str
    settings: InferenceSettings
