"""Where the design bends: the real scheduler and the real window loop over workers whose network only sleeps.

    python benchmarks/scale.py [--blocks 100 1000] [--workers 2 8 64] [--long]        --long adds 100,000 blocks
    python benchmarks/scale.py --plan-only --rate 50 --block-ms 12                     the table of 10^12 px alone

As in a run, client and scheduler share this process: its processor time per block is what one core has to spend for
each block whatever the number of workers, so its inverse is the most blocks per second of any cluster. "Graphs" is the
thread that builds and sends windows, "loop" the thread of the scheduler and its connections. Workers (which sleep one
block at a time, and read with a second thread) live in other processes, but on this machine: beyond a few cores' worth
of blocks per second, efficiency says more of the machine than of the design; the processor time does not. Efficiency is
the time that the sleep alone would take, over the wall time. Where sleeping would pass `--limit-s`, blocks sleep less,
as shown.

At last 10^6 x 10^6 px are planned: hours by number of GPUs at a rate per GPU that is given, for three block sizes.
"""

import argparse
import contextlib
import functools
import math
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dask
import psutil
from common import MiB, Report, make_parser
from distributed import Client, LocalCluster
from scale_plan import Costs, describe, plan_large
from scale_workers import EmptySource, SleepingJob, sleep_item

from segment_slide.cluster.settings import SETTINGS, quieten
from segment_slide.pipeline.blocks.attempts import run_tasks
from segment_slide.pipeline.blocks.grid import BlockGrid
from segment_slide.pipeline.blocks.sizes import MAX_WINDOW_BLOCKS
from segment_slide.pipeline.segmentation.run import segment_blocks
from segment_slide.unet.geometry import Geometry
from segment_slide.unet.network import InferenceSettings, NetworkUse

BLOCK_PX = 32  # pixels are no part of this: what they cost is `overhead.py`'s
WORKERS_PER_PROCESS = 16
DEFAULT_WINDOW = math.isqrt(MAX_WINDOW_BLOCKS)


def make_job(n_blocks: int, sleep_s: float) -> SleepingJob:
    """About so many blocks in a square, each of which sleeps."""
    side = math.isqrt(n_blocks)
    image = describe(side * BLOCK_PX)
    grid = BlockGrid(image.shape, (BLOCK_PX, BLOCK_PX), Geometry(1), 2)
    network = NetworkUse("", "", InferenceSettings((0.0,), (1.0,), grid.block))
    return SleepingJob(EmptySource(image, 2, (0,), ()), grid, network, "", "", sleep_s=sleep_s)


# -- a cluster, and what it spends ---------------------------------------------------------------------------------


class Meter:
    """Processor seconds of this process and its threads, of the workers; resident bytes of this process."""

    def __init__(self, client: Client, workers: list["subprocess.Popen[bytes]"]) -> None:
        self._loop_clock = time.pthread_getcpuclockid(client.run_on_scheduler(threading.get_ident))
        self._main_clock = time.pthread_getcpuclockid(threading.main_thread().ident or 0)
        self._workers = [psutil.Process(worker.pid) for worker in workers]
        self._me = psutil.Process()

    def read(self) -> dict[str, float]:
        """Since the processes began."""
        spent = (worker.cpu_times() for worker in self._workers)
        return {
            "client": time.process_time(),
            "graphs": time.clock_gettime(self._main_clock),
            "loop": time.clock_gettime(self._loop_clock),
            "workers": sum(one.user + one.system for one in spent),
            "wall": time.perf_counter(),
        }

    @contextlib.contextmanager
    def measure(self) -> Iterator[dict[str, float]]:
        """Differences over a body; `bytes` is how much this process grew at most, sampled ten times a second."""
        found: dict[str, float] = {}
        ended, before = threading.Event(), self._me.memory_info().rss
        most = [before]

        def watch() -> None:
            while not ended.wait(0.1):
                most[0] = max(most[0], self._me.memory_info().rss)

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        start = self.read()
        yield found
        found |= {name: value - start[name] for name, value in self.read().items()}
        ended.set()
        thread.join()
        found |= {"bytes": most[0] - before, "resident": most[0]}


