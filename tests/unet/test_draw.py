"""Samples: pure functions of their number; one field moves all; nothing outside the annotation is learnt from."""

import itertools

import numpy as np
import pytest
from scipy import ndimage

from segment_slide.unet.annotated import ArrayPixels, mirror, read_mirrored, read_padded
from segment_slide.unet.array_samples import ArraySamples, PlainSamples
from segment_slide.unet.augment import draw_deformation
from segment_slide.unet.augment_settings import AugmentSettings
from segment_slide.unet.boxes import clip_box
from segment_slide.unet.draw import Place, SampleSettings, cut_plain, draw_sample, plain_places
from segment_slide.unet.errors import GeometryError, TrainingDataError
from segment_slide.unet.sample import IGNORE

STILL = AugmentSettings(elastic_std_px=0, rotation="none", flip=False, grey=0)
NO_GREY = AugmentSettings(grey=0)
TILE = {2: (32, 48), 3: (8, 12, 16)}


def blobs(shape, seed=0, n_classes=2, sigma=4):
    """Smooth classes: connected regions some pixels wide."""
    noise = np.random.default_rng(seed).normal(size=shape)
    smooth = ndimage.gaussian_filter(noise, sigma)
    cuts = np.quantile(smooth, np.linspace(0, 1, n_classes + 1)[1:-1])
    return np.digitize(smooth, cuts).astype(np.uint8)


def annotate(shape=(90, 110), n_channels=1, seed=0, **options):
    """An image in memory whose weights tell each class and each pixel apart."""
    classes = blobs(shape, seed, **options)
    image = np.random.default_rng(seed + 1).normal(size=(n_channels, *shape)).astype(np.float32)
    return image, classes, (1 + classes + np.random.default_rng(seed + 2).random(shape)).astype(np.float32)


def settings_for(ndim=2, depth=2, **options):
    return SampleSettings(TILE[ndim], depth, **options)


def equal(first, second):
    return all(np.array_equal(getattr(first, name), getattr(second, name)) for name in ("image", "classes", "weights"))


# -- one sample ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ndim", "n_channels"), [(2, 1), (2, 4), (3, 2)])
def test_a_sample_has_the_tile_with_its_halo_and_is_contiguous(ndim, n_channels):
    source = ArrayPixels(*annotate((60, 70, 80)[-ndim:], n_channels))
    settings = settings_for(ndim)
    sample, place = draw_sample([source], settings, 0)
    assert sample.image.shape == (n_channels, *(size + 2 * 20 for size in TILE[ndim]))
    assert sample.classes.shape == sample.weights.shape == TILE[ndim]
    assert (sample.image.dtype, sample.classes.dtype, sample.weights.dtype) == (np.float32, np.uint8, np.float32)
    for part in (sample.image, sample.classes, sample.weights):
        assert part.flags.c_contiguous
    assert place.image == 0
    assert len(place.centre_px) == ndim


def test_samples_are_equal_in_any_order_and_differ_by_number_and_seed():
    sources = [ArrayPixels(*annotate(seed=seed)) for seed in (0, 5)]
    settings = settings_for()
    forward = [draw_sample(sources, settings, number) for number in range(6)]
    backward = [draw_sample(sources, settings, number) for number in reversed(range(6))][::-1]
    for (first, place), (second, again) in zip(forward, backward, strict=True):
        assert equal(first, second)
        assert place == again
    for (first, _), (second, _) in itertools.combinations(forward, 2):
        assert not equal(first, second)
    assert not equal(forward[0][0], draw_sample(sources, settings_for(seed=1), 0)[0])


