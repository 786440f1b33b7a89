"""All steps on a synthetic slide: draw, train, segment, count, evaluate, show. This is ``segment-slide demo``.

The network learns from patches of one synthetic slide and is scored on another one, whose truth is exactly known. If
the demo is run again with the same folder, it continues with what is there.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from segment_slide.flows.demo.network import DemoSettings, make_network
from segment_slide.flows.progress import RichStages, format_rate, format_seconds
from segment_slide.flows.show.safe_output import SafeConsole
from segment_slide.flows.show.tables import show_how_to_look
from segment_slide.pipeline.errors import OutputError
from segment_slide.pipeline.synthetic.slide import SyntheticSlide

if TYPE_CHECKING:
    from segment_slide.flows.measure import MeasureReport
    from segment_slide.pipeline.scoring.object_scores import ObjectScores
    from segment_slide.pipeline.scoring.pixel_scores import PixelScores
    from segment_slide.pipeline.segmentation.stages import SegmentReport
    from segment_slide.unet.checkpoint import Checkpoint

__all__ = ["DemoResult", "DemoSettings", "run_demo"]

NAME = "cells"
_ZOOM_PX = 200
_OVERVIEW_PX = 1024
_SMALLEST_CELL_UM2 = 10.0  # a tenth of a usual cell: smaller objects are specks
_TRUTH_COLOUR, _FOUND_COLOUR = "black", "yellow"

Made = TypeVar("Made")


@dataclass(frozen=True)
class DemoResult:
    """What the demo made and how good it is."""

    slide: Path
    model: Path
    segmentation: Path
    table: "MeasureReport"
    overlay: Path
    pixels: "PixelScores"
    objects: "ObjectScores"
    seconds: dict[str, float]


def run_demo(output: Path, settings: DemoSettings | None = None, console: Console | None = None) -> DemoResult:
    """Draw a slide, train on a few patches of another, segment, score and show.

    Parameters
    ----------
    output : Path
        Folder for all files; created if it does not exist.
    settings : DemoSettings, optional
        Sizes and training settings.
    console : Console, optional
        Where to print.

    Raises
    ------
    OutputError
        If the folder cannot be written, or holds the results of other settings.
    """
    settings, console = settings or DemoSettings(), console or SafeConsole()
    output = output.absolute()
    _make_folder(output)
    slide = SyntheticSlide(settings.shape, settings.seed)
    slide_path, model_path = output / "slide.ome.zarr", output / f"{NAME}.safetensors"
    overlay_path, training_path = output / "overlay.png", output / "training"
    seconds: dict[str, float] = {}
    _timed(seconds, "draw", lambda: _draw(slide, slide_path, console))
    progress = RichStages(console)
    trained = _timed(seconds, "train", lambda: make_network(settings, training_path, model_path, progress))
    if trained.steps_before == settings.steps:
        console.print("Network: trained already.")
    report = _timed(seconds, "segment", lambda: _segment(slide_path, trained.checkpoint, output, settings, console))
    segmentation = Path(report.location)
    table = _timed(seconds, "count", lambda: _count(segmentation, console))
    truth, predicted = _read(slide_path, "labels/truth/0"), _read(segmentation, f"labels/{NAME}/0")
    ids = _read(segmentation, f"labels/{NAME}-instances/0")
    pixels, objects = _timed(seconds, "score", lambda: _score(truth, predicted, ids))
    caption = f"IoU {pixels.iou:.3f}; {objects.touching_recall:.1%} of {objects.n_touching:,} touching cells separated"
    _timed(seconds, "overlay", lambda: _show(overlay_path, slide_path, truth, predicted, caption))
    result = DemoResult(slide_path, model_path, segmentation, table, overlay_path, pixels, objects, seconds)
    _print(console, result, report)
    return result


def _timed(seconds: dict[str, float], name: str, run: Callable[[], Made]) -> Made:
    """Run a function and note its wall time."""
    began = time.perf_counter()
    made = run()
    seconds[name] = time.perf_counter() - began
    return made


def _make_folder(output: Path) -> None:
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"output={output} cannot be made: {error}") from error


def _draw(slide: SyntheticSlide, path: Path, console: Console) -> None:
    from segment_slide.cluster.complete import complete_spec
    from segment_slide.cluster.connect import connect
    from segment_slide.cluster.spec import ClusterSpec
    from segment_slide.pipeline.synthetic.stored import count_pending, store_slide

    pending = count_pending(slide, str(path))
    if not pending:
        console.print("Slide: there already.")
        store_slide(slide, str(path))
        return
    cores = complete_spec(ClusterSpec(), short_tasks=True).workers or 1
    cluster = ClusterSpec(workers=min(cores, 4))
    with RichStages(console).stage("draw", total=pending) as advance, connect(cluster) as client:
        store_slide(slide, str(path), client=client, on_shard=advance)


def _segment(
    slide: Path, checkpoint: "Checkpoint", output: Path, settings: DemoSettings, console: Console
) -> "SegmentReport":
    from segment_slide.flows.requests import SegmentRequest
    from segment_slide.flows.segment import segment_image
    from segment_slide.pipeline.segmentation.options import SegmentOptions

    request = SegmentRequest(
        input=str(slide),
        model=str(checkpoint.path),
        output=str(output / f"{NAME}.ome.zarr"),
        options=SegmentOptions(name=NAME, block=settings.block),
        device="cpu",
    )
    return segment_image(request, RichStages(console))


def _count(segmentation: Path, console: Console) -> "MeasureReport":
    """Number the cells and measure them."""
    from segment_slide.flows.instances import label_objects
    from segment_slide.flows.measure import measure_objects
    from segment_slide.flows.requests import InstancesRequest, MeasureRequest
    from segment_slide.pipeline.objects.options import InstanceOptions, ObjectSize

    options = InstanceOptions(min_size=ObjectSize(_SMALLEST_CELL_UM2, "um2"))
    label_objects(InstancesRequest(str(segmentation), NAME, options=options), RichStages(console))
    return measure_objects(MeasureRequest(str(segmentation), NAME), RichStages(console))


def _read(location: Path, path: str) -> np.ndarray:
    from segment_slide.pipeline.storage.store import open_array

    return np.asarray(open_array(str(location), path)[...])


def _score(truth: np.ndarray, predicted: np.ndarray, ids: np.ndarray) -> "tuple[PixelScores, ObjectScores]":
    """Scores of a class map and its objects against true cells."""
    from segment_slide.pipeline.scoring.object_scores import score_objects
    from segment_slide.pipeline.scoring.pixel_scores import score_pixels

    return score_pixels(truth > 0, predicted > 0), score_objects(truth, ids)


def densest(truth: np.ndarray, size_px: int) -> tuple[int, int]:
    """Top left corner of the square with the most ridges between touching cells: the hardest place, not the best.

    >>> truth = np.zeros((6, 9), np.uint32)
    >>> truth[3, 4], truth[3, 6] = 1, 2
    >>> densest(truth, 3)
    (2, 3)
    """
    from scipy import ndimage

    highest = ndimage.maximum_filter(truth, 3)
    lowest = ndimage.minimum_filter(np.where(truth, truth, truth.max()), 3)
    ridges = ((truth == 0) & (highest > 0) & (highest != lowest)).astype(np.float32)
    size = min(size_px, *truth.shape)
    inside = ndimage.uniform_filter(ridges, size, mode="constant", origin=-(size // 2))
    inside = inside[: truth.shape[0] - size + 1, : truth.shape[1] - size + 1]
    top, left = np.unravel_index(int(inside.argmax()), inside.shape)
    return int(top), int(left)


def _show(path: Path, slide: Path, truth: np.ndarray, predicted: np.ndarray, caption: str) -> None:
    """Overview, and the densest place with contours."""
    from segment_slide.flows.demo.overlay import Panel, write_overlay
    from segment_slide.pipeline.storage.image import describe_image

    top, left = densest(truth, _ZOOM_PX)
    zoom = (slice(top, top + _ZOOM_PX), slice(left, left + _ZOOM_PX))
    image = describe_image(slide)
    levels = [describe_image(slide, level=number) for number in range(len(image.multiscale.levels))]
    coarse = next((level for level in levels if max(level.shape[1:]) <= _OVERVIEW_PX), levels[-1])
    factor = image.shape[1] / coarse.shape[1]
    overview = np.moveaxis(np.asarray(coarse.array()[...]), 0, -1)
    pixels = np.moveaxis(np.asarray(image.array()[(slice(None), *zoom)]), 0, -1)
    frame = (top / factor, left / factor, _ZOOM_PX / factor, _ZOOM_PX / factor)
    contours = [(truth[zoom] > 0, _TRUTH_COLOUR), (predicted[zoom] > 0, _FOUND_COLOUR)]
    panels = [
        Panel(overview, f"synthetic slide, {image.shape[1]} x {image.shape[2]} px", frame=frame),
        Panel(pixels, "where most cells touch"),
        Panel(pixels, f"{_TRUTH_COLOUR}: truth, {_FOUND_COLOUR}: segmentation", contours=contours),
    ]
    write_overlay(path, panels, caption)


def _print(console: Console, result: DemoResult, report: "SegmentReport") -> None:
    pixels, objects = result.pixels, result.objects
    scores = Table(title="Scores against the exact truth", title_justify="left", show_header=False, box=None)
    rows = {
        "pixels": f"IoU {pixels.iou:.3f}, Dice {pixels.dice:.3f}, accuracy {pixels.accuracy:.3f}",
        "cells": f"{objects.n_matched:,} of {objects.n_truth:,} found (IoU above 0.5) "
        f"in {objects.n_predicted:,} objects: F1 {objects.f1:.3f}, recall {objects.recall:.3f}, "
        f"precision {objects.precision:.3f}",
        "touching": f"{objects.n_touching_matched:,} of {objects.n_touching:,} cells that touch another are separated "
        f"({objects.touching_recall:.1%})",
        "time": ", ".join(f"{name} {format_seconds(seconds)}" for name, seconds in result.seconds.items()),
    }
    if report.n_pixels:
        rows["speed"] = f"{format_rate(report.pixels_per_s)} segmented"
    for name, text in rows.items():
        scores.add_row(f"[dim]{name}[/]", text)
    console.print(scores)
    console.print(f"Picture: {escape(str(result.overlay))}", highlight=False, soft_wrap=True)
    console.print(f"Cells: {escape(result.table.page)}", highlight=False, soft_wrap=True)
    show_how_to_look(console, str(result.segmentation))