@contextlib.contextmanager
def open_cluster(n_workers: int) -> Iterator[tuple[Client, Meter]]:
    """The scheduler in this process, as `cluster` has it, and workers that sleep in others."""
    quieten()
    settings = {key: value for key, value in SETTINGS.items() if not key.endswith("preload")}
    with (
        dask.config.set(settings),
        LocalCluster(
            n_workers=0,
            processes=False,
            protocol="tcp",
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            scheduler_kwargs={"dashboard": False},
        ) as cluster,
        Client(cluster) as client,
    ):
        shares = [min(WORKERS_PER_PROCESS, n_workers - start) for start in range(0, n_workers, WORKERS_PER_PROCESS)]
        script = str(Path(__file__).with_name("scale_workers.py"))
        processes = [
            subprocess.Popen([sys.executable, script, cluster.scheduler_address, str(share)]) for share in shares
        ]
        try:
            client.wait_for_workers(n_workers, timeout=300)
            yield client, Meter(client, processes)
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait()


@dataclass(frozen=True)
class Case:
    """One run."""

    n_blocks: int
    n_workers: int
    window: int
    sleep_s: float

    @classmethod
    def within(cls, n_blocks: int, n_workers: int, window: int, arguments: argparse.Namespace) -> "Case":
        """Sleeping as long as asked for, or as the limit allows."""
        n_blocks = math.isqrt(n_blocks) ** 2
        return cls(n_blocks, n_workers, window, min(arguments.sleep_s, arguments.limit_s * n_workers / n_blocks))

    @property
    def ideal_s(self) -> float:
        """Seconds if blocks slept and nothing else took any time: whole rounds of all workers."""
        return math.ceil(self.n_blocks / self.n_workers) * self.sleep_s


def run_case(case: Case, client: Client, meter: Meter) -> dict[str, float]:
    """Figures of one run through the product's own window loop."""
    with meter.measure() as found:
        failures = segment_blocks(
            make_job(case.n_blocks, case.sleep_s), (case.window, case.window), set(), client=client
        )
    if failures:
        raise SystemExit(f"{len(failures)} blocks failed, the first: {failures[0]}")
    per_block = {name: 1000 * found[name] / case.n_blocks for name in ("client", "graphs", "loop", "workers")}
    return {**found, **per_block, "efficiency": case.ideal_s / found["wall"]}


HEADINGS = (
    "blocks", "workers", "window", "sleep, ms", "blocks/s asked", "blocks/s", "efficiency",
    "client + scheduler, CPU ms/block", "graphs", "loop", "a worker's side, CPU ms/block", "grew by, MiB",
)  # fmt: skip


def show(case: Case, found: dict[str, float]) -> list[str]:
    """A row under `HEADINGS`."""
    asked, had = case.n_workers / case.sleep_s, case.n_blocks / found["wall"]
    return [
        f"{case.n_blocks:,}", f"{case.n_workers}", f"{case.window}²", f"{1000 * case.sleep_s:.0f}", f"{asked:.0f}",
        f"{had:.1f}", f"{found['efficiency']:.2f}", f"{found['client']:.1f}", f"{found['graphs']:.1f}",
        f"{found['loop']:.1f}", f"{found['workers']:.1f}", f"{found['bytes'] / MiB:.0f}",
    ]  # fmt: skip


def simulate(arguments: argparse.Namespace, report: Report) -> tuple[float, float]:
    """Milliseconds of client and scheduler per block, and per task of the pyramid."""
    largest = 0.0
    rows, costs = [], {}
    for n_workers in arguments.workers:
        with open_cluster(n_workers) as (client, meter):
            run_case(Case(64, n_workers, DEFAULT_WINDOW, 0.0001), client, meter)  # imports
            for n_blocks in arguments.blocks:
                case = Case.within(n_blocks, n_workers, DEFAULT_WINDOW, arguments)
                found = run_case(case, client, meter)
                rows.append(show(case, found))
                costs[case.n_blocks, n_workers] = found["client"]
                largest = max(largest, found["resident"])
                report.say(" ".join(rows[-1]))
    report.table("The window loop as it is", HEADINGS, rows)
    report.values["client, resident at most, MiB"] = largest / MiB
    most, few = (
        costs[max(key for key in costs if key[1] == n)] for n in (max(arguments.workers), arguments.workers[0])
    )
    report.ratio(f"CPU per block, {max(arguments.workers)} workers over {arguments.workers[0]}", most / few)
    first = min(costs)[0]
    for n_blocks in sorted({key[0] for key in costs})[1:]:
        one = arguments.workers[0]
        report.ratio(f"CPU per block, {n_blocks:,} blocks over {first:,}", costs[n_blocks, one] / costs[first, one])
    task_ms = compare_windows(arguments, report)
    return most, task_ms


