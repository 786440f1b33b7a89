"""Processor time that short commands take from start to end, beside `info`, and what they import.

Usage: python benchmarks/start.py [--rounds 5] [--output DIR]

`plan` answers before any work, so it should take little longer than `info`. Commands run in turns, each in a process of
its own, on a small image and network. User and system time are counted, not the time that a busy machine lets wait.
"""

import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import zarr
from common import Report, make_parser

from segment_slide.unet.architecture import Architecture
from segment_slide.unet.checkpoint import ModelConfig, Normalisation, save_checkpoint
from segment_slide.unet.model import UNet

COMMAND = Path(sys.executable).with_name("segment-slide")
HEAVY = ("torch", "distributed", "dask", "prefect", "numba", "scipy", "pandas", "zarr")


def write_inputs(folder: Path) -> tuple[Path, Path]:
    """A bare Zarr array and a network."""
    slide, model = folder / "slide.zarr", folder / "cells.safetensors"
    zarr.create_array(str(slide), data=np.zeros((256, 256), np.uint8), chunks=(64, 64))
    architecture = Architecture(base_channels=4, depth=2)
    normalisation = Normalisation(offset=(0.0,), scale=(1.0,))
    save_checkpoint(model, UNet(architecture), ModelConfig(architecture, ("background", "cell"), normalisation))
    return slide, model


def cpu_s(words: list[str]) -> float:
    """User and system seconds of a command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([COMMAND, *words], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def imported(words: list[str]) -> list[str]:
    """The heavy packages that a command imports."""
    script = "import sys; from segment_slide.flows.commands.main import main; main()"
    run = [sys.executable, "-X", "importtime", "-c", script, *words]
    lines = subprocess.run(run, check=True, capture_output=True, text=True).stderr.splitlines()
    names = {line.rpartition("|")[2].strip() for line in lines}
    return [name for name in HEAVY if name in names]


def main() -> None:
    """Measure and print."""
    parser = make_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="runs of each command")
    arguments = parser.parse_args()
    report = Report(arguments)
    with tempfile.TemporaryDirectory() as folder:
        slide, model = map(str, write_inputs(Path(folder)))
        commands = {
            "info": ["info", model],
            "plan": ["plan", slide, "-m", model, "--axes", "yx"],
            "--version": ["--version"],
            "plan --help": ["plan", "--help"],
        }
        seconds: dict[str, list[float]] = {name: [] for name in commands}
        for number in range(arguments.rounds + 1):
            for name, words in commands.items():
                found = cpu_s(words)
                if number:  # the first round reads the files from the disk
                    seconds[name].append(found)
        base = statistics.median(seconds["info"])
        rows = []
        for name, words in commands.items():
            median = statistics.median(seconds[name])
            ratio = report.ratio(f"processor time of {name} over info", median / base)
            rows.append((name, f"{median:.2f}", ratio, ", ".join(imported(words)) or "none"))
    report.table("Processor time of short commands", ("command", "s", "over info", "heavy packages"), rows)
    report.save()


if __name__ == "__main__":
    main()
