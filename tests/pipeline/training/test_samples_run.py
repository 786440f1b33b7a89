"""Samples on disk: the same bytes for any number of workers and after any crash; only small boxes are read."""

import shutil
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import zarr

from segment_slide.pipeline.errors import IncompleteError, InputError, UnreadableChunkError
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.source import ImageSource
from segment_slide.pipeline.training.records import SampleChoices
from segment_slide.pipeline.training.sample_set import SampleSet, create_sample_set, pending_shards
from segment_slide.pipeline.training.samples_run import (
    SampleJob,
    fingerprint_set,
    make_items,
    note_on_frames,
    plan_task_bytes,
    pool_statistics,
    split_images,
    write_samples,
    write_shard,
)
from segment_slide.pipeline.training.stored_pixels import open_annotation
from segment_slide.pipeline.training.stored_samples import StoredSamples
from segment_slide.pipeline.training.training_set import CLASSES
from segment_slide.unet.annotated import ArrayPixels
from segment_slide.unet.augment_settings import AugmentSettings
from segment_slide.unet.checkpoint import Normalisation
from segment_slide.unet.draw import SampleSettings, draw_sample, plain_places
from segment_slide.unet.sample import IGNORE
from tests.flows.support import tree
from tests.pipeline.training.support import write_training_set

SETTINGS = SampleSettings((16, 16), 1, augment=AugmentSettings(elastic_std_px=2))
VOLUME = SampleSettings((8, 8, 8), 1, augment=AugmentSettings(elastic_std_px=1))


def pixels(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 255, shape, np.uint8)


def classes_of(*shape, seed=0):
    """Three classes, a fifth of the pixels not annotated."""
    return np.random.default_rng(seed + 100).choice(np.array([0, 0, 1, 2, IGNORE], np.uint8), shape)


def write_set(folder, shapes=((70, 90), (40, 130)), n_channels=1, **options):
    images = {
        f"image-{i}": (pixels(n_channels, *shape, seed=i), classes_of(*shape, seed=i)) for i, shape in enumerate(shapes)
    }
    return write_training_set(folder, images, n_classes=3, **options)


def open_all(training_set, offset=10.0, scale=20.0):
    """All images of a set, normalised."""
    items = [open_annotation(training_set, image) for image in training_set.images]
    return [replace(item, offset=(offset,) * item.n_channels, scale=(scale,) * item.n_channels) for item in items]


def make_job(folder, training_set, settings=SETTINGS, n=40, name="samples"):
    """A job whose first image validates and whose others are trained on, and its validation tiles."""
    items = open_all(training_set)
    places = list(plain_places(items[:1], settings.tile_px))
    samples = SampleSet(
        str(folder / f"{name}.zarr"),
        len(settings.tile_px),
        items[0].n_channels,
        settings.depth,
        settings.tile_px,
        n,
        len(places),
        training_set.class_names,
        (),
        (),
        Normalisation(offset=(10.0,) * items[0].n_channels, scale=(20.0,) * items[0].n_channels),
        tuple(item.image.name for item in items[1:]),
        (items[0].image.name,),
        SampleChoices(place_axes=items[0].source.axes),
    )
    create_sample_set(samples)
    return SampleJob(samples, settings, {"training": items[1:], "validation": items[:1]}), places


def fill(job, places, client=None):
    """Make what is missing; the files that were made."""
    items = make_items(job.samples, places)
    write_samples(job, items, client)
    return items


# -- the same bytes ------------------------------------------------------------------------------------------


def test_several_workers_write_the_bytes_that_one_writes(tmp_path, client):
    training_set = write_set(tmp_path)
    one, several = (make_job(tmp_path, training_set, name=name) for name in ("one", "several"))
    assert len(fill(*one)) == len(fill(*several, client)) == 3 + 2
    assert tree(tmp_path / "one.zarr") == tree(tmp_path / "several.zarr")


