"""What a pixel costs in a slide of 16 megapixels and in one of 4 gigapixels: it should be the same.

    python benchmarks/flat.py [--sizes 4096 8192 16384 32768 65536] [--base 4] [--precision bfloat16]

Each size is segmented by the real flow in a process of its own: wall seconds of the segmentation and of the pyramid,
processor seconds of that process and its workers, peaks of resident memory. A slide of one block before warms the
workers up and does not count. Slides consist of 16 different chunks of
512 px, written once and linked to all other places: reading them is from the page cache, at any size. After the
first size the time of the others is estimated, and those that would pass `--limit-s` are left out.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import zarr
from common import MiB, Report, family_cpu_s, make_parser

from segment_slide.flows.requests import Workers

CHUNK, N_DIFFERENT = 512, 16
SMALL = 512


def make_image(path: Path, size: int) -> None:
    """A square uint8 image of a few different chunks again and again, hard links to the same files."""
    zarr.create_array(path, shape=(size, size), chunks=(CHUNK, CHUNK), dtype="uint8")
    side = size // CHUNK
    first = zarr.create_array(
        path.with_suffix(".chunks"), shape=(CHUNK, CHUNK * N_DIFFERENT), chunks=(CHUNK, CHUNK), dtype="uint8"
    )
    rng = np.random.default_rng(0)
    coarse = rng.normal(size=(CHUNK // 16, CHUNK // 16 * N_DIFFERENT))
    pixels = np.kron(coarse, np.ones((16, 16))) * 40 + 128 + rng.normal(size=first.shape) * 8
    first[...] = np.clip(pixels, 0, 255).astype(np.uint8)
    files = [path.with_suffix(".chunks") / f"c/0/{number}" for number in range(N_DIFFERENT)]
    for row in range(side):
        folder = path / f"c/{row}"
        folder.mkdir(parents=True)
        for column in range(side):
            os.link(files[(row * 7 + column) % N_DIFFERENT], folder / str(column))


def run_one(folder: Path, size: int, arguments: argparse.Namespace) -> dict[str, float]:
    """Segment one slide in this process, by workers that have segmented a small one before; figures."""
    from memory import PeakWatch

    from segment_slide.flows.requests import SegmentRequest
    from segment_slide.flows.segment import segment_image
    from segment_slide.flows.workers import sharing_workers
    from segment_slide.pipeline.segmentation.options import SegmentOptions

    def request(image: str, output: str) -> SegmentRequest:
        return SegmentRequest(
            input=str(folder / image),
            model=str(folder / "model.safetensors"),
            output=str(folder / output),
            options=SegmentOptions(block=arguments.block, precision=arguments.precision),
            axes="yx",
            workers=Workers(arguments.workers),
        )

    watch = PeakWatch()
    watch.start()
    with sharing_workers():
        segment_image(request("small.zarr", "small.ome.zarr"))
        cpu_s = family_cpu_s()
        done = segment_image(request("image.zarr", "out.ome.zarr"))
        cpu_s = family_cpu_s() - cpu_s
    return {
        "size": size,
        "segment_s": done.stage_seconds["segment"],
        "pyramid_s": done.stage_seconds["pyramid"],
        "cpu_s": cpu_s,
        "wall_s": done.seconds,
        "worker_bytes": max(watch.stop().values()),
        "client_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "blocks": done.n_blocks,
    }


def save_network(path: Path, base: int, depth: int) -> None:
    """Of random weights."""
    import torch

    from segment_slide.unet.architecture import Architecture
    from segment_slide.unet.checkpoint import ModelConfig, Normalisation, save_checkpoint
    from segment_slide.unet.model import UNet

    architecture = Architecture(base_channels=base, depth=depth)
    torch.manual_seed(0)
    config = ModelConfig(architecture, normalisation=Normalisation(offset=(128,), scale=(64,)))
    save_checkpoint(path, UNet(architecture), config)


def start_one(folder: Path, size: int, words: list[str]) -> dict[str, float]:
    """A slide, segmented by another process, and deleted."""
    make_image(folder / "image.zarr", size)
    make_image(folder / "small.zarr", SMALL)
    command = [sys.executable, __file__, "--one", str(folder), "--sizes", str(size), *words]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    for name in ("image.zarr", "image.chunks", "out.ome.zarr", "small.zarr", "small.chunks", "small.ome.zarr"):
        shutil.rmtree(folder / name)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Measure and print."""
    parser = make_parser(__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[4096, 8192, 16384, 32768, 65536])
    parser.add_argument("--base", type=int, default=4)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--block", type=int)
    parser.add_argument("--precision", default="bfloat16")
    parser.add_argument("--workers", type=int)
    parser.add_argument("--limit-s", type=float, default=3600, help="of one size (default: %(default)s)")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(run_one(arguments.one, arguments.sizes[0], arguments)))
        return
    if any(size % CHUNK for size in arguments.sizes):
        parser.error(f"sizes are multiples of {CHUNK} px")
    report = Report(arguments)
    words = ["--precision", arguments.precision]
    words += [
        word
        for name in ("block", "workers")
        if (value := getattr(arguments, name))
        for word in (f"--{name}", str(value))
    ]
    found: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_network(folder / "model.safetensors", arguments.base, arguments.depth)
        for size in sorted(arguments.sizes):
            if found:
                estimate = found[-1]["wall_s"] * (size / found[-1]["size"]) ** 2
                report.say(f"{size}^2 px: about {estimate / 60:.1f} min")
                if estimate > arguments.limit_s:
                    report.say(f"left out: more than {arguments.limit_s:.0f} s")
                    break
            found.append(start_one(folder, size, words))
            report.say(f"{size}^2 px took {found[-1]['wall_s']:.0f} s")
    tabulate(report, arguments, found)
    report.save()


def tabulate(report: Report, arguments: argparse.Namespace, found: list[dict[str, float]]) -> None:
    """Costs per megapixel, and over those of the first size."""
    rows, first = [], None
    for one in found:
        pixels = one["size"] ** 2 / 1e6
        costs = {
            "wall": (one["segment_s"] + one["pyramid_s"]) / pixels,
            "processor": one["cpu_s"] / pixels,
            "worker": one["worker_bytes"],
            "client": one["client_bytes"],
        }
        first = first or costs
        over = {
            key: report.ratio(f"{key}, {one['size']:.0f}^2 over {found[0]['size']:.0f}^2", costs[key] / first[key])
            for key in costs
        }
        rows.append(
            [
                f"{one['size']:.0f}²", f"{one['blocks']:,}",
                f"{one['segment_s'] / pixels:.4f}", f"{one['pyramid_s'] / pixels:.4f}", over["wall"],
                f"{costs['processor']:.4f}", over["processor"],
                f"{costs['worker'] / MiB:.0f}", over["worker"],
                f"{costs['client'] / MiB:.0f}", over["client"],
            ]
        )  # fmt: skip
    headings = ("px", "blocks", "segment, s/Mpx", "pyramid, s/Mpx", "ratio", "processor, s/Mpx", "ratio",
                "a worker's peak, MiB", "ratio", "client's peak, MiB", "ratio")  # fmt: skip
    title = f"base {arguments.base}, depth {arguments.depth}, {arguments.precision}; over the smallest"
    report.table(title, headings, rows)


if __name__ == "__main__":
    main()
