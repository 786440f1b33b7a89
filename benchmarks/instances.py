"""Objects of a stored class map at three sizes: time and memory of ours, scipy, dask-image and bioimage-py.

    python3.11 -m venv /tmp/peers-env
    /tmp/peers-env/bin/pip install dask-image bioimage-py "dask<2025.4" "zarr<3.2"
    python benchmarks/instances.py --peers-python /tmp/peers-env/bin/python --output instances.png
    python benchmarks/instances.py --candidates ours --size 2048 8192 32768 65536

Classes are synthetic nuclei, stored as our segmentations are: shards of 2048 px, chunks of 512 px. All candidates read
these and write ids in the same layout; objects are neighbours along axes.
Each run is a process of its own that first labels a small image. Seconds are wall time of reading, labelling and
writing. Ours leave out the pyramid, which the others do not make, and the start and end of workers; both stand beside.
Memory is resident size, sampled every 50 ms, summed over all processes. At 8192 px all take turns: medians of times,
largest peaks, ids compared with scipy's. A run that passes a limit is killed and reported as such.
"""

import argparse
import contextlib
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import psutil
import zarr

from segment_slide.flows.requests import Workers
from segment_slide.pipeline.blocks.array_spec import ArraySpec
from segment_slide.pipeline.storage import ome, store

GiB = 1 << 30
SHARD, CHUNK, COMPARED = 2048, 512, 8192  # px
WARM_UP = SHARD + 64  # px; four blocks, hardly more memory than one
PERIOD, SHIFT, COVER, RADII = 4096, 1234, 0.3, (8.0, 14.0)  # px; each row of tiles is moved by SHIFT
GROUP = "labels/segmentation"
CANDIDATES = ("ours", "scipy", "dask-image", "bioimage-py")
COLOURS, MARKERS = ("#0072B2", "#000000", "#D55E00", "#009E73"), "osDv"  # of Okabe & Ito's palette


def draw_tile() -> np.ndarray:
    """One period of the field: ellipses, many of which touch, over its borders too; uint8 (PERIOD, PERIOD)."""
    random = np.random.default_rng(0)
    tile = np.zeros((PERIOD, PERIOD), np.uint8)
    reach = math.ceil(RADII[1])
    for _ in range(round(-math.log(1 - COVER) * PERIOD**2 / (math.pi * statistics.mean(RADII) ** 2))):
        (cy, cx), (a, b), angle = random.uniform(0, PERIOD, 2), random.uniform(*RADII, 2), random.uniform(0, math.pi)
        y, x = np.mgrid[int(cy) - reach : int(cy) + reach + 2, int(cx) - reach : int(cx) + reach + 2]
        along = math.cos(angle) * (x - cx) + math.sin(angle) * (y - cy)
        across = math.cos(angle) * (y - cy) - math.sin(angle) * (x - cx)
        inside = (along / a) ** 2 + (across / b) ** 2 <= 1
        tile[_wrap(y[inside], x[inside])] = 1
    return tile


