"""PBS, LSF and Grid Engine: job scripts compared with files in ``golden/``, and commands with stand-ins.

The golden files were written by this test (``UPDATE_GOLDEN=1 pytest …``) and read by eye beside the manuals. Jobs of
Grid Engine ran for real in tests/sge; PBS and LSF are known by their manuals only.
"""

import logging
import os
import subprocess

import dask
import pytest

from segment_slide.cluster.complete import complete_spec
from segment_slide.cluster.errors import ClusterError
from segment_slide.cluster.kinds.batch import job_script
from segment_slide.cluster.kinds.batch_system import QueuedJob
from segment_slide.cluster.kinds.jobqueue import import_jobqueue
from segment_slide.cluster.kinds.lsf import Lsf
from segment_slide.cluster.kinds.pbs import Pbs
from segment_slide.cluster.kinds.sge import Sge
from segment_slide.cluster.spec import ClusterSpec
from segment_slide.cluster.table import find_kind
from tests.cluster.kinds.test_slurm_script import GOLDEN, certificates

SYSTEMS = {"pbs": Pbs(), "lsf": Lsf(), "sge": Sge()}

CPU = {"jobs": 10, "job_cores": 16, "job_memory_bytes": 64 << 30, "partition": "imaging", "account": "core"}
GPU = {"jobs": 2, "job_cores": 8, "job_memory_bytes": 32 << 30, "gpus": 1, "prologue": ("module load cuda/12.4",)}
SMP = ("parallel_environment", "smp")

SPECS = {
    "pbs-cpu": CPU,
    "pbs-gpu": {**GPU, "directives": ("-l place=excl",)},
    "lsf-cpu": CPU,
    "lsf-gpu": {**GPU, "directives": ('-R "rusage[mem=32GB]"',), "omit_directives": ("-M",)},
    "sge-cpu": {**CPU, "own": (SMP, ("resource_spec", "mem_free=4G"))},
    "sge-gpu": {**GPU, "own": (SMP,), "local_directory": "$TMPDIR"},
}

every_script = pytest.mark.parametrize("name", SPECS)
every_system = pytest.mark.parametrize("kind", SYSTEMS)


def complete(kind, log_directory, **changes):
    import_jobqueue(kind)
    own = (SMP,) if kind == "sge" else ()
    values = {**CPU, "own": own, "walltime_s": 4 * 3600, "python": "/opt/seg/bin/python", **changes}
    return complete_spec(ClusterSpec(kind, log_directory=str(log_directory), **values))


@every_script
def test_the_script_of_a_job_is_the_golden_one(name, tmp_path):
    kind = name.partition("-")[0]
    spec = complete(kind, tmp_path, **{"partition": None, "account": None, **SPECS[name]})
    with dask.config.set({"jobqueue.lsf.lsf-units": "mb"}):  # else as /etc/lsf.conf says
        script = job_script(spec, SYSTEMS[kind], "segment-slide-0a1b2c3d", "tls://10.0.0.1:8786", certificates())
    script = script.replace(str(tmp_path), "/shared/me/logs")
    path = GOLDEN / f"{name}.sh"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(script)
    assert script == path.read_text()


@every_script
def test_a_golden_script_differs_from_that_of_slurm_in_its_head_alone(name):
    lines = (GOLDEN / f"{name}.sh").read_text().splitlines()
    slurm = (GOLDEN / f"{name.partition('-')[2]}.sh").read_text().splitlines()
    begins = [next(i for i, line in enumerate(script) if line.startswith("export ")) for script in (lines, slurm)]
    ours, theirs = ("\n".join(script[begin:]) for script, begin in zip((lines, slurm), begins, strict=True))
    assert ours == theirs.replace("" if "sge" in name else " --local-directory $TMPDIR", "")
    subprocess.run(["bash", "-n", GOLDEN / f"{name}.sh"], check=True)


# -- what a kind needs -------------------------------------------------------------------------------------------


