"""Seconds of fingerprints of an image's content, of lists of what is read, and of the comparison at a run's end.

Usage: python benchmarks/identity.py [--side 8192] [--chunk 256] [--rounds 5] [--output DIR]

The version before this one took names, sizes and times of files for the content, which is the listing below. A list is
written while blocks are read. At the end all files are listed once more; if all were touched, all that was read is
read again. Everything runs in turns, in one process, on one uncompressed array in a temporary folder.
"""

import itertools
import os
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import zarr
from common import MiB, Report, make_parser, take_turns

from segment_slide.pipeline.inputs.watch import status_of, watch
from segment_slide.pipeline.storage.fingerprint import fingerprint
from segment_slide.pipeline.storage.image import StoredImage, describe_image
from segment_slide.pipeline.storage.source import read_stored

BLOCK = 2048


def write_image(path: Path, side: int, chunk: int) -> StoredImage:
    """Noise, which no codec makes smaller, in chunks of one file each."""
    array = zarr.create_array(str(path), shape=(side, side), chunks=(chunk, chunk), dtype="uint8", compressors=None)
    rows = np.random.default_rng(0).integers(0, 255, (min(side, 1024), side), np.uint8)
    for start in range(0, side, len(rows)):
        array[start : start + len(rows)] = rows[: side - start]
    return describe_image(path, axes="yx")


def read_all(image: StoredImage) -> None:
    """All blocks, as a segmentation reads them."""
    starts = range(0, image.shape[0], BLOCK)
    for y, x in itertools.product(starts, starts):
        read_stored(image, (slice(y, y + BLOCK), slice(x, x + BLOCK)))


def main() -> None:
    """Measure and print."""
    parser = make_parser(__doc__)
    parser.add_argument("--side", type=int, default=8192, help="pixels per side of the image")
    parser.add_argument("--chunk", type=int, default=256, help="pixels per side of a chunk, which is a file")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each way")
    arguments = parser.parse_args()
    report = Report(arguments)
    with tempfile.TemporaryDirectory() as folder:
        image = write_image(Path(folder, "image.zarr"), arguments.side, arguments.chunk)
        n_files = len(status_of(image))
        numbers = itertools.count()

        def with_list() -> None:
            read_all(watch({"image": image}, str(Path(folder, "lists", str(next(numbers)))), {}).images["image"])

        watched = watch({"image": image}, str(Path(folder, "whole")), {})
        read_all(watched.images["image"])
        touched = replace(watched, status={"image": dict.fromkeys(watched.status["image"], (0, "", ()))})
        for path in Path(folder, "image.zarr").rglob("*"):
            os.utime(path)
        untouched = replace(watched, status={"image": status_of(image)})
        ways = {
            "list files, as at the start": lambda: status_of(image),
            "fingerprint: samples": lambda: fingerprint(image),
            "fingerprint: all bytes": lambda: fingerprint(image, full=True),
            "end: nothing changed": untouched.find_changed,
            "end: all files touched": touched.find_changed,
            "read all blocks": lambda: read_all(image),
            "read all blocks, with a list": with_list,
        }
        seconds = take_turns(ways, arguments.rounds)
        size = sum(path.stat().st_size for path in Path(folder, "whole").rglob("*.jsonl"))
    base = seconds["read all blocks"]
    rows = [
        (
            name,
            f"{found * 1000:.1f}",
            f"{found / n_files * 1e6:.1f}",
            report.ratio(f"{name} over reading", found / base),
        )
        for name, found in seconds.items()
    ]
    title = f"{n_files} files, {arguments.side**2 / MiB:.0f} MiB; the list has {size / n_files:.0f} bytes per file"
    report.table(title, ("step", "ms", "µs per file", "over reading"), rows)
    report.save()


if __name__ == "__main__":
    main()
