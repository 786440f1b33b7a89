"""One small segmentation by the installed command in every environment: the same bytes, the same exit code."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.flows.support import noise, tree, write_array, write_model
from tests.hostile_environment.environments import DASK, FOLDERS, REFUSED, SHARED_MEMORY, STREAMS, TEXT, Environment

pytestmark = pytest.mark.slow

# Limits for what hangs, on a machine that is busy.
HANGS_S, GONE_WITHIN_S = 900, 60

# Processes that only count, beside a command, on each core.
BUSY_PER_CORE = 4

ORDINARY = Environment()


@dataclass(frozen=True)
class Ending:
    """What is left of a command."""

    exit_code: int
    files: dict[str, str]
    said: str


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> tuple[Path, Path]:
    """A slide of six blocks and a network."""
    folder = tmp_path_factory.mktemp("inputs")
    return write_array(folder / "slide.zarr", noise(90, 130)), write_model(folder / "cells.safetensors")


@pytest.fixture(scope="module")
def expected(inputs, tmp_path_factory) -> Ending:
    """How it ends where nothing is in its way."""
    ending = run(ORDINARY, inputs, tmp_path_factory.mktemp("expected"))
    assert (ending.exit_code, ending.said) == (0, "")
    assert len(ending.files) > 6
    return ending


def run(environment: Environment, inputs: tuple[Path, Path], folder: Path, *, name: str = "out.ome.zarr") -> Ending:
    """Segment in that environment; no process may outlive the command, and no traceback be shown."""
    folder.mkdir(exist_ok=True)
    slide, model = inputs
    output = folder / "output" / name
    command = [Path(sys.executable).with_name("segment-slide"), "segment", slide, "--axes", "yx", "-m", model]
    command += ["-o", output, "--block", 48]
    variables = environment.prepare(folder)
    process = subprocess.Popen(
        environment.words(command),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=variables,
        cwd=folder,
        start_new_session=True,
    )
    _, said = process.communicate(timeout=HANGS_S)
    assert processes_of_session(process.pid) == []
    assert b"Traceback" not in said, said
    return Ending(process.returncode, tree(output) if output.exists() else {}, said.decode("utf-8", "replace"))


def processes_of_session(session: int) -> list[psutil.Process]:
    """Processes of a session that do not end by themselves: a helper of Python's ends just after the command."""
    end = time.monotonic() + GONE_WITHIN_S
    while found := [process for process in psutil.process_iter() if _session_of(process.pid) == session]:
        if time.monotonic() > end:
            return found
        time.sleep(0.05)
    return []


def _session_of(pid: int) -> int | None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        return os.getsid(pid)
    return None


def skip_if_impossible(environment: Environment) -> None:
    """Skip a test whose environment this user cannot make."""
    if environment.space:
        works = ["mount", "-t", "tmpfs", "tmpfs", "/mnt"] if environment.space == "--mount" else ["true"]
        trial = subprocess.run(["unshare", environment.space, *works], capture_output=True, text=True, check=False)
        if trial.returncode:
            pytest.skip(f"this user cannot do that: {trial.stderr.strip()}")


@pytest.mark.parametrize("name", [*STREAMS, *TEXT, *FOLDERS, *SHARED_MEMORY])
def test_streams_texts_and_folders_change_nothing(name, inputs, expected, tmp_path):
    environment = {**STREAMS, **TEXT, **FOLDERS, **SHARED_MEMORY}[name]
    skip_if_impossible(environment)
    ending = run(environment, inputs, tmp_path)
    assert (ending.exit_code, ending.files) == (expected.exit_code, expected.files)


@pytest.mark.parametrize("name", DASK)
def test_the_users_own_configuration_of_dask_does_not_reach_workers_on_this_machine(name, inputs, expected, tmp_path):
    ending = run(DASK[name], inputs, tmp_path)
    assert (ending.exit_code, ending.files) == (expected.exit_code, expected.files)
    lines = ending.said.splitlines()
    if name in ("no YAML", "no text"):
        assert len(lines) == 1
        assert f"'{tmp_path}/home/.config/dask/own.yaml' is malformed" in lines[0]
        assert lines[0].endswith("Workers on this machine do not need it.")
    else:
        assert lines == [] or name == "variables"


def test_a_name_that_is_no_text_can_be_printed(inputs, expected, tmp_path):
    """Latin-1 on a system that speaks UTF-8."""
    ending = run(ORDINARY, inputs, tmp_path, name=os.fsdecode(b"caf\xe9.ome.zarr"))
    assert (ending.exit_code, ending.files) == (expected.exit_code, expected.files)


def test_a_busy_machine_takes_longer_and_says_nothing(inputs, expected, tmp_path):
    """Workers answer late, and are ended by force at the end; both changed the exit code once."""
    with busy_machine():
        ending = run(ORDINARY, inputs, tmp_path)
    assert ending == expected


@contextlib.contextmanager
def busy_machine() -> Iterator[None]:
    """Keep every core busy with several other processes."""
    count = [sys.executable, "-c", "while True: pass"]
    others = [subprocess.Popen(count) for _ in range(BUSY_PER_CORE * len(os.sched_getaffinity(0)))]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


@pytest.mark.parametrize("name", REFUSED)
def test_where_no_worker_can_start_there_is_one_sentence_and_nothing_is_written(name, inputs, tmp_path):
    environment, sentence = REFUSED[name]
    skip_if_impossible(environment)
    ending = run(environment, inputs, tmp_path)
    assert (ending.exit_code, ending.files) == (2, {})
    assert ending.said.startswith(sentence)
    assert len(ending.said.splitlines()) == 1


@pytest.mark.parametrize("name", [name for name in STREAMS if "reader" not in name])
def test_a_refused_request_has_its_exit_code_whatever_the_streams_are(name, inputs, tmp_path):
    slide, _ = inputs
    ending = run(STREAMS[name], (slide, tmp_path / "none.safetensors"), tmp_path)
    assert (ending.exit_code, ending.files) == (2, {})


def test_negative_control_another_network_and_a_refusal_differ(inputs, expected, tmp_path):
    slide, _ = inputs
    other = write_model(tmp_path / "other.safetensors", seed=1)
    ending = run(ORDINARY, (slide, other), tmp_path / "first")
    assert ending.exit_code == expected.exit_code
    assert ending.files.keys() == expected.files.keys()
    assert ending.files != expected.files
    assert run(ORDINARY, (slide, tmp_path / "none"), tmp_path / "second").exit_code != expected.exit_code
