"""What `peers.py` runs of ours, in processes of its own: the segmentation, and the whole image in one pass.

PYTHONPATH=. python benchmarks/peers_ours.py segment IMAGE SMALL MODEL OUTPUT PRECISION TILE     TILE 0: our choice
PYTHONPATH=. python benchmarks/peers_ours.py whole IMAGE MODEL OUTPUT.npy
"""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import zarr
from common import family_cpu_s

from segment_slide.flows.requests import Workers
from segment_slide.unet.checkpoint import open_checkpoint


def predict_whole(image: str, model: str, output: str) -> None:
    """Logits of the whole image in one pass (.npy), float32; in a process of its own, which gives the memory back."""
    from segment_slide.unet.model import whole_image_logits

    checkpoint = open_checkpoint(model)
    constants = checkpoint.config.normalisation
    pixels = np.asarray(zarr.open_array(image, mode="r")[:], np.float32)
    normalised = (pixels - np.float32(constants.offset[0])) / np.float32(constants.scale[0])
    np.save(output, whole_image_logits(checkpoint.load_model(), normalised[None]))


class Meter:
    """Processor seconds of each stage of a run; shows nothing."""

    def __init__(self) -> None:
        self.cpu_s: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str, total: int, done: int = 0, unit: str = "blocks") -> Iterator[Any]:
        """See `pipeline.blocks.progress.Stages`."""
        from segment_slide.pipeline.blocks.progress import ignore

        began = family_cpu_s()
        yield ignore
        self.cpu_s[name] = family_cpu_s() - began


def segment_ours(image: str, small: str, model: str, output: str, precision: str, tile: int | None) -> dict[str, Any]:
    """What `segment-slide segment --workers 1` does, by a worker that has segmented a small image before."""
    from importlib import metadata

    from segment_slide.flows.requests import SegmentRequest
    from segment_slide.flows.segment import segment_image
    from segment_slide.flows.workers import sharing_workers
    from segment_slide.pipeline.segmentation.options import SegmentOptions

    options = SegmentOptions(precision=precision, tile=tile)
    with sharing_workers():
        where = {"axes": "yx", "device": "cpu", "workers": Workers(1)}
        began = time.perf_counter(), family_cpu_s()
        segment_image(SegmentRequest(small, model, f"{output}-warm-up", options, **where))
        beside = {"seconds": time.perf_counter() - began[0], "cpu_s": family_cpu_s() - began[1]}
        meter = Meter()
        stages = segment_image(SegmentRequest(image, model, output, options, **where), meter).stage_seconds
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("segment-slide", "torch"))
    found = {"seconds": stages["segment"], "cpu_s": meter.cpu_s["segment"], "versions": versions, "stages": stages}
    return {**found, "beside": beside}


if __name__ == "__main__":
    what, *words = sys.argv[1:]
    if what == "whole":
        predict_whole(*words)
    else:
        *names, tile = words
        print(json.dumps(segment_ours(*names, tile=int(tile) or None)))
