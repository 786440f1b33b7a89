"""Weight maps of Zarr label images, block by block: the bits of the whole, here, on Dask, and after crashes."""

import math
import time
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

from segment_slide.pipeline.errors import IncompleteError, InputError, OutputError, OutputMismatchError, PlanError
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.training import weights_block, weights_inputs, weights_plan
from segment_slide.pipeline.training.annotation import find_annotation
from segment_slide.pipeline.training.class_counts import count_classes, describe_set
from segment_slide.pipeline.training.options import AnnotationInput, WeightOptions
from segment_slide.pipeline.training.training_set import (
    check_complete,
    create_training_set,
    pending_blocks,
    read_training_set,
)
from segment_slide.pipeline.training.weights_plan import is_counted, plan_weight_maps
from segment_slide.pipeline.training.weights_run import make_weights
from segment_slide.unet.errors import TrainingDataError
from segment_slide.unet.weight_map import count_class_weights, cut_ridges, ridge_offsets, weight_map
from segment_slide.unet.weight_settings import WeightSettings
from tests.flows.support import shards, tree, write_array, write_ome
from tests.tiers import exhaustive
from tests.unet.test_weight_map import draw_cells

NARROW = WeightSettings(sigma_px=2.0)  # reach 13 px, so that small blocks will do


def plan_for(folder: Path, labels: np.ndarray, axes="yx", *, name="set.zarr", n_spatial=2, **choices):
    """A plan for one image whose annotation is given."""
    if not (folder / "labels").exists():
        write_array(folder / "image", np.zeros(labels.shape, np.uint8), chunk=32)
        write_array(folder / "labels", labels, chunk=29)
    wanted = AnnotationInput((str(folder / "image"),), (str(folder / "labels"),), axes=axes, n_spatial=n_spatial)
    return plan_weight_maps(find_annotation(wanted), WeightOptions(**{"settings": NARROW} | choices), folder / name)


def run(plan, client=None, on_block=lambda n_pixels: None):
    """What `flows.weight_maps` does, without its progress: the training set."""
    weights_inputs.begin(plan)
    for location, planned in weights_inputs.inputs_to_ingest(plan):
        weights_inputs.ingest(location, planned)
    found = weights_inputs.open_pixels(plan)
    weights_inputs.find_annotated_objects(
        found, weights_inputs.pending_planes(plan, found), client, lambda n_pixels: None
    )
    jobs = weights_inputs.object_jobs(plan, found)
    if not is_counted(plan):
        counts, notes = count_classes(plan, jobs, client, lambda n_pixels: None)
        create_training_set(describe_set(plan, found, counts, notes), counts, (plan.chunk,) * plan.n_spatial)
    training_set = read_training_set(plan.location)
    jobs = [weights_block.replace_weights(job, training_set.class_weights) for job in jobs]
    pending = [pending_blocks(training_set, image) for image in training_set.images]
    make_weights(jobs, pending, client, on_block)
    check_complete(training_set)
    return training_set


def stored(training_set, number=0):
    image = training_set.images[number]
    return tuple(np.asarray(training_set.array(image, name)[...]) for name in ("classes", "weights"))


def assert_same_bits(found, expected):
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1].view(np.uint32), expected[1].view(np.uint32))


# -- the whole image's bits --------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [14, exhaustive(16), exhaustive(20), 33, exhaustive(64), 200])
def test_blocks_of_any_size_give_the_bits_of_the_whole(tmp_path, block):
    labels = draw_cells(block)
    assert_same_bits(stored(run(plan_for(tmp_path, labels, block=block))), weight_map(labels, NARROW))


def test_the_papers_sigma_on_blocks_of_48_gives_the_bits_of_the_whole(tmp_path):
    labels = draw_cells(1, shape=(150, 131), cells=25)
    plan = plan_for(tmp_path, labels, block=48, settings=WeightSettings())
    assert_same_bits(stored(run(plan)), weight_map(labels))


