"""Networks of other programs are imported: what is measured, what is refused, and that tiles give the whole's bits."""

import builtins
import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import zarr
from onnx import TensorProto, numpy_helper
from scipy.special import expit, softmax

from segment_slide.unet.engines.config import METADATA_KEY, ImportedConfig
from segment_slide.unet.engines.onnx_network import to_scores
from segment_slide.unet.errors import CheckpointError, NotLocalError
from segment_slide.unet.importing.options import ImportOptions
from segment_slide.unet.importing.run import import_network
from segment_slide.unet.locality.tiles import run_whole
from segment_slide.unet.normalisation import Normalisation
from segment_slide.unet.open_network import open_network
from tests.flows.support import DATA, noise, run_here, run_without_workers, write_ome
from tests.unet.importing.support import NETWORKS, convolution, run_onnx, write_onnx, write_package, zipped

MEAN_STD = ImportOptions(normalise="mean-std")


# -- peers' networks ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "ndim", "stride"),
    [
        ("monai_unet_2d", 2, 4),
        pytest.param("monai_basicunet_2d", 2, 16, marks=pytest.mark.slow),
        ("monai_unet_3d", 3, 4),
        pytest.param("monai_basicunet_3d", 3, 16, marks=pytest.mark.slow),
    ],
)
def test_networks_of_monai_give_equal_bits_for_all_tiles(name, ndim, stride, tmp_path):
    imported = import_network(NETWORKS / f"{name}.onnx", tmp_path / "net.onnx", MEAN_STD)
    locality = imported.network.config.locality
    assert [axis.stride for axis in locality.axes] == [stride] * ndim
    assert locality.is_bit_equal
    assert not imported.notes


def test_instance_normalisation_is_refused_by_the_name_of_its_layer(tmp_path):
    with pytest.raises(NotLocalError, match=r"depends on the whole image: .*: instance normalisation\).*Retrain it"):
        import_network(NETWORKS / "monai_unet_instance.onnx", tmp_path / "net.onnx", MEAN_STD)
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def imported(tmp_path_factory) -> Path:
    """A network of three classes, imported."""
    path = tmp_path_factory.mktemp("imported") / "net.onnx"
    options = ImportOptions(("glass", "stroma", "nucleus"), "constants", (100.0,), (50.0,))
    import_network(NETWORKS / "monai_unet_2d.onnx", path, options)
    return path


@pytest.mark.parametrize(
    "block", [(64, 16), *(pytest.param(sizes, marks=pytest.mark.slow) for sizes in ((128, 64), (96, 96)))]
)
def test_a_segmentation_has_the_bits_of_the_whole_image(imported, block, tmp_path):
    pixels = noise(150, 201)
    write_ome(tmp_path / "slide.ome.zarr", pixels, "yx")
    outcome = run_without_workers(
        *("segment", tmp_path / "slide.ome.zarr", "-m", imported, "-o", tmp_path / "out.ome.zarr"),
        *("--block", block[0], "--tile", block[1], "--probabilities", "float32"),
    )
    assert outcome.exit_code == 0, outcome
    network = open_network(imported)
    image = (pixels[None].astype(np.float32) - np.float32(100)) / np.float32(50)
    whole = run_whole(lambda x: run_onnx(imported, x), image, network.config.locality.axes)
    labels = zarr.open_array(tmp_path / "out.ome.zarr/labels/segmentation/0")[...]
    found = zarr.open_array(tmp_path / "out.ome.zarr/probability/segmentation/0")[...]
    np.testing.assert_array_equal(labels, whole.argmax(0))
    np.testing.assert_allclose(found, softmax(whole, axis=0), atol=1e-6)
    record = json.loads((tmp_path / "out.ome.zarr/labels/segmentation/zarr.json").read_text())
    about = record["attributes"]["segment_slide"]
    assert about["model"]["classes"] == ["glass", "stroma", "nucleus"]
    assert about["parameters"]["precision"] == "float32"
    assert "onnxruntime" in about["parameters"]["processor"]


def test_one_halo_step_less_gives_other_labels(imported):
    """The control: the comparison above would notice."""
    network = open_network(imported)
    axes = network.config.locality.axes
    image = noise(150, 201)[None].astype(np.float32) / 50
    whole = run_whole(lambda x: run_onnx(imported, x), image, axes)
    step, halo = axes[0].step, axes[0].halo - axes[0].step
    part = np.pad(image, [(0, 0), (halo, halo), (halo, halo)], mode="reflect")[:, : 64 + 2 * halo, : 64 + 2 * halo]
    tile = run_onnx(imported, part[None])[0][:, halo : halo + 64, halo : halo + 64]
    assert (tile != whole[:, :64, :64]).any()
    assert step == 4


