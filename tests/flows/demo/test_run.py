"""The demo from end to end, small."""

import io
import shutil

import numpy as np
import pytest
from rich.console import Console

from segment_slide.flows.demo.network import DemoSettings, annotated_patches
from segment_slide.flows.demo.run import run_demo
from segment_slide.pipeline.errors import OutputError, OutputMismatchError
from segment_slide.pipeline.storage.store import open_array
from segment_slide.pipeline.synthetic.slide import SyntheticSlide, draw_region
from segment_slide.unet.errors import TrainingDataError
from tests.flows.support import tree

TINY = DemoSettings(
    shape=(600, 600),
    n_patches=4,
    patch_px=160,
    base_channels=6,
    depth=2,
    steps=200,
    n_samples=100,
    tile_px=64,
    block=256,
)


def run(folder, settings=TINY):
    console = Console(file=io.StringIO(), width=300)
    return run_demo(folder, settings, console), console.file.getvalue()


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    return run(tmp_path_factory.mktemp("demo") / "out")


def pixels_of(folder):
    """Bytes of the demo's arrays and network; the record of a run names paths and times of files."""
    files = tree(folder)
    return {name: digest for name, digest in files.items() if "/c/" in name or name.endswith(".safetensors")}


@pytest.mark.slow
def test_the_demo_segments_better_than_one_class_alone(first):
    result, _ = first
    truth = open_array(str(result.slide), "labels/truth/0")[...]
    assert result.pixels.accuracy > max(np.mean(truth > 0), np.mean(truth == 0)) + 0.1


@pytest.mark.slow
def test_the_scores_are_those_of_the_stored_labels(first):
    result, _ = first
    truth = draw_region(slide := SyntheticSlide(TINY.shape, TINY.seed), slide.whole)
    labels = open_array(str(result.segmentation), "labels/cells/0")[...]
    assert (labels == truth.classes).mean() == pytest.approx(result.pixels.accuracy)
    assert result.objects.n_truth == len(np.unique(truth.instances)) - 1


@pytest.mark.slow
def test_the_demo_says_scores_times_and_how_to_look_at_the_result(first):
    result, text = first
    assert f"IoU {result.pixels.iou:.3f}" in text
    assert f"segment-slide view {result.segmentation}" in text
    assert str(result.segmentation) in text
    assert str(result.overlay) in text
    assert result.overlay.read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_a_second_run_finds_all_done_and_says_the_same_scores(first):
    result, _ = first
    before = pixels_of(result.slide.parent)
    again, text = run(result.slide.parent)
    assert (again.pixels, again.objects) == (result.pixels, result.objects)
    assert pixels_of(result.slide.parent) == before
    assert "there already" in text
    assert "trained already" in text


@pytest.mark.slow
def test_a_run_that_lost_its_end_goes_on(first, tmp_path):
    result, _ = first
    folder = tmp_path / "copy"
    shutil.copytree(result.slide.parent, folder)
    shutil.rmtree(folder / "cells.ome.zarr")
    (folder / "overlay.png").unlink()
    again, _ = run(folder)
    assert again.pixels == result.pixels
    assert pixels_of(folder) == pixels_of(result.slide.parent)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes_in_another_folder(first, tmp_path):
    run(tmp_path / "again")
    assert pixels_of(tmp_path / "again") == pixels_of(first[0].slide.parent)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"seed": 8}, OutputMismatchError),
        ({"steps": 201}, TrainingDataError),
        ({"n_samples": 101}, OutputMismatchError),
    ],
    ids=["another slide", "another training", "other samples"],
)
def test_the_results_of_other_settings_are_not_overwritten(first, settings, error):
    folder = first[0].slide.parent
    before = tree(folder)
    with pytest.raises(error, match=r"[Cc]hoose another"):
        run(folder, DemoSettings(**{**vars(TINY), **settings}))
    assert tree(folder) == before


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file/demo"):
        run(tmp_path / "file" / "demo")


@pytest.mark.slow
def test_patches_show_crowds_and_glass_and_never_the_slide_that_is_scored():
    patches = annotated_patches(TINY)
    shares = [patch.classes.mean() for patch in patches]
    assert len(patches) == TINY.n_patches
    assert min(shares) < 0.1 < 0.3 < max(shares)
    slide = SyntheticSlide(TINY.shape, TINY.seed)
    scored = draw_region(slide, slide.whole).image
    for patch in patches:
        corner = patch.image[:, :4, :4]
        windows = np.lib.stride_tricks.sliding_window_view(scored, corner.shape)[0]
        assert not np.all(windows == corner, axis=(-3, -2, -1)).any()
