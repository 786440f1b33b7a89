"""Prediction by tiles is the network on the whole mirror-padded image, whatever the tiles, cores and memory."""

import copy
import hashlib
import itertools
import json
import logging
import pickle
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from scipy import ndimage

from segment_slide.unet.architecture import Architecture
from segment_slide.unet.device import resolve_device, resolve_precision
from segment_slide.unet.errors import DeviceError, GeometryError, ScoresError
from segment_slide.unet.model import UNet, whole_image_logits
from segment_slide.unet.network import InferenceSettings
from segment_slide.unet.predict import Predictor
from tests.tiers import exhaustive


@pytest.fixture(autouse=True)
def _number_of_threads_is_restored():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def random_image(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def smooth_image(*shape, seed=0):
    image = ndimage.gaussian_filter(random_image(*shape, seed=seed), (0, *[4] * (len(shape) - 1)))
    return image / image.std()


@pytest.fixture(scope="session")
def make_unet(make_unet):
    """Random networks whose classes are all chosen somewhere: else every comparison of labels is blind."""

    def build(**architecture):
        model = make_unet(**architecture)
        image = random_image(model.architecture.in_channels, *[24] * model.architecture.ndim, seed=7)
        axes = tuple(range(1, image.ndim))
        with torch.no_grad():
            model.classify.bias -= torch.from_numpy(whole_image_logits(model, image).mean(axis=axes))
        return model

    return build


def make_predictor(model, tile, **options):
    """A predictor on a copy, because it changes its network's precision and memory format in place."""
    channels = model.architecture.in_channels
    tile_px = tile if isinstance(tile, tuple) else (tile,) * model.architecture.ndim
    defaults = {"offset": [0] * channels, "scale": [1] * channels, "device": "cpu", "precision": "float32"}
    return Predictor(copy.deepcopy(model), InferenceSettings(tile_px=tile_px, **{**defaults, **options}))


def mirrored(size, before, after):
    """Source index of each position of a mirrored axis whose edge pixel is not repeated: 3 2 1 0 1 2 3."""
    period = max(2 * (size - 1), 1)
    return [min(position % period, -position % period) for position in range(-before, size + after)]


def with_halo(network, image, mirror=mirrored):
    """The image with its halo and filled up to whole strides: what a block reads."""
    for axis, locality in enumerate(network.description.axes, start=1):
        size = image.shape[axis]
        positions = mirror(size, locality.halo, locality.halo + -size % locality.stride)
        image = image.take(positions, axis)
    return image


def predict(predictor, image, probabilities=None):
    """Labels and probabilities of a whole image."""
    result = predictor.predict(with_halo(predictor, image), probabilities)
    own = tuple(slice(size) for size in image.shape[1:])
    scores = result.probabilities
    return result.labels[own], None if scores is None else scores[(slice(None), *own)]


def softmax(logits):
    exponentials = np.exp(logits.astype(np.float64) - logits.max(axis=0))
    return exponentials / exponentials.sum(axis=0)


def assert_labels_are_those_of(logits, labels):
    """Each label is the best class, or ties with it within 1e-4 of the scores' spread; ties are rare."""
    chosen = np.take_along_axis(logits, labels[None].astype(np.int64), axis=0)[0]
    assert labels.shape == logits.shape[1:]
    assert labels.dtype == np.uint8
    assert (logits.max(axis=0) - chosen <= 1e-4 * logits.std()).all()
    assert (labels != logits.argmax(axis=0)).mean() < 1e-3
    if labels.size >= 100:
        assert np.bincount(labels.ravel()).max() < 0.95 * labels.size  # else this would be blind


# --- the whole image's result, whatever the tiles


@pytest.mark.parametrize(
    ("depth", "ndim", "shape", "tile"),
    [
        (1, 2, (37, 50), (2, 50)),
        (2, 2, (70, 133), (16, 16)),
        exhaustive(2, 2, (70, 133), (64, 32)),
        (2, 2, (70, 133), (72, 136)),
        exhaustive(2, 2, (70, 133), (1024, 1024)),
        (3, 2, (70, 133), (8, 64)),
        exhaustive(3, 2, (70, 133), (64, 64)),
        exhaustive(4, 2, (70, 133), (16, 64)),
        (4, 2, (70, 133), (64, 64)),
        (1, 3, (9, 20, 31), (4, 8, 16)),
        exhaustive(2, 3, (9, 20, 31), (4, 8, 16)),
        (2, 3, (9, 20, 31), (12, 20, 32)),
    ],
)
def test_labels_and_probabilities_are_those_of_the_whole_image_for_every_tile(make_unet, depth, ndim, shape, tile):
    model = make_unet(in_channels=2, n_classes=3, base_channels=4, depth=depth, ndim=ndim)
    image = random_image(2, *shape)
    logits = whole_image_logits(model, image)
    labels, probabilities = predict(make_predictor(model, tile), image, "float32")
    assert_labels_are_those_of(logits, labels)
    np.testing.assert_allclose(probabilities, softmax(logits), rtol=0, atol=1e-4)


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (5, 700), (1, 90), (45, 47)], ids=str)
def test_images_smaller_than_the_halo_are_mirrored_as_often_as_needed(make_unet, shape):
    model = make_unet(n_classes=3, base_channels=4, depth=3)
    image = random_image(1, *shape)
    labels, _ = predict(make_predictor(model, 32), image)
    assert_labels_are_those_of(whole_image_logits(model, image), labels)


