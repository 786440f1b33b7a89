"""Commands that read give no wrong value without a word: with a flipped bit they raise, or the result is right."""

import contextlib
import json

import numpy as np
import pytest

from segment_slide.pipeline.measurement.table import read_part
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.training.sample_set import read_sample_set
from segment_slide.pipeline.training.stored_samples import StoredSamples
from tests.flows.support import run_here
from tests.integrity.support import SEGMENTED, files_of, flip_bit, no_workers
from tests.tiers import exhaustive

ARRAYS = {
    "image": ("slide.ome.zarr", "0"),
    "labels": ("out.ome.zarr", "labels/segmentation/0"),
    "probabilities": ("out.ome.zarr", "probability/segmentation/0"),
    "ids": ("out.ome.zarr", "labels/segmentation-instances/0"),
}
pytestmark = pytest.mark.slow


def flips(files, n):
    """Flip one bit at a time, and back again; yields after each flip."""
    chance = np.random.default_rng(1)
    for _ in range(n):
        file = files[chance.integers(len(files))]
        bit = int(chance.integers(8 * file.stat().st_size))
        flip_bit(file, bit)
        yield file
        flip_bit(file, bit)


@pytest.mark.parametrize("n", [40, exhaustive(300)])
@pytest.mark.parametrize("kind", ARRAYS)
def test_pixels_of_a_damaged_shard_are_right_or_an_error(slide, kind, n):
    folder, path = ARRAYS[kind]
    location = str(slide / folder)
    right = np.asarray(store.open_array(location, path)[...])
    n_loud = 0
    for file in flips(files_of(slide, SEGMENTED[kind]), n):
        try:
            found = np.asarray(store.open_array(location, path)[...])
        except Exception:  # noqa: BLE001 - codecs raise whatever they like on damaged bytes
            n_loud += 1
            continue
        assert np.array_equal(found, right), file
    assert n_loud > n // 2


@pytest.mark.parametrize("n", [40, exhaustive(300)])
def test_rows_of_a_damaged_table_are_right_or_an_error_but_for_its_footer(slide, n):
    """Of the footer Parquet knows no checksum: `verify` finds what it says wrongly."""
    location, name = str(slide / "out.ome.zarr"), "tables/segmentation-instances.parquet"
    right = read_part(location, name, 0, None)
    files = files_of(slide, SEGMENTED["table"])
    footer = int.from_bytes(files[0].read_bytes()[-8:-4], "little")
    pages = files[0].stat().st_size - footer - 8
    chance = np.random.default_rng(1)
    for bit in chance.integers(8 * pages, size=n):
        flip_bit(files[0], int(bit))
        with contextlib.suppress(Exception):
            assert read_part(location, name, 0, None).equals(right) or pytest.fail(f"bit {bit}")
        flip_bit(files[0], int(bit))


@pytest.mark.parametrize("kind", ["labels", "ids"])
def test_scores_of_damaged_results_are_right_or_an_error(slide, kind, tmp_path):
    group = slide / "out.ome.zarr/labels" / ("segmentation" if kind == "labels" else "segmentation-instances")
    how = "classes" if kind == "labels" else "instances"
    with no_workers():
        run_here("evaluate", group, group, "--kind", how, "--json", tmp_path / "right.json", "--workers", 1)
        right = json.loads((tmp_path / "right.json").read_text())
        for file in flips(files_of(slide, SEGMENTED[kind]), 2):
            told = run_here("evaluate", group, group, "--kind", how, "--json", tmp_path / "now.json", "--workers", 1)
            assert told.exit_code in (2, 3) or json.loads((tmp_path / "now.json").read_text()) == right, file


def test_samples_of_a_damaged_set_are_right_or_an_error(trained):
    samples = read_sample_set(str(trained / "samples.zarr"))
    right = [StoredSamples(samples, "training")[number] for number in range(samples.n_training)]
    for file in flips(files_of(trained, "samples.zarr/training/[icw]*/c/**/*"), 6):
        for number, expected in enumerate(right):
            with contextlib.suppress(Exception):
                found = StoredSamples(samples, "training")[number]
                same = all(
                    np.array_equal(getattr(found, name), getattr(expected, name))
                    for name in ("image", "classes", "weights")
                )
                assert same or pytest.fail(f"{file}, sample {number}")
