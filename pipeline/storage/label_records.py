"""The records of label images: what made a segmentation, and what made the objects that were found in one.

::

    OUT.ome.zarr/labels/<name>              SegmentationRecord, in the group's attributes (probabilities have a copy)
                       /<name>-instances    InstancesRecord
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.names import instance_group, label_group
from segment_slide.pipeline.storage.record import Code, read_own
from segment_slide.pipeline.storage.sections import NOT_COMPARED, OPTIONAL, UNKNOWN, Section, read_section

Kind = TypeVar("Kind")


@dataclass(frozen=True)
class SegmentedInput(Section):
    """Which pixels of which image were segmented.

    Attributes
    ----------
    location : str
        The image, as `storage.names.say_location` says it; "" if not recorded.
    array : str or None
        Path of its array there; None if not recorded.
    level : int or None
        Resolution, 0 the finest; None if not recorded.
    axes, shape, dtype
        Of the array.
    channels : tuple of int
        In the network's order.
    ranges : mapping of str to (int, int), or None
        Chosen planes per axis ("t", "z"): the first, and the one after the last.
    fingerprint : str
        Of the array; after a repair, of the repaired array.
    mask_fingerprint : str or None
        Of the level that tells glass from tissue; None if background was not skipped.
    repaired_from : tuple of str
        Fingerprints before repairs, oldest first: the first is the one at the beginning of the run.
    earlier_fingerprint, earlier_mask_fingerprint : str
        What a version that took times of files for content recorded of the same pixels; "" if none did.
    changed : tuple of str
        Files that were found changed when a run ended: it is not complete. Only `input_repaired` mends that.
    """

    location: str = field(default="", metadata=NOT_COMPARED)
    array: str | None = field(default=None, metadata=OPTIONAL | UNKNOWN)
    level: int | None = field(default=None, metadata=OPTIONAL | UNKNOWN)
    axes: str = field(default="", metadata=UNKNOWN)
    shape: tuple[int, ...] = field(default=(), metadata=UNKNOWN)
    dtype: str = field(default="", metadata=UNKNOWN)
    channels: tuple[int, ...] = field(default=(), metadata=UNKNOWN)
    ranges: Mapping[str, tuple[int, int]] | None = field(default=None, metadata=OPTIONAL | UNKNOWN)
    fingerprint: str = field(default="", metadata=UNKNOWN)
    mask_fingerprint: str | None = None
    repaired_from: tuple[str, ...] = field(default=(), metadata=OPTIONAL | NOT_COMPARED)
    earlier_fingerprint: str = field(default="", metadata=OPTIONAL | NOT_COMPARED)
    earlier_mask_fingerprint: str = field(default="", metadata=OPTIONAL | NOT_COMPARED)
    changed: tuple[str, ...] = field(default=(), metadata=OPTIONAL | NOT_COMPARED)

    @property
    def planes(self) -> dict[str, tuple[int, int]]:
        """Chosen planes per axis; empty if there are no plane axes."""
        return dict(self.ranges or {})


@dataclass(frozen=True)
class Model(Section):
    """The network: its file's name (a path in records of older versions), its sha256, the names of its classes."""

    path: str = field(default="", metadata=NOT_COMPARED)
    sha256: str = field(default="", metadata=UNKNOWN)
    classes: tuple[str, ...] = field(default=(), metadata=UNKNOWN)


@dataclass(frozen=True)
class SegmentParameters(Section):
    """The user's choices, and the facts of the processor, that decide a segmentation's bytes.

    Attributes
    ----------
    block, tile, chunk : int
        Pixels on each spatial axis.
    precision, tta, probabilities, skip_background
        As in `pipeline.segmentation.options.SegmentOptions`, with the precision resolved.
    device, processor : str
        What the forward passes run on; not known while a run is planned.
    """

    block: int = field(default=0, metadata=UNKNOWN)
    tile: int = field(default=0, metadata=UNKNOWN)
    chunk: int = field(default=0, metadata=UNKNOWN)
    precision: str = field(default="", metadata=UNKNOWN)
    tta: str = "none"
    probabilities: str = "none"
    skip_background: bool = False
    device: str | None = field(default=None, metadata=OPTIONAL | UNKNOWN)
    processor: str | None = field(default=None, metadata=OPTIONAL | UNKNOWN)


@dataclass(frozen=True)
class UsedNormalisation(Section):
    """The constants that intensities were scaled with: one offset and one scale per channel.

    Attributes
    ----------
    kind, offset, scale
        See `unet.normalisation.Normalisation`.
    notes : tuple of str
        What looked unlike the training images, and what was done about it.
    is_exact : bool
        Whether the offset was subtracted before values were rounded to float32 (`unet.scaling`). Version 0.1.0 never
        did that; its runs go on without it.
    """

    kind: str = ""
    offset: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()
    notes: tuple[str, ...] = field(default=(), metadata=OPTIONAL)
    is_exact: bool = field(default=False, metadata=OPTIONAL)


@dataclass(frozen=True)
class ModelObjects(Section):
    """What the model recommends for the objects of its classes (`unet.checkpoint.ObjectDefaults`); `ndim` axes."""

    min_size: str = ""
    split: float | None = None
    ndim: int = 2


