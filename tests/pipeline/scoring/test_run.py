"""Stored labels counted block by block against whole arrays in memory, for every block size, here and on a cluster."""

from collections.abc import Iterator

import numpy as np
import pytest
import tifffile
import zarr
from distributed import Client
from scipy import ndimage

import segment_slide.pipeline.scoring.label_pair
from segment_slide.pipeline.errors import InputError, UnreadableChunkError
from segment_slide.pipeline.scoring.contingency import count_pairs, merge_tables
from segment_slide.pipeline.scoring.label_pair import LabelPair
from segment_slide.pipeline.scoring.mask_files import ArraySource, open_source, read_masks
from segment_slide.pipeline.scoring.membrane_scores import score_membranes
from segment_slide.pipeline.scoring.object_scores import find_touching, score_matches, score_objects, score_seg
from segment_slide.pipeline.scoring.options import EvaluateOptions
from segment_slide.pipeline.scoring.pixel_scores import count_confusion
from segment_slide.pipeline.scoring.run import check_pair, evaluate_stored, score_stored_membranes
from segment_slide.pipeline.storage.image import describe_image
from segment_slide.pipeline.storage.source import select_source
from tests.flows.support import write_ome

SHAPE = (2, 45, 61)


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with Client(processes=False, n_workers=1, threads_per_worker=2, dashboard_address="127.0.0.1:0") as client:
        yield client


def store(path, pixels, axes, chunk=16):
    chunks = (1,) * (pixels.ndim - 2) + (chunk, chunk)
    zarr.create_array(str(path), data=pixels, chunks=chunks)
    return describe_image(path, axes=axes)


def source_of(path, pixels, axes="zyx", n_spatial=2):
    return select_source(store(path, pixels, axes), n_spatial=n_spatial, n_channels=1)


def make_cells(seed, shape=SHAPE):
    """Ids that begin anew in each plane, and a flawed segmentation of them with other ids."""
    random = np.random.default_rng(seed)
    truth = np.zeros(shape, np.uint32)
    found = np.zeros(shape, np.uint16)
    for plane in range(shape[0]):
        foreground = ndimage.gaussian_filter(random.random(shape[1:]), 1.6) > 0.49
        truth[plane] = ndimage.label(foreground)[0]
        found[plane] = ndimage.label(np.roll(foreground, 1, 0) & (random.random(shape[1:]) > 0.02))[0] * 3
    return truth, found


def table_of_whole(truth, found, ignore=None):
    return merge_tables([count_pairs(t, f, n, ignore) for n, (t, f) in enumerate(zip(truth, found, strict=True))])


def assert_same_table(one, other):
    for name in ("frame", "truth", "predicted", "n_pixels"):
        assert getattr(one, name).tolist() == getattr(other, name).tolist()
        assert getattr(one, name).dtype == getattr(other, name).dtype


# --- blocks ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block_px", [7, 16, 45, 1000])
def test_instances_counted_in_blocks_are_those_of_the_whole_array(tmp_path, block_px):
    truth, found = make_cells(0)
    counts = evaluate_stored(
        source_of(tmp_path / "found", found),
        source_of(tmp_path / "truth", truth),
        "instances",
        EvaluateOptions(block_px=block_px),
    )
    assert_same_table(counts.table, table_of_whole(truth, found))
    touching = [(n, number) for n, plane in enumerate(truth) for number in find_touching(plane).tolist()]
    assert list(zip(counts.touching.frame.tolist(), counts.touching.ids.tolist(), strict=True)) == touching
    assert 0 < len(touching) < len(counts.table.areas("truth"))
    scores = score_matches(counts.table, [0.5], counts.touching)[0]
    planes = [score_objects(t, f) for t, f in zip(truth, found, strict=True)]
    for name in ("n_truth", "n_predicted", "n_matched", "n_touching", "n_touching_matched"):
        assert getattr(scores, name) == sum(getattr(plane, name) for plane in planes)