@every_system
def test_the_sites_settings_are_those_of_the_kind(kind, tmp_path):
    import_jobqueue(kind)
    who = "account" if kind == "pbs" else "project"
    walltime = {"lsf": "12:00"}.get(kind, "12:00:00")
    settings = {"cores": 1, "memory": "64 GiB", "queue": "long", who: "a", "walltime": walltime}
    with dask.config.set({f"jobqueue.{kind}.{key}": value for key, value in settings.items()}):
        spec = complete_spec(ClusterSpec(kind))
    assert (spec.partition, spec.account, spec.walltime_s, spec.job_cores) == ("long", "a", 12 * 3600, 1)
    assert spec.shared_directory.endswith(f"/.segment-slide/{kind}")


def test_several_cores_of_grid_engine_need_a_parallel_environment(tmp_path):
    with pytest.raises(ClusterError, match="job_cores=16: Grid Engine gives .*; expected parallel_environment"):
        complete("sge", tmp_path, own=())
    complete("sge", tmp_path, own=(), directives=("-pe smp 16",))
    complete("sge", tmp_path, own=(), job_cores=1)


def test_what_to_ask_for_can_be_said_in_the_sites_words(tmp_path):
    for kind in ("pbs", "sge"):
        spec = complete(kind, tmp_path, own=(SMP, ("resource_spec", "mem=1G")))
        assert SYSTEMS[kind].job_options(spec, "x")["resource_spec"] == "mem=1G"


def test_a_wall_time_of_lsf_is_rounded_up_to_minutes(tmp_path):
    assert Lsf().job_options(complete("lsf", tmp_path, walltime_s=3601), "x")["walltime"] == "01:01"


def test_names_of_jobs_are_short_enough_for_older_pbs():
    assert len(Pbs().make_name()) <= 15


@every_system
def test_a_guarantee_that_does_not_hold_is_warned_of_at_start(kind, tmp_path, caplog, monkeypatch):
    spec = complete(kind, tmp_path, job_cores=1)
    monkeypatch.setenv("PATH", str(tmp_path))
    for command in ("qselect", "qstat", "bjobs", "qsub", "bsub", "qdel", "bkill"):
        (tmp_path / command).write_text(
            f"#!/bin/sh\necho '{command}: no queue' >&2; exit {int(command[1:] == 'sub')}\n"
        )
        (tmp_path / command).chmod(0o755)
    with (
        caplog.at_level(logging.WARNING, "segment_slide"),
        pytest.raises(ClusterError, match=rf"{SYSTEMS[kind].title} refused the job: {SYSTEMS[kind].submit}: no queue$"),
        find_kind(kind).open(spec),
    ):
        pass
    assert caplog.messages[0].startswith(f"kind {kind}")
    assert find_kind("slurm").system.find_gaps(ClusterSpec("slurm")) == ()


# -- commands ----------------------------------------------------------------------------------------------------


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Commands that print what they are told and note their arguments."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    def install(**bodies):
        for name, body in bodies.items():
            (tmp_path / name).write_text(f'#!/bin/sh\necho "{name} $*" >>{tmp_path}/calls\n{body}\n')
            (tmp_path / name).chmod(0o755)

    install.calls = lambda: (tmp_path / "calls").read_text().splitlines()
    return install


@pytest.mark.parametrize(
    ("settings", "gaps"),
    [
        ("schedd_job_info                   true", 0),
        ("schedd_job_info                   false", 1),
    ],
)
def test_grid_engine_without_reasons_is_warned_of_and_memory_that_is_asked_for_is_not(settings, gaps, fake, tmp_path):
    fake(qconf=f"echo '{settings}'")
    found = Sge().find_gaps(complete("sge", tmp_path, own=(SMP, ("resource_spec", "mem_free=4G"))))
    assert len(found) == gaps
    assert all("the reason cannot be shown" in gap for gap in found)


PBS_JOBS = r"""printf 'Job Id: 12.server\n    Job_Name = x\n    job_state = R\n    comment = Job run at Mon\n'
printf '\nJob Id: 13.server\n    job_state = Q\n    comment = Not Running: Insufficient amount of re\n\tsource: ncpus\n'
echo 'qstat: 14.server Job has finished' >&2; exit 35"""


