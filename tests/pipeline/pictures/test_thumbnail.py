"""One small picture of a segmentation: the right colours at the right places, little of the store read."""

import io
import shutil
from collections import Counter

import numpy as np
import pytest
import zarr
from PIL import Image

from segment_slide.pipeline.errors import InputError, UnreadableChunkError
from segment_slide.pipeline.pictures import layer
from segment_slide.pipeline.pictures.paint import choose_bar, find_ends, stretch
from segment_slide.pipeline.pictures.thumbnail import draw_thumbnail
from segment_slide.pipeline.storage import ome, store
from segment_slide.pipeline.storage.record import ATTRIBUTE
from tests.flows.support import (
    mark_of,
    noise,
    run_without_workers,
    write_array,
    write_model,
    write_ome,
    write_segmentation,
)

MARGIN, GAP, HEAD = 12, 10, 34  # of the page, in pixels
ORANGE, GREEN = (230, 159, 0), (0, 158, 115)


def segment(folder, classes, axes="yx", *, image="slide.ome.zarr", names=("background", "cell", "debris"), **options):
    """A segmentation whose record names an image; `record` changes the record's input."""
    changes = options.pop("record", {})
    path = write_segmentation(folder / "out.ome.zarr", classes, axes, **options)
    attributes = store.read_attributes(str(path), "labels/segmentation")
    record = attributes[ATTRIBUTE]
    record["input"] = {"location": str(folder / image), "level": 0, **changes}
    record["input"].setdefault("fingerprint", mark_of(record["input"]["location"], record["input"]))
    record["model"]["classes"] = list(names)
    shown = ome.label_attributes(ome.parse_multiscale(attributes, "here"), names)
    store.update_attributes(str(path), "labels/segmentation", {ATTRIBUTE: record, "ome": shown})
    return str(path)


def draw(location, **options):
    return np.asarray(Image.open(io.BytesIO(draw_thumbnail(location, **options)))).astype(int)


def panels(page, shape):
    """The two panels of a page."""
    height, width = shape
    slot = max(width, 240)
    lefts = MARGIN, MARGIN + slot + GAP
    return [page[HEAD : HEAD + height, left : left + width] for left in lefts]


def is_near(pixels, colour, tolerance=3):
    return (abs(pixels - np.array(colour)) <= tolerance).all(axis=-1)


def discs(shape, *circles):
    """Circles (value, y, x, radius)."""
    drawn = np.zeros(shape, np.uint8)
    y, x = np.ogrid[: shape[0], : shape[1]]
    for value, cy, cx, radius in circles:
        drawn[(y - cy) ** 2 + (x - cx) ** 2 <= radius**2] = value
    return drawn


def test_the_image_is_on_the_left_and_classes_in_their_colours_on_the_right(tmp_path):
    classes = discs((256, 256), (1, 64, 64, 30), (2, 190, 180, 30))
    write_ome(tmp_path / "slide.ome.zarr", np.where(classes > 0, 200, 20).astype(np.uint8), "yx")
    plain, shown = panels(draw(segment(tmp_path, classes), side_px=256), (256, 256))
    assert is_near(plain[64, 64], (255, 255, 255))
    assert is_near(plain[5, 5], (0, 0, 0))
    assert (plain[..., 0] == plain[..., 1]).all(), "grey"
    for y, x, colour in ((64, 64, ORANGE), (190, 180, GREEN)):
        inside, edge = shown[y, x], shown[y, x - 30]
        assert is_near(inside, 0.7 * 255 + 0.3 * np.array(colour))
        assert is_near(edge, colour)
    assert (shown[classes == 0] == plain[classes == 0]).all(), "nothing is drawn on background"


def test_an_outline_lies_where_the_object_of_the_image_lies_although_the_pyramids_differ(tmp_path):
    classes = discs((1001, 1403), (1, 300, 1000, 150))
    image = np.where(classes > 0, 200, 20).astype(np.uint8)
    write_ome(tmp_path / "slide.ome.zarr", image, "yx", n_levels=2)
    location = segment(tmp_path, classes, n_levels=4)
    plain, shown = panels(draw(location, side_px=300), (214, 300))
    bright, orange = plain[..., 0] > 128, is_near(shown, ORANGE, 30)
    factor = 300 / 1403
    for pixels in (bright, orange):
        ys, xs = np.nonzero(pixels)
        ends = np.array([ys.min(), ys.max() + 1, xs.min(), xs.max() + 1])
        assert np.abs(ends - np.array([150, 451, 850, 1151]) * factor).max() <= 1.6
    assert not (orange & ~bright).sum() > 0.02 * bright.sum()


