"""One image from Zarr to Zarr by the same weights: time, memory and error of ours and of other programs, in one run.

    make bench-env
    python benchmarks/peers.py --output peers                           all, 4096^2 px, base 16, float32
    python benchmarks/peers.py --precision float32 bfloat16 --model M.safetensors --size 8192 --minutes 60

`peers_run.py` says what each peer is and how it is called; peers live in environments of their own (`--python`, and
`--torchvision-python`, with an older torch, for TIAToolbox and torch-em). Ours is what `segment-slide segment` runs,
one worker process. All get the same cores, windows of `--tile` px and the same memory format; ours also with tiles of
its own choice, and in bfloat16, its default where the processor multiplies in it (no peer chooses that for its user).

Each run is a process of its own, and peers take turns; medians, largest peaks. Columns:

    s            reading, network, labels, writing, by a process that has segmented a small image before
    whole s      the process with its imports, worker and pyramid, from start to end, without that small image
    cpu s        processor seconds of `s`, and of the whole process
    peak GiB     resident size of all its processes together, sampled every 50 ms (shared pages count for each)
    files        of the output
    labels       share of pixels with another label than the whole image in one pass, mirrored at its border, float32;
                 and of those farther than the halo from the border, where only seams and rounding are left
    scores       probability of the last class: largest and mean difference, where a peer holds scores in memory

Nothing is left out silently: a peer that fails or has no environment has a row that says so. Every peer runs on a
small image first; from that, rounds are chosen that fit `--minutes`; if not even one does, the run ends saying so.
"""

import argparse
import itertools
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
from common import GiB, Report, make_parser
from peers_bench import NAMES, OURS, PEERS, ROOT, SMALL, Bench, Error, Run
from peers_image import refuse_what_does_not_fit, refuse_what_peers_cannot, store_image, store_model

from segment_slide.unet.checkpoint import open_checkpoint

ENVIRONMENT, TORCHVISION = ROOT / ".bench-venv/bin/python", ROOT / ".bench-venv-torchvision/bin/python"


