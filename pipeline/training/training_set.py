"""A training set on disk: the annotated images, and the classes and weights of their pixels.

Weight maps are written into it once, and training samples are drawn from it many times. Images stay where they are (a
slide of 10^10 pixels is not copied for a few annotated squares); a fingerprint tells if one has changed. Images that
were ingested into the set move with it, and their fingerprint is that of the files they were made from::

    SET.zarr/                     the record: images, classes, class weights, settings
    ├── sources/                  inputs that were not Zarr, as OME-Zarr
    └── <group of an image>/
        ├── classes               uint8, (*planes, *spatial); 255 where nothing is annotated
        ├── weights               float32, the same axes; 0 where nothing is annotated (Ronneberger 2015, Eq. 2)
        └── counts                int64, (*blocks, n_classes): annotated pixels per class of each block
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from segment_slide.pipeline.blocks.array_spec import ArraySpec
from segment_slide.pipeline.errors import InputError
from segment_slide.pipeline.ingest.record import read_ingest_record
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.complete import Completeness
from segment_slide.pipeline.storage.fingerprint import fingerprint
from segment_slide.pipeline.storage.image import StoredImage, describe_image
from segment_slide.pipeline.storage.names import find_location, say_location
from segment_slide.pipeline.storage.record import ATTRIBUTE, read_own
from segment_slide.pipeline.storage.sections import NOT_STORED, OPTIONAL, Section, read_section, write_section
from segment_slide.pipeline.storage.source import ImageSource, select_source
from segment_slide.pipeline.training.records import WeightChoices

KIND = "training-set"
CLASSES, WEIGHTS, COUNTS = "classes", "weights", "counts"
REMEDY = "run `segment-slide weight-maps` again; it goes on where it stopped"


@dataclass(frozen=True)
class StoredPixels(Section):
    """Location of the pixels of an image or of its annotation: enough to open them again, stored as JSON.

    Parameters
    ----------
    location : str
        OME-Zarr group or Zarr array.
    n_spatial : int
        2 (y, x) or 3 (z, y, x).
    level : int
        Resolution, 0 the finest.
    axes : str or None
        Axes of a bare array.
    channels : tuple of int
        Channels in the network's order.
    fingerprint : str
        Fingerprint at the time when the set was made, see `fingerprint_pixels`.
    earlier_fingerprint : str
        What a version that took times of files for content recorded of the same pixels; "" if none did.
    """

    location: str
    n_spatial: int
    level: int = 0
    axes: str | None = None
    channels: tuple[int, ...] = (0,)
    fingerprint: str = ""
    earlier_fingerprint: str = field(default="", metadata=OPTIONAL)

    def open(self) -> ImageSource:
        """Open the pixels of all planes.

        Raises
        ------
        InputError
            If they do not exist any more.
        """
        image = describe_image(self.location, level=self.level, axes=self.axes)
        kept = sorted(set(self.channels))  # sets of before may hold a channel twice
        source = select_source(image, n_spatial=self.n_spatial, n_channels=len(kept), channels=kept)
        return replace(source, channels=self.channels)

    @classmethod
    def describe(cls, source: ImageSource, set_location: str = "") -> "StoredPixels":
        """Describe an open source so that the set at a location can open it again."""
        image = source.image
        axes = None if image.is_ome else image.axes
        mark = fingerprint_pixels(image, set_location)
        return cls(image.location, source.n_spatial, image.level, axes, source.channels, mark)


def fingerprint_pixels(image: StoredImage, set_location: str, begun_with: str = "") -> str:
    """Fingerprint that tells whether pixels have changed since the set was made.

    For an image outside the set: its content. For one that was ingested into the set: the contents of the files that
    it was made from, taken from its own record, so that a copy of the set is valid too.

    Parameters
    ----------
    image, set_location : StoredImage, str
        The image, inside or outside the set; present location of the set.
    begun_with : str
        The fingerprint to compare with, see `pipeline.storage.fingerprint`.
    """
    if set_location and image.location.startswith(set_location.rstrip("/") + "/"):
        record = read_ingest_record(image.location)
        if record is not None and record.ingested_from.fingerprint:
            return record.ingested_from.fingerprint
    return fingerprint(image, begun_with)


@dataclass(frozen=True)
class AnnotatedImage(Section):
    """One image of a training set.

    Parameters
    ----------
    name : str
        The file's name without endings; unique in the set.
    group : str
        Its group in the set's store.
    shape : tuple of int
        (*planes, *spatial) in pixels.
    block : tuple of int
        Shard of `classes` and `weights`, on the same axes.
    class_counts : tuple of int
        Annotated pixels of each class, after ridges are cut.
    image, labels : StoredPixels
        Intensities, and the annotation they were made from.
    files : tuple of str
        Names of the files of both, as the user named them; empty in sets of earlier versions.
    """

    name: str
    group: str
    shape: tuple[int, ...]
    block: tuple[int, ...]
    class_counts: tuple[int, ...]
    image: StoredPixels
    labels: StoredPixels
    files: tuple[str, ...] = field(default=(), metadata=OPTIONAL)

    @property
    def n_planes_axes(self) -> int:
        """Leading axes along which planes are independent."""
        return len(self.shape) - self.image.n_spatial

    @property
    def pair(self) -> tuple[str, str]:
        """Names of the files of image and annotation."""
        image, labels = self.files if len(self.files) == 2 else (self.image.location, self.labels.location)
        return image, labels


@dataclass(frozen=True)
class TrainingSet(Section):
    """Metadata of a training set; no pixel is read.

    Parameters
    ----------
    location : str
        The store.
    n_spatial : int
        2 or 3.
    class_names : tuple of str
        One name per class, the first is background.
    class_weights : tuple of float
        w_c of each class; their mean over all annotated pixels is 1.
    images : tuple of AnnotatedImage
        Images, in the order of their names.
    settings : WeightChoices
        How weights were made.
    channel_names : tuple of str
        Channels of the images; empty if unknown.
    pixel_size_um : tuple of float
        Pixel size of the first image on spatial axes; empty if unknown.
    notes : tuple of str
        Warnings about the annotation.
    """

    location: str = field(metadata=NOT_STORED)
    n_spatial: int
    class_names: tuple[str, ...]
    class_weights: tuple[float, ...]
    images: tuple[AnnotatedImage, ...]
    settings: WeightChoices = WeightChoices()
    channel_names: tuple[str, ...] = ()
    pixel_size_um: tuple[float, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def n_classes(self) -> int:
        """Number of classes, background included."""
        return len(self.class_names)

    def array(self, image: AnnotatedImage, name: str) -> zarr.Array[Any]:
        """Open one of an image's arrays for reading."""
        return store.open_array(self.location, store.join(image.group, name), zarr_format=3)

    def record(self) -> dict[str, Any]:
        """The metadata as JSON. Places of images are relative to the store's own, because they may move with it."""
        content = write_section(self)
        for image in content["images"]:
            for pixels in (image["image"], image["labels"]):
                pixels["location"] = say_location(pixels["location"], self.location)
        return {"kind": KIND, **content}


