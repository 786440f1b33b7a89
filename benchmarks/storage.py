"""Codecs, chunks, codec pipelines and inputs: megabytes of pixels per second, compression, files.

    python benchmarks/storage.py [--size 4096] [--rounds 3] [--only codecs chunks]

Four kinds of pixels: classes and ids of synthetic cells, probabilities around them, a real slide in RGB (CMU-1, with
SEGMENT_SLIDE_DATA; else a synthetic one). They are written as a run writes them, one shard of 2048 px after the other,
and read with the halo of the paper's network; files come from the page cache, so what is compared is work of the
processor. In each round every way has its turn; medians; ratios to what `pipeline.storage.store` does by default (zstd
3, chunks of 512 px in shards of 2048 px). MB are those of the pixels, not of the files.

Sections: codecs, chunks, pipelines (zarr-python's against zarrs, an implementation in Rust, in an interpreter of its
own, see `storage_child.py`), input (chunks of 64 to 512 px without shards), tiff (a tiled TIFF by our reader and by
tifffile's Zarr store, against the OME-Zarr that `ingest` makes of it), files (per 10^10 px).
"""

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import zarr
from common import Report, make_parser, take_turns
from storage_child import BLOCK, CODECS, boxes
from storage_pixels import make_pixels

from segment_slide.pipeline.blocks.sizes import level_shapes
from segment_slide.pipeline.ingest.formats import open_reader
from segment_slide.pipeline.ingest.plan import plan_ingest
from segment_slide.pipeline.ingest.run import run_ingest
from segment_slide.pipeline.storage.image import StoredImage, describe_image
from segment_slide.unet.geometry import Geometry

ZARRS = Path(__file__).parents[1] / ".bench-venv/bin/python"
SECTIONS = ("codecs", "chunks", "pipelines", "input", "tiff", "files")
DEFAULT_CODEC, DEFAULT_CHUNK = "zstd 3", 512
HALO = Geometry(4).halo


# -- children ------------------------------------------------------------------------------------------------------


