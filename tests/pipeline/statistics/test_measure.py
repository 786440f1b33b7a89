"""Statistics of whole images against numpy, whatever the boxes, their order and the workers."""

import math
import random
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from distributed import Client

from segment_slide.pipeline.errors import InputError, TasksFailedError, UnreadableChunkError
from segment_slide.pipeline.statistics import measure as statistics
from segment_slide.pipeline.statistics.measure import check_finite, count_boxes, measure, resolve_normalisation
from segment_slide.pipeline.storage.image import describe_image
from segment_slide.pipeline.storage.source import ImageSource, select_source
from segment_slide.unet.checkpoint import Normalisation
from tests.flows.support import write_ome
from tests.tiers import exhaustive

QS = (0, 0.1, 1, 25, 50, 75, 99.8, 100)
INTEGERS = ["bool", "uint8", "int8", "uint16", "int16", ">u2"]
REALS = ["float16", "float32", "float64", "uint32", "int32", "int64"]


def noise(shape: tuple[int, ...], dtype: str, seed: int = 0) -> np.ndarray:
    """Skewed, with some zeros, negative where the dtype can be."""
    rng = np.random.default_rng(seed)
    values = rng.gamma(1.5, 0.12, shape) * (rng.random(shape) > 0.05)
    kind = np.dtype(dtype)
    if kind.kind == "b":
        return values > 0.1
    if kind.kind == "f":
        return ((values - 0.1) * 3000).astype(dtype)
    span = min(np.iinfo(kind).max, 10**6)
    values = values * span - (0.1 * span if kind.kind == "i" else 0)
    return np.clip(values, max(np.iinfo(kind).min, -span), span).astype(dtype)


def source_of(folder: Path, pixels: np.ndarray, axes: str = "yx", n_spatial: int = 2, **chosen: Any) -> ImageSource:
    chunks = tuple(min(64, size) for size in pixels.shape)
    zarr.create_array(str(folder), data=pixels, chunks=chunks)
    image = describe_image(folder, axes=axes)
    return select_source(image, n_spatial=n_spatial, **{"n_channels": image.size("c"), **chosen})


