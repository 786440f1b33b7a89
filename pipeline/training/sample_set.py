"""Training samples on disk: drawn and deformed once by a cluster, then read in any order by a training.

::

    SAMPLES.zarr/                 the record: from which set, how drawn, how normalised
    ├── training/                 drawn at random, deformed
    ├── preview.png               the first samples, to look at
    └── validation/               plain tiles that cover the images that training never reads
        ├── images                float32, (n, c, *read size): normalised, the tile with its halo
        ├── classes               uint8, (n, *tile); 255 ignored
        ├── weights               float32, (n, *tile); 0 where ignored
        └── places                float64, (n, 1 + axes): number of the image, its plane, the tile's centre (px)
"""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import zarr

from segment_slide.pipeline.blocks.array_spec import ArraySpec
from segment_slide.pipeline.errors import InputError, OutputError
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.complete import Completeness
from segment_slide.pipeline.storage.lock import LOCK_NAME
from segment_slide.pipeline.storage.record import ATTRIBUTE, compare_records, read_own
from segment_slide.pipeline.storage.sections import NOT_STORED, OPTIONAL, Section, read_section, write_section
from segment_slide.pipeline.training.records import SampleChoices, SetReference
from segment_slide.unet.geometry import Geometry
from segment_slide.unet.normalisation import Intensities, Normalisation

KIND = "training-samples"
ARRAYS = ("images", "classes", "weights", "places")
SHARD_SAMPLES = 16  # samples in one file: one task draws them, and a crash loses at most these
SHARD_BYTES = 128 << 20  # gives fewer samples per file in 3D, where one may take 64 MB: a task holds a whole file

# these are results of the other settings
_MEASURED = ("normalisation", "n_validation", "image_scales", "intensities", "reason")

REMEDY = "run `segment-slide training-data` again; it goes on where it stopped"

Part = Literal["training", "validation"]
PARTS: tuple[Part, ...] = ("training", "validation")


