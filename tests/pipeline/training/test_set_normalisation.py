"""The normalisation of a training set: what is chosen, what is measured, and what is recorded."""

import numpy as np
import pytest

from segment_slide.flows.demo.network import DemoSettings, annotated_patches
from segment_slide.pipeline.errors import InputError
from segment_slide.pipeline.training.set_normalisation import count_boxes, find_normalisation
from segment_slide.pipeline.training.stored_pixels import open_annotation
from segment_slide.unet.normalisation import Normalisation, WantedNormalisation
from tests.pipeline.training.support import write_training_set
from tests.pipeline.training.test_samples_run import classes_of, open_all, pixels, write_set

AUTO = WantedNormalisation()


def cells(exposure, *, n=12, back=10.0, noise=1.0, size=96, dtype=np.uint8, seed=0):
    """A fluorescence image of discs, and its classes."""
    rng = np.random.default_rng(seed)
    yy, xx = np.mgrid[:size, :size]
    discs = np.zeros((size, size))
    for y, x in rng.integers(8, size - 8, (n, 2)):
        discs[np.hypot(yy - y, xx - x) < 6] = rng.uniform(0.7, 1)
    image = (back + exposure * discs + rng.normal(0, noise, discs.shape)).clip(0)
    return (image.round() if np.dtype(dtype).kind == "u" else image).astype(dtype)[None], (discs > 0).astype(np.uint8)


def find(folder, images, wanted=AUTO, n_validation=0):
    """The normalisation of a set of (pixels, classes); the last images validate."""
    training_set = write_training_set(folder, {f"{i:02}": image for i, image in enumerate(images)})
    items = [open_annotation(training_set, image) for image in training_set.images]
    n = len(items) - n_validation
    return find_normalisation(items[:n], items[n:], wanted)


# -- chosen -------------------------------------------------------------------------------------------------------


def test_percentiles_are_chosen_where_exposures_differ_and_the_reason_names_the_spread(tmp_path):
    found = find(tmp_path, [cells(exposure, seed=i) for i, exposure in enumerate((20, 40, 90, 200))])
    assert found.normalisation == Normalisation("percentiles")
    assert found.reason.startswith("exposures differ between the 4 images: ranges by a factor of ")
    scales = [scale[0] for _, scale in found.scalings.values()]
    assert max(scales) / min(scales) > 5  # each image has its own
    assert found.notes == ()


def test_constants_are_chosen_where_exposures_are_alike(tmp_path):
    found = find(tmp_path, [cells(exposure, seed=i) for i, exposure in enumerate((90, 100, 110))])
    assert found.normalisation.kind == "constants"
    assert len(set(found.scalings.values())) == 1
    assert "alike" in found.reason


def test_a_shift_of_all_levels_is_a_difference_of_exposure(tmp_path):
    found = find(tmp_path, [cells(60, back=back, seed=i) for i, back in enumerate((10, 40, 80, 120))])
    assert found.normalisation.kind == "percentiles"
    assert "levels by" in found.reason


def test_images_annotated_as_empty_do_not_decide(tmp_path):
    images = [cells(exposure, seed=i) for i, exposure in enumerate((90, 100, 110))]
    debris = [cells(20, seed=i) for i in (7, 8, 9)]
    found = find(tmp_path / "with", images + [(image, np.zeros_like(classes)) for image, classes in debris])
    assert found.normalisation.kind == "constants"
    assert found.intensities.n_images == 3
    # negative control: with objects annotated, the same pixels decide
    assert find(tmp_path / "marked", images + debris).normalisation.kind == "percentiles"


def test_one_image_gives_constants(tmp_path):
    assert find(tmp_path, [cells(100)]).normalisation.kind == "constants"


def test_one_odd_channel_is_enough_for_percentiles(tmp_path):
    images = []
    for number, exposure in enumerate((20, 60, 200)):
        (even, classes), (odd, _) = cells(100, seed=number), cells(exposure, seed=number)
        images.append((np.concatenate([even, odd]), classes))
    assert find(tmp_path, images).normalisation.kind == "percentiles"


def test_stained_tissue_keeps_constants_however_much_glass_a_patch_shows(tmp_path):
    patches = annotated_patches(DemoSettings(patch_px=128))
    images = [(patch.image, patch.classes.astype(np.uint8)) for patch in patches]
    images.append((np.full_like(patches[0].image, 240) - (pixels(3, 128, 128) % 3), images[0][1]))
    found = find(tmp_path, images)
    assert found.normalisation.kind == "constants"
    assert "bright background" in found.reason


def test_fluorescence_stored_as_rgb_is_chosen_by_its_exposures(tmp_path):
    images = [cells(exposure, seed=i) for i, exposure in enumerate((20, 60, 200))]
    found = find(tmp_path, [(np.repeat(image, 3, axis=0), classes) for image, classes in images])
    assert found.normalisation.kind == "percentiles"


def test_images_of_eight_and_of_sixteen_bits_need_percentiles(tmp_path):
    images = [cells(100, seed=0), cells(100, seed=1), cells(20000, back=500, noise=100, dtype=np.uint16, seed=2)]
    found = find(tmp_path, images)
    assert found.normalisation.kind == "percentiles"
    assert found.intensities.dtypes == ("uint16", "uint8")


