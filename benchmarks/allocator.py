"""What memory that comes and goes costs a forward pass: glibc's allocator as workers have it, and in three other ways.

    python benchmarks/allocator.py [--tiles 512 1024 2048] [--base 16] [--rounds 3]

2048 x 4096 px through the product's `Predictor`, as many tiles at a time as there are cores, each way in processes of
its own, which take turns. Feature maps of a tile of 1024 px have up to 94 MB (base 16, float32): where they are
given back to the kernel, the next layer gets its memory page by page, zeroed, again.

    as workers have it     `cluster.settings.ENVIRONMENT`
    back at once           two heaps, each trimmed when 64 KiB at its end are free
    defaults               of glibc, for who sets nothing
    everything kept        nothing is ever given back: the most that can be gained

A second table compares tiles, with the allocator as workers have it.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import MiB, Report, make_parser

from segment_slide.cluster.settings import ENVIRONMENT

THREADS = {name: value for name, value in ENVIRONMENT.items() if name.endswith("_NUM_THREADS")}
HUGE = {name: ENVIRONMENT[name] for name in ("GLIBC_TUNABLES", "THP_MEM_ALLOC_ENABLE")}
WAYS = {
    "as workers have it": ENVIRONMENT,
    "back at once": {**THREADS, **HUGE, "MALLOC_ARENA_MAX": "2", "MALLOC_TRIM_THRESHOLD_": "65536"},
    "defaults": THREADS,
    "everything kept": {
        **THREADS, **HUGE, "MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": f"{1 << 40}",
    },
}  # fmt: skip
HEIGHT, WIDTH = 2048, 4096


def predict(model: str, tile: int, precision: str) -> dict[str, float]:
    """An image after a small one; runs in a process of its own."""
    import numpy as np
    import torch

    from segment_slide.unet.checkpoint import open_checkpoint
    from segment_slide.unet.network import InferenceSettings
    from segment_slide.unet.predict import Predictor

    torch.set_num_threads(1)
    checkpoint = open_checkpoint(model)
    cores = len(os.sched_getaffinity(0))
    settings = InferenceSettings((128.0,), (64.0,), (tile, tile), device="cpu", precision=precision, concurrency=cores)
    predictor = Predictor(checkpoint, settings)
    halo = checkpoint.config.architecture.geometry.halo
    image = np.random.default_rng(0).integers(0, 255, (1, HEIGHT + 2 * halo, WIDTH + 2 * halo), dtype=np.uint8)
    predictor.predict(np.ascontiguousarray(image[:, : tile + 2 * halo, : 2 * tile + 2 * halo]))
    before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    predictor.predict(image)
    wall_s, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
    return {
        "wall_s": wall_s,
        "user_s": after.ru_utime - before.ru_utime,
        "system_s": after.ru_stime - before.ru_stime,
        "bytes": after.ru_maxrss * 1024,
    }


def store_network(path: Path, base: int) -> str:
    """Of random weights."""
    import torch

    from segment_slide.unet.architecture import Architecture
    from segment_slide.unet.checkpoint import ModelConfig, Normalisation, save_checkpoint
    from segment_slide.unet.model import UNet

    architecture = Architecture(base_channels=base)
    torch.manual_seed(0)
    config = ModelConfig(architecture, normalisation=Normalisation(offset=(128,), scale=(64,)))
    return str(save_checkpoint(path, UNet(architecture), config).path)


def start(way: str, words: list[str]) -> dict[str, float]:
    """One process."""
    plain = {name: value for name, value in os.environ.items() if name not in {*ENVIRONMENT, "MALLOC_MMAP_MAX_"}}
    command = [sys.executable, __file__, "--one", *words]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env={**plain, **WAYS[way]})
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Measure and print."""
    parser = make_parser(__doc__)
    parser.add_argument("--tiles", type=int, nargs="+", default=[512, 1024, 2048])
    parser.add_argument("--precision", nargs="+", choices=("float32", "bfloat16"), default=["float32", "bfloat16"])
    parser.add_argument("--base", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        model, tile, precision = arguments.one
        print(json.dumps(predict(model, int(tile), precision)))
        return
    report, rows = Report(arguments), []
    ours: dict[tuple[str, int], dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as name:
        model = store_network(Path(name) / "model.safetensors", arguments.base)
        for precision in arguments.precision:
            for tile in arguments.tiles:
                runs: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
                for _ in range(arguments.rounds):
                    for way, found in runs.items():
                        found.append(start(way, [model, str(tile), precision]))
                medians = {
                    way: {key: statistics.median(one[key] for one in found) for key in found[0]}
                    for way, found in runs.items()
                }
                base = ours[precision, tile] = medians["as workers have it"]
                for way, one in medians.items():
                    what = f"{way}, tile {tile}, {precision}"
                    rows.append([
                        precision, f"{tile}", way, f"{HEIGHT * WIDTH / 1e6 / one['wall_s']:.2f}",
                        report.ratio(f"{what}: s", one["wall_s"] / base["wall_s"]), f"{one['user_s']:.1f}",
                        f"{one['system_s']:.1f}", f"{one['bytes'] / MiB:.0f}",
                        report.ratio(f"{what}: memory", one["bytes"] / base["bytes"]),
                    ])  # fmt: skip
                    report.say(" ".join(rows[-1]))
    headings = ("precision", "tile", "allocator", "Mpx/s", "s, ratio", "user s", "system s", "peak, MiB", "ratio")
    report.table(f"{HEIGHT} x {WIDTH} px, base {arguments.base}, {arguments.rounds} rounds", headings, rows)
    compare_tiles(report, ours, choose_default(arguments.base))
    report.save()


def compare_tiles(report: Report, runs: dict[tuple[str, int], dict[str, float]], chosen: dict[str, int]) -> None:
    """Tiles of each precision beside its default one, if that was measured."""
    rows = []
    for (precision, tile), run in runs.items():
        if base := runs.get((precision, chosen[precision])):
            what = f"tile {tile}, {precision}"
            speed = report.ratio(f"{what}: s", run["wall_s"] / base["wall_s"])
            memory = report.ratio(f"{what}: memory", run["bytes"] / base["bytes"])
            rate = f"{HEIGHT * WIDTH / 1e6 / run['wall_s']:.2f}"
            rows.append([precision, f"{tile}", rate, speed, f"{run['bytes'] / MiB:.0f}", memory])
    title = f"Tiles, over the default one ({', '.join(f'{name}: {tile}' for name, tile in chosen.items())})"
    report.table(title, ("precision", "tile", "Mpx/s", "s, ratio", "peak, MiB", "ratio"), rows)


def choose_default(base: int) -> dict[str, int]:
    """Tile of whom does not choose, by precision."""
    from segment_slide.pipeline.blocks.sizes import choose_tile
    from segment_slide.unet.architecture import Architecture

    sizes = {"float32": 4, "bfloat16": 2}
    return {name: choose_tile(None, HEIGHT, Architecture(base_channels=base), size) for name, size in sizes.items()}


if __name__ == "__main__":
    main()
