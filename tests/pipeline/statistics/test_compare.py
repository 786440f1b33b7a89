"""What looks unlike the training images is said, and what only has other content is not."""

from pathlib import Path

import numpy as np
import pytest

from segment_slide.pipeline.statistics.apply import measure_levels, scale_image
from segment_slide.pipeline.statistics.compare import compare_intensities, find_better_order
from segment_slide.pipeline.statistics.levels import describe_intensities
from segment_slide.unet.normalisation import Intensities, Normalisation
from tests.pipeline.statistics.support import draw_cells, source_of

CONSTANTS = Normalisation("constants", (18.0,), (25.0,))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Intensities:
    """Intensities of three images of 8 bits with bright cells on a dark background, for constants."""
    folder = tmp_path_factory.mktemp("training")
    return known(folder, [draw_cells(256, 20 + 10 * i, 100, 10, 1.5, seed=i)[0] for i in range(3)], "yx")


def known(folder: Path, images: list[np.ndarray], axes: str) -> Intensities:
    sources = [source_of(folder / f"{number}", pixels, axes) for number, pixels in enumerate(images)]
    scaling = ((18.0,) * len(sources[0].channels), (25.0,) * len(sources[0].channels))
    return describe_intensities([measure_levels(source)[1] for source in sources], [scaling] * len(sources))


def notes(folder: Path, pixels: np.ndarray, trained: Intensities | None, normalisation: Normalisation = CONSTANTS):
    return scale_image(source_of(folder, pixels), normalisation, trained).notes


@pytest.mark.parametrize(
    ("n", "size", "amplitude"),
    [(50, 256, 100), (3, 256, 100), (100, 1024, 80), (50, 256, 60), (400, 256, 110)],
    ids=["alike", "few cells", "large", "darker", "crowded"],
)
@pytest.mark.parametrize("kind", ["constants", "percentiles"])
def test_an_image_like_those_of_the_training_is_not_warned_of(tmp_path, trained, n, size, amplitude, kind):
    pixels, _ = draw_cells(size, n, amplitude, 10, 1.5, seed=7)
    wanted = CONSTANTS if kind == "constants" else Normalisation(kind)
    assert notes(tmp_path / "image", pixels, trained, wanted) == ()


@pytest.mark.parametrize(
    ("pixels", "said"),
    [
        (draw_cells(256, 30, 25_000, 2_500, 300, "uint16")[0], "(uint16), the training images from "),
        (draw_cells(256, 30, 0.4, 0.04, 0.005, "float32")[0], "(float32), a range of 0.4"),
        (draw_cells(256, 30, 15, 10, 0.5)[0], "the smallest range in training was "),
        (draw_cells(256, 30, 60, 180, 1.5)[0], "(uint8), the training images from "),
    ],
    ids=["16 bits", "0 to 1", "much darker", "brighter background"],
)
def test_constants_that_do_not_fit_are_warned_of(tmp_path, trained, pixels, said):
    (note,) = notes(tmp_path / "image", pixels, trained)
    assert note.startswith("channel 0 has intensities from ")
    assert said in note
    assert "constants" in note
    assert note.endswith("(in a sample of the image)")


def test_percentiles_do_not_depend_on_units_and_warn_of_none(tmp_path, trained):
    pixels, _ = draw_cells(256, 30, 25_000, 2_500, 300, "uint16")
    assert notes(tmp_path / "image", pixels, trained, Normalisation("percentiles")) == ()


@pytest.mark.parametrize("kind", ["constants", "percentiles"])
def test_inverted_contrast_is_warned_of(tmp_path, trained, kind):
    pixels, _ = draw_cells(256, 30, 100, 10, 1.5)
    wanted = CONSTANTS if kind == "constants" else Normalisation(kind)
    found = notes(tmp_path / "image", 120 - pixels, trained, wanted)
    assert any("most pixels of channel 0 are bright, in the training images they were dark" in note for note in found)


def tissue(seed: int) -> np.ndarray:
    """Stained tissue: red, green and blue differ as in H&E."""
    cells = draw_cells(256, 60, 1, 0, 0.02, "float32", seed=seed)[0]
    white, stain = np.array([235, 225, 240])[:, None, None], np.array([130, 220, 20])[:, None, None]
    tinted = white - stain * (0.4 + 0.5 * cells)
    return tinted.clip(0, 255).astype(np.uint8)


def test_channels_in_another_order_are_warned_of_by_their_numbers(tmp_path):
    rgb = known(tmp_path, [tissue(i) for i in range(3)], "cyx")
    wanted = Normalisation("constants", (150.0,) * 3, (50.0,) * 3)
    found = scale_image(source_of(tmp_path / "bgr", tissue(5)[::-1], "cyx"), wanted, rgb).notes
    assert any("in another order: 2, 1, 0; choose" in note and "`channels`" in note for note in found)
    assert scale_image(source_of(tmp_path / "rgb", tissue(5), "cyx"), wanted, rgb).notes == ()


def test_an_order_is_only_better_if_it_fits_much_better(tmp_path):
    alike = known(tmp_path, [np.repeat(draw_cells(64, 5, 100, 10, 1, seed=i)[0][None], 3, 0) for i in range(3)], "cyx")
    _, levels = measure_levels(
        source_of(tmp_path / "image", np.repeat(draw_cells(64, 5, 90, 10, 1)[0][None], 3, 0), "cyx")
    )
    assert find_better_order(levels, alike) == ()
    assert compare_intensities(levels, alike, "percentiles") == []


def test_a_checkpoint_without_intensities_has_constants_that_say_whether_the_bit_depth_is_another(tmp_path):
    of_8_bits, _ = draw_cells(256, 30, 100, 10, 1.5)
    of_16_bits, _ = draw_cells(256, 30, 25_000, 2_500, 300, "uint16")
    assert notes(tmp_path / "8", of_8_bits, None) == ()
    (note,) = notes(tmp_path / "16", of_16_bits, None)
    assert note.startswith("the median of channel 0 is 25")
    assert notes(tmp_path / "raw", of_16_bits, None, Normalisation("constants", (0.0,), (1.0,))) == ()


def test_an_image_that_cannot_be_sampled_is_left_to_the_run(tmp_path, trained):
    source = source_of(tmp_path / "image", draw_cells(64, 3, 100, 10, 1)[0])
    (tmp_path / "image/c/0/0").write_bytes(b"damaged")
    found = scale_image(source, CONSTANTS, trained)
    assert (found.offset, found.scale, found.notes) == ((18.0,), (25.0,), ())