@pytest.mark.parametrize("block_px", [7, 16, 1000])
def test_classes_counted_in_blocks_are_those_of_the_whole_array(tmp_path, block_px):
    random = np.random.default_rng(1)
    truth, found = (random.choice([0, 1, 2, 255], SHAPE).astype(np.uint8) for _ in range(2))
    stored = source_of(tmp_path / "found", found), source_of(tmp_path / "truth", truth)
    for chosen, expected in (({}, 255), ({"ignores_nothing": True}, None), ({"ignore": 2}, 2)):
        counted = evaluate_stored(*stored, "classes", EvaluateOptions(block_px=block_px, **chosen))
        whole = count_confusion(truth, found, expected)
        assert (counted.counts == whole.counts).all()
        assert counted.n_ignored == whole.n_ignored


@pytest.mark.parametrize("kind", ["classes", "instances"])
def test_a_negative_value_can_be_ignored(tmp_path, kind):
    truth = np.array([[[0, 1, 1, -1, -1, 2]]], np.int16)
    found = np.array([[[0, 1, 1, 1, 0, 2]]], np.uint16)
    stored = source_of(tmp_path / "found", found), source_of(tmp_path / "truth", truth)
    found = evaluate_stored(*stored, kind, EvaluateOptions(ignore=-1))
    if kind == "classes":
        assert (found.accuracy, found.n_ignored) == (1.0, 2)
    else:
        assert int(found.table.n_pixels.sum()) == 4
    with pytest.raises(InputError, match="-1"):
        evaluate_stored(*stored, kind, EvaluateOptions())


def test_on_a_cluster_it_is_the_same_to_the_last_bit(tmp_path, client):
    truth, found = make_cells(2)
    stored = source_of(tmp_path / "found", found), source_of(tmp_path / "truth", truth)
    options = EvaluateOptions(block_px=16)
    here, there = (evaluate_stored(*stored, "instances", options, where) for where in (None, client))
    assert_same_table(here.table, there.table)
    assert here.touching.ids.tolist() == there.touching.ids.tolist()
    here, there = (evaluate_stored(*stored, "classes", options, where) for where in (None, client))
    assert (here.counts == there.counts).all()


def test_many_small_merges_are_one_large_merge(tmp_path, monkeypatch):
    truth, found = make_cells(3)
    stored = source_of(tmp_path / "found", found), source_of(tmp_path / "truth", truth)
    monkeypatch.setattr("segment_slide.pipeline.scoring.totals._MERGE_ROWS", 10)
    counts = evaluate_stored(*stored, "instances", EvaluateOptions(block_px=7))
    assert_same_table(counts.table, table_of_whole(truth, found))


def test_every_block_is_told_with_its_pixels(tmp_path):
    truth, found = make_cells(4)
    pair = LabelPair(source_of(tmp_path / "found", found), source_of(tmp_path / "truth", truth))
    options, told = EvaluateOptions(block_px=16), []
    evaluate_stored(pair.predicted, pair.truth, "classes", options, on_block=told.append)
    assert len(told) == check_pair(pair, "classes", options) == 2 * 3 * 4
    assert sum(told) == truth.size


def test_volumes_are_one_frame_and_their_objects_extend_along_z(tmp_path):
    truth, found = make_cells(5)
    counts = evaluate_stored(
        source_of(tmp_path / "found", found, n_spatial=3),
        source_of(tmp_path / "truth", truth, n_spatial=3),
        "instances",
        EvaluateOptions(block_px=10),
    )
    assert_same_table(counts.table, count_pairs(truth, found))
    assert score_seg(counts.table) != score_seg(table_of_whole(truth, found))


def test_planes_of_size_one_are_no_difference(tmp_path):
    truth, found = make_cells(6, (1, 20, 30))
    stored = source_of(tmp_path / "found", found[None], "tzyx"), source_of(tmp_path / "truth", truth[0], "yx")
    assert_same_table(evaluate_stored(*stored, "instances").table, table_of_whole(truth, found))


# --- ignoring, components, masks -----------------------------------------------------------------------------------


def test_ignored_pixels_of_instances_are_in_no_object(tmp_path):
    truth, found = make_cells(7)
    truth[:, 10:20] = 9999
    stored = source_of(tmp_path / "found", found), source_of(tmp_path / "truth", truth)
    counts = evaluate_stored(*stored, "instances", EvaluateOptions(block_px=5, ignore=9999))
    assert_same_table(counts.table, table_of_whole(truth, found, 9999))
    assert 9999 not in counts.touching.ids
    assert 9999 in evaluate_stored(*stored, "instances").table.truth