def test_levels_that_all_claim_the_same_scale_are_laid_over_each_other_by_their_shape(tmp_path):
    classes = discs((512, 512), (1, 384, 128, 60))
    write_ome(tmp_path / "slide.ome.zarr", np.where(classes > 0, 200, 20).astype(np.uint8), "yx", n_levels=2)
    attributes = store.read_attributes(str(tmp_path / "slide.ome.zarr"))
    for dataset in attributes["ome"]["multiscales"][0]["datasets"]:
        dataset["coordinateTransformations"][0]["scale"] = [1.0, 1.0]
    store.update_attributes(str(tmp_path / "slide.ome.zarr"), "", attributes)
    plain, shown = panels(draw(segment(tmp_path, classes), side_px=256), (256, 256))
    assert is_near(plain[192, 64], (255, 255, 255))
    assert is_near(plain[100, 64], (0, 0, 0))
    assert is_near(shown[192, 64], 0.7 * 255 + 0.3 * np.array(ORANGE))


@pytest.mark.parametrize("side", [1, 2, 3])
@pytest.mark.parametrize("n_beside", [0, 300])
def test_objects_too_small_for_an_outline_are_filled_however_many_there_are(tmp_path, side, n_beside):
    classes = np.zeros((256, 256), np.uint8)
    classes[100 : 100 + side, 50 : 50 + side] = 1
    for y, x in np.argwhere(np.ones((20, 15)))[:n_beside] * 7 + [110, 80]:
        classes[y : y + 6, x : x + 6] = 1
    write_ome(tmp_path / "slide.ome.zarr", noise(256, 256), "yx")
    _, shown = panels(draw(segment(tmp_path, classes), side_px=256), (256, 256))
    assert is_near(shown, ORANGE)[100 : 100 + side, 50 : 50 + side].all()
    assert is_near(shown, ORANGE)[:109].sum() == side**2
    assert is_near(shown, ORANGE).sum() == side**2 + 20 * n_beside


def test_equal_stores_give_equal_bytes_without_metadata(tmp_path):
    write_ome(tmp_path / "slide.ome.zarr", noise(3, 90, 70), "cyx")
    location = segment(tmp_path, discs((90, 70), (1, 30, 30, 9)))
    first = draw_thumbnail(location)
    assert first == draw_thumbnail(location)
    assert Image.open(io.BytesIO(first)).info == {}
    assert b"tIME" not in first


@pytest.fixture
def count_reads(monkeypatch):
    """Chunks read, per group and array."""
    counts = Counter()
    get = store.CheckedStore.get

    async def counting(self, key, *args, **kwargs):
        if "/c/" in key:
            counts[f"{self._store.root.name}/{key.split('/c/')[0]}"] += 1
        return await get(self, key, *args, **kwargs)

    monkeypatch.setattr(store.CheckedStore, "get", counting)
    return counts


def test_of_a_pyramid_only_the_coarsest_useful_level_is_read(tmp_path, count_reads):
    write_ome(tmp_path / "slide.ome.zarr", noise(1024, 1024), "yx", n_levels=4)
    location = segment(tmp_path, discs((1024, 1024), (1, 300, 300, 90)), n_levels=5)
    count_reads.clear()
    draw_thumbnail(location, side_px=256)
    assert count_reads == {"slide.ome.zarr/3": 4, "segmentation/3": 4}, "128 px of 1024, in chunks of 64"


@pytest.mark.parametrize("levels", [(1, 1), (1, 5), (3, 1)], ids=["none", "labels", "image"])
def test_without_a_pyramid_only_the_centre_is_read_and_shown(tmp_path, count_reads, monkeypatch, levels):
    monkeypatch.setattr(layer, "_MAX_READ_PX", 128 * 128)
    classes = discs((1024, 1024), (1, 512, 512, 32))
    write_ome(tmp_path / "slide.ome.zarr", np.where(classes > 0, 200, 20).astype(np.uint8), "yx", n_levels=levels[0])
    location = segment(tmp_path, classes, n_levels=levels[1])
    count_reads.clear()
    plain, shown = panels(draw(location, side_px=256), (256, 256))
    assert max(count_reads.values()) <= 4, "256 are stored"
    for pixels in (plain[..., 0] > 128, is_near(shown, ORANGE)):
        ys, xs = np.nonzero(pixels)
        assert np.abs(np.array([ys.min(), ys.max(), xs.min(), xs.max()]) - [64, 192, 64, 192]).max() <= 4