def create_training_set(training_set: TrainingSet, counts: Mapping[str, np.ndarray], chunk: tuple[int, ...]) -> None:
    """Create the groups and arrays, with all counts but without any pixel. The record is written last.

    Parameters
    ----------
    training_set : TrainingSet
        Metadata of the set.
    counts : dict of ndarray of int64
        By image name: annotated pixels per block and class.
    chunk : tuple of int
        Chunk (px) on the spatial axes; divides the blocks.

    Raises
    ------
    OutputError
        If the location cannot be written.
    """
    location = training_set.location
    store.create_group(location, "", [], {ATTRIBUTE: {"kind": KIND}})
    for image in training_set.images:
        planes = image.n_planes_axes
        axes = "tz"[-planes:] * bool(planes) if training_set.n_spatial == 2 else "t" * planes
        axes += "zyx"[-training_set.n_spatial :]
        inner = (1,) * planes + chunk
        table = counts[image.name]
        specs = [
            ArraySpec(CLASSES, image.shape, image.block, inner, "uint8", axes),
            ArraySpec(WEIGHTS, image.shape, image.block, inner, "float32", axes),
            ArraySpec(COUNTS, table.shape, table.shape, table.shape, "int64", axes + "c"),
        ]
        store.create_group(location, image.group, specs, {})
        where = store.open_array(location, store.join(image.group, COUNTS), writable=True)
        store.write_box(where, (slice(None),) * table.ndim, table)
    store.update_attributes(location, "", {ATTRIBUTE: training_set.record()})


def read_training_set(location: str | Path) -> TrainingSet:
    """Open the training set at a location. Some of its pixels may not be stored yet (`check_complete`).

    Raises
    ------
    InputError
        If there is none, or its creation was interrupted.
    OutputError
        If its record is damaged. The message names file and key.
    """
    location = store.resolve_location(location)
    content = read_own(location)
    if content.get("kind") != KIND:
        raise InputError(f"{location} is not a training set; make one with `segment-slide weight-maps`.")
    if "images" not in content:
        Completeness(location, lacks="its labels are not counted yet", remedy=REMEDY).require()
    found = read_section(TrainingSet, content, store.join(location, "zarr.json"), location=location)
    return replace(found, images=tuple(_found_in(image, location) for image in found.images))


def _found_in(image: AnnotatedImage, set_location: str) -> AnnotatedImage:
    """An image with the present location of its pixels, which may be inside the set or have moved with it."""

    def find(pixels: StoredPixels) -> StoredPixels:
        recorded = pixels.location
        is_inside = not (store.is_remote(recorded) or recorded.startswith(("/", "..")))
        found = store.join(set_location, recorded) if is_inside else find_location(recorded, set_location)
        return replace(pixels, location=found)

    return replace(image, image=find(image.image), labels=find(image.labels))


def pending_blocks(training_set: TrainingSet, image: AnnotatedImage) -> list[tuple[int, ...]]:
    """Blocks of an image whose classes or weights are not stored, in raster order."""
    done = [store.stored_shards(training_set.location, store.join(image.group, name)) for name in (CLASSES, WEIGHTS)]
    grid = [-(-size // block) for size, block in zip(image.shape, image.block, strict=True)]
    return [index for index in np.ndindex(*grid) if index not in done[0] or index not in done[1]]


def check_complete(training_set: TrainingSet) -> None:
    """Refuse (`InputError`) a set whose weight maps are not complete; the message has the number of missing blocks."""
    judge_training_set(training_set).require()


def judge_training_set(training_set: TrainingSet) -> Completeness:
    """How many blocks of all images have classes and weights."""
    n_blocks = sum(
        math.prod(-(-size // block) for size, block in zip(image.shape, image.block, strict=True))
        for image in training_set.images
    )
    missing = sum(len(pending_blocks(training_set, image)) for image in training_set.images)
    return Completeness(training_set.location, n_blocks, missing, remedy=REMEDY, unit="blocks of weight maps")
