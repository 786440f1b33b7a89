"""The contact sheet: each panel shows what it says, whatever the channels, axes and names."""

import numpy as np
import pytest
from PIL import Image

from segment_slide.pipeline.metadata.colours import class_colour
from segment_slide.pipeline.training.contact_sheet import write_contact_sheet
from segment_slide.unet.sample import IGNORE, Sample

BACKGROUND, FIRST, SECOND = (38, 38, 44), class_colour(1), class_colour(2)


def make_sample(n_channels=1, shape=(32, 32), halo=8, value=1):
    """The left half of the tile is of a class, the right half is background, a corner is not annotated."""
    classes = np.zeros(shape, np.uint8)
    classes[..., : shape[-1] // 2] = value
    classes[..., -8:, -8:] = IGNORE
    image = np.random.default_rng(0).normal(size=(n_channels, *(size + 2 * halo for size in shape))).astype(np.float32)
    return Sample(image, classes, np.where(classes == IGNORE, 0, 1 + 9 * (classes > 0)).astype(np.float32))


def draw(path, samples, **options):
    names = ("background", "cell", "nucleus")
    write_contact_sheet(path, samples, [f"sample {i}" for i in range(len(samples))], names, **options)
    return np.asarray(Image.open(path).convert("RGB"))


@pytest.mark.parametrize(("n_channels", "shape"), [(1, (32, 32)), (2, (32, 32)), (4, (32, 48)), (1, (16, 32, 32))])
def test_classes_are_painted_where_they_are(tmp_path, n_channels, shape):
    page = draw(tmp_path / "page.png", [make_sample(n_channels, shape)])
    middle, panel = 24 + 64 + 84, 24 + 168 + 4
    assert tuple(page[middle, panel + 40]) == FIRST
    assert tuple(page[middle, panel + 120]) == BACKGROUND
    corner = page[24 + 64 + 130 : 24 + 64 + 160, panel + 140 : panel + 160].reshape(-1, 3)
    assert (corner > 200).all()  # stripes


def test_weights_are_brighter_where_they_are_larger_and_striped_where_there_are_none(tmp_path):
    page = draw(tmp_path / "page.png", [make_sample()]).astype(int).sum(axis=-1)
    middle, panel = 24 + 64 + 84, 24 + 2 * (168 + 4)
    assert page[middle, panel + 40] > page[middle, panel + 120] + 100
    assert page[24 + 64 + 150, panel + 150] > 600


def test_every_class_has_a_colour_of_its_own(tmp_path):
    page = draw(tmp_path / "page.png", [make_sample(value=2)])
    assert tuple(page[24 + 64 + 84, 24 + 168 + 4 + 40]) == SECOND


def test_twelve_samples_fill_four_rows_of_three(tmp_path):
    one = draw(tmp_path / "one.png", [make_sample()])
    twelve = draw(tmp_path / "twelve.png", [make_sample()] * 12)
    assert twelve.shape[0] > 3 * 168 + one.shape[0]
    assert twelve.shape[1] > 3 * 3 * 168


def test_the_page_is_as_wide_as_its_title_and_long_captions_are_cut(tmp_path):
    narrow = draw(tmp_path / "narrow.png", [make_sample()])
    wide = draw(tmp_path / "wide.png", [make_sample()], title="a long title " * 20)
    assert wide.shape[1] > narrow.shape[1]
    path = tmp_path / "caption.png"
    write_contact_sheet(path, [make_sample()] * 2, ["name " * 50, ""], ("background", "cell"))
    page = np.asarray(Image.open(path).convert("RGB"))
    caption = page[24 + 64 + 168 + 2 : 24 + 64 + 168 + 18]
    assert (caption[:, :530] < 200).any()
    assert (caption[:, 540:] == 255).all()


def test_equal_samples_give_equal_bytes(tmp_path):
    for name in "ab":
        draw(tmp_path / f"{name}.png", [make_sample(), make_sample(3)][:1])
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