@dataclass(frozen=True)
class SampleSet(Section):
    """Metadata of stored samples; no sample is read.

    Parameters
    ----------
    location : str
        The store.
    n_spatial, n_channels, depth : int
        Properties of the network that they are cut for; the depth determines the halo.
    tile_px : tuple of int
        Pixels per spatial axis whose classes are compared, multiples of the stride.
    n_training, n_validation : int
        Number of samples.
    class_names, channel_names : tuple of str
        Names in order; channel names may be empty.
    pixel_size_um : tuple of float
        Pixel size on spatial axes; empty if unknown.
    normalisation : Normalisation
        How intensities were normalised. The trained network uses the same normalisation.
    training_images, validation_images : tuple of str
        Names of the images that each part is drawn from.
    settings : SampleChoices
        How samples were drawn and deformed, including the seed.
    training_set : SetReference
        The training set they were drawn from.
    image_scales : dict
        By image name: the [offset, scale] (each one value per channel) that its intensities were normalised with.
    intensities : Intensities or None
        Of the training images; None if constants were given, and in sets of version 0.1.0.
    reason : str
        Why this kind of normalisation was chosen; "" if the user chose it.
    """

    location: str = field(metadata=NOT_STORED)
    n_spatial: int
    n_channels: int
    depth: int
    tile_px: tuple[int, ...]
    n_training: int
    n_validation: int
    class_names: tuple[str, ...]
    channel_names: tuple[str, ...]
    pixel_size_um: tuple[float, ...]
    normalisation: Normalisation
    training_images: tuple[str, ...]
    validation_images: tuple[str, ...]
    settings: SampleChoices = SampleChoices()
    training_set: SetReference = SetReference()
    image_scales: Mapping[str, tuple[tuple[float, ...], ...]] = field(default_factory=dict, hash=False)
    intensities: Intensities | None = field(default=None, metadata=OPTIONAL)
    reason: str = field(default="", metadata=OPTIONAL)

    @property
    def read_px(self) -> tuple[int, ...]:
        """Pixels per spatial axis of a sample's image: the tile and its halo."""
        geometry = Geometry(self.depth)
        return tuple(geometry.read_size(size) for size in self.tile_px)

    def count(self, part: Part) -> int:
        """Number of samples of a part."""
        return self.n_training if part == "training" else self.n_validation

    @property
    def shard_samples(self) -> int:
        """Number of samples in one file."""
        sample_bytes = math.prod(self.read_px) * self.n_channels * 4
        return max(1, min(SHARD_SAMPLES, SHARD_BYTES // sample_bytes))

    def n_shards(self, part: Part) -> int:
        """Number of files of each array of a part."""
        return -(-self.count(part) // self.shard_samples)

    def specs(self, part: Part) -> list[ArraySpec]:
        """Arrays of a part, with one sample per chunk and `shard_samples` per file."""
        n, spatial = self.count(part), "zyx"[-self.n_spatial :]

        def spec(name: str, inner: tuple[int, ...], dtype: str, axes: str) -> ArraySpec:
            return ArraySpec(name, (n, *inner), (self.shard_samples, *inner), (1, *inner), dtype, axes)

        return [
            spec("images", (self.n_channels, *self.read_px), "float32", "nc" + spatial),
            spec("classes", self.tile_px, "uint8", "n" + spatial),
            spec("weights", self.tile_px, "float32", "n" + spatial),
            spec("places", (self._place_length,), "float64", "np"),
        ]

    @property
    def _place_length(self) -> int:
        return 1 + len(self.settings.place_axes)

    def array(self, part: Part, name: str, *, writable: bool = False) -> zarr.Array[Any]:
        """One of the arrays."""
        return store.open_array(self.location, store.join(part, name), writable=writable, zarr_format=3)

    def record(self) -> dict[str, Any]:
        """The metadata as JSON, without the location of the store itself."""
        return {"kind": KIND, **write_section(self)}


def create_sample_set(samples: SampleSet) -> None:
    """Create groups and arrays without any sample. The record is written last.

    Raises
    ------
    OutputError
        If the location cannot be written.
    """
    store.create_group(samples.location, "", [], {ATTRIBUTE: {"kind": KIND}})
    for part in PARTS:
        if samples.count(part):
            store.create_group(samples.location, part, samples.specs(part), {})
    store.update_attributes(samples.location, "", {ATTRIBUTE: samples.record()})


def check_place(location: str, inputs: Sequence[str]) -> None:
    """Refuse a place that cannot or must not hold samples, before anything is created.

    Parameters
    ----------
    location : str
        Location for the samples.
    inputs : sequence of str
        Training set and images, which are read-only.

    Raises
    ------
    OutputError
        If something else is there, or if it lies in an input.
    """
    for other in inputs:
        if lies_in(location, other) or lies_in(other, location):
            raise OutputError(
                f"output={location} and input={other} lie in each other; inputs are read-only. Choose another path."
            )
    is_file = store.is_file(location)
    occupied = is_file or store.list_names(location) - {LOCK_NAME}
    if occupied and (is_file or read_own(location).get("kind") != KIND):
        raise OutputError(f"output={location} exists and holds no training samples; choose another path, or delete it.")


def lies_in(inner: str, outer: str) -> bool:
    """Whether a location equals another one, or lies inside it."""
    inner, outer = (path if store.is_remote(path) else os.path.realpath(path) for path in (inner, outer))
    return inner == outer or inner.startswith(outer.rstrip("/") + "/")


def find_sample_set(location: str) -> SampleSet | None:
    """The samples that an earlier run began at a location; None if there are none, or if groups are missing."""
    try:
        return read_sample_set(location)
    except InputError:
        return None


def compare_sample_sets(begun: SampleSet, wanted: SampleSet) -> None:
    """Refuse to resume samples that were begun with other settings. Values that a run measures are not compared.

    Raises
    ------
    OutputMismatchError
        If settings differ. The message names each value that differs.
    """
    measured = {name: getattr(begun, name) for name in _MEASURED}
    compare_records(begun, replace(wanted, **measured), begun.location)


def read_sample_set(location: str | Path) -> SampleSet:
    """Open the samples at a location. Some may not be stored yet (`pending_shards`).

    Raises
    ------
    InputError
        If there are none, or their creation was interrupted.
    OutputError
        If the record is damaged. The message names file and key.
    """
    location = store.resolve_location(location)
    content = read_own(location)
    if content.get("kind") != KIND:
        raise InputError(f"{location} holds no training samples; make some with `segment-slide training-data`.")
    if "n_training" not in content:
        Completeness(location, lacks="its samples are not described yet", remedy=REMEDY).require()
    return read_section(SampleSet, content, store.join(location, "zarr.json"), location=location)


def judge_sample_set(samples: SampleSet, parts: Sequence[Part] = PARTS) -> Completeness:
    """How many files of samples are there, of each array."""
    n_files = sum(map(samples.n_shards, parts))
    missing = sum(len(pending_shards(samples, part)) for part in parts)
    unit = "files of samples" if len(parts) > 1 else f"files of {parts[0]} samples"
    return Completeness(samples.location, n_files, missing, remedy=REMEDY, unit=unit)


def pending_shards(samples: SampleSet, part: Part) -> list[int]:
    """Numbers of the files (of each array) that are not stored yet, in rising order."""
    done = set(range(samples.n_shards(part)))
    for name in ARRAYS:
        done &= {index[0] for index in store.stored_shards(samples.location, store.join(part, name))}
    return [number for number in range(samples.n_shards(part)) if number not in done]