def test_wide_ridges_across_blocks_are_cut_as_in_the_whole(tmp_path):
    labels, settings = draw_cells(9), WeightSettings(w0=0, ridge_px=5)
    plan = plan_for(tmp_path, labels, block=8, settings=settings)
    assert plan.grid(plan.annotation.pairs[0]).halos == (3, 3)
    training_set = run(plan)
    expected = weight_map(labels, settings)
    assert_same_bits(stored(training_set), expected)
    assert training_set.images[0].class_counts == tuple(np.bincount(expected.classes.ravel()))


def test_a_ridge_cut_without_its_halo_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(weights_block, "ridge_halo", lambda settings: 0)
    labels = draw_cells(9)
    training_set = run(plan_for(tmp_path, labels, block=16))
    counts = np.bincount(weight_map(labels, NARROW).classes.ravel())
    assert training_set.images[0].class_counts != tuple(counts)


def test_a_halo_that_is_too_small_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(weights_plan, "halo", lambda settings, ndim: (3,) * ndim)
    labels = draw_cells(3)
    weights = stored(run(plan_for(tmp_path, labels, block=16)))[1]
    assert np.abs(weights - weight_map(labels, NARROW).weights).max() > 1e-5


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (15, 100)], ids=str)
def test_images_narrower_than_the_halo_are_fine(tmp_path, shape):
    labels = np.zeros(shape, np.uint8)
    labels[..., : max(1, shape[-1] // 3)] = 1
    labels[0, 0] = 2
    labels[-1, -1] = 0 if labels.size > 1 else 1
    if labels.size == 1:
        with pytest.raises(InputError, match="everything annotated has class 1"):
            run(plan_for(tmp_path, labels, block=16))
        return
    assert_same_bits(stored(run(plan_for(tmp_path, labels, block=16))), weight_map(labels, NARROW))


def test_an_image_of_one_pixel_beside_another_is_fine(tmp_path):
    for name, labels in (("a", np.ones((1, 1), np.uint8)), ("b", np.zeros((1, 1), np.uint8))):
        write_ome(tmp_path / "i" / f"{name}.zarr", labels, "yx")
        write_ome(tmp_path / "m" / f"{name}.zarr", labels, "yx")
    found = find_annotation(AnnotationInput((str(tmp_path / "i"),), (str(tmp_path / "m"),)))
    training_set = run(plan_weight_maps(found, WeightOptions(), tmp_path / "set.zarr"))
    assert [stored(training_set, number)[1].item() for number in (0, 1)] == [1.0, 1.0]


def test_planes_are_weighed_one_by_one_with_class_weights_of_all(tmp_path):
    labels = np.stack([draw_cells(seed, shape=(40, 50)) for seed in range(4)]).reshape(2, 2, 40, 50)
    training_set = run(plan_for(tmp_path, labels, "tzyx", block=16))
    w_c = count_class_weights(
        np.bincount(np.concatenate([cut_ridges(p).ravel() > 0 for p in labels.reshape(4, 40, 50)]))
    )
    assert training_set.class_weights == w_c
    for place in np.ndindex(2, 2):
        expected = weight_map(labels[place], NARROW, class_weights=w_c)
        assert_same_bits([array[place] for array in stored(training_set)], expected)


@pytest.mark.parametrize("spacing", [(), (4.0, 1.0, 1.0)], ids=str)
def test_volumes_give_the_bits_of_the_whole(tmp_path, spacing):
    labels = draw_cells(4, shape=(20, 33, 35), cells=9)
    settings = WeightSettings(sigma_px=1.5, spacing=spacing)
    plan = plan_for(tmp_path, labels, "zyx", n_spatial=3, block=16, settings=settings)
    assert_same_bits(stored(run(plan)), weight_map(labels, settings))


def test_a_label_image_without_the_axes_of_size_1_is_read_where_the_image_has_them(tmp_path):
    labels = draw_cells(2, shape=(30, 40))
    write_ome(tmp_path / "a.zarr", np.zeros((1, 2, 1, 30, 40), np.uint8), "tczyx")
    write_ome(tmp_path / "b.zarr", labels, "yx")
    found = find_annotation(AnnotationInput((str(tmp_path / "a.zarr"),), (str(tmp_path / "b.zarr"),)))
    training_set = run(plan_weight_maps(found, WeightOptions(settings=NARROW, block=16), tmp_path / "set.zarr"))
    assert training_set.images[0].shape == (1, 1, 30, 40)
    assert_same_bits([array[0, 0] for array in stored(training_set)], weight_map(labels, NARROW))


def test_ids_of_64_bits_stay_distinct(tmp_path):
    small = draw_cells(7)
    labels = np.where(small > 0, small.astype(np.uint64) << np.uint64(40), np.uint64(0))
    assert_same_bits(stored(run(plan_for(tmp_path, labels, block=33))), weight_map(small, NARROW))


# -- Dask, resuming ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["instances", "binary"])
def test_two_workers_write_the_bytes_that_this_process_writes(tmp_path, client, kind):
    labels = np.stack([draw_cells(seed) for seed in range(2)])
    here = plan_for(tmp_path, labels, "zyx", block=20, kind=kind)
    there = plan_for(tmp_path, labels, "zyx", block=20, kind=kind, name="dask.zarr")
    seen = []
    assert run(here).record() == run(there, client, seen.append).record()
    assert tree(Path(here.location)) == tree(Path(there.location))
    assert sum(seen) == labels.size  # each pixel in one block
    assert len(seen) == here.n_blocks


@pytest.mark.parametrize("on_dask", [False, True], ids=["here", "Dask"])
def test_missing_shards_alone_are_made_again_and_the_bytes_are_equal(tmp_path, client, on_dask):
    plan = plan_for(tmp_path, draw_cells(0), block=20)
    training_set = run(plan)
    before = tree(Path(plan.location))
    group = Path(plan.location, training_set.images[0].group)
    lost = [shards(group / "weights")[0, 1], shards(group / "weights")[3, 4], shards(group / "classes")[2, 2]]
    for path in lost:
        path.unlink()
    with pytest.raises(InputError, match=r"3 of \d+ blocks of weight maps are missing"):
        check_complete(training_set)
    seen = []
    run(plan, client if on_dask else None, seen.append)
    assert len(seen) == 3
    assert tree(Path(plan.location)) == before


def test_a_complete_set_is_left_as_it_is(tmp_path):
    plan = plan_for(tmp_path, draw_cells(0), block=33)
    run(plan)
    before, seen = tree(Path(plan.location)), []
    run(plan_for(tmp_path, draw_cells(0), block=33), None, seen.append)
    assert not seen
    assert tree(Path(plan.location)) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"block": 66}, "sizes.block: begun with 33, now 66"),
        ({"ignore": 7}, "annotation.ignore: begun with None, now 7"),
        ({"kind": "binary"}, "annotation.kind: begun with 'instances', now 'binary'"),
        ({"settings": WeightSettings(sigma_px=2.0, w0=5)}, "weights.w0: begun with 10.0, now 5"),
    ],
    ids=["block", "ignore", "kind", "w0"],
)
def test_going_on_with_other_choices_is_refused_naming_them(tmp_path, change, message):
    run(plan_for(tmp_path, draw_cells(0), block=33))
    with pytest.raises(OutputMismatchError, match=message):
        plan_for(tmp_path, draw_cells(0), **{"block": 33} | change)