def scores_of_padded(model, image, mirror):
    """Scores of the real network on an image that was padded here, cropped to the image."""
    with torch.inference_mode():
        logits = model(torch.from_numpy(with_halo(model, image, mirror))[None])[0].numpy()
    crop = model.architecture.geometry.crop
    return logits[(slice(None), *(slice(crop, crop + size) for size in image.shape[1:]))]


def edge_repeated(size, before, after):
    """2 1 0 0 1 2: numpy's "symmetric", which dask calls "reflect"."""
    return np.pad(np.arange(size), (before, after), mode="symmetric")


@pytest.mark.parametrize("shape", [(1, 1), (5, 70), (64, 64)], ids=str)
def test_the_border_is_mirrored_without_repeating_the_edge_pixel(make_unet, shape):
    model = make_unet(base_channels=4, depth=3)
    image = random_image(1, *shape)
    expected = scores_of_padded(model, image, mirrored)
    assert np.array_equal(whole_image_logits(model, image), expected)
    if min(shape) > 1:
        assert not np.allclose(expected, scores_of_padded(model, image, edge_repeated), atol=0.1 * expected.std())


def test_the_oracle_mirrors_as_numpy_and_scipy_do():
    row = np.arange(7.0)
    assert np.array_equal(row[mirrored(7, 20, 30)], np.pad(row, (20, 30), mode="reflect"))
    expected = ndimage.map_coordinates(row, [np.arange(-20, 37)], order=0, mode="mirror")
    assert np.array_equal(row[mirrored(7, 20, 30)], expected)


def test_origins_off_the_grid_change_labels_and_origins_on_it_do_not(make_unet):
    model = make_unet(n_classes=3, base_channels=4, depth=3)
    predictor, image = make_predictor(model, 64), random_image(1, 64 + 16, 200)
    halo = predictor.description.axes[0].halo

    def share_of_changed_labels(origin):
        whole = predictor.predict(with_halo(model, image)).labels
        part = with_halo(model, image)[:, origin : origin + 64 + 2 * halo]
        return (predictor.predict(part).labels != whole[origin : origin + 64]).mean()

    assert share_of_changed_labels(8) < 1e-3
    assert share_of_changed_labels(16) < 1e-3
    assert share_of_changed_labels(4) > 0.01  # half a stride
    assert share_of_changed_labels(1) > 0.01


def test_a_halo_4_px_too_narrow_changes_labels(make_unet):
    """The narrowest halo is tight: the outermost pixels of the read box matter."""
    model = make_unet(n_classes=3, base_channels=4, depth=3)
    predictor = make_predictor(model, 32)
    read = with_halo(model, random_image(1, 32, 32))
    blind = read.copy()
    crop = model.architecture.geometry.crop
    blind[:, :crop] = 0  # what is cropped is not looked at
    assert np.array_equal(predictor.predict(blind).labels, predictor.predict(read).labels)
    probabilities = predictor.predict(read, "float32").probabilities
    blind[:, : crop + 4] = 0
    assert not np.array_equal(predictor.predict(blind, "float32").probabilities, probabilities)


# --- bit-identical, whoever computes


@pytest.fixture(scope="module")
def case(make_unet):
    """A network, an image and its result with one pass at a time."""
    model = make_unet(n_classes=3, base_channels=8, depth=2)
    image = random_image(1, 150, 170)
    return model, image, predict(make_predictor(model, 32), image, "float32")


def assert_identical(result, expected):
    assert np.array_equal(result[0], expected[0])
    assert result[1].tobytes() == expected[1].tobytes()