@pytest.mark.parametrize("ndim", [2, 3])
def test_one_field_moves_image_classes_and_weights_together(ndim):
    """Classes painted as intensities come out as the sample's classes, but for pixels at their edges."""
    classes = blobs((90, 110) if ndim == 2 else (50, 60, 70), sigma=6)
    painted = np.stack([classes, ndimage.grey_dilation(classes, 5), ndimage.grey_erosion(classes, 5)]).astype(
        np.float32
    )
    settings = settings_for(ndim, augment=NO_GREY)
    source = ArrayPixels(painted, classes, (classes + 1).astype(np.float32))
    for number in range(4):
        sample, _ = draw_sample([source], settings, number)
        shown, high, low = sample.image[(slice(None), *settings.inner)]
        inside = sample.classes != IGNORE
        flat = inside & (np.abs(high - low) < 1e-6)
        assert flat.sum() > 0.1 * inside.sum()
        np.testing.assert_allclose(shown[flat], sample.classes[flat], atol=1e-5)
        np.testing.assert_array_equal(sample.weights[inside], sample.classes[inside] + 1)


def test_an_image_moved_by_another_field_would_be_noticed():
    classes = blobs((90, 110))
    settings = settings_for(augment=NO_GREY)
    source = ArrayPixels(classes[None].astype(np.float32), classes)
    sample, other = (draw_sample([source], settings, number)[0] for number in (0, 1))
    inside = (sample.classes != IGNORE) & (other.classes != IGNORE)
    assert (np.abs(other.image[(0, *settings.inner)] - sample.classes)[inside] > 0.5).mean() > 0.2


@pytest.mark.parametrize("ndim", [2, 3])
def test_a_sample_is_the_mirrored_image_seen_through_scipy(ndim, monkeypatch):
    """An oracle from end to end: the whole image padded, the same deformation, `scipy.ndimage.map_coordinates`."""
    shape = (60, 70) if ndim == 2 else (30, 40, 36)
    image = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=shape), 3).astype(np.float32)[None]
    classes = blobs(shape)
    weights = np.random.default_rng(1).uniform(1, 2, shape).astype(np.float32)
    settings = settings_for(ndim, augment=NO_GREY)
    drawn = []

    def record(*arguments):
        drawn.append(draw_deformation(*arguments))
        return drawn[-1]

    monkeypatch.setattr("segment_slide.unet.draw.draw_deformation", record)
    sample, place = draw_sample([ArrayPixels(image, classes, weights)], settings, 3)
    moved = drawn[0].coordinates(settings.read_px).astype(np.float64)
    at = moved + np.reshape(place.centre_px, (-1, *(1,) * ndim))
    expected = ndimage.map_coordinates(image[0], at, order=3, mode="mirror")
    assert np.abs(sample.image[0] - expected).max() < 0.05 * image.std()
    inner = at[(slice(None), *settings.inner)]
    for found, values, beyond in ((sample.classes, classes, IGNORE), (sample.weights, weights, 0)):
        nearest = ndimage.map_coordinates(values, np.floor(inner + 0.5), order=0, mode="constant", cval=beyond)
        np.testing.assert_array_equal(found, nearest)


def test_quarter_turns_and_flips_are_permutations_of_pixels():
    image, classes, weights = annotate((100, 100))
    settings = SampleSettings((32, 32), 2, augment=AugmentSettings(elastic_std_px=0, rotation="quarter", grey=0))
    seen = set()
    for number in range(24):
        sample, place = draw_sample([ArrayPixels(image, classes, weights)], settings, number)
        plain = cut_plain([ArrayPixels(image, classes, weights)], settings, place)
        turned = [
            tuple(
                np.rot90(part[..., ::flip], turn, axes=(-2, -1)) for part in (plain.image, plain.classes, plain.weights)
            )
            for flip in (1, -1)
            for turn in range(4)
        ]
        matches = [
            position
            for position, (pixels, labels, weight) in enumerate(turned)
            if np.array_equal(pixels, sample.image)
            and np.array_equal(labels, sample.classes)
            and np.array_equal(weight, sample.weights)
        ]
        assert len(matches) == 1
        seen.add(matches[0])
    assert len(seen) == 8


def test_switched_off_a_sample_is_a_part_of_the_image():
    image, classes, weights = annotate()
    source, settings = ArrayPixels(image, classes, weights), settings_for(augment=STILL)
    for number in range(5):
        sample, place = draw_sample([source], settings, number)
        assert equal(sample, cut_plain([source], settings, place))


