"""Pieces of touching objects, against scipy and scikit-image on each object alone, and against other read boxes."""

import itertools

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt, find_objects, generate_binary_structure, label
from skimage.morphology import reconstruction
from skimage.segmentation import watershed

from segment_slide.pipeline.errors import PlanError
from segment_slide.pipeline.objects.edge_distance import squared_distances
from segment_slide.pipeline.objects.split import Pieces, split_touching


def split_whole(classes, depth_px=1.0, spacing=None, connectivity=1) -> Pieces:
    """A whole image: nothing goes on beyond its faces."""
    return split_box(classes, [(False, False)] * classes.ndim, depth_px, spacing, connectivity)


def split_box(classes, open_faces, depth_px=1.0, spacing=None, connectivity=1) -> Pieces:
    return split_touching(
        classes,
        depth_px=depth_px,
        spacing=spacing or (1.0,) * classes.ndim,
        connectivity=connectivity,
        open_faces=open_faces,
    )


def draw_clumps(seed: int, shape=(90, 110), blobs: int = 22, sizes=(2, 9), n_classes: int = 2) -> np.ndarray:
    """Ellipsoids that overlap, of several classes, some across the border of the image."""
    random = np.random.default_rng(seed)
    classes = np.zeros(shape, np.uint8)
    grid = np.ogrid[tuple(map(slice, shape))]
    for _ in range(blobs):
        centre, radii = random.integers(0, shape), random.uniform(*sizes, len(shape))
        distance = sum(((x - at) / r) ** 2 for x, at, r in zip(grid, centre, radii, strict=True))
        classes[distance <= 1] = random.integers(1, n_classes + 1)
    return classes


def draw_discs(shape, centres, radius) -> np.ndarray:
    grid = np.ogrid[tuple(map(slice, shape))]
    near = [sum((x - at) ** 2 for x, at in zip(grid, centre, strict=True)) <= radius**2 for centre in centres]
    return np.any(near, axis=0).astype(np.uint8)


# -- the oracle ------------------------------------------------------------------------------------------------


def split_slowly(classes, depth, spacing, connectivity):
    """Pieces (numbered in raster order) and seeds of a whole image, object by object, each on its own crop."""
    pieces, seed_of, n = np.zeros(classes.shape, np.int64), [-1], 0
    structure = generate_binary_structure(classes.ndim, connectivity)
    for value in np.unique(classes[classes > 0]):
        distance = distance_transform_edt(classes == value, sampling=spacing)
        objects, _ = label(classes == value, structure)
        for number, box in enumerate(find_objects(objects), start=1):
            own = np.pad(objects[box] == number, 1)
            markers = mark_slowly(np.where(own, np.pad(distance[box], 1), 0), depth, structure)
            found = flood_slowly(np.where(own, np.pad(distance[box], 1), 0), markers, own, structure)
            inner = (slice(1, -1),) * classes.ndim
            pieces[box][own[inner]] = found[inner][own[inner]] + n
            for piece in range(1, found.max() + 1):
                first = np.argwhere(markers == piece)[:1] - 1 + [part.start for part in box]
                seed_of.append(np.ravel_multi_index(first[0], classes.shape) if len(first) else -1)
            n += found.max()
    names, first = np.unique(pieces[pieces > 0], return_index=True)
    in_order = names[np.argsort(first)]
    numbers = np.zeros(n + 1, np.int64)
    numbers[in_order] = np.arange(1, n + 1)
    return numbers[pieces], np.array(seed_of)[in_order]


def mark_slowly(distance, depth, structure):
    """h-maxima by reconstruction; those of equal height are one where no neck as deep as `depth` lies between."""
    lowered = np.maximum(distance - depth, 0)
    peaks = (reconstruction(lowered, distance, footprint=structure) <= distance - depth) & (distance >= depth)
    markers, n = np.zeros(distance.shape, np.int64), 0
    for height in np.unique(distance[peaks]):
        parts, n_parts = label(distance > height - depth, structure)
        for part in range(1, n_parts + 1):
            here = peaks & (distance == height) & (parts == part)
            n += bool(here.any())
            markers[here] = n
    return markers


