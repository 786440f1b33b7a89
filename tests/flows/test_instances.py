"""Objects of a class map by the whole command: the whole image's ids, whatever is chosen, cut, killed or damaged."""

import contextlib
import functools
import itertools
import json
import math
import os
import re
import shutil
import signal
import subprocess
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import pytest
import zarr
from scipy import ndimage

import segment_slide.flows.instances
from segment_slide.cluster.kinds.local import LocalSpec, local_client
from segment_slide.pipeline.blocks import sizes
from segment_slide.pipeline.blocks.progress import QuietStages
from segment_slide.pipeline.objects.regrow import regrow_ridges
from segment_slide.pipeline.objects.split import split_touching
from segment_slide.pipeline.storage import place as output
from tests.flows.support import (
    Outcome,
    brake,
    can_mount,
    descendants,
    finish,
    mounted,
    noise,
    remount,
    run_here,
    run_installed,
    run_without_workers,
    shards,
    snapshot,
    start,
    survivors,
    tree,
    wait_until,
    write_array,
    write_group,
    write_ome,
    write_segmentation,
)
from tests.flows.test_failures import PAGE_BYTES, pages, rotten
from tests.processes import spawned_below
from tests.tiers import exhaustive

slow = functools.partial(pytest.param, marks=pytest.mark.slow)  # a case for the slow suite

IDS = "labels/segmentation-instances"
SHAPE, BLOCK = (200, 330), 64


# -- images, and what scipy makes of them ------------------------------------------------------------------------


def blobs(*shape: int, cover: float = 0.4, sigma: float = 2.0, seed: int = 0, wholly: int = 0) -> np.ndarray:
    """Two classes of blobs, which touch each other; many cross block borders, some wind through several blocks."""
    random = np.random.default_rng(seed)
    hidden, kind = (ndimage.gaussian_filter(random.random(shape), sigma * (1 + n)) for n in range(2))
    inside = hidden > np.quantile(hidden, 1 - cover)
    return np.where(inside, wholly or 1 + (kind > np.median(kind)), 0).astype(np.uint8)


