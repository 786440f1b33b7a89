"""Constant and saturated channels are noted; ordinary images, masks and noise are not."""

import json

import numpy as np
import pytest

from segment_slide.pipeline.statistics.degenerate import find_saturation, note_plan
from segment_slide.pipeline.storage.image import describe_image
from segment_slide.pipeline.storage.source import select_source
from tests.flows.support import noise, run_without_workers, write_model, write_ome


def notes(path, pixels):
    image = describe_image(write_ome(path, pixels, "cyx"))
    return note_plan(select_source(image, n_spatial=2, n_channels=len(pixels), channels=range(len(pixels))))


def camera(level, bits=8, dtype=np.uint8, seed=0, shape=(256, 256)):
    """Cells of a blurred disc each on a dark background, cut off where a camera of so many bits ends."""
    rng, (height, width) = np.random.default_rng(seed), shape
    y, x = np.mgrid[:height, :width]
    image = rng.normal(20, 4, shape)
    for cy, cx in rng.integers(20, 180, (15, 2)):
        image += level * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / 200)
    return np.clip(image, 0, (1 << bits) - 1).astype(dtype)


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_an_overexposed_channel_is_named_with_its_share_and_the_limit(tmp_path, bits):
    dtype = np.uint8 if bits == 8 else np.uint16
    over = camera(4 << bits, bits, dtype)
    share = (over == (1 << bits) - 1).mean()
    (note,) = notes(tmp_path / "a", np.stack([camera(100, bits, dtype), over]))
    limit = {8: "the limit of uint8", 12: "the limit of 12 bits", 16: "the limit of uint16"}[bits]
    assert note.startswith(
        f"channel 1 is saturated: {share:.1%} of its pixels have its largest value {(1 << bits) - 1}"
    )
    assert limit in note


def test_constant_channels_are_named_and_a_constant_image_is_said_to_be_one(tmp_path):
    flat, sound = np.full((60, 70), 9, np.uint8), noise(60, 70)
    (note,) = notes(tmp_path / "one", np.stack([sound, flat]))
    assert note.startswith("channel 1 is constant: all its pixels are 9")
    (note,) = notes(tmp_path / "all", np.stack([flat, flat]))
    assert note.startswith("all channels are constant")


@pytest.mark.parametrize(
    "values",
    [
        noise(200, 200),
        camera(100),
        noise(200, 200) // 200 * 255,  # a mask
        np.random.default_rng(0).poisson(3, (200, 200)).astype(np.uint16),  # few photons
        255 - camera(100),  # bright field
        np.random.default_rng(0).normal(0, 1, (200, 200)).astype(np.float32),
    ],
)
def test_ordinary_images_are_not_noted(tmp_path, values):
    assert not notes(tmp_path / "a", values[None])
    assert find_saturation(values.ravel()) == 0


def test_segment_plan_and_record_say_it(tmp_path, caplog):
    over = np.stack([camera(900)])
    slide, model = write_ome(tmp_path / "s.zarr", over, "cyx"), write_model(tmp_path / "m.safetensors")
    planned = run_without_workers("plan", slide, "-m", model)
    assert "channel 0 is saturated" in planned.out
    done = run_without_workers("segment", slide, "-m", model, "-o", tmp_path / "out.ome.zarr")
    assert done.exit_code == 0
    assert "channel 0 is saturated" in caplog.text
    group = json.loads((tmp_path / "out.ome.zarr/labels/segmentation/zarr.json").read_text())
    said = group["attributes"]["segment_slide"]["normalisation"]["notes"]
    assert any("channel 0 is saturated" in note for note in said)
