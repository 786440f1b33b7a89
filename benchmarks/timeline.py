"""What a worker does at each moment of a run: reading, forward passes, writing, and whether a core ever waits for them.

    python benchmarks/timeline.py --output timeline [--size 8192] [--base 16] [--block 2048] [--tile 1024]

The run of `overhead.py`, with each call of three functions noted by thread and time: reading a block's pixels, one
forward pass with normalisation and argmax, storing a block. Before a core's first pass its block is read, after its
last one the last blocks are stored; between two passes reading and writing should hide behind those of other blocks.
Longer runs have the same begin and end, and more between. The picture has a lane per thread.
"""

import argparse
import functools
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common import Report, make_parser
from distributed import Client, LocalCluster
from overhead import make_job, plan_run

from segment_slide.pipeline.segmentation import block
from segment_slide.pipeline.segmentation.block import get_predictor
from segment_slide.pipeline.segmentation.run import segment_blocks
from segment_slide.pipeline.storage.source import ImageSource
from segment_slide.unet.device import resolve_device, resolve_precision
from segment_slide.unet.predict import Predictor

READ, PASS, WRITE = KINDS = ("reading", "forward pass", "writing")
COLOURS = {READ: "tab:orange", PASS: "tab:blue", WRITE: "tab:green"}


@dataclass(frozen=True)
class Call:
    """One call of one of the three functions, in seconds since the run began."""

    kind: str
    thread: int
    start_s: float
    end_s: float


class Notes:
    """Calls as they end, of all threads."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.began = time.perf_counter()

    def note(self, owner: Any, name: str, kind: str) -> None:
        """Replace a function by one that does the same and notes it."""
        function: Callable[..., Any] = getattr(owner, name)

        @functools.wraps(function)
        def noted(*words: Any, **options: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*words, **options)
            finally:
                end = time.perf_counter()
                self.calls.append(Call(kind, threading.get_ident(), start - self.began, end - self.began))

        setattr(owner, name, noted)


def run(folder: Path, arguments: argparse.Namespace, precision: str) -> tuple[list[Call], float]:
    """Segment a slide by one worker in this process, which has imported what it needs; calls and seconds."""
    import dask.array  # noqa: F401, the first window would import it, and wait

    plan, checkpoint = plan_run(folder, arguments, precision)
    quiet: dict[str, Any] = {"scheduler_kwargs": {"dashboard": False}, "worker_dashboard_address": None}
    notes = Notes()
    with (
        LocalCluster(n_workers=1, threads_per_worker=arguments.cores + 1, processes=False, **quiet) as cluster,
        Client(cluster) as client,
    ):
        job = make_job(plan, checkpoint, str(folder / "out.ome.zarr"), precision)
        halo = 2 * plan.grid.geometry.halo
        get_predictor(job).predict(np.zeros((1, arguments.tile + halo, 2 * arguments.tile + halo), np.uint8))
        for owner, name, kind in (
            (ImageSource, "read", READ), (Predictor, "_forward", PASS), (block, "store_block", WRITE),
        ):  # fmt: skip
            notes.note(owner, name, kind)
        notes.began = time.perf_counter()
        failures = segment_blocks(job, plan.window_blocks, set(), client=client)
        seconds = time.perf_counter() - notes.began
    if failures:
        raise SystemExit(f"blocks failed: {failures}")
    return notes.calls, seconds


def show(report: Report, calls: list[Call], seconds: float) -> None:
    """Where the seconds of all cores went."""
    passes = [call for call in calls if call.kind == PASS]
    lanes = [[call for call in passes if call.thread == thread] for thread in {call.thread for call in passes}]
    before = sum(min(call.start_s for call in lane) for lane in lanes)
    after = sum(seconds - max(call.end_s for call in lane) for lane in lanes)
    computing = sum(call.end_s - call.start_s for call in passes)
    total = len(lanes) * seconds
    parts = {
        "in forward passes": computing,
        "before the first": before,
        "between two": total - computing - before - after,
        "after the last": after,
    }
    named = [[name, f"{value:.2f}", report.ratio(f"{name}, of all", value / total)] for name, value in parts.items()]
    report.table(f"{len(lanes)} cores for {seconds:.1f} s", ("cores", "s", "ratio"), named)
    rows = []
    for kind in KINDS:
        durations = [call.end_s - call.start_s for call in calls if call.kind == kind]
        rows.append([kind, len(durations), sum(durations), 1000 * sum(durations) / len(durations)])
    report.table(
        "Calls, whatever ran beside them",
        ("what", "calls", "s", "ms each"),
        [[kind, f"{n}", f"{total_s:.2f}", f"{each:.1f}"] for kind, n, total_s, each in rows],
    )


def draw(path: Path, calls: list[Call], title: str) -> None:
    """A lane per thread: those of passes above, the worker's below."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    computing = sorted({call.thread for call in calls if call.kind == PASS})
    others = sorted({call.thread for call in calls} - set(computing))
    lanes = {thread: position for position, thread in enumerate([*computing, *others])}
    figure = Figure(figsize=(10, 0.9 + 0.42 * len(lanes)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for kind in KINDS:
        chosen = [call for call in calls if call.kind == kind]
        axes.barh(
            [lanes[call.thread] for call in chosen],
            [call.end_s - call.start_s for call in chosen],
            left=[call.start_s for call in chosen],
            height=0.7, color=COLOURS[kind], edgecolor="white", linewidth=0.3, label=kind,
        )  # fmt: skip
    names = [f"core {n}" for n in range(len(computing))] + [f"Dask thread {n}" for n in range(len(others))]
    axes.set_yticks(range(len(lanes)), names)
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.set_xlabel("s")
    axes.set_title(title, fontsize=9)
    axes.legend(frameon=False, ncols=3, loc="upper left", bbox_to_anchor=(0, -0.28), fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Measure, print, draw."""
    parser = make_parser(__doc__)
    parser.add_argument("--size", type=int, default=8192)
    parser.add_argument("--base", type=int, default=16)
    parser.add_argument("--block", type=int, default=2048)
    parser.add_argument("--tile", type=int, default=1024)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--precision", default="auto")
    arguments = parser.parse_args()
    precision = resolve_precision(arguments.precision, resolve_device("auto"))
    report = Report(arguments)
    with tempfile.TemporaryDirectory() as name:
        calls, seconds = run(Path(name), arguments, precision)
    show(report, calls, seconds)
    if report.folder:
        title = f"{arguments.size}² px in blocks of {arguments.block}, tiles of {arguments.tile}, {precision}"
        draw(report.picture("timeline.png"), calls, title)
    report.save()


if __name__ == "__main__":
    main()
