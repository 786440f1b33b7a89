"""What the commands print: plans, reports, and what lies at a path."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from segment_slide.flows.progress import format_rate, format_seconds
from segment_slide.flows.show.tables import _sizes, _sizes_um, describe_state, make_table, show_how_to_look
from segment_slide.flows.show.wording import in_options
from segment_slide.pipeline.blocks.memory import format_bytes

if TYPE_CHECKING:
    from segment_slide.cluster.spec import ClusterSpec
    from segment_slide.flows.ingest import IngestReport
    from segment_slide.pipeline.segmentation.plan import SegmentPlan
    from segment_slide.pipeline.segmentation.stages import SegmentReport
    from segment_slide.pipeline.storage.image import StoredImage
    from segment_slide.pipeline.storage.label_records import InstancesRecord, SegmentationRecord
    from segment_slide.unet.checkpoint import Checkpoint
    from segment_slide.unet.normalisation import Intensities
    from segment_slide.unet.object_defaults import ObjectDefaults


def show_plan(console: Console, plan: "SegmentPlan", cluster: "ClusterSpec") -> None:
    """Print what a segmentation will take, and what a few pixels of the image tell."""
    from segment_slide.pipeline.statistics.degenerate import note_plan

    grid, memory, image = plan.grid, plan.memory, plan.source.image
    spatial = slice(grid.n_planes_axes, None)
    shard_bytes = sum(
        spec.n_shards * _volume(spec.shard) * (4 if spec.dtype == "float32" else 1)
        for spec in plan.label_arrays() + plan.probability_arrays()
    )
    rows = {
        "input": f"{image.location}, {_sizes(grid.shape)} px ({plan.source.axes}), {image.dtype}, "
        f"{len(plan.source.channels)} channel(s)",
        "network": f"{plan.network.summary}, {plan.network.n_parameters:,} parameters, {plan.parameters.precision}",
        "halo": f"{grid.geometry.halo} px per side; tiles start at multiples of {grid.geometry.stride} px",
        "tile": f"{_sizes(plan.tile_px)} px, one pass of the network",
        "block": f"{_sizes(grid.block[spatial])} px, one task and one file; {grid.n_blocks:,} blocks",
        "windows": f"{plan.n_windows:,} of {_sizes(plan.window_blocks)} blocks, at most "
        f"{plan.n_tasks_per_window:,} Dask tasks each",
        "scheduling": f"{format_seconds(plan.scheduling_s)} of one core; more workers do not shorten it, "
        "larger blocks do",
        "files": f"{plan.n_files:,}, at most {format_bytes(shard_bytes)} before compression",
        "operations": f"{plan.flops / 1e12:,.1f} TFLOP "
        f"({plan.flops / max(1, _volume(grid.shape)) / 1e6:.2f} MFLOP per pixel)",
        "workers": f"{cluster.workers} of {cluster.cores} core(s), {format_bytes(cluster.memory_bytes or 0)} each",
        "memory": f"at most {format_bytes(memory.total_bytes)} per worker: "
        f"process {format_bytes(memory.process_bytes)}, "
        f"model {format_bytes(memory.model_bytes)}, forward passes {format_bytes(memory.forward_bytes)}, "
        f"blocks {format_bytes(memory.blocks_bytes)}, windows {format_bytes(memory.windows_bytes)}",
    }
    console.print(make_table("Plan", rows))
    for note in note_plan(plan.source):
        console.print(f"Note: {note}.", markup=False)


def _volume(sizes: tuple[int, ...]) -> int:
    volume = 1
    for size in sizes:
        volume *= size
    return volume


def show_report(console: Console, report: "SegmentReport") -> None:
    """Print what a run did and how to look at it."""
    if report.n_done_before:
        console.print(f"Went on: {report.n_done_before} of {report.n_blocks} blocks were already done.")
    background = f", {report.n_background} of them background" if report.n_background else ""
    stages = ", ".join(f"{name} {format_seconds(seconds)}" for name, seconds in report.stage_seconds.items())
    console.print(
        f"[bold green]Done:[/] {report.n_blocks} blocks{background} in {format_seconds(report.seconds)} "
        f"({stages}), {format_rate(report.pixels_per_s)}",
        highlight=False,
    )
    console.print(f"Labels: {escape(report.location)}/labels/{escape(report.name)}", highlight=False, soft_wrap=True)
    show_how_to_look(console, report.location)


def show_ingest(console: Console, report: "IngestReport") -> None:
    """Print what an ingest found and made."""
    plan = report.plan
    for note in plan.notes:
        console.print(f"[yellow]Note:[/] {escape(in_options(note))}", highlight=False)
    kept = plan.n_shards - report.n_written
    console.print(
        f"[bold green]Done:[/] {_sizes(plan.shape)} px ({plan.axes}), {plan.dtype}, {len(plan.levels)} level(s), "
        f"{report.n_written} file(s) written{f', {kept} kept' if kept else ''} in {format_seconds(report.seconds)}",
        highlight=False,
    )
    console.print(f"Image: {escape(report.location)}", highlight=False, soft_wrap=True)


def show_info(console: Console, path: str) -> None:
    """Print what lies at a path: an image, a segmentation, a table, a checkpoint, training data, a night's outputs."""
    from segment_slide.flows.show.training import show_training_info
    from segment_slide.pipeline.errors import InputError
    from segment_slide.pipeline.storage.complete import judge_image
    from segment_slide.pipeline.storage.image import describe_image
    from segment_slide.pipeline.storage.place import read_label_names
    from segment_slide.pipeline.storage.record import read_mark
    from segment_slide.pipeline.storage.store import is_zarr, read_attributes, resolve_location
    from segment_slide.pipeline.zarr_stores.archive import is_archive_name

    location = resolve_location(path)
    if Path(location).is_file() and not is_zarr(location) and not is_archive_name(location):
        _show_model(console, Path(location))
        return
    axes = None
    attributes = read_attributes(location) if is_zarr(location) or os.path.isdir(location) else None
    if attributes is None and os.path.isdir(location) and not is_zarr(location) and _show_folder(console, location):
        return
    if attributes is None:
        axes = _guess_axes(location)
    elif show_training_info(console, location, read_mark(location).kind):
        return
    image = describe_image(location, axes=axes)
    _show_image(console, image, describe_state(judge_image(image)))
    notes: list[str] = []
    for name in read_label_names(location, notes):
        try:
            _show_labels(console, location, name)
        except InputError as error:
            notes.append(f"labels/{name} is listed, but cannot be opened: {error}")
    for note in notes:
        console.print(note, markup=False)