def test_what_another_run_counted_since_the_plan_was_made_is_kept(tmp_path):
    late = plan_for(tmp_path, draw_cells(0), block=33, kind="binary")
    run(plan_for(tmp_path, draw_cells(0), block=33))
    before = tree(tmp_path / "set.zarr")
    with pytest.raises(OutputMismatchError, match="annotation.kind"):
        run(late)
    assert tree(tmp_path / "set.zarr") == before


def test_going_on_with_a_changed_annotation_is_refused(tmp_path):
    run(plan_for(tmp_path, draw_cells(0), block=33))
    zarr.open_array(tmp_path / "labels", mode="r+")[:5] = 3
    with pytest.raises(OutputMismatchError, match=r"inputs.image \(labels\): begun with"):
        plan_for(tmp_path, draw_cells(0), block=33)


def test_until_classes_are_counted_other_choices_begin_anew(tmp_path):
    labels = np.where(draw_cells(0) > 0, 255, 0).astype(np.uint8)
    with pytest.raises(InputError, match="'binary'"):
        run(plan_for(tmp_path, labels, kind="classes"))
    run(plan_for(tmp_path, labels, kind="binary"))
    run(plan_for(tmp_path, labels, kind="binary", name="fresh.zarr"))
    assert tree(tmp_path / "set.zarr") == tree(tmp_path / "fresh.zarr")


