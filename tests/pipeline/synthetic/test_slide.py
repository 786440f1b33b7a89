"""The synthetic slide: any part equals the whole's, the truth is exact, cells touch."""

import shutil

import numpy as np
import pytest
from scipy import ndimage

from segment_slide.pipeline.errors import OutputError, OutputMismatchError, PlanError
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.image import describe_image
from segment_slide.pipeline.synthetic.slide import SyntheticSlide, draw_region, part_cells
from segment_slide.pipeline.synthetic.stored import TRUTH_GROUP, count_pending, store_slide
from tests.flows.support import tree

EVERYWHERE = np.ones((3, 3), int)  # neighbours at corners too

SLIDE = SyntheticSlide((600, 500), seed=7)


@pytest.fixture(scope="module")
def whole():
    return draw_region(SLIDE, SLIDE.whole)


# -- drawing -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "box",
    [
        (slice(0, 64), slice(0, 64)),
        (slice(536, 600), slice(431, 500)),
        (slice(101, 333), slice(57, 290)),
        (slice(250, 260), slice(0, 500)),
        (slice(299, 300), slice(123, 124)),
    ],
    ids=["first corner", "last corner", "middle", "strip", "pixel"],
)
def test_a_region_drawn_alone_is_the_same_as_in_the_whole(whole, box):
    region = draw_region(SLIDE, box)
    assert np.array_equal(region.image, whole.image[(slice(None), *box)])
    assert np.array_equal(region.instances, whole.instances[box])


def test_a_slide_put_together_from_tiles_is_the_whole(whole):
    image, instances = np.zeros_like(whole.image), np.zeros_like(whole.instances)
    for top in range(0, 600, 217):
        for left in range(0, 500, 173):
            box = (slice(top, min(top + 217, 600)), slice(left, min(left + 173, 500)))
            region = draw_region(SLIDE, box)
            image[(slice(None), *box)], instances[box] = region.image, region.instances
    assert np.array_equal(image, whole.image)
    assert np.array_equal(instances, whole.instances)


def test_a_slide_of_any_size_is_drawn_where_one_looks():
    huge = SyntheticSlide((1_000_000, 1_000_000), seed=1)
    region = draw_region(huge, (slice(999_900, 1_000_000), slice(0, 100)))
    assert region.image.shape == (3, 100, 100)
    assert region.image.std() > 0


def test_equal_seeds_are_equal_slides_and_others_are_not(whole):
    again = draw_region(SLIDE, SLIDE.whole)
    other = draw_region(SyntheticSlide(SLIDE.shape, seed=8), SLIDE.whole)
    assert again.image.tobytes() == whole.image.tobytes()
    assert (other.image != whole.image).mean() > 0.5
    assert not np.array_equal(other.classes, whole.classes)


@pytest.mark.parametrize("seed", range(4))
def test_every_cell_is_one_object_and_no_two_touch_even_at_corners(seed):
    slide = SyntheticSlide((400, 400), seed)
    region = draw_region(slide, slide.whole)
    n_cells = len(np.unique(region.instances)) - 1
    assert ndimage.label(region.classes)[1] == n_cells
    assert ndimage.label(region.classes, EVERYWHERE)[1] == n_cells


def test_cells_touch_before_the_ridge_parts_them(whole):
    closed = ndimage.binary_closing(whole.classes, EVERYWHERE)
    n_cells = len(np.unique(whole.instances)) - 1
    assert n_cells > 100
    assert ndimage.label(closed)[1] < 0.5 * n_cells


def test_a_threshold_does_not_find_the_cells(whole):
    from skimage.filters import threshold_otsu

    grey = whole.image.mean(axis=0)
    dark = (grey < threshold_otsu(grey)).astype(np.uint8)
    intersection, union = (dark & whole.classes).sum(), (dark | whole.classes).sum()
    assert intersection / union < 0.75


def test_cells_are_darker_than_stroma_and_glass_is_white_and_empty(whole):
    green = whole.image[1].astype(int)
    assert 0.2 < whole.classes.mean() < 0.8
    assert green[whole.classes == 1].mean() < green[whole.classes == 0].mean() - 20
    glass = draw_region(SyntheticSlide((4096, 4096), seed=7), (slice(2000, 2200), slice(0, 200)))
    assert glass.image.min() > 200
    assert not glass.instances.any()


