"""Blocks that are skipped, against the full-resolution truth of slides drawn for it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from scipy.ndimage import binary_dilation

from segment_slide.pipeline.blocks.grid import BlockGrid, Index
from segment_slide.pipeline.errors import InputError
from segment_slide.pipeline.segmentation import background
from segment_slide.pipeline.segmentation.background import background_blocks, coarse_source, tissue_mask
from segment_slide.pipeline.storage.image import describe_image
from segment_slide.pipeline.storage.ome import Level, Multiscale, multiscale_attributes
from segment_slide.pipeline.storage.pyramid import Method, downsample
from segment_slide.pipeline.storage.source import ImageSource, select_source
from segment_slide.unet.geometry import Geometry
from tests.tiers import exhaustive

HEIGHT, WIDTH = 1030, 1555  # odd, so that levels are not exact halves
BLOCK = 128


@pytest.fixture(autouse=True)
def small_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "MASK_PX", 150)


# --- slides ----------------------------------------------------------------------------------------------------


def tissue(seed: int, n_pieces: int = 3, size: tuple[int, int] = (HEIGHT, WIDTH)) -> np.ndarray:
    """Where there is tissue: a few ellipses, from specks of 20 px to a third of the slide."""
    rng = np.random.default_rng(seed)
    y, x = np.ogrid[: size[0], : size[1]]
    found = np.zeros(size, bool)
    for radius in rng.uniform((10, 40, 150), (20, 80, 250)).tolist()[:n_pieces]:
        centre = rng.uniform(0, size)
        found |= ((y - centre[0]) / radius) ** 2 + ((x - centre[1]) / radius / rng.uniform(0.6, 1.6)) ** 2 < 1
    return found


def h_and_e(where: np.ndarray, seed: int) -> np.ndarray:
    """Bright glass, pink stroma, violet nuclei, noise everywhere; (c, y, x) uint8."""
    rng = np.random.default_rng(seed)
    colours = np.array([[243, 241, 242], [224, 160, 196], [120, 80, 150]], np.float32)
    nuclei = where & (rng.random(where.shape) < 0.2)
    image = colours[where.astype(int) + nuclei] + rng.normal(0, 3, (*where.shape, 3))
    return np.moveaxis(image.clip(0, 255), -1, 0).astype(np.uint8)


def fluorescence(where: np.ndarray, seed: int) -> np.ndarray:
    """Dark background with camera noise, cells of different brightness; (c, y, x) uint16."""
    rng = np.random.default_rng(seed)
    cells = where * rng.uniform(300, 4000, where.shape)
    noise = rng.normal(100, 5, (2, *where.shape))
    noise[0] += cells  # the other channel shows nothing
    return noise.astype(np.uint16)


def store_pyramid(
    folder: Path, pixels: np.ndarray, axes: str, *, n_levels: int, halved: str = "yx", method: Method = "local_mean"
) -> Path:
    ones = tuple(Level(str(level), (1.0,) * len(axes), (0.0,) * len(axes)) for level in range(n_levels))
    attributes = multiscale_attributes(Multiscale(axes, (None,) * len(axes), ones))
    group = zarr.create_group(folder, attributes={"ome": attributes})
    for level in range(n_levels):
        group.create_array(str(level), data=pixels, chunks=pixels.shape)
        pixels = downsample(pixels, tuple(axes.index(axis) for axis in halved), method)
    return folder


def source_of(folder: Path, n_spatial: int = 2, **chosen: Any) -> ImageSource:
    image = describe_image(folder, axes=chosen.pop("axes", None), level=chosen.pop("level", 0))
    return select_source(image, n_spatial=n_spatial, n_channels=image.size("c"), **chosen)


def grid_of(source: ImageSource, block: int = BLOCK) -> BlockGrid:
    planes = len(source.plane_axes)
    return BlockGrid(source.shape, (1,) * planes + (block,) * source.n_spatial, Geometry(1), source.n_spatial)


def blocks_without(truth: np.ndarray, grid: BlockGrid) -> set[Index]:
    """Blocks whose own pixels are all False, counted at full resolution."""
    return {index for index in grid.indices() if not truth[grid.write_box(index)].any()}


# --- against the truth -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["local_mean", "nearest"])
@pytest.mark.parametrize("draw", [h_and_e, fluorescence])
@pytest.mark.parametrize("seed", [0, *map(exhaustive, range(1, 4))])
def test_blocks_with_tissue_are_never_skipped_and_those_far_from_it_always(
    tmp_path: Path, draw: Any, method: Method, seed: int
) -> None:
    truth = tissue(seed)
    source = source_of(store_pyramid(tmp_path / "slide", draw(truth, seed), "cyx", n_levels=4, method=method))
    assert coarse_source(source).shape == (129, 195)  # 8 px of the slide in one of the mask
    grid = grid_of(source)
    skipped = set(background_blocks(source, grid))
    assert skipped <= blocks_without(truth, grid)
    near = binary_dilation(truth, iterations=8 * (background._GROW_PX + 2))
    assert skipped >= blocks_without(near, grid)
    assert 0 < len(skipped) < grid.n_blocks


def test_a_mask_that_is_not_grown_skips_blocks_with_tissue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "tissue_mask", lambda pixels: pixels[0] < 200)
    lost = 0
    for seed in range(2):
        truth = tissue(seed)
        source = source_of(store_pyramid(tmp_path / f"{seed}", h_and_e(truth, seed), "cyx", n_levels=4))
        grid = grid_of(source, block=32)
        lost += len(set(background_blocks(source, grid)) - blocks_without(truth, grid))
    assert lost > 0


@pytest.mark.parametrize("value", [0, 200, 255])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_of_an_image_of_one_value_nothing_is_skipped(tmp_path: Path, value: int, dtype: str) -> None:
    source = source_of(store_pyramid(tmp_path / "flat", np.full((3, 300, 400), value, dtype), "cyx", n_levels=2))
    assert background_blocks(source, grid_of(source)) == []


def test_glass_beyond_the_tissue_is_skipped_in_raster_order(tmp_path: Path) -> None:
    truth = np.zeros((HEIGHT, WIDTH), bool)
    truth[:100, :100] = True
    source = source_of(store_pyramid(tmp_path / "slide", h_and_e(truth, 0), "cyx", n_levels=4))
    grid = grid_of(source)
    expected = [index for index in grid.indices() if index != (0, 0)]
    assert background_blocks(source, grid) == expected


# --- planes and volumes ----------------------------------------------------------------------------------------


def test_each_chosen_plane_has_a_mask_of_its_own(tmp_path: Path) -> None:
    size = (300, 400)
    truth = np.stack([tissue(seed, n_pieces=2, size=size) for seed in range(4)])
    pixels = np.stack([fluorescence(where, 7)[0] for where in truth])
    folder = store_pyramid(tmp_path / "stack", pixels, "zyx", n_levels=2)
    source = source_of(folder, ranges={"z": (1, 4)})
    grid = grid_of(source, block=64)
    skipped = set(background_blocks(source, grid))
    assert skipped <= blocks_without(truth[1:], grid)
    assert {index[0] for index in skipped} == {0, 1, 2}
    assert not skipped <= blocks_without(truth[:3], grid)  # the planes beside them are other ones


def test_a_level_that_halves_the_planes_is_not_looked_at(tmp_path: Path) -> None:
    size = (300, 400)
    truth = np.stack([tissue(seed, n_pieces=2, size=size) for seed in range(5)])
    pixels = np.stack([fluorescence(where, 7)[0] for where in truth])
    folder = store_pyramid(tmp_path / "stack", pixels, "zyx", n_levels=2, halved="zyx")
    source = source_of(folder)
    assert coarse_source(source) == source
    grid = grid_of(source, block=64)
    skipped = set(background_blocks(source, grid))
    assert len(skipped) > 0
    assert skipped <= blocks_without(truth, grid)


@pytest.mark.parametrize("contrast", ["dark on bright", "bright on dark"])
def test_a_volume_is_skipped_only_where_all_its_planes_are_background(tmp_path: Path, contrast: str) -> None:
    rng = np.random.default_rng(3)
    truth = np.zeros((12, 300, 400), bool)
    truth[7, 20:60, 300:380] = True
    truth[2:5, 200:280, 10:90] = True
    pixels = np.where(truth, 60, 220) if contrast == "dark on bright" else np.where(truth, 220, 30)
    pixels = (pixels + rng.normal(0, 4, truth.shape)).clip(0, 255).astype(np.uint8)
    folder = store_pyramid(tmp_path / "volume", pixels, "zyx", n_levels=2, halved="zyx")
    source = source_of(folder, n_spatial=3)
    assert coarse_source(source).shape == (6, 150, 200)
    grid = grid_of(source, block=64)
    skipped = set(background_blocks(source, grid))
    assert skipped <= blocks_without(truth, grid)
    assert len(skipped) > grid.n_blocks / 2


def test_the_brightest_plane_of_a_volume_would_hide_dark_tissue() -> None:
    volume = np.full((1, 5, 40, 40), 220, np.uint8)
    volume[0, 2, 10:20, 10:20] = 60
    assert tissue_mask(volume)[15, 15]
    assert not tissue_mask(volume)[30, 30]
    assert (volume.max(axis=1) == 220).all()


# --- masks over blocks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mask_shape", [(25, 40), (26, 41), (100, 160), (33, 53), (13, 20), (1, 1), (7, 160)])
@pytest.mark.parametrize("block", [8, 30, 64])
def test_a_block_is_kept_exactly_when_a_mask_pixel_that_overlaps_it_is_tissue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mask_shape: tuple[int, int], block: int
) -> None:
    shape = (100, 160)
    source = source_of(store_pyramid(tmp_path / "slide", np.zeros(shape, np.uint8), "yx", n_levels=1))
    grid = grid_of(source, block)
    rng = np.random.default_rng(0)
    for density in (0.0, 0.01, 0.1, 1.0):
        mask = rng.random(mask_shape) < density
        monkeypatch.setattr(background, "tissue_mask", lambda pixels, mask=mask: mask)
        # the mask stretched over the slide, 1/10 px at a time, so that every overlap is seen
        rows, columns = ((np.arange(10 * n) * m) // (10 * n) for n, m in zip(shape, mask_shape, strict=True))
        fine = mask[np.ix_(rows, columns)]
        expected = []
        for index in grid.indices():
            y, x = (slice(10 * s.start, 10 * s.stop) for s in grid.write_box(index))
            if not fine[y, x].any():
                expected.append(index)
        assert background_blocks(source, grid) == expected


# --- which level -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mask_px", "level", "side"), [(2000, 0, 1200), (1200, 0, 1200), (600, 0, 600), (601, 0, 1200), (150, 0, 150),
                                   (1, 0, 75), (300, 2, 300), (400, 2, 300)],
)  # fmt: skip
def test_the_coarsest_level_that_is_large_enough_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mask_px: int, level: int, side: int
) -> None:
    monkeypatch.setattr(background, "MASK_PX", mask_px)
    folder = store_pyramid(tmp_path / "slide", np.zeros((3, 500, 1200), np.uint8), "cyx", n_levels=5)
    source = source_of(folder, level=level)
    assert coarse_source(source).shape[-1] == side
    assert coarse_source(source).channels == source.channels


def test_an_image_without_a_pyramid_is_looked_at_itself(tmp_path: Path) -> None:
    truth = tissue(1)
    zarr.create_array(str(tmp_path / "bare"), data=fluorescence(truth, 1), chunks=(1, 500, 500))
    source = source_of(tmp_path / "bare", axes="cyx")
    grid = grid_of(source)
    assert coarse_source(source) is source
    skipped = set(background_blocks(source, grid))
    assert len(skipped) > 0
    assert skipped <= blocks_without(truth, grid)


@pytest.mark.parametrize(("shape", "axes", "n_spatial"), [((3, 20000, 20000), "cyx", 2), ((500, 2000, 2000), "zyx", 3)])
def test_a_large_image_without_a_pyramid_is_refused_before_it_is_read(
    tmp_path: Path, shape: tuple[int, ...], axes: str, n_spatial: int
) -> None:
    zarr.create_array(str(tmp_path / "bare"), shape=shape, dtype="uint8", chunks=(1, 1000, 1000))
    source = source_of(tmp_path / "bare", n_spatial, axes=axes)
    with pytest.raises(InputError, match=r"needs a low-resolution level .* 2000, 2000|20000, 20000.*make a pyramid"):
        background_blocks(source, grid_of(source, 1000))


# --- the mask itself -------------------------------------------------------------------------------------------


def test_a_mask_is_the_tissue_and_two_pixels_around_it() -> None:
    truth = np.zeros((60, 80), bool)
    truth[20:40, 30:50] = True
    np.testing.assert_array_equal(tissue_mask(h_and_e(truth, 0)), binary_dilation(truth, iterations=2))
    assert tissue_mask(fluorescence(truth, 0))[truth].all()


def test_half_of_otsus_threshold_would_call_the_noise_of_clean_glass_tissue() -> None:
    from skimage.filters import threshold_otsu

    truth = np.zeros((60, 80), bool)
    truth[20:40, 30:50] = True
    distance = np.abs(h_and_e(truth, 0) - np.array([243.0, 241.0, 242.0])[:, None, None]).max(axis=0)
    assert (distance > threshold_otsu(distance) / 2)[~truth].mean() > 0.05
    assert not tissue_mask(h_and_e(truth, 0))[:, :20].any()


def test_a_single_saturated_pixel_does_not_hide_dim_cells() -> None:
    truth = np.zeros((200, 300), bool)
    truth[50:60, 50:60] = True
    pixels = fluorescence(truth, 0)
    pixels[0, 190, 290] = 65535
    mask = tissue_mask(pixels)
    assert mask[truth].all()
    assert not mask[100:180, 100:250].any()


def test_a_narrow_range_of_large_numbers_is_told_apart() -> None:
    pixels = np.full((1, 60, 80), 60000, np.uint16)  # as float32 in steps of 1/256
    pixels[0, 20:40, 30:50] = 60004
    assert tissue_mask(pixels)[30, 40]
    assert not tissue_mask(pixels)[:, :20].any()


def test_one_channel_that_differs_is_enough() -> None:
    pixels = np.full((3, 50, 50), 240, np.uint8)
    pixels[1, 10:20, 10:20] = 180
    assert tissue_mask(pixels)[15, 15]
    assert not tissue_mask(pixels)[40, 40]