def count_windows(peer: str, size: int, tile: int) -> int:
    """Passes of the network, to reckon one size's seconds from another's."""
    step = {"monai-25": tile * 3 // 4, "monai-50": tile // 2, "nnunet": tile // 2}.get(peer)
    along = -(-max(size - tile, 0) // step) + 1 if step else -(-size // tile)
    return along**2


def estimate(given: argparse.Namespace, small: Run) -> float:
    """Seconds of one run with its start and warm-up."""
    if small.note:
        return 0.0
    start_s = small.whole_s - small.seconds
    if small.peer == "patches":
        return start_s + 2 * small.sample["seconds"]
    ratio = count_windows(small.peer, given.size, given.tile) / count_windows(small.peer, SMALL, given.tile)
    return start_s + small.seconds * (ratio + 1)


def choose_rounds(bench: Bench, precision: str, ends: float, tables_left: int) -> tuple[int, list[Run]]:
    """Run each peer on the small image, print what a round will take, and say how many fit until `ends`."""
    began = time.perf_counter()
    small = [bench.run(peer, SMALL, precision) for peer in bench.given.peers]
    for run in small:
        print(f"reckoned, {precision}: {run.peer} {run.note or f'{estimate(bench.given, run):.0f} s a run'}")
    round_s = max(sum(estimate(bench.given, run) for run in small), 1e-3)
    now = time.perf_counter()
    left_s = (ends - now - (tables_left - 1) * (now - began)) / tables_left
    rounds = max(min(bench.given.repeats, int(left_s / round_s)), 0)
    print(f"a round takes {round_s / 60:.1f} min: {rounds} of {bench.given.repeats} rounds", flush=True)
    if not rounds:
        raise SystemExit(
            f"not even one round fits --minutes {bench.given.minutes:g}; choose a smaller --size (now "
            f"{bench.given.size}) or --base, fewer --peers, or more --minutes."
        )
    return rounds, [run for run in small if run.note]


# -- report --------------------------------------------------------------------------------------------------


def summarise(runs: list[Run]) -> Run:
    """Medians of times, the largest peak; a run without a result speaks for all."""
    for run in runs:
        if run.note:
            return run
    timings = ("seconds", "cpu_s", "whole_s", "whole_cpu_s")
    found = Run(**{**asdict(runs[0]), "peak_bytes": max(run.peak_bytes for run in runs)})
    for name in timings:
        setattr(found, name, statistics.median(getattr(run, name) for run in runs))
    return found


HEADINGS = (
    "", "s", "s over ours", "over ours in bfloat16", "Mpx/s", "cpu s", "whole s", "whole cpu s", "peak GiB", "files",
    "other labels", "of them inside", "scores", "by",
)  # fmt: skip


def show(report: Report, title: str, precision: str, rows: list[Run], errors: dict[str, Error]) -> None:
    """The table, its ratios and its picture."""
    seconds = {run.peer: run.seconds for run in rows}
    ours_s, half_s = (seconds.get(peer, math.nan) for peer in ("ours", "ours-bfloat16"))
    table = []
    for run in rows:
        if run.note:
            table.append([NAMES[run.peer], *["-"] * (len(HEADINGS) - 2), run.note])
            continue
        over = f"{run.seconds / ours_s:.2f}"
        if run.peer != "ours" and math.isfinite(ours_s):
            over = report.ratio(f"{NAMES[run.peer]}, {precision}: s over ours", run.seconds / ours_s)
        over_half = "-"
        if run.peer not in OURS and math.isfinite(half_s):
            over_half = report.ratio(f"{NAMES[run.peer]}, {precision}: s over ours in bfloat16", run.seconds / half_s)
        cells = [NAMES[run.peer], f"{run.seconds:,.4g}", over, over_half, f"{run.size**2 / run.seconds / 1e6:.3g}"]
        cells += [f"{value:,.4g}" for value in (run.cpu_s, run.whole_s, run.whole_cpu_s)]
        cells += [f"{run.peak_bytes / GiB:.2f}", str(run.files or "-")]
        error = errors.get(run.peer)
        cells += [f"{100 * error.labels:.3g} %", f"{100 * error.labels_inside:.3g} %"] if error else ["-", "-"]
        has_scores = error is not None and error.scores_max is not None
        cells += [f"{error.scores_max:.2g}, {error.scores_mean:.2g}" if error and has_scores else "-"]
        table.append([*cells, run.versions])
        if error:
            report.values[f"{NAMES[run.peer]}, {precision}: other labels, %"] = 100 * error.labels
    report.table(title, HEADINGS, table)
    if report.folder:
        draw(report.picture(f"peers-{precision}.png"), title, [run for run in rows if not run.note], errors)


def draw(path: Path, title: str, rows: list[Run], errors: dict[str, Error]) -> None:
    """Megapixels per second as bars, and beside each how many labels differ from the whole image's."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 0.6 + 0.36 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    rates = [run.size**2 / run.seconds / 1e6 for run in rows]
    colours = ["tab:green" if run.peer in OURS else "tab:gray" for run in rows]
    bars = axes.barh([NAMES[run.peer] for run in rows], rates, color=colours)
    said = [f"{100 * errors[run.peer].labels:.3g} % other labels" if run.peer in errors else "" for run in rows]
    axes.bar_label(
        bars, [f"{rate:.3g}   {text}" for rate, text in zip(rates, said, strict=True)], padding=4, fontsize=8
    )
    axes.set_xlim(0, max(rates) * 1.7)
    axes.invert_yaxis()
    axes.set_xlabel("Mpx/s, Zarr to Zarr")
    axes.set_title(title, fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


def measure(bench: Bench, report: Report, precision: str, ends: float, tables_left: int) -> None:
    """All peers in one precision, in turns."""
    given = bench.given
    rounds, failed = choose_rounds(bench, precision, ends, tables_left)
    broken = {run.peer for run in failed}
    runs: dict[str, list[Run]] = {peer: [] for peer in given.peers if peer not in broken}
    errors: dict[str, Error] = {}
    whole = np.load(bench.folder / "whole.npy", mmap_mode="r")
    for number, (peer, done) in itertools.product(range(rounds), runs.items()):
        if done and done[-1].note:
            continue
        done.append(bench.run(peer, given.size, precision, scores=number == 0))
        if number == 0 and not done[0].note and peer != "network":
            errors[peer] = bench.compare(peer, given.size, whole)
    found = {**{run.peer: run for run in failed}, **{peer: summarise(done) for peer, done in runs.items()}}
    title = f"{given.size}² px, {precision}, {given.threads} cores, {rounds} rounds, windows of {given.tile} px"
    show(report, title, precision, [found[peer] for peer in given.peers], errors)


def parse() -> argparse.Namespace:
    """What was asked for."""
    parser = make_parser(__doc__)
    everyone = ",".join((*OURS, *PEERS))
    parser.add_argument("--size", type=int, default=4096, help="pixels a side (default: %(default)s)")
    parser.add_argument("--base", type=int, default=16, help="channels of the first level (default: %(default)s)")
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--model", type=Path, help="a trained network of one channel, instead of initial weights")
    parser.add_argument("--precision", nargs="+", choices=("float32", "bfloat16"), default=["float32"])
    parser.add_argument("--tile", type=int, default=512, help="window of all peers (default: %(default)s px)")
    parser.add_argument("--repeats", type=int, default=3, help="rounds, if they fit --minutes (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=15, help="what all may take (default: %(default)s)")
    parser.add_argument("--peers", default=everyone, help="with commas (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="cores that each run gets")
    parser.add_argument("--python", type=Path, default=ENVIRONMENT, help="interpreter of the peers")
    parser.add_argument(
        "--torchvision-python", type=Path, default=TORCHVISION, help="interpreter of those that import torchvision"
    )
    given = parser.parse_args()
    given.peers = given.peers.split(",")
    given.python, given.torchvision_python = given.python.absolute(), given.torchvision_python.absolute()
    if unknown := set(given.peers) - set(NAMES):
        parser.error(f"--peers {','.join(sorted(unknown))}: expected some of {everyone}")
    if given.size < SMALL:
        parser.error(f"--size {given.size}: expected at least {SMALL} px, the image that warms up")
    return given


def main() -> None:
    """Draw, warm up, measure, compare, print."""
    given = parse()
    report, began = Report(given), time.perf_counter()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: given.threads])  # and all that is started
    with tempfile.TemporaryDirectory(prefix="peers-") as name:
        folder = Path(name)
        images = {size: store_image(folder, size) for size in {SMALL, given.size}}
        model = store_model(folder, given, images[SMALL])
        config = open_checkpoint(model).config
        refuse_what_peers_cannot(config)
        architecture = config.architecture
        refuse_what_does_not_fit(architecture, given.size)
        script = str(ROOT / "benchmarks/peers_ours.py")
        whole = [sys.executable, script, "whole", str(images[given.size]), model, str(folder / "whole.npy")]
        subprocess.run(whole, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
        bench = Bench(folder, given, model, architecture.geometry)
        for number, precision in enumerate(given.precision):
            ends, tables_left = began + given.minutes * 60, len(given.precision) - number
            measure(bench, report, precision, ends, tables_left)
            report.save()
    print(f"\n{(time.perf_counter() - began) / 60:.1f} min in all", file=sys.stderr)


if __name__ == "__main__":
    main()
