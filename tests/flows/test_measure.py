"""The flow and the command that measure objects, whole: real workers, interruptions, what is printed."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.dataset
import pytest
import typer.testing

import segment_slide.flows.measure
from segment_slide.cluster.kinds.local import LocalSpec, local_client
from segment_slide.flows.commands.measure import commands
from segment_slide.flows.measure import measure_objects
from segment_slide.flows.requests import MeasureRequest, Workers
from segment_slide.pipeline.blocks.progress import QuietStages
from segment_slide.pipeline.errors import IncompleteError, InputError, OutputError, OutputMismatchError, PlanError
from segment_slide.pipeline.measurement.options import ImageChoice
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.lock import hold
from tests.flows.support import brake, noise, tree, wait_until
from tests.pipeline.measurement.support import NAME, draw_objects, write_store

ROOT = Path(__file__).parents[2]
SHAPE = (61, 75)
N_BLOCKS = 4 * 5


@pytest.fixture
def location(tmp_path) -> str:
    scores = noise(3, *SHAPE, seed=1)
    image = np.stack([noise(*SHAPE), noise(*SHAPE, seed=2)]).astype(np.float32)
    return write_store(
        tmp_path, draw_objects(SHAPE), (16, 16), image=image, image_axes="cyx", channels=("DAPI", "GFP"), scores=scores,
        scale=(0.5, 0.5),
    )  # fmt: skip


@pytest.fixture
def here(monkeypatch):
    """Run blocks in this process."""
    monkeypatch.setattr(segment_slide.flows.measure, "open_cluster", lambda *_, **__: contextlib.nullcontext())


class Told(QuietStages):
    """Remembers stages: name, steps in all, steps done before, steps made."""

    def __init__(self):
        self.stages = []

    @contextlib.contextmanager
    def stage(self, name, total, done=0, unit="blocks"):
        entry = [name, total, done, 0]
        if name not in ("check", "seal"):  # what the manifest reads: see tests/pipeline/manifest
            self.stages.append(entry)

        def advance(n_pixels, note=""):
            entry[3] += 1

        yield advance


def request_for(location, **changes):
    return MeasureRequest(location, NAME, **{"rows": 7, "workers": Workers(1)} | changes)


def tables(location) -> dict[str, str]:
    return tree(Path(location, "tables"))


def test_the_flow_tells_its_stages_and_leaves_the_table_and_its_summary(location, here):
    told = Told()
    report = measure_objects(request_for(location), told)
    n = int(draw_objects(SHAPE).max())
    assert (report.n_objects, report.n_parts) == (n, -(-n // 7))
    assert told.stages == [["measure", N_BLOCKS, 0, N_BLOCKS], ["table", report.n_parts, 0, report.n_parts]]
    left = {path.name for path in Path(location, "tables").iterdir()}
    assert left == {"zarr.json", *(f"cells-instances.{end}" for end in ("parquet", "html", "png"))}
    assert list(report.stage_seconds) == ["prepare", "measure", "table", "summary"]
    assert report.channels == ("DAPI", "GFP")
    assert not list(Path(location).glob("*.lock"))


def test_any_reader_of_parquet_takes_the_parts_for_one_table(location, here):
    report = measure_objects(request_for(location))
    table = pyarrow.dataset.dataset(report.table).to_table()
    ids = draw_objects(SHAPE)
    assert table["id"].to_pylist() == list(range(1, ids.max() + 1))
    assert table["area_px"].to_pylist() == np.bincount(ids.ravel())[1:].tolist()
    assert {"intensity_std_GFP", "probability_mean", "class_name"} <= set(table.column_names)
    assert set(table["class_name"].to_pylist()) == {"nucleus", "debris"}


def test_a_finished_table_is_left_as_it_is(location, here, monkeypatch):
    first = measure_objects(request_for(location))
    before = tables(location)
    monkeypatch.setattr(
        segment_slide.flows.measure, "open_cluster", lambda *_, **__: pytest.fail("nothing is left to do")
    )
    told = Told()
    report = measure_objects(request_for(location), told)
    assert told.stages == [["table", first.n_parts, first.n_parts, 0]]
    assert tables(location) == before
    assert report.summary.all == first.summary.all


@pytest.mark.slow
def test_one_and_three_workers_and_none_write_equal_bytes(location, tmp_path, workers, monkeypatch):
    def measured_by(client):
        copy = tmp_path / f"copy {client}"
        shutil.copytree(location, copy)
        monkeypatch.setattr(segment_slide.flows.measure, "open_cluster", client)
        measure_objects(request_for(str(copy)))
        return tables(copy)

    three = LocalSpec(workers=3, cores=1, memory_bytes=4 << 30)
    expected = measured_by(lambda *_, **__: contextlib.nullcontext())
    assert measured_by(workers) == expected
    assert measured_by(lambda *_, **__: local_client(three)) == expected


@pytest.mark.parametrize("removed", ["rows", "parts"])
def test_an_interrupted_run_goes_on_and_ends_with_equal_bytes(location, here, monkeypatch, removed):
    with monkeypatch.context() as patch:
        patch.setattr(segment_slide.flows.measure, "write_summary", lambda *_: pytest.fail("killed"))
        with pytest.raises(pytest.fail.Exception):
            measure_objects(request_for(location))
    work = Path(location, "tables/cells-instances.work/rows")
    parts = Path(location, "tables/cells-instances.parquet")
    files = sorted(work.iterdir())[3:] if removed == "rows" else sorted(parts.iterdir())[1:]
    if removed == "rows":
        shutil.rmtree(parts)
    for file in files:
        file.unlink()
    told = Told()
    measure_objects(request_for(location), told)
    assert told.stages[0] == ["measure", N_BLOCKS, *((3, N_BLOCKS - 3) if removed == "rows" else (N_BLOCKS, 0))]
    resumed = tables(location)
    shutil.rmtree(Path(location, "tables"))
    measure_objects(request_for(location))
    assert tables(location) == resumed


SCRIPT = """
import sys
from segment_slide.flows.requests import MeasureRequest, Workers
from segment_slide.flows.measure import measure_objects
if __name__ == "__main__":
    measure_objects(MeasureRequest(sys.argv[1], "cells", rows=20, workers=Workers(2)))