def test_plan_info_and_report_show_what_was_measured(imported, tmp_path):
    write_ome(tmp_path / "slide.ome.zarr", noise(64, 64), "yx")
    shutil.copyfile(imported, tmp_path / "net.onnx")
    plan = " ".join(run_here("plan", tmp_path / "slide.ome.zarr", "-m", tmp_path / "net.onnx").out.split())
    assert "halo 12 px per side; tiles start at multiples of 4 px" in plan
    assert "imported from monai_unet_2d.onnx (onnx)" in plan
    shown = " ".join(run_here("info", tmp_path / "net.onnx").out.split())
    assert "0 glass, 1 stroma, 2 nucleus" in shown
    assert "give the bits of the whole image" in shown
    out = tmp_path / "out.ome.zarr"
    assert run_without_workers("segment", tmp_path / "slide.ome.zarr", "-m", tmp_path / "net.onnx", "-o", out)
    assert run_here("report", out).exit_code == 0
    assert "stride 4 px, halo 12 px" in (tmp_path / "out.report.html").read_text()


def test_bfloat16_is_refused(imported, tmp_path):
    write_ome(tmp_path / "slide.ome.zarr", noise(64, 64), "yx")
    words = ("segment", tmp_path / "slide.ome.zarr", "-m", imported, "-o", tmp_path / "out.ome.zarr")
    outcome = run_without_workers(*words, "--precision", "bfloat16")
    assert outcome.exit_code == 2
    assert "runs in float32 only" in " ".join(outcome.err.split())


# -- packages ----------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not (DATA / "bioimageio_nuclei").exists(), reason="the data are not on this machine")
@pytest.mark.parametrize("description", ["", pytest.param("v0_4_9.bioimageio.yaml", marks=pytest.mark.slow)])
def test_a_package_of_the_zoo_declares_too_small_a_halo(description, tmp_path):
    imported = import_network(DATA / "bioimageio_nuclei" / description, tmp_path / "net.onnx", ImportOptions())
    config = imported.network.config
    assert [(axis.stride, axis.reach, axis.halo) for axis in config.locality.axes] == [(8, 53, 56)] * 2
    assert config.normalisation == Normalisation("mean-std")
    assert "declared halo 32 px, measured 53: using 56" in imported.notes
    assert any(note.startswith("its own test output was reproduced") for note in imported.notes)


@pytest.mark.parametrize(("kind", "old"), [("folder", True), ("description", False), ("zip", False)])
def test_a_package_is_read_in_both_formats(old, kind, tmp_path):
    folder = write_package(tmp_path / "package", old=old)
    path = {"folder": folder, "description": folder / "rdf.yaml", "zip": zipped(folder)}[kind]
    imported = import_network(path, tmp_path / "net.onnx", ImportOptions())
    config = imported.network.config
    assert config.normalisation == Normalisation("mean-std")
    assert config.source.kind == f"bioimage.io {'0.4.9' if old else '0.5.4'}"
    assert config.pixel_size_um == (() if old else (0.5, 0.5))
    assert config.channel_names == (() if old else ("nuclei",))
    assert [note.split(" (")[0] for note in imported.notes] == ["its own test output was reproduced"]


IMAGE = np.random.default_rng(1).normal(100, 20, (1, 1, 64, 64)).astype(np.float32)
LOW, HIGH = np.percentile(IMAGE.astype(np.float64), (1, 99))


@pytest.mark.parametrize(
    ("steps", "scaled", "normalisation"),
    [
        ([], IMAGE, Normalisation("constants", (0.0,), (1.0,))),
        (
            [{"id": "scale_linear", "kwargs": {"gain": 0.1, "offset": -10}}],
            IMAGE * 0.1 - 10,
            Normalisation("constants", (100.0,), (10.0,)),
        ),
        (
            [{"id": "fixed_zero_mean_unit_variance", "kwargs": {"mean": 90.0, "std": 30.0}}],
            (IMAGE - 90) / 30,
            Normalisation("constants", (90.0,), (30.0,)),
        ),
        (
            [{"id": "scale_range", "kwargs": {"min_percentile": 1, "max_percentile": 99, "axes": ["y", "x"]}}],
            (IMAGE - LOW) / (HIGH - LOW + 1e-6),
            Normalisation("percentiles", low=1, high=99),
        ),
        (
            [{"id": "ensure_dtype", "kwargs": {"dtype": "float32"}}, {"id": "zero_mean_unit_variance"}],
            (IMAGE - IMAGE.mean(dtype=float)) / (IMAGE.std(dtype=float) + 1e-6),
            Normalisation("mean-std"),
        ),
    ],
    ids=["none", "linear", "fixed", "range", "variance"],
)
def test_steps_before_the_network_become_one_normalisation_that_gives_the_packages_own_test(
    steps, scaled, normalisation, tmp_path
):
    weights = convolution(tmp_path / "weights.onnx")
    wanted = run_onnx(weights, scaled)
    package = write_package(tmp_path / "package", weights=weights, preprocessing=steps, image=IMAGE, wanted=wanted)
    imported = import_network(package, tmp_path / "net.onnx", ImportOptions())
    found = imported.network.config.normalisation
    assert (found.kind, found.low, found.high) == (normalisation.kind, normalisation.low, normalisation.high)
    np.testing.assert_allclose((*found.offset, *found.scale), (*normalisation.offset, *normalisation.scale))
    assert imported.notes[-1].startswith("its own test output was reproduced")