# -- what is drawn -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("augment", [AugmentSettings(), STILL])
def test_every_sample_of_a_sparse_annotation_holds_annotated_pixels_and_no_other_pixel_weighs(augment):
    classes = np.full((400, 500), IGNORE, np.uint8)
    classes[200:206, 300:305] = 0
    classes[203, 302] = 1
    image = np.random.default_rng(0).normal(size=(1, 400, 500)).astype(np.float32)
    source, settings = ArrayPixels(image, classes), settings_for(augment=augment)
    for number in range(40):
        sample, _ = draw_sample([source], settings, number)
        assert (sample.classes != IGNORE).any()
        np.testing.assert_array_equal(sample.weights > 0, sample.classes != IGNORE)


def test_what_lies_beyond_the_image_or_outside_the_annotation_has_no_weight():
    """Counted against the coordinates: annotated pixels are those that come from annotated pixels."""
    shape = (40, 50)
    classes = blobs(shape)
    classes[:, 25:] = IGNORE
    source = ArrayPixels(np.zeros((1, *shape), np.float32), classes, (classes != IGNORE) * np.float32(2))
    settings = settings_for(augment=STILL)
    for number in range(20):
        sample, place = draw_sample([source], settings, number)
        origin = [int(c - (t - 1) / 2) for c, t in zip(place.centre_px, settings.tile_px, strict=True)]
        rows, columns = (np.arange(start, start + size) for start, size in zip(origin, settings.tile_px, strict=True))
        inside = np.outer((rows >= 0) & (rows < 40), (columns >= 0) & (columns < 25))
        np.testing.assert_array_equal(sample.weights > 0, inside)
        np.testing.assert_array_equal(sample.classes != IGNORE, inside)


def test_half_of_the_samples_hold_the_one_foreground_pixel_of_a_large_image():
    classes = np.zeros((2000, 2000), np.uint8)
    classes[700, 800] = 1
    source = ArrayPixels(np.zeros((1, 2000, 2000), np.float32), classes)
    for share, expected in ((0.0, 0), (0.5, 0.5), (1.0, 1.0)):
        settings = SampleSettings((16, 16), 1, foreground_share=share, augment=AugmentSettings(elastic_std_px=0))
        drawn = [draw_sample([source], settings, number)[0] for number in range(60)]
        found = np.mean([(sample.classes == 1).any() for sample in drawn])
        assert abs(found - expected) <= 0.2 * (0 < share < 1)


def test_the_drawn_pixel_lies_anywhere_in_the_tile_not_only_in_its_middle():
    classes = np.full((300, 300), IGNORE, np.uint8)
    classes[150, 150] = 1
    source = ArrayPixels(np.zeros((1, 300, 300), np.float32), classes)
    settings = SampleSettings((16, 16), 1, augment=STILL)
    found = np.array([np.argwhere(draw_sample([source], settings, n)[0].classes == 1)[0] for n in range(400)])
    counts = np.histogram2d(*found.T, bins=4, range=[(0, 16), (0, 16)])[0]
    assert ((counts - 25) ** 2 / 25).sum() < 37.7  # chi-squared with 15 degrees of freedom, p = 0.001


def test_images_are_drawn_in_proportion_to_their_annotated_pixels():
    small, large = np.full((64, 64), IGNORE, np.uint8), np.zeros((64, 64), np.uint8)
    small[:16, :64] = 0
    sources = [ArrayPixels(np.zeros((1, 64, 64), np.float32), classes) for classes in (small, large)]
    settings = SampleSettings((16, 16), 1, augment=STILL)
    images = [draw_sample(sources, settings, number)[1].image for number in range(400)]
    assert abs(np.mean(images) - 0.8) < 4 * 0.02


def test_a_tile_is_moved_into_the_image_and_an_image_smaller_than_it_lies_in_its_middle():
    settings = SampleSettings((32, 32), 1, augment=STILL)
    source = ArrayPixels(*annotate((64, 20)))
    for number in range(30):
        sample, place = draw_sample([source], settings, number)
        assert 15.5 <= place.centre_px[0] <= 47.5
        assert place.centre_px[1] == 9.5
        assert (sample.classes != IGNORE).sum() == 32 * 20