def compare_windows(arguments: argparse.Namespace, report: Report) -> float:
    """Costs by window size, and of plain tasks; milliseconds of the latter."""
    n_workers = 8
    rows, cost = [], {}
    with open_cluster(n_workers) as (client, meter):
        run_case(Case(64, n_workers, DEFAULT_WINDOW, 0.0001), client, meter)
        for window in arguments.windows:
            case = Case.within(arguments.window_blocks, n_workers, window, arguments)
            found = run_case(case, client, meter)
            cost[window] = found["client"]
            rows.append(show(case, found))
            report.say(" ".join(rows[-1]))
        n_items = 4 * arguments.window_blocks
        with meter.measure() as found:
            sleep = functools.partial(sleep_item, sleep_s=0.0)
            for _ in run_tasks(client, sleep, range(n_items)):  # as `pipeline.storage.pyramid` does
                pass
        task_ms = 1000 * found["client"] / n_items
    if DEFAULT_WINDOW in cost:
        for row, window in zip(rows, cost, strict=True):
            row.append(report.ratio(f"CPU per block, window {window}² over {DEFAULT_WINDOW}²",
                                    cost[window] / cost[DEFAULT_WINDOW]))  # fmt: skip
        report.table("Window sizes", (*HEADINGS, f"CPU over {DEFAULT_WINDOW}²"), rows)
    share = report.ratio("CPU of a plain task over a block", task_ms / max(cost.values()))
    report.say(
        f"A shard of the pyramid (a plain task): {task_ms:.2f} CPU ms of client and scheduler, {share} of a block's."
    )
    return task_ms


def main() -> None:
    """Measure and print."""
    parser = make_parser(__doc__)
    parser.add_argument("--blocks", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 8, 64])
    parser.add_argument("--windows", type=int, nargs="+", default=[4, 8, 16, 32], help="blocks a side")
    parser.add_argument("--window-blocks", type=int, default=4096, help="blocks of the comparison of windows")
    parser.add_argument("--sleep-s", type=float, default=0.2, help="of a block (default: %(default)s)")
    parser.add_argument("--limit-s", type=float, default=60, help="most that sleeping may take (default: %(default)s)")
    parser.add_argument("--long", action="store_true", help="100,000 blocks too")
    parser.add_argument("--plan-only", action="store_true", help="with --block-ms; measure nothing")
    parser.add_argument("--plan-blocks", type=int, nargs="+", default=[2048, 4096, 8192])
    parser.add_argument("--rate", type=float, default=50, help="Mpx/s of one GPU, as measured (default: %(default)s)")
    parser.add_argument("--block-ms", type=float, help="scheduler ms a block (default: as measured here)")
    parser.add_argument("--task-ms", type=float, default=1.0, help="a shard of the pyramid, with --plan-only")
    arguments = parser.parse_args()
    if arguments.plan_only and arguments.block_ms is None:
        parser.error("--plan-only needs --block-ms")
    arguments.blocks = sorted({*arguments.blocks, *([100_000] if arguments.long else [])})
    report = Report(arguments)
    block_ms, task_ms = arguments.block_ms, arguments.task_ms
    if not arguments.plan_only:
        measured_ms, task_ms = simulate(arguments, report)
        block_ms = block_ms or measured_ms
    plan_large(arguments, report, Costs(arguments.rate, block_ms, task_ms))
    report.save()


if __name__ == "__main__":
    main()