def flood_slowly(distance, markers, own, structure):
    if markers.max() <= 1:
        return own.astype(np.int64)
    filled = reconstruction(np.where(markers > 0, distance, 0), distance, footprint=structure)  # no other maxima
    levels = -filled
    levels[markers > 0] = np.arange((markers > 0).sum()) - 1e9  # scikit-image leaves open which marker goes first
    return watershed(levels, markers, mask=own, connectivity=structure)


def assert_equals_oracle(classes, depth=1.0, spacing=None, connectivity=1):
    spacing = spacing or (1.0,) * classes.ndim
    found = split_whole(classes, depth, spacing, connectivity)
    pieces, seeds = split_slowly(classes, depth, spacing, connectivity)
    np.testing.assert_array_equal(found.labels, pieces)
    np.testing.assert_array_equal(found.seed, seeds)
    assert not found.cut.any()
    _, first = np.unique(pieces, return_index=True)
    np.testing.assert_array_equal(found.classes, classes.ravel()[first[pieces.ravel()[first] > 0]])
    return found


@pytest.mark.parametrize("connectivity", [1, 2])
@pytest.mark.parametrize("depth", [0.25, 0.75, 1.0, 2.0])
@pytest.mark.parametrize("seed", range(4))
def test_images_equal_scikit_image_on_each_object_alone(seed, depth, connectivity):
    assert_equals_oracle(draw_clumps(seed), depth, connectivity=connectivity)


@pytest.mark.parametrize("connectivity", [1, 2, 3])
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.5, 1.0, 1.0), (0.5, 2.0, 1.0)], ids=str)
def test_volumes_equal_scikit_image_on_each_object_alone(spacing, connectivity):
    found = assert_equals_oracle(draw_clumps(5, (20, 40, 44), 34, (2, 8)), 0.5, spacing, connectivity)
    assert len(found.seed) > 8


@pytest.mark.parametrize("spacing", [(2.5, 1.0), (0.5, 1.0)], ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_pixels_that_are_not_square_equal_scikit_image(seed, spacing):
    assert_equals_oracle(draw_clumps(seed), 1.0, spacing, 2)


@pytest.mark.parametrize("density", [0.5, 0.8, 0.97])
def test_noise_equals_scikit_image(density):
    random = np.random.default_rng(1)
    noise = (random.random((60, 70)) < density) * random.integers(1, 3, (60, 70), np.uint8)
    for connectivity in (1, 2):
        assert_equals_oracle(noise.astype(np.uint8), 0.25, connectivity=connectivity)


def test_what_users_do_in_scikit_image_gives_the_same_pieces_but_for_ties():
    classes = draw_clumps(7, (200, 200), 60, (6, 12), 1)
    found = split_whole(classes, connectivity=2)
    distance = distance_transform_edt(classes)
    markers = np.zeros(classes.shape, np.int64)
    markers.ravel()[found.seed] = np.arange(1, len(found.seed) + 1)
    usual = watershed(-distance, markers, mask=classes > 0, connectivity=2)
    inside = classes > 0
    assert len(found.seed) > 25
    assert (usual == found.labels)[inside].mean() > 0.99


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.5, 1.0, 1.0), (2.3077, 1.3, 1.0)], ids=str)
def test_distances_equal_scipys_for_each_class_and_open_faces_are_background(spacing):
    classes = draw_clumps(3, (20, 40, 44), 40)
    faces = np.array([(True, False), (False, True), (False, False)])
    padded = np.pad(classes, [(1, 0), (0, 1), (0, 0)])
    found = squared_distances(classes, spacing, faces)
    for value in (1, 2):
        expected = distance_transform_edt(padded == value, sampling=spacing)[1:, :-1]
        np.testing.assert_allclose(np.sqrt(found)[classes == value], expected[classes == value], rtol=1e-6)