class Child:
    """A process that writes and reads; see `storage_child.py`."""

    def __init__(self, python: str, pipeline: str) -> None:
        script = str(Path(__file__).with_name("storage_child.py"))
        self._process = subprocess.Popen(
            [python, script, pipeline], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def ask(self, **order: Any) -> dict[str, Any]:
        """One order, one answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"the process of {self._process.args} ended with {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


@contextlib.contextmanager
def children(**pythons: tuple[str, str]) -> Iterator[dict[str, Child]]:
    """Processes by name, of (interpreter, pipeline)."""
    started = {name: Child(python, pipeline) for name, (python, pipeline) in pythons.items()}
    try:
        yield started
    finally:
        for child in started.values():
            child.close()


Way = tuple[str, str, int]  # child, codec, chunk


def measure(
    folder: Path, values: Path, ways: list[Way], started: dict[str, Child], rounds: int, shard: int = BLOCK
) -> dict[Way, dict[str, float]]:
    """Medians of each way: MB/s written and read, raw over stored bytes, files; ways that cannot are left out."""
    megabytes = np.load(values, mmap_mode="r").nbytes / 1e6
    seconds: dict[tuple[Way, str], list[float]] = {}
    found: dict[Way, dict[str, float]] = {}
    for number in range(rounds + 1):  # the first does not count
        for way in ways:
            child, codec, chunk = way
            order = {"path": str(folder / "array.zarr"), "values": str(values), "codec": codec, "chunk": chunk}
            for do in ("write", "read"):
                answer = started[child].ask(do=do, shard=shard, halo=HALO, **order)
                if "error" in answer:
                    print(f"{values.stem}, {way}: {answer['error']}", flush=True)
                    break
                if number:
                    seconds.setdefault((way, do), []).append(answer["seconds"])
                    ratio = megabytes * 1e6 / answer["bytes"]
                    found.setdefault(way, {}).update(compression=ratio, files=answer["files"])
    for way, figures in found.items():
        for do in ("write", "read"):
            figures[do] = megabytes / statistics.median(seconds[way, do])
    return found


def make_rows(
    report: Report, kind: str, found: dict[Way, dict[str, float]], base: Way, name: Callable[[Way], str]
) -> list[list[str]]:
    """A row per way, with ratios to the base."""
    rows = []
    for way, figures in found.items():
        over = {
            key: report.ratio(f"{kind}, {name(way)} over {name(base)}: {key}", figures[key] / found[base][key])
            for key in ("write", "read", "compression")
        }
        rows.append(
            [
                kind, name(way), f"{figures['write']:.0f}", over["write"], f"{figures['read']:.0f}", over["read"],
                f"{figures['compression']:.1f}", over["compression"],
            ]
        )  # fmt: skip
    return rows


HEADINGS = ("pixels", "", "write, MB/s", "ratio", "read, MB/s", "ratio", "compression", "ratio")


# -- sections ------------------------------------------------------------------------------------------------------


def show_codecs(arguments: argparse.Namespace, report: Report, folder: Path, pixels: dict[str, Path]) -> None:
    """All codecs, in our shards and chunks."""
    rows = []
    with children(here=(sys.executable, "zarr")) as started:
        for kind, path in pixels.items():
            names = [name for name in CODECS if "shuffle" not in name or kind == "ids" or "bit" in name]
            ways = [("here", name, DEFAULT_CHUNK) for name in names]
            found = measure(folder, path, ways, started, arguments.rounds)
            rows += make_rows(report, kind, found, ("here", DEFAULT_CODEC, DEFAULT_CHUNK), lambda way: way[1])
    report.table(
        f"Codecs, chunks of {DEFAULT_CHUNK} px in shards of {BLOCK} px; bytes have nothing to shuffle", HEADINGS, rows
    )


def show_chunks(arguments: argparse.Namespace, report: Report, folder: Path, pixels: dict[str, Path]) -> None:
    """Chunk sizes in a shard."""
    rows = []
    with children(here=(sys.executable, "zarr")) as started:
        for kind, path in pixels.items():
            ways = [("here", DEFAULT_CODEC, chunk) for chunk in (256, 512, 1024)]
            found = measure(folder, path, ways, started, arguments.rounds)
            rows += make_rows(
                report, kind, found, ("here", DEFAULT_CODEC, DEFAULT_CHUNK), lambda way: f"chunks of {way[2]} px"
            )
    report.table(f"Chunks in shards of {BLOCK} px, {DEFAULT_CODEC}", HEADINGS, rows)


def show_pipelines(arguments: argparse.Namespace, report: Report, folder: Path, pixels: dict[str, Path]) -> None:
    """zarr-python's codec pipeline and that of zarrs, in the same environment."""
    if not arguments.zarrs_python.exists():
        report.say(f"pipelines: left out, no {arguments.zarrs_python} (make bench-env, or --zarrs-python)")
        return
    rows, python = [], str(arguments.zarrs_python)
    with children(**{"zarr-python": (python, "zarr"), "zarrs": (python, "zarrs")}) as started:
        for kind, path in pixels.items():
            for codec in (DEFAULT_CODEC, "lz4 5, bitshuffle"):
                ways = [(name, codec, DEFAULT_CHUNK) for name in started]
                found = measure(folder, path, ways, started, arguments.rounds)
                rows += make_rows(
                    report, kind, found, ("zarr-python", codec, DEFAULT_CHUNK), lambda way: f"{way[0]}, {way[1]}"
                )
    report.table(f"Codec pipelines, chunks of {DEFAULT_CHUNK} px in shards of {BLOCK} px", HEADINGS, rows)


def show_input(arguments: argparse.Namespace, report: Report, folder: Path, pixels: dict[str, Path]) -> None:
    """Images as others write them: small chunks, each a file."""
    rows = []
    with children(here=(sys.executable, "zarr")) as started:
        for kind in ("rgb",):
            ways = [("here", DEFAULT_CODEC, chunk) for chunk in (64, 128, 256, 512)]
            found = measure(folder, pixels[kind], ways, started, max(1, arguments.rounds // 2), shard=0)
            base = ("here", DEFAULT_CODEC, 512)
            made = make_rows(report, f"{kind} without shards", found, base, lambda way: f"chunks of {way[2]} px")
            for row, figures in zip(made, found.values(), strict=True):
                rows.append([*row, f"{figures['files']:,.0f}"])
    report.table(f"An input without shards, read in blocks of {BLOCK} px and a halo", (*HEADINGS, "files"), rows)


def show_tiff(arguments: argparse.Namespace, report: Report, folder: Path, pixels: dict[str, Path]) -> None:
    """Blocks with halos from a tiled TIFF, and from the OME-Zarr that it becomes."""
    values = np.load(pixels["rgb"])
    rows = []
    for name, compression in (("deflate", "zlib"), ("JPEG", "jpeg")):
        path = folder / f"{name}.tif"
        tifffile.imwrite(path, np.moveaxis(values, 0, -1), tile=(256, 256), photometric="rgb", compression=compression)
        location = folder / f"{name}.ome.zarr"
        run_ingest(plan_ingest(path), location)
        stored: StoredImage = describe_image(location)

        def read_all(read: Callable[[tuple[slice, ...]], np.ndarray]) -> None:
            for box in boxes(values.shape, BLOCK, HALO):
                part = read((slice(0, 3), *box[1:]))
                if part.shape[0] != 3:
                    raise SystemExit(f"{part.shape} was read")

        def by_reader(path: Path = path, read_all: Any = read_all) -> None:
            reader = open_reader([str(path)], cache_bytes=0)
            read_all(reader.read)
            reader.close()

        def by_tifffile(path: Path = path, read_all: Any = read_all) -> None:
            with tifffile.imread(path, aszarr=True, level=0) as store:
                array = zarr.open_array(store, mode="r")
                read_all(lambda box: np.moveaxis(np.asarray(array[box[1], box[2], box[0]]), -1, 0))

        def by_zarr(stored: StoredImage = stored, read_all: Any = read_all) -> None:
            read_all(lambda box: np.asarray(stored.array()[box]))

        ways = {"ingested OME-Zarr": by_zarr, "TIFF, our reader": by_reader, "TIFF, tifffile's store": by_tifffile}
        took = take_turns(ways, arguments.rounds)
        for way, seconds in took.items():
            rate = values.nbytes / 1e6 / seconds
            ratio = report.ratio(f"{name}: {way} over OME-Zarr, read", took["ingested OME-Zarr"] / seconds)
            rows.append([f"{name}, {path.stat().st_size / 1e6:.1f} MB", way, f"{rate:.0f}", ratio])
    report.table("A tiled TIFF (256 px tiles) read in blocks with halos", ("TIFF", "", "read, MB/s", "ratio"), rows)


def show_files(_: argparse.Namespace, report: Report, __: Path, ___: dict[str, Path]) -> None:
    """Files per 10^10 px, by arithmetic: the pyramid included."""
    rows, side = [], 100_000
    base = None
    for what, size in (("shards of 2048 px", 2048), ("shards of 4096 px", 4096), ("chunks of 1024 px", 1024),
                       ("chunks of 512 px", 512), ("chunks of 256 px", 256), ("chunks of 64 px", 64)):  # fmt: skip
        shapes = level_shapes((side, side), 2, 8)
        files = sum((-(-height // size)) * (-(-width // size)) for height, width in shapes)
        base = base or files
        rows.append([what, f"{files:,}", report.ratio(f"files, {what}", files / base)])
    report.table("Files of one image of 10^10 px with its pyramid", ("a file is", "files", "ratio"), rows)


SHOW = {
    "codecs": show_codecs,
    "chunks": show_chunks,
    "pipelines": show_pipelines,
    "input": show_input,
    "tiff": show_tiff,
    "files": show_files,
}


def main() -> None:
    """Measure and print."""
    parser = make_parser(__doc__)
    parser.add_argument("--size", type=int, default=4096, help="px a side (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--zarrs-python", type=Path, default=ZARRS, help="interpreter that imports zarr and zarrs")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    arguments = parser.parse_args()
    if arguments.size % BLOCK:
        parser.error(f"--size={arguments.size} is no multiple of {BLOCK} px")
    report = Report(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pixels = make_pixels(folder, arguments.size)
        for section in SECTIONS:
            if section in arguments.only:
                SHOW[section](arguments, report, folder, pixels)
    report.save()


if __name__ == "__main__":
    main()
