"""Sections of the records of training data: how weights were made, how samples were drawn, what was requested."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from segment_slide.pipeline.storage.record import Code
from segment_slide.pipeline.storage.sections import NOT_COMPARED, OPTIONAL, SIGNED, UNKNOWN, Section
from segment_slide.unet.normalisation import WantedNormalisation
from segment_slide.unet.weight_settings import WeightSettings


@dataclass(frozen=True)
class WeightChoices(Section):
    """How the weights of a training set were made.

    Attributes
    ----------
    w0, sigma_px, ridge_px, balance, spacing
        See `unet.weight_settings.WeightSettings`.
    kind, ignore
        Meaning of label values: see `pipeline.training.options.WeightOptions`.
    chunk : int
        Pixels per spatial axis that are compressed at once.
    """

    w0: float = 10.0
    sigma_px: float = 5.0
    ridge_px: int = 1
    balance: bool = True
    spacing: tuple[float, ...] = ()
    kind: str = "instances"
    ignore: int | None = field(default=None, metadata=SIGNED)
    chunk: int = 0


@dataclass(frozen=True)
class AugmentChoices(Section):
    """How strongly samples were varied: see `unet.augment_settings.AugmentSettings`."""

    elastic_std_px: float = 10.0
    elastic_grid: int = 3
    anisotropy: float = 1.0
    rotation: str = "any"
    flip: bool = True
    grey: float = 0.1


@dataclass(frozen=True)
class SampleChoices(Section):
    """How training samples were drawn.

    Attributes
    ----------
    tile_px, depth, seed, foreground_share, augment
        See `unet.draw.SampleSettings`.
    place_axes : str
        Axes of the places that samples were cut at.
    normalisation : WantedNormalisation
        The requested normalisation.
    validation_tiles : int
        Largest number of validation tiles.
    version : str
        Version of this package, for information.
    results : int
        The stage's number in `pipeline.storage.record.Results`.
    """

    tile_px: tuple[int, ...] = field(default=(), metadata=UNKNOWN)
    depth: int = field(default=0, metadata=UNKNOWN)
    seed: int = 0
    foreground_share: float = 0.5
    augment: AugmentChoices = AugmentChoices()
    place_axes: str = "yx"
    normalisation: WantedNormalisation = WantedNormalisation("constants")  # of records older than the field
    validation_tiles: int = field(default=0, metadata=UNKNOWN)
    version: str = field(default="", metadata=NOT_COMPARED)
    results: int = 1


@dataclass(frozen=True)
class SetReference(Section):
    """The training set that samples were drawn from: its location, and an identity that does not depend on it."""

    location: str = field(default="", metadata=NOT_COMPARED)
    fingerprint: str = field(default="", metadata=UNKNOWN)


@dataclass(frozen=True)
class AnnotationChoices(Section):
    """The pixels requested for a training set, and the meaning of their label values."""

    kind: str = field(default="", metadata=UNKNOWN)
    ignore: int | None = field(default=None, metadata=SIGNED)
    class_names: tuple[str, ...] = ()
    n_spatial: int = field(default=0, metadata=UNKNOWN)
    channels: tuple[str, ...] = ()
    level: int = 0
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class WeightSizes(Section):
    """Pixels per spatial axis of a block and of a chunk."""

    block: int = field(default=0, metadata=UNKNOWN)
    chunk: int = field(default=0, metadata=UNKNOWN)


@dataclass(frozen=True)
class WeightRequest(Section):
    """The request for a training set: everything that determines its bytes.

    Attributes
    ----------
    annotation, weights, sizes, code
        The pixels, the weights, the block sizes and the code.
    inputs : mapping of str to str
        Fingerprints of the inputs by name.
    """

    annotation: AnnotationChoices = AnnotationChoices()
    weights: WeightSettings = WeightSettings()
    sizes: WeightSizes = WeightSizes()
    code: Code | None = field(default=None, metadata=OPTIONAL)
    inputs: Mapping[str, str] = field(default_factory=dict)
