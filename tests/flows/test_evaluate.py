"""The whole evaluation on files: scores in the report, the table, JSON and CSV; refusals before any work."""

import csv
import io
import json

import numpy as np
import pytest
import tifffile
import zarr
from rich.console import Console
from scipy import ndimage

import segment_slide.flows.evaluate
from segment_slide.flows.evaluate import evaluate_request
from segment_slide.flows.progress import RichStages
from segment_slide.flows.requests import EvaluateRequest
from segment_slide.flows.show.scores import score_rows, show_scores, write_csv, write_json
from segment_slide.pipeline.errors import InputError, OutputError
from segment_slide.pipeline.scoring.contingency import count_pairs
from segment_slide.pipeline.scoring.object_scores import score_objects, score_seg
from segment_slide.pipeline.scoring.options import EvaluateOptions
from segment_slide.pipeline.scoring.pixel_scores import count_confusion


@pytest.fixture
def cells(tmp_path):
    """True ids in a TIFF, a class map of them in a Zarr array; what they hold."""
    random = np.random.default_rng(0)
    truth = ndimage.label(ndimage.gaussian_filter(random.random((80, 90)), 2) > 0.5)[0].astype(np.uint16)
    found = (np.roll(truth, 1, 1) > 0).astype(np.uint8)
    tifffile.imwrite(tmp_path / "truth.tif", truth)
    zarr.create_array(str(tmp_path / "found"), data=found, chunks=(32, 32))
    return truth, found


def request_of(folder, **changes):
    common = {"predicted": str(folder / "found"), "truth": str(folder / "truth.tif"), "predicted_axes": "yx"}
    return EvaluateRequest(**{**common, **changes})


def text_of(report):
    console = Console(file=io.StringIO(), width=200)
    show_scores(console, report)
    return console.file.getvalue()


def test_instances_of_a_class_map_are_scored_as_in_memory(tmp_path, cells):
    truth, found = cells
    report = evaluate_request(request_of(tmp_path, kind="instances", options=EvaluateOptions(block_px=32)))
    components = ndimage.label(found)[0]
    expected = score_objects(truth, components)
    assert report.objects.matches[0] == expected
    assert report.objects.seg == score_seg(count_pairs(truth, components))
    assert 0 < report.objects.seg < 1
    assert "components of class 1 (uint8" in report.notes[0]


def test_a_prediction_of_ids_is_taken_as_it_is_when_told_so(tmp_path, cells):
    report = evaluate_request(request_of(tmp_path, kind="instances", predicted_objects="ids"))
    assert (report.objects.n_predicted, report.notes) == (1, ())


def test_classes_are_scored_with_binary_truth(tmp_path, cells):
    truth, found = cells
    options = EvaluateOptions(is_binary=True)
    report = evaluate_request(request_of(tmp_path, kind="classes", options=options))
    expected = count_confusion(truth > 0, found, None)
    assert (report.classes.counts == expected.counts).all()
    assert report.n_pixels == truth.size


def test_a_truth_of_0_and_255_gets_a_note_that_255_is_ignored(tmp_path, cells):
    truth, _ = cells
    tifffile.imwrite(tmp_path / "mask.tif", np.where(truth, 255, 0).astype(np.uint8))
    report = evaluate_request(request_of(tmp_path, truth=str(tmp_path / "mask.tif")))
    assert f"{(truth > 0).sum():,} pixels are ignored" in report.notes
    assert any("compared as binary" in note for note in report.notes)


def test_membranes_are_scored_from_bytes(tmp_path, cells):
    truth, found = cells
    probability = np.stack([255 - found * 200, found * 200]).astype(np.uint8)
    zarr.create_array(str(tmp_path / "probability"), data=probability, chunks=(1, 32, 32))
    report = evaluate_request(
        request_of(tmp_path, kind="membranes", predicted=str(tmp_path / "probability"), predicted_axes="cyx", channel=1)
    )
    assert report.membranes.pixel_error.value == (found != (truth > 0)).mean()
    assert report.membranes.v_rand.value > 0.5


def test_the_table_json_and_csv_say_the_same(tmp_path, cells):
    report = evaluate_request(request_of(tmp_path, kind="instances"))
    rows = score_rows(report)
    assert [row.score for row in rows[:4]] == ["true objects", "found objects", "SEG", "mean AP"]
    write_json(report, tmp_path / "scores.json")
    write_csv(report, tmp_path / "scores.csv")
    content = json.loads((tmp_path / "scores.json").read_text())
    assert [row["value"] for row in content["scores"]] == [row.value for row in rows]
    assert content["request"]["truth"] == str(tmp_path / "truth.tif")
    with open(tmp_path / "scores.csv") as file:
        assert [float(row["value"]) for row in csv.DictReader(file)] == [row.value for row in rows]
    text = text_of(report)
    assert f"{report.objects.seg:.4f}" in text
    assert "IoU > 0.95" in text
    assert "components of class 1" in text


@pytest.mark.parametrize("kind", ["classes", "instances"])
def test_every_kind_has_a_table(tmp_path, cells, kind):
    truth, _ = cells
    request = request_of(tmp_path, kind=kind, options=EvaluateOptions(is_binary=kind == "classes"))
    text = text_of(evaluate_request(request, RichStages(Console(file=io.StringIO()))))
    assert f"Scores ({kind})" in text
    assert f"{truth.size:,} compared" in text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kind": "boxes"}, "kind='boxes', expected one of: classes, instances, membranes"),
        ({"kind": "instances", "ious": (0.3,)}, "iou=0.3"),
        ({"kind": "instances", "ious": ()}, "no IoU threshold"),
        ({"truth_objects": "cells"}, "truth_objects='cells'"),
        ({"truth": "nowhere.tif"}, "no such file"),
        ({"predicted_axes": None}, "say them with `axes`"),
        ({"n_spatial": 3}, "z, y, x"),
    ],
)
def test_bad_requests_are_refused_before_anything_is_counted(tmp_path, cells, monkeypatch, changes, words):
    monkeypatch.setattr(segment_slide.flows.evaluate, "evaluate_stored", lambda *_, **__: pytest.fail("counted"))
    with pytest.raises(InputError, match=words):
        evaluate_request(request_of(tmp_path, **changes))


def test_an_empty_truth_is_refused_for_objects_and_scored_for_classes(tmp_path, cells):
    tifffile.imwrite(tmp_path / "empty.tif", np.zeros((80, 90), np.uint8))
    empty = {"truth": str(tmp_path / "empty.tif")}
    with pytest.raises(InputError, match="no object"):
        evaluate_request(request_of(tmp_path, kind="instances", **empty))
    assert evaluate_request(request_of(tmp_path, **empty)).classes.score_class(1).iou == 0


def test_scores_that_cannot_be_written_are_said(tmp_path, cells):
    report = evaluate_request(request_of(tmp_path, kind="instances"))
    with pytest.raises(OutputError, match="cannot be written"):
        write_json(report, tmp_path / "missing" / "scores.json")
