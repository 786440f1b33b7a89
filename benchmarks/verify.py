"""Time of `verify` beside a plain read of all chunks of the same output, in turns.

Run: ``python benchmarks/verify.py [FOLDER] [--size 8192] [--turns 5]``. Prints seconds of each turn, and the ratio of
the medians.
"""

import argparse
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from os import sched_getaffinity
from pathlib import Path

import numpy as np
import tifffile
import zarr

from segment_slide.flows.ingest import ingest_image
from segment_slide.pipeline.blocks.progress import QuietStages
from segment_slide.pipeline.integrity.run import verify


def make(folder: Path, size: int) -> Path:
    """A converted image of smooth noise."""
    chance = np.random.default_rng(0)
    coarse = chance.integers(0, 200, (size // 8, size // 8), np.uint8)
    pixels = np.kron(coarse, np.ones((8, 8), np.uint8)) + chance.integers(0, 16, (size, size), np.uint8)
    tifffile.imwrite(folder / "slide.tif", pixels, tile=(512, 512))
    ingest_image([folder / "slide.tif"], str(folder / "slide.ome.zarr"))
    return folder / "slide.ome.zarr"


def read_all(path: Path) -> None:
    """Decode every chunk of every level, in as many threads as there are cores."""
    boxes = []
    for level in sorted(file.parent for file in path.glob("[0-9]*/zarr.json")):
        array = zarr.open_array(level, mode="r")
        shard = array.shards or array.chunks
        counts = [-(-size // step) for size, step in zip(array.shape, shard, strict=True)]
        for index in np.ndindex(*counts):
            boxes.append((array, tuple(slice(i * n, (i + 1) * n) for i, n in zip(index, shard, strict=True))))
    with ThreadPoolExecutor(len(sched_getaffinity(0))) as threads:
        list(threads.map(lambda item: item[0][item[1]], boxes))


def main() -> None:
    """Print the times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--size", type=int, default=8192)
    parser.add_argument("--turns", type=int, default=5)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=chosen.folder) as folder:
        path = make(Path(folder), chosen.size)
        times: dict[str, list[float]] = {"verify": [], "read": []}
        for _ in range(chosen.turns):
            began = time.perf_counter()
            report = verify(str(path), QuietStages())
            times["verify"].append(time.perf_counter() - began)
            assert report.is_sound, report.findings
            began = time.perf_counter()
            read_all(path)
            times["read"].append(time.perf_counter() - began)
    for name, seconds in times.items():
        print(name, " ".join(f"{value:.2f}" for value in seconds), "s")
    ratio = statistics.median(times["verify"]) / statistics.median(times["read"])
    print(f"{report.n_bytes / 1e6:.0f} MB in {report.n_files} files; verify / read = {ratio:.2f}")


if __name__ == "__main__":
    main()