def disks(*shape: int, radius: int = 7, pitch: int = 13, seed: int = 0) -> np.ndarray:
    """Disks that touch in small clumps, as cells do; clumps are smaller than 64 px."""
    random = np.random.default_rng(seed)
    centres = [
        np.array(place) * pitch + random.integers(0, 3, len(shape))
        for place in np.ndindex(*(size // pitch for size in shape))
        if random.random() < 0.35
    ]
    apart = np.full(shape, np.inf)
    grid = np.indices(shape)
    for centre in centres:
        squares = sum((axis - place) ** 2 for axis, place in zip(grid, centre, strict=True))
        apart = np.minimum(apart, squares)
    return (apart <= radius**2).astype(np.uint8)


def scipy_ids(classes: np.ndarray, connectivity: int = 1, *, planes: int = 0, min_size: int = 0) -> np.ndarray:
    """Oracle: each class of each plane labelled by scipy as a whole; ids in raster order of first pixels."""
    structure = ndimage.generate_binary_structure(classes.ndim - planes, connectivity)
    found, total = np.zeros(classes.shape, np.int64), 0
    for plane in np.ndindex(classes.shape[:planes]):
        for value in set(np.unique(classes[plane])) - {0}:
            labels, count = ndimage.label(classes[plane] == value, structure)
            found[plane][labels > 0] = labels[labels > 0] + total
            total += count
    return in_raster_order(found, min_size)


def in_raster_order(names: np.ndarray, min_size: int = 0) -> np.ndarray:
    """Objects numbered from 1 by their first pixels; those smaller than `min_size` dropped."""
    values, first, inverse, counts = np.unique(names, return_index=True, return_inverse=True, return_counts=True)
    kept = np.flatnonzero((values > 0) & (counts >= min_size))
    ids = np.zeros(len(values), np.uint32)
    ids[kept[np.argsort(first[kept])]] = np.arange(1, len(kept) + 1)
    return ids[inverse].reshape(names.shape)


def filled(classes: np.ndarray, connectivity: int, below_px: int) -> np.ndarray:
    """Oracle: holes of the whole image, by scipy: enclosed by one class, away from the border, small enough."""
    complement = classes.ndim if connectivity == 1 else 1
    labels, count = ndimage.label(classes == 0, ndimage.generate_binary_structure(classes.ndim, complement))
    sizes_px, result = np.bincount(labels.ravel(), minlength=count + 1), classes.copy()
    sides = ndimage.generate_binary_structure(classes.ndim, 1)
    for number, box in enumerate(ndimage.find_objects(labels), 1):
        if any(part.start == 0 or part.stop == size for part, size in zip(box, classes.shape, strict=True)):
            continue
        around = tuple(slice(part.start - 1, part.stop + 1) for part in box)
        hole = labels[around] == number
        touching = set(classes[around][ndimage.binary_dilation(hole, sides) & ~hole]) - {0}
        if len(touching) == 1 and sizes_px[number] < below_px:
            result[around][hole] = touching.pop()
    return result


# -- running ------------------------------------------------------------------------------------------------------


@pytest.fixture
def here(monkeypatch):
    """Run blocks in this process, one after the other."""
    monkeypatch.setattr(segment_slide.flows.instances, "open_cluster", lambda *_, **__: contextlib.nullcontext())


def label(path: Path, *options: object) -> Outcome:
    """Run the command; it must succeed and leave nothing unfinished."""
    outcome = run_here("instances", path, *options)
    check_done(outcome, Path(options[options.index("-o") + 1]) if "-o" in options else path)
    return outcome


def check_done(outcome: Outcome, where: Path) -> None:
    assert outcome.exit_code == 0, outcome
    assert unfinished(where) == []
    assert not list(where.rglob("work"))


def unfinished(where: Path) -> list[str]:
    return [path.name for path in where.rglob("*") if path.name.endswith((".partial", ".lock"))]


def ids_of(path: Path, level: int = 0, group: str = IDS) -> np.ndarray:
    return zarr.open_array(path / group / str(level), mode="r")[...]


def attributes_of(group: Path) -> dict:
    return json.loads((group / "zarr.json").read_text())["attributes"]


def edit_attributes(group: Path, change: Callable[[dict], object]) -> None:
    content = json.loads((group / "zarr.json").read_text())
    change(content["attributes"])
    (group / "zarr.json").write_text(json.dumps(content))


# -- small objects, and what the model recommends -----------------------------------------------------------------


@pytest.mark.parametrize("block", [64, 512])
def test_small_objects_are_counted_whatever_the_blocks(block, tmp_path, here):
    classes = blobs(*SHAPE)
    classes[::7, ::5] = np.where(classes[::7, ::5], classes[::7, ::5], 1)  # specks, also on the borders of blocks
    path = write_segmentation(tmp_path / "cells.ome.zarr", classes)
    outcome = label(path, "--block", block)
    sizes_px = np.bincount(scipy_ids(classes).ravel())[1:]
    usual = np.sort(sizes_px[sizes_px >= 9])
    below = max(9, math.ceil(usual[(len(usual) - 1) // 2] / 10))
    n_small = int((sizes_px < below).sum())
    assert 100 < n_small < len(sizes_px)
    assert f"{n_small:,} of {len(sizes_px):,} objects ({n_small / len(sizes_px):.1%}) are smaller than {below} px" in (
        " ".join(outcome.out.split())
    )
    assert f"--min-size {below}" in outcome.out
    without = label(path, "--block", block, "--min-size", below, "-o", tmp_path / "without.ome.zarr")
    assert "are smaller" not in without.out


def recommend(path: Path, **wanted: object) -> Path:
    """Let the record say what the model recommends."""
    edit_attributes(path / "labels/segmentation", lambda found: found["segment_slide"].update(objects=wanted))
    return path


def test_what_the_model_recommends_is_used_said_and_recorded(tmp_path, here):
    classes = disks(150, 190)
    path = recommend(write_segmentation(tmp_path / "cells.ome.zarr", classes), min_size="40", split=1.0, ndim=2)
    chosen = write_segmentation(tmp_path / "chosen.ome.zarr", classes)
    outcome = label(path)
    label(chosen, "--min-size", 40, "--split", 1)
    np.testing.assert_array_equal(ids_of(path), ids_of(chosen))
    assert ids_of(path).max() != scipy_ids(classes).max()
    assert attributes(path)["from_model"] == ["min_size 40px", "split 1"]
    assert "from_model" not in attributes(chosen)
    assert "From the model: min_size 40px, split 1." in outcome.out
    assert "From the model" in label(path).out  # the same command again goes on
    assert label(path, "--min-size", 40, "--split", 1).exit_code == 0  # and so does one that says the same


def test_the_users_choices_come_before_the_models(tmp_path, here):
    classes = blobs(*SHAPE)
    path = recommend(write_segmentation(tmp_path / "cells.ome.zarr", classes), min_size="40", ndim=2)
    for number, (options, min_size) in enumerate(
        [(("--min-size", 8), 8), (("--min-size", 0), 0), (("--ignore-model-objects",), 0), ((), 40)]
    ):
        out = tmp_path / f"{number}.ome.zarr"
        label(path, *options, "-o", out)
        np.testing.assert_array_equal(ids_of(out), scipy_ids(classes, min_size=min_size))
        assert attributes(out).get("from_model", []) == (["min_size 40px"] if not options else [])


def test_an_area_that_the_model_recommends_needs_a_pixel_size(tmp_path, here, caplog):
    classes = blobs(*SHAPE)
    known = write_segmentation(tmp_path / "known.ome.zarr", classes, scale=(0.5, 0.5))
    label(recommend(known, min_size="10um2", ndim=2))
    np.testing.assert_array_equal(ids_of(known), scipy_ids(classes, min_size=40))
    unknown = write_segmentation(tmp_path / "unknown.ome.zarr", classes, unit=None)
    label(recommend(unknown, min_size="10um2", ndim=2))
    np.testing.assert_array_equal(ids_of(unknown), scipy_ids(classes))
    assert "the smallest object that the model recommends is not used" in caplog.text


def test_a_recommendation_for_planes_is_not_used_for_volumes(tmp_path, here):
    classes = blobs(8, 40, 50, sigma=1.0)
    path = write_segmentation(tmp_path / "cells.ome.zarr", classes, "zyx", files=(8, 32, 32))
    label(recommend(path, min_size="40", ndim=2), "--ndim", 3)
    assert attributes(path)["parameters"]["min_size_px"] == 0
    assert "from_model" not in attributes(path)


# -- the ids -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("connectivity", [1, 2])
@pytest.mark.parametrize("block", [64, 96, 512])
def test_ids_are_scipys_whatever_the_blocks(block, connectivity, tmp_path, here):
    classes = blobs(*SHAPE)
    path = write_segmentation(tmp_path / "cells.ome.zarr", classes)
    outcome = label(path, "--block", block, "--connectivity", connectivity)
    ids, expected = ids_of(path), scipy_ids(classes, connectivity)
    assert ids.dtype == np.uint32
    np.testing.assert_array_equal(ids, expected)
    assert f"Done: {expected.max():,} objects" in outcome.out
    assert attributes_of(path / IDS)["segment_slide"]["n_objects"] == expected.max()
    crossing = (expected[:, BLOCK - 1] > 0) & (expected[:, BLOCK - 1] == expected[:, BLOCK])
    assert crossing.any()  # else nothing was joined
    assert (expected != scipy_ids(classes, 3 - connectivity)).any()
    assert (expected != scipy_ids(classes > 0, connectivity)).any()  # classes touch


def test_real_workers_write_the_same_bytes_as_none(tmp_path, warm, monkeypatch):
    classes, options = blobs(*SHAPE), ["--block", BLOCK, "--fill-holes", 30, "--min-size", 5]
    path = write_segmentation(tmp_path / "cells.ome.zarr", classes)
    label(path, *options, "-o", tmp_path / "workers.ome.zarr")
    monkeypatch.setattr(segment_slide.flows.instances, "open_cluster", lambda *_, **__: contextlib.nullcontext())
    label(path, *options, "-o", tmp_path / "none.ome.zarr")
    assert tree(tmp_path / "workers.ome.zarr") == tree(tmp_path / "none.ome.zarr")


@pytest.mark.slow
def test_one_and_three_workers_write_the_same_bytes(tmp_path, monkeypatch):
    path, trees = write_segmentation(tmp_path / "cells.ome.zarr", blobs(*SHAPE)), []
    options = ["--block", BLOCK, "--fill-holes", 30, "--split", 1, "--split-halo", 16, "--regrow"]
    for workers in (1, 3):
        spec = LocalSpec(workers, 1, 1 << 30)
        monkeypatch.setattr(
            segment_slide.flows.instances, "open_cluster", lambda *_, spec=spec, **__: local_client(spec)
        )
        label(path, *options, "-o", tmp_path / f"{workers}.ome.zarr")
        trees.append(tree(tmp_path / f"{workers}.ome.zarr"))
    assert trees[0] == trees[1]


def test_pyramid_levels_are_every_second_pixel(tmp_path, here):
    classes = blobs(1030, 70)
    path = write_segmentation(tmp_path / "cells.ome.zarr", classes, scale=(0.5, 0.25))
    label(path, "--block", 96)
    datasets = attributes_of(path / IDS)["ome"]["multiscales"][0]["datasets"]
    assert [dataset["path"] for dataset in datasets] == ["0", "1", "2"]
    scales = [dataset["coordinateTransformations"][0]["scale"] for dataset in datasets]
    assert scales == [[0.5, 0.25], [1.0, 0.5], [2.0, 1.0]]
    for level in range(3):
        step = 1 << level
        np.testing.assert_array_equal(ids_of(path, level), scipy_ids(classes)[::step, ::step])


@pytest.mark.parametrize("block", [slow(32), 64])
def test_without_splitting_and_with_it_every_object_is_found_as_in_the_whole_image(block, tmp_path, here):
    classes = disks(150, 190)
    path = write_segmentation(tmp_path / "cells.ome.zarr", classes)
    outcome = label(path, "--block", block, "--split", 1, "--split-halo", 64, "--min-size", 20)
    closed = [(False, False)] * 2
    pieces = split_touching(classes, depth_px=1, spacing=(1, 1), connectivity=1, open_faces=closed)
    expected = in_raster_order(pieces.labels, min_size=20)
    np.testing.assert_array_equal(ids_of(path), expected)
    assert expected.max() > scipy_ids(classes, min_size=20).max() + 10  # else nothing was split
    assert ("larger than the halo" in outcome.out) == bool(attributes(path)["n_larger_than_halo"])


def attributes(path: Path) -> dict:
    """The record of the instances."""
    return attributes_of(path / IDS)["segment_slide"]


def test_splitting_with_a_halo_that_is_too_small_says_so(tmp_path, here):
    path = write_segmentation(tmp_path / "cells.ome.zarr", blobs(100, 130, sigma=6))
    outcome = label(path, "--block", 64, "--split", 1, "--split-halo", 4)
    assert attributes(path)["n_larger_than_halo"] > 0
    assert f"{attributes(path)['n_larger_than_halo']:,} object(s) at block borders" in outcome.out


@pytest.mark.parametrize("block", [slow(32), 64, 512])
def test_ridges_are_given_back_as_in_the_whole_image(block, tmp_path, here):
    random = np.random.default_rng(0)
    cells = random.integers(1, 3, (12, 15)).repeat(16, axis=0).repeat(17, axis=1).astype(np.uint8)
    cells[15::16], cells[:, 16::17] = 0, 0  # ridges of one pixel between all cells
    cells[63:65, 40:140] = 0  # of two pixels, along a block's border
    path = write_segmentation(tmp_path / "cells.ome.zarr", cells)
    label(path, "--block", block, "--regrow", "--min-size", 100)
    ids = scipy_ids(cells, min_size=100)
    reach = 2
    expected = regrow_ridges(np.pad(ids, reach), reach)
    np.testing.assert_array_equal(ids_of(path), expected)
    assert (expected > 0).mean() > (ids > 0).mean() + 0.05


# -- holes and sizes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("connectivity", [1, 2])
@pytest.mark.parametrize("block", [32, slow(96)])
def test_holes_are_those_of_the_whole_image(block, connectivity, tmp_path, here):
    classes = blobs(150, 170, cover=0.75)
    path = write_segmentation(tmp_path / "cells.ome.zarr", classes)
    label(path, "--block", block, "--connectivity", connectivity, "--fill-holes", "40")
    whole = filled(classes, connectivity, below_px=40)
    np.testing.assert_array_equal(ids_of(path), scipy_ids(whole, connectivity))
    changed = whole != classes
    assert (changed[:, 32:-1:32] & changed[:, 31:-2:32]).any()  # some cross a block's border
    assert (filled(classes, connectivity, below_px=10**6) != whole).any()  # some are too large
    single = filled((classes > 0).astype(np.uint8), connectivity, below_px=40) > 0
    assert (single != (whole > 0)).any()  # some touch two classes


@pytest.mark.parametrize("connectivity", [slow(1), 2])
def test_objects_are_dropped_by_their_size_in_the_whole_image(connectivity, tmp_path, here):
    classes = blobs(*SHAPE, cover=0.3, sigma=1.5)
    path = write_segmentation(tmp_path / "cells.ome.zarr", classes)
    label(path, "--block", 32, "--connectivity", connectivity, "--min-size", "25")
    np.testing.assert_array_equal(ids_of(path), scipy_ids(classes, connectivity, min_size=25))
    torn = classes.copy()
    torn[:, 32::32] = torn[32::32] = 0
    assert scipy_ids(torn, connectivity, min_size=25).max() != scipy_ids(classes, connectivity, min_size=25).max()


def test_holes_are_filled_before_small_objects_are_dropped(tmp_path, here):
    classes = np.zeros((80, 80), np.uint8)
    classes[60:69, 60:69] = 1  # a ring across four blocks: 32 px, with its hole 81
    classes[61:68, 61:68] = 0
    path = write_segmentation(tmp_path / "cells.ome.zarr", classes)
    label(path, "--block", 64, "--fill-holes", 50, "--min-size", 81)
    assert (np.bincount(ids_of(path).ravel())).tolist() == [6400 - 81, 81]
    label(path, "--block", 64, "--fill-holes", 49, "--min-size", 33, "-o", tmp_path / "out.ome.zarr")
    assert not ids_of(tmp_path / "out.ome.zarr").any()


@pytest.mark.parametrize(
    ("scale", "unit", "size", "pixels"),
    [
        ((0.5, 0.25), "micrometer", "3um2", 24),
        ((0.5, 0.25), "micrometer", "2.9 µm²", 24),  # 23.2
        ((500.0, 250.0), "nanometer", "3um2", 24),
    ],
)
def test_sizes_in_um2_are_counted_in_pixels(scale, unit, size, pixels, tmp_path, here):
    classes = blobs(*SHAPE)
    path = write_segmentation(tmp_path / "cells.ome.zarr", classes, scale=scale, unit=unit)
    label(path, "--min-size", size)
    np.testing.assert_array_equal(ids_of(path), scipy_ids(classes, min_size=pixels))
    assert attributes(path)["parameters"]["min_size_px"] == pixels


# -- unusual images ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "classes",
    [
        np.zeros((1, 1), np.uint8),
        np.ones((1, 1), np.uint8),
        np.zeros((100, 70), np.uint8),
        np.full((100, 70), 255, np.uint8),
        blobs(100, 7),
        blobs(3, 200),
        np.indices((60, 70)).sum(axis=0).astype(np.uint8) % 2,  # a chessboard: 2100 objects, or one with corners
    ],
    ids=["one pixel of background", "one pixel", "nothing", "everything", "narrow", "flat", "chessboard"],
)
@pytest.mark.parametrize("connectivity", [1, slow(2)])
def test_images_of_unusual_shape_and_content(classes, connectivity, tmp_path, here):
    path = write_segmentation(tmp_path / "cells.ome.zarr", classes)
    options = ["--block", 32, "--connectivity", connectivity]
    label(path, *options)
    np.testing.assert_array_equal(ids_of(path), scipy_ids(classes, connectivity))
    label(path, *options, "--fill-holes", 9, "--min-size", 2, "--regrow", "-o", tmp_path / "filled.ome.zarr")
    whole = scipy_ids(filled(classes, connectivity, 9), connectivity, min_size=2)
    np.testing.assert_array_equal(ids_of(tmp_path / "filled.ome.zarr"), regrow_ridges(np.pad(whole, 2), 2))
    label(path, *options, "--split", 1, "-o", tmp_path / "split.ome.zarr")
    split = ids_of(tmp_path / "split.ome.zarr")
    np.testing.assert_array_equal(split > 0, classes > 0)
    assert split.max() == len(np.unique(split[split > 0]))


def test_planes_of_a_2d_segmentation_have_objects_of_their_own(tmp_path, here):
    classes = blobs(2, 3, 70, 80, sigma=1.5)
    path = write_segmentation(tmp_path / "cells.ome.zarr", classes, "tzyx")
    label(path, "--block", 32, "--fill-holes", 9)
    expected = [[filled(plane, 1, 9) for plane in time] for time in classes]
    np.testing.assert_array_equal(ids_of(path), scipy_ids(np.array(expected), planes=2))
    assert attributes(path)["parameters"]["ndim"] == 2


@pytest.mark.parametrize("connectivity", [slow(1), slow(2), 3])
def test_volumes_of_a_3d_segmentation_are_found_as_such_by_default(connectivity, tmp_path, here):
    classes = blobs(20, 40, 50, cover=0.3, sigma=1.5)
    path = write_segmentation(tmp_path / "cells.ome.zarr", classes, "zyx", files=(16, 16, 16), scale=(2.0, 0.5, 0.5))
    label(path, "--block", 16, "--connectivity", connectivity, "--min-size", "2um3", "--fill-holes", 9)
    whole = scipy_ids(filled(classes, connectivity, 9), connectivity, min_size=4)
    np.testing.assert_array_equal(ids_of(path), whole)
    assert attributes(path)["parameters"]["ndim"] == 3
    label(path, "--block", 32, "--ndim", 2, "-o", tmp_path / "planes.ome.zarr")
    np.testing.assert_array_equal(ids_of(tmp_path / "planes.ome.zarr"), scipy_ids(classes, planes=1))


@pytest.mark.slow
def test_volumes_over_time_with_ridges_and_splits(tmp_path, here):
    classes = np.stack([disks(24, 40, 50, radius=6, pitch=12, seed=seed) for seed in range(2)])
    path = write_segmentation(tmp_path / "cells.ome.zarr", classes, "tzyx", files=(32, 32, 32), scale=(1.0, 2, 1, 1))
    label(path, "--block", 16, "--split", 1, "--split-halo", 48, "--regrow")
    names, total = [], 0
    for volume in classes:
        closed = [(False, False)] * 3
        pieces = split_touching(volume, depth_px=1, spacing=(2, 1, 1), connectivity=1, open_faces=closed).labels
        names.append(np.where(pieces > 0, pieces + total, 0))
        total += pieces.max()
    whole = in_raster_order(np.stack(names))
    np.testing.assert_array_equal(ids_of(path), [regrow_ridges(np.pad(ids, 2), 2) for ids in whole])


# -- what others made ----------------------------------------------------------------------------------------------


def foreign(path: Path, classes: np.ndarray, name: str = "nuclei") -> Path:
    """An image with a label image that another program made."""
    write_ome(path, noise(*classes.shape), "yx", scale=(0.5, 0.5))
    write_group(path / "labels", {"ome": {"version": "0.5", "labels": [name]}})
    write_ome(path / "labels" / name, classes, "yx", scale=(0.5, 0.5))
    edit_attributes(path / "labels" / name, lambda attributes: attributes["ome"].update({"image-label": {}}))
    return path


def test_labels_of_another_program_are_left_alone_unless_a_place_is_given(tmp_path, here):
    classes = blobs(100, 130)
    path = foreign(tmp_path / "image.zarr", classes)
    before = snapshot(tmp_path)
    refused = run_here("instances", path, "--name", "nuclei")
    check_refused(refused, ("was not made by segment-slide", "--output", "--in-place"))
    assert snapshot(tmp_path) == before

    label(path, "--name", "nuclei", "-o", tmp_path / "out.ome.zarr")
    np.testing.assert_array_equal(
        ids_of(tmp_path / "out.ome.zarr", group="labels/nuclei-instances"), scipy_ids(classes)
    )
    assert {name: entry for name, entry in snapshot(tmp_path).items() if not name.startswith("out.ome.zarr")} == before

    label(path, "--name", "nuclei", "--in-place")
    np.testing.assert_array_equal(ids_of(path, group="labels/nuclei-instances"), scipy_ids(classes))
    after = snapshot(tmp_path)
    changed = {name for name in before if after[name] != before[name] and before[name][0] != "directory"}
    assert changed == {"image.zarr/labels/zarr.json"}
    assert attributes_of(path / "labels")["ome"] == {"version": "0.5", "labels": ["nuclei", "nuclei-instances"]}


def test_an_output_that_is_the_input_of_another_program_needs_in_place_too(tmp_path, here):
    path = foreign(tmp_path / "image.zarr", blobs(60, 70))
    before = snapshot(tmp_path)
    check_refused(run_here("instances", path, "--name", "nuclei", "-o", path), ("--in-place",))
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("dtype", ["bool", "uint8", slow("uint16"), slow("int64"), ">u2"])
def test_a_bare_mask_of_any_whole_numbers_needs_an_output(dtype, tmp_path, here):
    mask = blobs(100, 130, wholly=1).astype(bool)
    values = mask if dtype == "bool" else (mask * 255).astype(dtype)
    path = write_array(tmp_path / "mask.zarr", values)
    before = snapshot(tmp_path)
    for options in ([], ["--in-place"]):
        refused = run_here("instances", path, "--axes", "yx", *options)
        check_refused(refused, ("was not made by segment-slide", "--output"))
        assert snapshot(tmp_path) == before
    label(path, "--axes", "yx", "--block", 32, "-o", tmp_path / "out.ome.zarr")
    np.testing.assert_array_equal(ids_of(tmp_path / "out.ome.zarr"), scipy_ids(mask))


def test_a_mask_with_axes_in_another_order_is_turned(tmp_path, here):
    mask = blobs(100, 130, wholly=1)
    path = write_array(tmp_path / "mask.zarr", mask)
    label(path, "--axes", "xy", "--block", 32, "-o", tmp_path / "out.ome.zarr")
    np.testing.assert_array_equal(ids_of(tmp_path / "out.ome.zarr"), scipy_ids(mask.T))


def test_planes_that_are_stored_last_are_planes_still(tmp_path, here):
    mask = np.stack([blobs(60, 70, seed=seed) for seed in range(3)])
    path = write_array(tmp_path / "mask.zarr", np.moveaxis(mask, 0, -1))
    label(path, "--axes", "yxz", "--ndim", 2, "--block", 32, "-o", tmp_path / "out.ome.zarr")
    np.testing.assert_array_equal(ids_of(tmp_path / "out.ome.zarr"), scipy_ids(mask, planes=1))


def test_a_coarser_level_is_labelled_with_its_own_pixel_size(tmp_path, here):
    classes = blobs(200, 260)
    path = write_ome(tmp_path / "classes.zarr", classes, "yx", scale=(0.5, 0.25), n_levels=2)
    label(path, "--level", 1, "--min-size", "3um2", "-o", tmp_path / "out.ome.zarr")
    expected = scipy_ids(classes[::2, ::2], min_size=6)
    np.testing.assert_array_equal(ids_of(tmp_path / "out.ome.zarr"), expected)
    dataset = attributes_of(tmp_path / "out.ome.zarr" / IDS)["ome"]["multiscales"][0]["datasets"][0]
    assert dataset["coordinateTransformations"][0]["scale"] == [1.0, 0.5]


def write_old(path: Path, classes: np.ndarray) -> Path:
    """An image with labels in OME-Zarr 0.4 (Zarr format 2)."""
    scale = [{"type": "scale", "scale": [1.0, 1.0]}]
    axes = [{"name": axis, "type": "space"} for axis in "yx"]
    image = {"version": "0.4", "axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scale}]}
    for group, attributes in {
        "": {"multiscales": [image]},
        "labels": {"labels": ["nuclei"]},
        "labels/nuclei": {"multiscales": [image], "image-label": {"version": "0.4"}},
    }.items():
        (path / group).mkdir(parents=True)
        (path / group / ".zgroup").write_text('{"zarr_format": 2}')
        (path / group / ".zattrs").write_text(json.dumps(attributes))
    for array in ("0", "labels/nuclei/0"):
        options = {"chunks": (64, 64), "dtype": "uint8", "zarr_format": 2}
        zarr.create_array(path / array, shape=classes.shape, **options)[...] = classes
    return path


def test_labels_in_ome_zarr_04_are_read_and_never_written_into(tmp_path, here):
    classes = blobs(100, 130)
    path = write_old(tmp_path / "old.zarr", classes)
    before = snapshot(path)
    label(path, "--name", "nuclei", "-o", tmp_path / "out.ome.zarr")
    found = ids_of(tmp_path / "out.ome.zarr", group="labels/nuclei-instances")
    np.testing.assert_array_equal(found, scipy_ids(classes))
    check_refused(run_here("instances", path, "--name", "nuclei", "--in-place"), ("--in-place needs an OME-Zarr 0.5",))
    assert snapshot(path) == before


def test_a_missing_name_in_ome_zarr_04_is_refused_and_the_image_itself_is_not_taken_instead(tmp_path, here):
    path = write_old(tmp_path / "old.zarr", blobs(100, 130))
    refused = run_here("instances", path, "--name", "cells", "-o", tmp_path / "out.ome.zarr")
    check_refused(refused, ("no label image 'cells'", "nuclei"))


# -- other programs ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory) -> dict[str, Path]:
    """Instances beside their classes, and in a store of their own; two levels, pixels of 0.5 x 0.25 um."""
    folder = tmp_path_factory.mktemp("calibrated")
    beside = write_segmentation(folder / "cells.ome.zarr", blobs(540, 100), scale=(0.5, 0.25), n_levels=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segment_slide.flows.instances, "open_cluster", lambda *_, **__: contextlib.nullcontext())
        label(beside, "--block", 96)
        label(beside, "--block", 96, "-o", folder / "out.ome.zarr")
    return {"beside": beside, "alone": folder / "out.ome.zarr"}


@pytest.mark.parametrize(("path", "kind"), [("", "Image"), ("labels", "Labels"), (IDS, "ImageLabel")])
@pytest.mark.parametrize("place", ["beside", "alone"])
def test_every_group_is_valid_ome_zarr(place, path, kind, calibrated):
    from ome_zarr_models import open_ome_zarr

    found = open_ome_zarr(zarr.open_group(calibrated[place], path=path, mode="r"))
    assert (type(found).__name__, found.ome_zarr_version) == (kind, "0.5")


def test_nothing_is_said_of_single_objects_in_the_metadata(calibrated):
    """A slide has millions of them."""
    shown = attributes_of(calibrated["beside"] / IDS)["ome"]["image-label"]
    assert shown == {"source": {"image": "../../"}}


def test_both_label_images_are_listed(calibrated):
    assert attributes_of(calibrated["beside"] / "labels")["ome"]["labels"] == ["segmentation", "segmentation-instances"]
    assert attributes_of(calibrated["alone"] / "labels")["ome"]["labels"] == ["segmentation-instances"]


@pytest.mark.parametrize("place", ["beside", "alone"])
def test_ome_zarr_py_finds_the_instances_with_their_levels_and_pixel_sizes(place, calibrated):
    from ome_zarr.io import parse_url
    from ome_zarr.reader import Reader

    nodes = {str(node.zarr).split()[0]: node for node in Reader(parse_url(str(calibrated[place])))()}
    (node,) = [node for where, node in nodes.items() if where.rstrip("/").endswith(IDS)]
    assert [level.shape for level in node.data] == [(540, 100), (270, 50)]
    scales = [transforms[0]["scale"] for transforms in node.metadata["coordinateTransformations"]]
    assert scales == [[0.5, 0.25], [1.0, 0.5]]
    np.testing.assert_array_equal(np.asarray(node.data[0]), scipy_ids(blobs(540, 100)))


@pytest.mark.parametrize(("place", "n_labels"), [("beside", 2), ("alone", 1)])
def test_napari_opens_the_instances_as_labels(place, n_labels, calibrated):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # napari's own
        from napari_ome_zarr import napari_get_reader

        layers = napari_get_reader(str(calibrated[place]))(str(calibrated[place]))
    labels = [(data, shown) for data, shown, kind in layers if kind == "labels"]
    assert len(labels) == n_labels
    assert all(tuple(shown["scale"]) == (0.5, 0.25) for _, shown in labels)
    assert max(int(np.asarray(data[0]).max()) for data, _ in labels) == scipy_ids(blobs(540, 100)).max()


def test_info_tells_of_instances(calibrated):
    for place in calibrated.values():
        outcome = run_here("info", place)
        assert outcome.exit_code == 0, outcome
        assert "segmentation-instances" in outcome.out
        assert "uint32" in outcome.out


def test_a_real_segmentation_is_labelled_and_both_commands_find_their_work_done(model, tmp_path, warm):
    image = write_ome(tmp_path / "image.ome.zarr", noise(150, 170), "yx", scale=(0.5, 0.25))
    out = tmp_path / "out.ome.zarr"
    segment = ["segment", image, "-m", model, "-o", out, "--block", BLOCK]
    assert run_here(*segment).exit_code == 0
    before = tree(out)
    label(out, "--block", BLOCK)
    classes = zarr.open_array(out / "labels/segmentation/0", mode="r")[...]
    np.testing.assert_array_equal(ids_of(out), scipy_ids(classes))
    after = tree(out)
    assert {name for name in before if after[name] != before[name]} == {"labels/zarr.json", "_manifest/files.json"}
    assert all(name.startswith(IDS) for name in after.keys() - before.keys())
    assert "Went on: 9 of 9" in run_here(*segment).out
    assert "Went on: 9 of 9" in label(out, "--block", BLOCK).out
    assert tree(out) == after
    told = run_here("info", out)
    assert told.exit_code == 0, told


# -- bad input -----------------------------------------------------------------------------------------------------


@dataclass
class Request:
    """A command that would work, but for what a case changes."""

    folder: Path
    input: Path = Path()
    options: list[object] = field(default_factory=list)

    def __post_init__(self) -> None:
        scale = (0.5, 0.25)
        self.input = write_segmentation(self.folder / "cells.ome.zarr", blobs(100, 130), scale=scale)

    def mask(self, pixels: np.ndarray, axes: str) -> None:
        self.input = write_array(self.folder / "mask.zarr", pixels)
        self.options = ["--axes", axes, "-o", self.folder / "out.ome.zarr"]


Prepare = Callable[[Request], None]
CASES: dict[str, tuple[Prepare, tuple[str, ...]]] = {}


def refused(*says: str) -> Callable[[Prepare], Prepare]:
    """Register a case: what makes the request a bad one, and what the sentence must say."""

    def register(prepare: Prepare) -> Prepare:
        CASES[prepare.__name__] = (prepare, says)
        return prepare

    return register


def options_case(name: str, options: list[object], *says: str) -> None:
    def prepare(request: Request) -> None:
        request.options = options

    prepare.__name__ = name
    refused(*says)(prepare)


options_case("name_is_missing", ["--name", "nuclei"], "no label image 'nuclei'", "--name", "segmentation")
options_case("connectivity_is_0", ["--connectivity", 0], "connectivity=0, expected 1 to 2")
options_case("connectivity_is_3_in_a_plane", ["--connectivity", 3], "connectivity=3, expected 1 to 2")
options_case("size_is_a_word", ["--min-size", "abc"], "min_size='abc'", "50", "12.5um2")
options_case("size_is_negative", ["--min-size=-4"], "min_size='-4'")
options_case("size_is_a_volume_in_a_plane", ["--min-size", "5um3"], "min_size=5um3", "2 axes", "um2")
options_case("size_is_without_end", ["--min-size", "1e999"], "min_size")
options_case("holes_are_a_word", ["--fill-holes", "many"], "fill_holes='many'")
options_case("holes_are_a_volume_in_a_plane", ["--fill-holes", "5um3"], "fill_holes=5um3", "um2")
options_case("split_is_0", ["--split", 0], "split=0", "positive")
options_case("split_is_negative", ["--split=-1"], "split=-1", "positive")
options_case("split_is_not_a_number", ["--split", "nan"], "split=nan")
options_case("split_halo_without_split", ["--split-halo", 30], "split_halo=30 px", "add", "split")
options_case("split_halo_is_0", ["--split", 1, "--split-halo", 0], "split_halo=0", "positive")
options_case("ndim_is_3_without_z", ["--ndim", 3], "ndim=3", "'yx'")
options_case("ndim_is_4", ["--ndim", 4], "ndim=4, expected 2")
options_case("block_is_0", ["--block", 0], "block=0", "positive")
options_case("level_is_missing", ["--level", 1], "level=1, expected 0 to 0")
options_case("axes_are_given_though_known", ["--axes", "yx"], "--axes", "says axes='yx' itself")
options_case("workers_are_none", ["--workers", 0], "workers=0")


@refused("no such file or directory", "nowhere.ome.zarr")
def input_is_missing(request):
    request.input = request.folder / "nowhere.ome.zarr"


@refused("is a file", "segment-slide ingest")
def input_is_a_file(request):
    request.input = request.folder / "cells.tif"
    request.input.write_bytes(b"II*\0")


@refused("bare Zarr array", "--axes")
def axes_are_unknown(request):
    request.mask(blobs(40, 50), "yx")
    request.options = request.options[2:]


@refused("dtype=float32", "classes")
def labels_are_real_numbers(request):
    request.mask(blobs(40, 50).astype(np.float32), "yx")


@refused("2 channels", "one")
def labels_have_two_channels(request):
    request.mask(blobs(2, 40, 50), "cyx")


@refused("min_size=5um2", "pixel", "px")
def pixel_size_is_unknown(request):
    shutil.rmtree(request.input)
    request.input = write_segmentation(request.folder / "cells.ome.zarr", blobs(40, 50), unit=None)
    request.options = ["--min-size", "5um2"]


@refused("min_size=5um2", "pixel", "px")
def pixel_size_of_a_bare_mask_is_unknown(request):
    request.mask(blobs(40, 50), "yx")
    request.options += ["--min-size", "5um2"]


@refused("is not complete", "1 of ", "segment-slide segment")
def segmentation_is_unfinished(request):
    (request.input / "labels/segmentation/0/c/1/0").unlink()


@refused("is not complete", "1 of ")
def segmentation_has_an_empty_file(request):
    (request.input / "labels/segmentation/0/c/0/2").write_bytes(b"")


@refused("lie in each other", "read-only")
def output_lies_in_the_labels(request):
    request.options = ["-o", request.input / "labels/segmentation/out.ome.zarr"]


@refused("lie in each other", "read-only")
def output_lies_in_the_segmentation(request):
    request.options = ["-o", request.input / "out.ome.zarr"]


@refused("lie in each other")
def output_is_a_labels_folder(request):
    request.options = ["-o", request.input / "labels"]


@refused("lie in each other")
def output_is_a_bare_input(request):
    request.mask(blobs(40, 50), "yx")
    request.options[-1] = request.input


@refused("lie in each other")
def output_is_another_name_of_a_foreign_input(request):
    request.input = foreign(request.folder / "image.zarr", blobs(40, 50))
    (request.folder / "alias.zarr").symlink_to(request.input)
    request.options = ["--name", "nuclei", "-o", request.folder / "alias.zarr"]


@refused("exists and is not an output of segment-slide")
def output_is_a_folder_of_photos(request):
    (request.folder / "photos").mkdir()
    (request.folder / "photos/holiday.jpg").write_bytes(b"\xff\xd8")
    request.options = ["-o", request.folder / "photos"]


@refused("exists and is not an output of segment-slide")
def output_is_an_image_of_somebody_else(request):
    request.options = ["-o", write_ome(request.folder / "image.zarr", noise(40, 50), "yx")]


@refused("is a file; expected a new directory")
def output_is_a_file(request):
    (request.folder / "notes.txt").write_text("notes")
    request.options = ["-o", request.folder / "notes.txt"]


@refused("holds labels/segmentation-instances that segment-slide did not write")
def instances_of_that_name_are_somebody_elses(request):
    write_ome(request.input / IDS, noise(40, 50), "yx")


@refused("a worker with", "GiB", "--block", "131072")
def block_does_not_fit_the_memory(request):
    request.input = request.folder / "mask.zarr"
    zarr.create_array(request.input, shape=(200_000, 200_000), chunks=(4096, 4096), dtype="uint8")  # no chunk stored
    request.options = ["--axes", "yx", "--block", 131072, "-o", request.folder / "out.ome.zarr"]


def check_refused(outcome: Outcome, says: tuple[str, ...]) -> None:
    assert outcome.exit_code == 2, outcome
    assert outcome.err.startswith("Error: "), outcome
    assert "Traceback" not in outcome.err + outcome.out
    for text in says:
        assert text in outcome.err


@pytest.mark.parametrize("case", CASES)
def test_a_request_that_cannot_be_carried_out_is_refused_with_a_sentence(case, tmp_path, here):
    prepare, says = CASES[case]
    request = Request(tmp_path)
    prepare(request)
    before = snapshot(tmp_path)
    check_refused(run_here("instances", request.input, *request.options), says)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("name", ["../up", "a/b", ".hidden", "__zarr", "with space"])
def test_a_name_that_zarr_cannot_hold_is_refused(name, tmp_path, here):
    request = Request(tmp_path)
    before = snapshot(tmp_path)
    check_refused(run_here("instances", request.input, "--name", name), ())
    assert snapshot(tmp_path) == before
    request.mask(blobs(40, 50), "yx")
    before = snapshot(tmp_path)
    check_refused(run_here("instances", request.input, "--name", name, *request.options), ())
    assert snapshot(tmp_path) == before


def test_the_request_that_all_cases_spoil_is_carried_out(tmp_path, here):
    """Negative control."""
    label(Request(tmp_path).input, "--connectivity", 2, "--min-size", "5um2", "--fill-holes", "5um2")


# -- values that are no classes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("value", "dtype"), [(256, "uint16"), (300, "uint16"), (-1, "int16"), (10**12, "int64")])
def test_a_value_that_is_no_class_is_named(value, dtype, tmp_path, here):
    pixels = blobs(100, 130).astype(dtype)
    pixels[70, 90] = value
    path = write_array(tmp_path / "ids.zarr", pixels)
    outcome = run_here("instances", path, "--axes", "yx", "--block", 32, "-o", tmp_path / "out.ome.zarr")
    assert outcome.exit_code == 2, outcome
    assert f"holds the value {value}; classes are 0 (background) to 255" in outcome.err
    assert "block (2, 2)" in outcome.err
    assert "run the same command again" not in outcome.err.lower()
    assert not (tmp_path / "out.ome.zarr").exists()


def test_values_up_to_255_may_be_stored_in_wider_integers(tmp_path, here):
    pixels = blobs(100, 130).astype(np.uint16)
    pixels[pixels == 2] = 255
    path = write_array(tmp_path / "classes.zarr", pixels)
    label(path, "--axes", "yx", "--block", 32, "-o", tmp_path / "out.ome.zarr")
    np.testing.assert_array_equal(ids_of(tmp_path / "out.ome.zarr"), scipy_ids(pixels))


# -- going on ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """One command and what it leaves behind."""

    input: Path
    out: Path
    options: tuple[object, ...] = ()

    @property
    def arguments(self) -> list[object]:
        return ["instances", self.input, "-o", self.out, "--block", BLOCK, *self.options]

    def stored(self, level: int = 0) -> dict[tuple[int, ...], int]:
        """Shards of a level with their times of change."""
        return {index: path.stat().st_mtime_ns for index, path in shards(self.out / IDS / str(level)).items()}

    def work(self, pattern: str = "*") -> list[Path]:
        """Files of the work folder."""
        folder = self.out / IDS / "work"
        return sorted(path for path in folder.rglob(pattern) if path.is_file() and path.suffix != ".partial")

    def check(self, reference: dict[str, str], outcome: Outcome | None = None) -> Outcome:
        """The same command again: what is there stays, every byte is the undisturbed run's."""
        before = [self.stored(level) for level in (0, 1)]
        outcome = outcome or run_here(*self.arguments)
        check_done(outcome, self.out)
        for level, stored in enumerate(before):
            after = self.stored(level)
            assert {index: after[index] for index in stored} == stored
        if before[0]:
            assert f"Went on: {len(before[0])} of {N_BLOCKS} blocks were already done." in outcome.out
        assert tree(self.out) == reference
        return outcome


LONG, N_BLOCKS, N_COARSE = (560, 150), 9 * 3, 5 * 2
ALL_STEPS = ("--fill-holes", 40, "--min-size", 5, "--split", 1, "--split-halo", 16, "--regrow")


@pytest.fixture(scope="module")
def segmentation(tmp_path_factory) -> Path:
    return write_segmentation(tmp_path_factory.mktemp("input") / "cells.ome.zarr", blobs(*LONG, cover=0.6))


STEPS = [pytest.param((), id="plain"), slow(ALL_STEPS, id="all steps")]


@pytest.fixture(scope="module", params=STEPS)
def options(request) -> tuple[object, ...]:
    return request.param


@pytest.fixture(scope="module")
def reference(options, segmentation, tmp_path_factory) -> dict[str, str]:
    """Files of an undisturbed run."""
    run = Run(segmentation, tmp_path_factory.mktemp("reference") / "out.ome.zarr", options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segment_slide.flows.instances, "open_cluster", lambda *_, **__: contextlib.nullcontext())
        outcome = run_here(*run.arguments)
    check_done(outcome, run.out)
    assert "Went on" not in outcome.out
    assert (len(run.stored(0)), len(run.stored(1))) == (N_BLOCKS, N_COARSE)
    return tree(run.out)


@pytest.fixture
def run(segmentation, options, tmp_path) -> Run:
    return Run(segmentation, tmp_path / "out.ome.zarr", options)


class Killed(BaseException):
    """Ends a run as SIGKILL does: nothing after it touches the disk."""


@contextlib.contextmanager
def killed_after(n_changes: int) -> Iterator[list[str]]:
    """Let so many changes of the disk happen, and then none: what is written aside stays, so does the lock's file.

    Yields the names of what was changed. Changes are renames of finished files and deletions of folders, which are
    cut in their middle.
    """
    made: list[str] = []
    rename, rmtree, unlink, rmdir = Path.replace, shutil.rmtree, Path.unlink, Path.rmdir

    def count(name: object) -> None:
        if len(made) >= n_changes:
            raise Killed
        made.append(str(name))

    def replace(path: Path, target: Path) -> Path:
        count(target)
        return rename(path, target)

    def remove(folder: Path, *arguments: object, **keywords: object) -> None:
        if len(made) == n_changes - 1:
            for file in [path for path in sorted(Path(folder).rglob("*")) if path.is_file()][::2]:
                os.unlink(file)
            made.append(f"half of {folder}")
            raise Killed
        count(folder)
        rmtree(folder, *arguments, **keywords)

    def unless_dead(function: Callable[..., None]) -> Callable[..., None]:
        def call(path: Path, *arguments: object, **keywords: object) -> None:
            if len(made) >= n_changes:
                raise Killed
            function(path, *arguments, **keywords)

        return call

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "replace", replace)
        patch.setattr(shutil, "rmtree", remove)
        patch.setattr(Path, "unlink", unless_dead(unlink))
        patch.setattr(Path, "rmdir", unless_dead(rmdir))
        yield made


def cut(arguments: list[object], n_changes: int) -> list[str] | None:
    """Run a command that is killed after so many changes of the disk; None if it ended before."""
    with killed_after(n_changes) as made:
        try:
            outcome = run_here(*arguments)
        except Killed:
            return made
    assert outcome.exit_code == 0, outcome
    return None


@pytest.mark.slow
@pytest.mark.parametrize("steps", STEPS)
def test_a_run_killed_at_any_write_goes_on_to_equal_bytes(steps, tmp_path, here, monkeypatch):
    """Exhaustive where killing a process only samples: each change of the disk is once the last. 4 blocks, 2 levels."""
    monkeypatch.setitem(sizes.DEFAULT_CHUNK, 2, 16)
    path = write_segmentation(tmp_path / "cells.ome.zarr", blobs(30, 28, cover=0.6))
    arguments = ["instances", path, "--block", 16, *steps, "-o"]
    assert cut([*arguments, tmp_path / "whole.ome.zarr"], 10_000) is None
    whole = tree(tmp_path / "whole.ome.zarr")
    assert any("/1/c/0/0" in name for name in whole)
    bad = {}
    for n_changes in itertools.count(0):
        out = tmp_path / f"{n_changes}.ome.zarr"
        made = cut([*arguments, out], n_changes)
        if made is None:
            break
        again = run_here(*arguments, out)
        if again.exit_code or tree(out) != whole:
            differing = sorted(name for name, _ in tree(out).items() ^ whole.items())
            bad[f"{n_changes} {made[-1:]}"] = again.err or differing
    assert n_changes > 20
    assert not bad, "\n".join(f"killed after {last}: {what}" for last, what in bad.items())


@pytest.mark.slow
def test_instances_beside_their_classes_killed_at_any_write_end_with_equal_bytes(tmp_path, here):
    pristine, path = tmp_path / "pristine.ome.zarr", tmp_path / "cells.ome.zarr"
    write_segmentation(pristine, blobs(30, 28))
    arguments = ["instances", path, "--block", 16]
    whole, bad = None, {}
    for n_changes in itertools.chain([10_000], itertools.count(0)):
        shutil.copytree(pristine, path)
        made = cut(arguments, n_changes)
        if whole is None:
            whole = tree(path)
        elif made is None:
            break
        else:
            again = run_here(*arguments)
            if again.exit_code or tree(path) != whole:
                bad[f"{n_changes} {made[-1:]}"] = again.err or sorted(n for n, _ in tree(path).items() ^ whole.items())
        shutil.rmtree(path)
    assert not bad, "\n".join(f"killed after {last}: {what}" for last, what in bad.items())


@pytest.mark.parametrize("level", [0, 1])
def test_lost_files_of_a_finished_run_are_made_again(level, run, reference, here):
    run_here(*run.arguments)
    stored = sorted(run.stored(level))
    for index in stored[1::3]:
        (run.out / IDS / str(level) / "c" / "/".join(map(str, index))).unlink()
    (run.out / IDS / str(level) / "c" / "/".join(map(str, stored[0]))).write_bytes(b"")  # a power cut
    run_here(*run.arguments)
    assert tree(run.out) == reference


def end_before(stage: str, run: Run, monkeypatch) -> None:
    """Begin a run that ends before a stage."""
    whole = QuietStages.stage

    class Ending(QuietStages):
        def stage(self, name, total, done=0, unit="blocks"):
            if name == stage:
                raise Killed
            return whole(self, name, total, done, unit)

    with monkeypatch.context() as patch:
        patch.setattr("segment_slide.flows.progress.RichStages", lambda console: Ending())
        with pytest.raises(Killed):
            run_here(*run.arguments)


@pytest.mark.parametrize("stage", ["join", "write", "pyramid"])
@pytest.mark.parametrize("seed", [0, slow(1)])
def test_a_run_whose_intermediate_files_are_lost_makes_them_again(seed, stage, run, reference, here, monkeypatch):
    """A file may vanish as an unfinished write does after a power cut."""
    end_before(stage, run, monkeypatch)
    assert unfinished(run.out) == []
    files = [path for path in run.work() if path.name != "zarr.json"]
    for number in np.random.default_rng(seed).permutation(len(files))[: len(files) // 3]:
        files[number].unlink() if number % 2 else files[number].write_bytes(b"")
    assert bool(files) == (stage != "pyramid")
    run.check(reference)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("step", "kind"), [("objects", "runs"), slow("objects", "faces"), slow("holes", "runs"), slow("holes", "faces")]
)
def test_a_damaged_intermediate_file_is_named_and_made_again_once_it_is_deleted(
    step, kind, segmentation, tmp_path, here, monkeypatch
):
    steps = ("--fill-holes", 40)
    run = Run(segmentation, tmp_path / "out.ome.zarr", steps)
    undisturbed = Run(segmentation, tmp_path / "reference.ome.zarr", steps)
    run_here(*undisturbed.arguments)
    if step == "holes":  # all is found, nothing is filled: the array is made anew
        end_before("find", run, monkeypatch)
        for path in shards(run.out / IDS / "work/filled").values():
            path.unlink()
    else:
        end_before("write", run, monkeypatch)
    (file,) = [path for path in run.work("1.2.npz.zst") if f"/{step}/{kind}/" in str(path)]
    file.write_bytes(np.random.default_rng(0).bytes(file.stat().st_size))
    for _ in range(2):
        outcome = run_here(*run.arguments)
        assert outcome.exit_code == 3, outcome
        assert f"{file} is missing or damaged" in outcome.err
        assert "delete it" in outcome.err
        assert "<built-in" not in outcome.err
    file.unlink()
    run.check(tree(undisturbed.out))


@pytest.mark.parametrize("steps", [(), slow(("--fill-holes", 40)), slow(("--split", 1, "--split-halo", 16))])
def test_a_damaged_file_of_the_labels_is_named_by_block_and_all_others_are_kept(steps, segmentation, tmp_path, here):
    run = Run(segmentation, tmp_path / "out.ome.zarr", steps)
    undisturbed = Run(segmentation, tmp_path / "reference.ome.zarr", steps)
    run_here(*undisturbed.arguments)
    with rotten(segmentation / "labels/segmentation/0/c/4/1"):
        for _ in range(2):
            outcome = run_here(*run.arguments)
            assert outcome.exit_code == 3, outcome
            assert "unreadable chunk 4/1 of" in outcome.err
            named = {tuple(map(int, place)) for place in re.findall(r"block \((\d+), (\d+)\)", outcome.err)}
            near = {(4 + y, 1 + x) for y in (-1, 0, 1) for x in (-1, 0, 1)}
            assert (named == {(4, 1)}) if not steps else {(4, 1)} <= named <= near
            kept = run.work("*.npz.zst")
            done = {tuple(map(int, path.name.split(".")[:2])) for path in kept if path.parent.name == "faces"}
            assert done == set(np.ndindex(9, 3)) - named
            assert run.stored() == {}
            assert unfinished(run.out) == []
        times = {path: path.stat().st_mtime_ns for path in kept}
    # what it was begun from had the damaged bytes, so it was something else
    check_refused(run_here(*run.arguments), ("input.fingerprint: begun with", ", now "))
    assert {path: path.stat().st_mtime_ns for path in kept} == times
    shutil.rmtree(run.out)  # as the message says
    run.check(tree(undisturbed.out))


def test_a_fault_is_told_by_block_and_tried_once_more(segmentation, tmp_path, here, monkeypatch):
    """One block fails once, another one always."""
    from segment_slide.pipeline.storage.labels import LabelSource

    run, read, calls = Run(segmentation, tmp_path / "out.ome.zarr"), LabelSource.read, []

    def fail(source, box):
        place = tuple(part.start // BLOCK for part in box)
        calls.append(place)
        if (place == (2, 1) and calls.count(place) == 1) or place == (3, 0):
            raise RuntimeError("a storm")
        return read(source, box)

    with monkeypatch.context() as patch:
        patch.setattr(LabelSource, "read", fail)
        outcome = run_here(*run.arguments)
    assert outcome.exit_code == 3, outcome
    assert re.findall(r"block (\S+ ?\S+): a storm", outcome.err) == ["(3, 0)"]
    assert (calls.count((2, 1)), calls.count((3, 0)), len(calls)) == (2, 2, N_BLOCKS + 2)
    check_done(run_here(*run.arguments), run.out)


def test_a_damaged_file_of_the_ids_is_named_and_made_again(run, reference, here, caplog):
    run_here(*run.arguments)
    shard = run.out / IDS / "0/c/2/1"
    shard.write_bytes(shard.read_bytes()[:-3])
    (run.out / IDS / "1/c/1/0").unlink()
    outcome = run_here(*run.arguments)
    assert outcome.exit_code == 0, outcome
    assert "0/c/2/1, block (2, 1) is damaged" in caplog.text
    run.check(reference)


# -- an output that was begun ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def begun(tmp_path_factory) -> Path:
    """A finished run with its input, and one that was ended."""
    folder = tmp_path_factory.mktemp("begun")
    path = write_segmentation(folder / "cells.ome.zarr", blobs(100, 130), scale=(0.5, 0.25))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segment_slide.flows.instances, "open_cluster", lambda *_, **__: contextlib.nullcontext())
        label(path, "--block", 32)
        label(path, "--block", 32, "-o", folder / "out.ome.zarr")
        end_before("write", Run(path, folder / "ended.ome.zarr", ("--block", 32)), patch)
    return folder


@pytest.fixture
def copied(begun, tmp_path) -> Path:
    """A copy of it, times included."""
    return shutil.copytree(begun, tmp_path / "copy")


OTHER_OPTIONS = {
    "block": (["--block", 64], ("parameters.block", "32", "64")),
    "connectivity": (["--connectivity", 2], ("parameters.connectivity", "1", "2")),
    "min_size": (["--min-size", "3um2"], ("parameters.min_size_px", "0", "24")),
    "fill_holes": (["--fill-holes", 7], ("parameters.fill_holes_px", "0", "7")),
    "split": (["--split", 2], ("parameters.split", "None", "2.0")),
    "regrow": (["--regrow"], ("parameters.regrow", "False", "True")),
}


@pytest.mark.parametrize(("other", "says"), OTHER_OPTIONS.values(), ids=OTHER_OPTIONS)
@pytest.mark.parametrize("output", ["", "ended.ome.zarr"], ids=["beside", "ended"])
def test_instances_begun_with_other_parameters_are_refused_naming_both_values(output, other, says, copied, here):
    before = snapshot(copied)
    place = ["-o", copied / output] if output else []
    outcome = run_here("instances", copied / "cells.ome.zarr", "--block", 32, *place, *other)
    check_refused(outcome, ("was begun by a run that differs", *says, "choose another output"))
    assert snapshot(copied) == before


def change_a_pixel(classes: Path) -> None:
    array = zarr.open_array(classes / "0", mode="r+")
    array[3, 4] = 1 - min(int(array[3, 4]), 1)


@pytest.mark.parametrize("output", ["", "ended.ome.zarr"], ids=["beside", "ended"])
def test_instances_of_classes_whose_times_have_changed_are_gone_on_with(output, copied, here):
    os.utime(copied / "cells.ome.zarr/labels/segmentation/0/c/0/1")
    place = ["-o", copied / output] if output else []
    outcome = run_here("instances", copied / "cells.ome.zarr", "--block", 32, *place)
    assert outcome.exit_code == 0, outcome


@pytest.mark.parametrize("output", ["", "ended.ome.zarr"], ids=["beside", "ended"])
def test_instances_of_classes_that_have_changed_are_refused(output, copied, here):
    change_a_pixel(copied / "cells.ome.zarr/labels/segmentation")
    before = snapshot(copied)
    place = ["-o", copied / output] if output else []
    outcome = run_here("instances", copied / "cells.ome.zarr", "--block", 32, *place)
    check_refused(outcome, ("input.fingerprint: begun with", ", now "))
    assert snapshot(copied) == before
    assert "--input-repaired" not in outcome.err  # no option of this command


def test_moved_classes_and_instances_are_still_the_same(copied, here):
    """Negative control of the refusals above."""
    for place in ([], ["-o", copied / "out.ome.zarr"]):
        assert "Went on: 20 of 20" in label(copied / "cells.ome.zarr", "--block", 32, *place).out
    label(copied / "cells.ome.zarr", "--block", 32, "-o", copied / "ended.ome.zarr")


def test_instances_that_another_run_made_meanwhile_are_not_overwritten(tmp_path, here, monkeypatch):
    """Between the checks of a run and its lock, another run with other parameters begins and ends."""
    path = write_segmentation(tmp_path / "cells.ome.zarr", blobs(100, 130))
    prepare = segment_slide.flows.instances.resolve_instances_request

    def prepare_slowly(request):
        prepared = prepare(request)
        monkeypatch.setattr(segment_slide.flows.instances, "resolve_instances_request", prepare)
        label(path, "--min-size", 50)
        return prepared

    monkeypatch.setattr(segment_slide.flows.instances, "resolve_instances_request", prepare_slowly)
    outcome = run_here("instances", path)
    assert outcome.exit_code == 2, outcome
    assert "by another run in the meantime" in outcome.err
    assert attributes(path)["parameters"]["min_size_px"] == 50
    assert "Went on: 1 of 1" in label(path, "--min-size", 50).out


def test_a_second_run_is_refused_while_one_writes(tmp_path, here):
    path = write_segmentation(tmp_path / "cells.ome.zarr", blobs(100, 130))
    with output.exclusive(str(path), "segmentation-instances"):
        before = snapshot(path)
        refused = run_here("instances", path)
        check_refused(refused, (f"output={path} is being written by another run; wait for it, or end it.",))
        assert snapshot(path) == before
    label(path)


# -- a full disk -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(not can_mount(), reason="needs the right to mount a file system")
def test_a_full_disk_leaves_nothing_half_written_and_the_run_goes_on_with_more_space(run, reference, tmp_path, here):
    """Every amount of space from none to enough: each is short at another step."""
    needed = pages(make_reference(run, tmp_path))
    codes = []
    for number, room in enumerate((1, 6, needed // 2, needed, needed + 30, needed + 60)):
        with mounted(tmp_path / f"disk{number}", f"size={room * PAGE_BYTES}") as disk:
            short = Run(run.input, disk / "out.ome.zarr", run.options)
            outcome = run_here(*short.arguments)
            codes.append(outcome.exit_code)
            if outcome.exit_code:
                assert "No space left on device" in outcome.err, outcome
                assert "Traceback" not in outcome.err
                assert unfinished(disk) == []
                # 2 says that nothing was begun, 3 that the same command goes on
                begun = (short.out / IDS / "zarr.json").exists()
                assert outcome.exit_code == (3 if begun else 2), (room, outcome)
            remount(disk, "size=32m")
            short.check(reference)
    assert {2, 3} <= set(codes), codes


def make_reference(run: Run, folder: Path) -> Path:
    whole = Run(run.input, folder / "whole.ome.zarr", run.options)
    check_done(run_here(*whole.arguments), whole.out)
    return whole.out


@pytest.mark.skipif(not can_mount(), reason="needs the right to mount a file system")
def test_a_read_only_segmentation_is_refused(tmp_path, here):
    with mounted(tmp_path / "archive", "size=1m") as archive:
        path = write_segmentation(archive / "cells.ome.zarr", blobs(100, 130))
        remount(archive, "ro")
        before = snapshot(archive)
        check_refused(run_here("instances", path), ("cannot be written", "Read-only file system"))
        assert snapshot(archive) == before


# -- real processes, really killed -----------------------------------------------------------------------------------

LARGE, LARGE_BLOCKS = (1000, 980), 16 * 16


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("large") / "cells.ome.zarr"
    return write_segmentation(path, blobs(*LARGE, cover=0.6), files=(256, 256))


@pytest.fixture(scope="module")
def large_reference(options, large, tmp_path_factory) -> dict[str, str]:
    """Files of an undisturbed run without workers."""
    run = Run(large, tmp_path_factory.mktemp("reference") / "out.ome.zarr", options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segment_slide.flows.instances, "open_cluster", lambda *_, **__: contextlib.nullcontext())
        check_done(run_here(*run.arguments), run.out)
    assert len(run.stored()) == LARGE_BLOCKS
    return tree(run.out)


@pytest.fixture
def large_run(large, options, tmp_path) -> Run:
    return Run(large, tmp_path / "out.ome.zarr", options)


def files_of(run: Run, step: str) -> tuple[Path, Callable[[], int]]:
    """Where files of a step are, and how many there are: a kind of intermediate file, or a level's shards."""
    folder = run.out / IDS / step
    if step.startswith("work/") and "/" in step.removeprefix("work/"):
        return folder, lambda: sum(1 for path in folder.glob("*.zst"))
    return folder / "c", lambda: len(shards(folder))


MOMENTS = {
    "in the first pass": ("work/objects/faces", LARGE_BLOCKS // 3),
    "between the passes": ("work/objects/bases", 20),
    "in the second pass": ("0", LARGE_BLOCKS // 3),
    "in the pyramid": ("1", 5),
}
MOMENTS_OF_ALL_STEPS = {
    "while holes are found": ("work/holes/faces", LARGE_BLOCKS // 2),
    "while holes are filled": ("work/filled", LARGE_BLOCKS // 2),
    "before ridges are given back": ("work/ungrown", LARGE_BLOCKS // 2),
}


STARTED: list[subprocess.Popen[str]] = []


@pytest.fixture(autouse=True)
def nothing_runs_on() -> Iterator[None]:
    """A test that fails in its middle leaves no command running."""
    yield
    while STARTED:
        process = STARTED.pop()
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def start_and_wait_for(run: Run, step: str, at_least: int) -> subprocess.Popen[str]:
    """The running command, once a step has so many files; it is slow from there on, until `release`."""
    folder, count = files_of(run, step)
    process = start(*run.arguments, **brake(brake_of(run), folder, at_least))
    STARTED.append(process)
    wait_until(lambda: count() >= at_least, process)
    return process


def brake_of(run: Run) -> Path:
    return run.out.with_name("brake")


def release(run: Run) -> None:
    brake_of(run).unlink()


MANY = [((), moment) for moment in MOMENTS] + [(ALL_STEPS, moment) for moment in MOMENTS_OF_ALL_STEPS]
ONLY_PLAIN = pytest.mark.parametrize("options", [()], indirect=True, ids=["plain"])


@pytest.mark.slow
@pytest.mark.parametrize(("options", "moment"), MANY, indirect=["options"], ids=[moment for _, moment in MANY])
def test_a_run_whose_processes_are_all_killed_goes_on_to_equal_bytes(moment, large_run, large_reference):
    process = start_and_wait_for(large_run, *(MOMENTS | MOMENTS_OF_ALL_STEPS)[moment])
    kill_group(process)
    assert tree(large_run.out) != large_reference  # else nothing would be tested
    before = large_run.stored()
    check_done(run_without_workers(*large_run.arguments), large_run.out)
    assert {index: large_run.stored()[index] for index in before} == before
    assert tree(large_run.out) == large_reference


def kill_group(process: subprocess.Popen[str]) -> None:
    children = descendants(process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert survivors(children) == []


@pytest.mark.slow
def test_a_run_killed_again_and_again_ends_with_equal_bytes(large_run, large_reference):
    for at_least in (10, 120, 250):
        kill_group(start_and_wait_for(large_run, "work/objects/faces", at_least))
    for at_least in (5, 100, 200):
        before = large_run.stored()
        kill_group(start_and_wait_for(large_run, "0", at_least))
        assert {index: large_run.stored()[index] for index in before} == before
    assert len(large_run.stored()) < LARGE_BLOCKS
    again = run_installed(*large_run.arguments)  # elsewhere a process without workers goes on, which is quicker
    check_done(again, large_run.out)
    assert tree(large_run.out) == large_reference


@pytest.mark.slow
@ONLY_PLAIN
@pytest.mark.parametrize("step", ["work/objects/faces", "0"])
def test_a_run_whose_worker_is_killed_finishes_by_itself(step, large_run, large_reference):
    process = start_and_wait_for(large_run, step, LARGE_BLOCKS // 4)
    worker = spawned_below(psutil.Process(process.pid))[0]
    worker.kill()
    release(large_run)
    check_done(finish(process), large_run.out)
    assert tree(large_run.out) == large_reference


CTRL_C = (lambda process: os.killpg(process.pid, signal.SIGINT), 130)
TERMINATED = (lambda process: process.terminate(), 143)
GROUP_TERMINATED = (lambda process: os.killpg(process.pid, signal.SIGTERM), 143)
FIRST_PASS, SECOND_PASS = "work/objects/faces", "0"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("step", "end", "exit_code"),
    [
        pytest.param(FIRST_PASS, *CTRL_C, id="ctrl-c"),
        pytest.param(SECOND_PASS, *TERMINATED, id="terminated"),
        pytest.param(FIRST_PASS, *GROUP_TERMINATED, id="group terminated"),
        exhaustive(SECOND_PASS, *CTRL_C, id="ctrl-c later"),
        exhaustive(FIRST_PASS, *TERMINATED, id="terminated earlier"),
        exhaustive(SECOND_PASS, *GROUP_TERMINATED, id="group terminated later"),
    ],
)
@ONLY_PLAIN
def test_a_run_that_is_asked_to_end_does_so_cleanly_and_goes_on_later(step, end, exit_code, large_run, large_reference):
    process = start_and_wait_for(large_run, step, LARGE_BLOCKS // 4)
    children: list[psutil.Process] = descendants(process)
    second = run_here(*large_run.arguments)
    check_refused(second, (f"output={large_run.out} is being written by another run",))
    end(process)
    outcome = finish(process)
    assert outcome.exit_code == exit_code, outcome
    assert "Interrupted. What is done is kept: run the same command again to go on." in outcome.err
    assert "Traceback" not in outcome.err
    assert survivors(children) == []
    assert unfinished(large_run.out) == []
    assert len(large_run.stored()) < LARGE_BLOCKS
    check_done(run_without_workers(*large_run.arguments), large_run.out)
    assert tree(large_run.out) == large_reference


@pytest.mark.slow
def test_the_installed_command_names_a_damaged_file_without_a_stack(segmentation, tmp_path):
    """What the workers print is seen only from outside."""
    run = Run(segmentation, tmp_path / "out.ome.zarr")
    with rotten(segmentation / "labels/segmentation/0/c/4/1"):
        outcome = run_installed(*run.arguments)
    assert outcome.exit_code == 3, outcome
    assert len(outcome.err.splitlines()) == 3, outcome.err
    assert "block (4, 1): unreadable chunk 4/1 of" in outcome.err


def test_sizes_of_this_file_fit_together():
    assert math.prod(-(-size // BLOCK) for size in LONG) == N_BLOCKS
    assert math.prod(-(-size // BLOCK) for size in LARGE) == LARGE_BLOCKS
