"""What was numbered or measured before an earlier step was made again is not shown as if it were of what is there."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr

from segment_slide.pipeline.measurement.plan import plan_measurement
from segment_slide.pipeline.measurement.standing import Standing, judge_objects
from segment_slide.pipeline.report.run import make_report
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.record import ATTRIBUTE, identify_group, identify_record
from tests.flows.support import run_here, write_segmentation
from tests.pipeline.measurement.support import NAME, NO_IMAGE, draw_objects, measure, plan_of, write_store
from tests.pipeline.report.support import parse

IDS = f"labels/{NAME}-instances"
COPIED = "from other files of these objects (numbered again, or copied)"


@pytest.fixture
def measured(tmp_path):
    location = write_store(tmp_path, draw_objects((40, 50)), (32, 32))
    measure(location, NO_IMAGE)
    return location


def change(location, group, **sections):
    record = store.read_attributes(location, group)[ATTRIBUTE]
    store.update_attributes(location, group, {ATTRIBUTE: {**record, **sections}})


def forget_identity(location):
    """As an earlier version of the package left it."""
    records = store.read_attributes(location, "tables")[ATTRIBUTE]
    old = {name: {k: v for k, v in record.items() if k != "identity"} for name, record in records.items()}
    store.update_attributes(location, "tables", {ATTRIBUTE: old})


def touch(location, group):
    for path in Path(location, group).rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes())


def alter(location: str, array: str) -> None:
    """One other pixel."""
    pixels = zarr.open_array(store.join(location, array))
    pixels[0, 0] = 1 - min(int(pixels[0, 0]), 1)


def test_a_finished_output_is_good(measured):
    found = judge_objects(measured, NAME)
    assert (found.instances, found.table, found.notes) == (Standing.GOOD, Standing.GOOD, ())


def test_of_nothing_nothing_is_said(tmp_path):
    location = write_store(tmp_path, draw_objects((20, 20)), (32, 32))
    assert judge_objects(location, NAME).table == Standing.NONE
    shutil.rmtree(Path(location, IDS))
    found = judge_objects(location, NAME)
    assert (found.instances, found.table, found.image) == (Standing.NONE, Standing.NONE, None)


def test_a_table_of_an_earlier_numbering_with_as_many_objects_is_not_shown(measured):
    change(measured, IDS, parameters={"ndim": 2, "fill_holes_px": 9})
    assert judge_objects(measured, NAME).table == Standing.OTHER
    report = parse(make_report(measured, NAME))
    assert "The table is of other objects than are there now" in report.text
    assert "median area" not in report.text


def test_a_copy_whose_files_have_other_times_keeps_its_table_without_a_word(measured, tmp_path):
    copy = str(shutil.copytree(measured, tmp_path / "copy.ome.zarr", copy_function=shutil.copyfile))
    found = judge_objects(copy, NAME)
    assert (found.instances, found.table, found.notes) == (Standing.GOOD, Standing.GOOD, ())


def test_an_older_table_is_compared_by_its_files_and_kept_with_a_word(measured):
    forget_identity(measured)
    assert judge_objects(measured, NAME).notes == ()
    touch(measured, f"{IDS}/0")
    assert judge_objects(measured, NAME).notes == ()  # other times are no other content
    alter(measured, f"{IDS}/0")
    found = judge_objects(measured, NAME)
    assert found.table == Standing.GOOD
    report = parse(make_report(measured, NAME))
    assert COPIED in report.text
    assert "median area" in report.text


def test_an_older_table_can_be_gone_on_with(measured):
    forget_identity(measured)
    plan = plan_of(measured, NO_IMAGE)
    assert plan_measurement(measured, NAME, plan.source).record == plan.record


def test_parts_that_are_missing_are_counted(tmp_path):
    location = write_store(tmp_path, draw_objects((40, 50)), (32, 32))
    measure(location, NO_IMAGE, rows=5)
    Path(location, f"tables/{NAME}-instances.parquet/part-00001.parquet").unlink()
    found = judge_objects(location, NAME)
    assert (found.table, found.n_parts - found.n_parts_done) == (Standing.INCOMPLETE, 1)


def test_the_record_of_a_table_that_was_deleted_is_void(measured):
    for folder in Path(measured, "tables").iterdir():
        if folder.is_dir():
            shutil.rmtree(folder)
    assert store.read_attributes(measured, "tables")[ATTRIBUTE]
    assert judge_objects(measured, NAME).table == Standing.NONE


@pytest.fixture
def numbered(tmp_path):
    """Objects as the command makes them."""
    classes = np.zeros((60, 70), np.uint8)
    classes[5:20, 5:20], classes[30:50, 30:60] = 1, 1
    path = write_segmentation(tmp_path / "cells.ome.zarr", classes)
    assert run_here("instances", path, "--workers=1").exit_code == 0
    return str(path)


@pytest.mark.slow
def test_objects_of_an_earlier_segmentation_are_not_shown(numbered):
    assert judge_objects(numbered, "segmentation").instances == Standing.GOOD
    model = {"path": "cells.safetensors", "sha256": "1" * 64, "classes": ["background", "cell"]}
    change(numbered, "labels/segmentation", model=model)
    found = judge_objects(numbered, "segmentation")
    assert (found.instances, found.image) == (Standing.OTHER, None)
    report = parse(make_report(numbered, "segmentation"))
    assert "Objects were numbered in other classes than are there now" in report.text
    assert "2 objects" not in report.text


@pytest.mark.slow
def test_objects_of_a_copy_or_of_a_repaired_segmentation_are_shown(numbered):
    touch(numbered, "labels/segmentation/0")
    recorded = store.read_attributes(numbered, "labels/segmentation")[ATTRIBUTE]["input"]
    assert judge_objects(numbered, "segmentation").notes == ()
    change(numbered, "labels/segmentation", model={"path": "elsewhere", "sha256": "0" * 64,
                                                   "classes": ["background", "cell"]})  # fmt: skip
    assert judge_objects(numbered, "segmentation").instances == Standing.GOOD
    repaired = {**recorded, "fingerprint": "b", "repaired_from": ["a"]}
    assert identify_record({"input": repaired}) == identify_record({"input": {**recorded, "fingerprint": "a"}})
    assert identify_record({"input": repaired}) != identify_record({"input": {**recorded, "fingerprint": "b"}})


@pytest.mark.slow
def test_older_objects_are_compared_by_files(numbered):
    change(numbered, "labels/segmentation-instances", identity={})
    assert judge_objects(numbered, "segmentation").notes == ()
    alter(numbered, "labels/segmentation/0")
    (note,) = judge_objects(numbered, "segmentation").notes
    assert "segmented again, or copied" in note
    assert note in parse(make_report(numbered, "segmentation")).text


@pytest.mark.slow
def test_what_is_noted_is_the_record_of_the_step_before(numbered):
    group = "labels/segmentation-instances"
    record = store.read_attributes(numbered, group)[ATTRIBUTE]
    assert record["identity"] == {"classes": identify_group(numbered, "labels/segmentation")}
    assert record["n_objects"] == 2
