"""A trained network as one file: safetensors weights with a JSON configuration in the header.

Weights and configuration cannot be separated, and one sha256 identifies both. Opening the file runs no code: a pickle
is refused. The configuration says what image the network expects, so that a slide with the wrong channels is refused
before it is read.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segment_slide.unet.architecture import Architecture
from segment_slide.unet.errors import CheckpointError
from segment_slide.unet.file_checksum import EMPTY, FIELD, expect_as_written, hash_file, with_checksum
from segment_slide.unet.finite import expect_finite_weights
from segment_slide.unet.normalisation import NORMALISATIONS, Intensities, Normalisation
from segment_slide.unet.object_defaults import ObjectDefaults
from segment_slide.unet.typed import from_object, parse_header

if TYPE_CHECKING:
    import torch

    from segment_slide.unet.model import UNet, UNetPass

__all__ = ["Checkpoint", "ModelConfig", "Normalisation", "open_checkpoint", "save_checkpoint"]

FORMAT = "segment-slide-checkpoint"
FORMAT_VERSION = 1
HEADER_KEY = "config"


@dataclass(frozen=True)
class ModelConfig:
    """Everything about a network except its weights.

    Parameters
    ----------
    architecture : Architecture
        Shape of the network.
    classes : tuple of str
        One name per class; the first is background (label 0).
    normalisation : Normalisation
        How to scale intensities.
    channel_names : tuple of str
        Names of the input channels in order, for information only; may be empty.
    pixel_size_um : tuple of float
        Pixel size of the training images per spatial axis (um), empty if unknown. A slide whose pixel
        size differs by more than a fifth is segmented with a warning.
    training : dict
        Any JSON content, for information: data, seed, steps, scores.
    objects : ObjectDefaults, optional
        Recommended options for objects.
    intensities : Intensities, optional
        Intensities of the training images; None if unknown. An image that looks different is segmented with a warning.
    """

    architecture: Architecture
    classes: tuple[str, ...] = ("background", "foreground")
    normalisation: Normalisation = Normalisation()
    channel_names: tuple[str, ...] = ()
    pixel_size_um: tuple[float, ...] = ()
    training: dict[str, Any] = field(default_factory=dict, hash=False)
    objects: ObjectDefaults | None = None
    intensities: Intensities | None = None

    def __post_init__(self) -> None:
        architecture, normalisation = self.architecture, self.normalisation
        _expect_length("classes", self.classes, architecture.n_classes)
        if self.channel_names:
            _expect_length("channel_names", self.channel_names, architecture.in_channels)
        if self.pixel_size_um:
            _expect_length("pixel_size_um", self.pixel_size_um, architecture.ndim)
        if normalisation.kind not in NORMALISATIONS:
            raise CheckpointError(f"normalisation kind={normalisation.kind!r}, expected one of {NORMALISATIONS}.")
        if self.intensities is not None:
            _expect_length("intensities", self.intensities.channels, architecture.in_channels)
        if normalisation.kind == "constants":
            _expect_length("normalisation offset", normalisation.offset, architecture.in_channels)
            _expect_length("normalisation scale", normalisation.scale, architecture.in_channels)

    def to_json(self) -> str:
        """The configuration as JSON text with sorted keys, so that equal configurations have equal bytes."""
        content = {"format": FORMAT, "format_version": FORMAT_VERSION, **asdict(self)}
        if self.objects is None:  # an optional key is left out, so that older configurations keep their bytes
            del content["objects"]
        if self.intensities is None:
            del content["intensities"]
        return json.dumps(content, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "ModelConfig":
        """Inverse of `to_json`.

        Raises
        ------
        CheckpointError
            If the text is not a configuration of this format and version.
        """
        try:
            content = parse_header(text)
            if content.get("format") != FORMAT:
                raise CheckpointError("the file's header names another format.")
            if (version := content.get("format_version")) != FORMAT_VERSION:
                raise CheckpointError(
                    f"format_version={version!s:.60}, expected {FORMAT_VERSION}: update segment-slide."
                )
            if isinstance(objects := content.get("objects"), dict):
                known = {item.name for item in fields(ObjectDefaults)}
                content["objects"] = {key: value for key, value in objects.items() if key in known}
            return from_object(cls, content, "header", others=True)
        except CheckpointError as error:
            raise CheckpointError(f"the file's header is not a model configuration: {error}") from error


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint file whose header was read and checked; weights are loaded on demand.

    Attributes
    ----------
    path : Path
        The file.
    config : ModelConfig
        The configuration in its header.
    """

    path: Path
    config: ModelConfig

    @cached_property
    def sha256(self) -> str:
        """Hexadecimal sha256 of the whole file: the model's identity in every output."""
        return hash_file(self.path)

    @property
    def description(self) -> Architecture:
        """The network in numbers, as `unet.network.Network` requires it."""
        return self.config.architecture

    def check_weights(self) -> None:
        """Refuse a damaged file, and weights that are NaN or infinite: see `unet.finite.expect_finite_weights`."""
        expect_as_written(self.path)
        expect_finite_weights(self.path)

    def load(self, device: "torch.device", precision: str) -> "UNetPass":
        """The forward pass of the network, ready on a device: see `unet.network.Network`.

        Raises
        ------
        CheckpointError
            If tensors are missing, unexpected or of another shape.
        """
        return self.load_model().load(device, precision)

    def load_model(self) -> "UNet":
        """The network with its weights, float32, on the CPU, in evaluation mode.

        Raises
        ------
        CheckpointError
            If tensors are missing, unexpected or of another shape.
        """
        import torch

        from segment_slide.unet.model import UNet

        with torch.device("meta"):  # no memory and no random numbers for weights that are replaced next
            model = UNet(self.config.architecture)
        self.check_weights()
        try:
            model.load_state_dict(load_tensors(self.path), assign=True)
        except RuntimeError as error:
            raise CheckpointError(f"{self.path}: weights do not fit the architecture: {error}") from error
        return model.eval()


