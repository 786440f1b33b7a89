"""Writes and reads Zarr arrays as it is told, line by line, and says how long it took; `storage.py` starts it.

Imports nothing of the project, so that it runs in an environment that has another codec pipeline (`make bench-env`).

Each line is JSON: {"do": "write" | "read", "path", "values" (.npy), "codec", "chunk", "shard" (0: none), "halo"}; the
answer is {"seconds", "bytes" (on disk), "files"}. A block is one write, as in a run; a read has a halo around it.
"""

import itertools
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec, ZstdCodec

LEVELS = (1, 3, 5, 9)
CODECS: dict[str, Any] = {
    **{f"zstd {level}": (ZstdCodec(level=level),) for level in LEVELS},
    **{f"zstd {level}, shuffle": (BloscCodec(cname="zstd", clevel=level, shuffle="shuffle"),) for level in LEVELS},
    "zstd 3, bitshuffle": (BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle"),),
    "lz4 5, bitshuffle": (BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle"),),
    "none": None,
}
BLOCK = 2048


def boxes(shape: tuple[int, ...], block: int, halo: int) -> Iterator[tuple[slice, ...]]:
    """Blocks along the last two axes, with a halo as far as there are pixels."""
    axes = [
        [slice(max(0, start - halo), min(size, start + block + halo)) for start in range(0, size, block)]
        for size in shape[-2:]
    ]
    for box in itertools.product(*axes):
        yield (*[slice(None)] * (len(shape) - 2), *box)


def create(order: dict[str, Any], values: np.ndarray) -> "zarr.Array[Any]":
    """An empty array with the chunks and the codec that were asked for; the channel axis is not cut."""
    shutil.rmtree(order["path"], ignore_errors=True)
    lead = values.shape[:-2]
    shard = (*lead, order["shard"], order["shard"]) if order["shard"] else None
    return zarr.create_array(
        order["path"],
        shape=values.shape,
        chunks=(*lead, order["chunk"], order["chunk"]),
        shards=shard,
        dtype=values.dtype,
        compressors=CODECS[order["codec"]],
        fill_value=0,
        config={"write_empty_chunks": True},
    )


def run(order: dict[str, Any], loaded: dict[str, np.ndarray]) -> dict[str, float]:
    """Do what a line says."""
    name = order["values"]
    if name not in loaded:
        loaded[name] = np.load(name)
    values = loaded[name]
    if order["do"] == "write":
        array = create(order, values)
        began = time.perf_counter()
        for box in boxes(values.shape, BLOCK, 0):
            array[box] = values[box]
        seconds = time.perf_counter() - began
    else:
        array = zarr.open_array(order["path"], mode="r")
        began = time.perf_counter()
        for box in boxes(values.shape, BLOCK, order["halo"]):
            last = array[box]
        seconds = time.perf_counter() - began
        if not np.array_equal(last, values[box]):
            raise SystemExit(f"{order}: other pixels were read than written")
    sizes = [os.path.getsize(os.path.join(folder, one)) for folder, _, files in os.walk(order["path"]) for one in files]
    return {"seconds": seconds, "bytes": sum(sizes), "files": len(sizes)}


def main() -> None:
    """Answer line by line."""
    if sys.argv[1] == "zarrs":
        # strict: where it cannot, it fails and does not quietly let zarr-python do it
        zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline", "codec_pipeline.strict": True})
    loaded: dict[str, np.ndarray] = {}
    for line in sys.stdin:
        try:
            answer: dict[str, Any] = run(json.loads(line), loaded)
        except Exception as error:  # noqa: BLE001, a codec that one pipeline does not know is an answer too
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
