"""Seconds to plan slides of up to 10^12 pixels, and how large one Dask graph gets.

Usage: python benchmarks/plan.py
"""

import time

from segment_slide.pipeline.segmentation.options import SegmentOptions
from segment_slide.pipeline.segmentation.plan import plan_segmentation
from segment_slide.pipeline.storage.image import StoredImage
from segment_slide.pipeline.storage.ome import Level, Multiscale
from segment_slide.pipeline.storage.source import select_source
from segment_slide.unet.architecture import Architecture


def main() -> None:
    """Measure and print."""
    for side in (4_096, 100_000, 1_000_000):
        level = Level("0", (1.0,) * 3, (0.0,) * 3)
        image = StoredImage(
            location="/nowhere",
            array_path="0",
            shape=(3, side, side),
            chunks=(3, 512, 512),
            dtype="uint8",
            multiscale=Multiscale("cyx", (None,) * 3, (level,)),
        )
        began = time.perf_counter()
        source = select_source(image, n_spatial=2, n_channels=3)
        plan = plan_segmentation(source, Architecture(in_channels=3), SegmentOptions(precision="bfloat16"))
        total, files, flops = plan.memory.total_bytes, plan.n_files, plan.flops
        seconds = time.perf_counter() - began
        print(
            f"{side:>9,} px square, 3 channels: planned in {seconds * 1e3:.2f} ms; {plan.grid.n_blocks:,} blocks, "
            f"{plan.n_windows:,} windows of at most {plan.n_tasks_per_window} tasks, {files:,} files, "
            f"{flops / 1e15:,.2f} PFLOP, {total / 2**30:.2f} GiB per worker"
        )


if __name__ == "__main__":
    main()
