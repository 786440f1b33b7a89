"""Microscope files to OME-Zarr 0.5 with a pyramid: decided first (`plan_ingest`), then written shard by shard.

Neither the slide nor one of its levels is ever in memory as a whole. A shard that is stored is done, so an interrupted
ingest goes on where it stopped. Equal inputs give equal bytes.
"""

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from segment_slide.pipeline.blocks.array_spec import ArraySpec
from segment_slide.pipeline.blocks.attempts import try_in_threads
from segment_slide.pipeline.blocks.grid import Index, ceil_divide
from segment_slide.pipeline.blocks.progress import QuietStages
from segment_slide.pipeline.blocks.tasks import explain_failures, run_all
from segment_slide.pipeline.errors import (
    ChunkAccessError,
    Failure,
    InputError,
    MissingError,
    OutputError,
    PipelineError,
    TasksFailedError,
    UnreadableChunkError,
)
from segment_slide.pipeline.ingest.options import IngestOptions
from segment_slide.pipeline.ingest.plan import IngestPlan, open_source, plan_ingest
from segment_slide.pipeline.ingest.record import IngestRecord, read_ingest_record
from segment_slide.pipeline.manifest.compare import is_intact
from segment_slide.pipeline.manifest.homes import Made
from segment_slide.pipeline.manifest.manifest import FILE as MANIFEST
from segment_slide.pipeline.manifest.sealing import sealing
from segment_slide.pipeline.metadata.junk import is_junk
from segment_slide.pipeline.readers.reader import Reader
from segment_slide.pipeline.storage import files, ome, store
from segment_slide.pipeline.storage.files import list_files
from segment_slide.pipeline.storage.lock import LOCK_NAME
from segment_slide.pipeline.storage.place import exclusive
from segment_slide.pipeline.storage.pyramid import PyramidLevel, run_level_shard
from segment_slide.pipeline.storage.record import ATTRIBUTE, compare_records, read_ome
from segment_slide.pipeline.storage.sections import write_section
from segment_slide.pipeline.zarr_stores.written import NOTES_NAME, is_scratch

__all__ = ["IngestOptions", "IngestPlan", "plan_ingest", "run_ingest"]

_RGB_COLOURS = ("FF0000", "00FF00", "0000FF")
_COLOURS = ("FFFFFF", "00FF00", "FF00FF", "00FFFF", "FFFF00", "FF0000", "0000FF")


def run_ingest(
    plan: IngestPlan,
    output: str | Path,
    *,
    threads: int = 2,
    on_progress: Callable[[int, int], None] | None = None,
) -> int:
    """Write what was planned, or what is still missing of it.

    Parameters
    ----------
    plan : IngestPlan
        From `plan_ingest`.
    output : path or URL
        The OME-Zarr group, by convention ``NAME.ome.zarr``.
    threads : int
        Shards that are processed at a time.
    on_progress : callable, optional
        Called with (shards done, shards in all); the first call counts the shards that were there.

    Returns
    -------
    int
        Shards written; 0 if the output was complete.

    Raises
    ------
    OutputError
        If something else is at the output, or it cannot be written.
    OutputMismatchError
        If the output was begun from another input, with other parameters or other code.
    UnreadableChunkError
        If a part of the input cannot be decoded; all shards that do not need it are written.
    IncompleteError
        If parts failed twice for another reason, naming them; all others are written.
    """
    location = store.resolve_location(output)
    report = on_progress or (lambda _done, _total: None)
    made = Made(location, tuple(level.path for level in plan.levels), ("zarr.json",))
    if _is_complete(plan, location, _find(plan, location)) and _is_as_written(made):
        _clear_up(location)
        report(plan.n_shards, plan.n_shards)
        return 0
    with exclusive(location, ""), sealing(made, None, QuietStages()):
        return _run(plan, location, threads, report)