@pytest.mark.parametrize("box", [(slice(0, 601), slice(0, 5)), (slice(-1, 5), slice(0, 5)), (slice(5, 5), slice(0, 5))])
def test_a_box_that_leaves_the_slide_is_refused(box):
    with pytest.raises(PlanError, match="inside the slide"):
        draw_region(SLIDE, box)


@pytest.mark.parametrize("arguments", [{"shape": (0, 5)}, {"shape": (5, 5), "seed": -1}], ids=str)
def test_a_slide_without_pixels_or_with_a_negative_seed_is_refused(arguments):
    with pytest.raises(PlanError, match="expected two sizes above 0"):
        SyntheticSlide(**arguments)


def test_a_slide_with_more_cells_than_ids_is_refused():
    with pytest.raises(PlanError, match="uint32"):
        SyntheticSlide((2_000_000, 2_000_000))


# -- truth ---------------------------------------------------------------------------------------------------


def test_parting_takes_only_pixels_beside_another_cell_and_scraps():
    random = np.random.default_rng(0)
    ids = np.kron(random.integers(0, 5, (12, 12)), np.ones((6, 6), int)).astype(np.uint32)
    ids = np.where(ids, ndimage.label(ids)[0] * 10 + ids, 0).astype(np.uint32)
    parted = part_cells(ids)
    assert set(np.unique(parted)) <= set(np.unique(ids))
    assert np.array_equal(parted[parted > 0], ids[parted > 0])
    for number in np.unique(parted[parted > 0]):
        mine = ndimage.binary_dilation(parted == number, EVERYWHERE)
        assert not np.any(mine & (parted != number) & (parted > 0))
        assert ndimage.label(parted == number)[1] == 1


def test_cells_that_touch_nothing_keep_all_their_pixels():
    ids = np.zeros((9, 9), np.uint32)
    ids[1:4, 1:4], ids[5:8, 5:8] = 3, 8
    assert np.array_equal(part_cells(ids), ids)


# -- on disk -------------------------------------------------------------------------------------------------

STORED = SyntheticSlide((1100, 130), seed=2)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    location = tmp_path_factory.mktemp("slide") / "slide.ome.zarr"
    assert store_slide(STORED, str(location)) == 2
    return location


def test_what_is_stored_is_what_is_drawn(stored):
    region = draw_region(STORED, STORED.whole)
    assert np.array_equal(store.open_array(str(stored), "0")[...], region.image)
    assert np.array_equal(store.open_array(str(stored), f"{TRUTH_GROUP}/0")[...], region.instances)


def test_slide_and_truth_are_valid_ome_zarr_with_pixel_sizes(stored):
    import zarr
    from ome_zarr_models.v05 import Image, ImageLabel

    Image.from_zarr(zarr.open_group(stored, mode="r"))
    ImageLabel.from_zarr(zarr.open_group(stored / TRUTH_GROUP, mode="r"))
    image = describe_image(stored)
    assert image.axes == "cyx"
    assert image.multiscale.levels[0].scale == (1.0, 0.5, 0.5)
    assert [describe_image(stored, level=n).shape[1:] for n in (1, 2)] == [(550, 65), (275, 33)]


def test_an_interrupted_drawing_goes_on_and_ends_with_the_same_bytes(stored, tmp_path):
    again = tmp_path / "again.ome.zarr"
    shutil.copytree(stored, again)
    (again / "0/c/0/1/0").unlink()
    shutil.rmtree(again / "1/c")
    assert count_pending(STORED, str(again)) == 1
    assert store_slide(STORED, str(again)) == 1
    assert tree(again) == tree(stored)


def test_a_stored_slide_is_not_drawn_again(stored):
    assert count_pending(STORED, str(stored)) == 0
    assert store_slide(STORED, str(stored), on_shard=lambda _: pytest.fail("drawn again")) == 0


def test_another_slide_is_not_drawn_over(stored):
    before = tree(stored)
    with pytest.raises(OutputMismatchError, match="another synthetic slide"):
        store_slide(SyntheticSlide(STORED.shape, seed=3), str(stored))
    assert tree(stored) == before


def test_foreign_files_are_not_drawn_over(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="holds something else"):
        store_slide(STORED, str(tmp_path))
    assert tree(tmp_path).keys() == {"notes.txt"}
