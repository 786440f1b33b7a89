"""Which settings of Dask count."""

import json
import subprocess
import sys

import dask
import distributed  # noqa: F401, its defaults join Dask's
import pytest

from segment_slide.cluster import configuration
from segment_slide.cluster.configuration import exactly

GUARDED = """
import json, os, sys
from segment_slide.cluster.configuration import NETWORK, adopt_site, exactly, keep_files_out, note_broken_files
from segment_slide.cluster.errors import ClusterError
keep_files_out()
assert "dask" not in sys.modules
import dask
def show(*names):
    print(json.dumps([dask.config.get(name, "nothing") for name in names]))
"""


@pytest.fixture(autouse=True)
def _no_cluster_of_the_session_is_in_force(monkeypatch):
    """Other tests share workers that stay up, and with them a configuration."""
    monkeypatch.setattr(configuration, "_in_force", [])
    monkeypatch.setattr(configuration, "_before", {})


def run_guarded(code: str, home, **variables: str) -> list:
    """What a fresh process prints that keeps files out before it imports Dask."""
    environment = {"HOME": str(home), "PATH": "/usr/bin:/bin", **variables}
    done = subprocess.run(
        [sys.executable, "-c", GUARDED + code], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture
def home(tmp_path):
    folder = tmp_path / ".config" / "dask"
    folder.mkdir(parents=True)
    (folder / "own.yaml").write_text(
        "temporary-directory: /own\n"
        "jobqueue: {slurm: {cores: 7}}\n"
        "distributed: {comm: {require-encryption: true}, worker: {lifetime: {duration: 1s}}}\n"
    )
    return tmp_path


def test_files_and_variables_do_not_count_and_documented_sections_do_once_they_are_adopted(home):
    code = """
show("temporary-directory", "jobqueue.slurm.cores", "distributed", "array.chunk-size")
assert not [name for name in os.environ if name.startswith("DASK_")]
assert dask.config.paths == []
adopt_site("jobqueue", NETWORK)
show("temporary-directory", "jobqueue.slurm.cores", "distributed")
with exactly({}, keep=(NETWORK,)):
    show("distributed.comm.require-encryption", "distributed.worker.lifetime.duration", "jobqueue")
"""
    shown = run_guarded(code, home, DASK_JOBQUEUE__SLURM__CORES="8", DASK_ARRAY__CHUNK_SIZE="1kiB")
    assert shown == [
        [None, "nothing", "nothing", "128MiB"],
        [None, 8, {"comm": {"require-encryption": True}}],
        [True, None, "nothing"],
    ]


def test_negative_control_dask_itself_reads_them(home):
    code = "import dask; print(dask.config.get('temporary-directory'))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={"HOME": str(home)}, check=True
    )
    assert done.stdout == "/own\n"


@pytest.mark.parametrize("content", [b"a: [1, \n", b"name: \xe9\n", b"- a list\n", b"just text\n"])
def test_a_broken_file_is_named_where_it_counts_and_noted_where_it_does_not(content, home):
    (home / ".config" / "dask" / "broken.yaml").write_bytes(content)
    code = """
import logging
class Handler(logging.Handler):
    def emit(self, record):
        print(json.dumps([record.levelname, record.getMessage()]))
logging.getLogger().addHandler(Handler())
note_broken_files()
try:
    adopt_site("jobqueue")
except ClusterError as error:
    print(json.dumps(["ClusterError", str(error)]))
"""
    (noted, note), (raised, error) = run_guarded(code, home)
    assert (noted, raised) == ("WARNING", "ClusterError")
    words = f"Dask's own configuration cannot be read: '{home}/.config/dask/broken.yaml' is malformed"
    assert error.startswith(words)
    assert "\n" not in error
    assert note == f"{error}. Workers on this machine do not need it."


def test_what_the_process_had_set_does_not_count_in_the_body_and_is_back_after_it():
    with dask.config.set({"distributed.worker.preload": ["none.such"], "own": 1}):
        with exactly({"distributed.worker.validate": True}):
            assert dask.config.get("distributed.worker.preload") == []
            assert dask.config.get("own", None) is None
            assert dask.config.get("distributed.worker.validate") is True
        assert dask.config.get("distributed.worker.preload") == ["none.such"]
        assert dask.config.get("own") == 1
        assert dask.config.get("distributed.worker.validate") is False


def test_configurations_may_end_in_any_order():
    name = "distributed.worker.lifetime.duration"
    before = dask.config.get(name)
    first, second = exactly({name: "1s"}), exactly({name: "2s"})
    first.__enter__()
    second.__enter__()
    assert dask.config.get(name) == "2s"
    first.__exit__(None, None, None)
    assert dask.config.get(name) == "2s"
    second.__exit__(None, None, None)
    assert dask.config.get(name) == before
