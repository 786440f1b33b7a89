"""Ids block by block against scipy on the whole array: the same ids, not only the same objects."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from distributed import Client, LocalCluster
from scipy import ndimage
from skimage.measure import label as label_values

from segment_slide.pipeline.blocks.grid import BlockGrid
from segment_slide.pipeline.objects import run, unite
from segment_slide.pipeline.objects.block_files import FaceObjects, load_faces
from segment_slide.pipeline.objects.faces import previous_offsets
from segment_slide.pipeline.objects.options import InstanceOptions, ObjectSize
from segment_slide.pipeline.objects.ranks import RowOrder, rank_row
from segment_slide.pipeline.objects.regrow import regrow_ridges
from segment_slide.pipeline.objects.split import split_touching
from segment_slide.pipeline.objects.unite import Nodes, RowJoin
from segment_slide.unet.geometry import Locality
from segment_slide.unet.weight_map import cut_ridges
from tests.pipeline.objects.support import (
    comb,
    label_blocks,
    make_job,
    no_step,
    nuclei,
    plan_array,
    spiral,
    whole_structure,
)
from tests.tiers import exhaustive

DENSITIES = (0.1, 0.3, 0.5, 0.6, 0.9)


QUICK_DENSITIES = (0.3, 0.6, 0.9)
QUICK_2D = ((16, 16), (7, 5), (1, 40), (40, 1), (64, 64))
MORE_2D = ((8, 24), (31, 9), (3, 33), (13, 13), (20, 17), (40, 40))
QUICK_3D = ((3, 5, 7), (9, 2, 4))
MORE_3D = ((4, 4, 4), (12, 12, 12), (1, 6, 6), (5, 11, 1), (2, 3, 12), (7, 7, 7), (6, 1, 5), (4, 8, 3))


def blocks_and_densities(quick: tuple, more: tuple) -> pytest.MarkDecorator:
    """A sample of both for the quick tests, all of them for the exhaustive ones."""
    cases = [pytest.param(block, QUICK_DENSITIES, id=str(block)) for block in quick]
    cases += [exhaustive(block, DENSITIES, id=f"{block}-all") for block in (*quick, *more)]
    return pytest.mark.parametrize(("block", "densities"), cases)


FIELDS_2D = {
    "spirals": spiral(41),
    "combs": comb(42),
    "checkerboard": (np.indices((33, 37)).sum(axis=0) % 2).astype(np.uint8),
    "all one": np.ones((33, 37), np.uint8),
    "all zero": np.zeros((33, 37), np.uint8),
    "one pixel": np.ones((1, 1), np.uint8),
    "one row": np.array([[1, 0, 1, 1, 0, 1]], np.uint8).repeat(7, axis=1),
}


def noise(shape: tuple[int, ...], density: float, n_classes: int = 1) -> np.ndarray:
    rng = np.random.default_rng(round(density * 10))
    return ((rng.random(shape) < density) * rng.integers(1, n_classes + 1, shape)).astype(np.uint8)


def assert_equals_scipy(folder: Path, classes: np.ndarray, block: tuple[int, ...], connectivity: int) -> None:
    n_spatial = len(block)
    options = InstanceOptions(connectivity=connectivity, ndim=n_spatial)
    ids, numbering = label_blocks(folder, classes, block, options, axes="tzyx"[-classes.ndim :])
    expected, count = ndimage.label(classes, whole_structure(classes.ndim, n_spatial, connectivity))
    assert numbering.count == count
    np.testing.assert_array_equal(ids, expected)


# --- the whole array's ids ---------------------------------------------------------------------------------------


@blocks_and_densities(QUICK_2D, MORE_2D)
def test_ids_of_random_planes_are_scipys_at_every_density(tmp_path: Path, block: tuple, densities: tuple) -> None:
    for density, connectivity in itertools.product(densities, (1, 2)):
        folder = tmp_path / f"{density}-{connectivity}"
        size = (40, 33) if min(block) > 1 else (12, 9)  # a file per pixel row: small is slow enough
        assert_equals_scipy(folder, noise(size, density), block, connectivity)


@blocks_and_densities(QUICK_3D, MORE_3D)
def test_ids_of_random_volumes_are_scipys_at_every_density(tmp_path: Path, block: tuple, densities: tuple) -> None:
    for density, connectivity in itertools.product(densities, (1, 2, 3)):
        folder = tmp_path / f"{density}-{connectivity}"
        assert_equals_scipy(folder, noise((7, 10, 9), density / 2), block, connectivity)


@pytest.mark.parametrize("name", FIELDS_2D)
def test_ids_of_shapes_that_cross_every_block_are_scipys(tmp_path: Path, name: str) -> None:
    for block, connectivity in itertools.product(((16, 16), (7, 10)), (1, 2)):
        folder = tmp_path / f"{block}-{connectivity}"
        assert_equals_scipy(folder, FIELDS_2D[name], block, connectivity)


def test_combs_and_spirals_in_a_volume_are_scipys(tmp_path: Path) -> None:
    plane = comb(14)
    volume = np.stack([plane, plane * 0, plane.T, plane.T, plane * 0, plane])
    volume[:, 3, 3] = 1
    for block, connectivity in itertools.product(((2, 5, 5), (4, 7, 3)), (1, 2, 3)):
        assert_equals_scipy(tmp_path / f"{block}-{connectivity}", volume, block, connectivity)


def test_planes_and_time_points_have_objects_of_their_own(tmp_path: Path) -> None:
    assert_equals_scipy(tmp_path / "planes", noise((2, 3, 11, 13), 0.5), (4, 5), 2)
    assert_equals_scipy(tmp_path / "volumes", noise((2, 5, 9, 8), 0.3), (2, 4, 3), 3)


@pytest.mark.parametrize("block", [(16, 16), (7, 5)], ids=str)
def test_objects_of_different_classes_stay_apart_where_they_touch(tmp_path: Path, block: tuple[int, int]) -> None:
    classes = noise((40, 33), 0.8, n_classes=3)
    ids, _ = label_blocks(tmp_path, classes, block, InstanceOptions(connectivity=2))
    expected = label_values(classes, background=0, connectivity=2)
    _, first = np.unique(expected, return_index=True)  # scikit-image's ids are in raster order too
    assert (np.diff(first[1:]) > 0).all()
    np.testing.assert_array_equal(ids, expected)


def test_without_joining_objects_fall_apart_at_block_borders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: were blocks not joined, the tests above would notice."""
    monkeypatch.setattr(unite, "previous_offsets", lambda *_: [])
    classes = noise((40, 33), 0.6)
    ids, numbering = label_blocks(tmp_path, classes, (16, 16))
    expected, count = ndimage.label(classes)
    assert numbering.count > count
    assert (ids != expected).any()