@pytest.mark.parametrize("concurrency", [1, 2, 3, 7])
def test_results_are_bit_identical_for_any_number_of_passes_at_a_time(case, concurrency):
    model, image, expected = case
    assert_identical(predict(make_predictor(model, 32, concurrency=concurrency), image, "float32"), expected)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_results_are_bit_identical_whatever_number_of_threads_the_caller_gave_torch(case, threads):
    model, image, expected = case
    torch.set_num_threads(threads)
    predictor = make_predictor(model, 32, concurrency=2)
    assert_identical(predict(predictor, image, "float32"), expected)
    torch.set_num_threads(3)
    assert_identical(predict(predictor, image, "float32"), expected)


def test_passes_run_on_one_core_even_if_the_caller_chooses_otherwise_before_the_first(case):
    predictor = make_predictor(case[0], 32)
    predictor._pool.submit(int).result()  # the thread exists and has not used torch
    torch.set_num_threads(3)
    assert predictor._pool.submit(torch.get_num_threads).result() == 1
    assert torch.get_num_threads() == 3  # the caller's own thread is left alone


def test_a_predictor_may_be_shared_by_threads(case):
    model, image, expected = case
    predictor = make_predictor(model, 32, concurrency=2)
    results = [None] * 4
    start = threading.Barrier(len(results))

    def work(index):
        start.wait()
        results[index] = predict(predictor, np.ascontiguousarray(np.roll(image, index, axis=1)), "float32")

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(results))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert_identical(results[0], expected)
    for index, result in enumerate(results):
        assert_identical(result, predict(predictor, np.roll(image, index, axis=1), "float32"))
    assert not np.array_equal(results[1][0], results[0][0])


# --- flips


def mean_over_flips(model, image):
    """Mean of the scores of all flips of the padded image, flipped back and cropped."""
    padded = with_halo(model, image)
    flips = [axes for n in range(image.ndim) for axes in itertools.combinations(range(1, image.ndim), n)]
    assert len(flips) == 2 ** (image.ndim - 1)
    with torch.inference_mode():
        scores = [
            np.flip(model(torch.from_numpy(np.flip(padded, axes).copy())[None])[0].numpy(), axes) for axes in flips
        ]
    crop = model.architecture.geometry.crop
    return np.mean(scores, axis=0)[(slice(None), *(slice(crop, crop + size) for size in image.shape[1:]))]


@pytest.mark.parametrize(
    ("depth", "shape", "tiles"),
    [(2, (70, 133), [16, 64]), (3, (70, 133), [16, 64]), (1, (9, 20, 31), [4, 16])],
    ids=["depth 2", "depth 3", "volume"],
)
def test_flips_average_the_whole_images_scores_for_every_tile(make_unet, depth, shape, tiles):
    model = make_unet(n_classes=3, base_channels=4, depth=depth, ndim=len(shape))
    image = random_image(1, *shape)
    expected = mean_over_flips(model, image)
    for tile in tiles:
        labels, probabilities = predict(make_predictor(model, tile, tta="flips"), image, "float32")
        assert_labels_are_those_of(expected, labels)
        np.testing.assert_allclose(probabilities, softmax(expected), rtol=0, atol=1e-4)
    assert (expected.argmax(0) != whole_image_logits(model, image).argmax(0)).mean() > 0.01


def test_with_flips_the_flipped_image_has_the_flipped_labels(make_unet):
    model = make_unet(n_classes=3, base_channels=4, depth=2)
    image = random_image(1, 64, 96)

    def share_of_changed_labels(tta):
        predictor = make_predictor(model, 32, tta=tta)
        return (np.flip(predict(predictor, np.flip(image, 2))[0], 1) != predict(predictor, image)[0]).mean()

    assert share_of_changed_labels("flips") < 1e-3
    assert share_of_changed_labels("none") > 0.01


# --- what goes in and what comes out


def test_uint8_probabilities_are_255_times_the_probability_rounded(case):
    model, image, (labels, probabilities) = case
    predictor = make_predictor(model, 32)
    again, as_bytes = predict(predictor, image, "uint8")
    assert as_bytes.dtype == np.uint8
    assert np.array_equal(as_bytes, np.round(255 * probabilities).astype(np.uint8))
    assert np.array_equal(again, labels)
    assert np.unique(as_bytes).size > 50


