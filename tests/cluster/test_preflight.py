"""Workers are looked at before the first block, and what is wrong with one is said with its name."""

import dataclasses
import re
import socket

import pytest
from distributed import Client

from segment_slide.cluster.complete import complete_spec
from segment_slide.cluster.errors import ClusterError, WorkersLostError
from segment_slide.cluster.preflight import preflight
from segment_slide.cluster.spec import ClusterSpec

HERE = re.escape(socket.gethostname())


@pytest.fixture(scope="module")
def ready(scheduler):
    spec = complete_spec(ClusterSpec("address", address=scheduler.scheduler_address, allow_unencrypted=True))
    with Client(scheduler) as client:
        yield client, spec


def pass_quietly():
    return None


def refuse():
    raise PermissionError("/store/out.ome.zarr cannot be written; mount it on the nodes")


def fail_without_words():
    raise KeyError


def test_workers_that_are_ready_pass(ready):
    client, spec = ready
    preflight(client, spec, {"nothing": pass_quietly}, needed_bytes=1 << 29)


def test_a_check_that_fails_is_said_with_worker_and_host(ready):
    client, spec = ready
    with pytest.raises(ClusterError) as caught:
        preflight(client, spec, {"nothing": pass_quietly, "output": refuse})
    lines = str(caught.value).splitlines()
    assert lines[0] == "the workers are not ready:"
    assert len(lines) == 3, "one for each of two workers"
    for line in lines[1:]:
        assert re.fullmatch(
            rf"  worker \d on {HERE}: output: /store/out.ome.zarr cannot be written; mount it on the nodes", line
        )


def test_an_error_without_words_is_named(ready):
    client, spec = ready
    with pytest.raises(ClusterError, match="odd: KeyError"):
        preflight(client, spec, {"odd": fail_without_words})


def test_too_little_memory_is_said_with_both_amounts(ready):
    client, spec = ready
    with pytest.raises(ClusterError, match=r"memory: it has 1.00 GiB, the plan needs 2.00 GiB; give it more memory"):
        preflight(client, spec, needed_bytes=2 << 30)


@pytest.mark.parametrize(
    ("visible", "seen"),
    [("0", True), ("3,1", True), ("GPU-1a2b", True), ("", False), ("-1", False), ("NoDevFiles", False)],
)
def test_a_gpu_is_missed_when_it_was_asked_for(ready, visible, seen, monkeypatch):
    client, _ = ready
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    spec = dataclasses.replace(ClusterSpec("slurm"), gpus=1)
    if seen:
        preflight(client, spec)
        return
    with pytest.raises(ClusterError, match="gpu: none is visible .*; check gres and partition"):
        preflight(client, spec)


def test_the_slurm_job_is_named(ready, monkeypatch):
    client, spec = ready
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    with pytest.raises(ClusterError, match=rf"worker 0 on {HERE}, SLURM job 4711: output:"):
        preflight(client, spec, {"output": refuse})


def test_many_failures_are_counted_and_not_all_shown(ready):
    client, spec = ready
    with pytest.raises(ClusterError, match="… and 14 more"):
        preflight(client, spec, {f"check {number}": refuse for number in range(12)})


def test_a_worker_that_cannot_run_our_code_is_said(ready, monkeypatch):
    client, spec = ready

    def run(*_, **__):
        return {"tcp://w:1": ModuleNotFoundError("No module named 'cluster'")}

    monkeypatch.setattr(client, "run", run)
    with pytest.raises(ClusterError, match=r"worker tcp://w:1: cannot run our code .*is segment-slide installed there"):
        preflight(client, spec)
    monkeypatch.setattr(client, "run", lambda *_, **__: {})
    with pytest.raises(WorkersLostError, match="workers were lost 4 times in a row before the work began"):
        preflight(client, spec)
