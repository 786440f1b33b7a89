"""Kill anything at any time, run the same command again: only what is missing is computed, the bytes end up equal.

Real processes of the installed command, really killed. The oracle is an undisturbed run, block by block.
"""

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from segment_slide.flows.requests import SegmentRequest
from segment_slide.flows.segment_request import resolve_segment_request
from segment_slide.pipeline.segmentation import output
from segment_slide.pipeline.segmentation.options import SegmentOptions
from segment_slide.pipeline.storage import place
from tests.flows.support import (
    Outcome,
    brake,
    descendants,
    finish,
    noise,
    run_here,
    run_installed,
    run_without_workers,
    shards,
    start,
    survivors,
    tree,
    wait_until,
    write_array,
    write_model,
)
from tests.processes import spawned_below
from tests.tiers import exhaustive

SHAPE, BLOCK = (544, 288), 32
N_BLOCKS, N_COARSE = 17 * 9, 9 * 5  # shards of the two levels; three windows
LABELS = "labels/segmentation"
NANNY_S = 60  # a worker notices long before that its parent is gone


class Run:
    """One command and what it leaves behind; `folder` holds the input and the model."""

    def __init__(self, folder: Path, out: Path, *options: object) -> None:
        self.out = out
        self.arguments = ["segment", folder / "slide.zarr", "-m", folder / "cells.safetensors", "-o", out]
        self.arguments += ["--axes", "yx", "--block", BLOCK, "--precision", "float32", *options]

    def stored(self, level: int = 0) -> dict[tuple[int, ...], int]:
        """Shards of a level with their times of change."""
        return {index: path.stat().st_mtime_ns for index, path in shards(self.out / LABELS / str(level)).items()}

    def start_and_wait_for(self, n_shards: int, level: int = 0):
        """The running command, once a level has so many shards; it is slow from there on, until `release`."""
        process = start(*self.arguments, **brake(self._brake, self.out / LABELS / str(level) / "c", n_shards))
        wait_until(lambda: len(shards(self.out / LABELS / str(level))) >= n_shards, process)
        return process

    @property
    def _brake(self) -> Path:
        return self.out.with_name(f"{self.out.name}.brake")

    def release(self) -> None:
        """Let what `start_and_wait_for` slowed down go on as fast as ever."""
        self._brake.unlink()

    def check_goes_on(self, reference: dict[str, str], run: Callable[..., Outcome] = run_without_workers) -> Outcome:
        """The same command again: nothing is done twice, every byte is the undisturbed run's.

        By default without workers, which is quicker.
        """
        before = [self.stored(level) for level in (0, 1)]
        assert len(before[0]) > 0
        again = run(*self.arguments)
        assert again.exit_code == 0, again
        assert f"Went on: {len(before[0])} of {N_BLOCKS} blocks were already done." in again.out
        for level, stored in enumerate(before):
            after = self.stored(level)
            assert {index: after[index] for index in stored} == stored
        assert tree(self.out) == reference
        return again


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("resume")
    write_array(folder / "slide.zarr", noise(*SHAPE))
    write_model(folder / "cells.safetensors")
    return folder


@pytest.fixture(scope="module")
def reference(folder) -> dict[str, str]:
    """Files of an undisturbed run without workers."""
    run = Run(folder, folder / "reference.ome.zarr")
    outcome = run_without_workers(*run.arguments)
    assert outcome.exit_code == 0, outcome
    assert len(run.stored(0)) == N_BLOCKS
    assert len(run.stored(1)) == N_COARSE
    assert "Went on" not in outcome.out
    return tree(run.out)


@pytest.fixture
def run(folder, tmp_path) -> Run:
    return Run(folder, tmp_path / "out.ome.zarr")


def kill_group(process) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