# -- kinds of annotation -----------------------------------------------------------------------------------------


def test_a_mask_is_split_into_its_components(tmp_path):
    from scipy.ndimage import label

    mask = draw_cells(3) > 0
    components, count = label(mask)
    assert count > 3
    found = stored(run(plan_for(tmp_path, np.where(mask, 255, 0).astype(np.uint8), kind="binary", block=20)))
    assert_same_bits(found, weight_map(components, NARROW))


def cut_within_classes(objects: np.ndarray, classes: np.ndarray, ridge_px: int) -> np.ndarray:
    """An oracle, pixel by pixel: objects whose ridges lie between objects of one class only."""
    cut = objects.copy()
    for place in np.argwhere(objects > 0):
        for offset in ridge_offsets(ridge_px, objects.ndim):
            other = tuple(place + offset)
            if all(0 <= i < size for i, size in zip(other, objects.shape, strict=True)):
                here = tuple(place)
                if objects[other] not in (0, objects[here]) and classes[other] == classes[here]:
                    cut[here] = 0
    return cut


@pytest.mark.parametrize("ridge_px", [0, 1, 2, 3])
def test_a_class_map_has_a_weight_per_class_and_a_border_between_objects_of_all_classes(tmp_path, ridge_px):
    from scipy.ndimage import label

    settings = replace(NARROW, ridge_px=ridge_px)
    classes = (draw_cells(3) % 3).astype(np.int8)
    classes[5:9, 5:40] = -1
    plan = plan_for(tmp_path, classes, kind="classes", ignore=-1, block=20, settings=settings)
    training_set = run(plan)
    objects = np.zeros(classes.shape, int)
    for value in (1, 2):
        components, _ = label(classes == value)
        objects += np.where(components > 0, components + value * 1000, 0)
    objects = cut_within_classes(objects, classes, ridge_px)
    uncut = replace(NARROW, ridge_px=0)
    expected = weight_map(objects, uncut, classes=np.where(classes < 0, 255, classes).astype(np.uint8))
    assert_same_bits(stored(training_set), expected)
    assert training_set.class_names == ("background", "class 1", "class 2")
    assert training_set.images[0].class_counts == tuple(np.bincount(expected.classes.ravel())[:3])


def test_a_nucleus_in_its_cytoplasm_keeps_all_its_pixels(tmp_path):
    classes = np.zeros((30, 30), np.uint8)
    classes[5:25, 5:25] = 1
    classes[10:20, 10:20] = 2
    training_set = run(plan_for(tmp_path, classes, kind="classes", block=16))
    np.testing.assert_array_equal(stored(training_set)[0], classes)
    assert training_set.images[0].class_counts == (500, 300, 100)


def test_objects_of_one_class_that_touch_by_a_corner_are_still_parted(tmp_path):
    classes = np.zeros((30, 30), np.uint8)
    classes[5:10, 5:10] = classes[10:15, 10:15] = 1
    classes[20:25, 20:25] = 2
    expected = classes.copy()
    expected[10, 10] = 0  # its NW neighbour is another object
    np.testing.assert_array_equal(stored(run(plan_for(tmp_path, classes, kind="classes", block=16)))[0], expected)


