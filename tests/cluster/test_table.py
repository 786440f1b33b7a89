"""A kind of cluster is a file and a line of the table; nothing else asks which kind it is."""

import contextlib
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from segment_slide.cluster import table
from segment_slide.cluster.complete import complete_spec
from segment_slide.cluster.connect import connect
from segment_slide.cluster.describe import describe_cluster
from segment_slide.cluster.errors import ClusterError
from segment_slide.cluster.fields import choose_fields
from segment_slide.cluster.kind import Job, Kind, Remedies
from segment_slide.cluster.spec import ClusterSpec

ROOT = Path(__file__).parents[2]


class Cloud(Kind):
    fields = choose_fields("workers", "wait")
    is_elsewhere = True

    def complete(self, spec, *, short_tasks=False):
        return replace(spec, workers=spec.workers or 7, cores=1, memory_bytes=1 << 30)

    @contextlib.contextmanager
    def open(self, spec):
        yield f"a client of {spec.workers} workers"

    def remedies(self, spec):
        return Remedies("memory", "rent one", "Rent more.")

    def find_job(self, environment):
        return Job("cloud", environment["CLOUD"]) if "CLOUD" in environment else None


@pytest.fixture
def cloud(monkeypatch):
    """A kind that the package does not have: its file, and its line of the table."""
    module = ModuleType("segment_slide.cluster.kinds.cloud")
    module.KIND = Cloud()
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(table.STARTED, "cloud", "cloud")


def test_a_kind_is_a_file_and_a_line_of_the_table(cloud, tmp_path):
    assert describe_cluster("cloud", workers=3) == ClusterSpec("cloud", workers=3)
    (tmp_path / "cluster.yaml").write_text("kind: cloud\nwait: 1min\n")
    spec = describe_cluster(str(tmp_path / "cluster.yaml"))
    assert complete_spec(spec).workers == 7
    assert table.is_elsewhere(spec)
    assert table.find_job({"CLOUD": "9"}) == Job("cloud", "9")
    with connect(spec) as client:
        assert client == "a client of 7 workers"


def test_without_them_there_is_no_such_kind():
    with pytest.raises(ClusterError, match="kind='cloud', expected one of local, cuda, slurm, pbs, lsf, sge, address"):
        complete_spec(ClusterSpec("cloud"))


@pytest.mark.parametrize("name", table.kinds())
def test_each_kind_says_what_to_do_in_whole_sentences(name):
    remedies = table.find_kind(name).remedies(ClusterSpec(name, log_directory="/logs"))
    assert remedies.memory in ("memory", "job_memory")
    assert remedies.deaths.startswith("If memory was short, ")
    assert remedies.gpu.startswith("check ")


@pytest.mark.parametrize(
    ("environment", "job"),
    [
        ({"SLURM_JOB_ID": "4711"}, Job("SLURM", "4711")),
        ({"PBS_JOBID": "4711.server.site"}, Job("PBS", "4711")),
        ({"LSB_JOBID": "4711"}, Job("LSF", "4711")),
        ({"JOB_ID": "4711", "SGE_JOB_SPOOL_DIR": "/spool/4711"}, Job("Grid Engine", "4711")),
        ({"JOB_ID": "4711"}, None),
        ({}, None),
    ],
)
def test_a_process_knows_its_job_by_its_environment(environment, job):
    assert table.find_job(environment) == job


def test_knowing_all_kinds_loads_no_dask():
    code = (
        "import sys; from segment_slide.cluster import table; [table.find_kind(name) for name in table.kinds()]; "
        "assert not {'dask', 'distributed', 'dask_jobqueue', 'dask_cuda'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def compared_kinds(source):
    """Comparisons of something called kind with the name of a kind of cluster."""
    names = "|".join(table.kinds())
    return re.findall(rf"kind (?:==|!=|in|not in) \(?[\"'](?:{names})[\"']", source)


def test_nobody_compares_a_kind_with_a_name():
    # a device is of kind cpu or cuda as well
    sources = [path for folder in ("cluster", "flows") for path in (ROOT / folder).rglob("*.py")]
    found = {path.name: compared_kinds(path.read_text()) for path in sources}
    assert {name: lines for name, lines in found.items() if lines} == {"segment_request.py": ['kind == "cuda"']}
    assert compared_kinds('if spec.kind in ("slurm", "address"):\n    kind == "pbs"') == [
        'kind in ("slurm"',
        'kind == "pbs"',
    ]


def test_kinds_are_loaded_by_the_table_alone():
    sources = [path for folder in ("cluster", "flows") for path in (ROOT / folder).rglob("*.py")]
    named = [
        path
        for path in sources
        if re.search(r"(from|import\w*\(?f?\"?) ?segment_slide\.cluster\.kinds", path.read_text())
    ]
    assert [path.name for path in named if path.parent.name != "kinds"] == ["table.py"]
