"""Finding, pairing and checking annotations before a pixel is read."""

import re
import unicodedata
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
import zarr

from segment_slide.pipeline.errors import InputError
from segment_slide.pipeline.training.annotation import find_annotation
from segment_slide.pipeline.training.label_values import LabelRule, check_plane, code_objects
from segment_slide.pipeline.training.options import AnnotationInput
from segment_slide.pipeline.training.pairing import describe_pairs, pair_files
from tests.flows.support import DATA, write_array, write_group, write_ome


def write_tiffs(folder: Path, names, dtype="uint8", shape=(6, 8)) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        tifffile.imwrite(folder / name, np.zeros(shape, dtype))
    return str(folder)


def write_label(image: Path, name: str, values: np.ndarray, axes: str) -> None:
    """A label image inside an OME-Zarr image, as napari-ome-zarr lists it."""
    listed = sorted({path.name for path in (image / "labels").glob("*") if path.is_dir()} | {name})
    write_group(image / "labels", {"ome": {"version": "0.5", "labels": listed}})
    write_ome(image / "labels" / name, values, axes)


def find(images, labels=(), **choices):
    images, labels = ((item,) if isinstance(item, str | Path) else item for item in (images, labels))
    return find_annotation(AnnotationInput(tuple(map(str, images)), tuple(map(str, labels)), **choices))


def names_of(annotation):
    return [(pair.name, Path(pair.image.path).name, Path(pair.labels.path).name) for pair in annotation.pairs]


# -- pairing -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("images", "labels", "expected"),
    [
        (["i/b.png", "i/a.png"], ["m/a.tif", "m/b.tif"], {"i/a.png": "m/a.tif", "i/b.png": "m/b.tif"}),
        (["i/a.ome.tif"], ["m/a.ome.zarr"], {"i/a.ome.tif": "m/a.ome.zarr"}),
        (["i/t000.tif", "i/t10.tif"], ["m/man_seg010.tif"], {"i/t10.tif": "m/man_seg010.tif"}),
        (["s1/p.png", "s2/p.png"], ["s2/m.png", "s1/m.png"], {"s1/p.png": "s1/m.png", "s2/p.png": "s2/m.png"}),
        (["i/slide.zarr"], ["m/drawn.zarr"], {"i/slide.zarr": "m/drawn.zarr"}),
    ],
    ids=["names", "names with several endings", "numbers", "folders", "one and one"],
)
def test_label_images_are_paired_by_what_is_equal_and_not_by_order(images, labels, expected):
    pairs, left_out = pair_files(images, labels)
    assert {image: label for _, image, label in pairs} == expected
    assert left_out == [image for image in images if image not in expected]


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (["a.png", "b.png"], ["x/c.png", "x/a.png"], "1 of 2 label images have no clear partner among 2 images: c.png"),
        (["t1_2.tif", "u1_2.tif"], ["m/m2.tif"], "m2.tif"),
        (["i/1.tif", "i/2.tif"], ["m/3.tif", "m/x.tif"], "3.tif, x.tif"),
        (["i/a.tif", "j/b.tif"], ["m/c.tif", "m/d.tif"], "2 of 2"),
    ],
    ids=["one alone", "two candidates", "other numbers", "nothing in common"],
)
def test_label_images_without_one_clear_partner_are_named(images, labels, message):
    with pytest.raises(InputError, match=message):
        pair_files(images, labels)