@pytest.mark.parametrize("kind", ["binary", "classes"])
def test_classes_are_the_same_with_and_without_the_border_term(tmp_path, kind):
    mask = np.zeros((30, 30), np.uint8)
    mask[5:10, 5:10] = mask[10:15, 10:15] = 1
    found = [
        stored(run(plan_for(tmp_path, mask, kind=kind, block=16, name=f"{w0}.zarr", settings=replace(NARROW, w0=w0))))
        for w0 in (10, 0)
    ]
    np.testing.assert_array_equal(found[0][0], found[1][0])
    assert found[1][0][10, 10] == 0
    assert len(np.unique(found[1][1])) == 2


def test_without_the_border_term_and_ridges_no_objects_are_looked_for(tmp_path):
    classes = np.zeros((20, 30), np.uint8)
    classes[:, 20:] = 2
    names = ("glass", "never", "cell")
    plan = plan_for(
        tmp_path, classes, kind="classes", settings=WeightSettings(w0=0, ridge_px=0), block=16, class_names=names
    )
    training_set = run(plan)
    assert not Path(plan.location, "objects").exists()
    assert_same_bits(stored(training_set), [classes, np.where(classes == 2, np.float32(1.5), np.float32(0.75))])
    assert training_set.class_weights == (0.75, 0.0, 1.5)


@pytest.mark.parametrize("block", [16, 64])
def test_a_mask_under_the_kind_instances_is_noted(tmp_path, block):
    mask = np.where(draw_cells(3) > 0, np.uint8(255), np.uint8(0))
    (note,) = run(plan_for(tmp_path, mask, block=block)).notes
    assert note.startswith("1 of 1 label images have one value beside 0")
    assert "image (255)" in note
    assert "`kind='binary'`" in note
    mask[mask == 0] = 7
    assert run(plan_for(tmp_path, mask, block=block, ignore=7, kind="binary", name="b.zarr")).notes == ()


@pytest.mark.parametrize("block", [16, 64], ids=["in another block", "in the same"])
@pytest.mark.parametrize("other", [254, 7], ids=["the last", "the first"])
def test_a_second_object_needs_no_note(tmp_path, other, block):
    labels = np.zeros((40, 40), np.uint8)
    labels[:5, :5], labels[30:, 30:] = 255, other
    assert run(plan_for(tmp_path, labels, block=block)).notes == ()


def test_a_mask_of_bool_under_the_kind_instances_is_refused(tmp_path):
    write_array(tmp_path / "image", np.zeros((20, 30), np.uint8))
    zarr.create_array(tmp_path / "labels", shape=(20, 30), dtype="bool")[:10] = True
    with pytest.raises(InputError, match="dtype=bool.*'binary'"):
        plan_for(tmp_path, np.zeros(1))
    assert stored(run(plan_for(tmp_path, np.zeros(1), kind="binary")))[0].sum() == 300


def test_class_names_are_kept_and_checked(tmp_path):
    labels = (draw_cells(0) % 3).astype(np.uint8)
    with pytest.raises(InputError, match="hold class 2, but 2 classes are named: glass, cell"):
        run(plan_for(tmp_path, labels, kind="classes", class_names=("glass", "cell")))
    named = ("glass", "cell", "debris", "never")
    training_set = run(plan_for(tmp_path, labels, kind="classes", class_names=named))
    assert training_set.class_names == named
    assert training_set.class_weights[3] == 0
    with pytest.raises(InputError, match="kind 'instances' has 2 classes"):
        plan_for(tmp_path, labels, class_names=("a", "b", "c"), name="other.zarr")


def test_ignored_pixels_count_nowhere(tmp_path):
    labels = draw_cells(6).astype(np.uint16)
    labels[:20] = 65535
    training_set = run(plan_for(tmp_path, labels, ignore=65535, block=20))
    classes, weights = stored(training_set)
    assert (classes[:20] == 255).all()
    assert not weights[:20].any()
    assert sum(training_set.images[0].class_counts) == labels[20:].size
    expected = weight_map(
        np.where(labels == 65535, 0, labels), NARROW, classes=np.where(classes == 255, 255, labels > 0).astype(np.uint8)
    )
    assert_same_bits((classes, weights), expected)


