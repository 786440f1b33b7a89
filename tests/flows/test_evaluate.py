"""The whole evaluation on files: scores in the report, the table, JSON and CSV; refusals before any work."""

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import imagecodecs
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


def rgb(mask):
    return np.repeat(mask.astype(np.uint8)[..., None], 3, axis=-1)


@pytest.mark.parametrize("block_px", [16, 2048])
@pytest.mark.parametrize(
    "mask",
    [
        lambda x: np.where(x, 255, 0).astype(np.uint8),
        lambda x: x.astype(np.uint8),
        lambda x: np.where(x, 255, 0).astype(np.int16),
        lambda x: np.where(x, 65535, 0).astype(np.uint16),
        lambda x: rgb(np.where(x, 255, 0)),
        lambda x: np.concatenate([rgb(np.where(x, 255, 0)), np.full((*x.shape, 1), 255, np.uint8)], -1),
    ],
    ids=["255", "1", "255 of int16", "65535", "rgb", "rgba"],
)
def test_a_mask_is_scored_like_its_classes_whatever_marks_the_foreground(tmp_path, cells, mask, block_px):
    truth, found = cells
    expected = count_confusion(truth > 0, found, None)
    options = EvaluateOptions(block_px=block_px)
    pixels = mask(truth > 0)
    (tmp_path / "mask.png").write_bytes(
        imagecodecs.png_encode(pixels.astype(np.uint16 if pixels.max() > 255 else "u1"))
    )
    report = evaluate_request(request_of(tmp_path, truth=str(tmp_path / "mask.png"), options=options))
    assert (report.classes.counts == expected.counts).all()
    assert expected.mean_iou < 0.99  # the prediction is not perfect, and nothing may hide that
    if pixels.ndim == 2:  # the other way round: the mask predicts
        zarr.create_array(str(tmp_path / "mask"), data=pixels, chunks=(32, 32))
        swapped = request_of(tmp_path, predicted=str(tmp_path / "mask"), truth=str(tmp_path / "found"), truth_axes="yx")
        counted = evaluate_request(replace(swapped, options=options))
        assert (counted.classes.counts == expected.counts.T).all()


def test_how_a_mask_was_read_is_noted(tmp_path, cells):
    truth, _ = cells
    tifffile.imwrite(tmp_path / "mask.tif", np.where(truth, 255, 0).astype(np.uint8))
    report = evaluate_request(request_of(tmp_path, truth=str(tmp_path / "mask.tif")))
    assert report.notes == ("the truth holds only 0 and 255: it is compared as a mask, every value above 0 is class 1",)


def test_255_beside_other_values_is_ignored_and_its_share_is_said(tmp_path, cells):
    truth, found = cells
    partly = (truth > 0).astype(np.uint8)
    partly[:20] = 255  # the first rows of blocks hold nothing else
    tifffile.imwrite(tmp_path / "partly.tif", partly)
    options = EvaluateOptions(block_px=10)
    report = evaluate_request(request_of(tmp_path, truth=str(tmp_path / "partly.tif"), options=options))
    expected = count_confusion(partly[20:], found[20:], None)
    assert (report.classes.counts == expected.counts).all()
    assert report.notes == ("1,800 pixels (25.0%) are ignored: their truth is 255",)


def test_a_truth_that_is_all_ignored_is_refused(tmp_path, cells):
    tifffile.imwrite(tmp_path / "all.tif", np.full(cells[0].shape, 255, np.uint8))
    with pytest.raises(InputError, match=r"all 7,200 pixels have the value 255.*compare with `binary`"):
        evaluate_request(request_of(tmp_path, truth=str(tmp_path / "all.tif")))
    options = EvaluateOptions(is_binary=True)
    report = evaluate_request(request_of(tmp_path, truth=str(tmp_path / "all.tif"), options=options))
    assert 0 < report.classes.accuracy < 1


def test_a_mask_with_smoothed_edges_is_noted_and_class_maps_are_not(tmp_path, cells):
    truth, _ = cells
    smoothed = ndimage.uniform_filter((truth > 0) * np.float64(255), 3).round().astype(np.uint8)
    tifffile.imwrite(tmp_path / "smoothed.tif", smoothed)
    n_between = len(set(np.unique(smoothed)) - {0, 255})
    notes = evaluate_request(request_of(tmp_path, truth=str(tmp_path / "smoothed.tif"))).notes
    assert any("edges were smoothed" in note and f"it has {n_between} values between" in note for note in notes)
    tifffile.imwrite(tmp_path / "classes.tif", np.where(truth > 30, 255, truth).astype(np.uint8))
    notes = evaluate_request(request_of(tmp_path, truth=str(tmp_path / "classes.tif"))).notes
    assert not any("smoothed" in note for note in notes)


def test_files_are_opened_once(tmp_path, cells, monkeypatch):
    tifffile.imwrite(tmp_path / "mask.tif", (cells[0] > 0).astype(np.uint8))
    opened = []
    opens = segment_slide.flows.evaluate.open_source
    monkeypatch.setattr(
        segment_slide.flows.evaluate,
        "open_source",
        lambda *given, **more: opened.append(given) or opens(*given, **more),
    )
    segment_slide.flows.evaluate.evaluate_locally(request_of(tmp_path, truth=str(tmp_path / "mask.tif")))
    assert [Path(location).name for (location,) in opened] == ["found", "mask.tif"]


