"""One flipped bit in a model or a training state is an error, wherever it is; files of older versions are read."""

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from segment_slide.unet.architecture import Architecture
from segment_slide.unet.checkpoint import HEADER_KEY, ModelConfig, Normalisation, open_checkpoint, save_checkpoint
from segment_slide.unet.errors import CheckpointError, UnetError
from segment_slide.unet.file_checksum import FIELD, expect_as_written
from segment_slide.unet.model import UNet
from segment_slide.unet.training_state import TrainingState, load_state, save_state

FLIPS = 150
SMALL = Architecture(base_channels=2, depth=1)
CONFIG = ModelConfig(SMALL, normalisation=Normalisation("mean-std"))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    save_checkpoint(tmp_path / "model.safetensors", UNet(SMALL), CONFIG)
    return tmp_path / "model.safetensors"


@pytest.fixture
def state(tmp_path: Path) -> Path:
    weights, best = ({"w": torch.arange(500.0), "b": torch.ones(3)} for _ in range(2))
    save_state(tmp_path / "state.safetensors", TrainingState({"results": 1}, weights=weights, best=best))
    return tmp_path / "state.safetensors"


def read_model(path: Path) -> object:
    checkpoint = open_checkpoint(path)
    weights = checkpoint.load_model().state_dict()
    return checkpoint.config, {name: tensor.tolist() for name, tensor in weights.items()}


def read_state(path: Path) -> object:
    found = load_state(path, {"results": 1})
    assert found is not None
    groups = (found.weights, found.best, found.optimiser)
    return found.identity, found.history, [{name: t.tolist() for name, t in group.items()} for group in groups]


@pytest.mark.parametrize("kind", ["model", "state"])
def test_no_flipped_bit_gives_another_network_or_state(kind: str, request: pytest.FixtureRequest) -> None:
    path: Path = request.getfixturevalue(kind)
    read: Callable[[Path], object] = read_model if kind == "model" else read_state
    content, expected, silent, rng = path.read_bytes(), read(path), 0, random.Random(0)
    for _ in range(FLIPS):
        at, bit = rng.randrange(len(content)), rng.randrange(8)
        path.write_bytes(content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :])
        try:
            assert read(path) == expected  # the bit is of the checksum itself, whose field is not found then
        except UnetError:
            continue
        silent += 1
    assert silent <= FLIPS // 20


def test_control_without_the_checksum_flips_go_unnoticed(model: Path) -> None:
    content = model.read_bytes().replace(FIELD.encode(), b"x" * len(FIELD))
    expect_as_written(model)
    at = len(content) - 40  # a weight
    damaged = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
    model.write_bytes(damaged)
    expect_as_written(model)
    read_model(model)
    model.write_bytes(damaged.replace(b"x" * len(FIELD), FIELD.encode()))
    with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged: its sha256 is not"):
        read_model(model)


def test_a_damaged_state_says_what_to_do(state: Path) -> None:
    content = state.read_bytes()
    state.write_bytes(content[:-3] + bytes([content[-3] ^ 16]) + content[-2:])
    with pytest.raises(CheckpointError, match=r"is not a whole training state .* delete it to begin anew"):
        load_state(state, {"results": 1})


def test_files_of_older_versions_have_no_checksum_and_are_read(tmp_path: Path) -> None:
    path = tmp_path / "old.safetensors"
    save_file(UNet(SMALL).state_dict(), path, metadata={HEADER_KEY: CONFIG.to_json()})
    assert FIELD not in json.loads(CONFIG.to_json())
    read_model(path)