def test_counts_of_blocks_add_up_and_the_mean_weight_of_classes_is_1(tmp_path):
    training_set = run(plan_for(tmp_path, draw_cells(0), block=20, settings=WeightSettings(w0=0)))
    image = training_set.images[0]
    classes, weights = stored(training_set)
    counts = np.asarray(training_set.array(image, "counts")[...])
    assert counts[1, 2].tolist() == np.bincount(classes[20:40, 40:60].ravel(), minlength=2).tolist()
    assert counts.sum(axis=(0, 1)).tolist() == list(image.class_counts)
    assert math.isclose(weights.mean(dtype=float), 1, rel_tol=1e-6)


def write_pair(folder: Path, name: str, labels: np.ndarray) -> None:
    for where, pixels in (("i", np.zeros(labels.shape, np.uint8)), ("m", labels)):
        (folder / where).mkdir(exist_ok=True)
        tifffile.imwrite(folder / where / f"{name}.tif", pixels)


def plan_folder(folder: Path, **choices):
    found = find_annotation(AnnotationInput((str(folder / "i"),), (str(folder / "m"),)))
    return plan_weight_maps(found, WeightOptions(**{"settings": NARROW} | choices), folder / "set.zarr")


def test_files_are_ingested_into_the_set_bit_for_bit_and_weighed_together(tmp_path, client):
    values = [draw_cells(seed, shape=(40, 40 + seed)).astype(np.uint16) * 521 for seed in range(3)]
    values.append(np.zeros((30, 30), np.uint16))  # glass
    for seed, labels in enumerate(values):
        write_pair(tmp_path, f"t{seed}", labels)
    training_set = run(plan_folder(tmp_path, block=32), client)
    total = sum(np.bincount((cut_ridges(labels) > 0).ravel(), minlength=2) for labels in values)
    assert training_set.class_weights == count_class_weights(total)
    for number, labels in enumerate(values):
        source = training_set.images[number].labels.open()
        np.testing.assert_array_equal(source.read(tuple(map(slice, [0, 0], labels.shape)))[0], labels)
        expected = weight_map(labels, NARROW, class_weights=training_set.class_weights)
        assert_same_bits(stored(training_set, number), expected)


@pytest.mark.parametrize(
    ("labels", "choices", "message"),
    [
        (np.full((9, 9), 7, np.uint8), {"ignore": 7}, "nothing is annotated: all labels have the ignored value 7"),
        (np.zeros((9, 9), np.uint8), {}, "nothing is foreground: all labels are 0"),
        (np.full((9, 9), 7, np.uint8), {}, "everything annotated has class 1"),
        (np.full((9, 9), -2, np.int16), {"ignore": -1}, "image, block .* the value -2"),
        (np.full((9, 9), 300, np.int16), {"kind": "classes"}, "image: the labels hold the value 300"),
        (np.eye(9, dtype=np.uint8) * 17, {"kind": "classes"}, "hold class 17, but nothing of class 1"),
    ],
    ids=["all ignored", "no foreground", "no background", "negative", "no classes", "a gap"],
)
def test_annotations_that_nothing_can_be_learnt_from_are_refused(tmp_path, labels, choices, message):
    plan = plan_for(tmp_path, labels, **choices)
    with pytest.raises(InputError, match=message):
        run(plan)
    assert not is_counted(plan)


def test_one_image_of_several_that_is_all_ignored_is_named(tmp_path):
    write_pair(tmp_path, "seen", draw_cells(0).astype(np.uint8))
    write_pair(tmp_path, "blank", np.full((9, 9), 200, np.uint8))
    with pytest.raises(InputError, match="^blank: all labels have the ignored value"):
        run(plan_folder(tmp_path, ignore=200))


# -- plans -------------------------------------------------------------------------------------------------------


