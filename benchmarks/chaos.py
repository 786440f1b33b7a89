"""Runs in each of which a random worker is killed at a random moment, compared byte by byte with one undisturbed.

A small image of 64 blocks is segmented once undisturbed and then again and again on worker processes of this machine,
of which one is ended by SIGKILL after a random number of blocks. What a run leaves undone (exit code 3) is done by
running it again, and counted. Run it with::

    python benchmarks/chaos.py --runs 100
"""

import argparse
import hashlib
import os
import random
import shutil
import signal
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import torch
import zarr

from segment_slide.flows.requests import SegmentRequest, Workers
from segment_slide.flows.segment import segment_image
from segment_slide.pipeline.errors import IncompleteError
from segment_slide.pipeline.segmentation.options import SegmentOptions
from segment_slide.unet.architecture import Architecture
from segment_slide.unet.checkpoint import ModelConfig, Normalisation, save_checkpoint
from segment_slide.unet.model import UNet

SIDE, BLOCK, WORKERS = 512, 64, 2
N_BLOCKS = (SIDE // BLOCK) ** 2


@dataclass(frozen=True)
class Outcome:
    """One disturbed run."""

    killed: int  # workers that the signal reached
    again: int  # further runs that were needed
    is_equal: bool
    seconds: float


def make_inputs(folder: Path) -> tuple[Path, Path]:
    """A noisy image and a network of random weights."""
    image = zarr.create_array(folder / "slide.zarr", shape=(SIDE, SIDE), chunks=(128, 128), dtype="uint8")
    image[...] = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE), np.uint8)
    architecture = Architecture(in_channels=1, n_classes=2, base_channels=8, depth=2)
    torch.manual_seed(0)
    network = UNet(architecture).eval()
    with torch.no_grad():  # both classes about as frequent: a constant map would prove nothing
        logits = network(torch.randn(1, 1, 140, 140)).transpose(0, 1).reshape(2, -1)
        network.classify.bias -= logits.median(dim=1).values
    path = folder / "network.safetensors"
    normalisation = Normalisation(offset=(128.0,), scale=(74.0,))
    save_checkpoint(path, network, ModelConfig(architecture, ("background", "cell"), normalisation))
    return folder / "slide.zarr", path


def digest(output: Path) -> str:
    """Of all files, by name."""
    total = hashlib.sha256()
    for file in sorted(path for path in output.rglob("*") if path.is_file()):
        total.update(str(file.relative_to(output)).encode() + file.read_bytes())
    return total.hexdigest()


def segment(slide: Path, model: Path, output: Path) -> None:
    """One run."""
    options = SegmentOptions(block=BLOCK, tile=BLOCK, precision="float32")
    segment_image(
        SegmentRequest(str(slide), str(model), str(output), options, axes="yx", device="cpu", workers=Workers(WORKERS))
    )


def kill_one(output: Path, n_stored: int, number: int, killed: list[int]) -> None:
    """Wait until so many blocks are stored, and end a worker."""
    stored = output / "labels/segmentation/0/c"
    while sum(file.is_file() for file in stored.rglob("*")) < n_stored:
        time.sleep(0.005)
    workers = [
        child for child in psutil.Process().children(recursive=True) if "spawn_main" in " ".join(child.cmdline())
    ]
    if workers:
        os.kill(workers[number % len(workers)].pid, signal.SIGKILL)
        killed.append(1)


def disturb(slide: Path, model: Path, output: Path, expected: str, seed: int) -> Outcome:
    """A run with one kill, and again until it is complete."""
    chance = random.Random(seed)
    killed: list[int] = []
    arguments = (output, chance.randrange(N_BLOCKS), chance.randrange(WORKERS), killed)
    killer = threading.Thread(target=kill_one, args=arguments, daemon=True)
    began, again = time.perf_counter(), 0
    killer.start()
    while True:
        try:
            segment(slide, model, output)
            break
        except IncompleteError:
            again += 1
    seconds = time.perf_counter() - began
    killer.join()
    return Outcome(len(killed), again, digest(output) == expected, seconds)


def main() -> None:
    """Print a line per run, then the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        slide, model = make_inputs(folder)
        segment(slide, model, folder / "undisturbed.ome.zarr")
        expected = digest(folder / "undisturbed.ome.zarr")
        outcomes = []
        for seed in range(runs):
            output = folder / f"run-{seed}.ome.zarr"
            outcomes.append(disturb(slide, model, output, expected, seed))
            shutil.rmtree(output)
            print(seed, outcomes[-1], flush=True)
    seconds = sorted(outcome.seconds for outcome in outcomes)
    print("\n| runs | with a worker killed | byte-equal | needed another run | median s | longest s |")
    print("|--:|--:|--:|--:|--:|--:|")
    print(
        f"| {runs} | {sum(o.killed for o in outcomes)} | {sum(o.is_equal for o in outcomes)} "
        f"| {sum(o.again > 0 for o in outcomes)} | {seconds[len(seconds) // 2]:.1f} | {seconds[-1]:.1f} |"
    )


if __name__ == "__main__":
    main()
