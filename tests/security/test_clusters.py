"""Clusters of ours beside clusters of Dask's, with the eyes of another user: ports, scratch folders, shared memory."""

import contextlib
import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.security.support import NOBODY, PLANTED, listening_ports, probe, semaphores

pytestmark = pytest.mark.slow  # each test starts clusters

HELD = Path(__file__).with_name("held_cluster.py")


@dataclass(frozen=True)
class Held:
    """A process that holds a cluster, and what its workers say."""

    process: subprocess.Popen
    scratch: Path
    zarr: str

    @property
    def tree(self) -> list[psutil.Process]:
        """The process and all below it."""
        root = psutil.Process(self.process.pid)
        return [root, *root.children(recursive=True)]


@contextlib.contextmanager
def holding(whose: str, temporary: Path, folder: Path) -> Iterator[Held]:
    """Hold a cluster, with that folder for temporary files and that working directory."""
    process = subprocess.Popen(
        [sys.executable, HELD, whose],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=folder,
        env={**os.environ, "TMPDIR": str(temporary)},
        start_new_session=True,
    )
    try:
        said = json.loads(process.stdout.readline())
        yield Held(process, Path(said["scratch"][0]), said["zarr"][0])
    finally:
        with contextlib.suppress(OSError):
            process.stdin.close()
        process.wait(timeout=120)
        process.stdout.close()


@pytest.fixture
def temporary(tmp_path) -> Path:
    """A folder for temporary files that all users share."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    folder.chmod(0o1777)
    return folder


# -- ports -----------------------------------------------------------------------------------------------------


def test_ports_give_nothing_to_another_user_and_nothing_to_the_same_user_without_a_certificate(temporary, tmp_path):
    with holding("ours", temporary, tmp_path) as held:
        ports = listening_ports(psutil.Process(held.process.pid))
        assert len(ports) >= 5, "scheduler, nanny and worker, and the HTTP servers of two of them"
        assert probe(ports) == {}
        assert probe(ports, as_uid=NOBODY) == {}
    with holding("dask", temporary, tmp_path) as held:
        ports = listening_ports(psutil.Process(held.process.pid))
        for given in (probe(ports), probe(ports, as_uid=NOBODY)):
            said = [one for port in given.values() for one in port]
            assert len([one for one in said if "bytes in plain" in one]) == 3, "scheduler, nanny, worker"
            assert len([one for one in said if "GET /metrics: 200" in one]) == 2


# -- folders ---------------------------------------------------------------------------------------------------


def test_a_scratch_folder_that_somebody_else_made_is_neither_used_nor_imported_from(temporary, tmp_path):
    planted = temporary / "dask-scratch-space"
    planted.mkdir()
    (planted / "zarr.py").write_text(PLANTED)
    for path, mode in ((planted, 0o777), (planted / "zarr.py", 0o666)):
        path.chmod(mode)
        if os.getuid() == 0:
            os.chown(path, NOBODY, NOBODY)
    with holding("ours", temporary, tmp_path) as held:
        assert planted not in held.scratch.parents
        private = next(parent for parent in held.scratch.parents if parent.parent == temporary)
        assert stat.S_IMODE(private.stat().st_mode) == 0o700
        assert "site-packages" in held.zarr
    assert not (planted / "zarr.ran").exists()
    assert [path.name for path in temporary.iterdir()] == ["dask-scratch-space"]
    with holding("dask", temporary, tmp_path) as held:
        assert planted in held.scratch.parents
        assert held.zarr == str(planted / "zarr.py"), "the nanny's folder is on the path of its worker"
    assert (planted / "zarr.ran").exists()


def test_nothing_is_imported_from_the_working_directory(temporary, tmp_path):
    folder = tmp_path / "work"
    folder.mkdir()
    for name in ("zarr", "toolz", "distributed", "sitecustomize"):
        (folder / f"{name}.py").write_text(PLANTED)
    with holding("ours", temporary, folder) as held:
        assert "site-packages" in held.zarr
    assert list(folder.glob("*.ran")) == []
    subprocess.run([sys.executable, "-c", "import zarr"], check=True, cwd=folder)
    assert [path.name for path in folder.glob("*.ran")] == ["zarr.ran"], "the control: Python itself would"


# -- what is left when everything is killed --------------------------------------------------------------------


def kill_all(held: Held) -> None:
    """End all processes at once by force."""
    processes = held.tree
    for process in processes:
        process.suspend()
    os.killpg(held.process.pid, signal.SIGKILL)
    psutil.wait_procs(processes, timeout=60)


def test_after_all_processes_were_killed_nothing_stays_in_shared_memory_and_the_next_run_removes_the_scratch(
    temporary, tmp_path
):
    with holding("ours", temporary, tmp_path) as held:
        assert semaphores(held.tree) == set()
        kill_all(held)
    (left,) = temporary.iterdir()
    with holding("ours", temporary, tmp_path):
        assert not left.exists()
    assert list(temporary.iterdir()) == []
    with holding("dask", temporary, tmp_path) as held:
        theirs = semaphores(held.tree)
        kill_all(held)
    assert len(theirs) == 6
    time.sleep(1)  # the tracker, which would remove them, was killed too
    assert all(os.path.exists(path) for path in theirs), "the control: files of Dask's own queues stay"
    for path in theirs:
        os.unlink(path)
