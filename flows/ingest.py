"""Convert one acquisition to OME-Zarr: plan, then write."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from segment_slide.pipeline.blocks.progress import QuietStages, Stages
from segment_slide.pipeline.ingest.options import IngestOptions
from segment_slide.pipeline.ingest.plan import IngestPlan, plan_ingest
from segment_slide.pipeline.ingest.run import run_ingest
from segment_slide.pipeline.storage.store import resolve_location


@dataclass(frozen=True)
class IngestReport:
    """The result of an ingest.

    Attributes
    ----------
    plan : IngestPlan
        What was found in the input.
    location : str
        The OME-Zarr image.
    n_written : int
        Shards written by this run; the others existed before.
    seconds : float
        Wall time.
    """

    plan: IngestPlan
    location: str
    n_written: int
    seconds: float


def ingest_image(
    sources: Sequence[Path], output: str, options: IngestOptions | None = None, progress: Stages | None = None
) -> IngestReport:
    """Convert a file, a folder or a list of pages, or resume a conversion that was interrupted.

    Raises
    ------
    PipelineError
        If the input is bad (found before anything is created), or if a tile is damaged (what is written is kept).
    """
    began = time.perf_counter()
    plan = plan_ingest(sources, options)
    with (progress or QuietStages()).stage("ingest", total=plan.n_shards, unit="files") as advance:
        before = 0

        def count(done: int, _total: int) -> None:
            nonlocal before
            for _ in range(done - before):
                advance(0)
            before = done

        written = run_ingest(plan, output, threads=len(os.sched_getaffinity(0)), on_progress=count)
    return IngestReport(plan, resolve_location(output), written, time.perf_counter() - began)