def _show_folder(console: Console, location: str) -> bool:
    """Print how much of a table or of a night's outputs is there; False if a folder is neither."""
    from segment_slide.pipeline.completeness.judge import find_outputs, is_table, judge

    if is_table(location):
        console.print(make_table(f"Table {location}", describe_state(judge(location))))
        return True
    outputs = find_outputs(location)
    if outputs:
        rows = {"outputs": f"{len(outputs):,}", **describe_state(judge(location))}
        console.print(make_table(f"Outputs of segment-new {location}", rows))
    return bool(outputs)


def _guess_axes(location: str) -> str | None:
    """Guess the axes of a bare array, only to describe it; a segmentation never guesses. None if it is no array."""
    from segment_slide.pipeline.errors import InputError
    from segment_slide.pipeline.limits.failures import NOT_FOUND
    from segment_slide.pipeline.storage.store import open_array
    from segment_slide.pipeline.zarr_stores.archive import is_archive_name

    try:
        return "tczyx"[-open_array(location).ndim :]
    except NOT_FOUND as error:
        if is_archive_name(location) or os.path.isdir(location):
            return None
        raise InputError(f"input={location}: neither a checkpoint nor Zarr ({error}).") from error
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"input={location}: neither a checkpoint nor Zarr ({error}).") from error


def _show_model(console: Console, path: Path) -> None:
    if path.suffix == ".onnx":
        from segment_slide.flows.show.networks import show_network
        from segment_slide.unet.engines.onnx_network import open_onnx

        show_network(console, open_onnx(path))
        return
    from segment_slide.unet.checkpoint import open_checkpoint

    _show_checkpoint(console, open_checkpoint(path))


def _show_checkpoint(console: Console, checkpoint: "Checkpoint") -> None:
    config = checkpoint.config
    architecture, normalisation = config.architecture, config.normalisation
    rows = {
        "network": f"U-Net {architecture.ndim}D, depth {architecture.depth}, base {architecture.base_channels}, "
        f"{architecture.n_parameters:,} parameters",
        "input": f"{architecture.in_channels} channel(s) {', '.join(config.channel_names)}",
        "classes": ", ".join(f"{value} {name}" for value, name in enumerate(config.classes)),
        "normalisation": f"{normalisation.kind} {normalisation.offset or ''} {normalisation.scale or ''}".rstrip(),
        "pixel size": f"{_sizes_um(config.pixel_size_um)}",
        **_describe_intensities(config.intensities),
        **_describe_objects(config.objects),
        "sha256": checkpoint.sha256,
        **{f"training {key}": str(value) for key, value in sorted(config.training.items())},
    }
    console.print(make_table(f"Checkpoint {checkpoint.path}", rows))