INDEPENDENT = [{"name": "o", "axes": "bcyx", "postprocessing": [{"name": "sigmoid"}]}]
BAD_PACKAGES = {
    "another test output": ({"wanted": np.zeros((1, 2, 64, 64), np.float32)}, "does not give its own test output"),
    "an unknown step": ({"preprocessing": [{"id": "stain_normalise"}], "wanted": IMAGE}, "stain_normalise, which is"),
    "two steps": (
        {"preprocessing": [{"id": "scale_linear"}, {"id": "scale_range"}], "wanted": IMAGE},
        "scales the input twice",
    ),
    "no ONNX": ({"changes": {"weights": {"torchscript": {}}}}, "weights as torchscript, but none as ONNX"),
    "weights of another file": (
        {"changes": {"weights": {"onnx": {"source": "weights.onnx", "sha256": "0" * 64}}}},
        "has another sha256 than its description says",
    ),
    "weights outside": ({"changes": {"weights": {"onnx": {"source": "../net.onnx"}}}}, "is not a file of the package"),
    "an address": (
        {"changes": {"weights": {"onnx": {"source": "https://example.com/w.onnx"}}}},
        "download the whole package first",
    ),
    "another format": ({"changes": {"format_version": "0.3.2"}}, "expected 0.4 or 0.5"),
    "no inputs": ({"changes": {"inputs": []}}, "0 inputs and 1 outputs"),
    "independent channels": (
        {"changes": {"outputs": INDEPENDENT}, "wanted": IMAGE},
        "channels are independent of each other",
    ),
    "inputs that are none": ({"changes": {"inputs": [7]}}, "is not as format"),
}


@pytest.mark.parametrize("name", BAD_PACKAGES)
def test_a_package_that_cannot_be_used_is_refused(name, tmp_path):
    changes, sentence = BAD_PACKAGES[name]
    package = write_package(tmp_path / "package", image=IMAGE, **changes)
    with pytest.raises(CheckpointError, match=sentence):
        import_network(package, tmp_path / "net.onnx", ImportOptions())
    assert not (tmp_path / "net.onnx").exists()


def test_a_zip_that_leads_out_of_its_folder_is_refused(tmp_path):
    path = zipped(write_package(tmp_path / "package"), {"weights.onnx": "../outside.onnx"})
    with pytest.raises(CheckpointError, match="leads out of its folder"):
        import_network(path, tmp_path / "net.onnx", ImportOptions())
    assert not (tmp_path / "outside.onnx").exists()


# -- ONNX files --------------------------------------------------------------------------------------------------------


def test_fixed_sizes_are_freed_also_where_maps_are_resized_to_them(tmp_path):
    weights = np.random.default_rng(0).standard_normal((2, 1, 3, 3)).astype(np.float32)
    path = write_onnx(
        tmp_path / "fixed.onnx",
        [
            ("MaxPool", ["image"], "small", {"kernel_shape": [2, 2], "strides": [2, 2]}),
            ("Resize", ["small", "", "", "sizes"], "large", {"mode": "nearest"}),
            ("Conv", ["large", "weights"], "out", {"pads": [1] * 4}),
        ],
        {"weights": weights, "sizes": np.array([1, 1, 64, 64], np.int64)},
        sizes=(1, 1, 64, 64),
    )
    axes = import_network(path, tmp_path / "net.onnx", MEAN_STD).network.config.locality.axes
    assert [(axis.stride, axis.halo) for axis in axes] == [(2, 2)] * 2


