"""The layout of a training set: what is written is what is read, and what is missing is known."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from segment_slide.pipeline.errors import InputError
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.image import describe_image
from segment_slide.pipeline.storage.source import select_source
from segment_slide.pipeline.training.records import WeightChoices
from segment_slide.pipeline.training.training_set import (
    AnnotatedImage,
    StoredPixels,
    TrainingSet,
    check_complete,
    create_training_set,
    fingerprint_pixels,
    pending_blocks,
    read_training_set,
)
from tests.flows.support import tree, write_array, write_ome


def make_set(folder: Path, *, shape=(3, 40, 50), block=(1, 16, 16), n_spatial=2) -> tuple[TrainingSet, dict]:
    """A set of one image without weights yet, and its counts."""
    pixels = write_ome(folder / "image.zarr", np.zeros((3, 2, 40, 50), np.uint8), "tcyx", channels=("DAPI", "GFP"))
    image = select_source(describe_image(pixels), n_spatial=2, n_channels=1, channels=["GFP"])
    bare = describe_image(write_array(folder / "labels", np.zeros((3, 40, 50), np.uint16)), axes="tyx")
    labels = select_source(bare, n_spatial=2, n_channels=1)
    described = StoredPixels.describe(image), StoredPixels.describe(labels)
    annotated = AnnotatedImage("cells", "000-cells", shape, block, (5000, 1000), *described)
    training_set = TrainingSet(
        str(folder / "set.zarr"),
        n_spatial,
        ("background", "foreground"),
        (0.6, 3.0),
        (annotated,),
        WeightChoices(w0=7.0),
        ("GFP",),
        (0.5, 0.5),
    )
    grid = [-(-size // step) for size, step in zip(shape, block, strict=True)]
    return training_set, {"cells": np.arange(np.prod(grid) * 2, dtype=np.int64).reshape(*grid, 2)}


def fill(training_set: TrainingSet, index: tuple[int, ...], names=("classes", "weights")) -> None:
    image = training_set.images[0]
    box = tuple(slice(i * step, (i + 1) * step) for i, step in zip(index, image.block, strict=True))
    for name in names:
        array = store.open_array(training_set.location, f"{image.group}/{name}", writable=True)
        store.write_box(array, box, np.zeros(array[box].shape, array.dtype))


def test_a_set_reads_the_channels_that_were_chosen_though_their_names_are_other_numbers(tmp_path):
    pixels = np.arange(3 * 20, dtype=np.uint8).reshape(3, 4, 5)
    image = describe_image(write_ome(tmp_path / "image.zarr", pixels, "cyx", channels=("1", "2", "3")))
    chosen = select_source(image, n_spatial=2, n_channels=2, channels=("name:1", "name:2"))
    opened = StoredPixels.describe(chosen).open()
    assert np.array_equal(opened.read((slice(0, 4), slice(0, 5))), pixels[:2])
    earlier = StoredPixels(image.location, 2, channels=(1, 1))  # 0.1.0 stored what now is refused
    assert np.array_equal(earlier.open().read((slice(0, 4), slice(0, 5))), pixels[[1, 1]])


def test_a_set_is_read_as_it_was_created(tmp_path):
    training_set, counts = make_set(tmp_path)
    create_training_set(training_set, counts, (8, 8))
    found = read_training_set(tmp_path / "set.zarr")
    assert found == training_set
    image = found.images[0]
    assert found.n_classes == 2
    assert image.n_planes_axes == 1
    np.testing.assert_array_equal(found.array(image, "counts")[...], counts["cells"])
    for name, dtype in (("classes", "uint8"), ("weights", "float32")):
        array = found.array(image, name)
        assert (array.shape, array.shards, array.chunks, array.dtype) == ((3, 40, 50), (1, 16, 16), (1, 8, 8), dtype)


def test_pixels_are_opened_again_as_they_were_chosen(tmp_path):
    training_set, counts = make_set(tmp_path)
    create_training_set(training_set, counts, (8, 8))
    image = read_training_set(training_set.location).images[0]
    assert image.image.open().channels == (1,)
    assert image.image.open().shape == (3, 40, 50)
    assert image.labels.open().axes == "tyx"


def test_pixels_that_are_gone_are_named(tmp_path):
    training_set, _ = make_set(tmp_path)
    moved = tmp_path / "image.zarr"
    moved.rename(tmp_path / "elsewhere.zarr")
    with pytest.raises(InputError, match="no such file or directory"):
        training_set.images[0].image.open()


def test_a_block_is_done_when_both_its_shards_are_there(tmp_path):
    training_set, counts = make_set(tmp_path)
    create_training_set(training_set, counts, (8, 8))
    image = training_set.images[0]
    assert len(pending_blocks(training_set, image)) == 3 * 3 * 4
    fill(training_set, (0, 0, 0))
    fill(training_set, (0, 0, 1), ["classes"])
    fill(training_set, (2, 2, 3), ["weights"])
    pending = pending_blocks(training_set, image)
    assert len(pending) == 35
    assert {(0, 0, 1), (2, 2, 3)} <= set(pending)
    assert pending == sorted(pending)
    with pytest.raises(InputError, match=r"35 of \d+ blocks .*: run `segment-slide weight-maps` again"):
        check_complete(training_set)
    for index in pending:
        fill(training_set, index)
    check_complete(training_set)


def test_pixels_in_the_set_are_known_by_what_they_were_ingested_from_and_others_by_their_files(tmp_path):
    inside = write_ome(tmp_path / "set.zarr" / "sources" / "a.ome.zarr", np.zeros((40, 50), np.uint8), "yx")
    plain = fingerprint_pixels(describe_image(inside), "")
    assert fingerprint_pixels(describe_image(inside), str(tmp_path / "set.zarr")) == plain  # no record of an ingest
    store.update_attributes(str(inside), "", {"segment_slide": {"ingested_from": {"fingerprint": "of the file"}}})
    image = describe_image(inside)
    assert fingerprint_pixels(image, str(tmp_path / "set.zarr")) == "of the file"
    assert fingerprint_pixels(image, str(tmp_path / "set")) == plain
    assert fingerprint_pixels(image, "") == plain


def test_notes_are_kept(tmp_path):
    training_set, counts = make_set(tmp_path)
    create_training_set(replace(training_set, notes=("one object",)), counts, (8, 8))
    assert read_training_set(training_set.location).notes == ("one object",)


def test_creating_it_twice_gives_equal_bytes(tmp_path):
    training_set, counts = make_set(tmp_path)
    create_training_set(training_set, counts, (8, 8))
    before = tree(tmp_path / "set.zarr")
    create_training_set(training_set, counts, (8, 8))
    assert tree(tmp_path / "set.zarr") == before


def test_what_is_not_a_training_set_or_half_created_is_refused(tmp_path):
    training_set, _ = make_set(tmp_path)
    with pytest.raises(InputError, match="is not a training set"):
        read_training_set(tmp_path / "image.zarr")
    with pytest.raises(InputError, match="make one with `segment-slide weight-maps`"):
        read_training_set(tmp_path / "nowhere")
    store.create_group(training_set.location, "", [], {"segment_slide": {"kind": "training-set"}})
    with pytest.raises(InputError, match="its labels are not counted yet.*`segment-slide weight-maps`"):
        read_training_set(training_set.location)
