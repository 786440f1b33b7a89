"""What ends jobs and workers in the middle of a run: the same bytes in the end, or a sentence and a way to go on.

The real command on a real SLURM; the oracle is a run in this process, block by block, without workers.
"""

import os
import re
import signal
import subprocess
import sys
import threading
import time

import pytest

from tests.flows.support import (
    DISTURBING,
    brake,
    descendants,
    finish,
    noise,
    run_installed,
    run_without_workers,
    shards,
    start,
    survivors,
    tree,
    write_array,
    write_model,
)
from tests.slurm.support import (
    HANGS_AFTER_S,
    LABELS,
    all_jobs,
    reach_wall_time,
    running_jobs,
    segment_arguments,
    set_partition,
    wait_until,
    worker_processes,
    write_cluster,
)

pytestmark = [pytest.mark.slurm, pytest.mark.usefixtures("empty_queue")]

SIZE, N_BLOCKS = 640, 400
SOME_BLOCKS = 20
FIXED, ADAPTIVE = {"jobs": 2}, {"jobs": None, "minimum": 1, "maximum": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faults")
    write_array(folder / "slide.zarr", noise(SIZE, SIZE))
    write_model(folder / "cells.safetensors")
    return folder


@pytest.fixture(scope="module")
def reference(folder):
    """Files of an undisturbed run without workers."""
    output = folder / "reference.ome.zarr"
    outcome = run_without_workers(*arguments(folder, output))
    assert outcome.exit_code == 0, outcome
    assert len(shards(output / LABELS)) == N_BLOCKS
    return tree(output)


@pytest.fixture
def tell(capsys, request):
    """Write a figure to the terminal."""

    def write(words):
        with capsys.disabled():
            sys.stdout.write(f"\n  {request.node.name}: {words}\n")

    return write


def arguments(folder, output, *more):
    return segment_arguments(folder / "slide.zarr", folder / "cells.safetensors", output, *more)


@pytest.fixture
def hold_file(tmp_path):
    """While it exists, no block is segmented by a command that `begin` started."""
    return tmp_path / "hold"


@pytest.fixture
def begin(folder, hold_file):
    """Start the command; it is held once some blocks are stored, and comes back when two jobs run."""
    begun = []

    def start_and_wait(output, cluster_file):
        brake_file = hold_file.with_name("brake")  # slow until it is held: it does not end before
        slowly = brake(brake_file, output / LABELS / "c", SOME_BLOCKS)
        holding = {**slowly, "HOLD_FILE": str(hold_file)}
        process = start(*arguments(folder, output, "--cluster", cluster_file), **holding)
        begun.append(process)
        wait_until(lambda: n_done(output) >= SOME_BLOCKS or process.poll() is not None, "some blocks")
        hold_file.touch()
        brake_file.unlink()
        wait_until(lambda: len(running_jobs()) == 2 or process.poll() is not None, "two jobs")
        assert process.poll() is None, process.communicate()
        return process

    yield start_and_wait
    for process in begun:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        process.stderr.close()


def n_done(output) -> int:
    return len(shards(output / LABELS))


def check_nothing_is_left():
    wait_until(lambda: not all_jobs(), "an empty queue")
    wait_until(lambda: not worker_processes(), "no worker process")


# -- the same bytes ----------------------------------------------------------------------------------------------


def test_alone_on_local_workers_and_on_two_nodes_with_a_job_cancelled_the_bytes_are_equal(
    folder, reference, begin, hold_file, tmp_path, tell
):
    local, spread = tmp_path / "local.ome.zarr", tmp_path / "spread.ome.zarr"
    outcome = run_installed(*arguments(folder, local, "--cluster", "local", "--workers", 2))
    assert outcome.exit_code == 0, outcome
    assert tree(local) == reference

    # a whole node each, so that they are two
    began = time.monotonic()
    cluster_file = write_cluster(tmp_path, directives=["--exclusive"])
    process = begin(spread, cluster_file)
    assert [len(running_jobs(node)) for node in ("n1", "n2")] == [1, 1]
    before = n_done(spread)
    subprocess.run(["scancel", running_jobs()[0]], check=True)
    hold_file.unlink()
    outcome = finish(process)
    tell(f"cancelled after {before} of {N_BLOCKS} blocks; {time.monotonic() - began:.1f} s on SLURM")
    assert before < N_BLOCKS, "nothing was left to disturb"
    assert outcome.exit_code == 0, outcome
    assert "SLURM" not in outcome.err
    assert tree(spread) == reference
    check_nothing_is_left()


# -- a block that ends its worker ----------------------------------------------------------------------------------


def test_a_block_that_kills_its_worker_again_and_again_is_given_up_and_the_others_are_done(
    folder, reference, tmp_path, tell
):
    output, notes, cluster_file = tmp_path / "out.ome.zarr", tmp_path / "notes", write_cluster(tmp_path)
    killing = {"PYTHONPATH": str(DISTURBING), "KILLED_BLOCK": "1,2", "KILLED_NOTES": str(notes)}
    began = time.monotonic()
    outcome = run_installed(*arguments(folder, output, "--cluster", cluster_file), **killing)
    deaths = notes.read_text().split("\n")[:-1]
    jobs = {line.split()[0] for line in deaths}
    tell(f"{len(deaths)} deaths in jobs {sorted(jobs)}, {time.monotonic() - began:.1f} s")
    assert outcome.exit_code == 3, outcome
    assert f"1 of {N_BLOCKS} blocks could not be done; all others are stored in {output}:" in outcome.err
    assert "  block (1, 2): its worker died 4 times (out of memory, or killed)\n" in outcome.err
    assert f"ask for more job_memory; what the workers wrote is in {tmp_path / 'logs'}." in outcome.err
    assert outcome.err.endswith("Run the same command again to go on.\n")
    assert "Traceback" not in outcome.err
    assert "run_chunk" not in outcome.err, "no names of tasks"
    assert len(deaths) == 8, "four in company, four alone"
    assert len(jobs) <= 2, "workers are started again in their jobs"
    assert set(shards(output / LABELS)) == {(i, j) for i in range(20) for j in range(20)} - {(1, 2)}
    check_nothing_is_left()

    again = run_installed(*arguments(folder, output, "--cluster", cluster_file))
    assert again.exit_code == 0, again
    assert f"Went on: {N_BLOCKS - 1} of {N_BLOCKS}" in again.out
    assert tree(output) == reference
    check_nothing_is_left()


# -- jobs that end all at once -------------------------------------------------------------------------------------


@pytest.mark.parametrize("jobs", [FIXED, ADAPTIVE], ids=["fixed", "adaptive"])
def test_when_the_wall_time_of_all_jobs_is_over_others_take_over_and_the_bytes_are_equal(
    jobs, reference, begin, hold_file, tmp_path, tell
):
    output = tmp_path / "out.ome.zarr"
    process = begin(output, write_cluster(tmp_path, **jobs))
    ended, began = running_jobs(), time.monotonic()
    reach_wall_time(ended)
    # SLURM looks at wall times every half a minute
    wait_until(lambda: not set(ended) & set(running_jobs()), "their end")
    ended_s, before = time.monotonic() - began, n_done(output)
    hold_file.unlink()
    assert before < N_BLOCKS, "nothing was left to disturb"
    outcome = finish(process)
    done_s = time.monotonic() - began - ended_s
    tell(f"jobs {', '.join(ended)} ended after {ended_s:.1f} s with {before} blocks, all done {done_s:.1f} s later")
    assert outcome.exit_code == 0, outcome
    assert tree(output) == reference
    check_nothing_is_left()


@pytest.fixture
def reopened():
    """The partition takes and starts jobs again, whatever a test does."""
    yield
    set_partition("cpu", "UP")


@pytest.fixture
def stopped(begin, hold_file, reopened, tmp_path):
    """Make a run that waits, because its jobs are gone and no other starts; the process and what it said."""

    def stop(output, **jobs):
        process = begin(output, write_cluster(tmp_path, **jobs))
        said: list[str] = []
        threading.Thread(target=lambda: said.extend(iter(process.stderr.readline, "")), daemon=True).start()
        set_partition("cpu", "DOWN")
        ended = running_jobs()
        subprocess.run(["scancel", *ended], check=True)
        wait_until(lambda: not set(ended) & set(running_jobs()), "their end")
        hold_file.unlink()
        seconds = wait_until(lambda: "PartitionDown" in "".join(said), "a word of why it waits")
        assert process.poll() is None, said
        assert n_done(output) < N_BLOCKS, "nothing was left to wait for"
        words = r"WARNING: no worker has been there for \d+ s; squeue says: PENDING, reason PartitionDown: job \d+"
        assert re.match(words, said[0]), said
        return process, said, seconds

    return stop


def test_a_run_without_jobs_waits_says_why_and_ends_cleanly_on_ctrl_c(folder, reference, stopped, tmp_path, tell):
    output = tmp_path / "out.ome.zarr"
    process, said, waited_s = stopped(output, **ADAPTIVE)
    children, began, before = descendants(process), time.monotonic(), n_done(output)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(timeout=HANGS_AFTER_S) == 130
    tell(f"said why after {waited_s:.1f} s, ended {time.monotonic() - began:.1f} s after Ctrl-C, {before} blocks done")
    check_nothing_is_left()
    assert survivors(children) == []
    wait_until(lambda: said[-1].startswith("Interrupted."), "a last word")
    assert said[-1] == "Interrupted. What is done is kept: run the same command again to go on.\n"
    assert "Traceback" not in "".join(said)

    set_partition("cpu", "UP")
    again = run_installed(*arguments(folder, output, "--cluster", tmp_path / "cluster.yaml"))
    assert again.exit_code == 0, again
    assert f"Went on: {before} of {N_BLOCKS}" in again.out
    assert tree(output) == reference
    check_nothing_is_left()


def test_a_run_without_jobs_goes_on_by_itself_when_there_are_some_again(reference, stopped, tmp_path, tell):
    output = tmp_path / "out.ome.zarr"
    process, said, _ = stopped(output, **FIXED)
    began = time.monotonic()
    set_partition("cpu", "UP")
    assert process.wait(timeout=HANGS_AFTER_S) == 0, said
    tell(f"all done {time.monotonic() - began:.1f} s after the partition is up")
    assert tree(output) == reference
    check_nothing_is_left()
