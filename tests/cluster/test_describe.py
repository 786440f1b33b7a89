"""A word or a file becomes a description; what is wrong in it is one sentence with key, value and what was expected."""

import dataclasses

import pytest

from segment_slide.cluster.describe import describe_cluster
from segment_slide.cluster.errors import ClusterError
from segment_slide.cluster.spec import ClusterSpec
from segment_slide.cluster.table import find_kind, kinds

EVERYTHING = """\
kind: slurm
jobs: 10
processes: 2
job_cores: 16
job_memory: 64 GiB
cores: 8
partition: imaging
account: core-facility
walltime: 1-02:30:00
lifetime: 20h
stagger: 10min
directives:
  - --qos=long
omit_directives: [--mem]
interface: ib0
wait: 2h
death_timeout: 90
block_time_limit: 15 min
python: /opt/seg/bin/python
prologue:
  - module load cuda/12.4
shared_directory: /shared/me
log_directory: /shared/me/logs
local_directory: $TMPDIR
"""


def write(tmp_path, text):
    path = tmp_path / "cluster.yaml"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("local", ClusterSpec("local")),
        ("cuda", ClusterSpec("cuda")),
        ("slurm", ClusterSpec("slurm")),
        ("pbs", ClusterSpec("pbs")),
        ("lsf", ClusterSpec("lsf")),
        ("sge", ClusterSpec("sge")),
        ("tcp://node7:8786", ClusterSpec("address", address="tcp://node7:8786")),
        ("tls://[fd00::2]:8786", ClusterSpec("address", address="tls://[fd00::2]:8786")),
    ],
)
def test_a_word_says_which_kind(word, expected):
    assert describe_cluster(word) == expected


def test_a_file_says_everything(tmp_path):
    assert describe_cluster(write(tmp_path, EVERYTHING)) == ClusterSpec(
        kind="slurm",
        jobs=10,
        processes=2,
        job_cores=16,
        job_memory_bytes=64 << 30,
        cores=8,
        partition="imaging",
        account="core-facility",
        walltime_s=26 * 3600 + 1800,
        lifetime_s=20 * 3600,
        stagger_s=600,
        directives=("--qos=long",),
        omit_directives=("--mem",),
        interface="ib0",
        wait_s=7200,
        death_timeout_s=90,
        block_time_limit_s=900,
        python="/opt/seg/bin/python",
        prologue=("module load cuda/12.4",),
        shared_directory="/shared/me",
        log_directory="/shared/me/logs",
        local_directory="$TMPDIR",
    )


def test_what_only_a_kind_knows_is_kept_apart(tmp_path):
    spec = describe_cluster(write(tmp_path, "kind: sge\nqueue: all.q\nproject: p\nparallel_environment: smp\n"))
    assert spec == ClusterSpec("sge", partition="all.q", account="p", own=(("parallel_environment", "smp"),))
    assert spec.own_value("parallel_environment") == "smp"
    assert spec.own_value("resource_spec") is None


