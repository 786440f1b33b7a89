"""Coarser levels of a stored image: each shard is made from the level below; a whole level is never in memory.

`nearest` (every second pixel) for labels and ids, which must not be mixed; `local_mean` for intensities and
probabilities. Coordinates follow the method: a kept pixel stays where it is, a mean lies between its pixels.
"""

import functools
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from segment_slide.pipeline.blocks.array_spec import ArraySpec
from segment_slide.pipeline.blocks.grid import Index, ceil_divide
from segment_slide.pipeline.blocks.tasks import explain_failures, run_all
from segment_slide.pipeline.errors import Failure, TasksFailedError, UnreadableChunkError
from segment_slide.pipeline.storage import ome
from segment_slide.pipeline.storage.store import join, open_array, stored_shards, write_box
from segment_slide.unet.boxes import Box

if TYPE_CHECKING:
    import zarr
    from distributed import Client

Method = Literal["nearest", "local_mean"]


def downsample(pixels: np.ndarray, axes: tuple[int, ...], method: Method) -> np.ndarray:
    """Halve an array along some axes, rounding sizes up.

    Parameters
    ----------
    pixels : ndarray
        Any shape.
    axes : tuple of int
        Axes to halve.
    method : {"nearest", "local_mean"}
        Keep every second pixel, or take the mean of 2^n pixels (fewer at an odd edge); means of integers are
        rounded half up.

    Returns
    -------
    ndarray
        Same dtype.

    Examples
    --------
    >>> downsample(np.array([[1, 2, 9], [3, 5, 9]], np.uint8), (0, 1), "local_mean").tolist()
    [[3, 9]]
    >>> downsample(np.array([[1, 2, 9], [3, 5, 9]], np.uint8), (0, 1), "nearest").tolist()
    [[1, 9]]
    """
    if method == "nearest":
        return pixels[tuple(slice(None, None, 2) if axis in axes else slice(None) for axis in range(pixels.ndim))]
    if pixels.dtype.kind == "b":
        return downsample(pixels.view(np.uint8), axes, method).astype(bool)
    # the last pixel of an odd axis is repeated, so that its mean is its own value
    odd = [(0, pixels.shape[axis] % 2 if axis in axes else 0) for axis in range(pixels.ndim)]
    even = np.pad(pixels, odd, mode="edge") if any(right for _, right in odd) else pixels
    steps = [(slice(0, None, 2), slice(1, None, 2)) if axis in axes else (slice(None),) for axis in range(pixels.ndim)]
    parts = [even[corner] for corner in itertools.product(*steps)]
    if pixels.dtype.kind in "iu":
        return _mean_of_integers(parts, len(axes))
    total = np.zeros(parts[0].shape, np.float64)
    for part in parts:
        total += part
    return (total / len(parts)).astype(pixels.dtype)


def _mean_of_integers(parts: list[np.ndarray], n: int) -> np.ndarray:
    """Mean of 2^n arrays, rounded half up, in their own dtype: quotients and remainders are added separately."""
    quotient, rest = parts[0] >> n, parts[0] & (2**n - 1)
    for part in parts[1:]:
        quotient += part >> n
        rest += part & (2**n - 1)
    return quotient + ((rest + (2**n >> 1)) >> n)


def calibrate(
    name: str,
    axes: str,
    units: tuple[str | None, ...],
    level_0: ome.Level,
    n_levels: int,
    method: Method,
    halved: str,
) -> ome.Multiscale:
    """Axes, scales and translations of all levels of a pyramid.

    Parameters
    ----------
    name : str
        Name for people.
    axes, units : str, tuple
        Axes and their units, in any spelling. They are written with OME-Zarr's names, and lengths for which it has none
        in micrometers; a unit that is not known is left out.
    level_0 : Level
        Scale and translation of the finest level; its path is ignored.
    n_levels : int
        Number of levels, with paths "0", "1", ….
    method : {"nearest", "local_mean"}
        `nearest` keeps the first pixel of two, so level k starts where level 0 does. With `local_mean`, the first
        pixel of level k lies (2^k - 1) / 2 pixels of level 0 further.
    halved : str
        Axes that are halved.
    """
    finest = [
        ome.in_ngff(axis, unit, step, start)
        for axis, unit, step, start in zip(axes, units, level_0.scale, level_0.translation, strict=True)
    ]
    levels = []
    for number in range(n_levels):
        scale, translation = [], []
        for axis, (_, step, start) in zip(axes, finest, strict=True):
            factor = 1 << number if axis in halved else 1
            shift = (factor - 1) / 2 * step if method == "local_mean" else 0.0
            scale.append(step * factor)
            translation.append(start + shift)
        levels.append(ome.Level(str(number), tuple(scale), tuple(translation)))
    return ome.Multiscale(axes, tuple(unit for unit, _, _ in finest), tuple(levels), name)


