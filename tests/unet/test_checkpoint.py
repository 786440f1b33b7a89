"""Checkpoints: whole or refused, equal content is equal bytes, nothing is ever unpickled."""

import dataclasses
import hashlib
import json
import pickle
import resource
import struct

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from segment_slide.unet.architecture import Architecture
from segment_slide.unet.checkpoint import (
    FORMAT_VERSION,
    HEADER_KEY,
    Checkpoint,
    ModelConfig,
    Normalisation,
    open_checkpoint,
    save_checkpoint,
)
from segment_slide.unet.errors import CheckpointError
from segment_slide.unet.normalisation import ChannelIntensities, Intensities, WantedNormalisation
from segment_slide.unet.object_defaults import ObjectDefaults

SMALL = Architecture(base_channels=2, depth=1)
CONSTANTS = Normalisation("constants", offset=(100.0,), scale=(20.0,))
TRIPLE = (0.25, 0.5, 1.0)
CHANNEL = ChannelIntensities(TRIPLE, TRIPLE, TRIPLE, TRIPLE, TRIPLE, TRIPLE, 7.5, 0.02, 0.9)
INTENSITIES = Intensities(("uint16", "uint8"), 3, (CHANNEL,))
CONFIG = ModelConfig(SMALL, normalisation=CONSTANTS, channel_names=("DAPI",), pixel_size_um=(0.5, 0.5))


@pytest.fixture
def model(make_unet):
    return make_unet(**dataclasses.asdict(SMALL))


@pytest.fixture
def path(tmp_path, model):
    save_checkpoint(tmp_path / "model.safetensors", model, CONFIG)
    return tmp_path / "model.safetensors"


def write_with_header(path, model, header):
    """A file with our weights and any text as its configuration."""
    save_file(model.state_dict(), path, metadata=None if header is None else {HEADER_KEY: header})
    return path


def changed_header(**changes):
    return json.dumps({**json.loads(CONFIG.to_json()), **changes})


def intensities_as_json(**changes):
    content = json.loads(json.dumps(dataclasses.asdict(INTENSITIES)))
    content["channels"][0] |= changes
    return content


def test_what_was_saved_is_what_is_opened(path, model):
    checkpoint = open_checkpoint(path)
    assert checkpoint.config == CONFIG
    loaded = checkpoint.load_model()
    assert not loaded.training
    assert loaded.state_dict().keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name


@pytest.mark.parametrize(
    "config",
    [
        ModelConfig(Architecture(), normalisation=Normalisation("mean-std")),
        ModelConfig(Architecture(), normalisation=Normalisation("percentiles", low=0.5, high=99.5)),
        ModelConfig(Architecture(ndim=3, n_classes=3), classes=("a", "b", "ü"), normalisation=CONSTANTS),
        dataclasses.replace(CONFIG, training={"seed": 3, "scores": [0.5, 0.75], "data": {"name": "cells"}}),
        dataclasses.replace(CONFIG, objects=ObjectDefaults(min_size="12.5um2", split=2.0)),
        dataclasses.replace(CONFIG, intensities=INTENSITIES),
    ],
    ids=["mean-std", "percentiles", "3d", "training", "objects", "intensities"],
)
def test_configurations_survive_json(config):
    assert ModelConfig.from_json(config.to_json()) == config


def test_a_configuration_without_recommendations_has_the_bytes_of_before():
    assert "objects" not in json.loads(CONFIG.to_json())
    recommending = dataclasses.replace(CONFIG, objects=ObjectDefaults("50"))
    assert {**json.loads(CONFIG.to_json()), "objects": {"min_size": "50", "split": None}} == json.loads(
        recommending.to_json()
    )


@pytest.mark.parametrize(
    ("objects", "message"),
    [({"split": -1}, "split=-1, expected"), ({"split": "x"}, "not a model"), ({"min_size": 5}, "min_size=5, expected")],
)
def test_bad_recommendations_are_refused(objects, message):
    with pytest.raises(CheckpointError, match=message):
        ModelConfig.from_json(changed_header(objects=objects))


def test_keys_of_later_recommendations_are_left_out():
    found = ModelConfig.from_json(changed_header(objects={"min_size": "9", "shape": "round"}))
    assert found.objects == ObjectDefaults("9")


def test_saving_returns_what_opening_returns(tmp_path, model, monkeypatch):
    monkeypatch.chdir(tmp_path)
    saved = save_checkpoint("model.safetensors", model, CONFIG)
    assert saved == open_checkpoint("model.safetensors")
    assert saved.path.is_absolute()


def test_equal_content_gives_equal_bytes(tmp_path, model, make_unet):
    def saved_bytes(network, config):
        return save_checkpoint(tmp_path / "other.safetensors", network, config).path.read_bytes()

    first = saved_bytes(model, CONFIG)
    assert first == saved_bytes(make_unet(**dataclasses.asdict(SMALL)), dataclasses.replace(CONFIG))
    one, other = ({"seed": 1, "steps": 2}, {"steps": 2, "seed": 1})  # equal dictionaries
    trained = saved_bytes(model, dataclasses.replace(CONFIG, training=one))
    assert trained == saved_bytes(model, dataclasses.replace(CONFIG, training=other)) != first
    assert first != saved_bytes(make_unet(seed=1, **dataclasses.asdict(SMALL)), CONFIG)
    assert first != saved_bytes(model, dataclasses.replace(CONFIG, channel_names=("GFP",)))