def test_jobs_of_pbs_are_read_with_their_comment(fake):
    fake(qselect="printf '12.server\\n13.server\\n14.server\\n'", qstat=PBS_JOBS)
    assert Pbs().list_jobs("x") == [
        QueuedJob("12", "R", "Job run at Mon"),
        QueuedJob("13", "Q", "Not Running: Insufficient amount of resource: ncpus"),
        QueuedJob("14", "", ""),
    ]
    assert fake.calls()[1] == "qstat -f 12.server 13.server 14.server"


def test_a_pbs_without_our_jobs_is_asked_no_more(fake):
    fake(qselect="true")
    assert Pbs().list_jobs("x") == []
    Pbs().cancel_jobs("x")
    assert all(call.startswith("qselect -u ") and call.endswith(" -N x") for call in fake.calls())


def test_when_pbs_does_not_answer_no_job_counts_as_ended(fake):
    fake(qselect="echo 12.server", qstat="echo 'qstat: cannot connect to server' >&2; exit 1")
    with pytest.raises(ClusterError, match="qstat failed: qstat: cannot connect to server"):
        Pbs().list_jobs("x")


def test_jobs_of_lsf_are_read_with_their_reason(fake):
    fake(bjobs="echo '12|RUN|-'; echo '13|PEND|Not enough hosts; or|odd'; echo '14|EXIT|-'")
    assert Lsf().list_jobs("x") == [QueuedJob("12", "RUN", ""), QueuedJob("13", "PEND", "Not enough hosts; or|odd")]


def test_a_name_that_lsf_does_not_know_is_no_error(fake):
    fake(bjobs="echo 'Job <x> is not found' >&2; exit 255", bkill="echo 'Job <x> is not found' >&2; exit 255")
    assert Lsf().list_jobs("x") == []
    Lsf().cancel_jobs("x")
    assert fake.calls()[1].endswith(" -J x 0")


# as Grid Engine 8.1.9 prints them, shortened
SGE_LIST = """cat <<'EOF'
<job_info><queue_info>
<job_list state="running"><JB_job_number>2</JB_job_number><JB_name>x</JB_name><state>r</state></job_list>
</queue_info><job_info>
<job_list state="pending"><JB_job_number>3</JB_job_number><JB_name>x</JB_name><state>qw</state></job_list>
<job_list state="pending"><JB_job_number>4</JB_job_number><JB_name>x</JB_name><state>Eqw</state></job_list>
<job_list state="pending"><JB_job_number>5</JB_job_number><JB_name>xy</JB_name><state>qw</state></job_list>
</job_info></job_info>
EOF"""
SGE_DETAILS = """cat <<'EOF'
job_number:                 3
scheduling info:            cannot run in PE "smp" because it only offers 0 slots
==============================================================
job_number:                 4
error reason          1:      11/30/2026 06:36:44 [0:30256]: error: can't chdir to /nosuch: No such file or directory
scheduling info:            Job is in error state
EOF"""


def test_jobs_of_grid_engine_are_read_with_their_reason(fake):
    fake(qstat=f'if [ "$1" = -j ]; then\n{SGE_DETAILS}\nelse\n{SGE_LIST}\nfi')
    jobs = Sge().list_jobs("x")
    assert [(job.number, job.state) for job in jobs] == [("2", "r"), ("3", "qw"), ("4", "Eqw")]
    assert jobs[0].reason == ""
    assert Sge().describe_queue(jobs[1:2]) == (
        'qstat says: qw, reason cannot run in PE "smp" because it only offers 0 slots: job 3'
    )
    assert jobs[2].reason.endswith("can't chdir to /nosuch: No such file or directory")
    assert fake.calls()[1] == "qstat -j 3,4"


@every_system
def test_a_machine_without_the_batch_system_is_said(kind, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    words = rf"\w+ is not installed here; kind {kind} works where {SYSTEMS[kind].submit}, "
    with pytest.raises(ClusterError, match=words):
        SYSTEMS[kind].list_jobs("x")


def test_what_was_refused_is_found_in_jobqueues_message():
    message = "Command exited with non-zero exit code.\nExit code: 1\nCommand:\nqsub a\nstdout:\n\nstderr:\nno\nqueue\n"
    assert Pbs().read_refusal(message) == "no queue"
    assert Pbs().read_refusal("Could not parse job id") == "Could not parse job id"
