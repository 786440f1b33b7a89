"""A worker that hangs is noticed by the clock, ended, and replaced; what hangs everywhere is given up, by name."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
import traceback
from types import SimpleNamespace

import pytest
from distributed.scheduler import KilledWorker

import segment_slide.cluster.time_limit
from segment_slide.cluster.connect import connect
from segment_slide.cluster.errors import ClusterError
from segment_slide.cluster.settings import SETTINGS
from segment_slide.cluster.spec import ClusterSpec
from segment_slide.cluster.time_limit import TimeLimit, describe_threads, limit_tasks
from segment_slide.flows.requests import Workers
from segment_slide.flows.workers import plan_cluster
from tests.flows.support import (
    descendants,
    finish,
    noise,
    run_here,
    run_installed,
    shards,
    start,
    survivors,
    tree,
    wait_until,
    write_array,
    write_model,
    write_segmentation,
)

GiB = 1 << 30


def hang_on(pipe):
    """Open a FIFO that nobody writes into: a system call that does not return, as on a file server that is gone."""
    with open(pipe):
        pass


@pytest.fixture
def pipe(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    return str(path)


# -- the clock -------------------------------------------------------------------------------------------------


def overdue_of(*transitions, after_s=11.0):
    """Key of the task that a limit of 10 s finds overdue so long after the given transitions."""
    plugin = TimeLimit(10, "topic")
    for key, start_state, finish_state in transitions:
        plugin.transition(key, start_state, finish_state)
    found = plugin.find_overdue(time.monotonic() + after_s)
    return found and found[0]


BEGINS = ("a", "ready", "executing")


@pytest.mark.parametrize(
    ("transitions", "expected"),
    [
        ([], None),
        ([("a", "waiting", "ready")], None),
        ([BEGINS], "a"),
        ([BEGINS, ("a", "executing", "memory")], None),
        ([BEGINS, ("a", "executing", "error")], None),
        ([BEGINS, ("a", "executing", "rescheduled")], None),
        ([BEGINS, ("a", "executing", "long-running")], "a"),
        ([BEGINS, ("a", "executing", "cancelled")], "a"),
        ([BEGINS, ("a", "executing", "cancelled"), ("a", "cancelled", "released")], None),
        ([BEGINS, ("b", "ready", "executing"), ("a", "executing", "memory")], "b"),
    ],
)
def test_a_task_counts_from_its_beginning_to_its_end(transitions, expected):
    assert overdue_of(*transitions) == expected


def test_a_task_within_the_limit_is_left_alone():
    assert overdue_of(BEGINS, after_s=9.9) is None


def test_a_task_that_was_cancelled_and_is_wanted_again_keeps_its_beginning(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(segment_slide.cluster.time_limit.time, "monotonic", lambda: now[0])
    plugin = TimeLimit(10, "topic")
    plugin.transition(*BEGINS)
    now[0] = 8
    plugin.transition("a", "executing", "cancelled")
    plugin.transition("a", "cancelled", "executing")
    assert plugin.find_overdue(11) == ("a", 11)


def is_in(function, thread):
    """Whether a thread stands in a function, or below."""
    return function in [frame.name for frame in traceback.extract_stack(sys._current_frames()[thread.ident])]


def test_where_a_thread_stands_is_said_on_one_line_innermost_first(pipe):
    thread = threading.Thread(target=hang_on, args=(pipe,), name="reader", daemon=True)
    idle = threading.Event()
    waiter = threading.Thread(target=idle.wait, name="waiter", daemon=True)
    thread.start()
    waiter.start()
    ends = time.monotonic() + 60
    while not (is_in("hang_on", thread) and is_in("wait", waiter)):
        assert time.monotonic() < ends
        time.sleep(0.01)
    frames = sys._current_frames()
    names = {thread.ident: thread.name, waiter.ident: waiter.name}
    stuck = describe_threads({thread.ident: frames[thread.ident]}, [thread.ident], names)
    assert re.match(r"It stands at cluster/test_time_limit.py:\d+ hang_on < python3\S+/threading.py:\d+ run < ", stuck)
    assert "\n" not in stuck
    others = describe_threads({t.ident: frames[t.ident] for t in (thread, waiter)}, [], names)
    assert re.fullmatch(r"Thread reader is at cluster/test_time_limit.py:\d+ hang_on\.", others)
    with open(pipe, "w"):
        idle.set()
    thread.join()


def test_a_worker_that_nobody_would_start_again_does_not_watch():
    with pytest.raises(ClusterError, match="block_time_limit=5 s: worker tcp://w:1 has no nanny"):
        TimeLimit(5, "topic").setup(SimpleNamespace(nanny=None, address="tcp://w:1"))


# -- workers ---------------------------------------------------------------------------------------------------


def ended(caplog):
    return [record for record in caplog.messages if "was ended: a task ran for" in record]


@pytest.mark.slow
def test_tasks_done_in_time_end_no_worker_and_one_that_hangs_is_given_up_and_the_others_are_done(
    pipe, monkeypatch, caplog
):
    monkeypatch.setitem(SETTINGS, "distributed.scheduler.allowed-failures", 1)
    with connect(ClusterSpec(workers=1, memory_bytes=GiB, block_time_limit_s=4)) as client:
        before = client.submit(os.getpid, pure=False).result()
        each_thread_twice = 2 * sum(client.nthreads().values())
        client.gather(client.map(time.sleep, [2.1] * each_thread_twice, pure=False))
        assert client.submit(os.getpid, pure=False).result() == before
        assert ended(caplog) == []

        hanging = client.submit(hang_on, pipe)
        others = client.map(time.sleep, [0.05] * 20, pure=False)
        error = hanging.exception(timeout=240)
        assert isinstance(error, KilledWorker)
        assert client.gather(others) == [None] * 20
    assert len(ended(caplog)) == 2
    assert "block_time_limit is 4 s" in ended(caplog)[0]


def plugins_of(dask_worker):
    return [name for name in dask_worker.plugins if "time-limit" in name]


def joined(cluster) -> ClusterSpec:
    """The description of a scheduler that runs already."""
    return ClusterSpec("address", address=cluster.scheduler_address, allow_unencrypted=True, wait_s=30)


def test_on_a_scheduler_that_runs_already_the_limit_leaves_with_the_command(start_scheduler):
    with start_scheduler(processes=True, n_workers=1) as there:
        spec = ClusterSpec(
            "address", address=there.scheduler_address, allow_unencrypted=True, wait_s=30, block_time_limit_s=60
        )
        with connect(spec) as client:
            assert [len(names) for names in client.run(plugins_of).values()] == [1]
        with connect(joined(there)) as client:
            assert [len(names) for names in client.run(plugins_of).values()] == [0]


def test_workers_without_a_process_of_their_own_are_refused(scheduler):
    spec = ClusterSpec(
        "address", address=scheduler.scheduler_address, allow_unencrypted=True, wait_s=10, block_time_limit_s=60
    )
    words = r"block_time_limit=60 s: worker \S+ and 1 more has no nanny.*; start workers with --nanny"
    with pytest.raises(ClusterError, match=words), connect(spec):
        pass


def test_workers_that_cannot_run_our_code_are_said():
    def register(*_, **__):
        raise ModuleNotFoundError("No module named 'cluster'")

    client = SimpleNamespace(
        id="c", register_plugin=register, scheduler_info=lambda **_: {"workers": {"w": {"nanny": "n"}}}
    )
    with pytest.raises(ClusterError, match="is segment-slide installed there"), limit_tasks(client, 5):
        pass


# -- descriptions ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("short_tasks", [False, True])
def test_the_command_line_sets_the_limit_whatever_the_file_says(short_tasks, tmp_path):
    path = tmp_path / "cluster.yaml"
    path.write_text("kind: local\nblock_time_limit: 10min\n")
    assert plan_cluster(Workers(cluster=str(path)), short_tasks=short_tasks).block_time_limit_s == 600
    spec = plan_cluster(Workers(None, str(path), 90), short_tasks=short_tasks)
    assert spec.block_time_limit_s == 90
    assert plan_cluster(Workers(), short_tasks=short_tasks).block_time_limit_s is None


def test_a_limit_of_nothing_is_refused():
    with pytest.raises(ClusterError, match="block_time_limit=0 s, expected 1 or more"):
        plan_cluster(Workers(block_time_limit_s=0))


def test_commands_pass_the_limit_on(slide, tmp_path):
    """It is refused by what would obey it."""
    classes = write_segmentation(tmp_path / "classes.ome.zarr", noise(64, 64) % 2)
    for words in (command(slide, tmp_path / "out.ome.zarr"), ["instances", classes]):
        outcome = run_here(*words, "--block-time-limit", 0)
        assert outcome.exit_code == 2
        assert "block_time_limit=0 s, expected 1 or more" in outcome.err


# -- a slide of which reading one chunk hangs ------------------------------------------------------------------

BLOCK, CHUNK, LIMIT_S = 64, 16, 8
ALL = {(i, j) for i in range(4) for j in range(5)}
HANGS = (1, 2)  # chunk (5, 9): pixels (80:96, 144:160), which no halo of 8 px around another block reaches


@pytest.fixture
def slide(tmp_path):
    return write_array(tmp_path / "slide.zarr", noise(200, 260), chunk=CHUNK)


def command(slide, output):
    model = slide.parent / "cells.safetensors"
    if not model.exists():
        write_model(model)
    options = ["--axes", "yx", "--precision", "float32", "--block", BLOCK]
    return ["segment", slide, "-m", model, "-o", output, *options]


@contextlib.contextmanager
def hanging(chunk):
    """A FIFO in place of a file: whoever opens it to read waits for ever."""
    whole = chunk.read_bytes()
    chunk.unlink()
    os.mkfifo(chunk)
    try:
        yield
    finally:
        chunk.unlink()
        chunk.write_bytes(whole)


@pytest.mark.slow
def test_a_chunk_that_hangs_costs_its_block_and_when_it_is_back_the_run_goes_on(slide, tmp_path):
    output, reference = tmp_path / "out.ome.zarr", tmp_path / "reference.ome.zarr"
    with hanging(slide / "c/5/9"):
        outcome = finish(start(*command(slide, output), "--block-time-limit", LIMIT_S))
    assert outcome.exit_code == 3, outcome
    assert "1 of 20 blocks could not be done" in outcome.err
    assert f"block {HANGS}" in outcome.err
    assert f"block_time_limit is {LIMIT_S} s" in outcome.err
    assert "storage/source.py" in outcome.err, "where the task stood"
    assert "pathlib.py" in outcome.err, "and the thread that reads for it"
    assert "Traceback" not in outcome.err
    assert set(shards(output / "labels/segmentation/0")) == ALL - {HANGS}
    assert run_installed(*command(slide, output), "--input-repaired").exit_code == 0
    assert run_installed(*command(slide, reference)).exit_code == 0
    made, expected = tree(output), tree(reference)
    assert [name for name in expected if made.get(name) != expected[name]] == ["labels/segmentation/zarr.json"]
    assert made.keys() == expected.keys()


@pytest.mark.slow
def test_without_a_limit_it_hangs_on_until_it_is_interrupted(slide, tmp_path):
    output = tmp_path / "out.ome.zarr"
    around = {(i, j) for i, j in ALL if abs(i - HANGS[0]) <= 1 and abs(j - HANGS[1]) <= 1}  # they wait for its pixels
    with hanging(slide / "c/5/9"), killed_at_last(start(*command(slide, output))) as process:
        wait_until(lambda: set(shards(output / "labels/segmentation/0")) == ALL - around, process)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(2 * LIMIT_S)
        assert set(shards(output / "labels/segmentation/0")) == ALL - around
        workers = descendants(process)
        process.send_signal(signal.SIGINT)
        assert finish(process).exit_code == 130
        assert survivors(workers) == []


@contextlib.contextmanager
def killed_at_last(process):
    """A command that ends with the test, however that ends."""
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