def load_tensors(path: Path) -> "dict[str, torch.Tensor]":
    """All tensors of a file."""
    from safetensors.torch import load_file

    with path.open("rb") as file:  # safetensors refuses a path that is not UTF-8, but not the file's number
        return load_file(path if str(path).isprintable() else f"/dev/fd/{file.fileno()}")


def save_checkpoint(path: str | Path, model: "UNet", config: ModelConfig) -> Checkpoint:
    """Write a network and its configuration to one file. The file is written completely or not at all.

    Parameters
    ----------
    path : path-like
        File to write, by convention ``NAME.safetensors``; replaced if it exists.
    model : UNet
        Network of ``config.architecture``.
    config : ModelConfig
        Its configuration.

    Raises
    ------
    CheckpointError
        If the network does not have ``config.architecture``.
    """
    from safetensors.torch import save

    if model.architecture != config.architecture:
        raise CheckpointError(f"the network is {model.architecture}, its configuration says {config.architecture}.")
    path = Path(path).absolute()
    partial = path.with_name(path.name + ".partial")
    weights = {name: tensor.detach().float().cpu().contiguous() for name, tensor in model.state_dict().items()}
    if _is_of_earlier_version(path, weights, config):
        return Checkpoint(path, config)
    try:
        # save_file would make files that only their owner can read
        header = json.dumps({**json.loads(config.to_json()), FIELD: EMPTY}, sort_keys=True)
        partial.write_bytes(with_checksum(save(weights, metadata={HEADER_KEY: header})))
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return Checkpoint(path, config)


def _is_of_earlier_version(path: Path, weights: Mapping[str, Any], config: ModelConfig) -> bool:
    """Whether a version without checksums wrote just this. Its sha256 is in records of outputs, so it stays."""
    from safetensors.torch import save

    return path.is_file() and path.read_bytes() == save(dict(weights), metadata={HEADER_KEY: config.to_json()})


def open_checkpoint(path: str | Path) -> Checkpoint:
    """Read and check a checkpoint's header; the weights stay on disk.

    Raises
    ------
    CheckpointError
        If the file is missing, truncated, a pickle, or of another format.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path).absolute()
    if not path.is_file():
        raise CheckpointError(f"model={path}: no such file; expected a checkpoint (.safetensors).")
    try:
        with safe_open(path, framework="numpy") as file:
            header: Mapping[str, str] = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        if _looks_like_pickle(path):
            raise CheckpointError(
                f"model={path} is a pickle (torch.save); opening it could run foreign code, so it is refused. "
                f"Expected a safetensors checkpoint, as `segment-slide` writes it."
            ) from None
        raise CheckpointError(
            f"model={path} is not a whole safetensors file ({error}); it may be truncated: copy it again."
        ) from error
    if HEADER_KEY not in header:
        raise CheckpointError(
            f"model={path} holds weights but no segment-slide configuration in its header; "
            f"save it with segment_slide.unet.checkpoint.save_checkpoint."
        )
    try:
        return Checkpoint(path, ModelConfig.from_json(header[HEADER_KEY]))
    except CheckpointError as error:
        raise CheckpointError(f"model={path}: {error}") from error


def _looks_like_pickle(path: Path) -> bool:
    """Whether a file that is not safetensors begins like a file of torch.save: a zip archive or a bare pickle.

    Call it only after safetensors refused the file: a safetensors file begins with a length, which may have these bytes
    by chance.
    """
    with path.open("rb") as file:
        return file.read(2) in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


def _expect_length(name: str, values: tuple[Any, ...], expected: int) -> None:
    if len(values) != expected:
        raise CheckpointError(f"{name}={values} has {len(values)} entries, expected {expected}.")
