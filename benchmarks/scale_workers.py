"""Workers whose network only sleeps, for `scale.py`, which starts this file; ends with the scheduler.

    python benchmarks/scale_workers.py tcp://127.0.0.1:4000 8

Everything else is the product's: graphs, halos that travel between workers, cutting, reports. The product has no seam
for another block function, and needs none, so `segmentation.block.run_block` is replaced in this process alone.
"""

import asyncio
import signal
import sys
import threading
import time
from collections import defaultdict
from dataclasses import dataclass

import dask
import numpy as np
from distributed import Worker, get_worker

import segment_slide.pipeline.segmentation.block
from segment_slide.cluster.settings import SETTINGS, quieten
from segment_slide.pipeline.blocks.grid import Index
from segment_slide.pipeline.segmentation.block import BlockJob, BlockReport
from segment_slide.pipeline.storage.source import ImageSource
from segment_slide.unet.boxes import Box

# As on a GPU: one forward pass at a time on a worker, and a second thread that reads and cuts meanwhile.
THREADS_PER_WORKER = 2
_devices: "defaultdict[str, threading.Lock]" = defaultdict(threading.Lock)


@dataclass(frozen=True)
class EmptySource(ImageSource):
    """Zeros, wherever one reads."""

    def read(self, box: Box) -> np.ndarray:
        """(c, y, x)."""
        return np.zeros((1, *(part.stop - part.start for part in box)), self.dtype)


@dataclass(frozen=True)
class SleepingJob(BlockJob):
    """A job whose blocks take a known time."""

    sleep_s: float = 0.0


def sleep_block(job: SleepingJob, pixels: np.ndarray, index: Index) -> BlockReport:
    """In place of `run_block`: what it was given is a read box, what it does is nothing."""
    expected = [part.stop - part.start for part in job.grid.read_box(index)]
    if list(pixels.shape[1:]) != expected:
        raise ValueError(f"block {index} was handed {pixels.shape}, expected {expected}")
    with _devices[get_worker().address]:
        time.sleep(job.sleep_s)
    return BlockReport(index, int(np.prod([part.stop - part.start for part in job.grid.write_box(index)])))


def sleep_item(item: int, sleep_s: float) -> int:
    """In place of a shard of the pyramid."""
    time.sleep(sleep_s)
    return item


async def work(address: str, count: int) -> None:
    """So many workers, until the scheduler ends them."""
    workers = [
        Worker(address, nthreads=THREADS_PER_WORKER, memory_limit=0, dashboard=False, name=None) for _ in range(count)
    ]
    await asyncio.gather(*workers)
    await asyncio.gather(*(worker.finished() for worker in workers))


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    segment_slide.pipeline.segmentation.block.run_block = sleep_block  # type: ignore[assignment]
    quieten()
    settings = {key: value for key, value in SETTINGS.items() if not key.endswith("preload")}
    with dask.config.set(settings):
        asyncio.run(work(sys.argv[1], int(sys.argv[2])))
