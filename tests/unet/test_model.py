"""The network is the paper's: initial weights, concatenation, dropout, shift behaviour."""

import math

import pytest
import torch
from scipy import stats
from torch import nn

from segment_slide.unet.architecture import Architecture
from segment_slide.unet.model import UNet, centre_crop

UP_CONVOLUTIONS = nn.ConvTranspose2d | nn.ConvTranspose3d
CONVOLUTIONS = nn.Conv2d | nn.Conv3d | UP_CONVOLUTIONS


def run(model, image):
    with torch.inference_mode():
        return model(image)


def random_image(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def incoming_nodes(layer):
    """N of Sec. 3: what one output value is summed over."""
    kernel = math.prod(layer.kernel_size)
    if isinstance(layer, UP_CONVOLUTIONS):
        return layer.in_channels * kernel // math.prod(layer.stride)
    return layer.in_channels * kernel


def departure_from_the_papers_weights(layer):
    """(spread, mean, shape) of a layer's weights against Gaussian(0, sqrt(2/N)), in standard errors and a p-value."""
    weights = layer.weight.detach().double().numpy().ravel()
    expected = math.sqrt(2 / incoming_nodes(layer))
    spread = (weights.std() / expected - 1) * math.sqrt(2 * weights.size)
    mean = weights.mean() / expected * math.sqrt(weights.size)
    return abs(spread), abs(mean), stats.kstest(weights[:50_000] / expected, "norm").pvalue


@pytest.mark.parametrize("ndim", [2, 3])
def test_initial_weights_are_gaussian_with_the_papers_spread_and_biases_are_zero(make_unet, ndim):
    model = make_unet(seed=1, base_channels=16, in_channels=3, n_classes=4, depth=3, ndim=ndim)
    layers = [module for module in model.modules() if isinstance(module, CONVOLUTIONS)]
    assert len(layers) == model.architecture.n_convolutions
    for layer in layers:
        spread, mean, p_value = departure_from_the_papers_weights(layer)
        assert spread < 5, layer
        assert mean < 5, layer
        assert p_value > 1e-4, layer
        assert not layer.bias.any()


def test_torchs_default_weights_would_be_noticed():
    with torch.random.fork_rng():
        torch.manual_seed(1)
        spread, _, p_value = departure_from_the_papers_weights(nn.Conv2d(64, 64, 3))
    assert spread > 50
    assert p_value < 1e-10


def test_64_channels_of_3x3_are_576_incoming_nodes_as_in_the_paper():
    assert incoming_nodes(nn.Conv2d(64, 8, 3)) == 576


def test_features_keep_their_scale_through_all_layers(make_unet):
    model = make_unet(base_channels=32, depth=3)
    image = torch.randn(1, 1, 124, 124, generator=torch.Generator().manual_seed(0))
    assert 0.1 < run(model, image).std() < 10  # default weights shrink it 100-fold


@pytest.mark.parametrize(("ndim", "depth", "size"), [(2, 1, 60), (2, 3, 132), (3, 1, 28), (3, 2, 44)])
def test_scores_have_one_channel_per_class_and_lose_the_margin(make_unet, ndim, depth, size):
    model = make_unet(in_channels=3, n_classes=5, base_channels=2, depth=depth, ndim=ndim)
    logits = run(model, random_image(2, 3, *[size] * ndim))
    assert logits.shape == (2, 5, *[size - 2 * model.architecture.geometry.margin] * ndim)
    assert logits.dtype == torch.float32


def depth_one(make_unet):
    """A network with one concatenation, and the halves of the weights that read it."""
    model = make_unet(base_channels=4, depth=1, dropout=0.0)
    weight = model.merge[0].first.weight.detach()
    return model, weight[:, :4], weight[:, 4:]


def test_the_first_half_of_the_concatenation_is_the_upsampled_map(make_unet):
    model, reads_first, reads_second = depth_one(make_unet)
    image = random_image(1, 1, 40, 40)

    def changes_with_the_upsampled_map():
        before = run(model, image)
        with torch.no_grad():
            model.up[0].bias += 1
        return not torch.equal(before, run(model, image))

    assert changes_with_the_upsampled_map()
    kept = reads_first.clone()
    reads_first.zero_()
    assert not changes_with_the_upsampled_map()
    reads_first.copy_(kept)
    reads_second.zero_()
    assert changes_with_the_upsampled_map()


def test_the_second_half_of_the_concatenation_is_the_skip(make_unet):
    model, _, reads_second = depth_one(make_unet)
    with torch.no_grad():
        model.up[0].weight.zero_()  # nothing comes from below
        dark, bright = random_image(1, 1, 40, 40), random_image(1, 1, 40, 40, seed=1)
        assert not torch.equal(run(model, dark), run(model, bright))
        reads_second.zero_()
        assert torch.equal(run(model, dark), run(model, bright))


def test_no_relu_follows_an_up_convolution(make_unet):
    model, reads_first, reads_second = depth_one(make_unet)
    with torch.no_grad():
        model.up[0].weight.zero_()
        model.up[0].bias.fill_(-1)
        reads_second.zero_()
        reads_first.zero_()
        reads_first[:, :, 1, 1] = -1  # four channels of -1, negated: 4 after the ReLU, 0 if there was a ReLU before
        merged = []
        model.merge[0].first.register_forward_hook(lambda *call: merged.append(call[2].relu()))
        run(model, random_image(1, 1, 40, 40))
    assert torch.equal(merged[0], torch.full_like(merged[0], 4.0))


def test_the_skip_is_cropped_to_its_centre():
    row = torch.arange(10.0)
    features = (row[:, None] * 100 + row).reshape(1, 1, 10, 10)
    cropped = centre_crop(features, like=torch.empty(1, 1, 4, 6))
    assert torch.equal(cropped[0, 0], features[0, 0, 3:7, 2:8])
    assert cropped.untyped_storage().data_ptr() == features.untyped_storage().data_ptr()  # a view


def test_dropout_sees_the_outputs_of_the_two_lowest_levels_and_nothing_else(make_unet):
    model = make_unet(base_channels=2, depth=3)
    outputs, dropped = [], []
    for block in model.down:
        block.register_forward_hook(lambda *call: outputs.append(call[2]))
    model.dropout.register_forward_hook(lambda *call: dropped.append(call[1][0]))
    run(model, random_image(1, 1, 100, 100))
    assert [features.data_ptr() for features in dropped] == [features.data_ptr() for features in outputs[-2:]]
    assert [features.shape[1] for features in dropped] == [8, 16]
    assert all((features >= 0).all() for features in dropped)  # after the ReLU
    assert model.dropout.p == 0.5


def test_dropout_is_active_in_training_and_only_there(make_unet):
    image = random_image(1, 1, 60, 60)
    model = make_unet(base_channels=8, depth=2)
    assert torch.equal(run(model, image), run(model, image))
    model.train()
    assert not torch.equal(run(model, image), run(model, image))
    without = make_unet(base_channels=8, depth=2, dropout=0.0).train()
    assert torch.equal(run(without, image), run(without, image))


def test_every_weight_receives_a_gradient(make_unet):
    model = make_unet(base_channels=4, depth=2, dropout=0.0).train()
    model(random_image(1, 1, 60, 60)).square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name


def test_equal_seeds_give_equal_weights(make_unet):
    def weights(seed):
        return torch.cat([p.detach().ravel() for p in make_unet(seed=seed, base_channels=2, depth=1).parameters()])

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))