def _wrap(y: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Place in the tile of any place in the field."""
    return y % PERIOD, (x + SHIFT * (y // PERIOD)) % PERIOD


def store_field(folder: Path, side: int) -> str:
    """The field as a label image, written shard by shard; one that is complete is kept."""
    location = str(folder / f"classes-{side}.ome.zarr")
    spec = ArraySpec("0", (side, side), (SHARD, SHARD), (CHUNK, CHUNK), "uint8", "yx")
    if len(store.stored_shards(location, f"{GROUP}/0")) == spec.n_shards:
        return location
    image = ome.Multiscale("yx", (None, None), (ome.Level("0", (1.0, 1.0), (0.0, 0.0)),), "nuclei")
    store.create_group(location, "", [], {"ome": ome.multiscale_attributes(ome.within(image, GROUP))})
    store.create_group(location, "labels", [], {"ome": {"version": ome.VERSION, "labels": ["segmentation"]}})
    store.create_group(location, GROUP, [spec], {"ome": ome.label_attributes(image, ("background", "nucleus"))})
    tile, array = draw_tile(), store.open_array(location, f"{GROUP}/0", writable=True)
    for top in range(0, side, SHARD):
        y = np.arange(top, min(top + SHARD, side))[:, None]
        for left in range(0, side, SHARD):
            x = np.arange(left, min(left + SHARD, side))[None]
            box = (slice(top, top + y.size), slice(left, left + x.size))
            store.write_box(array, box, tile[_wrap(y, x)])
    return location


@dataclass(frozen=True)
class Run:
    """One run of one candidate on an image of `side` x `side` pixels."""

    candidate: str
    side: int
    seconds: float  # what counts of it; until it was killed, if it was
    peak_bytes: int = 0  # largest resident size of all its processes together
    worker_bytes: int = 0  # and of the largest one that it started
    note: str = ""  # why there is no result
    steps: dict[str, float] = field(default_factory=dict)  # seconds of parts
    objects: int = 0
    array: str = ""  # where its ids are
    versions: str = ""

    @property
    def ms_per_mpx(self) -> float:
        return self.seconds * 1e3 / (self.side**2 / 1e6)


def label_ours(location: str, output: str, workers: int | None) -> dict[str, object]:
    """Label with the project's flow; the only place that knows how it is called."""
    from segment_slide.flows.instances import label_objects
    from segment_slide.flows.requests import InstancesRequest

    began = time.perf_counter()
    report = label_objects(InstancesRequest(input=f"{location}/{GROUP}", output=output, workers=Workers(workers)))
    wall_s, steps = time.perf_counter() - began, dict(report.stage_seconds)
    array = f"{output}/labels/segmentation-instances/0"
    seconds = sum(value for name, value in steps.items() if name != "pyramid")  # which nobody else makes
    steps["start and end"] = wall_s - sum(steps.values())
    return {"seconds": seconds, "steps": steps, "objects": report.n_objects, "array": array}


def watch(process: psutil.Process, limit_s: float, limit_gib: float) -> tuple[int, int, str]:
    """Peaks (bytes) of all processes and of the largest child until the process ends, and why it was killed."""
    peak = largest = 0
    began = time.perf_counter()
    while process.status() != psutil.STATUS_ZOMBIE:
        family, sizes = [process, *process.children(recursive=True)], [0]
        for one in family:
            with contextlib.suppress(psutil.Error):
                sizes.append(one.memory_info().rss)
        peak, largest = max(peak, sum(sizes)), max(largest, *sizes[2:], 0)
        note = f"not finished in {limit_s:g} s" if time.perf_counter() - began > limit_s else ""
        note = f"more than {limit_gib:.3g} GiB" if peak > limit_gib * GiB else note
        if note:
            for one in family:  # the parent first: it would start its workers again
                with contextlib.suppress(psutil.Error):
                    one.kill()
            return peak, largest, note
        time.sleep(0.05)
    return peak, largest, ""


@dataclass(frozen=True)
class Bench:
    """Runs candidates in processes of their own, in one folder."""

    folder: Path
    arguments: argparse.Namespace

    def run(self, candidate: str, side: int) -> Run:
        """One run; its ids stay in the folder until the next one."""
        location, small = store_field(self.folder, side), store_field(self.folder, WARM_UP)
        output = str(self.folder / f"ids-{candidate}.zarr")
        for made_before in self.folder.glob(f"ids-{candidate}.zarr*"):
            shutil.rmtree(made_before)
        command, began = self._command(candidate, location, small, output), time.perf_counter()
        with tempfile.TemporaryFile("w+") as errors:
            child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
            peak, worker, note = watch(psutil.Process(child.pid), self.arguments.limit_s, self.arguments.limit_gib)
            printed, ran_s = child.communicate()[0], time.perf_counter() - began
            errors.seek(0)
            said = errors.read().strip().splitlines()
        if child.returncode and not note:
            note = f"failed: {said[-1] if said else child.returncode}"
        found = {"seconds": ran_s} if note else json.loads(printed.splitlines()[-1])
        print(f"{candidate}, {side} px, {ran_s:.1f} s with start and warm-up {note}", file=sys.stderr, flush=True)
        return Run(candidate, side, peak_bytes=peak, worker_bytes=worker, note=note, **found)

    def _command(self, candidate: str, location: str, small: str, output: str) -> list[str]:
        if candidate == "ours":
            workers = ["--workers", str(self.arguments.workers)] if self.arguments.workers else []
            return [sys.executable, __file__, "--run", location, output, small, *workers]
        python = sys.executable if candidate == "scipy" else self.arguments.peers_python
        source, warm_up = f"{location}/{GROUP}/0", f"{small}/{GROUP}/0"
        return [python, f"{Path(__file__).parent}/instances_peers.py", candidate, source, output, "--warm-up", warm_up]

    def measure(self, side: int) -> list[Run]:
        """All candidates at one size, in turns where ours and scipy are compared."""
        runs: dict[str, list[Run]] = {name: [] for name in self.arguments.candidates}
        for number in range(self.arguments.rounds if side == COMPARED else 1):
            for name, done in runs.items():
                if not (done and done[-1].note):  # what was killed would be again
                    done.append(self.run(name, side))
            pair = [runs[name][-1] for name in ("ours", "scipy") if name in runs and not runs[name][-1].note]
            if number == 0 and side == COMPARED and len(pair) == 2:
                compare_ids(*pair)
        return [summarise(done) for done in runs.values()]


def summarise(runs: list[Run]) -> Run:
    """Medians of times, largest peaks; a run without a result speaks for all."""
    chosen = [run for run in runs if run.note] or runs
    return replace(
        chosen[0],
        seconds=statistics.median(run.seconds for run in chosen),
        steps={name: statistics.median(run.steps[name] for run in chosen) for name in chosen[0].steps},
        peak_bytes=max(run.peak_bytes for run in runs),
        worker_bytes=max(run.worker_bytes for run in runs),
    )


def compare_ids(ours: Run, scipy: Run) -> None:
    """Print how many pixels bear another id than scipy's."""
    arrays = [zarr.open_array(run.array, mode="r") for run in (ours, scipy)]
    size, other = arrays[0].shape[0], 0
    for top in range(0, size, SHARD):
        found, expected = (np.asarray(array[top : top + SHARD]) for array in arrays)
        other += int(np.count_nonzero(found != expected))
    print(f"ours: {other:,} of {size * size:,} pixels bear another id than scipy's", flush=True)


def print_ratios(runs: list[Run]) -> None:
    """Times relative to scipy's where both took turns: to labelling in memory, and with reading and writing."""
    compared = {run.candidate: run for run in runs if run.side == COMPARED and not run.note}
    for name, run in compared.items() if "scipy" in compared else ():
        label_s, whole_s = compared["scipy"].steps["label"], compared["scipy"].seconds
        print(
            f"{COMPARED}^2 px: {name} {run.seconds:.2f} s = {run.seconds / label_s:.2f} x scipy's labelling in memory "
            f"({label_s:.2f} s), {run.seconds / whole_s:.2f} x with its reading and writing ({whole_s:.2f} s)"
        )


def print_table(runs: list[Run]) -> None:
    """Markdown; the ratio is to the same candidate at the next smaller size."""
    print("| candidate | px | s | ms/Mpx | ratio | peak GiB, all | peak GiB, largest worker | objects | steps |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|---|")
    before: dict[str, float] = {}
    for run in runs:
        ratio = f"{run.ms_per_mpx / before[run.candidate]:.2f}" if run.candidate in before and not run.note else ""
        before |= {} if run.note else {run.candidate: run.ms_per_mpx}
        time_s = ("-", "-") if run.note else (f"{run.seconds:.2f}", f"{run.ms_per_mpx:.1f}")
        peaks = (f"{run.peak_bytes / GiB:.2f}", f"{run.worker_bytes / GiB:.2f}" if run.worker_bytes else "-")
        steps = run.note or ", ".join(f"{name} {value:.2f}" for name, value in run.steps.items())
        objects = f"{run.objects:,}" if not run.note else "-"
        print(
            "|",
            " | ".join((run.versions or run.candidate, f"{run.side}^2", *time_s, ratio, *peaks, objects, steps)),
            "|",
        )


def plot(runs: list[Run], output: Path) -> None:
    """Time and memory over pixels; hollow where a run was killed."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    runs = [run for run in runs if not run.note.startswith("failed")]
    figure, panels = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    for axes, label in zip(panels, ("seconds", "peak memory of all processes (GiB)"), strict=True):
        for name, colour, marker in zip(CANDIDATES, COLOURS, MARKERS, strict=True):
            for killed, line in ((False, "-"), (True, "")):
                shown = [run for run in runs if run.candidate == name and bool(run.note) == killed]
                values = [run.seconds if axes is panels[0] else run.peak_bytes / GiB for run in shown]
                style = {"color": colour, "marker": marker, "mfc": "none" if killed else colour}
                style["label"] = "" if killed or not shown else name
                axes.loglog([run.side**2 for run in shown], values, line, **style)
        sides = sorted({run.side for run in runs})
        axes.set_xticks([side**2 for side in sides], [f"{side}²" for side in sides])
        axes.xaxis.minorticks_off()
        axes.set(xlabel="pixels", ylabel=label)
        axes.grid(alpha=0.3)
    panels[0].legend()
    figure.suptitle(
        "Connected objects of a stored class map" + " (hollow: killed there)" * any(run.note for run in runs)
    )
    figure.savefig(output, dpi=150)


def main() -> None:
    """Measure, print, plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs="+", default=[2048, 8192, 32768], help="pixels a side")
    parser.add_argument("--candidates", nargs="+", choices=CANDIDATES, default=list(CANDIDATES))
    parser.add_argument("--peers-python", help="interpreter of the peers; without it, ours and scipy alone")
    parser.add_argument("--workers", type=int, help="worker processes of ours (default: its own)")
    parser.add_argument("--rounds", type=int, default=5, help=f"turns at {COMPARED} px (default: %(default)s)")
    parser.add_argument("--limit-s", type=float, default=3600, help="seconds of one run (default: %(default)s)")
    parser.add_argument("--limit-gib", type=float, default=psutil.virtual_memory().available / GiB * 0.9)
    parser.add_argument("--folder", type=Path, help="where class maps are kept (default: a temporary folder)")
    parser.add_argument("--output", type=Path, default=Path("instances.png"), help="plot (PNG)")
    parser.add_argument("--run", nargs=3, metavar=("INPUT", "OUTPUT", "SMALL"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        location, output, small = arguments.run
        label_ours(small, f"{output}-warm-up", arguments.workers)
        print(json.dumps(label_ours(location, output, arguments.workers)))
        return
    if not arguments.peers_python:
        arguments.candidates = [name for name in arguments.candidates if name in ("ours", "scipy")]
    with tempfile.TemporaryDirectory(prefix="instances-") as name:
        folder = arguments.folder or Path(name)
        runs = [run for side in sorted(arguments.size) for run in Bench(folder, arguments).measure(side)]
    print(f"{len(os.sched_getaffinity(0))} cores, limits {arguments.limit_s:g} s, {arguments.limit_gib:.3g} GiB\n")
    print_table(runs)
    print_ratios(runs)
    plot(runs, arguments.output)


if __name__ == "__main__":
    main()
