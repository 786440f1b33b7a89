"""What the benchmarks share: a stopwatch, runs that take turns, Markdown tables, and figures as JSON for `run_all.py`.

A `Report` prints its tables as they come and keeps them. What counts is a ratio: this machine's seconds mean little
elsewhere, but two things run in turns, in one process, on the same data, are disturbed alike.
"""

import argparse
import gc
import json
import os
import platform
import resource
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil

MiB, GiB = 1 << 20, 1 << 30
DATA = Path(os.environ.get("SEGMENT_SLIDE_DATA", Path(__file__).parents[2] / "shared" / "data"))


def family_cpu_s() -> float:
    """Processor seconds of this process and all that it started, living or waited for."""
    total = time.process_time()
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    total += ended.ru_utime + ended.ru_stime
    for child in psutil.Process().children(recursive=True):
        try:
            times = child.cpu_times()
        except psutil.Error:
            continue
        total += times.user + times.system
    return total


def take_turns(
    ways: Mapping[str, Callable[[], object]],
    rounds: int,
    *,
    warm_up: bool = True,
    least_s: float = 0,
    pick: Callable[[list[float]], float] = statistics.median,
) -> dict[str, float]:
    """Wall seconds of each way; in each round every way runs once, so a busy neighbour disturbs all alike.

    Parameters
    ----------
    ways : mapping
        What to call, by name.
    rounds : int
        Calls of each that count, at least.
    warm_up : bool
        One call of each before, which does not.
    least_s : float
        Rounds go on until they took so long: what takes milliseconds is measured more often.
    pick : callable
        One figure from those of all rounds; `min` where a limit is asked for, which neighbours only hide.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    if warm_up:
        for run in ways.values():
            run()
    began, done = time.perf_counter(), 0
    while done < rounds or time.perf_counter() - began < least_s:
        for name, run in ways.items():
            gc.collect()
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
        done += 1
    return {name: pick(times) for name, times in seconds.items()}


def markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table as Markdown, columns of numbers to the right.

    >>> print(markdown_table(["way", "s"], [["ours", "1.5"]]))
    | way | s |
    |---|--:|
    | ours | 1.5 |
    """
    columns = [[row[position] for row in rows] for position in range(len(headings))]
    marks = ["--:" if any(map(_is_number, column)) and position else "---" for position, column in enumerate(columns)]
    lines = [f"| {' | '.join(headings)} |", f"|{'|'.join(marks)}|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def _is_number(cell: str) -> bool:
    """Whether a cell is a figure, maybe with a unit.

    >>> [_is_number(cell) for cell in ("1,234", "0.5 %", "10²", "ours", "-", "float32")]
    [True, True, True, False, False, False]
    """
    return cell[:1].isdigit()


class Report:
    """Tables as they come, ratios by name, pictures; printed at once, and kept as JSON if asked for.

    Parameters
    ----------
    arguments : Namespace
        With `output`, from `make_parser`: where JSON and pictures go, None to print only.
    """

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.folder: Path | None = arguments.output
        if self.folder:
            self.folder.mkdir(parents=True, exist_ok=True)
        self.ratios: dict[str, float] = {}
        self.values: dict[str, Any] = {}
        self.pictures: list[str] = []

    def say(self, text: str) -> None:
        """A line."""
        print(text, flush=True)

    def table(self, title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table under its title."""
        print(f"\n{title}\n\n{markdown_table(headings, rows)}\n", flush=True)

    def ratio(self, name: str, value: float) -> str:
        """Keep a figure that was divided by one that was measured beside it; as text."""
        self.ratios[name] = float(value)
        return f"{value:.2f}" if abs(value) >= 0.095 else f"{value:.3f}"

    def picture(self, name: str) -> Path:
        """Where a picture is to be written."""
        if self.folder is None:
            raise ValueError(f"{name}: pictures need --output")
        self.pictures.append(name)
        return self.folder / name

    def save(self) -> None:
        """Write what was kept; nothing without a folder."""
        if self.folder:
            content = {"ratios": self.ratios, "values": self.values, "pictures": self.pictures}
            (self.folder / "figures.json").write_text(json.dumps(content, indent=1))


def make_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser that shows the script's own text and takes `--output`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="folder of figures.json and pictures (default: print only)")
    return parser


def describe_machine() -> dict[str, str]:
    """What a figure depends on beside the code."""
    import torch
    import zarr

    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    found = dict(line.replace("\t", "").split(":", 1) for line in info.splitlines() if ":" in line)
    flags = [flag for flag in found.get("flags", "").split() if flag.startswith(("avx2", "avx512", "amx"))]
    shown = [flag for flag in flags if flag in ("avx2", "avx512f", "avx512_vnni", "avx512_bf16") or "amx" in flag]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": found.get("model name", platform.processor()).strip(),
        "instructions": " ".join(shown) or "unknown",
        "cores": f"{len(os.sched_getaffinity(0))} of {os.cpu_count()}",
        "memory": f"{memory / GiB:.1f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "oneDNN and MKL": f"oneDNN {torch.backends.mkldnn.is_available()}, MKL {torch.backends.mkl.is_available()}; "
        + _library_versions(torch.__config__.show()),
        "GPU": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "zarr, numpy": f"{zarr.__version__}, {np.__version__}",
    }


def _library_versions(text: str) -> str:
    lines = (line.strip(" -") for line in text.splitlines())
    return ", ".join(line for line in lines if line.startswith(("Intel(R) MKL-DNN", "Intel(R) oneAPI Math")))