def nfd(text):
    return unicodedata.normalize("NFD", text)


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        ("i/img_a.tif i/img_b.tif", "m/img_a_masks.png m/img_b_masks.png"),
        ("i/img_a.tif i/img_b.tif", "m/img_a_mask.tif m/img_b_labels_v2.tif"),
        ("i/img_a.ome.tif i/img_b.ome.tif", "m/mask_img_a.ome.zarr m/mask_img_b.ome.zarr"),
        ("i/a.tif i/b.tif", "m/a_cp_masks.png m/b_cp_masks.png"),
        ("i/img_a.tif i/img_b.tif", "m/mask_a.tif m/mask_b.tif"),
        ("i/a_img.tif i/b_img.tif", "m/a_GT.tif m/b_GT.tif"),
        ("i/imgA.tif i/imgB.tif", "m/imgAMask.tif m/imgBMask.tif"),
        ("i/img1.tif i/img10.tif i/img100.tif", "m/img1_mask.tif m/img10_mask.tif m/img100_mask.tif"),
        ("i/a.tif i/a_b.tif", "m/a_mask.tif m/a_b_mask.tif"),
        ("i/1.tif i/2.tif i/10.tif", "m/001.tif m/002.tif m/010.tif"),
        ("i/cell_1.tif i/cell_2.tif", "m/cell-01-mask.tif m/cell-02-mask.tif"),
        ("i/t001.tif i/t002.tif", "m/man_seg001.tif m/man_seg002.tif"),
        ("i/x_000_0000.tif i/x_001_0000.tif", "m/x_000.tif m/x_001.tif"),
        ("i/000_0000.tif i/001_0000.tif", "m/000.tif m/001.tif"),
        ("i/p1_s1.tif i/p1_s2.tif i/p2_s1.tif", "m/p1_s1_mask.tif m/p1_s2_mask.tif m/p2_s1_mask.tif"),
        ("i/Slide_A.TIF i/b.tif", "m/slide_a.png m/B.png"),
        (f"i/Müller1.tif {nfd('i/Gänse2.tif')}", f"{nfd('m/Müller1_mask.tif')} m/Gänse2_mask.tif"),
        ("s1/a.tif s2/a.tif", "g1/a_mask.tif g2/a_mask.tif"),
        ("A/img/1.tif B/img/1.tif", "A/seg/1.tif B/seg/1.tif"),
        ("01/t0.tif 02/t0.tif", "01_GT/SEG/man_seg0.tif 02_GT/SEG/man_seg0.tif"),
        ("d/a/1.tif d/b/1.tif", "m/a_1.tif m/b_1.tif"),
        ("i/GFP+.tif i/GFP-.tif", "m/GFP+_mask.tif m/GFP-_mask.tif"),
        ("i/a².tif i/a³.tif", "m/a²_m.tif m/a³_m.tif"),
        ("i/C1-img1.tif i/C1-img2.tif", "m/img1_mask.tif m/img2_mask.tif"),
        ("i/x_w1DAPI_s1.tif i/x_w1DAPI_s2.tif", "m/x_s1_mask.tif m/x_s2_mask.tif"),
        ("i/aachen_0_19_leftImg8bit.png i/aachen_1_19_leftImg8bit.png", "m/aachen_0_19_gt.png m/aachen_1_19_gt.png"),
        ("i/1.tif i/2.tif i/10.tif", "m/1_r2.tif m/2_r2.tif m/10_r2.tif"),
        ("i/mouse1_week2.tif i/mouse2_week2.tif", "m/mouse1_gt.tif m/mouse2_gt.tif"),
        ("i/d0.5.tif i/d0.05.tif", "m/m0.5.tif m/m0.05.tif"),
    ],
)
def test_every_label_image_goes_to_its_own_image_in_any_order(images, labels):
    images, labels = images.split(), labels.split()
    expected = dict(zip(images, labels, strict=True))
    for order in (labels, labels[::-1]):
        pairs, left_out = pair_files(images, order)
        assert {image: label for _, image, label in pairs} == expected
        assert not left_out


