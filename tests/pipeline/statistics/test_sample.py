"""A sample of an image: where its boxes lie, and the noise that they show."""

import os

import numpy as np
import pytest
from scipy import ndimage

from segment_slide.pipeline.statistics import sample
from segment_slide.pipeline.statistics.sample import estimate_coarse_noise, estimate_noise, sample_boxes, sample_image
from tests.pipeline.statistics.support import draw_cells, source_of


@pytest.mark.parametrize("shape", [(1, 1), (2, 500), (40, 60), (300, 128), (1000, 2000)])
def test_boxes_lie_in_the_image_and_are_few(tmp_path, shape):
    boxes = list(sample_boxes(source_of(tmp_path / "image", np.zeros(shape, np.uint8))))
    assert 1 <= len(boxes) <= 48
    assert len({str(box) for box in boxes}) == len(boxes)
    assert all(0 <= side.start < side.stop <= size for box in boxes for side, size in zip(box, shape, strict=True))


def test_boxes_of_a_large_image_lie_in_all_its_parts(tmp_path):
    source = source_of(tmp_path / "image", np.zeros((1600, 1600), np.uint8))
    parts = {(box[0].start // 400, box[1].start // 400) for box in sample_boxes(source)}
    assert len(parts) == 16


def test_all_planes_have_their_chance(tmp_path):
    source = source_of(tmp_path / "image", np.zeros((12, 200, 200), np.uint8), "zyx")
    assert len({box[0].start for box in sample_boxes(source)}) == 12


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_noise_is_measured_beside_cells_and_slopes(tmp_path, dtype):
    pixels, _ = draw_cells(512, 100, 100, 20, 3.0, dtype)
    pixels = pixels + np.linspace(0, 50, 512).astype(dtype)
    assert sample_image(source_of(tmp_path / "image", pixels)).noise[0] == pytest.approx(3.0, rel=0.15)


def test_an_image_of_two_rows_has_no_noise_that_could_be_measured():
    assert estimate_noise(np.random.default_rng(0).random((2, 50))) == 0


def test_a_damaged_chunk_is_left_out_and_nothing_is_said_of_an_image_that_cannot_be_read(tmp_path):
    source = source_of(tmp_path / "image", np.random.default_rng(0).integers(0, 255, (512, 512), np.uint8))
    whole = sample_image(source)
    (tmp_path / "image/c/0/0").write_bytes(b"damaged")
    part = sample_image(source)
    assert 0 < part.n_boxes < whole.n_boxes
    for chunk in ("c/0/1", "c/1/0", "c/1/1"):
        (tmp_path / "image" / chunk).write_bytes(b"damaged")
    assert sample_image(source) is None


def test_a_chunk_that_hangs_does_not_hang_the_sample_and_nothing_is_said_of_its_image(tmp_path, monkeypatch):
    monkeypatch.setattr(sample, "_late", [])
    source = source_of(tmp_path / "image", np.random.default_rng(0).integers(0, 255, (512, 512), np.uint8))
    assert sample_image(source, patience_s=60).n_boxes == sample_image(source).n_boxes
    whole = (tmp_path / "image/c/0/0").read_bytes()
    (tmp_path / "image/c/0/0").unlink()
    os.mkfifo(tmp_path / "image/c/0/0")
    assert sample_image(source, patience_s=0.5) is None
    (tmp_path / "image/c/0/0").write_bytes(whole)  # whoever waits goes on
    for thread in sample._late:
        thread.join(60)
    (tmp_path / "image/c/0/0").unlink()
    (tmp_path / "image/c/0/0").write_bytes(whole)
    assert sample_image(source, patience_s=60) is not None, "a process is not marked for ever"


def test_truth_values_are_sampled_as_numbers(tmp_path):
    found = sample_image(source_of(tmp_path / "image", np.random.default_rng(0).random((64, 64)) > 0.5))
    assert found.noise[0] == pytest.approx(0.5, rel=0.2)


def test_smoothed_noise_is_seen_in_means_and_cells_are_not():
    rng, rows = np.random.default_rng(0), np.arange(128)
    white = rng.normal(0, 5, (128, 128))
    assert estimate_coarse_noise(white) == estimate_noise(white)
    smoothed = ndimage.gaussian_filter(rng.normal(0, 1, (128, 128)), 1.5)
    smoothed *= 5 / smoothed.std()
    assert estimate_noise(smoothed) < 0.2
    assert estimate_coarse_noise(smoothed) > 1.5
    cells = 400.0 * (np.hypot(rows[:, None] % 64 - 32, rows % 64 - 32) < 9)
    assert estimate_coarse_noise(ndimage.gaussian_filter(cells, 1)) < 1