def test_without_corners_diagonal_neighbours_fall_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control of blocks that share a corner only."""
    classes = np.eye(32, dtype=np.uint8)
    assert label_blocks(tmp_path / "joined", classes, (16, 16), InstanceOptions(connectivity=2))[1].count == 1
    sides = [offset for offset in previous_offsets(0, 2, 2) if sum(map(abs, offset)) == 1]
    monkeypatch.setattr(unite, "previous_offsets", lambda *_: sides)
    assert label_blocks(tmp_path / "apart", classes, (16, 16), InstanceOptions(connectivity=2))[1].count == 2


def test_ids_are_the_same_from_several_workers(tmp_path: Path) -> None:
    classes = noise((64, 80), 0.55)
    with (
        LocalCluster(
            n_workers=2,
            threads_per_worker=2,
            processes=False,
            dashboard_address="127.0.0.1:0",
        ) as cluster,
        Client(cluster) as client,
    ):
        ids, _ = label_blocks(tmp_path, classes, (16, 16), client=client)
    np.testing.assert_array_equal(ids, ndimage.label(classes)[0])


def test_a_block_may_hold_more_objects_than_16_bits_number(tmp_path: Path) -> None:
    classes = np.zeros((600, 600), np.uint8)
    classes[::2, ::2] = 1
    ids, numbering = label_blocks(tmp_path, classes, (600, 512))
    assert numbering.count == 90_000
    np.testing.assert_array_equal(ids, ndimage.label(classes)[0])


# --- sizes and holes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [(16, 16), (7, 5)], ids=str)
@pytest.mark.parametrize("min_size", [2, 9, 60])
def test_small_objects_are_dropped_by_their_whole_size(tmp_path: Path, block: tuple[int, int], min_size: int) -> None:
    classes = noise((40, 33), 0.5)
    ids, _ = label_blocks(tmp_path, classes, block, InstanceOptions(min_size=ObjectSize(min_size)))
    components, _ = ndimage.label(classes)
    small = np.bincount(components.ravel()) < min_size
    kept = np.where(small[components], 0, classes)
    np.testing.assert_array_equal(ids, ndimage.label(kept)[0])


def fill_whole(classes: np.ndarray, max_size: int, connectivity: int) -> np.ndarray:
    """Holes of the whole image filled, one after the other."""
    ndim = classes.ndim
    background = ndimage.generate_binary_structure(ndim, ndim if connectivity == 1 else 1)
    holes, count = ndimage.label(classes == 0, background)
    filled = classes.copy()
    inside = np.zeros(classes.shape, np.bool_)
    inside[(slice(1, -1),) * ndim] = True
    for number in range(1, count + 1):
        hole = holes == number
        around = np.unique(classes[ndimage.binary_dilation(hole)])
        around = around[around > 0]
        if hole.sum() < max_size and not (hole & ~inside).any() and len(around) == 1:
            filled[hole] = around[0]
    return filled


@pytest.mark.parametrize("connectivity", [1, 2])
@pytest.mark.parametrize("block", [(16, 16), (7, 5)], ids=str)
def test_holes_are_filled_by_their_whole_size(tmp_path: Path, block: tuple[int, int], connectivity: int) -> None:
    classes = noise((40, 33), 0.7, n_classes=2)
    classes[:, 16:] = np.minimum(classes[:, 16:], 1)  # one half with one class only
    options = InstanceOptions(connectivity=connectivity, fill_holes=ObjectSize(8))
    ids, _ = label_blocks(tmp_path, classes, block, options)
    filled = fill_whole(classes, 8, connectivity)
    assert (filled != classes).any()
    np.testing.assert_array_equal(ids, label_values(filled, background=0, connectivity=connectivity))


def test_holes_in_volumes_are_closed_on_all_sides(tmp_path: Path) -> None:
    classes = noise((7, 9, 8), 0.9)
    ids, _ = label_blocks(tmp_path, classes, (4, 4, 4), InstanceOptions(ndim=3, fill_holes=ObjectSize(20)))
    filled = fill_whole(classes, 20, 1)
    assert (filled != classes).any()
    np.testing.assert_array_equal(ids, ndimage.label(filled)[0])


def test_a_ring_across_four_blocks_is_filled_and_an_open_one_is_not(tmp_path: Path) -> None:
    y, x = np.mgrid[:32, :32] - 16
    ring = ((np.hypot(y, x) < 11) & (np.hypot(y, x) > 8)).astype(np.uint8)
    closed, _ = label_blocks(tmp_path / "closed", ring, (16, 16), InstanceOptions(fill_holes=ObjectSize(500)))
    assert closed[16, 16] == 1
    ring[16, 16:] = 0
    opened, _ = label_blocks(tmp_path / "open", ring, (16, 16), InstanceOptions(fill_holes=ObjectSize(5000)))
    assert opened[16, 10] == 0


# --- splitting and regrowing -------------------------------------------------------------------------------------


def split_whole(classes: np.ndarray, depth: float) -> np.ndarray:
    """Pieces of the whole image, numbered in raster order of their first pixels."""
    pieces = split_touching(
        classes,
        depth_px=depth,
        spacing=(1.0,) * classes.ndim,
        connectivity=1,
        open_faces=[(False, False)] * classes.ndim,
    )
    return pieces.labels


@pytest.mark.parametrize("block", [(32, 32), (48, 20), exhaustive((17, 31)), exhaustive((150, 130))], ids=str)
def test_objects_smaller_than_the_halo_are_split_as_in_the_whole_image(tmp_path: Path, block: tuple[int, int]) -> None:
    classes = nuclei((150, 130), 7, 40)
    objects, count = ndimage.label(classes)
    widest = max(part.stop - part.start for box in ndimage.find_objects(objects) for part in box)
    expected = split_whole(classes, 1.0)
    assert expected.max() > count  # or nothing was split
    ids, numbering = label_blocks(tmp_path, classes, block, InstanceOptions(split=1.0, split_halo=widest))
    assert numbering.n_larger_than_halo == 0
    np.testing.assert_array_equal(ids, expected)


def test_a_volume_is_split_as_in_the_whole_image(tmp_path: Path) -> None:
    classes = nuclei((24, 40, 36), 5, 12)
    ids, _ = label_blocks(tmp_path, classes, (10, 16, 12), InstanceOptions(split=1.0, split_halo=40, ndim=3))
    expected = split_whole(classes, 1.0)
    assert expected.max() > ndimage.label(classes)[1]
    np.testing.assert_array_equal(ids, expected)


def test_a_halo_too_small_to_see_objects_whole_is_noticed_and_counted(tmp_path: Path) -> None:
    """The negative control of the halo."""
    classes = nuclei((150, 130), 7, 40)
    ids, numbering = label_blocks(tmp_path, classes, (32, 32), InstanceOptions(split=1.0, split_halo=2))
    assert numbering.n_larger_than_halo > 0
    assert (ids != split_whole(classes, 1.0)).any()


@pytest.mark.parametrize("block", [(32, 32), (9, 20)], ids=str)
def test_ridges_are_given_back_as_in_the_whole_image(tmp_path: Path, block: tuple[int, int]) -> None:
    y, x = np.mgrid[:70, :64]
    cells = (y // 14) * 5 + x // 13 + 1
    classes = (cut_ridges(cells.astype(np.uint16)) > 0).astype(np.uint8)
    ids, numbering = label_blocks(tmp_path, classes, block, InstanceOptions(regrow=True))
    whole = ndimage.label(classes)[0].astype(np.uint32)
    np.testing.assert_array_equal(ids, regrow_ridges(np.pad(whole, 2), 2))
    assert numbering.count == 25
    assert (ids > 0).mean() > 0.99 > (whole > 0).mean()


def test_fill_drop_split_and_regrow_follow_each_other(tmp_path: Path) -> None:
    classes = nuclei((90, 80), 7, 16, seed=3)
    classes[::9, ::7] = 0  # holes
    classes[3::11, 2::13] = 1  # specks
    options = InstanceOptions(fill_holes=ObjectSize(3), min_size=ObjectSize(20), split=1.0, split_halo=90, regrow=True)
    ids, _ = label_blocks(tmp_path, classes, (32, 24), options)
    pieces = split_whole(fill_whole(classes, 3, 1), 1.0)
    pieces[np.bincount(pieces.ravel())[pieces] < 20] = 0
    names = np.unique(pieces, return_inverse=True)[1].reshape(pieces.shape).astype(np.uint32)
    np.testing.assert_array_equal(ids, regrow_ridges(np.pad(names, 2), 2))


# --- what no test machine can hold, by arithmetic ----------------------------------------------------------------


def test_an_object_of_more_than_2_to_the_32_pixels_keeps_its_size() -> None:
    columns = {"size": np.array([1 << 31], np.int64), "first": np.array([5], np.int64)}
    zero = np.zeros(1, np.int64)
    rows = [RowJoin([1], columns, [])]
    for row in range(1, 4):
        later = {"size": np.array([1 << 31], np.int64), "first": np.array([(1 << 33) * row], np.int64)}
        rows.append(RowJoin([1], later, [(row - 1, zero, zero)]))
    nodes = Nodes(rows)
    assert nodes.columns["size"].tolist() == [1 << 33] * 4
    assert nodes.columns["first"].tolist() == [5] * 4


def test_ids_pass_2_to_the_32_where_so_many_objects_lie_before() -> None:
    grid = BlockGrid((1 << 20, 1 << 20), (1 << 10, 1 << 20), Locality(stride=1, halo=0), 2)
    totals = {(row,): np.array([1 << 28], np.int64) for row in range(grid.counts[0])}
    order = RowOrder(grid, totals)
    assert order.count == 1 << 38
    assert order.before((1023,)).tolist() == [1023 << 28]


def test_ranks_of_lines_that_hold_many_objects_do_not_wrap() -> None:
    starts = np.full(4, 1 << 31, np.uint32)
    one = np.ones(1, np.uint32)
    block = FaceObjects(one, {}, {}, starts, one * 3, one * 7)
    ranked = rank_row([block] * 3, [np.ones(1, np.bool_)] * 3, 4)
    assert ranked.totals.tolist() == [3 * ((1 << 33) + 1)]
    assert ranked.ranks[1].tolist() == [3 * 3 * (1 << 31) + (1 << 31) + 1 + 7]


# --- work and memory ---------------------------------------------------------------------------------------------


def test_only_objects_on_faces_are_looked_at_across_blocks(tmp_path: Path) -> None:
    classes = np.zeros((64, 64), np.uint8)
    classes[4::8, 4::8] = 1  # one pixel each, none on a face
    classes[31:33, 20:24] = 1  # one object over two blocks
    plan = plan_array(tmp_path, classes, (32, 32), InstanceOptions(), "yx")
    job = make_job(tmp_path, plan)
    run.find_all_objects(job, None, no_step)
    assert sum(load_faces(job.join.work, index).count for index in plan.grid.indices()) == 2
    assert run.join_blocks(job.join, None, no_step).count == 2


def test_a_pass_goes_on_with_the_blocks_that_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_array(tmp_path, noise((40, 40), 0.5), (16, 16), InstanceOptions(), "yx")
    job = make_job(tmp_path, plan)
    run.find_all_objects(job, None, no_step)
    (tmp_path / "work/faces/1.1.npz.zst").unlink()
    found = []
    original = run.find_objects
    monkeypatch.setattr(run, "find_objects", lambda job, index: (found.append(index), original(job, index)))
    run.find_all_objects(job, None, no_step)
    assert found == [(1, 1)]


def test_blocks_are_read_once_and_written_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from segment_slide.pipeline.storage.labels import LabelSource

    boxes = []
    read = LabelSource.read
    monkeypatch.setattr(LabelSource, "read", lambda source, box: (boxes.append(box), read(source, box))[1])
    classes = noise((40, 40), 0.5)
    label_blocks(tmp_path, classes, (16, 16))
    counted = np.zeros(classes.shape, int)
    for box in boxes:
        counted[box] += 1
    assert (counted == 1).all()


def test_plan_takes_no_longer_for_a_slide_of_10_to_the_12_pixels(tmp_path: Path) -> None:
    plan = plan_array(tmp_path, noise((40, 40), 0.5), (16, 16), InstanceOptions(), "yx")
    huge = replace(plan, grid=replace(plan.grid, shape=(1_000_000, 1_000_000), block=(2048, 2048)))
    assert huge.grid.n_blocks == 489**2
    assert huge.task_bytes < 256 << 20