def test_objects_of_a_class_map_are_its_components_whatever_the_block(tmp_path):
    truth, found = make_cells(8)
    classes = (found > 0).astype(np.uint8) * 2
    components = np.stack([ndimage.label(plane == 2)[0] for plane in classes])
    stored = source_of(tmp_path / "found", classes), source_of(tmp_path / "truth", truth)
    counts = evaluate_stored(*stored, "instances", EvaluateOptions(block_px=7, predicted_class=2))
    assert_same_table(counts.table, table_of_whole(truth, components))
    as_ids = evaluate_stored(*stored, "instances")
    assert len(as_ids.table.areas("predicted")) == 2 < len(counts.table.areas("predicted"))


def test_planes_too_large_to_label_at_once_are_refused_with_what_to_do(tmp_path, monkeypatch):
    truth, found = make_cells(9)
    pair = LabelPair(source_of(tmp_path / "found", found), source_of(tmp_path / "truth", truth))
    monkeypatch.setattr(segment_slide.pipeline.scoring.label_pair, "MAX_PLANE_PX", 45 * 61 - 1)
    with pytest.raises(InputError, match="compare instance ids"):
        check_pair(pair, "instances", EvaluateOptions(predicted_class=1))
    check_pair(pair, "instances", EvaluateOptions())


def test_binary_masks_of_0_and_255_are_compared_as_foreground():
    truth, found = np.array([[0, 255, 255, 7]], np.uint8), np.array([[0, 1, 0, 1]], bool)
    pair = ArraySource("found", "yx", found), ArraySource("truth", "yx", truth)
    confusion = evaluate_stored(*pair, "classes", EvaluateOptions(is_binary=True))
    assert confusion.counts[:2, :2].tolist() == [[1, 0], [1, 2]]
    without = evaluate_stored(*pair, "classes", EvaluateOptions(is_binary=True, ignore=7))
    assert (without.counts[:2, :2].tolist(), without.n_ignored) == ([[1, 0], [1, 1]], 1)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_masks_in_files_are_read_as_they_are(tmp_path, suffix):
    import imagecodecs

    ids = np.arange(600, dtype=np.uint16).reshape(20, 30)
    path = tmp_path / f"mask.{suffix}"
    if suffix == "png":
        path.write_bytes(imagecodecs.png_encode(ids))
    else:
        tifffile.imwrite(path, ids)
    source = open_source(str(path))
    assert (source.axes, source.shape) == ("yx", (20, 30))
    assert (source.read((slice(2, 5), slice(0, 30)))[0] == ids[2:5]).all()


def test_a_folder_of_pages_is_a_stack_in_natural_order(tmp_path):
    for number in (10, 9):
        tifffile.imwrite(tmp_path / f"mask{number}.tif", np.full((4, 5), number, np.uint8))
    source = read_masks(tmp_path)
    assert (source.axes, source.pixels[:, 0, 0].tolist()) == ("zyx", [9, 10])


def test_a_file_and_a_store_can_be_compared(tmp_path, client):
    truth, found = make_cells(10)
    tifffile.imwrite(tmp_path / "truth.tif", truth, metadata={"axes": "ZYX"}, imagej=False)
    stored = source_of(tmp_path / "found", found), open_source(str(tmp_path / "truth.tif"), axes="zyx")
    assert_same_table(evaluate_stored(*stored, "instances", None, client).table, table_of_whole(truth, found))


def test_an_rgb_image_is_refused_as_a_mask(tmp_path):
    colours = np.zeros((8, 9, 3), np.uint8)
    colours[2, 3] = 255, 0, 0
    tifffile.imwrite(tmp_path / "rgb.tif", colours, photometric="rgb")
    with pytest.raises(InputError, match="RGB image, expected one value per pixel"):
        open_source(str(tmp_path / "rgb.tif"))


# --- membranes ---------------------------------------------------------------------------------------------------