@pytest.fixture(autouse=True)
def small_boxes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many boxes in small images, merged several times."""
    monkeypatch.setattr(statistics, "_BOX_PX", {2: 16, 3: 8})
    monkeypatch.setattr(statistics, "_MERGE_EVERY", 4)


# --- against numpy ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("shape", [(1, 1), (5, 70), (75, 53), (96, 96)])
def test_small_integers_are_measured_exactly(tmp_path: Path, dtype: str, shape: tuple[int, int]) -> None:
    pixels = noise(shape, dtype)
    measured = measure(source_of(tmp_path / "image", pixels))
    exact = pixels.astype(np.float64)
    np.testing.assert_allclose(measured.mean, [exact.mean()], rtol=1e-13)
    np.testing.assert_allclose(measured.std, [exact.std()], rtol=1e-12, atol=1e-12)
    for q in QS:
        np.testing.assert_allclose(measured.percentile(q), [np.percentile(exact, q)], rtol=1e-12, err_msg=f"q={q}")


@pytest.mark.parametrize("dtype", REALS)
@pytest.mark.parametrize("shape", [(1, 1), (75, 53)])
def test_a_few_values_of_any_other_kind_are_measured_exactly(
    tmp_path: Path, dtype: str, shape: tuple[int, int]
) -> None:
    pixels = noise(shape, dtype)
    measured = measure(source_of(tmp_path / "image", pixels))
    exact = pixels.astype(np.float64)
    np.testing.assert_allclose(measured.mean, [exact.mean()], rtol=1e-12)
    np.testing.assert_allclose(measured.std, [exact.std()], rtol=1e-12, atol=1e-12)
    for q in QS:
        np.testing.assert_allclose(measured.percentile(q), [np.percentile(exact, q)], rtol=1e-12, err_msg=f"q={q}")


def test_a_statistic_of_every_second_row_is_another_one(tmp_path: Path) -> None:
    pixels = noise((75, 53), "uint16")
    (mean,) = measure(source_of(tmp_path / "image", pixels)).mean
    assert mean == pytest.approx(pixels.mean(), rel=1e-13)
    assert mean != pytest.approx(pixels[::2].mean(), rel=1e-4)


def test_each_channel_is_measured_by_itself_in_the_chosen_order(tmp_path: Path) -> None:
    pixels = noise((4, 40, 50), "uint8") + np.array([0, 10, 20, 30], np.uint8)[:, None, None]
    measured = measure(source_of(tmp_path / "image", pixels, "cyx", n_channels=2, channels=(3, 1)))
    np.testing.assert_allclose(measured.mean, pixels[[3, 1]].mean(axis=(1, 2)))
    np.testing.assert_allclose(measured.percentile(50), np.percentile(pixels[[3, 1]], 50, axis=(1, 2)))


def test_all_chosen_planes_count_and_no_other(tmp_path: Path) -> None:
    pixels = noise((3, 5, 20, 18), "uint16")
    source = source_of(tmp_path / "image", pixels, "tzyx", ranges={"t": (1, 3), "z": (0, 2)})
    assert measure(source).mean == pytest.approx([pixels[1:3, 0:2].mean()], rel=1e-13)


def test_a_volume_is_measured_in_volumes(tmp_path: Path) -> None:
    pixels = noise((20, 19, 18), "uint16")
    source = source_of(tmp_path / "image", pixels, "zyx", n_spatial=3)
    assert count_boxes(source, Normalisation("mean-std")) == 27
    assert measure(source).mean == pytest.approx([pixels.mean()], rel=1e-13)


@pytest.mark.parametrize("values", [[0.0, -0.0] * 50, [1e-40, -1e-40, 0.0, 5e-41], [-3e38, 3e38, 1.0, 0.0]])
def test_zeros_of_both_signs_and_extreme_numbers_keep_their_order(tmp_path: Path, values: list[float]) -> None:
    pixels = np.array(values, np.float32).reshape(2, -1)
    measured = measure(source_of(tmp_path / "image", pixels))
    (low,), (high,) = measured.percentile(0), measured.percentile(100)
    assert low == pytest.approx(pixels.min(), rel=5e-4, abs=1e-38)
    assert high == pytest.approx(pixels.max(), rel=5e-4, abs=1e-38)


# --- boxes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_statistics_do_not_depend_on_the_boxes_or_when_they_are_merged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    source = source_of(tmp_path / "image", noise((100, 90), dtype))
    found = set()
    for box, merge_every in [(16, 4), (16, 10**6), (16, 2), (37, 4), (2048, 64)]:
        monkeypatch.setattr(statistics, "_BOX_PX", {2: box})
        monkeypatch.setattr(statistics, "_MERGE_EVERY", merge_every)
        measured = measure(source)
        found.add((measured.mean, measured.std, *(measured.percentile(q) for q in QS)))
    assert len(found) == 1  # to the last bit


def shuffled(seed: int) -> Callable[..., Iterator[Any]]:
    """`run_all` as a cluster might answer: in any order."""

    def run(client: None, function: Callable[[Any], Any], items: Iterable[Any], *_: Any, **__: Any) -> Iterator[Any]:
        answers = [(item, function(item)) for item in items]
        random.Random(seed).shuffle(answers)
        yield from answers

    return run


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_statistics_do_not_depend_on_the_order_of_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    source = source_of(tmp_path / "image", noise((100, 90), dtype))
    expected = measure(source)
    for seed in range(3):
        monkeypatch.setattr(statistics, "run_all", shuffled(seed))
        measured = measure(source)
        assert (measured.mean, measured.std) == (expected.mean, expected.std)
        assert all(measured.percentile(q) == expected.percentile(q) for q in QS)


def test_a_cluster_measures_the_same_to_the_last_bit(tmp_path: Path) -> None:
    source = source_of(tmp_path / "image", noise((100, 90), "float32"))
    expected = measure(source)
    with Client(processes=False, n_workers=2, threads_per_worker=2, dashboard_address="127.0.0.1:0") as client:
        measured = measure(source, client)
    assert (measured.mean, measured.std) == (expected.mean, expected.std)
    assert all(measured.percentile(q) == expected.percentile(q) for q in QS)


def test_no_more_histograms_are_held_than_are_merged_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    merged = []
    merge = statistics._merge
    monkeypatch.setattr(statistics, "_merge", lambda found: merged.append(len(found)) or merge(found))
    measure(source_of(tmp_path / "image", noise((100, 90), "uint8")))
    assert max(merged) == 4
    assert sum(count - 1 for count in merged) + 1 == 7 * 6  # all 42 boxes went into one


def test_every_pixel_is_reported_once_and_boxes_are_counted_before(tmp_path: Path) -> None:
    source = source_of(tmp_path / "image", noise((3, 100, 90), "float16"), "zyx")
    for kind in ("mean-std", "percentiles", "constants"):
        normalisation = Normalisation(kind, (0.0,), (1.0,))
        reported: list[int] = []
        resolve_normalisation(source, normalisation, on_box=reported.append)
        assert len(reported) == count_boxes(source, normalisation) == 3 * 7 * 6
        assert sum(reported) == 3 * 100 * 90


def test_integers_with_constants_are_not_looked_at(tmp_path: Path) -> None:
    source = source_of(tmp_path / "image", noise((40, 40), "uint8"))
    normalisation = Normalisation("constants", (3.0,), (2.0,))
    reported: list[int] = []
    assert count_boxes(source, normalisation) == 0
    assert resolve_normalisation(source, normalisation, on_box=reported.append) == ((3.0,), (2.0,))
    assert reported == []


# --- normalisations --------------------------------------------------------------------------------------------


def test_percentiles_map_to_zero_and_one(tmp_path: Path) -> None:
    pixels = noise((2, 60, 50), "uint16")
    source = source_of(tmp_path / "image", pixels, "cyx")
    offset, scale = resolve_normalisation(source, Normalisation("percentiles", low=2, high=98))
    low, high = np.percentile(pixels, [2, 98], axis=(1, 2))
    np.testing.assert_allclose(offset, low)
    np.testing.assert_allclose(np.add(offset, scale), high)


def test_mean_and_std_make_a_normalised_image(tmp_path: Path) -> None:
    pixels = noise((60, 50), "uint16")
    (offset,), (scale,) = resolve_normalisation(source_of(tmp_path / "image", pixels), Normalisation("mean-std"))
    normalised = (pixels - offset) / scale
    assert normalised.mean() == pytest.approx(0, abs=1e-12)
    assert normalised.std() == pytest.approx(1)


@pytest.mark.parametrize("dtype", ["bool", "uint8", exhaustive("uint16"), "float32", exhaustive("float64"), "int32"])
@pytest.mark.parametrize("kind", ["mean-std", "percentiles"])
@pytest.mark.parametrize("value", [0, 1])
def test_a_constant_channel_gets_scale_one_and_becomes_zero(tmp_path: Path, dtype: str, kind: str, value: int) -> None:
    pixels = np.full((2, 40, 40), value, dtype)
    pixels[1] = noise((40, 40), dtype)
    source = source_of(tmp_path / "image", pixels, "cyx")
    offset, scale = resolve_normalisation(source, Normalisation(kind))
    assert scale[0] == 1.0
    assert scale[1] not in (0.0, 1.0) or dtype == "bool"
    assert offset[0] == pytest.approx(value, rel=5e-4, abs=1e-30)
    assert all(math.isfinite(number) for number in (*offset, *scale))


def test_zeros_of_both_signs_are_one_constant(tmp_path: Path) -> None:
    pixels = np.zeros((40, 40), np.float32)
    pixels[::2] = -0.0
    for kind in ("mean-std", "percentiles"):
        assert resolve_normalisation(source_of(tmp_path / kind, pixels), Normalisation(kind)) == ((0.0,), (1.0,))


def test_a_flat_field_corrected_image_of_two_percent_contrast_is_resolved(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).normal(1, 0.02, (60, 50)).astype(np.float32)
    source = source_of(tmp_path / "image", pixels)
    (offset,), (scale,) = resolve_normalisation(source, Normalisation("mean-std"))
    assert offset == pytest.approx(pixels.mean(dtype=np.float64), abs=scale / 1000)
    assert scale == pytest.approx(pixels.std(dtype=np.float64), rel=1e-3)


# --- what cannot be measured -----------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", ["mean-std", "percentiles", "constants"])
def test_a_value_that_is_not_finite_is_refused_with_its_place(tmp_path: Path, value: float, kind: str) -> None:
    pixels = noise((60, 50), "float32")
    source_of(tmp_path / "good", pixels)
    pixels[41, 33] = value
    source = source_of(tmp_path / "image", pixels)
    with pytest.raises(InputError, match=rf"first is {value} at y=41, x=33"):
        resolve_normalisation(source, Normalisation(kind, (0.0,), (1.0,)))


def test_a_value_that_is_not_finite_is_named_with_channel_plane_and_the_file_that_was_converted(tmp_path: Path) -> None:
    pixels = np.ones((2, 3, 40, 30), np.float32)
    pixels[1, 2, 25, 17] = np.nan
    source = source_of(tmp_path / "image", pixels, "czyx", n_channels=2)
    for kind in ("mean-std", "constants"):
        with pytest.raises(InputError, match=rf"^input={tmp_path}/image.*: 1 value.* nan at c=1, z=2, y=25, x=17;"):
            resolve_normalisation(source, Normalisation(kind, (0.0, 0.0), (1.0, 1.0)))
    converted = write_ome(tmp_path / "b.ome.zarr", pixels, "czyx")
    zarr.open_group(str(converted)).attrs["segment_slide"] = {"ingested_from": {"name": "b.tif"}}
    source = select_source(describe_image(converted), n_spatial=2, n_channels=2)
    with pytest.raises(InputError, match=rf"^input={converted} \(made from b.tif\) cannot be measured: 1 value"):
        resolve_normalisation(source, Normalisation("mean-std"))


def damaged_source(folder: Path, dtype: str) -> ImageSource:
    source = source_of(folder, noise((100, 90), dtype))
    (folder / "c/1/0").write_bytes(b"?")
    with pytest.raises(UnreadableChunkError):
        source.read((slice(64, 80), slice(0, 16)))
    return source


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_an_image_with_an_unreadable_chunk_cannot_be_measured(tmp_path: Path, dtype: str) -> None:
    with pytest.raises(InputError, match="image cannot be measured: unreadable chunk 1/0"):
        measure(damaged_source(tmp_path / "image", dtype))


@pytest.mark.parametrize("kind", ["mean-std", "constants"])
def test_a_chunk_that_the_system_cannot_read_is_not_the_images_fault(tmp_path: Path, kind: str) -> None:
    source = source_of(tmp_path / "image", noise((100, 90), "float32"))
    chunk = tmp_path / "image/c/1/0"
    whole = chunk.read_bytes()
    chunk.unlink()
    chunk.symlink_to(chunk)  # opening it fails for as long as it is so
    normalisation = Normalisation(kind, (0.0,), (1.0,))
    with pytest.raises(TasksFailedError, match=r"region \(y 64:80, x 0:16\): unreadable chunk 1/0 of .*symbolic"):
        resolve_normalisation(source, normalisation)
    chunk.unlink()
    chunk.write_bytes(whole)
    resolve_normalisation(source, normalisation)


def test_checking_for_finite_values_leaves_unreadable_chunks_to_the_run(tmp_path: Path) -> None:
    source = damaged_source(tmp_path / "image", "float32")
    reported: list[int] = []
    check_finite(source, on_box=reported.append)
    assert sum(reported) == 100 * 90
    # and still finds what can be read
    array = zarr.open_array(str(tmp_path / "image"), mode="r+")
    array[5, 7] = np.nan
    with pytest.raises(InputError, match="at y=5, x=7"):
        check_finite(source)
