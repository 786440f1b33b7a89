"""What a version costs: the chain of commands of this checkout and of another one in turns, seconds and bytes.

    python benchmarks/prices.py --other ../before                       before/.venv/bin/segment-slide
    python benchmarks/prices.py --other ../before --sizes 4096 --rounds 5 --commands ingest segment

In each round both run the same commands on the same slides, one after the other, in an order that changes, so that a
busy neighbour disturbs both alike. A ratio above 1 is a price of this version. Given are the median of the rounds'
ratios of wall seconds and of processor seconds (of all processes), and the ratio of bytes that the command stored.
"""

import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from common import MiB, Report, make_parser

CHAIN = {
    "ingest": "ingest {slide} {folder}/slide.ome.zarr",
    "segment": "segment {folder}/slide.ome.zarr -m {model} -o {folder}/out.ome.zarr --precision float32 {workers}",
    "instances": "instances {folder}/out.ome.zarr --min-size 9 {workers}",
    "measure": "measure {folder}/out.ome.zarr {workers}",
}
OURS, OTHER = "ours", "other"


@dataclass(frozen=True)
class Price:
    """Of one command."""

    wall_s: float
    cpu_s: float  # of all its processes
    n_bytes: int  # that it stored more than it deleted
    n_files: int


def make_slide(path: Path, side: int) -> None:
    """A TIFF of cells on a background, with noise: neither compresses to nothing."""
    import numpy as np
    import tifffile
    from scipy import ndimage

    chance = np.random.default_rng(0)
    smooth = ndimage.gaussian_filter(chance.random((side, side), np.float32), 4)
    cells = np.where(smooth > np.quantile(smooth[:512, :512], 0.6), 160, 60).astype(np.uint8)
    tifffile.imwrite(path, cells + chance.integers(0, 9, cells.shape, np.uint8), tile=(256, 256))


def make_model(path: Path) -> None:
    """A small network of random weights that tells light from dark; both versions read the file."""
    import torch

    from segment_slide.unet.architecture import Architecture
    from segment_slide.unet.checkpoint import ModelConfig, Normalisation, save_checkpoint
    from segment_slide.unet.model import UNet

    torch.manual_seed(0)
    network = UNet(Architecture(in_channels=1, n_classes=2, base_channels=4, depth=2, dropout=0.0)).eval()
    with torch.no_grad():
        logits = network(torch.randn(1, 1, 188, 188)).transpose(0, 1).reshape(2, -1)
        network.classify.bias -= logits.median(dim=1).values
    normalisation = Normalisation(offset=(100.0,), scale=(50.0,))
    save_checkpoint(path, network, ModelConfig(network.architecture, ("background", "cell"), normalisation))


def find_command(checkout: Path) -> Path:
    """The installed command of a checkout, or of the interpreter that was given."""
    places = (checkout / ".venv/bin/segment-slide", checkout.with_name("segment-slide"))
    for place in places:
        if place.is_file():
            return place
    raise SystemExit(f"--other {checkout}: no segment-slide at {places[0]} nor at {places[1]}")


def run(command: Path, words: Sequence[str], folder: Path) -> Price:
    """Run a command to its end; what a folder holds more afterwards is what it stored."""
    bytes_before, files_before = sizes(folder)
    log = folder.parent / "output.txt"
    began = time.perf_counter()
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    streams = [(os.POSIX_SPAWN_DUP2, output, number) for number in (1, 2)]
    child = os.posix_spawn(str(command), [str(command), *words], os.environ, file_actions=streams)
    os.close(output)
    _, status, used = os.wait4(child, 0)
    wall_s = time.perf_counter() - began
    if code := os.waitstatus_to_exitcode(status):
        raise SystemExit(f"{command} {' '.join(words)} ended with {code}:\n{log.read_text()}")
    bytes_after, files_after = sizes(folder)
    stored = (bytes_after - bytes_before, files_after - files_before)
    return Price(wall_s, used.ru_utime + used.ru_stime, *stored)


def sizes(folder: Path) -> tuple[int, int]:
    """Bytes and number of all files below a folder."""
    found = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    return sum(found), len(found)


Prices = dict[tuple[str, str], list[Price]]  # by command and side, one per round


def measure(
    commands: Mapping[str, Path], places: Mapping[str, Path], names: Sequence[str], rounds: int, workers: int
) -> Prices:
    """Run the chain in turns; the first round of all does not count, because it may compile."""
    prices: Prices = {}
    for number in range(-1, rounds):
        for side in sorted(commands, reverse=bool(number % 2)):
            folder = places["work"] / "run"
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            for name in names:
                more = f"--workers {workers}" if name != "ingest" else ""
                words = CHAIN[name].format(folder=folder, workers=more, **places).split()
                price = run(commands[side], words, folder)
                if number >= 0:
                    prices.setdefault((name, side), []).append(price)
    return prices


def show(report: Report, side_px: int, names: Sequence[str], prices: Prices) -> None:
    """A row per command."""
    rows = []
    for name in names:
        ours, other = prices[name, OURS], prices[name, OTHER]
        pairs = list(zip(ours, other, strict=True))
        wall = statistics.median(a.wall_s / b.wall_s for a, b in pairs)
        cpu = statistics.median(a.cpu_s / b.cpu_s for a, b in pairs)
        spread = f"{min(a.cpu_s / b.cpu_s for a, b in pairs):.2f} to {max(a.cpu_s / b.cpu_s for a, b in pairs):.2f}"
        kept = ours[0].n_bytes / max(1, other[0].n_bytes)
        rows.append(
            [
                name,
                f"{statistics.median(a.wall_s for a in ours):.2f}",
                f"{statistics.median(b.wall_s for b in other):.2f}",
                report.ratio(f"{side_px} px: {name}: s", wall),
                report.ratio(f"{side_px} px: {name}: processor s", cpu),
                spread,
                f"{ours[0].n_bytes / MiB:.3f}",
                f"{kept:.4f}",
                f"{ours[0].n_files} and {other[0].n_files}",
            ]
        )
        report.ratios[f"{side_px} px: {name}: bytes"] = kept
    headings = ["command", "s", "other s", "ratio", "ratio, processor", "of the rounds", "MiB", "ratio, bytes", "files"]
    report.table(f"{side_px}² px, {len(prices[names[0], OURS])} rounds", headings, rows)


def main() -> None:
    """Make the slides, run both in turns, print the ratios."""
    parser = make_parser(__doc__)
    parser.add_argument("--other", type=Path, required=True, help="another checkout with .venv, or its interpreter")
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 4096], help="px per side of the slides")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--commands", nargs="+", choices=CHAIN, default=list(CHAIN), help="the first ones of the chain")
    arguments = parser.parse_args()
    if list(arguments.commands) != list(CHAIN)[: len(arguments.commands)]:
        parser.error(f"--commands: each needs those before it: {', '.join(CHAIN)}")
    commands = {OURS: find_command(Path(sys.executable)), OTHER: find_command(arguments.other.absolute())}
    report = Report(arguments)
    with tempfile.TemporaryDirectory() as name:
        places = {"work": Path(name), "slide": Path(name, "slide.tif"), "model": Path(name, "cells.safetensors")}
        make_model(places["model"])
        for side in arguments.sizes:
            make_slide(places["slide"], side)
            show(report, side, arguments.commands, measure(
                commands, places, arguments.commands, arguments.rounds, arguments.workers
            ))  # fmt: skip
    report.save()


if __name__ == "__main__":
    main()
