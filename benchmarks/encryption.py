"""The price of encryption between processes of one machine: the start of workers, and many short tasks.

Clusters with and without it take turns. The same script in both, so nothing else differs:

    python benchmarks/encryption.py --repeats 5
"""

import argparse
import contextlib
import statistics
import time
from collections.abc import Iterator
from unittest import mock

import numpy as np
from distributed import Client

from segment_slide.cluster.kinds import this_machine
from segment_slide.cluster.kinds.local import LocalSpec, local_client
from segment_slide.pipeline.blocks.attempts import run_tasks

N_TASKS, BYTES = 200, 1 << 20


@contextlib.contextmanager
def in_plain() -> Iterator[None]:
    """Clusters in the body are not encrypted, as they were before."""
    start = this_machine.start_cluster

    def start_plainly(cluster_class: type, **options: object) -> object:
        return start(cluster_class, **{**options, "protocol": "tcp://", "security": None})

    with mock.patch.object(this_machine, "start_cluster", start_plainly):
        yield


def measure(workers: int) -> dict[str, float]:
    """Seconds of one cluster."""
    began = time.perf_counter()
    with local_client(LocalSpec(workers, 1, 2 << 30)) as client:
        seconds = {"start": time.perf_counter() - began}
        for _ in run_tasks(client, nothing, range(50)):
            pass
        seconds[f"{N_TASKS} tasks of no work"] = time_tasks(client, nothing)
        seconds[f"{N_TASKS} results of 1 MiB"] = time_tasks(client, mebibyte)
    return seconds


def time_tasks(client: Client, function: object) -> float:
    """Seconds of many tasks, as blocks are run."""
    began = time.perf_counter()
    for _, _, error in run_tasks(client, function, range(N_TASKS)):  # type: ignore[arg-type]
        assert error is None
    return time.perf_counter() - began


def nothing(item: int) -> int:
    """A task of no work."""
    return item


def mebibyte(item: int) -> np.ndarray:
    """A result of 1 MiB; those of blocks are smaller, as their pixels go to their shards."""
    return np.full(BYTES, item % 256, np.uint8)


def main() -> None:
    """Measure in turns and print medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()
    plain, encrypted = [], []
    for _ in range(arguments.repeats):
        with in_plain():
            plain.append(measure(arguments.workers))
        encrypted.append(measure(arguments.workers))
    for name in plain[0]:
        without, with_ = (statistics.median(one[name] for one in all_) for all_ in (plain, encrypted))
        print(f"{name}: {without:.2f} s in plain, {with_:.2f} s encrypted ({with_ / without - 1:+.0%})")


if __name__ == "__main__":
    main()
