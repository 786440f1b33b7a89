"""The arithmetic of valid convolutions against the network itself."""

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from segment_slide.unet.errors import GeometryError
from segment_slide.unet.geometry import MAX_DEPTH, Geometry, round_up
from tests.tiers import exhaustive

ALL_DEPTHS = range(1, MAX_DEPTH + 1)


def output_size_by_running(model, shape):
    """Output shape of the real network, or None where it fails or a pooling drops a pixel.

    torch's pooling floors silently, so that "it ran" is not enough: every map that is pooled must be even.
    """
    pooled = []
    hook = model.pool.register_forward_pre_hook(lambda _, inputs: pooled.extend(inputs[0].shape[2:]))
    try:
        with torch.inference_mode():
            logits = model(torch.zeros(1, 1, *shape))
    except RuntimeError:
        return None
    finally:
        hook.remove()
    assert pooled
    return tuple(logits.shape[2:]) if all(size % 2 == 0 for size in pooled) else None


# channels change no size, so the quick tests have one
@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("base_channels", [1, exhaustive(2)])
def test_valid_sizes_are_those_where_the_real_network_drops_no_pixel_for_every_size_up_to_300(
    make_unet, depth, base_channels
):
    geometry, model = Geometry(depth), make_unet(depth=depth, base_channels=base_channels)
    across = geometry.read_size(geometry.stride)
    n_valid = 0
    for size in range(1, 301):
        output = output_size_by_running(model, (size, across))
        assert geometry.is_valid_input_size(size) == (output is not None), size
        if output is not None:
            assert geometry.output_size(size) == output[0]
            n_valid += 1
    smallest = 2 * geometry.margin + min(4, geometry.stride)
    assert n_valid == len(range(smallest, 301, geometry.stride))


@pytest.mark.parametrize("depth", [1, 2])
def test_volumes_have_the_same_valid_sizes_as_planes(make_unet, depth):
    geometry, model = Geometry(depth), make_unet(depth=depth, base_channels=1, ndim=3)
    across = geometry.read_size(geometry.stride)
    for size in range(2 * geometry.margin - 2, 2 * geometry.margin + 3 * geometry.stride):
        output = output_size_by_running(model, (size, across, across))
        assert geometry.is_valid_input_size(size) == (output is not None), size
        if output is not None:
            assert geometry.output_size(size) == output[0]


def test_the_network_runs_on_sizes_that_drop_pixels_so_running_proves_nothing(make_unet):
    model = make_unet(depth=2, base_channels=1)
    with torch.inference_mode():
        assert model(torch.zeros(1, 1, 45, 45)).shape  # 45 px is not valid at depth 2: 44 and 48 are
    assert not Geometry(2).is_valid_input_size(45)
    assert output_size_by_running(model, (45, 45)) is None


def test_the_papers_tile_of_572_px_gives_388_px():
    assert Geometry(4).is_valid_input_size(572)
    assert Geometry(4).output_size(572) == 388


@pytest.mark.parametrize(
    ("depth", "stride", "margin", "crop", "halo"),
    [(1, 2, 8, 0, 8), (2, 4, 20, 0, 20), (3, 8, 44, 2, 46), (4, 16, 92, 2, 94)],
)
def test_the_table_of_stride_margin_crop_and_halo(depth, stride, margin, crop, halo):
    geometry = Geometry(depth)
    assert (geometry.stride, geometry.margin, geometry.crop, geometry.halo) == (stride, margin, crop, halo)


@pytest.mark.parametrize("depth", ALL_DEPTHS)
def test_reading_a_tile_with_its_halo_gives_the_tile_and_the_crop_on_both_sides(depth):
    geometry = Geometry(depth)
    for tile in range(geometry.stride, 40 * geometry.stride, geometry.stride):
        assert geometry.output_size(geometry.read_size(tile)) == tile + 2 * geometry.crop


@pytest.mark.parametrize("depth", ALL_DEPTHS)
def test_the_halo_is_the_smallest_symmetric_one(depth):
    geometry = Geometry(depth)
    narrower = [halo for halo in range(geometry.halo) if geometry.is_valid_input_size(16 * geometry.stride + 2 * halo)]
    assert all(16 * geometry.stride + 2 * halo - 2 * geometry.margin < 16 * geometry.stride for halo in narrower)


def nearest_sizes(error):
    """The sizes that a message recommends."""
    return [int(size) for size in re.search(r"Nearest: (-?\d+), (-?\d+)\.", str(error.value)).groups()]


@pytest.mark.parametrize("depth", ALL_DEPTHS)
def test_the_sizes_that_an_error_recommends_are_valid_and_next_to_the_refused_one(depth):
    geometry = Geometry(depth)
    smallest = 2 * geometry.margin + min(4, geometry.stride)
    for size in range(-20, 4 * geometry.margin):
        if geometry.is_valid_input_size(size):
            continue
        with pytest.raises(GeometryError, match=f"input size={size} px") as error:
            geometry.output_size(size)
        below, above = nearest_sizes(error)
        assert geometry.is_valid_input_size(below)
        assert geometry.is_valid_input_size(above)
        assert above - below == geometry.stride
        assert below < size < above if size > smallest else below == smallest


@pytest.mark.parametrize("depth", ALL_DEPTHS)
def test_tiles_that_are_not_positive_multiples_of_the_stride_are_refused_with_the_nearest_that_are(depth):
    geometry = Geometry(depth)
    for size in range(-geometry.stride, 5 * geometry.stride):
        if size > 0 and size % geometry.stride == 0:
            geometry.check_multiple(size, "tile")
            continue
        with pytest.raises(GeometryError, match=f"^tile={size} px .* stride {geometry.stride};") as error:
            geometry.read_size(size)
        below, above = nearest_sizes(error)
        geometry.check_multiple(below, "tile")
        geometry.check_multiple(above, "tile")
        assert below < size < above if size > geometry.stride else below == geometry.stride


@pytest.mark.parametrize("depth", [-1, 0, MAX_DEPTH + 1])
def test_depths_that_no_network_has_are_refused_as_value_errors(depth):
    with pytest.raises(ValueError, match=f"depth={depth}, expected 1 to {MAX_DEPTH}"):
        Geometry(depth)


@given(value=st.integers(-(10**13), 10**13), multiple=st.integers(1, 10**7))
def test_rounding_up_gives_the_smallest_multiple_that_is_not_below(value, multiple):
    rounded = round_up(value, multiple)
    assert rounded % multiple == 0
    assert value <= rounded < value + multiple