def test_one_image_more_and_one_label_image_less_leave_the_other_pairs_alone():
    images = [f"i/img{n}.tif" for n in (1, 10, 100, 2)]
    pairs, left_out = pair_files(images, ["m/img100_mask.tif", "m/img10_mask.tif"])
    assert [(image, label) for _, image, label in pairs] == [
        ("i/img10.tif", "m/img10_mask.tif"),
        ("i/img100.tif", "m/img100_mask.tif"),
    ]
    assert left_out == ["i/img1.tif", "i/img2.tif"]


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        ("mouse1_week2 mouse2_week1", "mouse1_labels mouse2_labels", "2 of 2 .*mouse1_labels, mouse2_labels"),
        ("cell_1_v2 cell_2_v1", "cell_1_mask cell_2_mask", "2 of 2 .*`label_suffix`"),
        ("cellA_1 cellB_2", "cellB_1_m cellA_2_m", "2 of 2"),
        ("1_2 2_1", "1 2", "1 fits 1_2, 2_1. 2 fits 1_2, 2_1"),
        ("day1_mouse2 day1_mouse3", "day2_gt day3_gt", "2 of 2"),
        ("x_0_0000 x_0_0001 x_1_0000", "x_0 x_1", "x_0 fits x_0_0000, x_0_0001. Images without label image: "),
        ("mouse1_week1 mouse2_week1", "week1_gt week2_gt", "2 of 2"),
        ("m1_w1 m1_w2", "m2_w1_gt m2_w2_gt", "2 of 2"),
        ("t0_c1 t1_c1", "t0_c2 t1_c2", "2 of 2"),
        ("100 3", "100_3", "two ways.*: 100 with 100_3; or .*: 3 with 100_3"),
        ("d0.5 e1", "m0.05 m1", "1 of 2 .*: m0.05"),
        ("a b", "a_mask1 a_mask2 b_mask1", "a fits a_mask1, a_mask2"),
        ("a b", "a_mask b_mask overview", "1 of 3 .*: overview. Images without label image: none"),
        ("a b c", "a_mask d_mask", "1 of 2 .*: d_mask. Images without label image: b, c"),
        ("mouse_1 week", "1_week", "two ways.*week with 1_week; or .*numbers in all places: mouse_1 with 1_week"),
    ],
)
def test_sets_without_one_clear_pairing_are_refused_and_said(images, labels, message):
    with pytest.raises(InputError) as error:
        pair_files([f"i/{name}.tif" for name in images.split()], [f"m/{name}.tif" for name in labels.split()])
    assert re.search(message, str(error.value).replace(".tif", ""))


def test_files_with_equal_names_are_told_apart_by_their_folders():
    pairs, _ = pair_files(["p1/x.tif", "p2/x.tif"], ["p1/m.tif", "p2/m.tif"])
    assert describe_pairs([pair[1:] for pair in pairs]) == "p1/x.tif with p1/m.tif, p2/x.tif with p2/m.tif"
    with pytest.raises(InputError, match=r"a/m\.png fits w1/m\.tif, w2/m\.tif\. b/m\.png fits w1/m\.tif, w2/m\.tif"):
        pair_files(["i/w1/m.tif", "i/w2/m.tif"], ["s/a/m.png", "s/b/m.png"])


def test_the_end_of_label_names_pairs_what_no_rule_pairs():
    images, labels = ["i/mouse1_week2.tif", "i/mouse2_week1.tif"], ["m/mouse1_labels.tif", "m/mouse2_labels.tif"]
    for suffix in ("_labels", "_Labels.tif"):
        pairs, _ = pair_files(images, labels, label_suffix=suffix)
        assert [(image, label) for _, image, label in pairs] == list(zip(images, labels, strict=True))
    with pytest.raises(InputError, match="label_suffix='_gt': 2 of 2 label images do not end so: mouse1_labels"):
        pair_files(images, labels, label_suffix="_gt")
    with pytest.raises(InputError, match=r"label_suffix='\.tif', expected how names"):
        pair_files(images, labels, label_suffix=".tif")


def test_images_and_masks_in_one_folder_need_the_end_of_the_masks_names(tmp_path):
    folder = write_tiffs(tmp_path / "d", ["a.tif", "a_mask.tif", "b.tif", "b_mask.tif"])
    with pytest.raises(InputError, match=r"a\.tif was named as an image and as a label image"):
        find(folder, folder)
    found = find(folder, folder, label_suffix="_mask")
    assert names_of(found) == [("a", "a.tif", "a_mask.tif"), ("b", "b.tif", "b_mask.tif")]
    with pytest.raises(InputError, match="label_suffix='_mask' pairs label images, but none are given"):
        find(write_ome(tmp_path / "slide.zarr", np.zeros((6, 8), np.uint8), "yx"), label_suffix="_mask")


