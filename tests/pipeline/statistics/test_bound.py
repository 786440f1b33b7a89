"""Blank fields and mostly empty slides are not stretched; images like those of the training are not changed."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from scipy import ndimage

from segment_slide.pipeline.statistics.apply import (
    ImageScaling,
    measure_levels,
    measured_scaling,
    scale_image,
)
from segment_slide.pipeline.statistics.bound import bound_scaling
from segment_slide.pipeline.statistics.levels import Levels, describe_intensities
from segment_slide.unet.normalisation import Intensities, Normalisation
from tests.pipeline.statistics.support import draw_cells, source_of

KINDS = ["percentiles", "mean-std"]
DARK, BRIGHT = 10.0, 200.0  # backgrounds of the training images
EXPOSURES = (60, 90, 130, 180)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, bool], Intensities]:
    """Intensities of four training images of different exposure; on a bright background cells are dark."""

    @cache
    def make(kind: str, is_bright: bool = False) -> Intensities:
        folder = tmp_path_factory.mktemp("training")
        measured = []
        for number, exposure in enumerate(EXPOSURES):
            amplitude, background = (-exposure, BRIGHT) if is_bright else (exposure, DARK)
            pixels, _ = draw_cells(256, 20 + 10 * number, amplitude, background, 1.5, seed=number)
            measured.append(measure_levels(source_of(folder / str(number), pixels)))
        scalings = [measured_scaling(statistics, Normalisation(kind)) for statistics, _ in measured]
        return describe_intensities([levels for _, levels in measured], scalings)

    return make


def scale(folder: Path, pixels: np.ndarray, kind: str, known: Intensities | None) -> tuple[np.ndarray, ImageScaling]:
    found = scale_image(source_of(folder, pixels), Normalisation(kind), known)
    return (pixels.astype(np.float64) - found.offset[0]) / found.scale[0], found


def objects(scaled: np.ndarray, kind: str, is_bright: bool = False) -> np.ndarray:
    """What a simple network would find: smoothed pixels halfway between the training images' background and cells."""
    halfway = {"mean-std": (1.0, -1.0), "percentiles": (0.4, 0.55)}[kind][is_bright]
    smooth = ndimage.uniform_filter(np.clip(scaled, -5, 5), 3)
    return smooth < halfway if is_bright else smooth > halfway


def through_jpeg(pixels: np.ndarray) -> np.ndarray:
    return imagecodecs.jpeg_decode(imagecodecs.jpeg_encode(pixels, level=75))


def blank(name: str) -> np.ndarray:
    rng, size = np.random.default_rng(0), (256, 256)
    if name == "hot pixel":
        pixels = np.full(size, 9, np.uint8) + (rng.random(size) < 0.02).astype(np.uint8)
        pixels[100, 120] = 255
        return pixels
    if name == "hot pixels in noise":
        pixels = rng.normal(150, 6, size).round().astype(np.uint16)
        pixels[(30, 100, 200), (50, 120, 7)] = 60_000, 2_000, 65_535
        return pixels
    made = {
        "8 bits": lambda: rng.normal(12, 2, size).round().clip(0).astype(np.uint8),
        "12 bits in 16": lambda: rng.normal(150, 6, size).round().astype(np.uint16),
        "16 bits": lambda: rng.normal(4000, 300, size).round().astype(np.uint16),
        "real numbers": lambda: rng.normal(0.1, 0.01, size).astype(np.float32),
        "smoothed": lambda: (12 + ndimage.gaussian_filter(rng.normal(0, 6, size), 1)).round().astype(np.uint8),
        "smoothed more": lambda: (40 + ndimage.gaussian_filter(rng.normal(0, 14, size), 2)).round().astype(np.uint8),
        "enlarged": lambda: ndimage.zoom(rng.normal(30, 2, (128, 128)), 2, order=1).round().astype(np.uint8),
        "JPEG": lambda: through_jpeg(rng.normal(30, 3, size).round().astype(np.uint8)),
        "constant": lambda: np.full(size, 7, np.uint8),
        "constant, real numbers": lambda: np.full(size, 0.25, np.float32),
        "black": lambda: np.zeros(size, np.uint16),
        "two values": lambda: (rng.random(size) < 0.1).astype(np.uint8),
    }
    return made[name]()


BLANK = ["8 bits", "12 bits in 16", "16 bits", "real numbers", "smoothed", "constant", "constant, real numbers"]
BLANK += ["smoothed more", "enlarged", "JPEG", "black", "two values", "hot pixel", "hot pixels in noise"]


