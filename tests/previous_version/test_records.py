"""Every record that the previous version wrote, of each kind: read, written again byte for byte, refused if damaged."""

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from segment_slide.pipeline.errors import OutputError
from segment_slide.pipeline.ingest.record import IngestRecord
from segment_slide.pipeline.measurement.record import TableRecord
from segment_slide.pipeline.nights.notes import Begun, Done, Failure
from segment_slide.pipeline.storage.label_records import InstancesRecord, SegmentationRecord
from segment_slide.pipeline.storage.record import RootMark, identify_record
from segment_slide.pipeline.storage.sections import list_differences, read_section, write_section
from segment_slide.pipeline.synthetic.stored import SlideRecord
from segment_slide.pipeline.training.records import WeightRequest
from segment_slide.pipeline.training.sample_set import SampleSet
from segment_slide.pipeline.training.training_set import TrainingSet

ARCHIVE = Path(__file__).with_name("v0.1.0.tar.xz")
NOTES = {".done.json": Done, ".begun.json": Begun, ".failed.json": Failure}
# As version 0.1.0 writes it; the archive holds none.
SLIDE = {"shape": [300, 400], "seed": 3, "code_version": "0.1.0"}


def kind_of(path: str, record: dict[str, Any]) -> type:
    if "kind" in record:
        return TrainingSet if record["kind"] == "training-set" else SampleSet
    if "shows" in record:
        return RootMark
    if "ingested_from" in record:
        return IngestRecord
    return SegmentationRecord if "model" in record else InstancesRecord


def records() -> Iterator[tuple[type, str, dict[str, Any]]]:
    """Kind, file and JSON of each record in the archive."""
    with tarfile.open(ARCHIVE) as tar:
        for member in tar:
            if not member.name.endswith(("zarr.json", *NOTES)):
                continue
            content = json.load(tar.extractfile(member))
            for suffix, kind in NOTES.items():
                if member.name.endswith(suffix):
                    yield kind, member.name, content
            attributes = content.get("attributes", {})
            if "segment_slide_request" in attributes:
                yield WeightRequest, member.name, attributes["segment_slide_request"]
            if record := attributes.get("segment_slide"):
                if member.name.endswith("tables/zarr.json"):
                    yield from ((TableRecord, member.name, table) for table in record.values())
                else:
                    yield kind_of(member.name, record), member.name, record
    yield SlideRecord, "synthetic/zarr.json", SLIDE


FOUND = list(records())
ONE_OF_EACH = {kind.__name__: (kind, path, record) for kind, path, record in FOUND}


def read(kind: type, path: str, record: object) -> Any:
    given = {"location": "/set"} if kind in (TrainingSet, SampleSet) else {}
    return read_section(kind, record, path, **given)


def test_there_is_a_record_of_each_kind():
    assert set(ONE_OF_EACH) == {
        "SegmentationRecord", "InstancesRecord", "TableRecord", "IngestRecord", "TrainingSet", "SampleSet",
        "WeightRequest", "Done", "Begun", "Failure", "RootMark", "SlideRecord",
    }  # fmt: skip


@pytest.mark.parametrize("kind", ONE_OF_EACH)
def test_each_record_is_written_as_it_was_read(kind):
    for found, path, record in FOUND:
        if found.__name__ == kind:
            assert json.dumps(write_section(read(found, path, record))) == json.dumps(record), path


def change_leaves(value: Any, changed: object) -> Iterator[tuple[str, Any]]:
    """The JSON with one of its leaves changed, for each, with its key."""
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            for key, new in change_leaves(inner, changed):
                yield f"{name}.{key}".rstrip("."), {**value, name: new}
    else:
        yield "", changed


@pytest.mark.parametrize("kind", ONE_OF_EACH)
def test_a_record_with_one_damaged_value_is_refused_with_file_and_key(kind):
    found, path, record = ONE_OF_EACH[kind]
    for key, damaged in change_leaves(record, {"no": ["such", 1.5]}):
        if key == "kind" and found is not RootMark:
            continue  # who reads training data looks at it before
        with pytest.raises(OutputError, match=f"{path}: its record cannot be read"):
            read(found, path, damaged)


@pytest.mark.parametrize("kind", ONE_OF_EACH)
def test_keys_of_a_later_version_stay_and_keys_that_are_missing_are_not_made_up(kind):
    found, path, record = ONE_OF_EACH[kind]
    later = {**record, "later": {"a": [1]}}
    assert json.dumps(write_section(read(found, path, later))) == json.dumps(later)
    required = {"fingerprint", "name", "tries", "ingested_from"}
    for name in set(record) - required:
        older = {key: value for key, value in record.items() if key != name}
        if found in (SegmentationRecord, InstancesRecord, TableRecord, WeightRequest, RootMark, SlideRecord):
            assert json.dumps(write_section(read(found, path, older))) == json.dumps(older), name


def without(record: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The record without one of its keys, for each key of it and of its sections, with the key's name."""
    for name, value in record.items():
        yield name, {key: kept for key, kept in record.items() if key != name}
        if isinstance(value, dict):
            for inner, shorter in without(value):
                yield f"{name}.{inner}", {**record, name: shorter}


@pytest.mark.parametrize(
    "kind", ["SegmentationRecord", "InstancesRecord", "TableRecord", "WeightRequest", "IngestRecord"]
)
def test_a_begun_run_whose_record_lacks_an_option_goes_on_unless_it_was_begun_with_another_value(kind):
    found, path, record = ONE_OF_EACH[kind]
    whole = read(found, path, record)
    refused = {}
    for name, older in without(record):
        if name.partition(".")[0] not in ("ingested_from", "annotation"):
            refused[name] = list_differences(read(found, path, older), whole)
    fine = [name for name, differences in refused.items() if not differences]
    assert len(fine) > 5
    for name, differences in refused.items():  # what was chosen is not the default: it cannot have been begun so
        assert all(f"{'.'.join(one.names)}.".startswith(f"{name}.") for one in differences), name
        assert all(one.before != one.now for one in differences), name


def test_what_identifies_a_step_is_the_same_after_reading_and_links_the_steps():
    by_path: dict[str, dict[str, Any]] = {path: record for _, path, record in FOUND}
    labels = "done/cells.ome.zarr/labels"
    classes, ids, table = (
        by_path[path]
        for path in (
            f"{labels}/segmentation/zarr.json",
            f"{labels}/segmentation-instances/zarr.json",
            "done/cells.ome.zarr/tables/zarr.json",
        )
    )
    for noted, kind, record in (
        (ids["identity"]["classes"], SegmentationRecord, classes),
        (table["identity"]["instances"], InstancesRecord, ids),
    ):
        assert noted == identify_record(write_section(read(kind, "", record)))