def test_blocks_smaller_than_the_halo_are_refused_with_the_smallest_that_works(tmp_path):
    labels = draw_cells(0)
    with pytest.raises(PlanError, match=r"block=13 px is smaller than the halo of 14 px.*block=16"):
        plan_for(tmp_path, labels, block=13)
    with pytest.raises(PlanError, match="chunk=5 px does not divide block=16"):
        plan_for(tmp_path, labels, block=16, chunk=5)
    with pytest.raises(PlanError, match="expected positive"):
        plan_for(tmp_path, labels, block=-1)
    with pytest.raises(TrainingDataError, match="expected 2 distances"):
        plan_for(tmp_path, labels, settings=WeightSettings(spacing=(1, 1, 1)))


def test_a_sigma_wider_than_the_image_needs_one_block(tmp_path):
    labels, wide = draw_cells(0), WeightSettings(sigma_px=300.0)
    plan = plan_for(tmp_path, labels, settings=wide)
    assert plan.n_blocks == 1
    assert_same_bits(stored(run(plan)), weight_map(labels, wide))
    with pytest.raises(PlanError, match="block=16 px is smaller than the halo of 83 px"):
        plan_for(tmp_path, labels, settings=wide, block=16, name="other.zarr")


def test_default_blocks_grow_with_the_halo(tmp_path):
    big = np.broadcast_to(np.uint8(0), (3000, 3000))
    zarr.create_array(tmp_path / "image", shape=big.shape, dtype="uint8", chunks=(1000, 1000))
    zarr.create_array(tmp_path / "labels", shape=big.shape, dtype="uint8", chunks=(1000, 1000))
    assert plan_for(tmp_path, big).block == 1024
    plan = plan_for(tmp_path, big, settings=WeightSettings(sigma_px=200))
    assert plan.block == 1280  # halo 1277 px
    assert max(plan.grid(plan.annotation.pairs[0]).halos) <= plan.block


def test_a_slide_of_100_000_px_is_planned_in_a_second_and_refused_where_memory_is_short(tmp_path):
    for name in ("image", "labels"):
        zarr.create_array(tmp_path / name, shape=(100_000, 100_000), dtype="uint32", chunks=(1024, 1024))
    began = time.perf_counter()
    plan = plan_for(tmp_path, np.broadcast_to(np.uint32(0), (100_000, 100_000)))
    assert time.perf_counter() - began < 1
    assert plan.n_blocks == 98 * 98
    plan.check_memory(2 << 30, tasks=3)
    with pytest.raises(PlanError, match=r"a worker with 3 tasks of [\d.]+ MiB needs [\d.]+ MiB but has 100.00 MiB"):
        plan.check_memory(100 << 20, tasks=3)
    with pytest.raises(InputError, match="kind 'instances'"):
        plan_for(tmp_path, np.zeros(1), kind="binary")


def test_a_plane_too_large_for_memory_is_named_with_what_helps(tmp_path):
    for name in ("image", "labels"):
        zarr.create_array(tmp_path / name, shape=(10_000, 12_000), dtype="uint8", chunks=(1024, 1024))
    plan = plan_for(tmp_path, np.zeros(1), kind="binary")
    with pytest.raises(
        PlanError, match=r"one plane of .*labels \(yx.*'instances'.*w0=0.*ridge=0.*fewer workers"
    ) as said:
        plan.check_memory(2 << 30, tasks=1)
    assert "smaller block" not in str(said.value)
    without = plan_for(tmp_path, np.zeros(1), kind="binary", settings=WeightSettings(w0=0, ridge_px=0))
    without.check_memory(2 << 30, tasks=1)
    with pytest.raises(PlanError, match="choose a smaller block"):
        without.check_memory(50 << 20, tasks=1)


@pytest.mark.parametrize("kind", ["instances", "classes"])
def test_a_task_stays_within_its_planned_memory(tmp_path, kind):
    labels = draw_cells(0, shape=(300, 300), cells=200).astype(np.uint64)
    plan = plan_for(tmp_path, labels if kind == "instances" else labels % 5, block=256, kind=kind)
    run(plan)
    job = weights_inputs.object_jobs(plan, weights_inputs.open_pixels(plan))[0]
    job = weights_block.replace_weights(job, (1.0,) * 5)
    for task in (weights_block.weigh_block_alone, weights_block.count_block):
        tracemalloc.start()
        task(job, (0, 0))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert 0.3 * plan.block_bytes < peak <= plan.block_bytes