def test_pairs_with_equal_file_names_are_named_after_their_folders():
    pairs, _ = pair_files(["a/x/p.png", "b/x/p.png"], ["a/x/m.png", "b/x/m.png"])
    assert [name for name, *_ in pairs] == ["a-x-p", "b-x-p"]
    same, _ = pair_files(["i/1.tif", "i/1.png"], ["i/1.tif", "i/1.png"], inside=True)
    assert len({name for name, *_ in same}) == 2


# -- finding -----------------------------------------------------------------------------------------------------


def test_folders_of_images_and_masks_are_paired_and_unannotated_images_reported(tmp_path):
    images = write_tiffs(tmp_path / "i", ["t000.tif", "t001.tif", "t002.tif"])
    labels = write_tiffs(tmp_path / "m", ["man_seg002.tif", "man_seg000.tif"], "uint16")
    (tmp_path / "i" / "notes.txt").write_text("not an image")
    found = find(images, labels)
    assert names_of(found) == [("t000", "t000.tif", "man_seg000.tif"), ("t002", "t002.tif", "man_seg002.tif")]
    assert [Path(path).name for path in found.without_labels] == ["t001.tif"]


def test_labels_inside_an_ome_zarr_image_are_found(tmp_path):
    image = write_ome(tmp_path / "slide.zarr", np.zeros((3, 6, 8), np.uint8), "cyx")
    write_label(image, "cells", np.zeros((6, 8), np.uint32), "yx")
    assert names_of(find(image)) == [("slide", "slide.zarr", "cells")]
    write_label(image, "other", np.zeros((6, 8), np.uint32), "yx")
    with pytest.raises(InputError, match="has 2 label images; choose one: cells, other"):
        find(image)
    assert names_of(find(image, label_name="other")) == [("slide", "slide.zarr", "other")]
    with pytest.raises(InputError, match="no label image 'x'; it has: cells, other"):
        find(image, label_name="x")


def test_labels_inside_an_image_of_ome_zarr_0_4_are_found():
    image = DATA / "ome_zarr" / "tubhiswt4D_sub.zarr"
    if not image.exists():
        pytest.skip(f"{image} is absent")
    found = find(image)
    assert found.pairs[0].labels.content.shape == (3, 2, 512, 512)


def test_an_image_without_labels_inside_says_so(tmp_path):
    with pytest.raises(InputError, match="has no labels inside"):
        find(write_ome(tmp_path / "slide.zarr", np.zeros((6, 8), np.uint8), "yx"))
    with pytest.raises(InputError, match="is a file and has no labels inside"):
        find(Path(write_tiffs(tmp_path / "i", ["a.tif"]), "a.tif"))


def test_bare_arrays_take_their_axes_from_the_user_and_labels_from_their_image(tmp_path):
    image = write_array(tmp_path / "image", np.zeros((2, 6, 8), np.uint8))
    labels = write_array(tmp_path / "labels", np.zeros((6, 8), np.int32))
    assert find(image, labels, axes="cyx").pairs[0].labels.content.axes == "yx"
    with pytest.raises(InputError, match="without axes"):
        find(image, labels)
    named = write_array(tmp_path / "named", np.zeros((1, 6, 8), np.int32))
    assert find(image, named, axes="cyx", label_axes="zyx").pairs[0].labels.size("z") == 1


@pytest.mark.parametrize(
    ("image", "labels", "n_spatial"),
    [
        (("tcyx", (1, 2, 6, 8)), ("yx", (6, 8)), 2),
        (("yx", (6, 8)), ("tczyx", (1, 1, 1, 6, 8)), 2),
        (("tczyx", (2, 1, 3, 6, 8)), ("tzyx", (2, 3, 6, 8)), 3),
        (("czyx", (1, 3, 6, 8)), ("zyx", (3, 6, 8)), 2),
    ],
    ids=str,
)
def test_axes_of_size_1_may_be_missing(tmp_path, image, labels, n_spatial):
    (axes, shape), (label_axes, label_shape) = image, labels
    write_ome(tmp_path / "a.zarr", np.zeros(shape, np.uint8), axes)
    write_ome(tmp_path / "b.zarr", np.zeros(label_shape, np.uint8), label_axes)
    assert find(tmp_path / "a.zarr", tmp_path / "b.zarr", n_spatial=n_spatial).pairs


