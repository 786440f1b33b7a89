"""Training: it learns, it can be repeated, it looks only at what is annotated."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from unet.architecture import Architecture
from unet.errors import DivergedError, GeometryError, TrainingDataError
from unet.geometry import Geometry
from unet.predict import whole_image_logits
from unet.sample import IGNORE, count_class_weights, cut_tile, draw_sample
from unet.train import TrainSettings, build_model, pixel_loss, train

SMALL = Architecture(base_channels=4, depth=1, dropout=0.0)
QUICK = TrainSettings(steps=60, tile_px=(32, 32), learning_rate=1e-2)


def rough_and_smooth(seed, size=96):
    """An image of which a third is rougher than the rest, at the same mean brightness, and where."""
    random = np.random.default_rng(seed)
    rough = np.zeros((size, size), bool)
    for _ in range(3):
        top, left = random.integers(0, size - 32, 2)
        rough[top : top + 32, left : left + 32] = True
    noise = random.standard_normal((size, size))
    return np.where(rough, noise, 0.2 * noise).astype(np.float32)[None], rough.astype(np.uint8)


def accuracy(model, image, classes):
    return float((whole_image_logits(model, image).argmax(axis=0) == classes).mean())


def majority_share(classes):
    return float(np.bincount(classes.ravel()).max() / classes.size)


# -- learning ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained():
    images, labels = zip(*(rough_and_smooth(seed) for seed in range(3)), strict=True)
    model = build_model(SMALL, seed=0)
    return model, train(model, images, labels, QUICK)


def test_the_loss_falls(trained):
    losses = trained[1].losses
    assert len(losses) == QUICK.steps
    assert np.mean(losses[-10:]) < 0.65 * np.mean(losses[:10])


def test_a_trained_network_beats_the_majority_class_on_an_image_it_has_not_seen(trained):
    image, classes = rough_and_smooth(seed=99)
    assert accuracy(trained[0], image, classes) > majority_share(classes) + 0.1


def test_labels_that_have_nothing_to_do_with_the_image_teach_nothing():
    random = np.random.default_rng(5)
    images = [rough_and_smooth(seed)[0] for seed in range(3)]
    labels = [random.integers(0, 2, image.shape[1:], np.uint8) for image in images]
    model = build_model(SMALL, seed=0)
    result = train(model, images, labels, QUICK)
    assert np.mean(result.losses[-10:]) > 0.67  # ln 2 is guessing
    image, classes = rough_and_smooth(seed=99)
    assert accuracy(model, image, classes) < majority_share(classes) + 0.1


def test_the_momentum_of_the_paper_learns_too():
    images, labels = zip(*(rough_and_smooth(seed) for seed in range(3)), strict=True)
    settings = TrainSettings(steps=120, tile_px=(32, 32), optimiser="sgd", momentum=0.99, learning_rate=2e-3)
    losses = train(build_model(SMALL, seed=0), images, labels, settings).losses
    assert np.mean(losses[-10:]) < 0.6 * np.mean(losses[:10])


def test_volumes_are_learnt_from_as_planes_are():
    random = np.random.default_rng(0)
    classes = np.zeros((12, 24, 24), np.uint8)
    classes[:, :, 12:] = 1
    image = (random.standard_normal(classes.shape) * (0.1 + classes))[None].astype(np.float32)
    model = build_model(Architecture(base_channels=2, depth=1, ndim=3, dropout=0.0), seed=0)
    settings = TrainSettings(steps=25, tile_px=(8, 16, 16), learning_rate=1e-2)
    losses = train(model, [image], [classes], settings).losses
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])


# -- repeatability -------------------------------------------------------------------------------------------


def weights_after(seed, model_seed=0, dropout=0.5):
    image, classes = rough_and_smooth(seed=1)
    model = build_model(Architecture(base_channels=2, depth=1, dropout=dropout), model_seed)
    result = train(model, [image], [classes], TrainSettings(steps=4, tile_px=(32, 32), seed=seed))
    return result.losses, torch.cat([tensor.ravel() for tensor in model.state_dict().values()])


def test_equal_seeds_give_equal_weights_whatever_was_drawn_before():
    losses, weights = weights_after(seed=3)
    torch.rand(7)
    np.random.default_rng().random(7)
    again, weights_again = weights_after(seed=3)
    assert losses == again
    assert torch.equal(weights, weights_again)


@pytest.mark.parametrize("seeds", [{"seed": 4}, {"seed": 3, "model_seed": 1}])
def test_another_seed_gives_other_weights(seeds):
    assert not torch.equal(weights_after(seed=3)[1], weights_after(**seeds)[1])


def test_torchs_global_generator_is_left_as_it_was():
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    weights_after(seed=0)
    assert torch.equal(torch.rand(3), expected)


def test_a_sample_depends_on_seed_and_step_alone():
    data = [*zip(*(rough_and_smooth(seed) for seed in range(2)), strict=True)]
    geometry = Geometry(1)
    forwards = [draw_sample(*data, QUICK, geometry, step)[0] for step in range(6)]
    backwards = [draw_sample(*data, QUICK, geometry, step)[0] for step in reversed(range(6))][::-1]
    assert all(np.array_equal(a, b) for a, b in zip(forwards, backwards, strict=True))
    assert len({tile.tobytes() for tile in forwards}) == 6


def test_the_learning_rate_rises_falls_and_never_is_zero():
    for steps in (1, 2, 7, 100):
        rates = [TrainSettings(steps=steps, learning_rate=0.5).rate(step) for step in range(steps)]
        assert 0 < min(rates) <= max(rates) == 0.5
        assert np.all(np.diff(rates[rates.index(0.5) :]) <= 0)


# -- tiles ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(40, 56), (24, 24), (9, 30), (1, 50)], ids=str)
def test_a_tile_is_a_window_of_the_mirrored_image(shape):
    geometry, tile_px = Geometry(2), (24, 24)
    image = np.random.default_rng(0).random((2, *shape), np.float32)
    classes = (image[0] * 200).astype(np.uint8)
    halo = geometry.halo
    mirrored = np.pad(image, [(0, 0), (halo, 60), (halo, 60)], mode="reflect")
    padded = np.pad(classes, [(0, 60)] * 2, constant_values=IGNORE)
    for origin in np.ndindex(*(max(1, size - tile + 1) for size, tile in zip(shape, tile_px, strict=True))):
        tile, inner = cut_tile(image, classes, origin, tile_px, halo)
        read = tuple(slice(start, start + geometry.read_size(24)) for start in origin)
        assert np.array_equal(tile, mirrored[(slice(None), *read)])
        assert np.array_equal(inner, padded[tuple(slice(start, start + 24) for start in origin)])


def test_image_and_classes_move_together():
    classes = np.random.default_rng(0).integers(0, 200, (50, 64), np.uint8)
    geometry, settings = Geometry(1), TrainSettings(steps=1, tile_px=(16, 16))
    inner = slice(geometry.halo, -geometry.halo)
    tiles = set()
    for step in range(60):
        tile, cut = draw_sample([classes.astype(np.float32)[None]], [classes], settings, geometry, step)
        assert np.array_equal(tile[0, inner, inner], cut)
        tiles.add(cut.tobytes())
    assert len(tiles) > 55


def test_all_eight_orientations_occur_and_none_without_augmentation():
    classes = np.arange(16, dtype=np.uint8).reshape(4, 4)
    image = classes.astype(np.float32)[None]

    def orientations(augment):
        settings = TrainSettings(steps=1, tile_px=(4, 4), augment=augment)
        return {draw_sample([image], [classes], settings, Geometry(1), step)[1].tobytes() for step in range(100)}

    assert len(orientations(augment=True)) == 8
    assert orientations(augment=False) == {classes.tobytes()}


def test_every_pixel_of_an_image_is_learnt_from():
    seen = np.zeros((40, 40), int)
    classes = np.zeros((40, 40), np.uint8)
    rows, columns = np.indices(classes.shape)
    image = np.stack([rows, columns]).astype(np.float32)
    settings, geometry = TrainSettings(steps=1, tile_px=(16, 16)), Geometry(1)
    inner = slice(geometry.halo, -geometry.halo)
    for step in range(300):
        tile = draw_sample([image], [classes], settings, geometry, step)[0][:, inner, inner].astype(int)
        seen[tile[0], tile[1]] += 1
    assert seen.min() >= 300 * (8 / 40) ** 2 * 0.5  # a corner: the drawn pixel is within 8 of it
    assert seen.max() <= 300 * (24 / 40) ** 2 * 1.2  # the pixels that all tiles moved inside have in common


# -- loss ----------------------------------------------------------------------------------------------------


def test_ignored_pixels_have_no_gradient_and_others_have():
    torch.manual_seed(0)
    logits = torch.randn(1, 3, 8, 8, requires_grad=True)
    classes = torch.randint(0, 3, (1, 8, 8), dtype=torch.uint8)
    classes[0, :4] = IGNORE
    pixel_loss(logits, classes, torch.ones(3)).backward()
    assert torch.all(logits.grad[0, :, :4] == 0)
    assert torch.all(logits.grad[0, :, 4:] != 0)


def test_a_tile_that_nobody_annotated_changes_nothing():
    logits = torch.randn(1, 2, 6, 6, requires_grad=True)
    loss = pixel_loss(logits, torch.full((1, 6, 6), IGNORE, dtype=torch.uint8), torch.ones(2))
    loss.backward()
    assert loss == 0
    assert torch.all(logits.grad == 0)


def test_the_loss_is_the_weighted_mean_of_the_cross_entropy_of_the_inner_pixels():
    torch.manual_seed(0)
    logits, classes = torch.randn(2, 3, 12, 12), torch.randint(0, 3, (2, 8, 8), dtype=torch.uint8)
    classes[:, 0] = IGNORE
    weights = torch.tensor([0.5, 1.0, 4.0])
    expected = functional.cross_entropy(logits[..., 2:-2, 2:-2], classes.long(), weight=weights, ignore_index=IGNORE)
    torch.testing.assert_close(pixel_loss(logits, classes, weights), expected)


def test_balanced_classes_weigh_as_much_as_each_other():
    labels = [np.array([[0] * 6, [1] * 5 + [IGNORE]], np.uint8), np.array([[2, 0, 0, 0]], np.uint8)]
    weights = count_class_weights(labels, 4, balance=True)
    counts = (9, 5, 1, 0)
    assert [weight * count for weight, count in zip(weights, counts, strict=True)] == pytest.approx([5, 5, 5, 0])
    assert count_class_weights(labels, 4, balance=False) == (1, 1, 1, 1)


# -- what is refused -----------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_ends_the_training_and_names_the_step():
    image, classes = rough_and_smooth(seed=1)
    settings = TrainSettings(steps=5, tile_px=(32, 32), optimiser="sgd", learning_rate=1e30)
    with pytest.raises(DivergedError, match=r"step 1: loss=.*lower learning rate \(now 1e\+30\)"):
        train(build_model(SMALL, seed=0), [image], [classes], settings)


GOOD = (np.zeros((1, 40, 40), np.float32), np.zeros((40, 40), np.uint8))


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        ([], [], "0 images"),
        ([GOOD[0]], [], "1 images and 0 label images"),
        ([GOOD[0].astype(np.float64)], [GOOD[1]], "image 0: dtype=float64"),
        ([GOOD[0][0]], [GOOD[1]], r"expected float32 with 1 channel\(s\) first"),
        ([GOOD[0].repeat(3, 0)], [GOOD[1]], r"shape=\(3, 40, 40\)"),
        ([GOOD[0]], [GOOD[1][:-1]], r"labels are uint8 of shape \(39, 40\)"),
        ([GOOD[0]], [GOOD[1].astype(np.int64)], "labels are int64"),
        ([GOOD[0], GOOD[0] + np.nan], [GOOD[1]] * 2, "image 1 holds values that are not finite"),
        ([GOOD[0]], [GOOD[1] + 2], "label value 2, expected 0 to 1, or 255"),
        ([GOOD[0]], [GOOD[1] + IGNORE], "there is nothing to learn from"),
    ],
)
def test_data_that_cannot_be_learnt_from_are_refused_before_the_first_step(images, labels, message):
    steps = []
    with pytest.raises(TrainingDataError, match=message):
        train(build_model(SMALL, 0), images, labels, QUICK, on_step=lambda *step: steps.append(step))
    assert not steps


@pytest.mark.parametrize("tile_px", [(33, 32), (0, 32)])
def test_a_tile_off_the_networks_grid_is_refused(tile_px):
    with pytest.raises(GeometryError, match="stride 2"):
        train(build_model(SMALL, 0), [GOOD[0]], [GOOD[1]], TrainSettings(tile_px=tile_px))


@pytest.mark.parametrize(
    "settings",
    [{"steps": 0}, {"seed": -1}, {"optimiser": "adam"}, {"learning_rate": 0}, {"momentum": 1.0}, {"tile_px": (32,)}],
    ids=str,
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(TrainingDataError, match=next(iter(settings))):
        train(build_model(SMALL, 0), [GOOD[0]], [GOOD[1]], TrainSettings(**settings))


def test_each_step_is_reported():
    steps = []
    settings = TrainSettings(steps=3, tile_px=(8, 8))
    result = train(build_model(SMALL, 0), [GOOD[0]], [GOOD[1]], settings, lambda *step: steps.append(step))
    assert steps == [*zip((1, 2, 3), result.losses, strict=True)]
