"""Runs of `peers.py`: each in a process of its own, watched, and its labels compared with the whole image's."""

import argparse
import json
import math
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import zarr
from instances import watch
from peers_image import CHUNK

from segment_slide.unet.geometry import Geometry

ROOT = Path(__file__).parents[1]
SMALL = 1024  # px; two windows and their overlap
OURS = ("ours", "ours-tile", "ours-bfloat16")
PEERS = ("monai-25", "monai-50", "monai-exact", "nnunet", "torch-em", "dask", "tiatoolbox", "patches", "network")
IMPORT_TORCHVISION = ("torch-em", "tiatoolbox")  # see torchvision-requirements.txt
NAMES = {
    "ours": "segment-slide",
    "ours-tile": "segment-slide, tiles as the peers'",
    "ours-bfloat16": "segment-slide, bfloat16 (its default here)",
    "monai-25": "MONAI, overlap 0.25, Gaussian",
    "monai-50": "MONAI, overlap 0.5, Gaussian",
    "monai-exact": "MONAI, halo and weight map by hand",
    "nnunet": "nnU-Net, step 0.5, Gaussian",
    "torch-em": "torch-em, predict_with_halo",
    "dask": "dask.array.map_overlap on stored chunks",
    "tiatoolbox": "TIAToolbox, SemanticSegmentor",
    "patches": "a patch per pixel (some measured, the rest reckoned)",
    "network": "the network alone, no reading or writing",
}


@dataclass
class Run:
    """One run of one peer."""

    peer: str
    size: int
    seconds: float = math.nan
    cpu_s: float = math.nan
    whole_s: float = math.nan
    whole_cpu_s: float = math.nan
    peak_bytes: int = 0
    files: int = 0
    versions: str = ""
    note: str = ""  # why there is no result
    stages: dict[str, float] = field(default_factory=dict)  # seconds of ours
    sample: dict[str, float] = field(default_factory=dict)  # what `patches` measured


@dataclass
class Error:
    """How far a result is from the whole image in one pass."""

    labels: float  # share of pixels with another label
    labels_inside: float  # likewise, of those farther than the halo from the border
    scores_max: float | None = None
    scores_mean: float | None = None


@dataclass
class Bench:
    """Runs peers in processes of their own and compares their results."""

    folder: Path
    given: argparse.Namespace
    model: str
    geometry: Geometry

    def run(self, peer: str, size: int, precision: str, scores: bool = False) -> Run:
        """One run; its output stays until the peer's next one."""
        for end in ("", ".npy", "-warm-up", "-warm-up.npy", "-scores.npy"):
            made_before = self.folder / f"out-{peer}{end}"
            shutil.rmtree(made_before) if made_before.is_dir() else made_before.unlink(missing_ok=True)
        run, python = Run(peer, size), self._python(peer)
        if not Path(python).exists():
            run.note = f"not run: no {python} (make bench-env, or --python and --torchvision-python)"
            return run
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        with tempfile.TemporaryFile("w+") as errors:
            child = subprocess.Popen(
                self._command(peer, size, precision, scores),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(self.given.threads)},
                cwd=self.folder,
            )
            run.peak_bytes, _, run.note = watch(psutil.Process(child.pid), self.given.minutes * 60, math.inf)
            printed, wall_s = child.communicate()[0], time.perf_counter() - began
            errors.seek(0)
            said = errors.read().strip().splitlines()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        if child.returncode and not run.note:
            run.note = f"failed: {said[-1] if said else child.returncode}"
        if not run.note:
            found = json.loads(printed.splitlines()[-1])
            beside = found.pop("beside")
            run.whole_s = wall_s - beside["seconds"]
            run.whole_cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime - beside["cpu_s"]
            for name, value in found.items():
                setattr(run, name, value)
            run.files = sum(path.is_file() for path in (self.folder / f"out-{peer}").rglob("*"))
            if peer == "patches":
                reckon_all_pixels(run)
        print(f"{peer}, {size} px, {precision}: {wall_s:.1f} s with start and warm-up {run.note}", file=sys.stderr)
        return run

    def _python(self, peer: str) -> str:
        if peer in OURS:
            return sys.executable
        return str(self.given.torchvision_python if peer in IMPORT_TORCHVISION else self.given.python)

    def _command(self, peer: str, size: int, precision: str, scores: bool) -> list[str]:
        kind = "-rgb" if peer == "tiatoolbox" else ""
        image, small = (str(self.folder / f"image-{side}{kind}.zarr") for side in (size, SMALL))
        output, tile = str(self.folder / f"out-{peer}"), str(self.given.tile)
        if peer in OURS:
            own = "bfloat16" if peer == "ours-bfloat16" else precision
            words = [image, small, self.model, output, own, tile if peer == "ours-tile" else "0"]
            return [sys.executable, str(ROOT / "benchmarks/peers_ours.py"), "segment", *words]
        command = [self._python(peer), str(ROOT / "benchmarks/peers_run.py"), peer, image, output, "--warm-up", small]
        command += ["--model", self.model, "--precision", precision, "--tile", tile]
        command += ["--threads", str(self.given.threads)]
        return command + (["--scores", f"{output}-scores.npy"] if scores else [])

    def labels(self, peer: str, size: int) -> Any:
        """Where a peer put its labels."""
        output = self.folder / f"out-{peer}"
        if peer in OURS:
            return zarr.open_array(output / "labels/segmentation/0", mode="r")
        if peer == "tiatoolbox":
            return zarr.open_group(next(output.glob("*.zarr")), mode="r")["predictions"]
        return zarr.open_array(output, mode="r")

    def compare(self, peer: str, size: int, whole: np.ndarray) -> Error:
        """Labels and scores beside those of the whole image (n_classes, y, x), band by band."""
        expected = whole.argmax(axis=0).astype(np.uint8)
        if peer == "patches":
            y, x, found = np.load(self.folder / "out-patches.npy").T
            other = found != expected[y, x]
            halo = self.geometry.halo
            inside = (np.minimum(y, x) >= halo) & (np.maximum(y, x) < size - halo)
            return Error(float(other.mean()), float(other[inside].mean()))
        other = np.asarray(self.labels(peer, size)[:]).reshape(size, size) != expected
        halo = self.geometry.halo
        error = Error(float(other.mean()), float(other[halo : size - halo, halo : size - halo].mean()))
        stored = self.folder / f"out-{peer}-scores.npy"
        if stored.exists():
            scores, largest, total = np.load(stored, mmap_mode="r"), 0.0, 0.0
            for top in range(0, size, CHUNK):
                band = (slice(None), slice(top, top + CHUNK))
                change = np.abs(probability(scores[band]) - probability(whole[band]))
                largest, total = max(largest, float(change.max())), total + float(change.sum(dtype=np.float64))
            error.scores_max, error.scores_mean = largest, total / size**2
        return error


def probability(logits: np.ndarray) -> np.ndarray:
    """Softmax of the last class."""
    logits = np.asarray(logits, np.float32)
    powers = np.exp(logits - logits.max(axis=0))
    return powers[-1] / powers.sum(axis=0)


def reckon_all_pixels(run: Run) -> None:
    """Seconds of all pixels from those of the sampled ones; reading the image once is not multiplied."""
    more = run.size**2 / run.sample["pixels"] - 1
    wall_s, cpu_s = more * run.sample["seconds"], more * run.sample["cpu_s"]
    run.seconds, run.whole_s = run.seconds + wall_s, run.whole_s + wall_s
    run.cpu_s, run.whole_cpu_s = run.cpu_s + cpu_s, run.whole_cpu_s + cpu_s