@dataclass(frozen=True)
class PyramidLevel:
    """One level to fill from the one below it.

    Parameters
    ----------
    location, group : str
        Store, and the multiscale group in it.
    source, target : ArraySpec
        The finer and the coarser array.
    halved : tuple of int
        Axes that `target` halves.
    method : {"nearest", "local_mean"}
        See `downsample`.
    """

    location: str
    group: str
    source: ArraySpec
    target: ArraySpec
    halved: tuple[int, ...]
    method: Method

    def target_box(self, index: Index) -> Box:
        """Pixels of a shard of the coarser array."""
        return tuple(
            slice(i * shard, min((i + 1) * shard, size))
            for i, shard, size in zip(index, self.target.shard, self.target.shape, strict=True)
        )

    def name_file(self, index: Index) -> str:
        """What a shard is called in messages."""
        return f"file {'/'.join(map(str, index))} of {join(self.group, self.target.path)}"

    def source_box(self, box: Box) -> Box:
        """Pixels of the finer array that a box of the coarser one is made of."""
        return tuple(
            slice(2 * s.start, min(2 * s.stop, self.source.shape[axis])) if axis in self.halved else s
            for axis, s in enumerate(box)
        )

    def source_shards(self, index: Index) -> Iterator[Index]:
        """Shards of the finer array that must be there before a shard of this one is made."""
        box = self.source_box(self.target_box(index))
        return itertools.product(
            *(range(s.start // n, ceil_divide(s.stop, n)) for s, n in zip(box, self.source.shard, strict=True))
        )

    def pending(self) -> list[Index]:
        """Shards that are missing and whose sources are all there, in raster order."""
        done = stored_shards(self.location, join(self.group, self.target.path))
        ready = stored_shards(self.location, join(self.group, self.source.path))
        counts = map(ceil_divide, self.target.shape, self.target.shard)
        return [
            index
            for index in itertools.product(*map(range, counts))
            if index not in done and all(shard in ready for shard in self.source_shards(index))
        ]


def run_level_shard(level: PyramidLevel, index: Index) -> None:
    """Fill one shard, reading the finer level in parts of one chunk row to bound memory."""
    finer = open_array(level.location, join(level.group, level.source.path))
    coarser = open_array(level.location, join(level.group, level.target.path), writable=True)
    box = level.target_box(index)
    pixels = np.empty([s.stop - s.start for s in box], level.target.dtype)
    row = level.halved[0]
    step = level.target.chunk[row]
    for start in range(box[row].start, box[row].stop, step):
        part = slice(start, min(start + step, box[row].stop))
        part_box = (*box[:row], part, *box[row + 1 :])
        read = _read_finer(level, finer, level.source_box(part_box), index)
        inside = slice(part.start - box[row].start, part.stop - box[row].start)
        pixels[(slice(None),) * row + (inside,)] = downsample(read, level.halved, level.method)
    write_box(coarser, box, pixels)


def _read_finer(level: PyramidLevel, finer: "zarr.Array[Any]", box: Box, index: Index) -> np.ndarray:
    """Pixels of the finer level; if a shard of it is damaged, say which files to delete."""
    try:
        return np.asarray(finer[box])
    except Exception as error:
        files = " or ".join("/".join(["c", *map(str, shard)]) for shard in level.source_shards(index))
        where = join(level.location, level.group, level.source.path)
        raise UnreadableChunkError(
            f"a file of {where} is damaged, {files} ({error}); delete it, so that it is made again"
        ) from error


def build_pyramid(
    location: str,
    group: str,
    arrays: list[ArraySpec],
    halved: str,
    method: Method,
    *,
    client: "Client | None" = None,
    on_shard: Callable[[], None] | None = None,
) -> int:
    """Fill all coarser levels of a stored image; shards that are there are left alone.

    Parameters
    ----------
    location, group : str
        Store, and the multiscale group in it.
    arrays : list of ArraySpec
        Levels, finest first.
    halved : str
        Axes that each level halves, e.g. "yx".
    method : {"nearest", "local_mean"}
        See `downsample`.
    client : Client, optional
        Where to run.
    on_shard : callable, optional
        Called after each shard.

    Returns
    -------
    int
        Shards written.

    Raises
    ------
    IncompleteError
        If shards failed twice, naming them, after all others that can be made are made. At once if none can be written.
    """
    written, failures = 0, list[Failure]()
    for source, target in itertools.pairwise(arrays):
        axes = tuple(axis for axis, name in enumerate(source.axes) if name in halved)
        level = PyramidLevel(location, group, source, target, axes, method)
        run_shard = functools.partial(run_level_shard, level)
        try:
            for _ in run_all(client, run_shard, level.pending(), level.name_file):
                written += 1
                if on_shard is not None:
                    on_shard()
        except TasksFailedError as failed:  # the next level makes all shards that do not need the failed ones
            failures += failed.failures
    if failures:
        raise explain_failures(failures)
    return written