def _run(plan: IngestPlan, location: str, threads: int, report: Callable[[int, int], None]) -> int:
    begun = _find(plan, location)  # re-check after taking the lock: another process may have begun or finished it
    if begun is None:
        attributes = {"ome": ome.multiscale_attributes(plan.multiscale), ATTRIBUTE: write_section(plan.record)}
        store.create_group(location, "", plan.levels, attributes)
    store.remove_leftovers(location, "")
    if begun is not None:
        compare_records(begun, plan.record, location, what="an ingest")
    n_done, written = _count_stored(plan, location), 0
    report(n_done, plan.n_shards)
    if n_done < plan.n_shards:
        for written, _ in enumerate(_write_levels(plan, location, threads), 1):
            report(n_done + written, plan.n_shards)
    _add_channels(plan, location)
    return written


def _clear_up(location: str) -> None:
    """Remove what a run left that was killed after its last shard; a run that still holds the lock does it itself."""
    if not store.is_remote(location) and Path(location, LOCK_NAME).exists():
        with suppress(OutputError), exclusive(location, ""):
            store.remove_leftovers(location, "")


def _find(plan: IngestPlan, location: str) -> IngestRecord | None:
    """Record of the output if this plan, with whatever number of results, began it; None if nothing is there."""
    if not store.is_remote(location) and store.is_file(location):
        raise OutputError(f"output={location} is a file; expected a new directory, by convention NAME.ome.zarr.")
    try:
        found = store.read_attributes(location)
    except PipelineError as error:
        raise OutputError(f"output={location} holds something else ({error}); choose another.") from error
    if found is None:
        if store.is_occupied(location) and not _is_half_created(plan, location):
            raise OutputError(f"output={location} holds something else; expected a new directory. Choose another.")
        return None
    record = read_ingest_record(location)
    if record is None:
        if _is_half_described(plan, location, found):
            return None
        raise OutputError(f"output={location} is a Zarr group that ingest did not write; choose another.")
    compare_records(record, replace(plan.record, results=record.results), location, what="an ingest")
    return record


def _is_complete(plan: IngestPlan, location: str, begun: IngestRecord | None) -> bool:
    """Whether nothing is left to do; then the number of results does not matter."""
    if begun is None or ("c" in plan.axes and not _has_channels(location)):
        return False
    return _count_stored(plan, location) == plan.n_shards


def _is_as_written(made: Made) -> bool:
    """Whether each byte is as it was written; true for images of older versions, which have no manifest."""
    if files.exists(store.join(made.location, NOTES_NAME)):
        return False  # killed at the end
    return not files.exists(store.join(made.location, MANIFEST)) or is_intact(made.location, made.folders, made.files)


def _has_channels(location: str) -> bool:
    """Whether the channels are there; they are written last."""
    return "omero" in read_ome(location)


def _count_stored(plan: IngestPlan, location: str) -> int:
    return sum(len(store.stored_shards(location, level.path)) for level in plan.levels)


def _is_half_created(plan: IngestPlan, location: str, *more: str) -> bool:
    """Whether a killed run left only (some of) the arrays' metadata, and `more` files."""
    ours = {LOCK_NAME, *more, *(f"{level.path}/zarr.json" for level in plan.levels)}
    return all(
        file in ours or file.endswith(".partial") or is_junk(file) or is_scratch(file) for file in list_files(location)
    )


def _is_half_described(plan: IngestPlan, location: str, found: Mapping[str, Any]) -> bool:
    """Whether a killed run of an earlier version left a group without all its attributes: they were written one by one.

    It is ours if it holds nothing but what this plan would write into it, and no pixel.
    """
    if found and found != {"ome": ome.multiscale_attributes(plan.multiscale)}:
        return False
    return _is_half_created(plan, location, "zarr.json") and all(
        _is_as_created(location, level) for level in plan.levels
    )


def _is_as_created(location: str, level: ArraySpec) -> bool:
    """Whether an array is as this plan makes it, or is not there yet."""
    try:
        array = store.open_array(location, level.path)
    except MissingError:
        return True
    except InputError:
        return False
    found = (array.shape, array.shards, array.chunks, str(array.dtype), dict(array.attrs))
    return found == (level.shape, level.shard, level.chunk, level.dtype, {})