def test_every_key_sets_an_attribute_and_no_attribute_is_out_of_reach():
    attributes = {field.name for field in dataclasses.fields(ClusterSpec)}
    known = [field for kind in kinds() for field in find_kind(kind).fields.values()]
    assert {field.name for field in known if not field.is_own} == attributes - {"kind", "own"}
    assert attributes.isdisjoint(field.name for field in known if field.is_own)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("kind: slrum\n", "kind='slrum', expected one of local, cuda, slurm, pbs, lsf, sge, address"),
        ("jobs: 3\n", "kind=None, expected one of"),
        ("kind: slurm\nnodes: 3\n", "nodes is no key of kind slurm; did you mean cores?"),
        ("kind: slurm\nqqq: 3\n", "qqq is no key of kind slurm; expected one of account, block_time_limit, cores, "),
        ("kind: slurm\npartitions: gpu\n", "partitions is no key of kind slurm; did you mean partition?"),
        ("kind: local\npartition: gpu\n", "partition is no key of kind local; expected one of block_time_limit, c"),
        ("kind: slurm\njobs: three\n", "jobs='three', expected a whole number"),
        ("kind: slurm\njobs: true\n", "jobs='True', expected a whole number"),
        ("kind: slurm\njobs: 0\n", "jobs=0, expected 1 or more"),
        ("kind: slurm\nwalltime: 0\n", "walltime=0 s, expected 1 or more"),
        ("kind: slurm\njobs: 1\n\njobs: 2\n", "jobs is there twice, in lines 2 and 4; keep one"),
        ("kind: slurm\njobs: 2.5\n", "jobs='2.5', expected a whole number"),
        ("kind: slurm\njob_memory: plenty\n", "job_memory='plenty', expected a size as 64GB or 2 GiB"),
        ("kind: slurm\njob_memory: -1GB\n", "job_memory='-1GB', expected a size"),
        ("kind: slurm\nwalltime: '30'\n", "walltime='30', expected a duration as 90min"),
        ("kind: slurm\nwalltime: '1:99:00'\n", "walltime='1:99:00', expected a duration"),
        ("kind: slurm\nwalltime: soon\n", "walltime='soon', expected a duration"),
        ("kind: slurm\ndirectives: --qos=long\n", "directives='--qos=long', expected a list of texts"),
        ("kind: slurm\nprologue: [[a]]\n", "expected a list of texts of one line each"),
        ('kind: slurm\nprologue: ["a\\nb"]\n', "prologue=.*expected a list of texts of one line each"),
        ('kind: slurm\npartition: "a\\nb"\n', "partition=.*expected a text of one line"),
        ("kind: slurm\ndask_cuda: 1\n", "dask_cuda='1', expected true or false"),
        ("kind: slurm\nminimum: 2\n", "minimum=2, maximum=None: expected both or neither"),
        ("kind: slurm\nminimum: 5\nmaximum: 2\n", "minimum=5, expected at most maximum=2"),
        ("kind: slurm\njobs: 2\nminimum: 1\nmaximum: 2\n", "jobs=2 with minimum=1: expected either"),
        ("kind: slurm\ngpus: 2\n", "gpus=2 with dask_cuda=false: a worker uses one GPU"),
        ("kind: slurm\ngpus: 1\nprocesses: 2\n", "processes=2, expected gpus=1: one worker per GPU"),
        ("kind: slurm\ndask_cuda: true\n", "dask_cuda=true with gpus=0"),
        ("kind: slurm\nhost: a\ninterface: b\n", "host=a with interface=b: expected one of them"),
        ("kind: slurm\nwalltime: 1h\nlifetime: 1h\n", "expected to end before walltime=3600 s"),
        ("kind: slurm\nlifetime: 60\nstagger: 60\n", "stagger=60 s, expected less than lifetime=60 s"),
        ("kind: address\n", "address=None, expected tcp://host:port or tls://host:port"),
        ("kind: address\naddress: http://a:1\n", "address='http://a:1', expected tcp"),
        ("kind: address\naddress: tcp://a:99999\n", "expected tcp://host:port"),
        ("kind: address\naddress: tcp://a:1\ntls_ca_file: a\n", "certificates are of no use with tcp://"),
        ("kind: address\naddress: tls://a:1\ntls_ca_file: a\n", "expected all three, or none"),
        ("kind: [1\n", "is not YAML"),
        ("- local\n", "expected lines as `kind: slurm`"),
        ("", "expected lines as `kind: slurm`"),
        ("kind: !!python/object/apply:os.system [id]\n", "is not YAML"),
        ("kind: slurm\n3: 4\n", "3 is no key of kind slurm"),
        ("kind: pbs\npartition: a\n", "partition is no key of kind pbs; expected one of account, block_time_limit"),
        ("kind: lsf\nqueues: a\n", "queues is no key of kind lsf; did you mean queue?"),
        ("kind: sge\nresource_spec: [a]\n", "resource_spec=.*expected a text of one line"),
        ("kind: sge\nwalltime: 1h\nlifetime: 1h\n", "walltime=3600 s: Grid Engine would kill the workers first"),
    ],
)
def test_what_is_wrong_in_a_file_is_said_with_file_key_and_value(text, words, tmp_path):
    path = write(tmp_path, text)
    with pytest.raises(ClusterError, match=words) as caught:
        describe_cluster(path)
    assert str(caught.value).startswith(path)


def test_a_file_that_is_not_there_is_said(tmp_path):
    with pytest.raises(ClusterError, match=r"none.yaml: there is no such file"):
        describe_cluster(str(tmp_path / "none.yaml"))


@pytest.mark.parametrize("word", ["slrum", "", "8786", "/tmp"])
def test_a_word_that_is_no_kind_is_said(word):
    with pytest.raises(ClusterError, match=r"expected local, cuda, slurm, pbs, lsf, sge, an address as tcp"):
        describe_cluster(word)


@pytest.mark.parametrize("word", ["http://a:1", "tcp://a", "tcp://:1", "tls://a:b"])
def test_an_address_that_is_none_is_said(word):
    with pytest.raises(ClusterError, match=r"expected tcp://host:port or tls://host:port"):
        describe_cluster(word)


def test_workers_of_the_command_line_win_over_the_file(tmp_path):
    path = write(tmp_path, "kind: slurm\nminimum: 1\nmaximum: 9\n")
    assert describe_cluster(path, workers=3) == ClusterSpec("slurm", jobs=3)
    assert describe_cluster("local", workers=3) == ClusterSpec("local", workers=3)
    with pytest.raises(ClusterError, match="workers=3: a scheduler that runs already"):
        describe_cluster("tcp://a:1", workers=3)
    with pytest.raises(ClusterError, match="workers=0, expected 1 or more"):
        describe_cluster("local", workers=0)


def test_a_key_without_a_value_is_as_good_as_left_out(tmp_path):
    assert describe_cluster(write(tmp_path, "kind: slurm\naccount:\n")) == ClusterSpec("slurm")