# -- blocks ----------------------------------------------------------------------------------------------------


def read_boxes(shape, block: int, halo: int):
    """Write box, read box and open faces of each block."""
    for start in itertools.product(*(range(0, size, block) for size in shape)):
        write = tuple(slice(at, min(at + block, size)) for at, size in zip(start, shape, strict=True))
        read = tuple(slice(max(s.start - halo, 0), min(s.stop + halo, n)) for s, n in zip(write, shape, strict=True))
        yield write, read, [(s.start > 0, s.stop < n) for s, n in zip(read, shape, strict=True)]


def name_pixels(found: Pieces, read, shape) -> np.ndarray:
    """For each pixel of a read box its piece's first pixel and seed in the whole image; (2, *box), -1 if none."""
    origin = np.array([[part.start] for part in read])
    _, first = np.unique(found.labels[found.labels > 0], return_index=True)
    first = np.flatnonzero(found.labels)[first]
    names = np.full((2, len(found.seed) + 1), -1)
    for row, places in zip(names, (first, found.seed), strict=True):
        inside = np.unravel_index(np.maximum(places, 0), found.labels.shape)
        row[1:] = np.where(places < 0, -1, np.ravel_multi_index(inside + origin, shape))
    return names[:, found.labels]


def differing_pixels(classes, block, halo, spacing=None, connectivity=1, small_only=True) -> tuple[int, int]:
    """Pixels of write boxes compared with the whole image, and how many differ in their piece or seed."""
    everything = [slice(0, n) for n in classes.shape]
    names = name_pixels(split_whole(classes, 1.0, spacing, connectivity), everything, classes.shape)
    objects = label_objects(classes, connectivity)
    large = [n for n, box in enumerate(find_objects(objects), 1) if max(s.stop - s.start for s in box) >= halo]
    compared = differ = 0
    for write, read, faces in read_boxes(classes.shape, block, halo):
        here = name_pixels(split_box(classes[read], faces, 1.0, spacing, connectivity), read, classes.shape)
        owned = (classes[write] > 0) & ~(small_only & np.isin(objects[write], large))
        if small_only:  # all pixels of the objects that a write box has a part of
            owned = np.isin(objects[read], objects[write][owned]) & (classes[read] > 0)
            there = names[(slice(None), *read)]
        else:
            there = names[(slice(None), *write)]
            inner = tuple(slice(w.start - r.start, w.stop - r.start) for w, r in zip(write, read, strict=True))
            here = here[(slice(None), *inner)]
        compared += int(owned.sum())
        differ += int((here != there).any(axis=0)[owned].sum())
    return compared, differ


def label_objects(classes, connectivity) -> np.ndarray:
    objects, structure = np.zeros(classes.shape, np.int64), generate_binary_structure(classes.ndim, connectivity)
    for value in np.unique(classes[classes > 0]):
        objects += np.where(classes == value, label(classes == value, structure)[0] + objects.max(), 0)
    return objects


@pytest.mark.parametrize("connectivity", [1, 2])
@pytest.mark.parametrize("spacing", [(1.0, 1.0), (1.37, 1.0)], ids=str)
def test_objects_smaller_than_the_halo_have_the_same_pieces_in_every_box_that_shows_them(spacing, connectivity):
    for seed in range(3):
        classes = draw_clumps(seed, (230, 250), 110, (2, 9))
        compared, differ = differing_pixels(classes, 37, 41, spacing, connectivity)
        assert compared > 10_000
        assert differ == 0


def test_objects_in_volumes_have_the_same_pieces_in_every_box_that_shows_them():
    classes = draw_clumps(2, (40, 60, 60), 60, (2, 6))
    compared, differ = differing_pixels(classes, 16, 22, (2.3, 1.0, 1.0), 3)
    assert compared > 10_000
    assert differ == 0