def test_finding_objects_stays_within_its_planned_memory(tmp_path):
    plan = plan_for(tmp_path, np.ones((600, 700), np.uint8), kind="binary", block=128)
    found = weights_inputs.open_pixels(plan)
    weights_inputs.begin(plan)
    pending = weights_inputs.pending_planes(plan, found)
    tracemalloc.start()
    weights_inputs.find_annotated_objects(found, pending, None, lambda n_pixels: None)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 0.3 * plan.task_bytes < peak <= plan.task_bytes


def test_an_output_in_an_input_or_over_something_else_is_refused(tmp_path):
    labels = draw_cells(0)
    for name in ("image/set.zarr", "labels", "."):
        with pytest.raises(OutputError, match="lie in each other"):
            plan_for(tmp_path, labels, name=name)
    write_pair(tmp_path, "a", labels)
    found = find_annotation(AnnotationInput((str(tmp_path / "i"),), (str(tmp_path / "m"),)))
    with pytest.raises(OutputError, match="lie in each other"):
        plan_weight_maps(found, WeightOptions(), tmp_path / "i" / "set.zarr")
    write_ome(tmp_path / "foreign.zarr", labels, "yx")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes.txt").write_text("mine")
    for name, message in (("foreign.zarr", "not a training set"), ("folder", "holds something else")):
        with pytest.raises(OutputError, match=message):
            plan_for(tmp_path, labels, name=name)
    with pytest.raises(OutputError, match="is a file"):
        plan_for(tmp_path, labels, name="folder/notes.txt")


# -- damage ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("on_dask", [False, True], ids=["here", "Dask"])
def test_a_damaged_chunk_of_the_annotation_is_named_and_the_other_blocks_are_kept(tmp_path, client, on_dask):
    plan = plan_for(tmp_path, draw_cells(0), block=20)
    run(plan)
    image = read_training_set(plan.location).images[0]
    for index in ((0, 0), (3, 4)):
        for name in ("classes", "weights"):
            shards(Path(plan.location, image.group, name))[index].unlink()
    chunk = tmp_path / "labels" / "c" / "0" / "0"
    bytes_before = chunk.read_bytes()
    chunk.write_bytes(b"damaged")
    found = weights_inputs.open_pixels(plan)
    jobs = [weights_block.replace_weights(found[0].job, read_training_set(plan.location).class_weights)]
    with pytest.raises(IncompleteError, match=r"1 blocks .*\n  image, block \(0, 0\): unreadable chunk 0/0"):
        make_weights(jobs, [[(0, 0), (3, 4)]], client if on_dask else None, lambda n_pixels: None)
    assert store.stored_shards(plan.location, f"{image.group}/weights") >= {(3, 4)}
    chunk.write_bytes(bytes_before)
    make_weights(jobs, [[(0, 0)]], None, lambda n_pixels: None)
    assert_same_bits(stored(read_training_set(plan.location)), weight_map(draw_cells(0), NARROW))


def test_a_damaged_chunk_ends_the_count_naming_the_block(tmp_path):
    plan = plan_for(tmp_path, draw_cells(0), block=20)
    (tmp_path / "labels" / "c" / "1" / "1").write_bytes(b"damaged")
    with pytest.raises(IncompleteError, match=r"image, block \(1, 1\): unreadable chunk 1/1"):
        run(plan)


def test_an_output_that_is_gone_ends_the_run(tmp_path):
    plan = plan_for(tmp_path, draw_cells(0), block=20)
    training_set = run(plan)
    job = weights_block.replace_weights(weights_inputs.open_pixels(plan)[0].job, training_set.class_weights)
    store.remove(plan.location, job.group)
    with pytest.raises(IncompleteError, match="cannot be written.*Blocks that are done are kept"):
        make_weights([job], [[(0, 0)]], None, lambda n_pixels: None)