"""


@pytest.mark.slow
def test_a_run_that_is_killed_in_either_pass_goes_on_with_equal_bytes(tmp_path):
    ids = draw_objects((640, 640))
    location = write_store(tmp_path, ids, (32, 32), image=noise(640, 640))
    undisturbed = tmp_path / "undisturbed"
    shutil.copytree(location, undisturbed)
    (tmp_path / "script.py").write_text(SCRIPT)
    rows = Path(location, "tables/cells-instances.work/rows")
    parts = Path(location, "tables/cells-instances.parquet")

    def begin(**disturbing: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(tmp_path / "script.py"), location]
        paths = filter(None, (disturbing.get("PYTHONPATH"), str(ROOT)))
        environment = os.environ | disturbing | {"PYTHONPATH": os.pathsep.join(paths)}
        return subprocess.Popen(command, text=True, cwd=ROOT, start_new_session=True, env=environment)

    for folder, enough in ((rows, 20), (parts, 3)):
        process = begin(**brake(tmp_path / "brake", folder, enough))
        wait_until(lambda folder=folder, enough=enough: len(tree(folder)) > enough, process)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert 0 < len(list(parts.glob("part-*.parquet"))) < ids.max() // 20
    assert begin().wait(timeout=480) == 0
    measure_objects(MeasureRequest(str(undisturbed), NAME, rows=20, workers=Workers(1)))
    assert tables(location) == tables(undisturbed)


def test_bad_input_is_refused_before_anything_is_written(location, tmp_path, here):
    before = tree(tmp_path)
    for changes, error, message in (
        ({"name": "other"}, InputError, "no instances are there"),
        ({"image": ImageChoice(str(tmp_path / "nowhere"))}, InputError, "no such file"),
        ({"image": ImageChoice(level=1)}, InputError, "level=1"),
        ({"rows": 0}, PlanError, "rows=0"),
    ):
        with pytest.raises(error, match=message):
            measure_objects(MeasureRequest(location, **{"name": NAME, "workers": Workers(1)} | changes))
    assert tree(tmp_path) == before


def test_a_begun_table_is_gone_on_with_as_it_was_begun(location, here):
    measure_objects(request_for(location))
    before = tables(location)
    with pytest.raises(OutputMismatchError, match="input.image"):
        measure_objects(request_for(location, image=ImageChoice(no_image=True)))
    assert tables(location) == before


def test_a_store_that_another_run_writes_is_refused(location, here):
    with hold(location, lambda: None), pytest.raises(OutputError, match="being written by another run"):
        measure_objects(request_for(location))


def test_what_a_killed_writer_left_is_cleared(location, here):
    leftover = Path(location, f"tables/cells-instances.parquet/part-00001.parquet.{'0' * 32}.partial")
    measure_objects(request_for(location))
    leftover.write_bytes(b"half")
    measure_objects(request_for(location))
    assert not leftover.exists()


def test_blocks_that_fail_are_named_and_mended_blocks_are_made(location, here):
    shard = Path(location, "labels/cells/0/c/1/2")
    content = shard.read_bytes()
    shard.write_bytes(content[: len(content) // 2])
    with pytest.raises(IncompleteError, match=r"(?s)1 step.*block \(1, 2\): a file of .*labels/cells/0 is damaged"):
        measure_objects(request_for(location))
    rows = Path(location, "tables/cells-instances.work/rows")
    assert len(list(rows.iterdir())) == N_BLOCKS - 1


# -- the command -------------------------------------------------------------------------------------------------


def run(*arguments: object) -> typer.testing.Result:
    return typer.testing.CliRunner().invoke(commands, [*map(str, arguments)])


def test_the_command_prints_a_summary_and_how_to_open_the_table(location, here, monkeypatch, capsys):
    result = run(location, "--name", NAME, "--workers", 1)
    assert result.exit_code == 0, result.output
    out = result.output + capsys.readouterr().out
    for word in ("nucleus", "debris", "per mm²", "median area (µm²)", "DAPI, GFP", "cells-instances.html"):
        assert word in out
    assert f"pyarrow.parquet.read_table('{store.join(location, 'tables/cells-instances.parquet')}')" in out


def test_shapes_alone_need_no_image(location, tmp_path, here):
    shutil.rmtree(tmp_path / "image.ome.zarr")
    assert isinstance(run(location, "--name", NAME).exception, InputError)
    assert run(location, "--name", NAME, "--no-image").exit_code == 0
    table = pyarrow.dataset.dataset(Path(location, "tables/cells-instances.parquet"))
    assert not any(name.startswith("intensity") for name in table.schema.names)


def test_an_image_and_none_are_a_contradiction(location):
    result = run(location, "--no-image", "--image", "x")
    assert isinstance(result.exception, InputError)
