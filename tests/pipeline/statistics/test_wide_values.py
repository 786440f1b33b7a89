"""Statistics of integers and reals of 32 and 64 bits against exact arithmetic: offsets, outliers, extreme sizes."""

import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import zarr

from segment_slide.pipeline.statistics import histogram
from segment_slide.pipeline.statistics import measure as statistics
from segment_slide.pipeline.statistics.histogram import (
    ACCURACY,
    Histogram,
    Round,
    count_values,
    find_coarse_bins,
    merge_histograms,
    tabulate,
)
from segment_slide.pipeline.statistics.measure import measure, resolve_normalisation
from segment_slide.pipeline.statistics.result import pool_statistics
from segment_slide.pipeline.statistics.sums import Sums, sum_values
from segment_slide.pipeline.storage.image import describe_image
from segment_slide.pipeline.storage.source import ImageSource, select_source
from segment_slide.unet.checkpoint import Normalisation

SHAPE = (60, 50)
PERCENTS = (0, 0.5, 1, 2, 25, 50, 75, 98, 99, 99.5, 100)
WIDE = ["int32", "uint32", "int64", "uint64", "float32", "float64"]


@pytest.fixture(autouse=True)
def small_boxes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "_BOX_PX", {2: 40, 3: 8})
    monkeypatch.setattr(statistics, "_MERGE_EVERY", 4)


def source_of(folder: Path, pixels: np.ndarray) -> ImageSource:
    zarr.create_array(str(folder), data=pixels, chunks=(64,) * pixels.ndim)
    return select_source(describe_image(folder, axes="yx"), n_spatial=2, n_channels=1)