@pytest.mark.parametrize("is_bright", [False, True], ids=["dark", "bright"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", BLANK)
def test_a_blank_field_gives_no_objects_and_it_is_said(tmp_path, trained, name, kind, is_bright):
    scaled, found = scale(tmp_path / "blank", blank(name), kind, trained(kind, is_bright))
    assert not objects(scaled, kind, is_bright).any()
    assert found.notes[0].startswith("channel 0 is nearly flat")
    assert all(value > 0 for value in found.scale)


@pytest.mark.parametrize("name", ["8 bits", "16 bits", "real numbers", "hot pixel"])
def test_without_intensities_of_the_training_images_noise_becomes_objects(tmp_path, name):
    """Negative control, and what checkpoints of before give still."""
    scaled, found = scale(tmp_path / "blank", blank(name), "percentiles", None)
    assert objects(scaled, "percentiles").sum() > (0 if name == "hot pixel" else 10_000)
    assert found.notes == ()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("amplitude", "background", "noise", "dtype"),
    [
        (120, DARK, 1.5, "uint8"),
        (45, DARK, 1.0, "uint8"),
        (1500, 200, 20, "uint16"),
        (30_000, 2000, 300, "uint16"),
        (0.5, 0.05, 0.008, "float32"),
    ],
    ids=["alike", "dimmer than any", "12 bits in 16", "16 bits", "real numbers"],
)
def test_cells_of_any_bit_depth_are_scaled_by_their_own_statistics(
    tmp_path, trained, kind, amplitude, background, noise, dtype
):
    pixels, _ = draw_cells(256, 40, amplitude, background, noise, dtype, seed=9)
    _, bounded = scale(tmp_path / "bounded", pixels, kind, trained(kind))
    _, plain = scale(tmp_path / "plain", pixels, kind, None)
    assert (bounded.offset, bounded.scale, bounded.notes) == (plain.offset, plain.scale, ())


def test_a_model_of_16_bits_takes_images_of_a_camera_of_12_bits_and_of_8(tmp_path):
    measured = [
        measure_levels(source_of(tmp_path / f"{i}", draw_cells(256, 30, 40_000, 3000, 300, "uint16", seed=i)[0]))
        for i in range(3)
    ]
    wanted = Normalisation("percentiles")
    scalings = [measured_scaling(statistics, wanted) for statistics, _ in measured]
    known = describe_intensities([levels for _, levels in measured], scalings)
    for dtype, amplitude, background, noise in (("uint16", 900, 100, 8), ("uint8", 120, 10, 1)):
        pixels, truth = draw_cells(256, 30, amplitude, background, noise, dtype, seed=5)
        scaled, found = scale(tmp_path / dtype, pixels, "percentiles", known)
        assert found.notes == ()
        assert overlap(objects(scaled, "percentiles"), truth) > 0.85


@pytest.mark.parametrize("is_bright", [False, True], ids=["dark", "bright"])
@pytest.mark.parametrize("size", [512, 1024])
def test_a_slide_that_is_nearly_all_glass_agrees_with_its_crop(tmp_path, trained, size, is_bright):
    amplitude, background = (-120, BRIGHT) if is_bright else (120, DARK)
    pixels, truth = draw_cells(size, 2, amplitude, background, 1.5, seed=3)
    assert truth.mean() < 0.002
    y, x = np.argwhere(truth)[0]
    crop = slice(max(0, y - 30), y + 50), slice(max(0, x - 40), x + 40)
    known = trained("percentiles", is_bright)
    slide, found = scale(tmp_path / "slide", pixels, "percentiles", known)
    part, _ = scale(tmp_path / "crop", pixels[crop], "percentiles", known)
    of_slide, of_crop = (objects(scaled, "percentiles", is_bright) for scaled in (slide, part))
    assert overlap(of_slide[crop], of_crop) > 0.9
    assert of_slide.sum() == pytest.approx(truth.sum(), rel=0.1)
    assert found.notes
    # negative control: unbounded, the glass of the slide is full of objects
    unbounded, _ = scale(tmp_path / "unbounded", pixels, "percentiles", None)
    assert objects(unbounded, "percentiles", is_bright).sum() > 10 * truth.sum()


def test_there_is_no_jump_at_the_bound(trained):
    """An image a little below its bound is scaled as one a little above it."""
    wanted, known = Normalisation("percentiles"), trained("percentiles")
    found = []
    for share in (0.999, 1.001):
        noise = 1.0
        least = noise / max(1.5 * known.channels[0].noise[2], 0.25 / 5.204)
        high = 10 + share * least
        levels = Levels(
            "float32", (0,), (10.0,), (12.0,), (high,), (5.0,), (high + 2,), (noise,), (noise,), (high - 5,)
        )
        found.append(bound_scaling(((10.0,), (high - 10,)), levels, wanted, known))
    below, above = found
    assert below.notes
    assert not above.notes
    np.testing.assert_allclose([*below.offset, *below.scale], [*above.offset, *above.scale], rtol=0.01)


def test_channels_are_bounded_one_by_one(tmp_path, trained):
    cells, _ = draw_cells(256, 40, 120, DARK, 1.5)
    one = trained("percentiles")
    known = Intensities(one.dtypes, one.n_images, one.channels * 2)
    pixels = np.stack([cells, blank("8 bits")])
    found = scale_image(source_of(tmp_path / "image", pixels, "cyx"), Normalisation("percentiles"), known)
    low, high = np.percentile(cells, (1, 99.8))
    assert (found.offset[0], found.scale[0]) == (low, high - low)
    assert found.scale[1] > 10 * np.ptp(np.percentile(pixels[1], (1, 99.8))) / 2
    (note,) = found.notes
    assert note.startswith("channel 1 ")


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / (one | other).sum())
