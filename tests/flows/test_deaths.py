"""Processes killed for good: by a block that takes its worker with it, or a scheduler. The real command, really."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.flows.support import (
    DISTURBING,
    brake,
    finish,
    free_port,
    noise,
    run_installed,
    run_without_workers,
    shards,
    start,
    tree,
    wait_until,
    write_array,
)

pytestmark = pytest.mark.slow

SHAPE, N_BLOCKS = (320, 320), 100
LABELS = "labels/segmentation/0"


@pytest.fixture(scope="module")
def slide(tmp_path_factory) -> Path:
    return write_array(tmp_path_factory.mktemp("slide") / "slide.zarr", noise(*SHAPE))


@pytest.fixture(scope="module")
def reference(slide, model, tmp_path_factory):
    """Files of an undisturbed run without workers."""
    output = tmp_path_factory.mktemp("reference") / "out.ome.zarr"
    assert run_without_workers(*arguments(slide, model, output)).exit_code == 0
    return tree(output)


def arguments(slide, model, output, *more):
    return ("segment", slide, "--axes", "yx", "-m", model, "-o", output, "--block", 32, *more)


def test_a_block_that_kills_its_worker_again_and_again_is_given_up_and_the_others_are_done(
    slide, model, reference, tmp_path
):
    output, notes = tmp_path / "out.ome.zarr", tmp_path / "notes"
    killing = {"PYTHONPATH": str(DISTURBING), "KILLED_BLOCK": "1,2", "KILLED_NOTES": str(notes)}
    outcome = run_installed(*arguments(slide, model, output), **killing)
    assert outcome.exit_code == 3, outcome
    assert f"1 of {N_BLOCKS} blocks could not be done; all others are stored in {output}:" in outcome.err
    assert "  block (1, 2): its worker died 4 times (out of memory, or killed)\n" in outcome.err
    assert outcome.err.endswith("Run the same command again to go on.\n")
    assert "Traceback" not in outcome.err
    assert "run_chunk" not in outcome.err, "no names of tasks"
    assert len(notes.read_text().splitlines()) == 8, "four times in company, four times alone"
    assert set(shards(output / LABELS)) == {(i, j) for i in range(10) for j in range(10)} - {(1, 2)}

    again = run_installed(*arguments(slide, model, output))
    assert again.exit_code == 0, again
    assert f"Went on: {N_BLOCKS - 1} of {N_BLOCKS}" in again.out
    assert tree(output) == reference


# -- a scheduler of somebody else's ----------------------------------------------------------------------------------


@pytest.fixture
def start_scheduler(tmp_path):
    """A scheduler process at a port, and a worker process that joins it; all are ended."""
    processes = []

    def dask(*words: object, **disturbing: str) -> subprocess.Popen[str]:
        with open(tmp_path / f"dask-{len(processes)}.log", "w") as log:
            paths = (disturbing.get("PYTHONPATH"), str(Path(__file__).parents[2]))
            environment = {**os.environ, **disturbing, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
            command = [sys.executable, "-m", "dask", *map(str, words)]
            process = subprocess.Popen(command, stdout=log, stderr=log, text=True, env=environment)
        processes.append(process)
        return process

    def start_at(port: int, **disturbing: str) -> subprocess.Popen[str]:
        quiet = ("--dashboard-address", "127.0.0.1:0", "--no-dashboard")
        scheduler = dask("scheduler", "--host", "127.0.0.1", "--port", port, *quiet)
        limits = ("--memory-limit", "1GiB", "--nthreads", 2, "--death-timeout", 240)
        dask("worker", f"tcp://127.0.0.1:{port}", *limits, *quiet, **disturbing)
        return scheduler

    yield start_at
    for process in reversed(processes):
        process.terminate()
    for process in processes:
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def test_a_scheduler_that_is_killed_ends_the_run_with_a_sentence_and_the_run_goes_on_with_another(
    slide, model, reference, tmp_path, start_scheduler
):
    output, port = tmp_path / "out.ome.zarr", free_port()
    scheduler = start_scheduler(port, **brake(tmp_path / "brake", output / LABELS / "c", 10))
    command = arguments(slide, model, output, "--cluster", f"tcp://127.0.0.1:{port}", "--allow-unencrypted")
    process = start(*command)
    wait_until(lambda: len(shards(output / LABELS)) >= 10, process)
    scheduler.send_signal(signal.SIGKILL)
    began = time.monotonic()
    outcome = finish(process)
    assert time.monotonic() - began < 40
    assert outcome.exit_code == 3, outcome
    assert outcome.err == (
        "Not complete: the Dask scheduler is gone: it ended, or the connection to it broke. What is done is kept.\n"
        "Run the same command again to go on.\n"
    )
    kept = {index: path.stat().st_mtime_ns for index, path in shards(output / LABELS).items()}
    assert 10 <= len(kept) < N_BLOCKS, "nothing was left to disturb"

    (tmp_path / "brake").unlink()
    start_scheduler(port)
    again = run_installed(*command)
    assert again.exit_code == 0, again
    assert "Went on:" in again.out
    after = shards(output / LABELS)
    assert {index: after[index].stat().st_mtime_ns for index in kept} == kept
    assert tree(output) == reference