def test_long_chains_of_cells_agree_with_the_whole_image_in_the_write_box():
    x = np.linspace(10, 590, 5000)
    curve = np.stack([120 + 90 * np.sin(x / 45), x], axis=1)
    way = np.append(0, np.hypot(*np.diff(curve, axis=0).T).cumsum())
    classes = draw_discs((240, 600), curve[np.searchsorted(way, np.arange(0, way[-1], 12))], 8)
    assert label_objects(classes, 1).max() == 1
    compared, differ = differing_pixels(classes, 64, 64, small_only=False)
    assert compared == (classes > 0).sum()
    assert differ == 0


def test_with_a_halo_that_is_too_small_pieces_differ():
    classes = draw_discs((240, 600), [(100 + i % 30, i) for i in range(10, 590, 11)], 8)
    _, differ = differing_pixels(classes, 64, 6, small_only=False)
    assert differ > 0


def test_an_object_alone_has_the_same_pieces_as_among_others():
    classes = draw_clumps(4, (120, 120), 50)
    objects, found = label_objects(classes, 1), split_whole(classes)
    for number in range(1, objects.max() + 1):
        alone = split_whole(np.where(objects == number, classes, 0).astype(np.uint8))
        own = objects == number
        np.testing.assert_array_equal(alone.labels[own], np.unique(found.labels[own], return_inverse=True)[1] + 1)
        np.testing.assert_array_equal(alone.seed, found.seed[np.unique(found.labels[own]) - 1])


def test_a_blob_that_fills_the_read_box_has_no_markers():
    found = split_box(np.ones((60, 80), np.uint8), [(True, True)] * 2)
    assert found.seed.tolist() == [-1]
    assert found.cut.tolist() == [True]
    assert (found.labels == 1).all()


def test_a_wide_band_across_the_box_is_not_cut_at_block_borders():
    band = np.zeros((60, 200), np.uint8)
    band[20:40] = 1  # 10 px from edge to middle: seen as it is, away from the open faces
    found = split_box(band, [(True, True)] * 2)
    assert len(found.seed) == 1
    band[:] = 1
    band[:3] = 0  # the other edge is out of sight
    assert split_box(band, [(False, True), (True, True)]).seed.tolist() == [-1]


def test_cells_cut_by_an_open_face_are_marked_as_cut_and_others_not():
    classes = draw_discs((40, 60), [(20, 0), (20, 40)], 9)
    found = split_box(classes, [(False, False), (True, True)])
    assert found.labels[20, 0] != found.labels[20, 40]
    assert found.cut[found.labels[20, [0, 40]] - 1].tolist() == [True, False]
    assert not split_whole(classes).cut.any()


# -- shapes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("connectivity", [1, 2])
def test_two_overlapping_discs_are_split_at_the_neck(connectivity):
    classes = draw_discs((40, 60), [(20, 20), (20, 36)], 10)
    found = split_whole(classes, connectivity=connectivity)
    assert np.unravel_index(found.seed, classes.shape)[1].tolist() == [20, 36]
    assert set(found.labels[classes > 0]) == {1, 2}
    assert (found.labels[:, :28][classes[:, :28] > 0] == 1).all()
    assert (found.labels[:, 29:][classes[:, 29:] > 0] == 2).all()


def draw_ellipse(a, b, tilt) -> np.ndarray:
    y, x = np.mgrid[-30:31, -30:31]
    u, v = x * np.cos(tilt) + y * np.sin(tilt), y * np.cos(tilt) - x * np.sin(tilt)
    return ((u / a) ** 2 + (v / b) ** 2 <= 1).astype(np.uint8)


@pytest.mark.parametrize("tilt", np.linspace(0, np.pi / 2, 7).round(2))
@pytest.mark.parametrize(("a", "b"), [(25, 25), (25, 12), (27, 5), (8, 7)])
def test_one_ellipse_is_not_split(a, b, tilt):
    assert len(split_whole(draw_ellipse(a, b, tilt)).seed) == 1


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_a_line_is_not_split(width):
    line = np.zeros((9, 40), np.uint8)
    line[2 : 2 + width, 3:35] = 1
    assert len(split_whole(line).seed) == 1
    assert len(split_whole(line.T.copy()).seed) == 1