# -- everything killed at once -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_killed_in_the_middle_goes_on_and_ends_with_equal_bytes(run, reference):
    kill_group(run.start_and_wait_for(N_BLOCKS // 3))
    assert len(run.stored()) < N_BLOCKS  # else nothing would be tested
    run.check_goes_on(reference)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, exhaustive(2), exhaustive(3)])
def test_a_run_killed_again_and_again_ends_with_equal_bytes(seed, run, reference):
    moments = sorted(random.Random(seed).sample(range(1, N_BLOCKS - 20), 3))
    for n_shards in moments:
        before = run.stored() if run.out.exists() else {}
        kill_group(run.start_and_wait_for(n_shards))
        after = run.stored()
        assert {index: after[index] for index in before} == before
    assert len(run.stored()) < N_BLOCKS
    run.check_goes_on(reference, run_installed)


@pytest.mark.slow
def test_a_run_killed_while_it_builds_the_pyramid_goes_on_there(run, reference):
    kill_group(run.start_and_wait_for(N_COARSE // 4, level=1))
    assert len(run.stored(0)) == N_BLOCKS
    assert len(run.stored(1)) < N_COARSE
    run.check_goes_on(reference)


@pytest.mark.slow
def test_runs_killed_while_they_create_the_output_leave_something_that_can_be_gone_on_with(run, reference, tmp_path):
    """Each is killed as soon as one more file is there, so that creation is cut at several places."""
    for seen in (
        ".segment-slide.lock",
        "zarr.json",
        "labels/zarr.json",
        f"{LABELS}/zarr.json",
        f"{LABELS}/1/zarr.json",
    ):
        # once created, it is slow: it does not end, and takes away its lock, before it is looked at
        process = start(*run.arguments, **brake(tmp_path / "brake", run.out / LABELS / "0/c", 1))
        wait_until(lambda path=run.out / seen: path.exists(), process)
        kill_group(process)
    kill_group(run.start_and_wait_for(1))
    run.check_goes_on(reference)


class Killed(BaseException):
    """Ends a write as SIGKILL does: no handler of Exception sees it, the half-written file stays."""


def test_a_creation_cut_at_any_write_is_done_again_with_equal_bytes(folder, tmp_path, monkeypatch):
    """Exhaustive where killing a process only samples: every rename of a finished file is once the last."""

    def create(out: Path, n_writes: int) -> bool:
        """Create an output, ended at write `n_writes`; whether there were so many."""
        request = SegmentRequest(
            str(folder / "slide.zarr"),
            str(folder / "cells.safetensors"),
            str(out),
            SegmentOptions(block=BLOCK, precision="float32", probabilities="uint8"),
            axes="yx",
        )
        prepared, _ = resolve_segment_request(request)  # refuses what is there if it takes it for somebody else's
        assert not prepared.begun
        left = iter(range(n_writes))

        def replace(path: Path, target: Path) -> Path:
            if next(left, None) is None:
                raise Killed
            return rename(path, target)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", replace)
            try:
                output.create_output(str(out), "segmentation", prepared.plan, prepared.record, in_place=False)
            except Killed:
                return False
        return True

    rename = Path.replace
    assert create(tmp_path / "whole.zarr", 1000)
    whole = tree(tmp_path / "whole.zarr")
    n_writes = 0
    while True:
        out = tmp_path / f"cut-{n_writes}.zarr"
        is_whole = create(out, n_writes)
        if is_whole:
            break
        assert tree(out) != whole
        with place.exclusive(str(out), "segmentation"):
            assert create(out, 1000)
        assert tree(out) == whole
        n_writes += 1
    assert n_writes >= len(whole)


# -- one process killed -------------------------------------------------------------------------------------------


def workers_of(process) -> list[psutil.Process]:
    return spawned_below(psutil.Process(process.pid))


@pytest.mark.slow
def test_a_run_whose_worker_is_killed_finishes_by_itself(run, reference):
    process = run.start_and_wait_for(N_BLOCKS // 4)
    workers_of(process)[0].kill()
    run.release()
    outcome = finish(process)
    assert outcome.exit_code == 0, outcome
    assert "Traceback" not in outcome.err
    assert tree(run.out) == reference


@pytest.mark.slow
def test_workers_whose_parent_is_killed_end_by_themselves_and_a_new_run_may_start_at_once(run, reference):
    process = run.start_and_wait_for(N_BLOCKS // 4)
    children = descendants(process)
    assert workers_of(process)
    process.kill()
    process.wait()
    again = start(*run.arguments)  # while the old worker may still be there
    assert survivors(children, NANNY_S) == []
    outcome = finish(again)
    process.communicate()
    assert outcome.exit_code == 0, outcome
    assert "Went on:" in outcome.out
    assert tree(run.out) == reference


# -- asked to end -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_that_is_asked_to_end_does_so_with_all_its_workers_and_a_second_run_meanwhile_is_refused(run):
    process = run.start_and_wait_for(3)
    second = run_here(*run.arguments)
    assert second.exit_code == 2
    assert f"output={run.out} is being written by another run; wait for it, or end it." in second.err

    check_ends_cleanly(run, process, process.terminate, 143)
    third = run_here("info", run.out)
    assert "run the same command again to go on" in " ".join(third.out.split())


@pytest.mark.slow
def test_ctrl_c_in_a_terminal_ends_all_and_the_run_goes_on_later(run, reference):
    """A terminal interrupts the whole group, workers too."""
    process = run.start_and_wait_for(N_BLOCKS // 4)
    check_ends_cleanly(run, process, lambda: os.killpg(process.pid, signal.SIGINT), 130)
    run.check_goes_on(reference)


@pytest.mark.slow
def test_a_batch_system_that_ends_the_whole_group_can_start_it_again(run, reference):
    process = run.start_and_wait_for(N_BLOCKS // 4)
    check_ends_cleanly(run, process, lambda: os.killpg(process.pid, signal.SIGTERM), 143)
    run.check_goes_on(reference)


@pytest.mark.slow
def test_a_terminal_that_closes_ends_all_and_the_run_goes_on_later(run, reference):
    """The shell and the terminal may both say so, to workers too."""
    process = run.start_and_wait_for(N_BLOCKS // 4)

    def hang_up() -> None:
        for _ in range(2):
            os.killpg(process.pid, signal.SIGHUP)
            time.sleep(0.05)

    check_ends_cleanly(run, process, hang_up, 129)
    run.check_goes_on(reference)


def check_ends_cleanly(run: Run, process, end, exit_code: int) -> None:
    """No process, no lock, no half-written file left, and nothing but a sentence on standard error."""
    children = descendants(process)
    assert children
    end()
    outcome = finish(process)
    assert outcome.exit_code == exit_code, outcome
    assert "Interrupted. What is done is kept: run the same command again to go on." in outcome.err
    assert "Traceback" not in outcome.err
    assert survivors(children) == []
    assert [path.name for path in run.out.rglob("*") if path.suffix in (".lock", ".partial")] == []
    assert len(run.stored()) < N_BLOCKS


# -- two runs ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_runs_into_different_outputs_work_at_once(folder, tmp_path, reference):
    runs = [Run(folder, tmp_path / f"{number}.ome.zarr") for number in range(2)]
    outcomes = [finish(process) for process in [start(*run.arguments) for run in runs]]
    assert [outcome.exit_code for outcome in outcomes] == [0, 0], outcomes
    assert [tree(run.out) for run in runs] == [reference, reference]


@pytest.mark.slow
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
def test_a_run_begun_by_one_worker_may_go_on_with_two(folder, tmp_path, reference):
    out = tmp_path / "out.ome.zarr"
    kill_group(Run(folder, out, "--workers", 1).start_and_wait_for(N_BLOCKS // 3))
    Run(folder, out, "--workers", 2).check_goes_on(reference, run_installed)