def _write_levels(plan: IngestPlan, location: str, threads: int) -> Iterator[None]:
    """Write what is missing, level by level; yields after each shard."""
    failures: list[Failure] = []
    with closing(open_source(plan.files, plan.options, plan.cache_bytes)) as reader:
        if reader.info != plan.image:
            raise InputError(f"input={plan.files[0]} is no longer what was planned; plan again.")
        done = store.stored_shards(location, plan.levels[0].path)
        missing = (index for index in _shard_indices(plan.levels[0]) if index not in done)
        write = functools.partial(_write_shard, reader, plan.levels[0], location)
        yield from _run_all(write, missing, _name, threads, failures)
    for finer, coarser in itertools.pairwise(plan.levels):
        halved = (len(plan.axes) - 2, len(plan.axes) - 1)
        level = PyramidLevel(location, "", finer, coarser, halved, "local_mean")
        yield from _run_all(
            functools.partial(run_level_shard, level), level.pending(), level.name_file, threads, failures
        )
    if failures:
        failed = explain_failures(failures)
        raise failed if failed.fault_of_input is None else failed.fault_of_input.error


def _name(index: Index) -> str:
    return f"file {'/'.join(map(str, index))}"


def _run_all(
    function: Callable[[Index], None],
    indices: Iterable[Index],
    name: Callable[[Index], str],
    threads: int,
    failures: list[Failure],
) -> Iterator[None]:
    """Yield after each shard; add shards that failed twice to `failures` and go on, as others can do without them."""
    try:
        first_tries = try_in_threads(function, indices, threads)
        for _ in run_all(None, function, (), name, first_tries=first_tries):
            yield
    except TasksFailedError as failed:
        failures += failed.failures


def _shard_indices(level: ArraySpec) -> Iterator[Index]:
    """Shards in raster order: neighbours share strips and tiles, decoded once while they are in the cache."""
    return itertools.product(*(range(ceil_divide(a, b)) for a, b in zip(level.shape, level.shard, strict=True)))


def _write_shard(reader: Reader, level: ArraySpec, location: str, index: Index) -> None:
    box = tuple(
        slice(i * shard, min((i + 1) * shard, size))
        for i, shard, size in zip(index, level.shard, level.shape, strict=True)
    )
    try:
        values = reader.read(box)
    except (UnreadableChunkError, OSError) as error:
        kind = ChunkAccessError if isinstance(error, OSError) and error.errno is not None else UnreadableChunkError
        region = ", ".join(f"{axis} {part.start}:{part.stop}" for axis, part in zip(level.axes, box, strict=True))
        raise kind(f"region ({region}) cannot be read: {error}. What is done is kept.") from error
    array = store.open_array(location, level.path, writable=True)
    store.write_box(array, box, values.astype(level.dtype, copy=False))


def _add_channels(plan: IngestPlan, location: str) -> None:
    """Write names, colours and brightness of channels, for viewers ("omero"); last, because brightness is measured.

    It is measured on the middle plane of the coarsest level. With a dtype's full range, the image of a 12-bit camera
    would look black.
    """
    if "c" not in plan.axes:
        return
    at, names = plan.axes.index("c"), plan.image.channel_names
    coarsest = store.open_array(location, plan.levels[-1].path)
    channels = []
    for number in range(plan.shape[at]):
        middle = {"t": 0, "c": number, "z": plan.shape[plan.axes.index("z")] // 2 if "z" in plan.axes else 0}
        plane = np.asarray(coarsest[tuple(middle.get(axis, slice(None)) for axis in plan.axes)])
        palette = _RGB_COLOURS if plan.image.is_rgb else _COLOURS
        channels.append(
            {
                "label": names[number] if names else f"channel {number}",
                "color": palette[number % len(palette)],
                "active": True,
                "window": _choose_window(plane),
            }
        )
    store.update_attributes(location, "", {"ome": ome.multiscale_attributes(plan.multiscale, channels)})


def _choose_window(plane: np.ndarray) -> dict[str, float]:
    """Brightness range: all of uint8, else from the smallest to the largest value of a plane."""
    if plane.dtype == np.uint8:
        return {"min": 0, "max": 255, "start": 0, "end": 255}
    finite = plane[np.isfinite(plane)]
    start, end = (finite.min().item(), finite.max().item()) if finite.size else (0, 1)
    if plane.dtype.kind == "f":
        return {"min": start, "max": end, "start": start, "end": end}
    limits = np.iinfo(plane.dtype)
    return {"min": limits.min, "max": limits.max, "start": start, "end": end}
