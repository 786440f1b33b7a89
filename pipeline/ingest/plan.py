"""How microscope files become OME-Zarr, decided from metadata: levels, shards, calibration, memory, provenance."""

import hashlib
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segment_slide.pipeline.blocks.array_spec import ArraySpec
from segment_slide.pipeline.blocks.grid import ceil_divide
from segment_slide.pipeline.errors import InputError, PlanError
from segment_slide.pipeline.ingest.formats import count_left_out, list_files, open_reader
from segment_slide.pipeline.ingest.options import IngestOptions
from segment_slide.pipeline.ingest.record import IngestedFrom, IngestParameters, IngestRecord
from segment_slide.pipeline.limits.zarr_json import MOST_PIXELS
from segment_slide.pipeline.readers.reader import ImageInfo, Reader
from segment_slide.pipeline.storage import ome
from segment_slide.pipeline.storage.pyramid import calibrate
from segment_slide.pipeline.storage.record import Results, code_version

MiB = 1 << 20
MAX_CACHE_BYTES = 1024 * MiB  # a row of strips of a slide 100,000 px wide, RGB, is 600 MiB
ALLOCATOR = 2  # memory kept over memory used: up to 1.8 was measured, because freed memory stays with the thread
SAMPLE_BYTES, N_SAMPLES = 1 << 16, 64  # what a fingerprint reads of a large file

# Stored dtype for each dtype that is read. Integers are kept exactly, even those that some viewers refuse (int64).
# bool and float16 become the smallest dtype that every viewer shows. float64 loses digits that no detector measures.
STORED_DTYPE = {"bool": "uint8", "float16": "float32", "float32": "float32", "float64": "float32"} | {
    f"{sign}int{bits}": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)
}
_UNIT = {"t": "second", "z": "micrometer", "y": "micrometer", "x": "micrometer"}


