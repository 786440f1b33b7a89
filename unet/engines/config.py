"""What is recorded of an imported network, inside its own file: locality, meaning of its output, input, origin, cost.

This file must not know how the network is run; it imports no runtime.
"""

import json
import math
from dataclasses import asdict, dataclass

from segment_slide.unet.errors import CheckpointError
from segment_slide.unet.geometry import Locality, round_up
from segment_slide.unet.locality.record import MeasuredLocality
from segment_slide.unet.network import Output
from segment_slide.unet.normalisation import Normalisation
from segment_slide.unet.typed import from_object, parse_header

FORMAT = "segment-slide-network"
FORMAT_VERSION = 1
METADATA_KEY = "segment_slide"
MEANINGS = ("scores", "probabilities")


@dataclass(frozen=True)
class Source:
    """Where a network came from.

    Attributes
    ----------
    name : str
        Name of the file or folder that was imported.
    sha256 : str
        Hexadecimal sha256 of the network's file as it was.
    kind : str
        "onnx", or "bioimage.io" with its format.
    declared_halo : tuple of int
        Context (px) that its description declares; empty if it declares none.
    """

    name: str
    sha256: str
    kind: str
    declared_halo: tuple[int, ...] = ()


@dataclass(frozen=True)
class Cost:
    """What a pass costs, per pixel of a tile with its halos.

    Attributes
    ----------
    n_parameters : int
        Number of weights and biases.
    flops_per_px : float
        Floating-point operations of convolutions and matrix products.
    bytes_per_px : float
        Memory of a pass, measured at two sizes.
    fixed_bytes : int
        Memory of a pass that does not grow with the tile.
    """

    n_parameters: int
    flops_per_px: float
    bytes_per_px: float
    fixed_bytes: int


@dataclass(frozen=True)
class ImportedConfig:
    """Everything about an imported network but its weights.

    Attributes
    ----------
    locality : MeasuredLocality
        What was measured.
    meaning : {"scores", "probabilities"}
        What the channels of its output are: logits, or their softmax or sigmoid.
    classes : tuple of str
        One name per class, the first is background. There may be one more than channels: then no channel is the
        background's, and a pixel is background where no other class has a probability above one half.
    normalisation : Normalisation
        How intensities become its input.
    source : Source
        Where it came from.
    cost : Cost
        What a pass costs.
    runtime : str
        Name and version of the program that it was measured with.
    probe_version : int
        Version of the measurement.
    channel_names : tuple of str
        Names of its input channels; may be empty.
    pixel_size_um : tuple of float
        Pixel size of its training images per spatial axis; empty if unknown.

    Raises
    ------
    CheckpointError
        If numbers of channels or classes contradict each other.
    """

    locality: MeasuredLocality
    meaning: str
    classes: tuple[str, ...]
    normalisation: Normalisation
    source: Source
    cost: Cost
    runtime: str
    probe_version: int
    channel_names: tuple[str, ...] = ()
    pixel_size_um: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        n_out, ndim = self.locality.out_channels, len(self.locality.axes)
        if ndim not in (2, 3):
            raise CheckpointError(f"the network has {ndim} spatial axes, expected 2 or 3.")
        if self.meaning not in MEANINGS:
            raise CheckpointError(f"meaning={self.meaning!r}, expected one of {MEANINGS}.")
        if len(self.classes) not in (n_out, n_out + 1) or not 2 <= len(self.classes) <= 255:
            raise CheckpointError(
                f"classes={', '.join(self.classes)}: {len(self.classes)} names for {n_out} channel(s) of the output, "
                f"expected {max(2, n_out)}, or {n_out + 1} with background first (at most 255)."
            )
        if self.channel_names and len(self.channel_names) != self.locality.in_channels:
            raise CheckpointError(f"channel_names={self.channel_names}, expected {self.locality.in_channels} of them.")
        if self.pixel_size_um and len(self.pixel_size_um) != ndim:
            raise CheckpointError(f"pixel_size_um={self.pixel_size_um}, expected {ndim} numbers.")
        if any(axis.halo < axis.reach for axis in self.locality.axes):
            raise CheckpointError("halo and reach in the record contradict each other.")
        _ = self.description.axes  # refused here, before any work
        if self.normalisation.kind == "constants" and len(self.normalisation.offset) != self.locality.in_channels:
            raise CheckpointError(
                f"normalisation offset={self.normalisation.offset}, expected {self.locality.in_channels} numbers."
            )

    @property
    def description(self) -> "ImportedDescription":
        """The network in numbers."""
        return ImportedDescription(
            self.locality, len(self.classes), self.cost, f"imported from {self.source.name} ({self.source.kind})"
        )

    def to_json(self) -> str:
        """The record as JSON text with sorted keys."""
        return json.dumps({"format": FORMAT, "format_version": FORMAT_VERSION, **asdict(self)}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "ImportedConfig":
        """Inverse of `to_json`.

        Raises
        ------
        CheckpointError
            If the text is no such configuration.
        """
        try:
            content = parse_header(text)
            if content.get("format") != FORMAT or content.get("format_version") != FORMAT_VERSION:
                raise CheckpointError(
                    f"format={content.get('format')!s:.60}, version {content.get('format_version')!s:.60}; expected "
                    f"{FORMAT}, version {FORMAT_VERSION}: update segment-slide, or import the network again."
                )
            return from_object(cls, content, "record", others=True)
        except CheckpointError as error:
            raise CheckpointError(f"the record in the file cannot be used: {error}") from error


@dataclass(frozen=True)
class ImportedDescription:
    """An imported network in numbers, as `unet.network.NetworkDescription` requires it.

    Parameters
    ----------
    locality : MeasuredLocality
        What was measured.
    n_classes : int
        Classes of the labels.
    cost : Cost
        What a pass costs.
    summary : str
        Where it came from, in a few words.
    """

    locality: MeasuredLocality
    n_classes: int
    cost: Cost
    summary: str

    @property
    def axes(self) -> tuple[Locality, ...]:
        """Step and halo of each spatial axis. All axes get the largest, because blocks have one size for all."""
        step = math.lcm(*(axis.step for axis in self.locality.axes))
        first = max(axis.halo for axis in self.locality.axes)
        for halo in range(first, first + step + 1):
            if not any((halo - axis.halo) % axis.half_step for axis in self.locality.axes):
                return (Locality(step, halo),) * len(self.locality.axes)
        raise CheckpointError("the network's axes differ so much that no context suits all of them.")

    @property
    def in_channels(self) -> int:
        """Number of channels of the input."""
        return self.locality.in_channels

    @property
    def outputs(self) -> tuple[Output, ...]:
        """One head: the class scores."""
        return (Output("classes", "scores", self.n_classes),)

    @property
    def n_parameters(self) -> int:
        """Number of weights and biases."""
        return self.cost.n_parameters

    def forward_flops(self, tile_px: tuple[int, ...]) -> int:
        """Floating-point operations of one pass for a tile of these owned pixels."""
        return int(self.cost.flops_per_px * self._read_px(tile_px))

    def activation_bytes(self, tile_px: tuple[int, ...], itemsize: int) -> int:
        """Peak bytes of one pass, as measured."""
        return int(self.cost.fixed_bytes + self.cost.bytes_per_px * self._read_px(tile_px))

    def _read_px(self, tile_px: tuple[int, ...]) -> int:
        sizes = (round_up(size, axis.stride) for axis, size in zip(self.axes, tile_px, strict=True))
        return math.prod(size + 2 * axis.halo for axis, size in zip(self.axes, sizes, strict=True))
