"""Levels against scikit-image, numpy and coordinates computed pixel by pixel; each shard written once."""

import itertools
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.measure
from distributed import Client

from segment_slide.pipeline.blocks.array_spec import ArraySpec
from segment_slide.pipeline.blocks.grid import ceil_divide
from segment_slide.pipeline.errors import TasksFailedError
from segment_slide.pipeline.storage import pyramid, store
from segment_slide.pipeline.storage.ome import Level
from segment_slide.pipeline.storage.pyramid import Method, PyramidLevel, build_pyramid, calibrate, downsample
from segment_slide.pipeline.storage.store import create_group, open_array, stored_shards

METHODS: tuple[Method, ...] = ("nearest", "local_mean")
DTYPES = ["bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "float16", "float32", "float64"]
SHAPES = [(1, 1), (1, 7), (2, 2), (3, 2), (5, 9), (16, 16), (17, 33)]


def noise(shape: tuple[int, ...], dtype: str, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return rng.normal(0, 50, shape).astype(dtype)
    if dtype == "bool":
        return rng.integers(0, 2, shape).astype(bool)
    limits = np.iinfo(dtype)
    return rng.integers(limits.min // 2, limits.max // 2, shape, dtype=dtype)


def block_mean(pixels: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """Mean of the pixels that are there in each block of 2, by scikit-image on the image with its edge repeated."""
    factors = tuple(2 if axis in axes else 1 for axis in range(pixels.ndim))
    pads = [(0, size % factor) for size, factor in zip(pixels.shape, factors, strict=True)]
    return skimage.measure.block_reduce(np.pad(pixels.astype(np.float64), pads, mode="edge"), factors, np.mean)


def rounded_half_up(values: np.ndarray) -> np.ndarray:
    return np.floor(values + 0.5)


# --- downsample ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_nearest_keeps_the_first_of_two_pixels_bit_by_bit(shape: tuple[int, int], dtype: str) -> None:
    pixels = noise(shape, dtype)
    small = downsample(pixels, (0, 1), "nearest")
    assert small.dtype == pixels.dtype
    assert small.shape == tuple(ceil_divide(size, 2) for size in shape)
    for y, x in np.ndindex(small.shape):
        assert small[y, x] == pixels[2 * y, 2 * x]


def test_nearest_keeps_ids_that_no_real_number_can_hold() -> None:
    ids = np.arange(2**60, 2**60 + 25, dtype=np.uint64).reshape(5, 5)
    assert set(downsample(ids, (0, 1), "nearest").ravel().tolist()) <= set(ids.ravel().tolist())


def test_the_mean_of_ids_is_nobodys_id() -> None:
    ids = np.array([[1, 5], [9, 1]], np.uint64)
    assert downsample(ids, (0, 1), "local_mean").item() not in ids
    assert downsample(ids, (0, 1), "nearest").item() in ids


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_local_mean_is_scikit_images_block_mean_rounded_half_up(shape: tuple[int, int], dtype: str) -> None:
    # scikit-image's mean is a float64: not exact beyond 2^53
    pixels = noise(shape, "uint32" if dtype == "uint64" else dtype).astype(dtype)
    small = downsample(pixels, (0, 1), "local_mean")
    assert small.dtype == pixels.dtype
    expected = block_mean(pixels, (0, 1))
    if np.dtype(dtype).kind == "f":
        np.testing.assert_allclose(small, expected, rtol=np.finfo(dtype).eps, atol=np.finfo(dtype).eps * 100)
    else:
        np.testing.assert_array_equal(small, rounded_half_up(expected).astype(dtype))


@pytest.mark.parametrize("dtype", ["int64", "uint64"])
@pytest.mark.parametrize("shape", [(8, 6), (5, 7)])
def test_means_of_64_bit_integers_are_exact(dtype: str, shape: tuple[int, int]) -> None:
    limits = np.iinfo(dtype)
    pixels = np.random.default_rng(0).integers(limits.min, limits.max, shape, dtype=dtype)
    exact = np.pad(pixels, [(0, size % 2) for size in shape], mode="edge").astype(object)  # Python's own integers
    total = exact[::2, ::2] + exact[1::2, ::2] + exact[::2, 1::2] + exact[1::2, 1::2]
    assert downsample(pixels, (0, 1), "local_mean").tolist() == ((total + 2) // 4).tolist()


@pytest.mark.parametrize(
    ("values", "mean"), [([0, 1], 1), ([1, 2], 2), ([2, 3], 3), ([0, 0], 0), ([254, 255], 255), ([255, 255], 255)]
)
def test_halves_are_rounded_up_and_not_to_even(values: list[int], mean: int) -> None:
    assert downsample(np.array(values, np.uint8), (0,), "local_mean").tolist() == [mean]
    assert {round(np.mean(pair)) for pair in ([0, 1], [1, 2], [2, 3])} == {0, 2}  # what numpy.round would do


def test_the_largest_values_do_not_overflow() -> None:
    for dtype in ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"):
        for extreme in (np.iinfo(dtype).min, np.iinfo(dtype).max):
            full = np.full((4, 4, 4), extreme, dtype)
            assert (downsample(full, (0, 1, 2), "local_mean") == extreme).all()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("axes", [(0,), (2,), (1, 2), (0, 1, 2), (0, 2)])
def test_only_the_named_axes_are_halved(axes: tuple[int, ...], method: Method) -> None:
    pixels = noise((5, 6, 7), "uint16")
    small = downsample(pixels, axes, method)
    if method == "nearest":
        expected: np.ndarray = pixels[tuple(slice(None, None, 2 if axis in axes else 1) for axis in range(3))]
    else:
        expected = rounded_half_up(block_mean(pixels, axes))
    np.testing.assert_array_equal(small, expected)


def test_an_odd_edge_is_the_mean_of_the_pixels_that_are_there() -> None:
    assert downsample(np.array([[10, 20, 90]], np.uint8), (0, 1), "local_mean").tolist() == [[15, 90]]
    assert downsample(np.array([[10], [20], [90]], np.float32), (0, 1), "local_mean").tolist() == [[15], [90]]


# --- where pixels lie ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("step", "start"), [(1.0, 0.0), (0.25, 100.0), (3.5, -7.0)])
def test_a_pixel_of_a_level_lies_where_the_pixels_it_is_made_of_do(method: Method, step: float, start: float) -> None:
    # The image of its own coordinates: averaging it, or taking every second pixel, moves each coordinate along.
    coordinates = start + step * np.arange(64.0)
    level_0 = Level("ignored", (1.0, step), (0.0, start))
    levels = calibrate("image", "yx", (None, None), level_0, 5, method, halved="x").levels
    for level in levels:
        np.testing.assert_allclose(coordinates, level.translation[1] + level.scale[1] * np.arange(len(coordinates)))
        assert (level.scale[0], level.translation[0]) == (1.0, 0.0)
        coordinates = downsample(coordinates, (0,), method)


def test_the_methods_put_their_pixels_at_different_places() -> None:
    level_0 = Level("0", (2.0, 2.0), (0.0, 0.0))
    nearest, mean = (calibrate("", "yx", (None, None), level_0, 2, method, "yx").levels[1] for method in METHODS)
    assert nearest.scale == mean.scale == (4.0, 4.0)
    assert nearest.translation == (0.0, 0.0)
    assert mean.translation == (1.0, 1.0)


def test_a_calibration_names_its_levels_and_keeps_axes_units_and_name() -> None:
    level_0 = Level("full", (1.0, 2.0, 0.5), (0.0, 3.0, 4.0))
    image = calibrate("cells", "zyx", ("micrometer", None, "nanometer"), level_0, 3, "nearest", "yx")
    assert (image.name, image.axes, image.units) == ("cells", "zyx", ("micrometer", None, "nanometer"))
    assert [level.path for level in image.levels] == ["0", "1", "2"]
    assert [level.scale for level in image.levels] == [(1.0, 2.0, 0.5), (1.0, 4.0, 1.0), (1.0, 8.0, 2.0)]
    assert {level.translation for level in image.levels} == {(0.0, 3.0, 4.0)}


# --- stored pyramids -------------------------------------------------------------------------------------------


def specs(
    axes: str, shape: tuple[int, ...], shard: tuple[int, ...], halved: str, dtype: str, n_levels: int
) -> list[ArraySpec]:
    arrays = []
    for level in range(n_levels):
        arrays.append(ArraySpec(str(level), shape, shard, tuple(ceil_divide(n, 2) for n in shard), dtype, axes))
        shape = tuple(ceil_divide(size, 2) if axis in halved else size for axis, size in zip(axes, shape, strict=True))
    return arrays


STORED = {
    "odd plane": specs("yx", (77, 45), (16, 16), "yx", "uint8", 4),
    "planes": specs("tzyx", (2, 3, 37, 21), (1, 1, 8, 8), "yx", "uint16", 3),
    "volume": specs("zyx", (19, 20, 33), (8, 8, 8), "zyx", "float32", 4),
    "channels in one shard": specs("cyx", (4, 35, 33), (4, 16, 16), "yx", "float32", 3),
    "large ids": specs("yx", (50, 50), (16, 16), "yx", "uint64", 3),
    "one pixel wide": specs("yx", (40, 1), (16, 16), "yx", "uint8", 3),
}
each_stored = pytest.mark.parametrize("arrays", STORED.values(), ids=STORED.keys())


def halved_axes(arrays: list[ArraySpec]) -> str:
    return "zyx" if arrays[0].axes == "zyx" else "yx"


def every_shard(spec: ArraySpec) -> set[tuple[int, ...]]:
    return set(itertools.product(*(range(ceil_divide(n, s)) for n, s in zip(spec.shape, spec.shard, strict=True))))


def store_finest(location: Path, arrays: list[ArraySpec]) -> np.ndarray:
    create_group(str(location), "image", arrays, {})
    pixels = noise(arrays[0].shape, arrays[0].dtype)
    if arrays[0].dtype == "uint64":
        pixels |= np.uint64(2**60)
    open_array(str(location), "image/0", writable=True)[...] = pixels
    return pixels


def build(location: Path, arrays: list[ArraySpec], method: Method, **options: Any) -> int:
    return build_pyramid(str(location), "image", arrays, halved_axes(arrays), method, **options)


def assert_levels_are(location: Path, arrays: list[ArraySpec], pixels: np.ndarray, method: Method) -> None:
    axes = tuple(arrays[0].axes.index(axis) for axis in halved_axes(arrays))
    for spec in arrays:
        np.testing.assert_array_equal(open_array(str(location), f"image/{spec.path}")[...], pixels, spec.path)
        pixels = downsample(pixels, axes, method)


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[tuple[str, str]]]:
    """How often each box of each array is written."""
    counts: Counter[tuple[str, str]] = Counter()

    def counted(array: Any, box: tuple[slice, ...], values: np.ndarray) -> None:
        counts[array.path, str(box)] += 1
        store.write_box(array, box, values)

    monkeypatch.setattr(pyramid, "write_box", counted)
    return counts


@each_stored
@pytest.mark.parametrize("method", METHODS)
def test_stored_levels_are_those_of_the_whole_array_and_each_shard_is_written_once(
    tmp_path: Path, arrays: list[ArraySpec], method: Method, writes: Counter[tuple[str, str]]
) -> None:
    pixels = store_finest(tmp_path, arrays)
    reported = []
    written = build(tmp_path, arrays, method, on_shard=lambda: reported.append(1))
    assert_levels_are(tmp_path, arrays, pixels, method)
    n_shards = sum(spec.n_shards for spec in arrays[1:])
    assert written == len(reported) == len(writes) == n_shards
    assert set(writes.values()) == {1}
    for spec in arrays:
        assert stored_shards(str(tmp_path), f"image/{spec.path}") == every_shard(spec)
    # a second run has nothing to do
    assert build(tmp_path, arrays, method) == 0
    assert sum(writes.values()) == n_shards


def test_a_level_moved_by_one_pixel_is_another_array(tmp_path: Path) -> None:
    arrays = STORED["odd plane"]
    pixels = store_finest(tmp_path, arrays)
    build(tmp_path, arrays, "nearest")
    coarse = open_array(str(tmp_path), "image/1")[...]
    assert (coarse[:-1] != pixels[1::2, ::2]).any()


def test_a_level_reads_no_more_than_one_chunk_row_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = STORED["volume"]
    store_finest(tmp_path, arrays)
    rows = []

    def watched(pixels: np.ndarray, axes: tuple[int, ...], method: Method) -> np.ndarray:
        rows.append(pixels.shape[0])
        return downsample(pixels, axes, method)

    monkeypatch.setattr(pyramid, "downsample", watched)
    build(tmp_path, arrays, "nearest")
    assert max(rows) == 2 * arrays[0].chunk[0] < 2 * arrays[0].shard[0]


@each_stored
def test_a_shard_is_pending_exactly_when_all_pixels_it_is_made_of_are_there(
    tmp_path: Path, arrays: list[ArraySpec]
) -> None:
    pixels = store_finest(tmp_path, arrays)
    source, target = arrays[:2]
    axes = tuple(source.axes.index(axis) for axis in halved_axes(arrays))
    level = PyramidLevel(str(tmp_path), "image", source, target, axes, "nearest")
    assert level.pending() == sorted(every_shard(target))
    for missing in every_shard(source):
        file = tmp_path.joinpath("image/0/c", *map(str, missing))
        content = file.read_bytes()
        file.unlink()
        # by brute force: mark the missing shard's pixels, and see which coarse pixels are touched
        mark = np.zeros(pixels.shape, bool)
        mark[tuple(slice(i * n, (i + 1) * n) for i, n in zip(missing, source.shard, strict=True))] = True
        touched = block_mean(mark, axes) > 0
        expected = []
        for index in sorted(every_shard(target)):
            box = tuple(slice(i * n, (i + 1) * n) for i, n in zip(index, target.shard, strict=True))
            if not touched[box].any():
                expected.append(index)
        assert level.pending() == expected, missing
        file.write_bytes(content)


@each_stored
def test_a_pyramid_over_missing_blocks_is_built_as_far_as_it_goes_and_completed_later(
    tmp_path: Path, arrays: list[ArraySpec]
) -> None:
    pixels = store_finest(tmp_path, arrays)
    file = tmp_path.joinpath("image/0/c", *map(str, max(every_shard(arrays[0]))))
    content = file.read_bytes()
    file.unlink()
    first = build(tmp_path, arrays, "local_mean")
    for spec in arrays[1:]:
        assert max(every_shard(spec)) not in stored_shards(str(tmp_path), f"image/{spec.path}")
    file.write_bytes(content)
    second = build(tmp_path, arrays, "local_mean")
    assert first + second == sum(spec.n_shards for spec in arrays[1:])
    assert_levels_are(tmp_path, arrays, pixels, "local_mean")


def test_a_pyramid_goes_on_after_any_of_its_shards_were_lost_with_equal_bytes(tmp_path: Path) -> None:
    arrays = STORED["odd plane"]
    store_finest(tmp_path, arrays)
    build(tmp_path, arrays, "local_mean")
    shards = [
        file for level in ("1", "2", "3") for file in (tmp_path / "image" / level / "c").rglob("*") if file.is_file()
    ]
    whole = {file: file.read_bytes() for file in shards}
    rng = np.random.default_rng(0)
    for count in (1, 2, 5, len(shards)):
        for number in rng.permutation(len(shards))[:count]:
            shards[number].unlink()
        assert build(tmp_path, arrays, "local_mean") == count
        assert {file: file.read_bytes() for file in shards} == whole


def test_a_shard_that_fails_twice_is_named_and_all_that_do_not_need_it_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays = STORED["odd plane"]
    pixels = store_finest(tmp_path, arrays)

    def failing(array: Any, box: tuple[slice, ...], values: np.ndarray) -> None:
        if array.path == "image/1" and all(side.start == 0 for side in box):
            raise OSError("not today")
        store.write_box(array, box, values)

    with monkeypatch.context() as patched:
        patched.setattr(pyramid, "write_box", failing)
        with pytest.raises(TasksFailedError, match=r"1 step.*\n  file 0/0 of image/1: not today$"):
            build(tmp_path, arrays, "nearest")
    for spec in arrays[1:]:
        missing = set(every_shard(spec)) - stored_shards(str(tmp_path), f"image/{spec.path}")
        assert missing == {(0, 0)}, "and what is made of it"
    build(tmp_path, arrays, "nearest")
    assert_levels_are(tmp_path, arrays, pixels, "nearest")


def test_a_cluster_builds_the_same_pyramid(tmp_path: Path) -> None:
    arrays = STORED["planes"]
    pixels = store_finest(tmp_path, arrays)
    with Client(processes=False, n_workers=2, threads_per_worker=2, dashboard_address="127.0.0.1:0") as client:
        assert build(tmp_path, arrays, "local_mean", client=client) == sum(spec.n_shards for spec in arrays[1:])
    assert_levels_are(tmp_path, arrays, pixels, "local_mean")


def test_an_image_of_one_level_needs_no_pyramid(tmp_path: Path) -> None:
    arrays = STORED["odd plane"][:1]
    store_finest(tmp_path, arrays)
    assert build(tmp_path, arrays, "nearest") == 0