def test_what_exporters_note_does_not_travel(tmp_path):
    """Lines of source code, with paths of the computer that exported the network."""
    path = convolution(tmp_path / "a.onnx")
    model = onnx.load(path)
    model.graph.node[0].doc_string = "/home/somebody/secret.py"
    model.metadata_props.add(key="made by", value="somebody")
    onnx.save(model, path)
    import_network(path, tmp_path / "net.onnx", MEAN_STD)
    assert b"somebody" not in (tmp_path / "net.onnx").read_bytes()


def damage(path: Path, how: str) -> None:
    model = onnx.load(path)
    tensor = model.graph.initializer[0]
    if how == "nan":
        values = numpy_helper.to_array(tensor).copy()
        values.flat[0] = np.nan
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    else:
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        entry = tensor.external_data.add()
        entry.key, entry.value = "location", how
    path.write_bytes(model.SerializeToString())


@pytest.mark.parametrize("place", ["../outside.bin", "/etc/hostname", "link.bin"])
def test_weights_in_files_outside_of_the_folder_are_refused(place, tmp_path):
    folder = tmp_path / "inner"
    folder.mkdir()
    (tmp_path / "outside.bin").write_bytes(bytes(1000))
    (folder / "link.bin").symlink_to(tmp_path / "outside.bin")
    path = convolution(folder / "a.onnx")
    damage(path, place)
    with pytest.raises(CheckpointError, match="outside of the model's folder"):
        import_network(path, tmp_path / "net.onnx", MEAN_STD)


def two_outputs(path: Path) -> Path:
    layers = [("Relu", ["image"], "a", {}), ("Neg", ["image"], "b", {})]
    return write_onnx(path, layers, {}, outputs=("a", "b"))


BAD_FILES = {
    "no file": (lambda path: path, MEAN_STD, "no such file"),
    "no ONNX": (lambda path: path.write_bytes(b"hello") and path, MEAN_STD, "is no ONNX file that can be read"),
    "an empty file": (lambda path: path.touch() or path, MEAN_STD, "is no ONNX file that can be read"),
    "NaN": (lambda path: damage(convolution(path), "nan") or path, MEAN_STD, "1 of the 18 values of weights are NaN"),
    "no normalisation": (convolution, ImportOptions(), "nothing says how the network's input is scaled"),
    "float16": (lambda path: convolution(path, dtype=TensorProto.FLOAT16), MEAN_STD, "input is float16"),
    "two outputs": (two_outputs, MEAN_STD, r"2 outputs \(a, b\): name the one"),
    "sigmoid of two": (
        lambda path: convolution(path, last="Sigmoid"),
        MEAN_STD,
        "channels are independent of each other .* say what they are with `classes`",
    ),
    "scores that are called probabilities": (
        convolution,
        ImportOptions((), "mean-std", meaning="probabilities"),
        "it gives scores",
    ),
    "names of classes": (
        convolution,
        ImportOptions(("a", "b", "c", "d"), "mean-std"),
        r"4 names for 2 channel\(s\) of the output",
    ),
    "three constants": (
        convolution,
        ImportOptions((), "constants", (1.0, 2.0, 3.0), (1.0, 1.0, 1.0)),
        "expected 1 numbers",
    ),
    "labels": (
        lambda path: write_onnx(path, [("ArgMax", ["image"], "out", {"axis": 1})], {}, made=TensorProto.INT64),
        MEAN_STD,
        "its output is int64",
    ),
    "half the size": (
        lambda path: write_onnx(path, [("MaxPool", ["image"], "out", {"kernel_shape": [2, 2], "strides": [2, 2]})], {}),
        MEAN_STD,
        "its output has another size than its input",
    ),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_file_that_cannot_be_used_is_refused_and_nothing_is_written(name, tmp_path):
    make, options, sentence = BAD_FILES[name]
    path = make(tmp_path / "a.onnx")
    before = sorted(tmp_path.iterdir())
    with pytest.raises((CheckpointError, NotLocalError), match=sentence):
        import_network(path, tmp_path / "net.onnx", options)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("suffix", [".pt", ".pt2", ".pth", ".ckpt"])
def test_files_whose_opening_can_run_code_are_refused_unopened(suffix, tmp_path, monkeypatch):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"PK\x03\x04 anything")
    opened = []
    plain = builtins.open
    monkeypatch.setattr(builtins, "open", lambda *words, **more: opened.append(words[0]) or plain(*words, **more))
    with pytest.raises(CheckpointError, match="can run code of whoever made it"):
        import_network(path, tmp_path / "net.onnx", MEAN_STD)
    assert path not in [Path(str(name)) for name in opened]
    monkeypatch.undo()
    for command in ("plan", "segment"):
        write_ome(tmp_path / f"{command}.ome.zarr", noise(64, 64), "yx")
        outcome = run_here(
            command, tmp_path / f"{command}.ome.zarr", "-m", path, *(("-o", "x.ome.zarr") * (command == "segment"))
        )
        assert outcome.exit_code == 2, outcome