def test_a_volume_shows_the_middle_of_the_chosen_planes(tmp_path):
    image = np.full((9, 64, 64), 10, np.uint8)
    image[5, :32], image[0, 32:] = 200, 200  # planes 3 to 7 are chosen: the middle one is 5
    classes = np.zeros((5, 64, 64), np.uint8)
    classes[2, :32], classes[0] = 1, 2
    write_ome(tmp_path / "slide.ome.zarr", image, "zyx")
    location = segment(tmp_path, classes, "zyx", record={"ranges": {"z": [3, 8]}})
    plain, shown = panels(draw(location, side_px=64), (64, 64))
    assert is_near(plain[10, 10], (255, 255, 255))
    assert is_near(plain[50, 10], (0, 0, 0))
    assert is_near(shown[10, 10], 0.7 * 255 + 0.3 * np.array(ORANGE))
    assert is_near(shown[50, 10], (0, 0, 0))


def test_the_first_chosen_time_is_shown(tmp_path):
    image = np.zeros((4, 64, 64), np.uint8)
    image[2, :32] = 200
    write_ome(tmp_path / "slide.ome.zarr", image, "tyx")
    location = segment(tmp_path, np.zeros((2, 64, 64), np.uint8), "tyx", record={"ranges": {"t": [2, 4]}})
    plain, _ = panels(draw(location, side_px=64), (64, 64))
    assert is_near(plain[10, 10], (255, 255, 255))
    assert is_near(plain[50, 10], (0, 0, 0))


def test_a_volume_halved_along_z_too_shows_its_middle(tmp_path):
    classes = np.zeros((16, 512, 512), np.uint8)
    classes[8] = 1
    location = segment(tmp_path, classes, "zyx", files=(16, 64, 64), n_levels=3)
    page = draw(location, side_px=256)
    assert not is_near(page[HEAD + 100, MARGIN + 100], (38, 38, 44))


def quadrants(dtype, *values):
    """An image with a value per quadrant."""
    image = np.zeros((64, 64), dtype)
    image[:32, :32], image[:32, 32:], image[32:, :32], image[32:, 32:] = values
    return image


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32", "float64", "uint64", "bool"])
def test_a_grey_image_spans_black_to_white_whatever_its_type(tmp_path, dtype):
    write_ome(tmp_path / "slide.ome.zarr", quadrants(dtype, 0, 1, 0, 1), "yx")
    plain, _ = panels(draw(segment(tmp_path, np.zeros((64, 64), np.uint8)), side_px=64), (64, 64))
    assert is_near(plain[10, 10], (0, 0, 0))
    assert is_near(plain[10, 50], (255, 255, 255))


def test_what_is_not_finite_is_black_and_does_not_change_the_rest(tmp_path):
    write_ome(tmp_path / "slide.ome.zarr", quadrants("float32", np.nan, -np.inf, 3.0, 7.0), "yx")
    plain, _ = panels(draw(segment(tmp_path, np.zeros((64, 64), np.uint8)), side_px=64), (64, 64))
    assert is_near(plain[:30, :30], (0, 0, 0)).all()
    assert is_near(plain[:30, 34:], (0, 0, 0)).all()
    assert is_near(plain[34:, :30], (0, 0, 0)).all()
    assert is_near(plain[34:, 34:], (255, 255, 255)).all()


@pytest.mark.parametrize("value", [np.nan, 0.0, 5.0, 1e308])
def test_an_image_of_one_value_is_drawn(tmp_path, value):
    write_ome(tmp_path / "slide.ome.zarr", np.full((64, 64), value), "yx")
    plain, _ = panels(draw(segment(tmp_path, np.zeros((64, 64), np.uint8)), side_px=64), (64, 64))
    assert is_near(plain, (128,) * 3 if value > 0 else (0, 0, 0)).all()


def test_a_photograph_keeps_its_hue(tmp_path):
    image = np.stack(
        [quadrants("uint8", 240, 120, 60, 0), quadrants("uint8", 120, 60, 30, 0), quadrants("uint8", *"0000")]
    )
    write_ome(tmp_path / "slide.ome.zarr", image, "cyx")
    plain, _ = panels(draw(segment(tmp_path, np.zeros((64, 64), np.uint8)), side_px=64), (64, 64))
    assert is_near(plain[10, 10], (255, 128, 0))
    assert is_near(plain[10, 50], (128, 64, 0))


