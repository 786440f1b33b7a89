"""One run of one other program that labels connected objects; `instances.py` starts it and watches its memory.

    PYTHON benchmarks/instances_peers.py {scipy,dask-image,bioimage-py} INPUT OUTPUT --warm-up SMALL [--threads 2]

INPUT and SMALL are Zarr arrays of classes, OUTPUT is a new array of ids in the same shards and chunks. SMALL is
labelled first, so that imports, thread pools and compiling are not counted. The last line printed is JSON: seconds of
all, seconds of each step, objects. Objects are neighbours along axes (4 in two dimensions), the only kind that
bioimage-py joins across blocks. Imports nothing of the project: the peers live in an environment of their own::

    python3.11 -m venv /tmp/peers-env
    /tmp/peers-env/bin/pip install dask-image bioimage-py "dask<2025.4" "zarr<3.2"

With dask 2025.3.0 dask-image labels each block once, with 2025.4.1 to 2026.8.0 some 33 times (16 blocks), which costs
seven times the time: each `dask.delayed` then embeds a copy of the graph before it. We compare with the fast one.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from importlib import metadata
from typing import Any

import numpy as np
import zarr


class Steps:
    """Seconds of each step of a run."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._began = time.perf_counter()

    def done(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name], self._began = now - self._began, now


def create_output(path: str, like: zarr.Array[Any], dtype: str) -> zarr.Array[Any]:
    """An empty array in the shards and chunks of another; zarr's default codec is ours: zstd, level 3."""
    return zarr.create_array(path, shape=like.shape, shards=like.shards, chunks=like.chunks, dtype=dtype, fill_value=0)


def label_scipy(source: zarr.Array[Any], output: str, threads: int) -> tuple[Steps, int]:
    """The whole image in memory, one thread; reading and writing are steps of their own."""
    from scipy import ndimage

    steps = Steps()
    classes = source[:]
    steps.done("read")
    ids, n_objects = ndimage.label(classes)
    steps.done("label")
    create_output(output, source, str(ids.dtype))[:] = ids
    steps.done("write")
    return steps, int(n_objects)


def label_dask_image(source: zarr.Array[Any], output: str, threads: int) -> tuple[Steps, int]:
    """One dask chunk per shard, read into memory first; ids and their number in one graph."""
    import dask.array
    from dask.base import compute
    from dask_image import ndmeasure

    steps = Steps()
    with dask.config.set(scheduler="threads", num_workers=threads):
        image = dask.array.from_array(source, chunks=source.shards).persist()
        steps.done("read")
        ids, n_objects = ndmeasure.label(image)
        stored = ids.store(create_output(output, source, str(ids.dtype)), lock=False, compute=False)
        steps.done("graph")
        _, n_objects = compute(stored, n_objects)
        steps.done("label and write")
    return steps, int(n_objects)


def label_bioimage(source: zarr.Array[Any], output: str, threads: int) -> tuple[Steps, int]:
    """One block per shard, threads of this process; its output has to be uint64."""
    from bioimage_py.segmentation import label

    steps = Steps()
    ids = create_output(output, source, "uint64")
    label(source, ids, connectivity=1, block_shape=source.shards, job_type="local", num_workers=threads)
    steps.done("all")
    shard = source.shards[0] if source.shards else source.shape[0]
    bands = (np.asarray(ids[start : start + shard]) for start in range(0, ids.shape[0], shard))
    return steps, max(int(band.max()) for band in bands)  # ids are consecutive


PEERS: dict[str, Callable[[zarr.Array[Any], str, int], tuple[Steps, int]]] = {
    "scipy": label_scipy,
    "dask-image": label_dask_image,
    "bioimage-py": label_bioimage,
}


PACKAGES = {"scipy": ("scipy",), "dask-image": ("dask-image", "dask"), "bioimage-py": ("bioimage-py",)}


def main() -> None:
    """Warm up, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("input")
    parser.add_argument("output")
    parser.add_argument("--warm-up", required=True, help="a small array of classes")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    arguments = parser.parse_args()
    label = PEERS[arguments.peer]
    label(zarr.open_array(arguments.warm_up, mode="r"), f"{arguments.output}-warm-up", arguments.threads)
    steps, n_objects = label(zarr.open_array(arguments.input, mode="r"), arguments.output, arguments.threads)
    result = {
        "seconds": sum(steps.seconds.values()),
        "steps": steps.seconds,
        "objects": n_objects,
        "array": arguments.output,
        "versions": ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES[arguments.peer]),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