def test_a_ring_is_one_object():
    ring = draw_discs((60, 60), [(30, 30)], 25) - draw_discs((60, 60), [(30, 30)], 15)
    assert len(split_whole(ring).seed) == 1


def test_maxima_of_equal_height_without_a_neck_between_them_are_one_marker():
    bar = np.zeros((9, 30), np.uint8)
    bar[2:7, 2:28] = 1
    bar[2, 12:16] = 0  # a notch: 2 instead of 3, and 2.24 beside it
    assert len(split_whole(bar, 1.5).seed) == 1
    assert len(split_whole(bar, 0.5).seed) == 2


def test_a_neck_exactly_as_deep_as_asked_for_splits():
    two = np.ones((5, 13), np.uint8)
    two[:, 6] = [0, 0, 1, 0, 0]
    two = np.pad(two, 1)  # maxima of 3, the neck is 1 wide in radius
    assert len(split_whole(two, 2.0).seed) == 2
    assert len(split_whole(two, 2.001).seed) == 1


def test_objects_too_thin_for_a_marker_stay_whole():
    found = split_whole(draw_discs((30, 60), [(15, 15), (15, 30)], 8), 20.0)
    assert found.seed.tolist() == [-1]


def test_touching_classes_are_separate_objects():
    classes = draw_discs((40, 60), [(20, 20), (20, 36)], 10)
    classes[:, 28:] *= 2
    found = split_whole(classes)
    np.testing.assert_array_equal(found.labels, classes)
    assert found.classes.tolist() == [1, 2]


def test_the_border_of_the_image_limits_no_distance():
    half = draw_discs((40, 40), [(0, 20)], 12)
    assert split_whole(half).seed.tolist() == [20]


@pytest.mark.parametrize("shape", [(0, 4), (1, 1), (5, 6), (2, 3, 4)], ids=str)
def test_an_image_without_objects_has_no_pieces(shape):
    found = split_whole(np.zeros(shape, np.uint8))
    assert found.labels.shape == shape
    assert found.labels.dtype == np.uint32
    assert [len(each) for each in (found.seed, found.cut, found.classes)] == [0, 0, 0]
    assert [each.dtype for each in (found.seed, found.cut, found.classes)] == [np.int64, np.bool_, np.uint8]


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (7, 8), (3, 4, 5)], ids=str)
def test_an_image_of_one_class_has_no_distance_and_stays_whole(shape):
    found = split_whole(np.full(shape, 255, np.uint8))
    assert (found.labels == 1).all()
    assert (found.seed.tolist(), found.cut.tolist(), found.classes.tolist()) == ([-1], [False], [255])


def test_views_and_read_only_arrays_are_fine():
    classes = draw_clumps(0)
    classes.flags.writeable = False
    expected = split_whole(classes.T.copy())
    np.testing.assert_array_equal(split_whole(classes.T).labels, expected.labels)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": np.zeros((3, 4))}, "classes are float64"),
        ({"classes": np.zeros(4, np.uint8)}, "2 or 3 axes"),
        ({"depth_px": 0.0}, "depth_px=0.0"),
        ({"depth_px": float("nan")}, "depth_px=nan"),
        ({"connectivity": 3}, "connectivity=3, expected 1 to 2"),
        ({"spacing": (1.0, 0.0)}, "spacing"),
        ({"spacing": (1.0,)}, "expected 2 numbers"),
        ({"open_faces": [(True, True)]}, "open_faces"),
    ],
    ids=str,
)
def test_settings_out_of_range_are_refused(change, message):
    settings = {"depth_px": 1.0, "spacing": (1, 1), "connectivity": 1, "open_faces": [(False, False)] * 2}
    with pytest.raises(PlanError, match=message):
        split_touching(**({"classes": np.zeros((3, 4), np.uint8)} | settings | change))