def test_of_four_channels_the_first_three_that_were_segmented_are_mixed_in_the_stores_colours(tmp_path):
    image = np.stack([quadrants("uint16", *np.eye(4)[c] * 900) for c in range(4)])
    path = write_ome(tmp_path / "slide.ome.zarr", image, "cyx", channels="abcd")
    attributes = store.read_attributes(str(path))
    for channel, colour in zip(
        attributes["ome"]["omero"]["channels"], ("00FFFF", "FF00FF", "FFFF00", "0000FF"), strict=True
    ):
        channel["color"] = colour
    store.update_attributes(str(path), "", attributes)
    location = segment(tmp_path, np.zeros((64, 64), np.uint8), record={"channels": [3, 1, 0, 2]})
    plain, _ = panels(draw(location, side_px=64), (64, 64))
    assert is_near(plain[10, 10], (0, 255, 255))
    assert is_near(plain[10, 50], (255, 0, 255))
    assert is_near(plain[50, 10], (0, 0, 0)), "the fourth that was segmented is not shown"
    assert is_near(plain[50, 50], (0, 0, 255))


def test_two_channels_without_colours_are_green_and_magenta(tmp_path):
    write_ome(
        tmp_path / "slide.ome.zarr", np.stack([quadrants("uint16", 9, 0, 0, 9), quadrants("uint16", 0, 7, 0, 7)]), "cyx"
    )
    plain, _ = panels(draw(segment(tmp_path, np.zeros((64, 64), np.uint8)), side_px=64), (64, 64))
    found = [tuple(plain[y, x]) for y, x in ((10, 10), (10, 50), (50, 10), (50, 50))]
    assert found == [(0, 255, 0), (255, 0, 255), (0, 0, 0), (255, 255, 255)]


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (3, 2), (2000, 1)])
def test_images_of_odd_shapes_are_drawn(tmp_path, shape):
    write_ome(tmp_path / "slide.ome.zarr", noise(*shape), "yx")
    page = draw(segment(tmp_path, np.ones(shape, np.uint8)), side_px=128)
    assert max(page.shape) < 640


def test_labels_are_drawn_alone_where_the_image_is_missing_or_another(tmp_path):
    classes = discs((128, 128), (1, 64, 64, 30))
    location = segment(tmp_path, classes)
    alone = draw(location, side_px=256)
    assert is_near(alone[HEAD + 128, MARGIN + 70], ORANGE)
    assert is_near(alone[HEAD + 4, MARGIN + 4], (38, 38, 44))
    write_ome(tmp_path / "slide.ome.zarr", noise(100, 128), "yx")
    assert (draw(location, side_px=256) == alone).all(), "of another size"
    shutil.rmtree(tmp_path / "slide.ome.zarr")
    write_ome(tmp_path / "slide.ome.zarr", noise(128, 128), "yx")
    assert (draw(location, side_px=256) == alone).all(), "of the same size, but not the one that was segmented"
    shutil.rmtree(location)
    location = segment(tmp_path, classes)
    assert draw(location, side_px=256).shape[1] > alone.shape[1] + 200, "a control: the right one is shown"


def test_labels_of_all_background_leave_the_image_as_it_is(tmp_path):
    write_ome(tmp_path / "slide.ome.zarr", noise(128, 128), "yx")
    plain, shown = panels(draw(segment(tmp_path, np.zeros((128, 128), np.uint8)), side_px=256), (256, 256))
    assert (plain == shown).all()


def test_a_store_segmented_in_place_shows_its_own_image_wherever_it_was_moved(tmp_path):
    location = segment(tmp_path, discs((128, 128), (1, 64, 64, 30)), image="moved.ome.zarr")
    shutil.move(f"{location}/labels", tmp_path / "labels")
    shutil.rmtree(location)
    write_ome(tmp_path / "out.ome.zarr", quadrants("uint8", 0, 1, 0, 1).repeat(2, 0).repeat(2, 1), "yx")
    shutil.move(tmp_path / "labels", f"{location}/labels")
    plain, shown = panels(draw(location, side_px=256), (256, 256))
    assert is_near(plain[10, 250], (255, 255, 255))
    assert is_near(shown[128, 70], ORANGE)