@dataclass(frozen=True)
class IngestPlan:
    """All of an ingest, decided from metadata alone.

    Attributes
    ----------
    files : tuple of str
        Absolute paths, in the order of the stack.
    options : IngestOptions
        As chosen.
    image : ImageInfo
        What the reader says: axes, shape, calibration, notes.
    levels : tuple of ArraySpec
        Arrays to write, finest first.
    multiscale : Multiscale
        Axes, units, scales and translations of the levels.
    record : IngestRecord
        The output's provenance: input, parameters, code.
    """

    files: tuple[str, ...]
    options: IngestOptions
    image: ImageInfo
    levels: tuple[ArraySpec, ...]
    multiscale: ome.Multiscale
    record: IngestRecord

    @property
    def axes(self) -> str:
        """Subset of "tczyx"."""
        return self.image.axes

    @property
    def shape(self) -> tuple[int, ...]:
        """Pixels per axis."""
        return self.image.shape

    @property
    def dtype(self) -> str:
        """As stored."""
        return self.levels[0].dtype

    @property
    def n_shards(self) -> int:
        """Files to write, all levels."""
        return sum(level.n_shards for level in self.levels)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know before running."""
        return self.record.notes

    @property
    def cache_bytes(self) -> int:
        """Decoded tiles or strips to keep, so that neighbouring shards need not decode them again."""
        cover = self.image.cover_bytes(self.options.shard, self.options.shard)
        return max(min(cover, MAX_CACHE_BYTES), self.image.segment_bytes)

    def peak_bytes(self, threads: int = 1) -> int:
        """Memory that `run_ingest` needs at most, beyond Python and its libraries.

        Per thread: the shard as read, converted and encoded, and the segment being decoded; or, in the pyramid, a
        row of chunks of the finer level with its sums, and the shard.
        """
        level = self.levels[0]
        pixels = math.prod(min(a, b) for a, b in zip(level.shard, level.shape, strict=True))
        itemsize = np.dtype(level.dtype).itemsize
        reading = pixels * (np.dtype(self.image.dtype).itemsize + 2 * itemsize) + 2 * self.image.segment_bytes
        row_pixels = pixels * 4 * self.options.chunk // self.options.shard
        halving = 3 * pixels * itemsize + row_pixels * (itemsize + (8 if itemsize <= 2 else 12))
        return int(ALLOCATOR * threads * max(reading, halving)) + self.cache_bytes


def plan_ingest(
    sources: str | Path | Sequence[str | Path],
    options: IngestOptions | None = None,
    *,
    memory_bytes: int | None = None,
) -> IngestPlan:
    """Decide how a file, several files or a folder become OME-Zarr; reads metadata and a fingerprint, no pixels.

    Parameters
    ----------
    sources : path or sequence of path
        A TIFF (BigTIFF, OME-TIFF, ImageJ, SVS, NDPI), a PNG or JPEG, a slide that OpenSlide opens, or what `bioio`
        opens; or the pages of a stack, as files or a folder, put in natural order (img2 before img10).
    options : IngestOptions, optional
        Choices.
    memory_bytes : int, optional
        Refuse a plan that needs more than this with one thread.

    Raises
    ------
    InputError
        If the input is missing, is not an image, or holds pixels that cannot be stored.
    PlanError
        If the chunk does not divide the shard, or memory does not suffice.
    """
    options = options or IngestOptions()
    _check_sizes(options)
    paths = [sources] if isinstance(sources, str | Path) else list(sources)
    files = list_files(paths)
    with closing(open_source(files, options)) as reader:
        image = reader.info
    if image.dtype not in STORED_DTYPE:
        raise InputError(f"input={files[0]}: dtype={image.dtype}, expected integers or real numbers of up to 8 bytes.")
    if math.prod(image.shape) > MOST_PIXELS:
        raise InputError(
            f"input={files[0]}: shape={image.shape} has {math.prod(image.shape):,} pixels, expected at most "
            f"{MOST_PIXELS:,}. The file's header is damaged."
        )
    pixel_size = _choose_pixel_size(image, options)
    levels = _plan_levels(image, options)
    record = _make_record(files, paths, image, options, pixel_size)
    name = options.name or Path(record.ingested_from.name).stem.removesuffix(".companion").removesuffix(".ome")
    plan = IngestPlan(files, options, image, levels, _calibrate(name, image, pixel_size, len(levels)), record)
    needed = plan.peak_bytes()
    if memory_bytes is not None and needed > memory_bytes:
        raise PlanError(
            f"ingest needs {needed / MiB:.0f} MiB with one thread (of which {plan.cache_bytes / MiB:.0f} MiB for what "
            f"the file decodes at once), but memory is {memory_bytes / MiB:.0f} MiB; choose a shard below "
            f"{options.shard} px, or give it more memory."
        )
    return plan


def _check_sizes(options: IngestOptions) -> None:
    chunk, shard = options.chunk, options.shard
    if chunk < 1 or shard < chunk or shard % chunk:
        nearest = max(shard // max(chunk, 1), 1) * max(chunk, 1)
        raise PlanError(
            f"shard={shard} px is not a multiple of chunk={chunk} px; a shard is a file of whole chunks. "
            f"Nearest: {nearest}, {nearest + max(chunk, 1)}."
        )


def open_source(files: tuple[str, ...], options: IngestOptions, cache_bytes: int = 0) -> Reader:
    """Open the files with the reader that the plan was made with."""
    return open_reader(
        files,
        series=options.series,
        axes=options.axes,
        stack_axis=options.stack_axis,
        cache_bytes=cache_bytes,
    )


def _choose_pixel_size(image: ImageInfo, options: IngestOptions) -> tuple[float | None, ...]:
    sizes = dict(zip(image.axes, image.pixel_size, strict=True)) | dict(options.pixel_size)
    wrong = {axis: size for axis, size in options.pixel_size.items() if axis not in _UNIT or not 0 < size < math.inf}
    if wrong:
        raise InputError(f"pixel_size={wrong}: expected positive um by axis z, y, x (s for t).")
    return tuple(sizes.get(axis) for axis in image.axes)


def _plan_levels(image: ImageInfo, options: IngestOptions) -> tuple[ArraySpec, ...]:
    """Arrays, each half the last along y and x, down to one that fits a chunk."""

    def box(size: int) -> tuple[int, ...]:
        # the samples of a colour share a chunk (viewers need all three); other channels and planes have their own
        return tuple(size if axis in "yx" else 3 if axis == "c" and image.is_rgb else 1 for axis in image.axes)

    n_levels = 1 + max(0, math.ceil(math.log2(max(image.shape[-2:]) / options.chunk)))
    dtype = STORED_DTYPE[image.dtype]
    levels, shape = [], image.shape
    for number in range(n_levels):
        levels.append(ArraySpec(str(number), shape, box(options.shard), box(options.chunk), dtype, image.axes))
        shape = (*shape[:-2], *(ceil_divide(size, 2) for size in shape[-2:]))
    return tuple(levels)


def _calibrate(name: str, image: ImageInfo, pixel_size: tuple[float | None, ...], n_levels: int) -> ome.Multiscale:
    units = tuple(_UNIT[axis] if size else None for axis, size in zip(image.axes, pixel_size, strict=True))
    finest = ome.Level("0", tuple(size or 1.0 for size in pixel_size), (0.0,) * len(pixel_size))
    return calibrate(name, image.axes, units, finest, n_levels, "local_mean", "yx")


def _make_record(
    files: tuple[str, ...],
    paths: Sequence[str | Path],
    image: ImageInfo,
    options: IngestOptions,
    pixel_size: tuple[float | None, ...],
) -> IngestRecord:
    """What determines the bytes of the output: which input, which choices, which code."""
    name = os.path.basename(os.path.abspath(paths[0]) if len(paths) == 1 else os.path.dirname(files[0]))
    ingested_from = IngestedFrom(
        name=name,
        n_files=len(image.files),
        size_bytes=sum(os.path.getsize(path) for path in image.files),
        fingerprint=fingerprint_files(image.files),
    )
    parameters = IngestParameters(
        series=options.series,
        name=options.name,
        axes=image.axes,
        shape=tuple(image.shape),
        dtype=STORED_DTYPE[image.dtype],
        pixel_size=pixel_size,
        chunk=options.chunk,
        shard=options.shard,
        decoding=image.decoding,
    )
    notes = [*image.notes, *_note_half(dict(zip(image.axes, pixel_size, strict=True)))]
    if parameters.dtype != image.dtype:
        notes.append(f"{image.dtype} is stored as {parameters.dtype}")
    left_out = count_left_out(os.path.expanduser(paths[0]))
    if left_out:
        notes.append(f"{left_out} JPEG file(s) of the folder are left out: its other images are taken for pages")
    return IngestRecord(ingested_from, parameters, code_version(), Results.INGEST, tuple(notes))


def _note_half(sizes: Mapping[str, float | None]) -> list[str]:
    """Say that one of the two sizes of a pixel is missing: viewers then stretch the image."""
    unknown = [axis for axis in "yx" if sizes[axis] is None]
    if len(unknown) != 1:
        return []
    known = "x" if unknown == ["y"] else "y"
    says = f"the pixel size along {unknown[0]} is not known, and along {known} it is {sizes[known]:g} um"
    return [f"{says}: viewers may stretch the image; set both with `pixel_size`"]


def fingerprint_files(files: Iterable[str]) -> str:
    """sha256 over the names, sizes and contents of files; of a large file, over 64 samples of 64 KiB.

    Samples are enough to tell slides apart, so a slide is not read twice. The limit: a change between two samples is
    not noticed if the file's size stays the same.
    """
    digest = hashlib.sha256()
    for path in files:
        size = os.path.getsize(path)
        digest.update(f"{os.path.basename(path)} {size}\n".encode(errors="surrogateescape"))
        with open(path, "rb") as file:
            if size <= SAMPLE_BYTES * N_SAMPLES:
                digest.update(file.read())
                continue
            for number in range(N_SAMPLES):
                file.seek(number * (size - SAMPLE_BYTES) // (N_SAMPLES - 1))
                digest.update(file.read(SAMPLE_BYTES))
    return f"sampled-sha256:{digest.hexdigest()}"