def test_files_that_were_lost_are_made_again_with_the_same_bytes_and_no_other(tmp_path):
    job, places = make_job(tmp_path, write_set(tmp_path))
    fill(job, places)
    before = tree(tmp_path / "samples.zarr")
    shutil.rmtree(tmp_path / "samples.zarr/training/images/c/1")
    (tmp_path / "samples.zarr/training/classes/c/2/0/0").write_bytes(b"")  # a power cut
    shutil.rmtree(tmp_path / "samples.zarr/validation/weights/c/0")
    made = fill(job, places)
    assert [(item.part, item.number) for item in made] == [("training", 1), ("training", 2), ("validation", 0)]
    assert tree(tmp_path / "samples.zarr") == before
    assert fill(job, places) == []


def test_another_seed_gives_other_samples(tmp_path):
    training_set = write_set(tmp_path)
    for seed in (0, 1):
        fill(*make_job(tmp_path, training_set, replace(SETTINGS, seed=seed), name=f"seed-{seed}"))
    stored = [zarr.open_array(tmp_path / f"seed-{seed}.zarr/training/images")[:] for seed in (0, 1)]
    assert not (stored[0] == stored[1]).all(axis=(1, 2, 3)).any()


@pytest.mark.parametrize("n_channels", [1, 4])
def test_a_stored_sample_is_the_one_drawn_in_memory(tmp_path, n_channels):
    """Blocks as large as the images, so that pixels have the same ranks."""
    training_set = write_set(tmp_path, n_channels=n_channels, block_px=256)
    job, places = make_job(tmp_path, training_set, n=20)
    fill(job, places)
    image, classes = pixels(n_channels, 40, 130, seed=1), classes_of(40, 130, seed=1)
    normalised = (image.astype(np.float32) - np.float32(10)) / np.float32(20)
    weights = np.where(classes == IGNORE, 0, 1 + classes).astype(np.float32)
    source = ArrayPixels(normalised, classes, weights)
    stored = StoredSamples(job.samples, "training")
    for number in range(20):
        sample, place = draw_sample([source], SETTINGS, number)
        for name in ("image", "classes", "weights"):
            np.testing.assert_array_equal(getattr(stored[number], name), getattr(sample, name))
        assert stored.place(number) == (0.0, *place.centre_px)


def test_a_file_that_fails_is_named_and_the_others_are_kept(tmp_path):
    training_set = write_set(tmp_path)
    job, places = make_job(tmp_path, training_set)
    (tmp_path / "image-0.zarr/c/0/0/0").write_bytes(b"damaged")  # the image that validates
    with pytest.raises(IncompleteError, match=r"2 of 5 files[\s\S]*validation file 0: unreadable chunk"):
        fill(job, places)
    assert pending_shards(job.samples, "training") == []
    assert pending_shards(job.samples, "validation") == [0, 1]


