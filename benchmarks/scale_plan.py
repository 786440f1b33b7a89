"""10^6 x 10^6 px planned: hours by number of GPUs, and how many of them one scheduler can keep busy; of `scale.py`."""

import argparse
import math
from dataclasses import dataclass
from pathlib import Path

from common import Report

from segment_slide.pipeline.segmentation.options import SegmentOptions
from segment_slide.pipeline.segmentation.plan import SegmentPlan, plan_segmentation
from segment_slide.pipeline.storage.image import StoredImage
from segment_slide.pipeline.storage.ome import Level, Multiscale
from segment_slide.pipeline.storage.source import select_source
from segment_slide.unet.architecture import Architecture

GPUS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


def describe(side_px: int) -> StoredImage:
    """A slide that is not there."""
    level = Level("0", (1.0, 1.0), (0.0, 0.0))
    scale = Multiscale("yx", (None, None), (level,))
    return StoredImage("/nowhere", "0", (side_px, side_px), (512, 512), "uint8", scale)


@dataclass(frozen=True)
class Costs:
    """What one GPU does, and what one scheduler spends."""

    rate: float  # Mpx/s of one GPU
    block_ms: float
    task_ms: float


def predict_hours(plan: SegmentPlan, gpus: int, costs: Costs) -> tuple[float, float, float]:
    """Hours of GPUs, of the scheduler over blocks, and over the pyramid's shards; the first two overlap."""
    pixels = math.prod(plan.grid.shape) / 1e6
    coarser = sum(spec.n_shards for spec in plan.label_arrays()[1:])
    return (
        pixels / (costs.rate * gpus) / 3600,
        plan.grid.n_blocks * costs.block_ms / 3.6e6,
        coarser * costs.task_ms / 3.6e6,
    )


def plan_large(arguments: argparse.Namespace, report: Report, costs: Costs) -> None:
    """The table and the plot."""
    source = select_source(describe(1_000_000), n_spatial=2, n_channels=1)
    plans = {
        block: plan_segmentation(source, Architecture(), SegmentOptions(block=block, precision="bfloat16"))
        for block in arguments.plan_blocks
    }
    rows = []
    for block, plan in plans.items():
        _, scheduler_h, pyramid_h = predict_hours(plan, 1, costs)
        bend = 1000 / costs.block_ms * block**2 / 1e6 / costs.rate
        report.values[f"GPUs at which {block} px blocks bend"] = bend
        rows.append(
            [
                f"{block}²", f"{plan.grid.n_blocks:,}", f"{plan.n_windows:,}", f"{plan.n_files:,}", f"{plan.n_levels}",
                f"{plan.memory.total_bytes / 2**30:.1f}", f"{1000 * block**2 / 1e6 / costs.rate:.0f}",
                f"{scheduler_h:.1f}", f"{pyramid_h:.2f}", f"{bend:.0f}",
            ]
        )  # fmt: skip
    report.table(
        f"10^6 x 10^6 px: {costs.rate:g} Mpx/s a GPU, {costs.block_ms:.1f} ms of scheduler a block, "
        f"{costs.task_ms:.2f} ms a shard of the pyramid",
        ("block", "blocks", "windows", "files", "levels", "GiB a worker", "ms of GPU a block", "scheduler, h",
         "pyramid's scheduling, h", "GPUs that keep one scheduler busy"),
        rows,
    )  # fmt: skip
    hours = {block: [predict_hours(plan, n, costs) for n in GPUS] for block, plan in plans.items()}
    rows = []
    for position, n in enumerate(GPUS):
        row = [f"{n}", f"{next(iter(hours.values()))[position][0]:.2f}"]
        for block in plans:
            gpu_h, scheduler_h, pyramid_h = hours[block][position]
            mark = " *" if scheduler_h > gpu_h else ""
            row.append(f"{max(gpu_h, scheduler_h) + pyramid_h:.2f}{mark}")
        rows.append(row)
    headings = ("GPUs", "GPUs alone, h", *(f"blocks of {block} px, h" for block in plans))
    report.table("Hours for 10^12 px (*: the scheduler is what takes them)", headings, rows)
    if report.folder:
        draw(report.picture("scale.png"), hours, costs)


def draw(path: Path, hours: dict[int, list[tuple[float, float, float]]], costs: Costs) -> None:
    """Hours by GPUs, both logarithmic; a straight line is perfect scaling."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    first = next(iter(hours.values()))
    axes.loglog(GPUS, [gpu for gpu, _, _ in first], "k--", linewidth=1, label="GPUs alone")
    for block, values in hours.items():
        line = [max(gpu, scheduler) + pyramid for gpu, scheduler, pyramid in values]
        axes.loglog(GPUS, line, "o-", markersize=4, label=f"blocks of {block} px")
    axes.axhline(10, color="grey", linewidth=0.8)
    axes.text(GPUS[0], 10.6, "a night", color="grey", fontsize=9)
    axes.set_xticks(GPUS, [str(n) for n in GPUS])
    axes.minorticks_off()
    axes.set_yticks([0.1, 1, 10, 100, 1000], ["0.1", "1", "10", "100", "1000"])
    axes.set_xlabel("GPUs")
    axes.set_ylabel("hours")
    axes.set_title(f"10⁶ × 10⁶ px at {costs.rate:g} Mpx/s a GPU, one scheduler of {costs.block_ms:.1f} ms a block")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=110)