def test_ids_are_no_mask_even_if_a_block_holds_only_one(tmp_path, cells):
    ids = np.where(cells[0], 1000 + cells[0], 0).astype(np.uint16)
    tifffile.imwrite(tmp_path / "ids.tif", ids)
    for block_px in (4, 2048):
        with pytest.raises(InputError, match=r"value 10\d\d, expected classes from 0 to 255, or a mask"):
            evaluate_request(
                request_of(tmp_path, truth=str(tmp_path / "ids.tif"), options=EvaluateOptions(block_px=block_px))
            )


def test_masks_of_two_values_that_differ_are_noted(tmp_path, cells):
    tifffile.imwrite(tmp_path / "mask.tif", np.where(cells[0], 128, 0).astype(np.uint8))
    report = evaluate_request(request_of(tmp_path, truth=str(tmp_path / "mask.tif")))
    assert "the truth holds 0 and 128, the prediction 0 and 1: if both are masks" in report.notes[0]


def test_an_ignored_negative_value_does_not_ignore_255_too(tmp_path, cells):
    truth = cells[0]
    values = np.where(truth, 255, 0).astype(np.int16)
    values[0] = -1
    tifffile.imwrite(tmp_path / "mask.tif", values)
    options = EvaluateOptions(ignore=-1)
    report = evaluate_request(request_of(tmp_path, truth=str(tmp_path / "mask.tif"), options=options))
    assert report.classes.n_ignored == truth.shape[1]
    assert report.classes.score_class(255).n_truth == (truth[1:] > 0).sum()


@pytest.mark.parametrize("value", [255, 7])
def test_objects_of_masks_are_components_of_the_value_that_they_have(tmp_path, cells, value):
    zarr.create_array(str(tmp_path / "mask"), data=cells[1] * np.uint8(value), chunks=(32, 32))
    one = evaluate_request(request_of(tmp_path, kind="instances"))
    other = evaluate_request(request_of(tmp_path, kind="instances", predicted=str(tmp_path / "mask")))
    assert other.objects == one.objects
    assert f"predicted has no class 1, only 0 and {value}" in other.notes[-1]
    mask = {"truth": str(tmp_path / "mask"), "truth_axes": "yx", "truth_objects": "components"}
    perfect = evaluate_request(request_of(tmp_path, kind="instances", predicted=str(tmp_path / "mask"), **mask))
    assert perfect.objects.seg == 1


def test_a_mask_of_16_bits_that_predicts_is_noted_and_split_when_told_so(tmp_path, cells):
    zarr.create_array(str(tmp_path / "mask"), data=cells[1] * np.uint16(65535), chunks=(32, 32))
    given = {"kind": "instances", "predicted": str(tmp_path / "mask")}
    report = evaluate_request(request_of(tmp_path, **given))
    assert report.notes == ("the prediction has one id: if it is a mask, its objects are components",)
    told = evaluate_request(request_of(tmp_path, predicted_objects="components", **given))
    assert told.objects == evaluate_request(request_of(tmp_path, kind="instances")).objects


def test_a_missing_class_of_several_is_noted(tmp_path, cells):
    found = cells[1] * np.uint8(2)
    found[0, 0] = 3
    zarr.create_array(str(tmp_path / "two"), data=found, chunks=(32, 32))
    report = evaluate_request(request_of(tmp_path, kind="instances", predicted=str(tmp_path / "two")))
    assert "has no class 1, but values up to 3" in report.notes[-1]


def write_pages(folder, pages):
    folder.mkdir()
    for name, pixels in pages.items():
        tifffile.imwrite(folder / name, pixels)
    return str(folder)


def test_folders_are_paired_by_names_and_the_pairs_are_said(tmp_path):
    random = np.random.default_rng(1)
    pages = {f"mouse{m}_week{w}": random.integers(0, 2, (8, 9)).astype(np.uint8) for m, w in ((1, 2), (2, 1), (2, 2))}
    predicted = write_pages(tmp_path / "p", {f"{name}.tif": page for name, page in pages.items()})
    truth = write_pages(tmp_path / "t", {f"{name}_mask.tif": page for name, page in list(pages.items())[:2]})
    report = evaluate_request(EvaluateRequest(predicted, truth))
    assert report.classes.mean_iou == 1
    assert [Path(file).name for pair in report.pairs for file in pair] == [
        "mouse1_week2.tif",
        "mouse1_week2_mask.tif",
        "mouse2_week1.tif",
        "mouse2_week1_mask.tif",
    ]
    assert "mouse1_week2.tif with mouse1_week2_mask.tif" in text_of(report)
    assert report.notes == ("1 of 3 files of the prediction have no truth, and are left out: mouse2_week2.tif",)


def test_folders_that_no_rule_pairs_need_the_end_of_the_truths_names(tmp_path):
    pages = {f"mouse{m}_week{3 - m}": np.full((8, 9), m, np.uint8) for m in (1, 2)}
    predicted = write_pages(tmp_path / "p", {f"{name}.tif": page for name, page in pages.items()})
    truth = write_pages(tmp_path / "t", {f"{name[:6]}_labels.tif": page for name, page in pages.items()})
    with pytest.raises(InputError, match=r"mouse1_labels.tif, mouse2_labels.tif.*`label_suffix`"):
        evaluate_request(EvaluateRequest(predicted, truth))
    told = EvaluateOptions(label_suffix="_labels")
    assert evaluate_request(EvaluateRequest(predicted, truth, options=told)).classes.mean_iou == 1
    with pytest.raises(InputError, match="label_suffix='_labels' pairs the files of two folders"):
        evaluate_request(EvaluateRequest(predicted, truth + "/mouse1_labels.tif", options=told))


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