def _describe_intensities(intensities: "Intensities | None") -> dict[str, str]:
    """What the training images looked like."""
    if intensities is None:
        return {}
    shown = ", ".join(f"{channel.low[0]:.4g} to {channel.high[2]:.4g}" for channel in intensities.channels)
    return {"trained on": f"{', '.join(intensities.dtypes)}, intensities {shown}, {intensities.n_images} image(s)"}


def _show_image(console: Console, image: "StoredImage", state: dict[str, str]) -> None:
    from segment_slide.pipeline.storage.calibration import note_sizes

    level = image.multiscale.levels[image.level]
    scale = ", ".join(
        f"{axis} {step:g} {unit or ''}".rstrip()
        for axis, step, unit in zip(image.axes, level.scale, image.multiscale.units, strict=True)
    )
    not_used = note_sizes(image)
    rows = {
        "shape": f"{_sizes(image.shape)} ({image.axes}), {image.dtype}",
        "files of": f"{_sizes(image.chunks)} px",
        **state,
        "levels": str(len(image.multiscale.levels)),
        "step": scale,
        **({"not used": "; ".join(not_used)} if not_used else {}),
        "channels": ", ".join(image.multiscale.channel_names) or str(image.size("c")),
        "format": f"{'OME-Zarr' if image.is_ome else 'bare Zarr array'}, Zarr format {image.zarr_format}",
    }
    console.print(make_table(f"Image {image.location}", rows))


def _describe_objects(objects: "ObjectDefaults | None") -> dict[str, str]:
    """What a checkpoint recommends for objects."""
    if objects is None:
        return {}
    split = f"split {objects.split:g} px" if objects.split else ""
    return {"objects": ", ".join(filter(None, (objects.min_size and f"min_size {objects.min_size}", split)))}


def _show_labels(console: Console, location: str, name: str) -> None:
    from segment_slide.pipeline.errors import OutputError
    from segment_slide.pipeline.storage.complete import count_files
    from segment_slide.pipeline.storage.image import describe_image
    from segment_slide.pipeline.storage.label_records import read_label_record
    from segment_slide.pipeline.storage.sections import write_section
    from segment_slide.pipeline.storage.store import join

    image = describe_image(join(location, "labels", name))
    rows = {"shape": f"{_sizes(image.shape)} ({image.axes}), {image.dtype}"}
    try:
        record = read_label_record(image.location)
    except OutputError as error:
        record, rows["record"] = None, str(error)
    if record is not None:
        blocks = count_files(image)
        go_on = "; run the same command again to go on" if blocks.n_missing else ""
        rows |= {
            "blocks": f"{blocks.n_done} of {blocks.n_files} done{go_on}",
            **_describe_record(record, image.location.rpartition("/labels/")[0]),
            "parameters": ", ".join(f"{key} {value}" for key, value in write_section(record.parameters).items()),
        }
        if record.code is not None:
            rows["code"] = f"{record.code.name} {record.code.version}"
    console.print(make_table(f"Labels {name}", rows))


def _describe_record(record: "SegmentationRecord | InstancesRecord", output: str) -> dict[str, str]:
    """What classes were segmented with, or what objects were found in."""
    from segment_slide.pipeline.storage.label_records import InstancesRecord
    from segment_slide.pipeline.storage.names import find_location

    if isinstance(record, InstancesRecord):
        count = record.n_objects
        found = "not all written; run the same command again to go on" if count is None else f"{count:,}"
        chosen = {"from the model": ", ".join(record.from_model)} if record.from_model else {}
        return {
            "objects": found,
            "input": f"{find_location(record.input.location, output)}/{record.input.array or ''}",
            **chosen,
        }
    rows = {}
    if record.input is not None:
        rows["input"] = f"{find_location(record.input.location, output)} level {record.input.level or 0}"
    if record.model is not None:
        rows["model"] = f"{record.model.path} (sha256 {record.model.sha256[:12]}…)"
    if record.processors:
        rows["processors"] = "; ".join(use.text for use in record.processors)
    for number, note in enumerate(record.normalisation.notes if record.normalisation else (), start=1):
        rows[f"note {number}"] = in_options(note)
    return rows
