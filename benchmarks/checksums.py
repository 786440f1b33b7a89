"""What checksums and the manifest cost: seconds and bytes of a segmentation with them and without them, in turns.

Without: zstd without its frame checksum, and stages that are not sealed. Rounds alternate, in one process each, so that
neither finds a warmer disk. A second table says what each part costs alone: zstd with and without its checksum, sha256
of what is written, and reading a finished output once more to compare it with its manifest::

    python benchmarks/checksums.py --size 4096 --rounds 5
"""

import argparse
import contextlib
import hashlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
import zarr
from numcodecs.zstd import Zstd

from segment_slide.unet.architecture import Architecture
from segment_slide.unet.checkpoint import ModelConfig, Normalisation, save_checkpoint
from segment_slide.unet.model import UNet

WITH, WITHOUT = "with", "without"
CHILD = "--child"


def make_inputs(folder: Path, size_px: int) -> tuple[Path, Path]:
    """A smooth image with noise, and a small network of random weights: little computing, so that writing counts."""
    rng = np.random.default_rng(0)
    coarse = np.kron(rng.normal(size=(size_px // 16, size_px // 16)), np.ones((16, 16)))
    pixels = np.clip(coarse * 40 + rng.normal(size=(size_px, size_px)) * 8 + 128, 0, 255).astype(np.uint8)
    image = zarr.create_array(folder / "slide.zarr", shape=pixels.shape, chunks=(512, 512), dtype="uint8")
    image[...] = pixels
    torch.manual_seed(0)
    architecture = Architecture(in_channels=1, n_classes=2, base_channels=2, depth=1)
    config = ModelConfig(architecture, ("background", "cell"), Normalisation(offset=(128.0,), scale=(40.0,)))
    save_checkpoint(folder / "network.safetensors", UNet(architecture).eval(), config)
    return folder / "slide.zarr", folder / "network.safetensors"


def run_child(way: str, slide: str, model: str, output: str) -> None:
    """Segment, number and measure in this process; print the seconds of the work alone, without imports."""
    import segment_slide.flows.instances as numbering
    import segment_slide.flows.measure as measuring
    import segment_slide.flows.segment as segmenting
    from segment_slide.flows.requests import InstancesRequest, MeasureRequest, SegmentRequest
    from segment_slide.pipeline.objects import stages as object_stages
    from segment_slide.pipeline.segmentation import stages as segment_stages
    from segment_slide.pipeline.segmentation.options import SegmentOptions
    from segment_slide.pipeline.storage import store

    if way == WITHOUT:
        plain = store.ZstdCodec
        store.ZstdCodec = lambda *, level, checksum: plain(level=level)
        for module in (segment_stages, object_stages, measuring):
            module.sealing = lambda *_: contextlib.nullcontext()
    for module in (segmenting, numbering, measuring):
        module.open_cluster = lambda *_, **__: contextlib.nullcontext()
    began = time.perf_counter()
    segmenting.segment_image(SegmentRequest(slide, model, output, SegmentOptions(probabilities="uint8"), axes="yx"))
    numbering.label_objects(InstancesRequest(output))
    measuring.measure_objects(MeasureRequest(output))
    print(time.perf_counter() - began)


def segment(way: str, slide: Path, model: Path, output: Path) -> float:
    """Seconds of one run in a process of its own."""
    words = [sys.executable, __file__, CHILD, way, str(slide), str(model), str(output)]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1])


def size_of(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def seconds(function: Callable[[], object], repeats: int = 5) -> float:
    """Median of some calls."""

    def times() -> Iterator[float]:
        for _ in range(repeats):
            began = time.perf_counter()
            function()
            yield time.perf_counter() - began

    return statistics.median(times())


def print_parts(output: Path) -> None:
    """What each part costs for one label shard's worth of pixels, and for reading an output again."""
    from segment_slide.pipeline.manifest.compare import compare_files
    from segment_slide.pipeline.manifest.manifest import read_manifest

    rng = np.random.default_rng(0)
    pixels = np.kron(rng.integers(0, 2, (256, 256), np.uint8), np.ones((8, 8), np.uint8))
    raw = (pixels * 200 + rng.integers(0, 16, pixels.shape, np.uint8)).tobytes()
    manifest = read_manifest(str(output))
    assert manifest is not None
    n_bytes = sum(digest.size for digest in manifest.files.values())
    rows = []
    for name, content in (("labels", pixels.tobytes()), ("noisy pixels", raw)):
        plain, checked = Zstd(level=3), Zstd(level=3, checksum=True)
        encoded, before = checked.encode(content), plain.encode(content)
        writing = [seconds(partial(codec.encode, content)) for codec in (plain, checked)]
        reading = [seconds(partial(codec.decode, part)) for codec, part in ((plain, before), (checked, encoded))]
        rows += [(f"zstd encode, {name}", *writing), (f"zstd decode, {name}", *reading)]
        rows.append((f"sha256 of {len(encoded):,} bytes, {name}", 0.0, seconds(partial(hashlib.sha256, encoded))))
    rows.append((f"verify {n_bytes:,} bytes", 0.0, seconds(lambda: compare_files(str(output), manifest))))
    print(f"\n| part ({len(raw):,} bytes of pixels) | without, ms | with, ms |\n|---|--:|--:|")
    for name, before, after in rows:
        print(f"| {name} | {before * 1e3:.2f} | {after * 1e3:.2f} |")


def main() -> None:
    """Print both tables."""
    if sys.argv[1:2] == [CHILD]:
        run_child(*sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=4096, help="pixels per side")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        slide, model = make_inputs(folder, options.size)
        times: dict[str, list[float]] = {WITH: [], WITHOUT: []}
        for number in range(options.rounds):
            for way in (WITH, WITHOUT) if number % 2 else (WITHOUT, WITH):
                times[way].append(segment(way, slide, model, folder / f"{way}-{number}.ome.zarr"))
        print("| way | s (median) | s (all) | bytes |\n|---|--:|---|--:|")
        for way, found in times.items():
            shown = ", ".join(f"{value:.2f}" for value in found)
            print(f"| {way} | {statistics.median(found):.2f} | {shown} | {size_of(folder / f'{way}-0.ome.zarr'):,} |")
        manifest = folder / f"{WITH}-0.ome.zarr/_manifest/files.json"
        n_files = manifest.read_bytes().count(b"\n") - 4
        print(f"\nmanifest: {manifest.stat().st_size:,} bytes for {n_files:,} files")
        print_parts(folder / f"{WITH}-0.ome.zarr")


if __name__ == "__main__":
    main()
