"""What a run leaves: files that other programs open, in the input's coordinates, with what made them."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import zarr

from segment_slide.unet.checkpoint import Normalisation, open_checkpoint
from segment_slide.unet.model import whole_image_logits
from tests.flows.support import (
    DATA,
    OFFSET,
    SCALE,
    noise,
    run_here,
    run_installed,
    shards,
    snapshot,
    tree,
    write_array,
    write_group,
    write_model,
    write_ome,
)

SHAPE, STEP_UM, BLOCK = (544, 288), (0.5, 0.25), 96
REAL = DATA / "ome_zarr" / "tubhiswt4D_sub.zarr"


def segment(image: Path, model: Path, output: Path, *options: object) -> Path:
    """Run the command on the borrowed workers; it must succeed."""
    arguments = ["segment", image, "-m", model, "--block", BLOCK, "--precision", "float32", *options]
    outcome = run_here(*arguments, *([] if "--in-place" in options else ["-o", output]))
    assert outcome.exit_code == 0, outcome
    return output


def labels_of(output: Path, name: str = "segmentation") -> np.ndarray:
    return zarr.open_array(output / "labels" / name / "0", mode="r")[...]


def attributes_of(group: Path) -> dict:
    return json.loads((group / "zarr.json").read_text())["attributes"]


def scores(model: Path, plane: np.ndarray) -> np.ndarray:
    """Oracle: logits of a whole plane (or volume) in one pass."""
    return whole_image_logits(open_checkpoint(model).load_model(), ((plane[None] - OFFSET) / SCALE).astype(np.float32))


def check_equals_whole_image(labels: np.ndarray, model: Path, plane: np.ndarray) -> None:
    """Equal to the whole image in one pass, but where the two best classes tie within float32."""
    logits = scores(model, plane)
    assert len(np.unique(labels)) == len(logits)  # a constant map proves nothing
    best = np.sort(logits, axis=0)
    clear = best[-1] - best[-2] > 1e-4 * logits.std()
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(labels[clear], logits.argmax(axis=0)[clear])


# -- other programs ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory, model, workers) -> Path:
    """Labels and probabilities of an image with known pixel sizes, in two levels."""
    folder = tmp_path_factory.mktemp("calibrated")
    image = write_ome(folder / "image.zarr", noise(*SHAPE), "yx", scale=STEP_UM)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("segment_slide.flows.segment.open_cluster", workers)
        return segment(image, model, folder / "out.ome.zarr", "--name", "cells", "--probabilities", "uint8")


@pytest.mark.parametrize(
    ("path", "kind"),
    [("", "Image"), ("labels", "Labels"), ("labels/cells", "ImageLabel"), ("probability/cells", "Image")],
)
def test_every_group_is_valid_ome_zarr(path, kind, calibrated):
    from ome_zarr_models import open_ome_zarr

    found = open_ome_zarr(zarr.open_group(calibrated, path=path, mode="r"))
    assert (type(found).__name__, found.ome_zarr_version) == (kind, "0.5")


def test_the_validator_notices_a_missing_axis(calibrated, tmp_path):
    """Negative control."""
    from ome_zarr_models import open_ome_zarr

    attributes = attributes_of(calibrated)
    del attributes["ome"]["multiscales"][0]["axes"][0]
    with pytest.raises((RuntimeError, ValueError)):
        open_ome_zarr(zarr.open_group(write_group(tmp_path / "bad.zarr", attributes), mode="r"))


def test_ome_zarr_py_finds_the_label_image_with_its_levels_and_pixel_sizes(calibrated):
    from ome_zarr.io import parse_url
    from ome_zarr.reader import Reader

    nodes = {str(node.zarr): node for node in Reader(parse_url(str(calibrated)))()}
    (node,) = [node for where, node in nodes.items() if "labels/cells" in where]
    assert [level.shape for level in node.data] == [(544, 288), (272, 144)]
    scales = [transforms[0]["scale"] for transforms in node.metadata["coordinateTransformations"]]
    assert scales == [[0.5, 0.25], [1.0, 0.5]]
    np.testing.assert_array_equal(np.asarray(node.data[0]), labels_of(calibrated, "cells"))


def test_napari_opens_the_output_at_the_inputs_scale(calibrated):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # napari's own
        from napari_ome_zarr import napari_get_reader

        layers = {kind: (data, shown) for data, shown, kind in napari_get_reader(str(calibrated))(str(calibrated))}
    assert set(layers) == {"image", "labels"}
    for data, shown in layers.values():
        assert data[0].shape == SHAPE
        assert tuple(shown["scale"]) == STEP_UM
    assert layers["labels"][1]["properties"]["class"] == ["background", "class 1"]


def test_each_level_lies_where_the_input_does(calibrated):
    """`nearest` keeps the first of two pixels; the mean of two lies half a pixel further."""

    def placed(group: str) -> list[tuple[list[float], list[float]]]:
        datasets = attributes_of(calibrated / group)["ome"]["multiscales"][0]["datasets"]
        return [
            tuple(next(iter(t[k] for k in t if k != "type")) for t in d["coordinateTransformations"]) for d in datasets
        ]

    assert placed("labels/cells") == [([0.5, 0.25], [0, 0]), ([1.0, 0.5], [0, 0])]
    assert placed("probability/cells") == [([1, 0.5, 0.25], [0, 0, 0]), ([1, 1.0, 0.5], [0, 0.25, 0.125])]


def test_the_output_says_what_made_it(calibrated, model):
    record = attributes_of(calibrated / "labels/cells")["segment_slide"]
    checkpoint = open_checkpoint(model)
    assert record["model"]["sha256"] == checkpoint.sha256
    assert record["model"]["path"] == model.name
    assert record["input"]["location"] == "../image.zarr"
    assert record["parameters"]["block"] == BLOCK
    assert record["normalisation"] == {"kind": "constants", "offset": [OFFSET], "scale": [SCALE]}
    assert record["code"]["name"] == "segment-slide"


# -- which pixels --------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not REAL.exists(), reason=f"needs {REAL}")
@pytest.mark.parametrize(
    ("options", "shape", "start"),
    [([], (3, 2, 128, 128), (0, 0)), (["--t", "1:3", "--z", "1"], (2, 1, 128, 128), (1, 1))],
    ids=["all planes", "two time points of one plane"],
)
def test_planes_of_a_real_ome_zarr_04_are_segmented_one_by_one_at_the_chosen_level(
    options, shape, start, model, tmp_path, warm
):
    before = snapshot(REAL)
    output = segment(REAL, model, tmp_path / "out.ome.zarr", "--level", 2, "--channels", 0, *options)
    labels = labels_of(output)
    assert labels.shape == shape
    pixels = zarr.open_array(REAL / "2", mode="r")[:, 0]
    for t, z in np.ndindex(*shape[:2]):
        logits = scores(model, pixels[start[0] + t, start[1] + z])
        clear = np.abs(logits[1] - logits[0]) > 1e-4 * logits.std()
        np.testing.assert_array_equal(labels[t, z][clear], logits.argmax(axis=0)[clear])
    image = attributes_of(output)["ome"]["multiscales"][0]
    assert [axis["name"] for axis in image["axes"]] == ["t", "z", "y", "x"]
    scale, translation = image["datasets"][0]["coordinateTransformations"]
    assert scale["scale"] == [1.0, 1.0, 4.0, 4.0]
    assert translation["translation"] == [*start, 0.0, 0.0]
    assert snapshot(REAL) == before


@pytest.mark.parametrize("chosen", ["GFP", "1"])
def test_a_chosen_channel_is_segmented_as_if_it_were_alone(chosen, model, tmp_path, warm):
    pixels = noise(2, 100, 130)
    image = write_ome(tmp_path / "image.zarr", pixels, "cyx", channels=["DAPI", "GFP"])
    labels = labels_of(segment(image, model, tmp_path / "out.ome.zarr", "--channels", chosen))
    check_equals_whole_image(labels, model, pixels[1])
    assert (labels != scores(model, pixels[0]).argmax(axis=0)).mean() > 0.1  # the other channel's differ


def test_channels_reach_the_network_in_the_order_asked_for(tmp_path, warm):
    model = write_model(tmp_path / "two.safetensors", in_channels=2)
    pixels = noise(2, 100, 130)
    image = write_ome(tmp_path / "image.zarr", pixels, "cyx", channels=["DAPI", "GFP"])
    labels = labels_of(segment(image, model, tmp_path / "out.ome.zarr", "--channels", "GFP,DAPI"))
    network = open_checkpoint(model).load_model()
    swapped, straight = (
        whole_image_logits(network, ((pixels[order] - OFFSET) / SCALE).astype(np.float32)).argmax(axis=0)
        for order in ([1, 0], [0, 1])
    )
    assert (labels != swapped).mean() < 1e-3
    assert (labels != straight).mean() > 0.1


def test_a_coarser_level_is_segmented_with_its_own_pixel_size(model, tmp_path, warm):
    pixels = noise(200, 260)
    image = write_ome(tmp_path / "image.zarr", pixels, "yx", scale=STEP_UM, n_levels=2)
    output = segment(image, model, tmp_path / "out.ome.zarr", "--level", 1)
    check_equals_whole_image(labels_of(output), model, pixels[::2, ::2])
    dataset = attributes_of(output)["ome"]["multiscales"][0]["datasets"][0]
    assert dataset["coordinateTransformations"][0]["scale"] == [1.0, 0.5]


def test_a_volume_is_segmented_by_a_3d_network_as_a_whole(tmp_path, warm):
    model = write_model(tmp_path / "3d.safetensors", ndim=3)
    pixels = noise(20, 50, 41)
    image = write_ome(tmp_path / "image.zarr", pixels, "zyx", scale=(2.0, 0.5, 0.25))
    output = segment(image, model, tmp_path / "out.ome.zarr", "--block", 32)
    check_equals_whole_image(labels_of(output), model, pixels)


def test_a_slide_whose_pixels_are_of_another_size_than_the_models_is_segmented_with_a_warning(tmp_path, warm, caplog):
    model = write_model(tmp_path / "fine.safetensors", pixel_size_um=(0.5, 0.5))
    image = write_ome(tmp_path / "image.zarr", noise(40, 50), "yx", scale=(0.5, 1.0))
    segment(image, model, tmp_path / "out.ome.zarr")
    (warning,) = [record.getMessage() for record in caplog.records if "pixel size" in record.getMessage()]
    assert warning.startswith("pixel size along x is 1 um, the model was trained at 0.5 um")


@pytest.mark.parametrize(
    ("unit", "written", "warned"),
    [
        ("thou", "micrometer", "pixel size along x is 25.4 um, the model was trained at 0.5 um"),
        ("furlong", None, "scale of x=1.0 furlong; not used, because the unit 'furlong' is not known"),
    ],
)
def test_labels_of_an_image_in_another_unit_have_one_that_ome_zarr_names(tmp_path, warm, caplog, unit, written, warned):
    model = write_model(tmp_path / "fine.safetensors", pixel_size_um=(0.5, 0.5))
    image = write_ome(tmp_path / "image.zarr", noise(40, 50), "yx", scale=(0.5, 1.0))
    text = (image / "zarr.json").read_text()
    (image / "zarr.json").write_text(text.replace('"micrometer"', f'"{unit}"'))
    output = segment(image, model, tmp_path / "out.ome.zarr")
    multiscale = attributes_of(output)["ome"]["multiscales"][0]
    factor = 25.4 if written else 1.0
    assert [axis.get("unit") for axis in multiscale["axes"]] == [written, written]
    assert multiscale["datasets"][0]["coordinateTransformations"][0]["scale"] == pytest.approx([0.5 * factor, factor])
    assert any(warned in record.getMessage() for record in caplog.records)


# -- where it is written -------------------------------------------------------------------------------------------


def test_in_place_adds_a_label_and_changes_nothing_else(model, tmp_path, warm):
    image = write_ome(tmp_path / "image.zarr", noise(100, 130), "yx", scale=STEP_UM)
    write_group(image / "labels", {"ome": {"version": "0.5", "labels": ["old"]}, "note": "kept"})
    write_ome(image / "labels" / "old", noise(100, 130, seed=1), "yx")
    beside = segment(image, model, tmp_path / "out.ome.zarr", "--name", "cells")
    before = snapshot(image)

    segment(image, model, image, "--in-place", "--name", "cells")

    after = snapshot(image)
    changed = {path for path in before if after[path] != before[path] and before[path][0] != "directory"}
    assert changed == {"labels/zarr.json"}
    added = {path for path in after if path not in before}
    assert added
    assert all(path.startswith("labels/cells") for path in added)
    listed = attributes_of(image / "labels")
    assert listed == {"ome": {"version": "0.5", "labels": ["cells", "old"]}, "note": "kept"}
    np.testing.assert_array_equal(labels_of(image, "cells"), labels_of(beside, "cells"))
    assert run_here("segment", image, "-m", model, "--block", BLOCK, "--in-place", "--name", "cells").exit_code == 0


def test_a_second_name_joins_the_first_in_one_output(model, tmp_path, warm):
    image = write_array(tmp_path / "slide.zarr", noise(100, 130))
    output = segment(image, model, tmp_path / "out.ome.zarr", "--axes", "yx", "--name", "a")
    before = snapshot(output)
    other = write_model(tmp_path / "other.safetensors", seed=1)
    segment(image, other, output, "--axes", "yx", "--name", "b", "--probabilities", "uint8")
    after = snapshot(output)
    changed = {path for path in before if after[path] != before[path] and before[path][0] != "directory"}
    assert changed == {"labels/zarr.json", "_manifest/files.json"}
    assert attributes_of(output / "labels")["ome"]["labels"] == ["a", "b"]
    assert (labels_of(output, "a") != labels_of(output, "b")).mean() > 0.1
    again = run_here("segment", image, "-m", model, "-o", output, "--axes", "yx", "--name", "a")
    assert "Went on: 4 of 4" in again.out


# -- what is written -----------------------------------------------------------------------------------------------


def test_probabilities_agree_with_the_labels_and_with_each_other(tmp_path, warm):
    model = write_model(tmp_path / "three.safetensors", n_classes=3)
    pixels = noise(100, 130)
    image = write_array(tmp_path / "slide.zarr", pixels)
    found = {}
    for dtype in ("float32", "uint8"):
        output = segment(image, model, tmp_path / f"{dtype}.ome.zarr", "--axes", "yx", "--probabilities", dtype)
        found[dtype] = zarr.open_array(output / "probability/segmentation/0", mode="r")[...]
        check_equals_whole_image(labels_of(output), model, pixels)
        assert found[dtype].dtype == dtype
    exact = found["float32"]
    assert exact.shape == (3, 100, 130)
    np.testing.assert_array_equal(exact.argmax(axis=0), labels_of(tmp_path / "float32.ome.zarr"))
    np.testing.assert_allclose(exact.sum(axis=0), 1, atol=1e-6)
    shifted = np.exp(scores(model, pixels) - scores(model, pixels).max(axis=0))
    np.testing.assert_allclose(exact, shifted / shifted.sum(axis=0), atol=1e-4)
    np.testing.assert_array_equal(found["uint8"], np.round(exact * np.float32(255)))


def test_a_lost_probability_shard_is_made_again_though_its_labels_are_there(model, tmp_path, warm):
    """A power cut may leave an empty file; the block counts as done only when all its shards are there."""
    image = write_array(tmp_path / "slide.zarr", noise(100, 130))
    options = ["--axes", "yx", "--probabilities", "uint8", "--block", 64]
    output = segment(image, model, tmp_path / "out.ome.zarr", *options)
    before = tree(output)
    shard = output / "probability/segmentation/0/c/0/1/1"
    for damage in (shard.unlink, lambda: shard.write_bytes(b"")):
        damage()
        outcome = run_here("segment", image, "--model", model, "--output", output, *options)
        assert outcome.exit_code == 0, outcome
        assert "5 of 6 blocks were already done" in outcome.out
        assert tree(output) == before


def test_a_damaged_label_shard_is_named_and_made_again(model, tmp_path, warm, caplog):
    image = write_array(tmp_path / "slide.zarr", noise(600, 130))
    options = ["--axes", "yx", "--block", 64]
    output = segment(image, model, tmp_path / "out.ome.zarr", *options)
    before = tree(output)
    shard = output / "labels/segmentation/0/c/2/1"
    shard.write_bytes(shard.read_bytes()[:-3])
    (output / "labels/segmentation/1/c/1/0").unlink()
    outcome = run_here("segment", image, "--model", model, "--output", output, *options)
    assert outcome.exit_code == 0, outcome
    assert "labels/segmentation/0/c/2/1, block (2, 1) is damaged" in caplog.text
    assert tree(output) == before


@pytest.mark.slow
def test_background_is_left_out_and_the_rest_is_as_without(model, tmp_path, warm):
    """Tissue in one corner of a pyramid image; the mask comes from level 1."""
    pixels = np.full((2070, 2060), 240, np.uint8)
    pixels[:300, :500] = noise(300, 500)
    image = write_ome(tmp_path / "image.zarr", pixels, "yx", n_levels=2)
    options = ["--block", 512, "--tile", 256]
    whole = labels_of(segment(image, model, tmp_path / "whole.ome.zarr", *options))
    skipping = ["--skip-background", "--probabilities", "uint8"]
    output = segment(image, model, tmp_path / "skipped.ome.zarr", *options, *skipping)
    labels = labels_of(output)
    assert len(shards(output / "labels/segmentation/0")) == 25  # background is written too: a missing shard is undone
    assert len(np.unique(whole[:512, :512])) == 2
    np.testing.assert_array_equal(labels[:512, :512], whole[:512, :512])
    assert not labels[600:].any()
    assert not labels[:, 600:].any()
    scores = zarr.open_array(output / "probability/segmentation/0", mode="r")[:, 600:]
    assert (scores[0] == 255).all()
    assert not scores[1:].any()
    assert whole[600:].any()  # negative control: the network would have found something on glass


def test_flips_make_the_labels_independent_of_the_images_orientation(model, tmp_path, warm):
    pixels = noise(96, 192)  # whole tiles, so that the grid is mirrored onto itself
    straight = write_array(tmp_path / "straight.zarr", pixels)
    mirrored = write_array(tmp_path / "mirrored.zarr", pixels[::-1, ::-1])

    def differing(tta: str) -> float:
        there, back = (
            labels_of(segment(image, model, tmp_path / f"{image.stem}-{tta}.ome.zarr", "--axes", "yx", "--tta", tta))
            for image in (straight, mirrored)
        )
        return float((there != back[::-1, ::-1]).mean())

    assert differing("flips") < 1e-3
    assert differing("none") > 0.05  # negative control


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("kind", ["mean-std", "percentiles"])
def test_a_measured_normalisation_is_the_whole_images_and_is_recorded(kind, dtype, tmp_path, warm):
    pixels = (noise(150, 130) * (1 if dtype == "uint8" else 37.5)).astype(dtype)
    normalisation = Normalisation(kind, low=5.0, high=95.0) if kind == "percentiles" else Normalisation(kind)
    model = write_model(tmp_path / "cells.safetensors", normalisation=normalisation)
    output = segment(write_array(tmp_path / "slide.zarr", pixels), model, tmp_path / "out.ome.zarr", "--axes", "yx")
    exact = pixels.astype(np.float64)
    if kind == "mean-std":
        offset, scale = exact.mean(), exact.std()
    else:
        offset, high = np.percentile(exact, (5, 95))
        scale = high - offset
    record = attributes_of(output / "labels/segmentation")["segment_slide"]["normalisation"]
    tolerance = 1e-3 if dtype == "float32" else 1e-12  # reals are counted in steps of 0.05 %
    assert record["kind"] == kind
    np.testing.assert_allclose([*record["offset"], *record["scale"]], [offset, scale], rtol=tolerance)
    network = open_checkpoint(model).load_model()
    whole = whole_image_logits(network, ((exact - offset) / scale).astype(np.float32)[None]).argmax(axis=0)
    assert (labels_of(output) != whole).mean() < (1e-2 if dtype == "float32" else 1e-3)


# -- the same again ------------------------------------------------------------------------------------------------


def test_equal_runs_give_equal_bytes_whatever_the_windows(model, tmp_path, warm, monkeypatch):
    image = write_array(tmp_path / "slide.zarr", noise(*SHAPE))
    options = ["--axes", "yx", "--probabilities", "uint8"]
    first = tree(segment(image, model, tmp_path / "1.ome.zarr", *options))
    assert tree(segment(image, model, tmp_path / "2.ome.zarr", *options)) == first
    monkeypatch.setattr("segment_slide.pipeline.blocks.sizes.MAX_WINDOW_BLOCKS", 4)
    assert tree(segment(image, model, tmp_path / "3.ome.zarr", *options)) == first
    other = write_array(tmp_path / "other.zarr", noise(*SHAPE, seed=1))
    assert tree(segment(other, model, tmp_path / "4.ome.zarr", *options)) != first  # negative control


@pytest.mark.slow
def test_one_and_two_workers_give_equal_bytes(model, tmp_path):
    image = write_array(tmp_path / "slide.zarr", noise(*SHAPE))
    trees = []
    for workers in (1, 2):
        output = tmp_path / f"{workers}.ome.zarr"
        arguments = ["segment", image, "-m", model, "-o", output, "--axes", "yx", "--block", 64, "--workers", workers]
        outcome = run_installed(*arguments)
        assert outcome.exit_code == 0, outcome
        trees.append(tree(output))
    assert trees[0] == trees[1]
