"""Peak resident memory of each worker process beside what the plan promised.

Usage: python benchmarks/memory.py [--size 16384] [--base 4] [--block 2048] [--workers 1]

Segments a real image through the whole flow in worker processes and reads each one's high-water mark (VmHWM) from the
kernel until it ends.
"""

import argparse
import tempfile
import threading
from pathlib import Path

import numpy as np
import psutil
import torch
import zarr

from segment_slide.flows.requests import SegmentRequest, Workers
from segment_slide.flows.segment import segment_image
from segment_slide.flows.segment_request import plan_request
from segment_slide.pipeline.segmentation.options import SegmentOptions
from segment_slide.unet.architecture import Architecture
from segment_slide.unet.checkpoint import ModelConfig, Normalisation, save_checkpoint
from segment_slide.unet.model import UNet

MiB = 1 << 20


def make_image(folder: Path, size: int) -> str:
    """A square uint8 image of noise, 512 px chunks, written in bands."""
    path = str(folder / "image.zarr")
    array = zarr.create_array(path, shape=(size, size), chunks=(512, 512), dtype="uint8")
    band = np.random.default_rng(0).integers(0, 255, (512, size), dtype=np.uint8)
    for start in range(0, size, 512):
        array[start : start + 512] = band
    return path


class PeakWatch(threading.Thread):
    """High-water marks of this process' descendants, polled until it is stopped."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peaks: dict[int, int] = {}
        self._stop_event = threading.Event()

    def run(self) -> None:
        """Poll."""
        me = psutil.Process()
        while not self._stop_event.wait(0.1):
            for process in me.children(recursive=True):
                try:
                    status = Path(f"/proc/{process.pid}/status").read_text()
                except OSError:
                    continue
                marks = [line for line in status.splitlines() if line.startswith("VmHWM")]
                if marks:
                    self.peaks[process.pid] = int(marks[0].split()[1]) * 1024

    def stop(self) -> dict[int, int]:
        """End polling and return the peaks (bytes) by process id."""
        self._stop_event.set()
        self.join()
        return self.peaks


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=16384)
    parser.add_argument("--base", type=int, default=4)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--block", type=int, default=2048)
    parser.add_argument("--tile", type=int)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--precision", default=None)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        architecture = Architecture(base_channels=arguments.base, depth=arguments.depth)
        torch.manual_seed(0)
        config = ModelConfig(architecture, normalisation=Normalisation(offset=(128,), scale=(64,)))
        save_checkpoint(folder / "model.safetensors", UNet(architecture), config)
        request = SegmentRequest(
            input=make_image(folder, arguments.size),
            model=str(folder / "model.safetensors"),
            output=str(folder / "out.ome.zarr"),
            options=SegmentOptions(block=arguments.block, tile=arguments.tile, precision=arguments.precision),
            axes="yx",
            workers=Workers(arguments.workers),
        )
        plan, cluster = plan_request(request)
        watch = PeakWatch()
        watch.start()
        report = segment_image(request)
        peaks = sorted(watch.stop().values(), reverse=True)[: cluster.workers]
    planned = plan.memory.total_bytes
    print(
        f"{arguments.size}^2 px, base {arguments.base}, tile {plan.tile_px[0]}, {plan.parameters.precision}, "
        f"{cluster.workers} worker(s) of {cluster.cores} core(s): {report.seconds:.1f} s"
    )
    print(f"planned {planned / MiB:.0f} MiB per worker: {plan.memory}")
    for peak in peaks:
        print(f"peak    {peak / MiB:.0f} MiB = {peak / planned:.2f} of the plan")
    if max(peaks) > planned:
        raise SystemExit("the plan was broken")


if __name__ == "__main__":
    main()