def test_255_classes_fit_into_the_labels(make_unet):
    model = make_unet(n_classes=255, base_channels=4, depth=1)
    image = random_image(1, 40, 60)
    labels, _ = predict(make_predictor(model, 32), image)
    assert_labels_are_those_of(whole_image_logits(model, image), labels)
    assert labels.max() > 127


def test_probabilities_are_not_made_unless_asked_for(case):
    model, image, (labels, _) = case
    result = predict(make_predictor(model, 32), image)
    assert result[1] is None
    assert np.array_equal(result[0], labels)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", ">u2", "int16", "int64", "float16", "float64", "bool"])
def test_every_real_dtype_gives_the_labels_of_its_values(make_unet, dtype):
    model = make_unet(in_channels=2, n_classes=3, base_channels=4, depth=2)
    values = np.random.default_rng(0).integers(0, 250, (2, 40, 60)).astype(dtype)
    predictor = make_predictor(model, 32, offset=[100, 20], scale=[50, 8])
    labels, probabilities = predict(predictor, values, "float32")
    normalised = (values.astype(np.float32) - np.float32([[[100]], [[20]]])) / np.float32([[[50]], [[8]]])
    logits = whole_image_logits(model, normalised)
    assert_labels_are_those_of(logits, labels)
    np.testing.assert_allclose(probabilities, softmax(logits), rtol=0, atol=1e-4)


def test_negative_and_large_intensities_are_not_wrapped(make_unet):
    model = make_unet(n_classes=3, base_channels=4, depth=2)
    values = np.random.default_rng(0).integers(-30_000, 30_000, (1, 40, 60)).astype(np.int16)
    predictor = make_predictor(model, 32, offset=[0], scale=[10_000])
    labels, _ = predict(predictor, values)
    assert_labels_are_those_of(whole_image_logits(model, values.astype(np.float32) / 10_000), labels)
    assert not np.array_equal(labels, predict(predictor, values.astype(np.uint16))[0])


def test_views_with_strides_and_read_only_arrays_are_read_as_they_are(case):
    model, image, expected = case
    predictor = make_predictor(model, 32)
    read = with_halo(model, image)
    reversed_view = read[:, ::-1, ::-1].copy()[:, ::-1, ::-1]
    reversed_view.flags.writeable = False
    before = reversed_view.tobytes()
    labels = predictor.predict(reversed_view).labels
    assert np.array_equal(labels[:150, :170], expected[0])
    assert reversed_view.tobytes() == before


def test_bfloat16_agrees_with_float32_on_99_percent_of_a_smooth_image(make_unet):
    model = make_unet(base_channels=16, depth=3)
    image = smooth_image(1, 150, 170)
    exact, scores = predict(make_predictor(model, 64), image, "float32")
    rounded, rounded_scores = predict(make_predictor(model, 64, precision="bfloat16"), image, "float32")
    assert (rounded == exact).mean() >= 0.99
    assert 0.05 < (exact == 0).mean() < 0.95
    assert 0 < np.abs(scores - rounded_scores).max() < 0.1


def test_in_bfloat16_the_last_convolution_keeps_its_float32_weights(make_unet):
    model = make_unet(base_channels=4, depth=2)
    predictor = make_predictor(model, 32, precision="bfloat16")
    assert torch.equal(predictor._network.model.classify.weight, model.classify.weight)
    assert predictor._network.model.down[0].first.weight.dtype == torch.bfloat16


# --- out of memory


class LimitedUNet:
    """Stands before a network's forward and fails for tiles that read more than `limit_px` pixels."""

    def __init__(self, model, limit_px, error):
        self.limit_px, self.error, self.read_px = limit_px, error, []
        self.forward, model.forward = model.forward, self

    def __call__(self, image):
        self.read_px.append(image[0, 0].numel())
        if self.read_px[-1] > self.limit_px:
            raise self.error
        return self.forward(image)


OUT_OF_MEMORY = [
    MemoryError(),
    torch.OutOfMemoryError("what CUDA raises"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("could not create a primitive"),
    RuntimeError("std::bad_alloc"),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: type(error).__name__ + str(error)[-20:])
@pytest.mark.parametrize("concurrency", [1, 2])
def test_tiles_are_halved_until_they_fit_and_the_labels_stay(make_unet, caplog, error, concurrency):
    model = make_unet(n_classes=3, base_channels=4, depth=2)
    image = random_image(1, 120, 200)
    predictor = make_predictor(model, (128, 96), concurrency=concurrency)
    limited = LimitedUNet(predictor._network.model, (32 + 40) ** 2, error)
    labels, probabilities = predict(predictor, image, "float32")
    logits = whole_image_logits(model, image)
    assert_labels_are_those_of(logits, labels)
    np.testing.assert_allclose(probabilities, softmax(logits), rtol=0, atol=1e-4)
    assert max(limited.read_px) > limited.limit_px > min(limited.read_px)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]  # once, not per tile
    assert "out of memory on cpu with tile (128, 96)" in caplog.text


