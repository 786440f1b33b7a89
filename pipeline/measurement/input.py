"""The input of a measurement, read block by block: ids, classes, image and probabilities.

A `MeasureInput` is small and is sent to the workers, which open the arrays. `measurement.open` finds and checks it.
"""

from dataclasses import dataclass, replace

import numpy as np

from segment_slide.pipeline.blocks.grid import BlockGrid, Index
from segment_slide.pipeline.errors import NotFiniteError, UnreadableChunkError
from segment_slide.pipeline.measurement.columns import TableSpec, channel_columns
from segment_slide.pipeline.measurement.pixels import REACH, BlockPixels
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.calibration import calibrate_um
from segment_slide.pipeline.storage.image import StoredImage
from segment_slide.pipeline.storage.source import ImageSource
from segment_slide.unet.boxes import Box, clip_box
from segment_slide.unet.geometry import Locality


@dataclass(frozen=True)
class MeasureInput:
    """All arrays that are read, and their metadata.

    Attributes
    ----------
    instances, classes : StoredImage
        Ids and class map, of the same shape.
    scores : StoredImage or None
        Probabilities.
    source : ImageSource or None
        The image with all its channels, on the axes of the instances.
    n_spatial : int
        Number of spatial axes, which are the last ones: 2 or 3.
    n_objects : int
        Number of objects; ids are 1 to `n_objects`.
    class_names : tuple of str
        Names of label values; empty if they are not recorded.
    """

    instances: StoredImage
    classes: StoredImage
    scores: StoredImage | None
    source: ImageSource | None
    n_spatial: int
    n_objects: int
    class_names: tuple[str, ...]

    @property
    def grid(self) -> BlockGrid:
        """Blocks are the shards of the instances."""
        block = tuple(map(min, self.instances.chunks, self.instances.shape))
        return BlockGrid(self.instances.shape, block, Locality(stride=1, halo=REACH[self.n_spatial]), self.n_spatial)

    @property
    def spec(self) -> TableSpec:
        """Columns that can be computed from these inputs."""
        channels = () if self.source is None else self._channel_columns(self.source)
        score_unit = 0.0 if self.scores is None else (255.0 if self.scores.dtype == "uint8" else 1.0)
        return TableSpec(
            axes=self.instances.axes,
            shape=self.instances.shape,
            n_spatial=self.n_spatial,
            class_names=self.class_names,
            channels=channels,
            score_unit=score_unit,
            calibration=calibrate_um(self.instances, self.n_spatial),
        )

    def _channel_columns(self, source: ImageSource) -> tuple[str, ...]:
        return channel_columns(source.image.multiscale.channel_names, len(source.channels))

    def read(self, index: Index) -> BlockPixels:
        """Pixels of a block. If the block has no object, only the ids are read.

        Raises
        ------
        UnreadableChunkError
            If a chunk cannot be read. The message names the place.
        NotFiniteError
            If a value of the image is NaN or infinite. The message names its position.
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
        inside = clip_box(wanted, self.instances.shape)
        around = [(i.start - w.start, w.stop - i.stop) for i, w in zip(inside, wanted, strict=True)]
        return np.pad(_read(self.instances, inside), around)

    def _read_classes(self, box: Box) -> np.ndarray:
        by_axis = dict(zip(self.instances.axes, box, strict=True)) | {"c": slice(0, 1)}
        pixels = _read(self.classes, tuple(by_axis[axis] for axis in self.classes.axes))
        return pixels.reshape([part.stop - part.start for part in box]).astype(np.uint8, copy=False)

    def _read_channels(self, box: Box) -> np.ndarray:
        if self.source is None:
            return np.zeros((0, 1), np.uint8)
        try:
            pixels = self.source.read(box)
        except NotFiniteError as error:
            raise NotFiniteError(
                f"{str(error).partition(';')[0]}: intensities of objects there have no mean. Replace such values, name "
                f"another `image`, or measure shapes only with `no_image`."
            ) from error
        return np.moveaxis(pixels, len(self.source.plane_axes), 0)

    def _read_scores(self, box: Box) -> np.ndarray:
        if self.scores is None:
            return np.zeros((0, 1), np.uint8)
        by_axis = dict(zip(self.instances.axes, box, strict=True)) | {"c": slice(0, self.scores.size("c"))}
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


def _read(image: StoredImage, box: Box) -> np.ndarray:
    try:
        pixels = np.asarray(image.array()[box])
    except Exception as error:  # on damaged bytes, codecs raise exceptions of many types
        place = ", ".join(f"{axis} {part.start}:{part.stop}" for axis, part in zip(image.axes, box, strict=True))
        where = store.join(image.location, image.array_path)
        reason = f"{type(error).__name__}: {error}"
        raise UnreadableChunkError(f"a file of {where} is damaged, at {place} ({reason})") from error
    return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