def test_a_stain_that_is_missing_in_some_images_neither_decides_nor_loosens_the_bound(tmp_path):
    images = []
    for number in range(5):
        (first, classes), (second, _) = cells(100, seed=number), cells(100 if number < 3 else 0, seed=number)
        images.append((np.concatenate([first, second]), classes))
    assert find(tmp_path / "auto", images).normalisation.kind == "constants"
    found = find(tmp_path / "percentiles", images, WantedNormalisation("percentiles"))
    assert found.intensities.channels[1].smallest_scale > 50
    assert [note[:25] for note in found.notes] == ["image 03: channel 1 is ne", "image 04: channel 1 is ne"]
    # where most images show noise only, that is what the network learns from
    rare = [images[0], *images[3:], *images[3:]]
    assert find(tmp_path / "rare", rare, WantedNormalisation("percentiles")).notes == ()


# -- measured and recorded ------------------------------------------------------------------------------------------


def test_a_blank_image_of_the_set_is_not_stretched_and_said(tmp_path):
    images = [cells(exposure, seed=i) for i, exposure in enumerate((40, 90, 200))]
    found = find(tmp_path, [*images, cells(0, n=0, seed=5)], n_validation=1)
    assert found.scalings["03"][1][0] > 5 * np.ptp(np.percentile(cells(0, n=0, seed=5)[0], (1, 99.8)))
    (note,) = found.notes
    assert note.startswith("image 03: channel 0 is nearly flat")


def test_levels_of_the_training_images_are_those_of_numpy(tmp_path):
    images = [cells(exposure, seed=i) for i, exposure in enumerate((40, 90, 200))]
    known = find(tmp_path, images).intensities
    (channel,) = known.channels
    low, level, high = np.array([np.percentile(image, (1, 50, 99.8)) for image, _ in images]).T
    for name, values in (("low", low), ("level", level), ("high", high), ("range", high - low)):
        expected = values.min(), np.median(values), values.max()
        np.testing.assert_allclose(getattr(channel, name), expected, rtol=1e-12, err_msg=name)
    assert channel.smallest_scale == (high - low).min()
    assert (known.dtypes, known.n_images) == (("uint8",), 3)


def test_constants_are_the_mean_and_deviation_of_all_training_images(tmp_path):
    items = open_all(write_set(tmp_path, n_channels=2, shapes=((70, 90), (40, 130), (10, 10))))
    wanted = Normalisation()
    boxes = []
    all_found = find_normalisation(items[:2], items[2:], wanted, on_box=boxes.append)
    found, scales = all_found.normalisation, all_found.scalings
    assert len(boxes) == count_boxes(items[:2], items[2:], wanted) == 2
    together = np.concatenate(
        [pixels(2, *shape, seed=i).reshape(2, -1) for i, shape in enumerate(((70, 90), (40, 130)))], axis=1
    )
    np.testing.assert_allclose(found.offset, together.mean(axis=1), rtol=1e-12)
    np.testing.assert_allclose(found.scale, together.std(axis=1), rtol=1e-12)
    assert set(scales.values()) == {(found.offset, found.scale)}
    assert find_normalisation(items[1::-1], items[2:], wanted).normalisation == found


@pytest.mark.parametrize("kind", ["mean-std", "percentiles"])
def test_other_normalisations_are_measured_on_each_whole_image(tmp_path, kind):
    items = open_all(write_set(tmp_path))
    wanted = Normalisation(kind, low=2, high=98)
    found = find_normalisation(items[:1], items[1:], wanted)
    assert (found.normalisation, found.reason) == (wanted, "")
    for number, shape in enumerate(((70, 90), (40, 130))):
        image = pixels(1, *shape, seed=number)
        offset, scale = image.mean(), image.std()
        if kind == "percentiles":
            offset, high = np.percentile(image, (2, 98))
            scale = high - offset
        np.testing.assert_allclose(found.scalings[f"image-{number}"], [[offset], [scale]], rtol=1e-12)


def test_given_constants_are_kept_and_nothing_is_measured(tmp_path):
    items = open_all(write_set(tmp_path))
    wanted = Normalisation(offset=(3.0,), scale=(4.0,))
    assert count_boxes(items, [], wanted) == 0
    found = find_normalisation(items, [], wanted)
    assert (found.normalisation, found.intensities) == (wanted, None)
    assert found.scalings == {f"image-{i}": ((3.0,), (4.0,)) for i in range(2)}


def test_a_constant_image_gets_scale_1(tmp_path):
    stored = np.full((1, 20, 20), 9, np.uint8)
    items = open_all(write_training_set(tmp_path, {"a": (stored, classes_of(20, 20))}, n_classes=3))
    assert find_normalisation(items, [], Normalisation()).normalisation == Normalisation(offset=(9.0,), scale=(1.0,))


@pytest.mark.parametrize("validates", [False, True])
def test_a_value_that_is_not_finite_is_refused_and_located(tmp_path, validates):
    stored = np.ones((1, 20, 20), np.float32)
    bad = stored.copy()
    bad[0, 3, 4] = np.nan
    images = {"a": (stored, classes_of(20, 20)), "b": (bad, classes_of(20, 20))}
    good, wrong = open_all(write_training_set(tmp_path, images, n_classes=3))
    with pytest.raises(InputError, match="y=3, x=4"):
        find_normalisation([good] if validates else [wrong], [wrong] if validates else [good], Normalisation())


@pytest.mark.parametrize("wanted", [AUTO, Normalisation(), Normalisation("percentiles")], ids=lambda w: w.kind)
def test_as_many_boxes_are_read_as_were_counted(tmp_path, wanted):
    items, boxes = open_all(write_set(tmp_path)), []
    find_normalisation(items[:1], items[1:], wanted, on_box=boxes.append)
    assert len(boxes) == count_boxes(items[:1], items[1:], wanted)
