"""Stored samples: what is written is what is read, begun sets are known, foreign places are refused."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from segment_slide.pipeline.errors import InputError, OutputError, OutputMismatchError, UnreadableChunkError
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.training.records import AugmentChoices, SampleChoices, SetReference
from segment_slide.pipeline.training.sample_set import (
    SHARD_BYTES,
    SHARD_SAMPLES,
    SampleSet,
    check_place,
    compare_sample_sets,
    create_sample_set,
    find_sample_set,
    pending_shards,
    read_sample_set,
)
from segment_slide.pipeline.training.stored_samples import StoredSamples
from segment_slide.unet.checkpoint import Normalisation


def describe(folder, n_training=5, n_validation=2):
    return SampleSet(
        location=str(folder / "samples.zarr"),
        n_spatial=2,
        n_channels=2,
        depth=1,
        tile_px=(8, 6),
        n_training=n_training,
        n_validation=n_validation,
        class_names=("background", "cell"),
        channel_names=("DAPI", "GFP"),
        pixel_size_um=(0.5, 0.5),
        normalisation=Normalisation(offset=(1.0, 2.0), scale=(3.0, 4.0)),
        training_images=("a", "b"),
        validation_images=("c",),
        settings=SampleChoices(place_axes="tyx", seed=0, augment=AugmentChoices(grey=0.2)),
        training_set=SetReference("/somewhere", "abc"),
        image_scales={"a": ((1.0, 2.0), (3.0, 4.0))},
    )


def fill(samples, part):
    """Random samples in every file of a part; what was written."""
    written = {}
    for spec in samples.specs(part):
        values = np.random.default_rng(0).integers(1, 99, spec.shape).astype(spec.dtype)
        store.write_box(samples.array(part, spec.path, writable=True), (slice(None),), values)
        written[spec.path] = values
    return written


def test_a_record_is_read_as_it_was_written(tmp_path):
    samples = describe(tmp_path)
    create_sample_set(samples)
    assert read_sample_set(samples.location) == samples
    assert read_sample_set(samples.location).settings == samples.settings
    assert samples.read_px == (8 + 16, 6 + 16)


def test_samples_are_read_as_they_were_written(tmp_path):
    samples = describe(tmp_path)
    create_sample_set(samples)
    written = fill(samples, "training")
    stored = StoredSamples(samples, "training")
    assert len(stored) == 5
    for number in range(5):
        sample = stored[number]
        np.testing.assert_array_equal(sample.image, written["images"][number])
        np.testing.assert_array_equal(sample.classes, written["classes"][number])
        np.testing.assert_array_equal(sample.weights, written["weights"][number])
        assert stored.place(number) == tuple(written["places"][number])
    for number in (-1, 5):
        with pytest.raises(IndexError, match=f"sample {number} of 5"):
            stored[number]


def test_files_that_are_missing_are_counted_and_samples_refused_until_they_are_there(tmp_path):
    samples = describe(tmp_path, n_training=2 * SHARD_SAMPLES + 1)
    create_sample_set(samples)
    assert pending_shards(samples, "training") == [0, 1, 2]
    with pytest.raises(InputError, match=r"3 of \d+ files of training samples are missing"):
        StoredSamples(samples, "training")
    fill(samples, "training")
    assert pending_shards(samples, "training") == []
    shutil.rmtree(f"{samples.location}/training/weights/c/1")
    assert pending_shards(samples, "training") == [1]


def test_a_set_without_validation_has_no_validation_samples(tmp_path):
    samples = describe(tmp_path, n_validation=0)
    create_sample_set(samples)
    assert len(StoredSamples(samples, "validation")) == 0
    assert pending_shards(samples, "validation") == []


def test_a_file_holds_fewer_samples_where_they_are_large(tmp_path):
    flat = replace(describe(tmp_path), tile_px=(256, 256), depth=4)
    assert flat.shard_samples == SHARD_SAMPLES
    volume = replace(flat, n_spatial=3, tile_px=(64, 64, 64), n_channels=1)
    assert volume.read_px == (252, 252, 252)
    assert volume.shard_samples == 2
    assert SHARD_BYTES // (252**3 * 4) == 2
    assert volume.n_shards("training") == 3
    assert [spec.shard[0] for spec in volume.specs("training")] == [2] * 4
    assert replace(volume, tile_px=(512,) * 3).shard_samples == 1


def test_a_creation_that_was_interrupted_is_not_taken_for_samples(tmp_path):
    samples = describe(tmp_path)
    assert find_sample_set(samples.location) is None
    create_sample_set(samples)
    store.update_attributes(samples.location, "", {"segment_slide": {"kind": "training-samples"}})
    assert find_sample_set(samples.location) is None
    with pytest.raises(InputError, match="its samples are not described yet.*`segment-slide training-data`"):
        read_sample_set(samples.location)
    check_place(samples.location, [])
    create_sample_set(samples)
    assert find_sample_set(samples.location) == samples


def test_a_set_begun_otherwise_is_refused_with_what_differs(tmp_path):
    begun = describe(tmp_path)
    compare_sample_sets(begun, begun)
    # measured on the way, and where the training set lies, does not count
    same = replace(begun, n_validation=0, normalisation=Normalisation(), image_scales={})
    compare_sample_sets(begun, replace(same, training_set=SetReference("/moved", "abc")))
    for change, message in (
        ({"n_training": 6}, "n_training: begun with 5, now 6"),
        ({"tile_px": (8, 8)}, r"tile_px: begun with \[8, 6\], now \[8, 8\]"),
        ({"settings": replace(begun.settings, seed=3)}, "settings.seed: begun with 0, now 3"),
        ({"training_set": SetReference("", "x")}, "training_set.fingerprint: begun with 'abc', now 'x'"),
    ):
        with pytest.raises(OutputMismatchError, match=message):
            compare_sample_sets(begun, replace(begun, **change))


def test_foreign_places_are_refused_and_left_as_they_are(tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/notes.txt").write_text("mine")
    for name in ("file", "folder"):
        with pytest.raises(OutputError, match=f"{name} exists and holds no training samples"):
            check_place(str(tmp_path / name), [])
    for place, other in (("set.zarr/inner", "set.zarr"), ("outer", "outer/set.zarr"), ("set.zarr", "set.zarr")):
        with pytest.raises(OutputError, match="lie in each other; inputs are read-only"):
            check_place(str(tmp_path / place), [str(tmp_path / other)])
    check_place(str(tmp_path / "set.zarr-samples"), [str(tmp_path / "set.zarr")])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


@pytest.mark.parametrize("lost", ["images", "weights"])
def test_a_file_that_is_lost_is_noticed_and_not_read_as_zeros(tmp_path, lost):
    samples = describe(tmp_path)
    create_sample_set(samples)
    fill(samples, "training")
    stored = StoredSamples(samples, "training")
    shutil.rmtree(Path(samples.location, "training", lost, "c"))
    with pytest.raises(UnreadableChunkError, match="training sample 2 cannot be read"):
        stored[2]
