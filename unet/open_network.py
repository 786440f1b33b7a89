"""Open a network's file of any kind. To add a kind of file, add it to `OPENERS`."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from segment_slide.unet.checkpoint import open_checkpoint
from segment_slide.unet.network import Network
from segment_slide.unet.normalisation import Intensities, Normalisation
from segment_slide.unet.object_defaults import ObjectDefaults


class NetworkConfig(Protocol):
    """What a network expects of an image, and what its labels mean.

    Two more attributes may be there, as `unet.checkpoint.ModelConfig` has them: `channel_names`, and `intensities` of
    the training images.
    """

    @property
    def classes(self) -> tuple[str, ...]:
        """One name per class; the first is background (label 0)."""

    @property
    def normalisation(self) -> Normalisation:
        """How intensities become network input."""

    @property
    def pixel_size_um(self) -> tuple[float, ...]:
        """Pixel size of the training images per spatial axis (um), empty if unknown."""


class StoredNetwork(Network, Protocol):
    """A network in a file whose header was read and checked; weights are loaded on demand."""

    @property
    def path(self) -> Path:
        """The file."""

    @property
    def sha256(self) -> str:
        """Hexadecimal sha256 of the whole file: the network's identity in every output."""

    @property
    def config(self) -> NetworkConfig:
        """What it expects of an image, and what its labels mean."""

    def check_weights(self) -> None:
        """Read all weights once and raise `CheckpointError` if one is NaN or infinite, before any work is begun."""


def find_intensities(config: NetworkConfig) -> Intensities | None:
    """Intensities of the training images; None if the file does not know them."""
    return getattr(config, "intensities", None)


def find_channel_names(config: NetworkConfig) -> tuple[str, ...]:
    """Names of the input channels in order; empty if the file does not know them."""
    return getattr(config, "channel_names", ())


def find_precisions(network: StoredNetwork) -> tuple[str, ...]:
    """Precisions that a network can run in; it need not have such an attribute."""
    return getattr(network, "precisions", ("float32", "bfloat16"))


def find_runtime(network: StoredNetwork) -> str:
    """Name and version of the program that runs a network, if it is not torch: it decides the last bits, too."""
    return getattr(network, "runtime", "")


def _open_onnx(path: Path) -> StoredNetwork:
    """An imported ONNX network: its runtime is imported only for it."""
    from segment_slide.unet.engines.onnx_network import open_onnx

    return open_onnx(path)


# Openers by suffix of the file's name. Other files are opened as a checkpoint, whose error says what was expected.
OPENERS: dict[str, Callable[[Path], StoredNetwork]] = {".safetensors": open_checkpoint, ".onnx": _open_onnx}


def find_objects(config: NetworkConfig) -> ObjectDefaults | None:
    """Recommended options for objects; None if the file knows none. It need not have such an attribute."""
    return getattr(config, "objects", None)


def open_network(path: str | Path) -> StoredNetwork:
    """Read and check a network's description; the weights stay on disk.

    Raises
    ------
    CheckpointError
        If the file cannot be used.
    """
    path = Path(path)
    return OPENERS.get(path.suffix, open_checkpoint)(path)