@pytest.mark.parametrize(
    ("output", "sentence"),
    [("net.safetensors", "ends with .onnx"), ("there.onnx", "there already"), ("no/net.onnx", "folder does not exist")],
)
def test_a_place_that_cannot_be_written_is_refused_before_any_work(output, sentence, tmp_path):
    (tmp_path / "there.onnx").touch()
    with pytest.raises(CheckpointError, match=sentence):
        import_network(convolution(tmp_path / "a.onnx"), tmp_path / output, MEAN_STD)


def test_a_network_that_was_not_imported_is_refused_with_the_command(tmp_path):
    write_ome(tmp_path / "slide.ome.zarr", noise(64, 64), "yx")
    convolution(tmp_path / "a.onnx")
    outcome = run_here("plan", tmp_path / "slide.ome.zarr", "-m", tmp_path / "a.onnx")
    assert outcome.exit_code == 2
    assert "segment-slide import-model a.onnx" in " ".join(outcome.err.split())


def test_the_command_says_what_it_found(tmp_path):
    convolution(tmp_path / "a.onnx", 1, width=5, last="Sigmoid")
    outcome = run_here("import-model", tmp_path / "a.onnx", "-o", tmp_path / "net.onnx", "--normalise", "percentiles")
    assert outcome.exit_code == 0, outcome
    shown = " ".join(outcome.out.split())
    assert "probabilities, 1 channel(s)" in shown
    assert "2 before, 2 after" in shown
    config = open_network(tmp_path / "net.onnx").config
    assert config.classes == ("background", "foreground")
    refused = run_here("import-model", tmp_path / "a.onnx", "-o", tmp_path / "net.onnx")
    assert (refused.exit_code, "there already" in refused.err) == (2, True)


def test_without_the_runtime_the_extra_is_named(imported, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(CheckpointError, match=r"pip install 'segment-slide\[onnx\]'"):
        open_network(imported)


def test_a_record_that_was_edited_is_refused(imported, tmp_path):
    model = onnx.load(imported)
    (entry,) = model.metadata_props
    content = json.loads(entry.value)
    for axis in ({"step": 0}, {"halo": 1}, {"stride": 3}, {"scale": [0, 1]}, {"crop": -1}, {"smallest": -5}):
        axes = [{**each, **axis} for each in content["locality"]["axes"]]
        with pytest.raises(CheckpointError, match="contradict each other"):
            ImportedConfig.from_json(json.dumps({**content, "locality": {**content["locality"], "axes": axes}}))
    for key in [*content, "nothing"]:
        for value in (None, [], {}, "x", -1, 1e400):
            entry.value = json.dumps({**content, key: value})
            path = tmp_path / "edited.onnx"
            path.write_bytes(model.SerializeToString())
            try:
                open_network(path)
            except CheckpointError as error:
                assert str(path) in str(error)  # noqa: PT017 - some values are as good as before
    assert entry.key == METADATA_KEY
    assert ImportedConfig.from_json(json.dumps(content)).to_json() == json.dumps(content, sort_keys=True)


# -- meanings ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_classes", [2, 3])
def test_softmax_of_the_scores_gives_the_probabilities_that_the_network_means(n_classes):
    logits = np.random.default_rng(0).normal(0, 3, (n_classes, 5, 6)).astype(np.float32)
    probabilities = softmax(logits, axis=0)
    for answer, meaning in ((logits, "scores"), (probabilities, "probabilities")):
        np.testing.assert_allclose(softmax(to_scores(answer, meaning, n_classes), axis=0), probabilities, atol=1e-6)


@pytest.mark.parametrize("meaning", ["scores", "probabilities"])
def test_without_a_channel_for_background_one_half_is_the_border(meaning):
    logits = np.random.default_rng(0).normal(0, 3, (1, 5, 6)).astype(np.float32)
    answer = logits if meaning == "scores" else expit(logits)
    scores = to_scores(answer, meaning, 2)
    np.testing.assert_allclose(softmax(scores, axis=0)[1], expit(logits[0]), atol=1e-6)
    np.testing.assert_array_equal(scores.argmax(0), logits[0] > 0)
    assert np.isfinite(to_scores(np.array([[0.0, 1.0]], np.float32), "probabilities", 2)).all()
    assert np.isnan(to_scores(np.array([[np.nan]], np.float32), "probabilities", 2)).any()  # refused later, by name