# -- annotated images on disk --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("axes", "shape"), [("cyx", (70, 90)), ("tcyx", (3, 40, 50)), ("tzcyx", (2, 3, 20, 30)), ("czyx", (20, 30, 40))]
)
def test_every_annotated_pixel_has_one_rank_whatever_the_blocks(tmp_path, axes, shape):
    classes = classes_of(*shape)
    stored = pixels(*shape) if axes != "czyx" else pixels(1, *shape)
    position = axes.index("c")
    stored = stored if axes == "czyx" else np.expand_dims(stored, position)
    training_set = write_training_set(
        tmp_path, {"a": (stored, classes)}, axes=axes, block_px=16, chunk_px=8, n_classes=3
    )
    item = open_all(training_set)[0]
    assert item.planes + item.spatial == shape
    for foreground in (False, True):
        wanted = (classes != IGNORE) & ((classes > 0) | (not foreground))
        total = item.count(foreground=foreground)
        ranks = range(0, total, max(1, total // 50))
        found = [item.locate(rank, foreground=foreground) for rank in ranks]
        assert len(set(found)) == len(found)
        assert all(wanted[index] for index in found)
        assert total == wanted.sum()


def test_every_pixel_of_a_small_image_is_found_once(tmp_path):
    classes = classes_of(20, 23)
    training_set = write_training_set(
        tmp_path, {"a": (pixels(1, 20, 23), classes)}, block_px=8, chunk_px=8, n_classes=3
    )
    item = open_all(training_set)[0]
    found = sorted(item.locate(rank, foreground=True) for rank in range(item.count(foreground=True)))
    assert found == [tuple(map(int, i)) for i in np.argwhere((classes > 0) & (classes != IGNORE))]


def test_boxes_are_read_as_from_memory_inside_and_beyond_the_image(tmp_path):
    training_set = write_set(tmp_path)
    item = open_all(training_set, offset=0.0, scale=1.0)[0]
    classes = classes_of(70, 90)
    memory = ArrayPixels(
        pixels(1, 70, 90).astype(np.float32), classes, np.where(classes == IGNORE, 0, 1 + classes).astype(np.float32)
    )
    for box in ((slice(0, 70), slice(0, 90)), (slice(-30, 20), slice(60, 200)), (slice(-9, -2), slice(95, 99))):
        np.testing.assert_array_equal(item.read_image((), box), memory.read_image((), box))
        for stored, held in zip(item.read_annotation((), box), memory.read_annotation((), box), strict=True):
            np.testing.assert_array_equal(stored, held)
            assert stored.dtype == held.dtype
        assert item.has_annotation((), box) == memory.has_annotation((), box)


def test_a_box_beside_a_wholly_annotated_image_holds_nothing(tmp_path):
    training_set = write_training_set(tmp_path, {"a": (pixels(1, 70, 90), np.ones((70, 90), np.uint8))})
    item = open_all(training_set)[0]
    assert item.has_annotation((), (slice(60, 80), slice(-5, 5)))
    assert not item.has_annotation((), (slice(70, 80), slice(0, 5)))
    assert not item.has_annotation((), (slice(0, 5), slice(-9, 0)))


def test_planes_of_a_stack_are_read_one_by_one(tmp_path):
    classes = np.full((4, 40, 40), IGNORE, np.uint8)
    classes[2, 10:20, 10:20] = 1
    stored = np.broadcast_to(np.arange(4, dtype=np.uint8)[:, None, None], (4, 40, 40)).copy()
    training_set = write_training_set(tmp_path, {"stack": (stored, classes)}, axes="tyx")
    item = open_all(training_set, 0.0, 1.0)[0]
    for number in range(10):
        sample, place = draw_sample([item], SETTINGS, number)
        assert place.plane == (2,)
        assert abs(sample.image - 2).max() < 1  # grey values vary a little
        assert (sample.classes == 1).any()
    assert {place.plane for place in plain_places([item], (16, 16))} == {(2,)}


def test_a_sample_of_a_large_image_reads_small_boxes_only(tmp_path, monkeypatch):
    shape = (1500, 1700)
    classes = np.full(shape, IGNORE, np.uint8)
    classes[700:760, 800:850] = 1
    training_set = write_training_set(tmp_path, {"a": (pixels(1, *shape), classes)}, block_px=256, chunk_px=64)
    item, boxes = open_all(training_set)[0], []
    read = ImageSource.read

    def record(source, box):
        boxes.append(box)
        return read(source, box)

    monkeypatch.setattr(ImageSource, "read", record)
    widest = int(np.hypot(*SETTINGS.read_px) + 10 * 2)
    for number in range(10):
        sample, _ = draw_sample([item], SETTINGS, number)
        assert (sample.classes == 1).any()
    assert len(boxes) == 10
    assert all(part.stop - part.start <= widest for box in boxes for part in box)


def test_finding_tiles_reads_no_block_in_which_nothing_is_annotated(tmp_path, monkeypatch):
    classes = np.full((512, 512), IGNORE, np.uint8)
    classes[100:110, 300:310] = 0
    training_set = write_training_set(tmp_path, {"a": (pixels(1, 512, 512), classes)}, block_px=64, chunk_px=32)
    item = open_all(training_set)[0]
    reads = []
    read = type(item)._read
    monkeypatch.setattr(type(item), "_read", lambda self, name, box: reads.append(box) or read(self, name, box))
    assert len(list(plain_places([item], (16, 16)))) == 2
    assert len(reads) == 16  # the tiles of the one block that holds something


def test_an_image_that_changed_is_refused(tmp_path):
    training_set = write_set(tmp_path)
    zarr.open_array(tmp_path / "image-1.zarr")[...] = 7
    open_annotation(training_set, training_set.images[0])
    with pytest.raises(InputError, match="image image-1 .* has changed since the training set .* was made"):
        open_annotation(training_set, training_set.images[1])


def test_classes_that_are_not_those_counted_are_refused(tmp_path):
    training_set = write_set(tmp_path)
    item = open_all(training_set)[0]
    store.open_array(training_set.location, f"image-0/{CLASSES}", writable=True)[:64, :64] = IGNORE
    with pytest.raises(InputError, match=r"block \(0, 0\) holds 0 annotated pixels, \d+ were counted"):
        item.locate(0, foreground=False)


@pytest.mark.parametrize("lost", [["classes", "weights"], ["weights"]], ids=" and ".join)
def test_a_lost_file_of_a_complete_set_is_not_read_as_zeros(tmp_path, lost):
    training_set = write_set(tmp_path)
    item = open_all(training_set)[0]
    for name in lost:
        (tmp_path / "set.zarr" / "image-0" / name / "c" / "0" / "1").unlink()
    item.read_annotation((), (slice(0, 60), slice(0, 64)))
    with pytest.raises(UnreadableChunkError, match=r"set\.zarr: .* image image-0 .*0:60, 30:90.*weight-maps` again"):
        item.read_annotation((), (slice(0, 60), slice(30, 90)))


def test_pixels_of_a_class_whose_weight_is_0_may_weigh_nothing(tmp_path):
    classes = np.ones((20, 20), np.uint8)
    weights = {"a": np.zeros((20, 20), np.float32)}
    training_set = write_training_set(tmp_path, {"a": (pixels(1, 20, 20), classes)}, weights=weights)
    weightless = replace(training_set, class_weights=(1.0, 0.0))
    assert not open_all(weightless)[0].read_annotation((), (slice(0, 20),) * 2)[1].any()


# -- which images, which intensities -------------------------------------------------------------------------


def test_images_are_split_by_seed_and_never_within_an_image(tmp_path):
    training_set = write_set(tmp_path, shapes=((20, 20),) * 10)
    seen = set()
    for seed in range(8):
        training, validation = split_images(training_set, share=0.2, names=(), seed=seed)
        names = [image.name for image in training], [image.name for image in validation]
        assert (len(training), len(validation)) == (8, 2)
        assert sorted(names[0] + names[1]) == [image.name for image in training_set.images]
        assert split_images(training_set, share=0.2, names=(), seed=seed)[1] == validation
        seen.add(tuple(names[1]))
    assert len(seen) > 3


@pytest.mark.parametrize(
    ("n_images", "share", "expected"), [(1, 0.2, 0), (2, 0.2, 1), (2, 0.9, 1), (3, 0.0, 0), (4, 0.5, 2)]
)
def test_at_least_one_image_validates_if_there_are_two(tmp_path, n_images, share, expected):
    training_set = write_set(tmp_path, shapes=((20, 20),) * n_images)
    assert len(split_images(training_set, share=share, names=(), seed=0)[1]) == expected


def test_named_images_validate(tmp_path):
    training_set = write_set(tmp_path, shapes=((20, 20),) * 3)
    training, validation = split_images(training_set, share=0.2, names=("image-2",), seed=0)
    assert [image.name for image in training] == ["image-0", "image-1"]
    assert [image.name for image in validation] == ["image-2"]


def test_a_split_that_cannot_be_is_refused(tmp_path):
    training_set = write_set(tmp_path, shapes=((20, 20),) * 2)
    with pytest.raises(InputError, match="'image-7' is not among the annotated images of .*: image-0, image-1"):
        split_images(training_set, share=0.2, names=("image-7",), seed=0)
    with pytest.raises(InputError, match="all 2 annotated images would validate"):
        split_images(training_set, share=0.2, names=("image-0", "image-1"), seed=0)
    with pytest.raises(InputError, match=r"share=1\.0, expected 0 to below 1"):
        split_images(training_set, share=1.0, names=(), seed=0)
    empty = write_training_set(
        tmp_path / "empty", {"a": (pixels(1, 9, 9), np.full((9, 9), IGNORE, np.uint8))}, n_classes=3
    )
    with pytest.raises(InputError, match="no pixel of any image is annotated"):
        split_images(empty, share=0.2, names=(), seed=0)


@pytest.mark.parametrize(
    ("training", "validation", "expected"),
    [
        (["t000", "t002"], ["t001"], ("t001", "t000")),
        (["01-t009", "02-t007"], ["02-t008"], ("02-t008", "02-t007")),
        (["b"], ["a9", "c1_z10.x"], None),
        (["c1_z9.x"], ["a", "c1_z10.x"], ("c1_z10.x", "c1_z9.x")),
        (["t000", "t002"], ["t004"], None),
        (["s1", "s2"], ["t3"], None),
        (["a1b"], ["a2c"], None),
        (["t000"], [], None),
    ],
    ids=str,
)
def test_neighbouring_frames_on_both_sides_of_the_split_are_told(training, validation, expected):
    note = note_on_frames(training, validation)
    if expected is None:
        assert note is None
    else:
        assert note.startswith(f"validation image {expected[0]} and training image {expected[1]} are neighbours")
        assert "`validation_images`" in note


def test_pooled_statistics_of_one_image_are_its_own(tmp_path):
    from segment_slide.pipeline.statistics.measure import measure

    measured = measure(open_all(write_set(tmp_path))[0].source)
    assert pool_statistics([measured]) == (measured.mean, measured.std)


def test_the_fingerprint_of_a_set_follows_its_content_and_not_its_place(tmp_path):
    training_set = write_set(tmp_path)
    assert fingerprint_set(replace(training_set, location="elsewhere")) == fingerprint_set(training_set)
    moved = replace(training_set.images[0].image, location="/elsewhere/a.zarr")
    images = (replace(training_set.images[0], image=moved, labels=moved), *training_set.images[1:])
    assert fingerprint_set(replace(training_set, images=images)) == fingerprint_set(training_set)
    changed = replace(images[0], image=replace(moved, fingerprint="another"))
    assert fingerprint_set(replace(training_set, images=(changed, *images[1:]))) != fingerprint_set(training_set)
    assert fingerprint_set(replace(training_set, class_weights=(1.0, 2.0, 1.0))) != fingerprint_set(training_set)


# -- memory --------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "n_channels"), [(SampleSettings((64, 64), 3), 3), (SampleSettings((16,) * 3, 2), 1)]
)
def test_making_a_file_takes_no_more_memory_than_planned(tmp_path, settings, n_channels):
    shape = (200, 220) if len(settings.tile_px) == 2 else (60, 70, 80)
    axes = "cyx" if len(shape) == 2 else "czyx"
    images = {name: (pixels(n_channels, *shape, seed=i), classes_of(*shape)) for i, name in enumerate("ab")}
    training_set = write_training_set(tmp_path, images, axes=axes, n_classes=3)
    job, places = make_job(tmp_path, training_set, settings, n=16)
    item = make_items(job.samples, places)[0]
    write_shard(job, item)  # compiled and imported
    tracemalloc.start()
    try:
        write_shard(job, item)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    planned = plan_task_bytes(job.samples, settings)
    assert planned / 6 < peak <= planned
