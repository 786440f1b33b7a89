"""The benchmarks' page: which figures it takes from what scripts print, how it judges and compares them."""

import doctest
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

TABLE = """
4096 px

| way | s | ratio | MiB | ratio |
|---|--:|--:|--:|--:|
| ours | 2.0 | 1.00 | 10 | 1.00 |
| theirs | 5.0 | 2.50 | 40 | 4.00 |
| broken | - | - | - | - |

pipeline / forward = 1.04 wall
"""


@pytest.fixture
def load(monkeypatch):
    """Modules of benchmarks, which find each other in their own folder, as scripts do."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(BENCHMARKS)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if Path(getattr(sys.modules[name], "__file__", None) or "/").parent == BENCHMARKS:
            del sys.modules[name]


@pytest.fixture
def bench_report(load):
    return load("bench_report")


def make_run(bench_report, ratios, name="peers", **more):
    return bench_report.Run(name, f"python benchmarks/{name}.py", "done", 1.0, 0.5, ratios=ratios, **more)


def make_content(*runs):
    return {"machine": {"processor": "here"}, "runs": [vars(run) for run in runs]}


@pytest.mark.parametrize("name", ["bench_report", "common", "kills"])
def test_examples_of_benchmarks_are_true(load, name):
    done = doctest.testmod(load(name))
    assert done.attempted
    assert not done.failed


def test_ratios_are_found_in_tables_and_lines(bench_report, tmp_path):
    ratios, values = bench_report.find_ratios(TABLE, tmp_path, [("overhead", r"forward = ([\d.]+)")])
    assert ratios == {"ours: s": 1, "ours: MiB": 1, "theirs: s": 2.5, "theirs: MiB": 4, "overhead": 1.04}
    assert values == {}


def test_what_a_script_kept_as_json_is_taken_instead(bench_report, tmp_path):
    (tmp_path / "figures.json").write_text(json.dumps({"ratios": {"a": 3.0}, "values": {"b": 1}, "pictures": []}))
    assert bench_report.find_ratios(TABLE, tmp_path, []) == ({"a": 3.0}, {"b": 1})


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ({"least": 2.5}, ["2.5", "met"]),
        ({"least": 2.6}, ["2.5", "**missed**"]),
        ({"most": 4.0}, ["4", "met"]),
        ({"most": 3.9}, ["4", "**missed**"]),
    ],
)
def test_the_worst_figure_decides(bench_report, bounds, expected):
    target = bench_report.Target("as fast", "peers", "^theirs", **bounds)
    runs = [make_run(bench_report, {"theirs, 1": 2.5, "theirs, 2": 4.0, "others": 0.0})]
    assert target.judge(runs)[2:] == expected


def test_a_target_without_figures_is_said_to_be_unmeasured(bench_report):
    target = bench_report.Target("as fast", "peers", "^theirs", least=1)
    assert target.judge([make_run(bench_report, {"theirs": 2.0}, name="limits")])[2:] == ["", "not measured"]


@pytest.mark.parametrize(("there", "n_differing"), [(1.0, 0), (0.88, 0), (0.86, 1), (1.18, 1)])
def test_ratios_that_differ_by_more_than_15_percent_are_named(bench_report, there, n_differing):
    ours, theirs = (make_content(make_run(bench_report, {"theirs: s": value})) for value in (1.0, there))
    assert len(bench_report.compare(ours, theirs)) == n_differing
    assert f"{n_differing} of 1 ratios" in bench_report.show_comparison(ours, theirs)


def test_another_machine_is_named(bench_report):
    ours, theirs = (make_content(make_run(bench_report, {"a": 1.0})) for _ in range(2))
    theirs["machine"] = {"processor": "there"}
    assert "processor: there there, here here" in bench_report.show_comparison(ours, theirs)


def test_scripts_run_and_their_figures_and_failures_are_on_the_page(load, bench_report, monkeypatch, tmp_path):
    scripts, folder = tmp_path / "benchmarks", tmp_path / "report"
    scripts.mkdir()
    (scripts / "good.py").write_text(f'"""Says what it found."""\nprint({TABLE!r})')
    (scripts / "bad.py").write_text('"""Fails."""\nraise ValueError("on purpose")')
    (scripts / "slow.py").write_text('"""Never ends."""\nimport time\nprint("began", flush=True)\ntime.sleep(600)')
    run_all = load("run_all")
    monkeypatch.setattr(run_all, "SCRIPTS", scripts)
    entries = [run_all.Entry("good"), run_all.Entry("bad"), run_all.Entry("slow", limit_s=3)]
    runs = [run_all.run_entry(entry, folder, "", tmp_path / "no-model") for entry in entries]
    assert [run.outcome for run in runs] == ["done", "failed (1)", "ended after 3 s"]
    assert runs[0].ratios["theirs: s"] == 2.5
    bench_report.write_report(folder, scripts, {"processor": "this"}, runs, quick=False, other=None)
    page = (folder / "README.md").read_text()
    for said in ("| processor | this |", "Says what it found.", "| theirs | 5.0 | 2.50 |", "on purpose", "began"):
        assert said in page


@pytest.mark.slow
def test_one_command_measures_and_compares(tmp_path):
    command = [sys.executable, str(BENCHMARKS / "run_all.py"), "--quick", "--only", "plan", "--output", str(tmp_path)]
    # commands that ran in this process have left the variable, with which Python does not import from a script's folder
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert "## plan" in (tmp_path / "README.md").read_text()
    again = subprocess.run(
        [*command, "--no-run", "--compare", str(tmp_path / "report.json")], capture_output=True, text=True, check=False
    )
    assert again.returncode == 0, again.stderr
    assert "0 of 0 ratios" in again.stdout
