"""Wall time of the pipeline over the pure forward time of the same tiles in the same process.

Usage: python benchmarks/overhead.py [--size 8192] [--base 16] [--repeats 2]

The image is read from Zarr, cut, normalised, segmented, argmaxed and stored as sharded Zarr by Dask workers that are
threads of this process; the same tiles then go through the network alone, on as many cores. Runs alternate, the ratio
of medians is printed.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import zarr
from distributed import Client, LocalCluster

from segment_slide.pipeline.segmentation import output, record
from segment_slide.pipeline.segmentation.block import BlockJob, get_predictor
from segment_slide.pipeline.segmentation.options import SegmentOptions
from segment_slide.pipeline.segmentation.plan import SegmentPlan, plan_segmentation
from segment_slide.pipeline.segmentation.run import segment_blocks
from segment_slide.pipeline.storage.image import describe_image
from segment_slide.pipeline.storage.source import select_source
from segment_slide.unet.architecture import Architecture
from segment_slide.unet.checkpoint import Checkpoint, ModelConfig, Normalisation, save_checkpoint
from segment_slide.unet.device import resolve_device, resolve_precision
from segment_slide.unet.model import UNet
from segment_slide.unet.network import InferenceSettings, NetworkUse


def make_image(folder: Path, size: int) -> str:
    """A square uint8 image of smooth noise, 512 px chunks."""
    path = str(folder / "image.zarr")
    array = zarr.create_array(path, shape=(size, size), chunks=(512, 512), dtype="uint8")
    tile = np.random.default_rng(0).integers(0, 255, (size // 8, size // 8), dtype=np.uint8)
    array[:] = np.kron(tile, np.ones((8, 8), np.uint8))
    return path


def make_job(plan: SegmentPlan, checkpoint: Checkpoint, location: str, precision: str) -> BlockJob:
    """An empty output, and the job that fills it."""
    made = record.make_record(
        plan, model_path=str(checkpoint.path), model_sha256=checkpoint.sha256, classes=("a", "b"), device_kind="cpu"
    )
    output.create_output(location, "labels", plan, made, in_place=False)
    settings = InferenceSettings((128.0,), (64.0,), plan.tile_px, precision=precision, concurrency=plan.concurrency)
    network = NetworkUse(str(checkpoint.path), checkpoint.sha256, settings)
    return BlockJob(plan.source, plan.grid, network, location, "labels/labels")


def plan_run(folder: Path, arguments: argparse.Namespace, precision: str) -> tuple[SegmentPlan, Checkpoint]:
    """An image and a network of random weights, stored; the network, and how the image will be segmented by it."""
    torch.manual_seed(0)
    architecture = Architecture(base_channels=arguments.base)
    config = ModelConfig(architecture, normalisation=Normalisation(offset=(128.0,), scale=(64.0,)))
    checkpoint = save_checkpoint(folder / "model.safetensors", UNet(architecture), config)
    source = select_source(describe_image(make_image(folder, arguments.size), axes="yx"), n_spatial=2, n_channels=1)
    options = SegmentOptions(block=arguments.block, tile=arguments.tile, precision=precision)
    return plan_segmentation(source, architecture, options, concurrency=arguments.cores), checkpoint


class Stopwatch:
    """Wall and processor seconds of a body; the second is what a busy neighbour on the machine does not change."""

    def __enter__(self) -> "Stopwatch":
        self._began = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *error: object) -> None:
        self.wall_s = time.perf_counter() - self._began[0]
        self.cpu_s = time.process_time() - self._began[1]


def time_forward(job: BlockJob, plan: SegmentPlan) -> Stopwatch:
    """Time of the network alone on as many tiles of the same size, as many at a time."""
    predictor = get_predictor(job)
    tiles = plan.grid.n_blocks * (plan.grid.block[0] // plan.tile_px[0]) ** 2
    read = plan.grid.geometry.read_size(plan.tile_px[0])
    pixels = np.random.default_rng(1).integers(0, 255, (1, read, read), dtype=np.uint8)

    def forward() -> None:
        with torch.inference_mode():
            predictor._network(tensor)

    with torch.inference_mode():
        tensor = predictor._to_device(pixels)
    with Stopwatch() as watch:
        for run in [predictor._pool.submit(forward) for _ in range(tiles)]:
            run.result()
        if predictor.device.type == "cuda":
            torch.cuda.synchronize()
    return watch


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=8192)
    parser.add_argument("--base", type=int, default=16)
    parser.add_argument("--block", type=int, default=2048)
    parser.add_argument("--tile", type=int, default=1024)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--precision", default="auto")
    arguments = parser.parse_args()
    precision = resolve_precision(arguments.precision, resolve_device("auto"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plan, checkpoint = plan_run(folder, arguments, precision)
        pipeline: list[Stopwatch] = []
        forward: list[Stopwatch] = []
        with (
            LocalCluster(
                n_workers=1,
                threads_per_worker=arguments.cores + 1,
                processes=False,
                scheduler_kwargs={"dashboard": False},
                worker_dashboard_address=None,
            ) as cluster,
            Client(cluster) as client,
        ):
            for repeat in range(arguments.repeats):
                job = make_job(plan, checkpoint, str(folder / f"out-{repeat}.ome.zarr"), precision)
                get_predictor(job)
                forward.append(time_forward(job, plan))
                with Stopwatch() as watch:
                    failures = segment_blocks(job, plan.window_blocks, set(), client=client)
                pipeline.append(watch)
                if failures:
                    raise SystemExit(f"blocks failed: {failures}")
                print(
                    f"run {repeat}: pipeline {watch.wall_s:.2f} s (processor {watch.cpu_s:.2f} s), "
                    f"forward passes alone {forward[-1].wall_s:.2f} s ({forward[-1].cpu_s:.2f} s)",
                    flush=True,
                )
    wall, cpu = (
        statistics.median(getattr(run, kind) for run in pipeline)
        / statistics.median(getattr(run, kind) for run in forward)
        for kind in ("wall_s", "cpu_s")
    )
    rate = arguments.size**2 / statistics.median(run.wall_s for run in pipeline) / 1e6
    sizes = f"block {arguments.block}, tile {arguments.tile}, {precision}"
    print(f"{arguments.size}^2 px, base {arguments.base}, depth 4, {sizes}: {rate:.2f} Mpx/s")
    print(f"pipeline / forward = {wall:.3f} wall, {cpu:.3f} processor, {plan.grid.n_blocks} blocks")


if __name__ == "__main__":
    main()
