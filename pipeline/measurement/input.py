"""The input of a measurement, read block by block: ids, classes, image and probabilities.

A `MeasureInput` is small and is sent to the workers, which open the arrays. `measurement.open` finds and checks it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from segment_slide.pipeline.blocks.grid import BlockGrid, Index
from segment_slide.pipeline.errors import InputError, UnreadableChunkError
from segment_slide.pipeline.measurement.columns import TableSpec, channel_columns
from segment_slide.pipeline.measurement.pixels import REACH, BlockPixels
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.calibration import calibrate_um
from segment_slide.pipeline.storage.image import StoredImage
from segment_slide.pipeline.storage.remedy import say_remedy
from segment_slide.pipeline.storage.source import ImageSource, read_stored
from segment_slide.unet.boxes import Box, clip_box
from segment_slide.unet.geometry import Locality


@dataclass(frozen=True)
class MeasureInput:
    """All arrays that are read, and their metadata.

    Attributes
    ----------
    instances : StoredImage
        Ids.
    classes : StoredImage or None
        Class map of the same shape; None if the ids are another tool's: then all objects have class 1.
    scores : StoredImage or None
        Probabilities.
    source : ImageSource or None
        The image with all its channels, on the axes of the instances.
    n_spatial : int
        Number of spatial axes, which are the last ones: 2 or 3.
    n_objects : int or None
        Number of objects; ids are 1 to `n_objects`. None if the ids are another tool's: any numbers above 0.
    class_names : tuple of str
        Names of label values; empty if they are not recorded.
    """

    instances: StoredImage
    classes: StoredImage | None
    scores: StoredImage | None
    source: ImageSource | None
    n_spatial: int
    n_objects: int | None
    class_names: tuple[str, ...]

    @property
    def axes(self) -> str:
        """Axes of the ids; a channel axis, which has one element, is left out."""
        return self.instances.axes.replace("c", "")

    @property
    def shape(self) -> tuple[int, ...]:
        """Size (px) on `axes`."""
        return tuple(self.instances.size(axis) for axis in self.axes)

    @property
    def id_bits(self) -> int:
        """Bits of an id. Other tools use an id again in each plane, so the bits above hold the plane."""
        n_planes = math.prod(self.shape[: -self.n_spatial])
        return 64 - (n_planes - 1).bit_length() if self.n_objects is None else 64

    @property
    def grid(self) -> BlockGrid:
        """Blocks are the shards of the instances; of ids of another tool, whole chunks in blocks of a useful size."""
        chunks = dict(zip(self.instances.axes, self.instances.chunks, strict=True))
        if self.n_objects is None:
            inner = dict(zip(self.instances.axes, self.instances.inner_chunks or self.instances.chunks, strict=True))
            spatial = self.axes[-self.n_spatial :]
            chunks = {axis: _block_side(inner[axis], self.n_spatial) if axis in spatial else 1 for axis in inner}
        block = tuple(min(chunks[axis], self.instances.size(axis)) for axis in self.axes)
        return BlockGrid(self.shape, block, Locality(stride=1, halo=REACH[self.n_spatial]), self.n_spatial)

    @property
    def spec(self) -> TableSpec:
        """Columns that can be computed from these inputs."""
        channels = () if self.source is None else self._channel_columns(self.source)
        score_unit = 0.0 if self.scores is None else (255.0 if self.scores.dtype == "uint8" else 1.0)
        return TableSpec(
            axes=self.axes,
            shape=self.shape,
            n_spatial=self.n_spatial,
            class_names=self.class_names,
            channels=channels,
            score_unit=score_unit,
            calibration=calibrate_um(self.instances, self.n_spatial),
            id_bits=self.id_bits,
        )

    def _channel_columns(self, source: ImageSource) -> tuple[str, ...]:
        return channel_columns(source.image.multiscale.channel_names, len(source.channels))

    def with_lists(self, images: Mapping[str, StoredImage]) -> "MeasureInput":
        """The same with lists of what is read (`pipeline.inputs`) of some images, by the names of the lists."""
        source = self.source
        return replace(
            self,
            instances=images.get("instances", self.instances),
            classes=images.get("classes", self.classes),
            scores=images.get("probability", self.scores),
            source=None if source is None else replace(source, image=images.get("image", source.image)),
        )

    def read(self, index: Index) -> BlockPixels:
        """Pixels of a block. If the block has no object, only the ids are read.

        Raises
        ------
        UnreadableChunkError
            If a chunk cannot be read. The message names the place.
        InputError
            If an id is negative, or too large.
        """
        box = self.grid.write_box(index)
        origin = tuple(part.start for part in box)
        ids = self._read_ids(index)
        halos = [slice(self.grid.halo(axis), size - self.grid.halo(axis)) for axis, size in enumerate(ids.shape)]
        if not ids[tuple(halos)].any():
            return self._nothing(origin, ids)
        return BlockPixels(
            ids,
            origin,
            self.n_spatial,
            classes=self._read_classes(box),
            channels=self._read_channels(box),
            scores=self._read_scores(box),
        )

    def _read_ids(self, index: Index) -> np.ndarray:
        """Ids of the read box; beyond the image, background."""
        wanted = self.grid.read_box(index)
        inside = clip_box(wanted, self.shape)
        around = [(i.start - w.start, w.stop - i.stop) for i, w in zip(inside, wanted, strict=True)]
        ids = self._read_on_axes(self.instances, inside)
        return np.pad(ids if self.n_objects is not None else self._keep_apart(ids, inside), around)

    def _keep_apart(self, ids: np.ndarray, box: Box) -> np.ndarray:
        """Ids of another tool as unsigned ones, with the plane in the bits above `id_bits`. A box lies in one plane."""
        where = store.join(self.instances.location, self.instances.array_path)
        if ids.dtype.kind == "i" and ids.min(initial=0) < 0:
            at = np.argwhere(ids < 0)[0]
            place = ", ".join(f"{axis}={part.start + k}" for axis, part, k in zip(self.axes, box, at, strict=True))
            raise InputError(
                f"{where}: the id at {place} is {ids[tuple(at)]}, expected 0 for background and ids above 0. Replace "
                f"negative values, for example by 0."
            )
        bits, planes = self.id_bits, self.shape[: -self.n_spatial]
        if bits == 64:
            return ids.astype(np.uint64 if ids.dtype.itemsize > 4 else np.uint32)
        wide = ids.astype(np.uint64)
        if int(wide.max(initial=0)) >> bits:
            raise InputError(
                f"{where}: id {wide.max()} is too large for an image of {math.prod(planes):,} planes, expected ids "
                f"below {1 << bits}. Number the objects anew, plane by plane."
            )
        number = int(np.ravel_multi_index([part.start for part in box[: len(planes)]], planes))
        return np.where(wide != 0, wide + np.uint64(number << bits), wide)

    def _read_classes(self, box: Box) -> np.ndarray:
        if self.classes is None:
            return np.ones([part.stop - part.start for part in box], np.uint8)
        return self._read_on_axes(self.classes, box).astype(np.uint8, copy=False)

    def _read_on_axes(self, image: StoredImage, box: Box) -> np.ndarray:
        """Pixels of an array that may have a channel axis of one element besides `axes`."""
        by_axis = dict(zip(self.axes, box, strict=True)) | {"c": slice(0, 1)}
        pixels = _read(image, tuple(by_axis[axis] for axis in image.axes))
        return pixels.reshape([part.stop - part.start for part in box])

    def _read_channels(self, box: Box) -> np.ndarray:
        if self.source is None:
            return np.zeros((0, 1), np.uint8)
        by_axis = dict(zip(self.axes, box, strict=True))  # an axis that only one of both has is one pixel long
        pixels = self.source.read(tuple(by_axis.get(a, slice(0, 1)) for a in self.source.axes), needs_finite=False)
        pixels = np.moveaxis(pixels, len(self.source.plane_axes), 0)
        return pixels.reshape(len(pixels), *(part.stop - part.start for part in box))

    def _read_scores(self, box: Box) -> np.ndarray:
        if self.scores is None:
            return np.zeros((0, 1), np.uint8)
        by_axis = dict(zip(self.axes, box, strict=True)) | {"c": slice(0, self.scores.size("c"))}
        pixels = _read(self.scores, tuple(by_axis[axis] for axis in self.scores.axes))
        return np.moveaxis(pixels, self.scores.axes.index("c"), 0)

    def _nothing(self, origin: tuple[int, ...], ids: np.ndarray) -> BlockPixels:
        """One background pixel with the dtypes of the arrays."""
        one = (1,) * ids.ndim
        reach = [1 + 2 * self.grid.halo(axis) for axis in range(ids.ndim)]
        pixels = BlockPixels(np.zeros(reach, ids.dtype), origin, self.n_spatial, np.zeros(one, np.uint8))
        if self.source is not None:
            pixels = replace(pixels, channels=np.zeros((len(self.source.channels), *one), self.source.dtype))
        if self.scores is not None:
            pixels = replace(pixels, scores=np.zeros((self.scores.size("c"), *one), self.scores.dtype))
        return pixels


def _block_side(chunk: int, n_spatial: int) -> int:
    """Side (px) of a block: whole chunks of some two thousand pixels, a part of a chunk that is far larger.

    >>> _block_side(512, 2), _block_side(1 << 16, 2), _block_side(50, 3)
    (2048, 2048, 250)
    """
    wanted = {2: 2048, 3: 256}[n_spatial]
    return min(chunk * max(1, wanted // chunk), wanted)


def _read(image: StoredImage, box: Box) -> np.ndarray:
    try:
        pixels = read_stored(image, box)
    except Exception as error:  # on damaged bytes, codecs raise exceptions of many types
        place = ", ".join(f"{axis} {part.start}:{part.stop}" for axis, part in zip(image.axes, box, strict=True))
        where = store.join(image.location, image.array_path)
        reason = f"{type(error).__name__}: {error}"
        remedy = say_remedy(image)
        raise UnreadableChunkError(
            f"a file of {where} is damaged, at {place} ({reason}){'.' if remedy else ''}{remedy}"
        ) from error
    return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