def test_a_volume_is_halved_along_its_longest_axis(make_unet):
    model = make_unet(base_channels=2, depth=1, ndim=3)
    image = random_image(1, 6, 20, 30)
    predictor = make_predictor(model, (6, 20, 30))
    limited = LimitedUNet(predictor._network.model, 22 * 36 * 32, MemoryError())
    assert_labels_are_those_of(whole_image_logits(model, image), predict(predictor, image)[0])
    assert limited.read_px[:2] == [22 * 36 * 46, 22 * 36 * 30]  # 30 px in halves of 14 and 16


def test_lack_of_memory_for_the_smallest_tile_is_raised(make_unet):
    predictor = make_predictor(make_unet(base_channels=2, depth=2), 64)
    limited = LimitedUNet(predictor._network.model, 0, MemoryError("no memory at all"))
    with pytest.raises(MemoryError, match="no memory at all"):
        predict(predictor, random_image(1, 60, 60))
    assert min(limited.read_px) == (4 + 40) ** 2


# --- scores that are no numbers


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("tta", ["none", "flips"])
def test_weights_that_give_nan_or_infinity_are_an_error_and_not_background(make_unet, wrong, tta):
    model = copy.deepcopy(make_unet(base_channels=2, depth=1))
    with torch.no_grad():
        model.classify.bias[1] = wrong
    with pytest.raises(
        ScoresError, match="NaN or infinite in 400 of 400 pixels.*the weights are the likely cause"
    ) as e:
        predict(make_predictor(model, 20, tta=tta), random_image(1, 20, 20))
    assert not e.value.is_of_input
    assert not pickle.loads(pickle.dumps(e.value)).is_of_input


def test_intensities_that_overflow_are_an_error_that_names_them(make_unet):
    image = random_image(1, 60, 60)
    image[0, 20:40, 20:40] = 3e38
    with pytest.raises(ScoresError, match=r"goes from -3.* to 3e\+38 after normalisation.*the image or the const") as e:
        predict(make_predictor(make_unet(base_channels=2, depth=1), 20), image)
    assert e.value.is_of_input
    assert pickle.loads(pickle.dumps(e.value)).is_of_input


def test_finite_scores_whose_sum_overflows_are_used(make_unet):
    """The quick check is a sum; it must not refuse what is finite."""
    model = copy.deepcopy(make_unet(base_channels=2, depth=1))
    with torch.no_grad():
        model.classify.bias += 1e38
        model.classify.bias[1] *= 2
    labels, _ = predict(make_predictor(model, 20), random_image(1, 20, 20))
    assert (labels == 1).all()


def test_errors_that_are_not_about_memory_are_raised_at_once(make_unet):
    predictor = make_predictor(make_unet(base_channels=2, depth=2), 64)
    limited = LimitedUNet(predictor._network.model, 0, RuntimeError("expected scalar type Float but found Half"))
    with pytest.raises(RuntimeError, match="expected scalar type"):
        predict(predictor, random_image(1, 60, 60))
    assert len(limited.read_px) == 1


