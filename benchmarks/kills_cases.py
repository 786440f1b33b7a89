"""What `kills.py` runs: tiny inputs, and each command that writes, with what must be there before it."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

HEIGHT, WIDTH = 600, 200  # px; higher than a chunk of 512, so that there is a pyramid
BLOCK = 128  # px: 10 blocks
ALONE = ("--workers", 1)  # for the installed command; commands in a forked process work without workers
RUN, INPUTS = Path("run"), Path("inputs")  # in the script's folder, where every command is started

Words = tuple[object, ...]


@dataclass(frozen=True)
class Case:
    """One command that writes.

    Parameters
    ----------
    words : tuple
        The command.
    copies : tuple of str
        Inputs that it writes into: they are copied into RUN before.
    may_differ : tuple of str
        Patterns of files whose bytes differ between two undisturbed runs, beside those of `kills.MAY_DIFFER`.
    """

    words: Words
    copies: tuple[str, ...] = ()
    may_differ: tuple[str, ...] = ()

    def prepare(self, folder: Path) -> None:
        """An empty RUN with copies of what the command changes; their times stay, by which older records go."""
        shutil.rmtree(folder / RUN, ignore_errors=True)
        (folder / RUN).mkdir()
        for name in self.copies:
            shutil.copytree(folder / INPUTS / name, folder / RUN / name)


MODEL = ("-m", INPUTS / "cells.safetensors")
SEGMENT = (*MODEL, "--block", BLOCK, "--precision", "float32", *ALONE)
OBJECTS = ("--fill-holes", 50, "--split", 2, "--regrow")
OUT = ("-o", RUN / "out.ome.zarr")
WEIGHTS = (INPUTS / "images", "--labels", INPUTS / "masks", "--kind", "binary", "--sigma", 2, "--block", BLOCK)
SAMPLES = ("--n", 40, "--tile", 16, "--depth", 1)
TRAIN = ("--base-channels", 2, "--steps", 12, "--save-every", 3, "--validate-every", 6, "--device", "cpu")
SCORES = ("--json", RUN / "scores.json", "--csv", RUN / "scores.csv")

CASES = {
    "ingest": Case(("ingest", INPUTS / "slide.tif", RUN / "out.ome.zarr")),
    "ingest a stack": Case(("ingest", INPUTS / "stack.tif", RUN / "out.ome.zarr", "--axes", "zyx")),
    "segment": Case(("segment", INPUTS / "slide.ome.zarr", *OUT, *SEGMENT, "--probabilities", "uint8")),
    "segment, background skipped": Case(
        ("segment", INPUTS / "slide.ome.zarr", *OUT, *SEGMENT, "--skip-background"),
    ),
    "segment --in-place": Case(("segment", RUN / "slide.ome.zarr", "--in-place", *SEGMENT), ("slide.ome.zarr",)),
    "segment --measure": Case(("segment", INPUTS / "slide.ome.zarr", *OUT, *SEGMENT, "--measure")),
    "instances": Case(
        ("instances", RUN / "segmented.ome.zarr", "--block", BLOCK, *OBJECTS, *ALONE), ("segmented.ome.zarr",)
    ),
    "instances --output": Case(("instances", INPUTS / "segmented.ome.zarr", "--block", BLOCK, *OUT, *ALONE)),
    "measure": Case(
        ("measure", RUN / "numbered.ome.zarr", *ALONE), ("numbered.ome.zarr", "segmented.ome.zarr", "slide.ome.zarr")
    ),
    "measure --output": Case(("measure", INPUTS / "numbered.ome.zarr", *OUT, *ALONE)),
    "weight-maps": Case(("weight-maps", *WEIGHTS, "-o", RUN / "set.zarr", *ALONE)),
    "training-data": Case(("training-data", INPUTS / "set.zarr", "-o", RUN / "samples.zarr", *SAMPLES, *ALONE)),
    "train": Case(("train", INPUTS / "samples.zarr", "-o", RUN / "net.safetensors", *TRAIN)),
    "evaluate": Case(
        ("evaluate", INPUTS / "segmented.ome.zarr", INPUTS / "truth.tif", "--binary", *SCORES, *ALONE),
    ),
    "report": Case(("report", INPUTS / "measured.ome.zarr", "-o", RUN / "page.html")),
    "view --export": Case(("view", INPUTS / "numbered.ome.zarr", "--export", RUN / "viewer")),
    "segment-new": Case(
        ("segment-new", INPUTS / "arrived", "-o", RUN, "--stable-minutes", 0, *SEGMENT),
        # the note holds the seconds of each stage, and the list of files the note's sha256
        may_differ=("*/segment-slide.done.json", "*/_manifest/files.json"),
    ),
}  # fmt: skip

# How the inputs are made of each other, by the same commands, in this order.
PREPARED: tuple[Words, ...] = (
    ("ingest", INPUTS / "slide.tif", INPUTS / "slide.ome.zarr"),
    ("segment", INPUTS / "slide.ome.zarr", "-o", INPUTS / "segmented.ome.zarr", *SEGMENT),
    ("instances", INPUTS / "segmented.ome.zarr", "-o", INPUTS / "numbered.ome.zarr", "--block", BLOCK),
    ("instances", INPUTS / "segmented.ome.zarr", "-o", INPUTS / "measured.ome.zarr", "--block", BLOCK),
    ("measure", INPUTS / "measured.ome.zarr"),
    ("weight-maps", *WEIGHTS, "-o", INPUTS / "set.zarr"),
    ("training-data", INPUTS / "set.zarr", "-o", INPUTS / "samples.zarr", *SAMPLES),
)  # fmt: skip


def make_inputs(folder: Path, run: Callable[[Sequence[object]], None]) -> None:
    """All that the commands start from; `run` runs a command to its end."""
    import numpy as np
    import tifffile
    from scipy import ndimage

    chance = np.random.default_rng(0)
    place = folder / INPUTS
    smooth = ndimage.gaussian_filter(chance.random((HEIGHT, WIDTH)), 3)
    cells = smooth > np.quantile(smooth, 0.6)
    pixels = np.where(cells, 90, 30) + chance.integers(0, 6, (HEIGHT, WIDTH))
    pixels[:, :70] = 240  # glass
    for name in ("images", "masks", "arrived"):
        (place / name).mkdir(parents=True)
    tifffile.imwrite(place / "slide.tif", pixels.astype(np.uint8))
    tifffile.imwrite(place / "truth.tif", cells.astype(np.uint8))
    stack = chance.integers(0, 255, (3, HEIGHT, 80), np.uint8)
    tifffile.imwrite(place / "stack.tif", stack, photometric="minisblack")
    for number in range(3):
        box = np.s_[number * 128 : number * 128 + 96, 80:176]
        tifffile.imwrite(place / f"images/t{number}.tif", pixels[box].astype(np.uint8))
        tifffile.imwrite(place / f"masks/t{number}.tif", cells[box].astype(np.uint8))
    for name in ("a", "b"):
        tifffile.imwrite(place / f"arrived/{name}.tif", pixels[-130:, -110:].astype(np.uint8))
    _write_model(place / "cells.safetensors")
    for words in PREPARED:
        run(words)


def _write_model(path: Path) -> None:
    """A network of random weights, both classes about as frequent as each other; it measures its normalisation."""
    import torch

    from segment_slide.unet.architecture import Architecture
    from segment_slide.unet.checkpoint import ModelConfig, Normalisation, save_checkpoint
    from segment_slide.unet.model import UNet

    torch.manual_seed(0)
    architecture = Architecture(in_channels=1, n_classes=2, base_channels=2, depth=1, dropout=0.0)
    network = UNet(architecture).eval()
    with torch.no_grad():
        logits = network(torch.randn(1, 1, 140, 140)).transpose(0, 1).reshape(2, -1)
        network.classify.bias -= logits.median(dim=1).values
    save_checkpoint(path, network, ModelConfig(architecture, ("background", "cell"), Normalisation("mean-std")))