@dataclass(frozen=True)
class ProcessorUse(Section):
    """A kind of processor, and the blocks that it made.

    Attributes
    ----------
    device, processor, torch : str
        See `unet.device_facts.DeviceFacts` and `pipeline.storage.record.Code`; "" if not recorded.
    blocks : tuple of (int, int), or None
        Ranges of block numbers in raster order: the first, and the one after the last. None: all that no other kind of
        processor has.
    """

    device: str = ""
    processor: str = ""
    torch: str = ""
    blocks: tuple[tuple[int, int], ...] | None = None

    @property
    def text(self) -> str:
        """The kind of processor and its blocks in words."""
        torch = f"torch {self.torch}" if self.torch else ""
        kind = ", ".join(part for part in (self.processor or self.device, torch) if part)
        if self.blocks is None:
            return f"all other blocks: {kind}"
        return f"{sum(stop - first for first, stop in self.blocks):,} blocks: {kind}"


@dataclass(frozen=True)
class SegmentationRecord(Section):
    """What made a segmentation; a section is None if it is not recorded (yet).

    Attributes
    ----------
    code, input, model, parameters
        Which code and network, from which image, with which choices, as the run was begun.
    normalisation : UsedNormalisation or None
        As measured.
    processors : tuple of ProcessorUse
        The kinds of processors, if the run went on with another one (`pipeline.segmentation.processors`).
    """

    code: Code | None = field(default=None, metadata=OPTIONAL)
    input: SegmentedInput | None = field(default=None, metadata=OPTIONAL)
    model: Model | None = field(default=None, metadata=OPTIONAL)
    parameters: SegmentParameters = SegmentParameters()
    normalisation: UsedNormalisation | None = field(default=None, metadata=OPTIONAL | NOT_COMPARED)
    objects: ModelObjects | None = field(default=None, metadata=OPTIONAL | NOT_COMPARED)
    processors: tuple[ProcessorUse, ...] = field(default=(), metadata=OPTIONAL | NOT_COMPARED)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of label values from 0; empty if not recorded."""
        return self.model.classes if self.model else ()


@dataclass(frozen=True)
class LabelledInput(Section):
    """The class map that objects were found in; its fields are those of `SegmentedInput`."""

    location: str = field(default="", metadata=NOT_COMPARED)
    array: str | None = field(default=None, metadata=OPTIONAL | UNKNOWN)
    shape: tuple[int, ...] = field(default=(), metadata=UNKNOWN)
    dtype: str = field(default="", metadata=UNKNOWN)
    fingerprint: str = field(default="", metadata=UNKNOWN)
    earlier_fingerprint: str = field(default="", metadata=OPTIONAL | NOT_COMPARED)


@dataclass(frozen=True)
class InstanceParameters(Section):
    """The user's choices that decide the ids; all sizes in pixels. `ndim` is 0 if not recorded."""

    ndim: int = field(default=0, metadata=UNKNOWN)
    connectivity: int = 1
    fill_holes_px: int = 0
    min_size_px: int = 0
    split: float | None = None
    split_halo: int = 0
    regrow: bool = False
    block: int = field(default=0, metadata=UNKNOWN)


@dataclass(frozen=True)
class ClassesIdentity(Section):
    """What identifies the record of the class map; None if another tool made the class map."""

    classes: str | None = None


@dataclass(frozen=True)
class InstancesRecord(Section):
    """What made the instances.

    Attributes
    ----------
    code, input, parameters
        Which code, from which class map, with which choices.
    identity : ClassesIdentity or None
        Of the class map's record; None if this record is older than the field.
    n_objects : int or None
        Written last: if it is there, all ids are there.
    n_larger_than_halo : int or None
        Objects that no block saw as a whole while it split them.
    from_model : tuple of str
        Parameters that the user did not choose and the model recommends, with their values.
    """

    code: Code | None = field(default=None, metadata=OPTIONAL)
    input: LabelledInput = LabelledInput()
    parameters: InstanceParameters = InstanceParameters()
    identity: ClassesIdentity | None = field(default=None, metadata=OPTIONAL | NOT_COMPARED)
    n_objects: int | None = field(default=None, metadata=OPTIONAL | NOT_COMPARED)
    n_larger_than_halo: int | None = field(default=None, metadata=OPTIONAL | NOT_COMPARED)
    from_model: tuple[str, ...] = field(default=(), metadata=OPTIONAL | NOT_COMPARED)


def read_record(location: str, name: str) -> SegmentationRecord | None:
    """The record of a begun segmentation, or None if there is none (or its creation was interrupted).

    Raises
    ------
    OutputError
        If it is damaged, naming file and key.
    """
    return read_segmentation_record(store.join(location, label_group(name)))


def read_segmentation_record(group: str) -> SegmentationRecord | None:
    """The same for a class map in any group."""
    return _read(SegmentationRecord, group)


def read_instances_record(location: str, name: str) -> InstancesRecord | None:
    """The same for the instances of a class map."""
    return _read(InstancesRecord, store.join(location, instance_group(name)))


def read_label_record(group: str) -> SegmentationRecord | InstancesRecord | None:
    """The record of a label image of either kind: only a segmentation has a model. None if another tool made it."""
    is_instances = bool(content := read_own(group)) and "model" not in content
    return _read(InstancesRecord, group) if is_instances else _read(SegmentationRecord, group)


def _read(kind: type[Kind], group: str) -> Kind | None:
    content = read_own(group)
    return read_section(kind, content, store.join(group, "zarr.json")) if content else None