@pytest.mark.parametrize("augment", [AugmentSettings(), STILL])
@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (1, 200), (2, 1, 4)])
def test_an_image_smaller_than_a_tile_is_mirrored_and_its_annotation_is_not(shape, augment):
    image = np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32)
    source = ArrayPixels(image, np.ones(shape, np.uint8))
    settings = settings_for(len(shape), augment=augment)
    for number in range(4):
        sample, _ = draw_sample([source], settings, number)
        assert np.isfinite(sample.image).all()
        assert (sample.classes == 1).any()
        assert set(np.unique(sample.classes)) <= {1, IGNORE}
        if augment is STILL:
            assert set(np.unique(sample.image)) <= set(np.unique(image))
            assert (sample.classes == 1).sum() == np.prod(
                [min(n, t) for n, t in zip(shape, TILE[len(shape)], strict=True)]
            )


def test_background_alone_can_be_learnt_from():
    source = ArrayPixels(np.zeros((1, 50, 50), np.float32), np.zeros((50, 50), np.uint8))
    sample, _ = draw_sample([source], settings_for(foreground_share=1.0), 0)
    assert (sample.classes == 0).any()


# -- annotated images in memory ------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(7, 9), (4, 5, 6)])
@pytest.mark.parametrize("foreground", [False, True])
def test_every_annotated_pixel_has_one_rank(shape, foreground):
    classes = np.random.default_rng(0).choice(np.array([0, 1, 2, IGNORE], np.uint8), shape)
    source = ArrayPixels(np.zeros((1, *shape), np.float32), classes)
    wanted = (classes != IGNORE) & ((classes > 0) | (not foreground))
    found = [source.locate(rank, foreground=foreground) for rank in range(source.count(foreground=foreground))]
    assert found == [tuple(map(int, index)) for index in np.argwhere(wanted)]


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_mirroring_is_numpys_reflect_however_narrow_the_image(size):
    expected = np.pad(np.arange(size), 20, mode="reflect")
    np.testing.assert_array_equal(mirror(-20, size + 20, size), expected)


def test_a_box_inside_beyond_and_beside_an_array_is_padded():
    pixels = np.arange(12).reshape(3, 4)
    padded = np.pad(pixels, 6, constant_values=-1)
    for box in itertools.product([(-5, -2), (-2, 2), (0, 3), (1, 8), (4, 6)], repeat=2):
        slices = tuple(slice(*ends) for ends in box)
        expected = padded[tuple(slice(a + 6, b + 6) for a, b in box)]
        np.testing.assert_array_equal(read_padded(pixels, slices, -1), expected)
        assert all(0 <= part.start <= part.stop for part in clip_box(slices, pixels.shape))
    np.testing.assert_array_equal(read_mirrored(pixels[None], (slice(0, 3), slice(1, 3))), pixels[None, :, 1:3])