# Compared with the same in this process: oneDNN may remember a layer that it had no memory to prepare.
LIMIT_ADDRESS_SPACE = """
import hashlib, json, logging, resource, sys
from pathlib import Path
import numpy as np, torch
from segment_slide.unet.architecture import Architecture
from segment_slide.unet.model import UNet
from segment_slide.unet.network import InferenceSettings
from segment_slide.unet.predict import Predictor

warnings = []
handler = logging.Handler()
handler.emit = lambda record: warnings.append(record.getMessage())
logging.getLogger("segment_slide.unet.predict").addHandler(handler)

torch.manual_seed(0)
model = UNet(Architecture(n_classes=3, base_channels=8, depth=2))
settings = InferenceSettings((0.0,), (1.0,), (1024, 1024), device="cpu", precision="float32")
predictor = Predictor(model, settings)
image = np.random.default_rng(0).standard_normal((1, 1064, 1064)).astype(np.float32)
predictor.predict(image[:, :168, :168])  # libraries load, the pool starts
pages = int(Path("/proc/self/statm").read_text().split()[0])
free = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + int(sys.argv[1]), free[1]))
labels = predictor.predict(image).labels
print(json.dumps([hashlib.sha256(labels).hexdigest(), len(warnings)]))
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits the address space")
def test_when_the_operating_system_refuses_memory_the_labels_are_those_of_enough_memory(caplog):
    limit = str(120 << 20)  # a tile of 1024 needs 200 MB, one of 512 needs 60 MB
    run = subprocess.run(
        [sys.executable, "-c", LIMIT_ADDRESS_SPACE, limit], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    limited, n_warnings = json.loads(run.stdout)
    image = np.random.default_rng(0).standard_normal((1, 1064, 1064)).astype(np.float32)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = UNet(Architecture(n_classes=3, base_channels=8, depth=2))
    labels = make_predictor(model, 1024).predict(image).labels
    assert limited == hashlib.sha256(labels).hexdigest()
    assert len(np.unique(labels)) == 3, "several classes: equal labels say something"
    assert (n_warnings, caplog.records) == (1, []), "the limit was felt, and only there"


# --- what is refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tile_px": (60, 64)}, "tile=60 px is not a positive multiple of the network's stride 8"),
        ({"tile_px": (64,)}, "expected 2 sizes"),
        ({"tile_px": (64, 64, 64)}, "expected 2 sizes"),
        ({"tile_px": (0, 64)}, "tile=0 px"),
        ({"tta": "rotations"}, "tta='rotations', expected one of"),
        ({"offset": [1]}, "expected 2 values each"),
        ({"scale": [1, 2, 3]}, "expected 2 values each"),
    ],
    ids=str,
)
def test_predictors_that_cannot_work_are_refused(make_unet, options, message):
    settings = {"offset": [0, 0], "scale": [1, 1], "tile_px": (64, 64), "device": "cpu", "precision": "float32"}
    with pytest.raises(GeometryError, match=message):
        Predictor(make_unet(in_channels=2, base_channels=2, depth=3), InferenceSettings(**{**settings, **options}))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((156, 156), r"image shape=\(156, 156\), expected \(1, ...\) and 2 spatial axes"),
        ((2, 156, 156), r"image shape=\(2, 156, 156\), expected \(1, ...\)"),
        ((1, 1, 156, 156), "and 2 spatial axes"),
        ((1, 157, 156), "inner part of the array=65 px is not a positive multiple"),
        ((1, 156, 90), "inner part of the array=-2 px is not a positive multiple"),
        ((1, 156, 92), "inner part of the array=0 px is not a positive multiple"),
    ],
    ids=str,
)
def test_arrays_that_are_not_on_the_grid_are_refused(make_unet, shape, message):
    predictor = make_predictor(make_unet(base_channels=2, depth=3), 64)
    with pytest.raises(GeometryError, match=message):
        predictor.predict(np.zeros(shape, np.float32))


@pytest.mark.parametrize("dtype", ["int8", "float64", "yes"])
def test_probabilities_of_another_dtype_are_refused(make_unet, dtype):
    predictor = make_predictor(make_unet(base_channels=2, depth=3), 64)
    with pytest.raises(ValueError, match=f"probabilities='{dtype}', expected None, 'uint8' or 'float32'"):
        predictor.predict(np.zeros((1, 156, 156), np.float32), dtype)


@pytest.mark.parametrize("device", ["mps", "meta", "gpu", "cuda:1", ""])
def test_devices_that_are_neither_cpu_nor_cuda_are_refused(device):
    with pytest.raises(DeviceError, match=f"device='{device}': expected 'auto', 'cpu' or 'cuda'"):
        resolve_device(device)


def test_asking_for_a_gpu_where_there_is_none_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match="torch sees no CUDA GPU on this machine"):
        resolve_device("cuda")
    assert resolve_device("auto") == torch.device("cpu")


def test_precisions_are_resolved_to_one_that_the_device_has(monkeypatch):
    cpu = torch.device("cpu")
    assert resolve_precision("auto", cpu) in ("float32", "bfloat16")
    assert resolve_precision("bfloat16", cpu) == "bfloat16"
    for has, expected in ((True, "bfloat16"), (False, "float32")):  # a GPU of 2018 emulates it, and is slower for it
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True, has=has: has)
        assert resolve_precision("auto", torch.device("cuda")) == expected
    with pytest.raises(DeviceError, match="precision='float16', expected one of"):
        resolve_precision("float16", cpu)
