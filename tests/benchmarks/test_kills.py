"""The benchmarks of kills and of prices run, go on where they were ended, and would notice what they look for."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def run(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARKS / f"{name}.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_kills_go_on_where_they_ended_lose_nothing_and_a_lost_byte_is_noticed(tmp_path):
    fixed = ("--folder", tmp_path / "kills", "--installed", 0, "--cases", "evaluate", "--output", tmp_path / "report")
    assert (done := run("kills", *fixed, "--kills", 1)).returncode == 0, done.stdout + done.stderr
    assert json.loads((tmp_path / "report/figures.json").read_text())["values"]["lost"] == 0
    before = (tmp_path / "kills/trials.jsonl").read_text()
    assert sum(json.loads(line)["killed"] for line in before.splitlines()) >= 1

    (path,) = (tmp_path / "kills/references").iterdir()
    reference = json.loads(path.read_text())
    reference["tree"]["scores.csv"] = "0" * 64
    path.write_text(json.dumps(reference))
    done = run("kills", *fixed, "--kills", 100_000, "--limit-s", 1)
    assert done.returncode == 1
    assert "differs: scores.csv" in done.stdout
    after = (tmp_path / "kills/trials.jsonl").read_text()
    assert after.startswith(before)
    assert [json.loads(line)["number"] for line in after.splitlines()] == list(range(after.count("\n")))


@pytest.mark.slow
def test_prices_of_a_version_against_itself_are_none_in_bytes(tmp_path):
    sizes = ("--sizes", 96, "--rounds", 1, "--commands", "ingest")
    done = run("prices", "--other", sys.executable, *sizes, "--output", tmp_path)
    assert done.returncode == 0, done.stderr
    ratios = json.loads((tmp_path / "figures.json").read_text())["ratios"]
    assert ratios["96 px: ingest: bytes"] == 1
    assert ratios["96 px: ingest: s"] > 0
