"""One process or one per core: the same segmentation by the same cores, divided in three ways.

Runs alternate, so that a busy neighbour disturbs all ways alike. `2 x 1` is two workers of one forward pass at a time,
`1 x 2` one worker of two, each on one core; `1 x 1 of 2` one worker of one forward pass that torch divides among two
cores, which `cluster` never does. Prints medians of pixels per second, of the workers' processor seconds per megapixel
(which a busy neighbour changes little, and which do not see waiting for Python's lock), and of the most memory of all
workers together (the sum of their high-water marks). Run it with::

    python benchmarks/threads.py [--size 2048] [--base 16] [--repeats 3]
"""

import argparse
import os
import statistics
import tempfile
import time
from collections import defaultdict
from contextlib import contextmanager
from pathlib import Path

import torch
from memory import MiB, PeakWatch, make_image

import segment_slide.flows.segment
from segment_slide.cluster.kinds.local import LocalSpec, local_client
from segment_slide.cluster.settings import ENVIRONMENT
from segment_slide.flows.requests import SegmentRequest, Workers
from segment_slide.flows.segment import segment_image
from segment_slide.pipeline.segmentation.options import SegmentOptions
from segment_slide.unet.architecture import Architecture
from segment_slide.unet.checkpoint import ModelConfig, Normalisation, save_checkpoint
from segment_slide.unet.model import UNet

# workers, forward passes at a time in each, torch's threads in each forward pass
WAYS = {"2 x 1": (2, 1, 1), "1 x 2": (1, 2, 1), "1 x 1 of 2": (1, 1, 2)}


def set_torch_threads(count: int) -> float:
    """Threads of one forward pass; runs on a worker. Processor seconds so far, with the import of torch."""
    torch.set_num_threads(count)
    return time.process_time()


def measure(folder: Path, name: str, repeat: int, arguments: argparse.Namespace) -> tuple[float, float, float]:
    """Pixels per second of the segmentation stage, processor seconds per megapixel, and bytes."""
    workers, cores, threads = WAYS[name]
    spent_s: list[float] = []

    @contextmanager
    def open_workers(*_: object, **__: object):
        # the environment says one thread to all workers; this way wants torch's own division of the work
        before = dict(ENVIRONMENT)
        ENVIRONMENT["OMP_NUM_THREADS"] = str(threads)
        with local_client(LocalSpec(workers, cores, (6 << 30) // workers)) as client:
            ENVIRONMENT.update(before)
            before_s = sum(client.run(set_torch_threads, threads).values())
            yield client
            spent_s.append(sum(client.run(time.process_time).values()) - before_s)

    segment_slide.flows.segment.open_cluster = open_workers
    request = SegmentRequest(
        input=str(folder / "image.zarr"),
        model=str(folder / "model.safetensors"),
        output=str(folder / f"{name.replace(' ', '')}-{repeat}.ome.zarr"),
        options=SegmentOptions(block=arguments.block, tile=arguments.tile, precision=arguments.precision),
        axes="yx",
        device="cpu",
        workers=Workers(workers),
    )
    watch = PeakWatch()
    watch.start()
    report = segment_image(request)
    peaks = sorted(watch.stop().values(), reverse=True)[:workers]
    return report.pixels_per_s, spent_s[0] / (arguments.size**2 / 1e6), float(sum(peaks))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=2048)
    parser.add_argument("--base", type=int, default=16)
    parser.add_argument("--block", type=int, default=512)
    parser.add_argument("--tile", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--precision", default="float32")
    arguments = parser.parse_args()
    found: dict[str, list[tuple[float, float, float]]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        architecture = Architecture(base_channels=arguments.base)
        torch.manual_seed(0)
        config = ModelConfig(architecture, normalisation=Normalisation(offset=(128,), scale=(64,)))
        save_checkpoint(folder / "model.safetensors", UNet(architecture), config)
        make_image(folder, arguments.size)
        for repeat in range(arguments.repeats):
            for way in WAYS:
                found[way].append(measure(folder, way, repeat, arguments))
                rate, spent, peak = found[way][-1]
                load = os.getloadavg()[0]
                print(
                    f"{repeat} {way}: {rate / 1e6:.3f} Mpx/s, {spent:.2f} s/Mpx, {peak / MiB:.0f} MiB, load {load:.1f}",
                    flush=True,
                )
    medians = {way: [statistics.median(column) for column in zip(*runs, strict=True)] for way, runs in found.items()}
    base = medians["2 x 1"]
    print(f"\n{arguments.size}^2 px, base {arguments.base}, block {arguments.block}, {arguments.precision}\n")
    print("| workers x forward passes | Mpx/s | ratio | processor s per Mpx | ratio | memory, MiB | ratio |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    for way, (rate, spent, peak) in medians.items():
        print(
            f"| {way} | {rate / 1e6:.3f} | {rate / base[0]:.2f} | {spent:.2f} | {spent / base[1]:.2f} "
            f"| {peak / MiB:.0f} | {peak / base[2]:.2f} |"
        )


if __name__ == "__main__":
    main()