def test_a_configuration_without_intensities_is_the_text_of_before():
    assert "intensities" not in CONFIG.to_json()
    assert "intensities" in dataclasses.replace(CONFIG, intensities=INTENSITIES).to_json()


def test_the_sha256_is_that_of_the_whole_file(path):
    assert open_checkpoint(path).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_weights_are_saved_in_float32_whatever_the_networks_precision(tmp_path, model):
    saved = save_checkpoint(tmp_path / "model.safetensors", model.bfloat16(), CONFIG)
    assert {tensor.dtype for tensor in load_file(saved.path).values()} == {torch.float32}


def test_a_file_cut_at_any_length_is_refused_as_truncated(path):
    whole = path.read_bytes()
    header = 8 + struct.unpack("<Q", whole[:8])[0]
    for length in (0, 1, 7, 8, 9, header - 1, header, header + 1, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match="truncated"):
            open_checkpoint(path)
    path.write_bytes(whole)
    assert open_checkpoint(path).config == CONFIG


class Evil:
    """Unpickling it would create a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return type(self.path).touch, (self.path,)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_pickles_of_torch_are_refused_by_name(tmp_path, model, zipped):
    path = tmp_path / "model.pt"
    torch.save(model.state_dict(), path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=r"is a pickle \(torch.save\)"):
        open_checkpoint(path)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_no_pickle_is_ever_run(tmp_path, protocol):
    path, created = tmp_path / "model.safetensors", tmp_path / "created"
    path.write_bytes(pickle.dumps(Evil(created), protocol))
    with pytest.raises(CheckpointError):
        open_checkpoint(path)
    assert not created.exists()
    pickle.loads(path.read_bytes())
    assert created.exists()  # the pickle was harmful


@pytest.mark.parametrize("length", [0x4B50, 0x0280 + (1 << 16)], ids=["as a zip", "as a pickle"])
def test_a_checkpoint_whose_header_length_reads_like_a_pickle_is_opened(tmp_path, model, length):
    def save(padding):
        config = dataclasses.replace(CONFIG, training={"notes": "x" * padding})
        return save_checkpoint(tmp_path / "model.safetensors", model, config).path.read_bytes()

    def header_length(content):
        return struct.unpack("<Q", content[:8])[0]

    content = save(length - header_length(save(0)) + 4)  # safetensors pads the header to a multiple of 8
    assert header_length(content) == length
    assert content[:2] in (b"PK", b"\x80\x02")
    assert open_checkpoint(tmp_path / "model.safetensors").load_model()


def test_a_missing_file_and_a_directory_are_refused_by_name(tmp_path):
    for path in (tmp_path / "absent.safetensors", tmp_path):
        with pytest.raises(CheckpointError, match=f"model={path}: no such file"):
            open_checkpoint(path)


def test_weights_of_another_program_are_refused(tmp_path, model):
    for metadata in (None, {"format": "pt"}):
        save_file(model.state_dict(), tmp_path / "foreign.safetensors", metadata=metadata)
        with pytest.raises(CheckpointError, match="no segment-slide configuration"):
            open_checkpoint(tmp_path / "foreign.safetensors")


def test_text_that_is_no_checkpoint_at_all_is_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22e\n")
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        open_checkpoint(path)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "not json",
        "[]",
        "null",
        "{}",
        changed_header(format="another"),
        changed_header(architecture=None),
        changed_header(architecture={"depth": 9}),
        changed_header(architecture={"depth": "4"}),
        changed_header(architecture={"depth": 2.0}),
        changed_header(architecture={"layers": 4}),
        changed_header(classes=["background"]),
        changed_header(classes=3),
        changed_header(normalisation={"kind": "magic"}),
        changed_header(normalisation={"kind": "auto"}),
        changed_header(intensities={"dtypes": ["uint8"]}),
        changed_header(intensities={"dtypes": ["uint8"], "n_images": 1, "channels": []}),
        changed_header(intensities={"dtypes": ["uint8"], "n_images": 1, "channels": [{"low": [1, 2]}]}),
        changed_header(intensities=intensities_as_json(low=[1, 2])),
        changed_header(intensities=intensities_as_json(noise=[0, 0, float("nan")])),
        changed_header(intensities=intensities_as_json(reach="far")),
        changed_header(normalisation={"kind": "constants", "offset": ["dark"], "scale": [1]}),
        changed_header(normalisation={"kind": "constants", "offset": [float("nan")], "scale": [1]}),
        changed_header(normalisation={"kind": "constants", "offset": [0], "scale": [0]}),
    ],
)
def test_damaged_configurations_are_refused_naming_the_file(tmp_path, model, header):
    path = write_with_header(tmp_path / "model.safetensors", model, header)
    with pytest.raises(CheckpointError, match=f"model={path}: "):
        open_checkpoint(path)


def test_a_file_of_a_later_version_asks_for_an_update(tmp_path, model):
    header = changed_header(format_version=FORMAT_VERSION + 1)
    path = write_with_header(tmp_path / "model.safetensors", model, header)
    with pytest.raises(CheckpointError, match=f"format_version={FORMAT_VERSION + 1}.*update segment-slide"):
        open_checkpoint(path)


def test_fields_that_a_later_release_adds_are_ignored(tmp_path, model):
    path = write_with_header(tmp_path / "model.safetensors", model, changed_header(licence="CC0"))
    assert open_checkpoint(path).config == CONFIG


@pytest.mark.parametrize(
    "damage",
    [
        lambda weights: weights.pop("classify.bias"),
        lambda weights: weights.update({"extra.weight": torch.zeros(1)}),
        lambda weights: weights.update({"classify.bias": torch.zeros(3)}),
    ],
    ids=["missing", "unexpected", "wrong shape"],
)
def test_weights_that_do_not_fit_the_architecture_are_refused(tmp_path, model, damage):
    weights = dict(model.state_dict())
    damage(weights)
    path = tmp_path / "model.safetensors"
    save_file(weights, path, metadata={HEADER_KEY: CONFIG.to_json()})
    with pytest.raises(CheckpointError, match="weights do not fit the architecture"):
        open_checkpoint(path).load_model()


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_weights_that_are_nan_or_infinite_are_refused_naming_the_tensor(tmp_path, model, wrong):
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    weights["classify.bias"][1] = wrong
    path = tmp_path / "model.safetensors"
    save_file(weights, path, metadata={HEADER_KEY: CONFIG.to_json()})
    for use in (open_checkpoint(path).check_weights, open_checkpoint(path).load_model):
        with pytest.raises(CheckpointError, match=r"1 of the 2 values of classify\.bias are NaN or infinite"):
            use()


def test_the_largest_float32_is_a_weight(tmp_path, model):
    weights = {name: torch.full_like(tensor, np.finfo(np.float32).max) for name, tensor in model.state_dict().items()}
    path = tmp_path / "model.safetensors"
    save_file(weights, path, metadata={HEADER_KEY: CONFIG.to_json()})
    open_checkpoint(path).check_weights()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": ("background",)}, "classes=.* has 1 entries, expected 2"),
        ({"channel_names": ("a", "b")}, "channel_names=.* has 2 entries, expected 1"),
        ({"pixel_size_um": (0.5, 0.5, 0.5)}, "pixel_size_um=.* has 3 entries, expected 2"),
        ({"normalisation": Normalisation(offset=(1.0, 2.0), scale=(1.0,))}, "offset=.* has 2 entries, expected 1"),
        ({"normalisation": Normalisation(offset=(1.0,))}, "scale=.* has 0 entries, expected 1"),
        ({"intensities": dataclasses.replace(INTENSITIES, channels=(CHANNEL,) * 2)}, "has 2 entries, expected 1"),
        ({"normalisation": WantedNormalisation()}, "kind='auto', expected one of"),
    ],
    ids=["classes", "channels", "pixel size", "offset", "scale", "intensities", "auto"],
)
def test_configurations_of_mismatched_lengths_are_refused(changes, message):
    with pytest.raises(CheckpointError, match=message):
        dataclasses.replace(CONFIG, **changes)


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "zscore"},
        {"scale": (0.0,)},
        {"scale": (-1.0,)},
        {"scale": (float("nan"),)},
        {"scale": (float("inf"),)},
        {"offset": (float("nan"),)},
        {"offset": (float("-inf"),)},
        {"low": -1.0},
        {"low": 50.0, "high": 50.0},
        {"high": 100.5},
    ],
    ids=str,
)
def test_normalisations_that_would_divide_by_zero_or_spread_nan_are_refused(wrong):
    with pytest.raises(CheckpointError):
        Normalisation(**wrong)


def test_a_network_of_another_architecture_is_not_saved_under_this_configuration(tmp_path, make_unet):
    with pytest.raises(CheckpointError, match="its configuration says"):
        save_checkpoint(tmp_path / "model.safetensors", make_unet(base_channels=4, depth=1), CONFIG)
    assert not list(tmp_path.iterdir())


def test_a_write_that_fails_leaves_the_old_file_and_no_other(path, make_unet):
    """Real: the process may write no file larger than half a checkpoint."""
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            save_checkpoint(path, make_unet(seed=1, **dataclasses.asdict(SMALL)), CONFIG)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_saving_replaces_an_older_file_and_leaves_no_partial_one(path, make_unet):
    other = make_unet(seed=1, **dataclasses.asdict(SMALL))
    save_checkpoint(path, other, CONFIG)
    assert torch.equal(Checkpoint(path, CONFIG).load_model().classify.weight, other.classify.weight)
    assert list(path.parent.iterdir()) == [path]