def test_a_bare_array_is_shown_by_the_axes_of_the_record(tmp_path):
    write_array(tmp_path / "bare.zarr", quadrants("uint8", 0, 1, 0, 1)[None])
    record = {"axes": "cyx", "array": ""}
    location = segment(tmp_path, np.zeros((64, 64), np.uint8), image="bare.zarr", record=record)
    assert is_near(panels(draw(location, side_px=64), (64, 64))[0][10, 50], (255, 255, 255))


def test_a_scale_bar_is_drawn_only_if_the_pixel_size_is_known_and_as_long_as_it_says(tmp_path):
    lengths = {}
    for unit in ("micrometer", "millimeter", "inch", "Å", None, "pixel", "furlong"):
        page = draw(
            segment(tmp_path / str(unit), np.zeros((300, 300), np.uint8), scale=(0.5, 0.5), unit=unit), side_px=300
        )
        row = page[HEAD + 300 + 8 + 7, MARGIN : MARGIN + 300]
        lengths[unit] = int(is_near(row, (32, 32, 36)).cumprod().sum())
    known = {"micrometer": 100, "millimeter": 100, "inch": 79, "Å": 100}  # 79 px of half an inch are 1000 mm
    assert lengths == known | {None: 0, "pixel": 0, "furlong": 0}


def test_pixels_that_are_not_square_are_drawn_in_the_proportions_of_the_specimen(tmp_path):
    page = draw(segment(tmp_path, np.ones((100, 100), np.uint8), scale=(0.5, 1.0)), side_px=300)
    painted = ~is_near(page[HEAD:, MARGIN + 150], (255, 255, 255))
    assert painted[:150].all()
    assert not painted[150:155].any()


def test_the_legend_has_each_class_in_its_colour_present_or_not(tmp_path):
    page = draw(segment(tmp_path, np.zeros((300, 300), np.uint8)), side_px=300)
    foot = page[HEAD + 300 :]
    assert is_near(foot, ORANGE).sum() == is_near(foot, GREEN).sum() == 144


@pytest.mark.parametrize(
    ("panel_um", "width", "expected"),
    [(900, 300, (67, "200 µm")), (3, 100, (33, "1 µm")), (3e7, 300, (100, "10 m")), (1e-3, 300, (60, "0.2 nm"))],
)
def test_the_scale_bar_is_a_round_number(panel_um, width, expected):
    assert choose_bar(panel_um, width) == expected


def test_a_few_bright_spots_on_black_are_seen():
    spots = np.zeros((100, 100))
    spots[5, 5] = 8.0
    assert stretch(spots, *find_ends(spots))[5, 5] == 255


def test_what_is_no_segmentation_is_refused(tmp_path):
    location = segment(tmp_path, np.zeros((64, 64), np.uint8))
    write_ome(tmp_path / "slide.ome.zarr", noise(64, 64), "yx")
    for place, name in (
        (location, "other"),
        (str(tmp_path / "slide.ome.zarr"), "segmentation"),
        (str(tmp_path / "no"), "x"),
    ):
        with pytest.raises(InputError, match=f"no segmentation labels/{name}"):
            draw_thumbnail(place, name)
    with pytest.raises(InputError, match="side_px=10"):
        draw_thumbnail(location, side_px=10)


def test_a_damaged_chunk_is_named_and_a_missing_one_is_background(tmp_path):
    location = segment(tmp_path, np.ones((64, 64), np.uint8))
    chunk = tmp_path / "out.ome.zarr/labels/segmentation/0/c/0/0"
    chunk.write_bytes(b"damaged")
    with pytest.raises(UnreadableChunkError, match="labels/segmentation/0 cannot be read"):
        draw_thumbnail(location)
    chunk.unlink()
    assert is_near(draw(location, side_px=64)[HEAD:, MARGIN:][:64, :64], (38, 38, 44)).all()


def test_the_output_of_a_run_is_drawn(tmp_path):
    model = write_model(tmp_path / "cells.safetensors")
    write_ome(tmp_path / "in.ome.zarr", noise(150, 200), "yx")
    outcome = run_without_workers(
        "segment", tmp_path / "in.ome.zarr", "--model", model, "--output", tmp_path / "out.ome.zarr", "--device", "cpu"
    )
    assert outcome.exit_code == 0, outcome.err
    labels = zarr.open_array(tmp_path / "out.ome.zarr/labels/segmentation/0")[:]
    plain, shown = panels(draw(str(tmp_path / "out.ome.zarr"), side_px=200), (150, 200))
    assert ((plain != shown).any(axis=-1) <= (labels != 0)).all()
    assert (plain != shown).any(axis=-1).sum() > 0.9 * (labels != 0).sum()