@pytest.mark.parametrize(
    ("image", "labels"),
    [
        (("yx", (6, 8)), ("yx", (8, 6))),
        (("zyx", (3, 6, 8)), ("yx", (6, 8))),
        (("tyx", (3, 6, 8)), ("tyx", (2, 6, 8))),
        (("yx", (6, 8)), ("zyx", (2, 6, 8))),
    ],
    ids=str,
)
def test_an_image_and_labels_of_different_shape_are_refused_with_both_shapes(tmp_path, image, labels):
    for name, (axes, shape) in (("a.zarr", image), ("b.zarr", labels)):
        write_ome(tmp_path / name, np.zeros(shape, np.uint8), axes)
    with pytest.raises(InputError, match="differ in shape") as error:
        find(tmp_path / "a.zarr", tmp_path / "b.zarr")
    assert str(image[1]) in str(error.value)
    assert str(labels[1]) in str(error.value)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_float_labels_are_refused_with_the_remedy(tmp_path, dtype):
    image = write_array(tmp_path / "image", np.zeros((6, 8), np.uint8))
    labels = write_array(tmp_path / "labels", np.zeros((6, 8), dtype))
    with pytest.raises(InputError, match=rf"dtype={dtype}, expected whole numbers; round them .*astype"):
        find(image, labels, axes="yx")


def test_float_labels_in_a_tiff_are_refused_before_ingest_converts_them(tmp_path):
    images, labels = write_tiffs(tmp_path / "i", ["a.tif"]), write_tiffs(tmp_path / "m", ["a.tif"], "float16")
    with pytest.raises(InputError, match="dtype=float16"):
        find(images, labels)


def test_colour_masks_are_refused(tmp_path):
    images = write_tiffs(tmp_path / "i", ["a.tif"])
    (tmp_path / "m").mkdir()
    colours = np.zeros((6, 8, 3), np.uint8)
    colours[1, 1] = 255, 0, 0
    (tmp_path / "m" / "a.png").write_bytes(imagecodecs.png_encode(colours))
    with pytest.raises(InputError, match="3 channels: colours are no labels"):
        find(images, tmp_path / "m")


@pytest.mark.parametrize("channels", [3, 4], ids=["rgb", "rgba"])
def test_colours_that_are_equal_are_labels(tmp_path, channels):
    images = write_tiffs(tmp_path / "i", ["a.tif"])
    (tmp_path / "m").mkdir()
    grey = np.zeros((6, 8, channels), np.uint8)
    grey[2:4, 3:5, :3] = 7
    grey[..., 3:] = 255
    (tmp_path / "m" / "a.png").write_bytes(imagecodecs.png_encode(grey))
    assert find(images, tmp_path / "m").pairs[0].labels.size("c") == 3


def test_images_of_a_set_have_the_same_number_of_channels(tmp_path):
    for name, channels in (("a", 1), ("b", 3)):
        write_ome(tmp_path / "i" / f"{name}.zarr", np.zeros((channels, 6, 8), np.uint8), "cyx")
        write_ome(tmp_path / "m" / f"{name}.zarr", np.zeros((6, 8), np.uint8), "yx")
    with pytest.raises(InputError, match=r"differ in their number of channels: .*has 1.*has 3"):
        find(tmp_path / "i", tmp_path / "m")
    assert len(find(tmp_path / "i", tmp_path / "m", channels=("0",)).pairs) == 2


def test_volumes_need_a_z_axis(tmp_path):
    image = write_array(tmp_path / "image", np.zeros((6, 8), np.uint8))
    labels = write_array(tmp_path / "labels", np.zeros((6, 8), np.uint8))
    with pytest.raises(InputError, match="has no z axis"):
        find(image, labels, axes="yx", n_spatial=3)
    with pytest.raises(InputError, match="n_spatial=4"):
        find(image, labels, axes="yx", n_spatial=4)