@pytest.mark.parametrize(
    ("image", "classes", "weights", "message"),
    [
        (np.zeros((1, 4, 4)), np.zeros((4, 4), np.uint8), None, "float64"),
        (np.zeros((1, 4, 4), np.float32), np.zeros((4, 4), np.int64), None, "int64"),
        (np.zeros((1, 4, 5), np.float32), np.zeros((4, 4), np.uint8), None, r"image \(1, 4, 5\)"),
        (np.zeros((0, 4, 4), np.float32), np.zeros((4, 4), np.uint8), None, r"image \(0, 4, 4\)"),
        (np.zeros((1, 0, 4), np.float32), np.zeros((0, 4), np.uint8), None, r"classes \(0, 4\)"),
        (np.full((1, 4, 4), np.nan, np.float32), np.zeros((4, 4), np.uint8), None, "not finite"),
        (np.zeros((1, 4, 4), np.float32), np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.float32), "above 0 where"),
        (np.zeros((1, 2, 2), np.float32), np.full((2, 2), 255, np.uint8), np.ones((2, 2), np.float32), "class is 255"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(image, classes, weights, message):
    with pytest.raises(TrainingDataError, match=message):
        ArrayPixels(image, classes, weights)


# -- validation tiles and numbered samples -------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(64, 96), (70, 50), (5, 200), (9, 20, 33)])
def test_plain_tiles_cover_each_annotated_pixel_exactly_once(shape):
    image, classes, weights = annotate(shape)
    classes[tuple(slice(0, size // 2) for size in shape)] = IGNORE
    weights[classes == IGNORE] = 0
    source, settings = ArrayPixels(image, classes, weights), settings_for(len(shape))
    covered = np.zeros(shape, int)
    for place in plain_places([source], settings.tile_px):
        sample = cut_plain([source], settings, place)
        origin = [int(c - (t - 1) / 2) for c, t in zip(place.centre_px, settings.tile_px, strict=True)]
        box = tuple(slice(start, start + size) for start, size in zip(origin, settings.tile_px, strict=True))
        inside = clip_box(box, shape)
        counted = sample.classes[tuple(slice(0, part.stop - part.start) for part in inside)]
        covered[inside] += counted != IGNORE
        np.testing.assert_array_equal(counted, classes[inside])
        assert (sample.classes != IGNORE).sum() == (counted != IGNORE).sum() > 0
        pad = [(20, 20 + size) for size in settings.tile_px]
        expected = np.pad(image[0], pad, mode="reflect")
        np.testing.assert_array_equal(
            sample.image[0], expected[tuple(slice(part.start, part.stop + 40) for part in box)]
        )
    np.testing.assert_array_equal(covered, classes != IGNORE)


def test_tiles_without_annotation_are_left_out():
    classes = np.full((64, 64), IGNORE, np.uint8)
    classes[40, 10] = 0
    source = ArrayPixels(np.zeros((1, 64, 64), np.float32), classes)
    assert list(plain_places([source], (32, 32))) == [Place(0, (), (47.5, 15.5))]


def test_samples_have_a_length_and_are_drawn_anew_at_each_call():
    sources, settings = [ArrayPixels(*annotate())], settings_for()
    samples = ArraySamples(sources, settings, 3)
    assert len(samples) == 3
    assert equal(samples[2], draw_sample(sources, settings, 2)[0])
    for number in (-1, 3):
        with pytest.raises(IndexError, match=f"sample {number} of 3"):
            samples[number]
    assert len(PlainSamples(sources, settings)) == 3 * 3
    assert PlainSamples(sources, settings)[8].classes.shape == settings.tile_px


def test_images_that_do_not_fit_are_refused_by_their_number():
    flat, colour = ArrayPixels(*annotate()), ArrayPixels(*annotate(n_channels=3))
    with pytest.raises(TrainingDataError, match=r"image 1: 3 channel\(s\), but image 0 has 1"):
        ArraySamples([flat, colour], settings_for(), 1)
    with pytest.raises(TrainingDataError, match="image 0: 2 spatial axes, but tile_px"):
        ArraySamples([flat], settings_for(3), 1)
    nothing = ArrayPixels(np.zeros((1, 9, 9), np.float32), np.full((9, 9), IGNORE, np.uint8))
    for sources in ([nothing], []):
        with pytest.raises(TrainingDataError, match="no pixel of any image is annotated"):
            ArraySamples(sources, settings_for(), 1)
        with pytest.raises(TrainingDataError, match="no pixel of any image is annotated"):
            draw_sample(sources, settings_for(), 0)


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"tile_px": (30, 32)}, GeometryError, "tile=30 px is not a positive multiple"),
        ({"tile_px": (32,)}, TrainingDataError, "expected sizes on"),
        ({"tile_px": (32, 32), "depth": 9}, GeometryError, "depth=9"),
        ({"tile_px": (32, 32), "seed": -1}, TrainingDataError, "seed=-1"),
        ({"tile_px": (32, 32), "foreground_share": 1.5}, TrainingDataError, "foreground_share=1.5"),
    ],
)
def test_settings_out_of_range_are_refused(values, error, message):
    with pytest.raises(error, match=message):
        SampleSettings(**values)
