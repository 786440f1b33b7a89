"""Does memory grow with the number of blocks? Resident memory of client and workers, once a second, over a long run.

The installed command segments an image of many small blocks on two worker processes, then one of a tenth as many. Its
own process holds client and scheduler. Printed for each process: medians of the first and of the last quarter of the
blocks, and the slope by least squares after the first quarter, which loads libraries and fills caches. Run it with::

    python benchmarks/memory_slope.py [--blocks 2500] [--workers 2]
"""

import argparse
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import torch
from memory import make_image

from segment_slide.unet.architecture import Architecture
from segment_slide.unet.checkpoint import ModelConfig, Normalisation, save_checkpoint
from segment_slide.unet.model import UNet

BLOCK = 64
MiB, KiB = 1 << 20, 1 << 10
CLIENT = "client + scheduler"


@dataclass
class Samples:
    """Blocks that were done and bytes that were resident, of one process."""

    blocks: list[int] = field(default_factory=list)
    resident: list[int] = field(default_factory=list)

    def median(self, first: float, last: float) -> float:
        """Bytes, over the samples between two shares of the blocks."""
        blocks = np.array(self.blocks) / self.blocks[-1]
        return float(np.median(np.array(self.resident)[(blocks >= first) & (blocks <= last)]))

    def slope(self) -> float:
        """Bytes per block after the first quarter."""
        late = np.array(self.blocks) >= self.blocks[-1] / 4
        return float(np.polyfit(np.array(self.blocks)[late], np.array(self.resident)[late], 1)[0])


def save_network(path: Path) -> None:
    """Small, of random weights."""
    architecture = Architecture(base_channels=4, depth=2)
    torch.manual_seed(0)
    normalisation = Normalisation(offset=(128.0,), scale=(64.0,))
    save_checkpoint(path, UNet(architecture), ModelConfig(architecture, normalisation=normalisation))


def count_blocks(output: Path) -> int:
    """Shards of the labels that are stored."""
    rows = output / "labels/segmentation/0/c"
    return sum(len(os.listdir(row)) for row in rows.iterdir()) if rows.exists() else 0


def watch(command: list[str], output: Path, interval_s: float) -> tuple[dict[str, Samples], float]:
    """Run a command to its end; samples of its processes by name, and its wall time."""
    samples: dict[str, Samples] = defaultdict(Samples)
    began, process = time.perf_counter(), subprocess.Popen(command, stdout=subprocess.DEVNULL)
    root = psutil.Process(process.pid)
    while process.poll() is None:
        done = count_blocks(output)
        for one in (root, *root.children(recursive=True)) if done else ():
            try:
                is_worker = "spawn_main" in " ".join(one.cmdline())
                if one == root or is_worker:
                    taken = samples[f"worker {one.pid}" if is_worker else CLIENT]
                    taken.resident.append(one.memory_info().rss)
                    taken.blocks.append(done)
            except psutil.Error:  # it ended
                continue
        time.sleep(interval_s)
    if process.returncode:
        raise SystemExit(f"the command failed with exit code {process.returncode}")
    return samples, time.perf_counter() - began


def segment(folder: Path, n_blocks: int, workers: int, interval_s: float) -> dict[str, Samples]:
    """One run; prints its table."""
    side = math.ceil(math.sqrt(n_blocks))
    image = make_image(folder, side * BLOCK)
    output = folder / f"{n_blocks}.ome.zarr"
    command = [str(Path(sys.executable).with_name("segment-slide")), "segment", image, "--axes", "yx"]
    command += ["-m", str(folder / "model.safetensors"), "-o", str(output), "--precision", "float32"]
    command += ["--block", str(BLOCK), "--tile", str(BLOCK), "--workers", str(workers), "--device", "cpu"]
    samples, seconds = watch(command, output, interval_s)
    print(f"\n{side**2} blocks of {BLOCK} px, {workers} workers, {seconds:.0f} s, a sample every {interval_s:g} s\n")
    print("| process | samples | first quarter, MiB | last quarter, MiB | slope, KiB per 1,000 blocks | most, MiB |")
    print("|---|--:|--:|--:|--:|--:|")
    for name, taken in sorted(samples.items()):
        print(
            f"| {name} | {len(taken.blocks)} | {taken.median(0, 0.25) / MiB:.1f} | {taken.median(0.75, 1) / MiB:.1f} "
            f"| {taken.slope() * 1000 / KiB:+.0f} | {max(taken.resident) / MiB:.1f} |",
            flush=True,
        )
    return samples


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=2500)
    parser.add_argument("--few", type=int, default=256)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_network(folder / "model.safetensors")
        many = segment(folder, arguments.blocks, arguments.workers, 1.0)
        shutil.rmtree(folder / "image.zarr")
        few = segment(folder, arguments.few, arguments.workers, 0.2)
    for kind in (CLIENT, "worker"):
        most = [max(max(taken.resident) for name, taken in run.items() if name.startswith(kind)) for run in (many, few)]
        ratio = arguments.blocks / arguments.few
        print(f"\n{kind}: peak of the long run / of the short one = {most[0] / most[1]:.3f}, blocks {ratio:.1f} times")


if __name__ == "__main__":
    main()