def test_what_is_missing_empty_or_named_twice_is_said(tmp_path):
    images = write_tiffs(tmp_path / "i", ["a.tif"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no such file"):
        find(images, tmp_path / "nowhere")
    with pytest.raises(InputError, match="the folder has none"):
        find(images, tmp_path / "empty")
    with pytest.raises(InputError, match="named twice"):
        find([images, images], tmp_path / "i")
    with pytest.raises(InputError, match="no image was named"):
        find([])
    with pytest.raises(InputError, match="label_name='cells' names labels inside"):
        find(images, images, label_name="cells")


# -- values ------------------------------------------------------------------------------------------------------


def test_instances_are_one_class_and_keep_their_ids():
    ids, classes = LabelRule("instances", ignore=65535).decode(np.array([0, 7, 300, 65535], np.uint16))
    assert ids.tolist() == [0, 7, 300, 0]
    assert classes.tolist() == [0, 1, 1, 255]


def test_a_mask_is_foreground_where_it_is_not_0():
    assert LabelRule("binary").classes(np.array([0, 255, 1], np.uint8)).tolist() == [0, 1, 1]
    assert LabelRule("binary").classes(np.array([False, True])).tolist() == [0, 1]


def test_classes_keep_their_values_and_without_a_border_term_are_their_own_objects():
    ids, classes = LabelRule("classes", ignore=-1, needs_objects=False).decode(np.array([0, 2, -1], np.int16))
    assert ids.tolist() == [0, 2, 0]
    assert classes.tolist() == [0, 2, 255]


def test_components_of_each_class_are_coded_with_their_class():
    classes = np.array([[1, 0, 1], [0, 1, 2], [255, 1, 2]], np.uint8)
    ids, decoded = LabelRule("classes").decode(code_objects(classes))
    np.testing.assert_array_equal(decoded, classes)
    assert len(set(ids[classes == 1])) == 3  # 4-connected: corners do not join
    assert len(set(ids[classes == 2])) == 1
    assert not ids[(classes == 0) | (classes == 255)].any()


@pytest.mark.parametrize(
    ("rule", "values", "message"),
    [
        (LabelRule("instances"), [-1, 0], "hold the value -1; ids and classes are 0 or more"),
        (LabelRule("instances", ignore=-1), [-1, -2], "the value -2"),
        (LabelRule("classes"), [0, 255], "'binary'"),
        (LabelRule("classes", ignore=255), [255, 300], "the value 300"),
    ],
    ids=["negative", "another negative", "a mask", "ids"],
)
def test_values_that_cannot_be_what_they_are_said_to_be_are_refused(rule, values, message):
    with pytest.raises(InputError, match=message):
        rule.classes(np.array(values, np.int32))


def test_a_kind_that_there_is_not_is_refused():
    with pytest.raises(InputError, match="kind='auto' of annotation, expected one of: instances, classes, binary"):
        LabelRule("auto")


@pytest.mark.parametrize("kind", ["instances", "classes", "binary"])
def test_background_cannot_be_ignored(kind):
    with pytest.raises(InputError, match="ignore=0, expected another value: 0 is background"):
        LabelRule(kind, ignore=0)


def test_a_mask_of_bool_holds_no_ids():
    with pytest.raises(InputError, match=r"labels m\.zarr have dtype=bool.*'binary'"):
        LabelRule("instances").check_dtype("bool", "m.zarr")
    LabelRule("binary").check_dtype("bool", "m.zarr")
    LabelRule("instances").check_dtype("uint8", "m.zarr")


def test_planes_too_large_for_components_are_refused_with_two_ways_out():
    with pytest.raises(InputError, match=r"kind 'instances'.*w0=0.*ridge=0"):
        check_plane((1 << 14, (1 << 14) + 1), "slide")
    check_plane((1 << 14, 1 << 14), "slide")


def test_zarr_arrays_of_bool_are_labels(tmp_path):
    image = write_array(tmp_path / "image", np.zeros((6, 8), np.uint8))
    zarr.create_array(tmp_path / "mask", shape=(6, 8), dtype="bool")[...] = True
    assert find(image, tmp_path / "mask", axes="yx").pairs[0].labels.dtype == "bool"