def exact_moments(pixels: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation in rational numbers."""
    values = [Fraction(value) for value in pixels.ravel().tolist()]
    mean = sum(values, Fraction(0)) / len(values)
    variance = sum(((value - mean) ** 2 for value in values), Fraction(0)) / len(values)
    scaled = math.isqrt(int(variance * (1 << 4000)))
    return float(mean), float(Fraction(scaled, 1 << 2000))


def expect_exact(pixels: np.ndarray, mean: float, std: float) -> None:
    true_mean, true_std = exact_moments(pixels)
    assert mean == true_mean
    assert std == pytest.approx(true_std, rel=1e-15, abs=0)


def expect_percentiles(pixels: np.ndarray, found: dict[float, float]) -> None:
    exact = np.sort(pixels.ravel()).astype(np.float64)
    slack = ACCURACY * (np.percentile(exact, 99) - np.percentile(exact, 1))
    for q, value in found.items():
        assert abs(value - np.percentile(exact, q)) <= slack, q
    assert found[0] == exact[0]
    assert found[100] == exact[-1]


@pytest.mark.parametrize("dtype", WIDE)
@pytest.mark.parametrize("spread", [3, 1000])
@pytest.mark.parametrize("ratio", [1e3, 1e6])
def test_a_small_spread_is_measured_beside_a_large_offset(
    tmp_path: Path, dtype: str, spread: float, ratio: float
) -> None:
    signs = (1,) if dtype.startswith("u") else (1, -1)
    for sign in signs:
        offset = sign * spread * ratio
        pixels = np.random.default_rng(1).normal(offset, spread, SHAPE).astype(dtype)
        measured = measure(source_of(tmp_path / f"image{sign}", pixels))
        expect_exact(pixels, measured.mean[0], measured.std[0])
        expect_percentiles(pixels, {q: measured.percentile(q)[0] for q in PERCENTS})


@pytest.mark.parametrize("dtype", WIDE)
def test_a_few_hot_and_dead_pixels_leave_percentiles_as_they_are(tmp_path: Path, dtype: str) -> None:
    pixels = np.random.default_rng(2).normal(100, 5, SHAPE).astype(dtype)
    pixels[3, 4], pixels[50, 40], pixels[7, 7] = 10**9, 2 * 10**9, 0
    measured = measure(source_of(tmp_path / "image", pixels))
    expect_exact(pixels, measured.mean[0], measured.std[0])
    expect_percentiles(pixels, {q: measured.percentile(q)[0] for q in PERCENTS})
    (offset,), (scale,) = resolve_normalisation(source_of(tmp_path / "same", pixels), Normalisation("percentiles"))
    assert 85 < offset < 95
    assert 15 < scale < 30


@pytest.mark.parametrize("dtype", ["int64", "uint64"])
def test_integers_beyond_what_a_float64_holds_keep_their_spread(tmp_path: Path, dtype: str) -> None:
    noise = np.random.default_rng(3).integers(0, 100, SHAPE).astype(dtype)
    pixels = np.asarray(np.iinfo(dtype).max - noise, dtype)
    measured = measure(source_of(tmp_path / "image", pixels))
    expect_exact(pixels, measured.mean[0], measured.std[0])
    assert measured.std[0] == pytest.approx(noise.astype(float).std(), rel=1e-12)
    assert measured.percentile(0)[0] == float(pixels.min())


@pytest.mark.parametrize(
    "values",
    [
        [5e-324, 1e-310, 0.0, -1e-320],
        [-3e38, 3e38, 1e-300, 5e-324],
        [1e-45, -1e-40, 1.0, 2.0],
        [0.1, 0.2, 0.3, 1e16],
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_subnormals_and_extreme_sizes_are_summed_exactly(values: list[float], dtype: str) -> None:
    pixels = np.array(values * 25, dtype)
    sums = sum_values(pixels)
    expect_exact(pixels, sums.mean, sums.std)


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint16", *WIDE])
def test_sums_of_the_largest_integers_and_of_any_parts_are_exact(dtype: str) -> None:
    kind = np.dtype(dtype)
    ends = [0, 1] if kind.kind in "bf" else [np.iinfo(kind).min, np.iinfo(kind).max]
    pixels = np.array(ends * 50 + ends[1:] * 7, kind)
    whole = sum_values(pixels)
    values = [Fraction(value) for value in pixels.tolist()]
    assert whole == Sums(len(values), sum(values, Fraction(0)), sum((value**2 for value in values), Fraction(0)))
    assert sum_values(pixels[60:]) + sum_values(pixels[:60]) + sum_values(pixels[:0]) == whole


@pytest.mark.parametrize("dtype", WIDE)
@pytest.mark.parametrize("value", [0, 1, 123_456_789])
@pytest.mark.parametrize("kind", ["mean-std", "percentiles"])
def test_a_constant_image_has_its_value_as_offset_and_scale_one(
    tmp_path: Path, dtype: str, value: int, kind: str
) -> None:
    pixels = np.full((50, 50), value, dtype)
    exact = float(pixels[0, 0])
    assert resolve_normalisation(source_of(tmp_path / "image", pixels), Normalisation(kind)) == ((exact,), (1.0,))


# --- histograms ------------------------------------------------------------------------------------------------


def count_all(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """As `measure` does it: coarse bins are counted again. Also returns how many countings there were."""
    rounds: list[Round] = []
    found: Histogram | None = count_values(values)
    while found is not None:
        rounds.append((found, None))
        coarse = find_coarse_bins(rounds)
        rounds[-1] = found, coarse
        found = None if coarse is None else count_values(values, coarse)
    return *tabulate(rounds), len(rounds)


def draw(case: str) -> np.ndarray:
    rng = np.random.default_rng(4)
    n = 300_000
    values = {
        "wide": rng.normal(0, 1, n),
        "offset": rng.normal(1e6, 1, n),
        "many sizes": np.exp(rng.uniform(-300, 80, n)) * rng.choice([-1, 1], n),
        "two clusters": np.where(rng.random(n) < 0.009, rng.normal(0, 1e-9, n), rng.normal(1e9, 1, n)),
        "outliers of many sizes": np.where(
            rng.random(n) < 0.015, np.exp(rng.uniform(-300, 80, n)), 1e9 + rng.random(n)
        ),
    }
    return values[case]


@pytest.mark.parametrize("case", ["wide", "offset", "many sizes", "two clusters", "outliers of many sizes"])
def test_histograms_are_fine_where_the_values_are(case: str) -> None:
    values = draw(case)
    found, counts, n_rounds = count_all(values)
    assert counts.sum() == len(values)
    assert (np.diff(found) >= 0).all()
    ends = np.cumsum(counts)
    slack = ACCURACY * (np.percentile(values, 99) - np.percentile(values, 1))
    for q in (1, 2, 25, 50, 98, 99):
        rank = round(q / 100 * (len(values) - 1))
        exact = np.sort(values)[rank]
        assert abs(found[np.searchsorted(ends, rank, side="right")] - exact) <= slack, q
    assert (n_rounds > 1) == (case in ("many sizes", "outliers of many sizes"))


@pytest.mark.parametrize("dtype", WIDE)
def test_a_histogram_keeps_to_its_bins_and_does_not_depend_on_parts_or_order(
    monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    monkeypatch.setattr(histogram, "MOST_BINS", 512)
    values = np.random.default_rng(5).gamma(2, 1e6, 20_000).astype(dtype)
    whole = count_values(values)
    assert 256 <= len(whole.keys) <= 512
    for n_parts in (2, 7):
        parts = [count_values(part) for part in np.array_split(values, n_parts)]
        for order in (parts, parts[::-1], [merge_histograms(parts[1:]), parts[0]]):
            merged = merge_histograms(order)
            assert (merged.shift, merged.ends) == (whole.shift, whole.ends)
            np.testing.assert_array_equal(merged.keys, whole.keys)
            np.testing.assert_array_equal(merged.counts, whole.counts)


def test_an_image_whose_bins_are_too_coarse_is_read_once_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(8)
    pixels = rng.normal(1e6, 1, (120, 100))
    is_outlier = rng.random(pixels.shape) < 0.008
    pixels[is_outlier] = np.exp(rng.uniform(-300, 15, is_outlier.sum()))
    source = source_of(tmp_path / "image", pixels)
    boxes: list[int] = []
    reads: list[object] = []
    read = statistics._read
    monkeypatch.setattr(statistics, "_read", lambda source, box: reads.append(box) or read(source, box))
    exact = measure(source, on_box=boxes.append)
    assert len(reads) == len(boxes) == 9
    monkeypatch.setattr(histogram, "MOST_BINS", 256)
    measured = measure(source, on_box=boxes.append)
    assert len(reads) > 18
    assert len(boxes) == 18  # progress counts the first pass alone
    assert (measured.mean, measured.std) == (exact.mean, exact.std)
    for q in (0, 1, 3, 50, 98, 100):
        assert measured.percentile(q)[0] == pytest.approx(exact.percentile(q)[0], abs=0.1), q


# --- several images --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtypes", [("float32", "float32"), ("uint8", "float32"), ("uint16", "uint16")])
def test_pooled_statistics_are_those_of_all_pixels_together(tmp_path: Path, dtypes: tuple[str, str]) -> None:
    rng = np.random.default_rng(6)
    images = [rng.normal(100 + 20 * n, 9, SHAPE).astype(dtype) for n, dtype in enumerate(dtypes)]
    measured = [measure(source_of(tmp_path / f"{n}", pixels)) for n, pixels in enumerate(images)]
    together = np.concatenate([pixels.astype(np.float64) for pixels in images])
    for order in (measured, measured[::-1]):
        pooled = pool_statistics(order)
        np.testing.assert_allclose(pooled.mean, [together.mean()], rtol=1e-13)
        np.testing.assert_allclose(pooled.std, [together.std()], rtol=1e-13)
        expect_percentiles(together, {q: pooled.percentile(q)[0] for q in PERCENTS})


def test_moments_alone_hold_no_histogram(tmp_path: Path) -> None:
    pixels = np.random.default_rng(7).normal(0, 1, SHAPE).astype(np.float32)
    source = source_of(tmp_path / "image", pixels)
    measured = measure(source, needs_percentiles=False)
    assert measured.histograms == ()
    assert (measured.mean, measured.std) == (measure(source).mean, measure(source).std)