def largest_difference_after_shift(model, shift):
    """Between the scores of a shifted image and the shifted scores, in standard deviations of the scores."""
    size = 2 * model.architecture.geometry.margin + 4 + 6 * model.architecture.geometry.stride
    image = random_image(1, 1, size + shift, size)
    whole = run(model, image[:, :, : size + shift - shift % model.architecture.geometry.stride])
    shifted = run(model, image[:, :, shift:])
    rows = whole.shape[2] - shift
    return float((whole[:, :, shift:] - shifted[:, :, :rows]).abs().max() / whole.std())


@pytest.mark.parametrize("depth", [2, 3])
def test_the_network_commutes_with_shifts_by_multiples_of_its_stride_and_with_no_other(make_unet, depth):
    model = make_unet(base_channels=4, depth=depth)
    stride = model.architecture.geometry.stride
    for shift in range(1, 2 * stride + 1):
        difference = largest_difference_after_shift(model, shift)
        if shift % stride == 0:
            assert difference < 1e-4, shift
        else:
            assert difference > 0.1, shift  # shifts of 4 px at depth 3 among them


def test_the_state_has_stable_names_that_checkpoints_rely_on():
    with torch.device("meta"):
        names = UNet(Architecture(depth=1)).state_dict().keys()
    layers = ["down.0.first", "down.0.second", "down.1.first", "down.1.second", "up.0", "merge.0.first"]
    layers += ["merge.0.second", "classify"]
    assert list(names) == [f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")]


def test_bfloat16_features_give_float32_scores_close_to_those_of_float32(make_unet):
    model, image = make_unet(base_channels=8, depth=2), random_image(1, 1, 76, 76)
    exact = run(model, image)
    for part in (model.down, model.up, model.merge):
        part.bfloat16()
    rounded = run(model, image.bfloat16())
    assert rounded.dtype == torch.float32
    assert 0 < (rounded - exact).abs().max() < 0.1 * exact.std()