def test_stored_membranes_are_scored_as_arrays_are(tmp_path, client):
    truth, _ = make_cells(11)
    random = np.random.default_rng(0)
    noisy = ndimage.gaussian_filter((truth > 0).astype(np.float32), (0, 1, 1)) + random.normal(0, 0.1, SHAPE)
    probability = noisy.clip(0, 1).astype(np.float32)
    image = store(tmp_path / "scores", np.stack([1 - probability, probability], 1), "zcyx")
    chosen = select_source(image, n_spatial=2, n_channels=1, channels=[1])
    stored_truth = source_of(tmp_path / "truth", truth)
    expected = score_membranes(truth, probability)
    assert 0 < expected.pixel_error.value < 0.5
    for where in (None, client):
        assert score_stored_membranes(chosen, stored_truth, where) == expected


# --- refusals ----------------------------------------------------------------------------------------------------


def test_what_does_not_match_is_refused_before_a_pixel_is_read(tmp_path, monkeypatch):
    truth, found = make_cells(12)
    labels = source_of(tmp_path / "truth", truth)
    others = {
        "same pixels": source_of(tmp_path / "narrow", found[:, :, 1:]),
        "dtype=float32": source_of(tmp_path / "floats", found.astype(np.float32)),
    }
    monkeypatch.setattr(type(labels), "read", lambda *_: pytest.fail("read"))
    for words, other in others.items():
        for kind in ("classes", "instances"):
            with pytest.raises(InputError, match=words):
                evaluate_stored(other, labels, kind)
    with pytest.raises(InputError, match="block=0"):
        evaluate_stored(labels, labels, "classes", EvaluateOptions(block_px=0))


def test_negative_ids_and_ids_as_classes_are_refused_when_they_are_seen(tmp_path):
    truth, found = make_cells(13)
    negative = found.astype(np.int32)
    negative[1, 40, 60] = -1
    pair = source_of(tmp_path / "found", negative), source_of(tmp_path / "truth", truth)
    with pytest.raises(InputError, match="predicted: value -1"):
        evaluate_stored(*pair, "instances", EvaluateOptions(block_px=16))
    with pytest.raises(InputError, match="compared as instances"):
        evaluate_stored(source_of(tmp_path / "large", found + np.uint16(300)), pair[1], "classes")


def test_a_damaged_chunk_is_named(tmp_path):
    truth, found = make_cells(14)
    pair = source_of(tmp_path / "found", found), source_of(tmp_path / "truth", truth)
    (tmp_path / "found" / "c" / "1" / "0" / "2").write_bytes(b"damaged")
    with pytest.raises(UnreadableChunkError, match="1/0/2"):
        evaluate_stored(*pair, "instances")


def test_channels_have_to_be_chosen(tmp_path):
    store(tmp_path / "two", np.zeros((2, 4, 4), np.float32), "cyx", 4)
    with pytest.raises(InputError, match="has 2 channels"):
        open_source(str(tmp_path / "two"), axes="cyx")
    assert open_source(str(tmp_path / "two"), axes="cyx", channel=1).shape == (4, 4)
    with pytest.raises(InputError, match=r"channel '2' is not in .*; expected one of: 0 to 1"):
        open_source(str(tmp_path / "two"), axes="cyx", channel="2")


def test_a_channel_of_a_probability_map_is_chosen_by_its_name(tmp_path):
    values = np.arange(32, dtype=np.uint8).reshape(2, 4, 4)
    named = write_ome(tmp_path / "named.zarr", values, "cyx", channels=("background", "cell"))
    with pytest.raises(InputError, match="has 2 channels.*`channel`: background, cell"):
        open_source(str(named))
    box = (slice(0, 4), slice(0, 4))
    for channel, expected in [("cell", values[1]), ("0", values[0]), (1, values[1])]:
        assert np.array_equal(open_source(str(named), channel=channel).read(box)[0], expected)
    twice = write_ome(tmp_path / "twice.zarr", values, "cyx", channels=("1", "2"))
    with pytest.raises(InputError, match="Write 'name:1' or 'number:1' instead"):
        open_source(str(twice), channel="1")
