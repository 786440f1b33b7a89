"""Locality is measured: where its numbers are known, against the whole image, and refused where there is none."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from segment_slide.unet.architecture import Architecture
from segment_slide.unet.errors import NotLocalError
from segment_slide.unet.geometry import Geometry
from segment_slide.unet.locality.measure import check, measure
from segment_slide.unet.locality.probe import Probe
from segment_slide.unet.locality.record import AxisLocality
from segment_slide.unet.locality.tiles import run_tiled, run_whole
from segment_slide.unet.model import UNet
from tests.unet.locality.networks import (
    AlignedCorners,
    Attention,
    GlobalPooling,
    HalfSize,
    HiddenBranch,
    PaddedUNet,
    PadsInside,
    Positions,
    Strides,
    With,
    as_function,
    block,
)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def our_network(ndim: int, depth: int) -> UNet:
    return UNet(Architecture(base_channels=2, depth=depth, ndim=ndim))


# -- numbers that are known --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ndim", "depth"),
    [(2, 1), (2, 2), (2, 3), (2, 4), (3, 1), pytest.param(3, 2, marks=pytest.mark.slow)],
)
def test_our_own_network_has_the_integers_of_the_geometry(ndim, depth):
    dtype = torch.float64 if ndim == 2 else torch.float32  # volumes in float64 take minutes
    found = measure(as_function(our_network(ndim, depth), dtype=dtype), 1, ndim, dtype=str(dtype).split(".")[1])
    geometry = Geometry(depth)
    assert {(axis.stride, axis.halo) for axis in found.axes} == {(geometry.stride, geometry.halo)}
    assert {(axis.reach, axis.crop, axis.scale) for axis in found.axes} == {(geometry.margin, geometry.margin, (1, 1))}
    assert all(geometry.is_valid_input_size(axis.smallest) for axis in found.axes)
    assert found.is_bit_equal or ndim == 3


LOCAL = {
    "convolution": (lambda: nn.Conv2d(1, 2, 3, padding=1), [(1, 1, 1, 1)] * 2),
    "dilated": (lambda: nn.Conv2d(1, 2, 3, padding=5, dilation=5), [(1, 5, 5, 5)] * 2),
    "padded, depth 1": (lambda: PaddedUNet(depth=1), None),
    "padded, depth 2, bilinear": (lambda: PaddedUNet(how="bilinear"), None),
    "batch normalisation": (lambda: block(2, 1, 3), [(1, 2, 2, 2)] * 2),
    "another stride on each axis": (Strides, None),
    "hidden branch": (HiddenBranch, None),
    "half the size": (HalfSize, None),
}
STRIDES = {
    "padded, depth 1": (2, 2),
    "padded, depth 2, bilinear": (4, 4),
    "another stride on each axis": (2, 3),
    "hidden branch": (8, 8),
    "half the size": (4, 4),
}


@pytest.mark.parametrize("name", LOCAL)
def test_tiles_of_any_size_give_the_whole_images_result_exactly(name):
    make, numbers = LOCAL[name]
    function = as_function(make())
    found = measure(function, 1, 2, dtype=np.float64)
    if numbers:
        assert [(axis.stride, axis.before, axis.after, axis.halo) for axis in found.axes] == numbers
    else:
        assert tuple(axis.stride for axis in found.axes) == STRIDES[name]
    chance = np.random.default_rng(1)
    for _ in range(4):
        sizes = chance.integers(3, 90, 2)
        tile = [axis.step * int(chance.integers(1, 5)) for axis in found.axes]
        image = chance.standard_normal((1, *np.maximum(sizes, [axis.halo + 1 for axis in found.axes])))
        tiled, whole = (run(function, image, found.axes, *more) for run, *more in ((run_tiled, tile), (run_whole,)))
        # torch's interpolation rounds the last bit by where a pixel lies in a vector of the processor
        np.testing.assert_allclose(tiled, whole, rtol=0, atol=0 if found.is_bit_equal else 1e-12)


def test_another_size_of_the_output_is_measured():
    found = measure(as_function(HalfSize()), 1, 2, dtype=np.float64)
    assert [axis.scale for axis in found.axes] == [(1, 2)] * 2
    whole = run_whole(as_function(HalfSize()), np.zeros((1, 61, 64)), found.axes)
    assert whole.shape == (4, 31, 32)


@pytest.mark.slow
def test_a_volume_is_measured_axis_by_axis():
    found = measure(as_function(PaddedUNet(3, 1), dtype=torch.float32), 1, 3)
    assert [(axis.stride, axis.step, axis.halo) for axis in found.axes] == [(2, 2, found.axes[0].halo)] * 3


def test_a_network_that_pads_inside_gets_steps_that_leave_its_grid_where_it_is():
    function = as_function(PadsInside())
    found = measure(function, 1, 2, dtype=np.float64)
    assert [(axis.stride, axis.step) for axis in found.axes] == [(8, 8)] * 2
    image = np.random.default_rng(0).standard_normal((1, 101, 77))
    np.testing.assert_array_equal(
        run_tiled(function, image, found.axes, (24, 40)), run_whole(function, image, found.axes)
    )


def test_weights_that_are_zero_do_not_hide_the_context():
    """A training may leave dead units: the answer must hold for the structure."""
    network = nn.Sequential(nn.Conv2d(1, 1, 5, padding=2), nn.ReLU(), nn.Conv2d(1, 1, 3, padding=1))
    function = as_function(network)
    with torch.no_grad():
        network[0].weight[..., 0] = 0
        network[0].bias.fill_(-1e6)  # no unit fires
    assert [axis.reach for axis in measure(function, 1, 2, dtype=np.float64).axes] == [3, 3]


def test_random_fillings_catch_what_swallows_nan():
    network = as_function(nn.Conv2d(1, 1, 7, padding=3))
    found = measure(lambda image: np.nan_to_num(network(np.nan_to_num(image))), 1, 2, dtype=np.float64)
    assert [axis.reach for axis in found.axes] == [3, 3]


def test_a_branch_that_hardly_counts_after_a_training_is_found_with_random_weights():
    trained, random = HiddenBranch(), as_function(HiddenBranch())
    function = as_function(trained)
    with torch.no_grad():
        trained.pooled[1].weight.mul_(1e-18)
    assert measure(function, 1, 2, dtype=np.float64, randomised=random).axes[0].stride == 8
    alone = measure(function, 1, 2, dtype=np.float64)  # the control
    assert alone.axes[0].stride < 8


# -- what is not local -------------------------------------------------------------------------------------------------


class Labels(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = PaddedUNet(depth=1)

    def forward(self, image):
        return self.body(image).argmax(1, keepdim=True)


class Two(nn.Module):
    def forward(self, image):
        return image, image


class FixedOutput(nn.Module):
    def forward(self, image):
        return nn.functional.adaptive_avg_pool2d(image, 32)


class OneSize(nn.Module):
    def forward(self, image):
        if image.shape[2:] != (64, 64):
            raise RuntimeError("expected 64 x 64")
        return image


class Dropout(nn.Module):
    def forward(self, image):
        return nn.functional.dropout(image, 0.5, training=True)


class TrainingMode(nn.Module):
    def forward(self, image):
        return nn.functional.batch_norm(image, None, None, training=True)


REFUSED = {
    "instance normalisation": (lambda: With(nn.InstanceNorm2d(3)), "depends on the whole image"),
    "group normalisation": (lambda: With(nn.GroupNorm(1, 3)), "depends on the whole image"),
    "global pooling": (lambda: With(GlobalPooling()), "depends on the whole image"),
    "attention": (lambda: With(Attention()), "depends on the whole image"),
    "batch normalisation in training mode": (TrainingMode, "depends on the whole image"),
    "positions": (lambda: With(Positions()), "no shift up to 128 px along axis 0 leaves its result as it is"),
    "align_corners": (lambda: With(AlignedCorners()), "no shift up to .* leaves its result as it is"),
    "dropout": (Dropout, "two passes over the same image differ"),
    "labels": (Labels, "its output is int64. .* give scores"),
    "two outputs": (Two, "its output is tuple, expected one array"),
    "one size of the output": (FixedOutput, "its output has 32 px whatever the input's size"),
    "one size of the input": (OneSize, "it takes one input size only .*expected 64 x 64"),
}


def as_raw_function(network):
    def run(image):
        answer = network(torch.from_numpy(image))
        return answer.numpy() if isinstance(answer, torch.Tensor) else answer

    return torch.inference_mode()(run)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name == "attention")) for name in REFUSED]
)
def test_what_no_tile_can_reproduce_is_refused_with_its_cause(name):
    make, sentence = REFUSED[name]
    function = as_raw_function(make().double().eval())
    with pytest.raises(NotLocalError, match=sentence):
        measure(function, 1, 2, dtype=np.float64)


@pytest.mark.slow
def test_memory_is_bounded_for_what_grows_with_the_square_of_the_image():
    lengths = []
    network = as_raw_function(With(Attention()).double().eval())

    def run(image):
        lengths.append(image.shape[2] * image.shape[3])
        return network(image)

    with pytest.raises(NotLocalError):
        measure(run, 1, 2, dtype=np.float64)
    assert max(lengths) <= 32 * 4096


# -- the self-test would notice ----------------------------------------------------------------------------------------


def spoil(found, **changes):
    axes = tuple(dataclasses.replace(axis, **{k: f(axis) for k, f in changes.items()}) for axis in found.axes)
    return dataclasses.replace(found, axes=axes)


@pytest.mark.parametrize(
    "changes",
    [
        {"halo": lambda axis: axis.halo - axis.step},
        {"halo": lambda axis: axis.halo + axis.step // 2},  # the grid lies elsewhere, for the tiles' far ends too
        {"step": lambda axis: axis.step // 2, "stride": lambda axis: axis.stride // 2},
    ],
    ids=["halo one step smaller", "grid off by half a step", "step too small"],
)
def test_the_self_test_fails_if_a_number_is_wrong(changes):
    function = as_function(PaddedUNet(depth=3))
    found = measure(function, 1, 2, dtype=np.float64)
    probe = Probe(function, 1, 2, dtype=np.float64)
    assert check(probe, found, (32, 32))
    wrong = spoil(found, **changes)
    if "step" not in changes and changes["halo"](found.axes[0]) > found.axes[0].halo:
        image = probe.noise((150, 150))[0]
        right = run_whole(function, image, found.axes)
        assert np.abs(run_tiled(function, image, wrong.axes, (48, 48)) - right).max() > 1e-3
        return
    with pytest.raises(NotLocalError, match="another result than the whole image|cannot be run"):
        check(probe, wrong, (32, 32))


def test_normalising_each_tile_by_itself_would_be_noticed():
    function = as_function(PaddedUNet(depth=1))
    found = measure(function, 1, 2, dtype=np.float64)

    def by_itself(image):
        return function((image - image.mean()) / image.std())

    with pytest.raises(NotLocalError):
        check(Probe(by_itself, 1, 2, dtype=np.float64), found, (32, 32))


def test_the_smallest_tile_reads_a_size_that_runs():
    """The invariant of a record: tiles of whole steps, read with the halo, have sizes that run."""
    for make, ndim in ((lambda: our_network(2, 2), 2), (lambda: PaddedUNet(depth=2), 2), (HalfSize, 2)):
        function = as_function(make(), dtype=torch.float32)
        axis: AxisLocality = measure(function, 1, ndim).axes[0]
        for count in (1, 2, 5):
            size = count * axis.step + 2 * axis.halo
            assert (size - axis.smallest) % axis.step == 0
            answer = function(np.zeros((1, 1, size, size), np.float32))
            kept = axis.kept(count * axis.step)
            assert 0 <= kept.start < kept.stop <= answer.shape[2]
            assert kept.stop - kept.start == count * axis.step * axis.ratio
