"""A training that goes on elsewhere: its precision stays, another device or torch is refused, or accepted and noted."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from segment_slide.unet import device, train_elsewhere
from segment_slide.unet.architecture import Architecture
from segment_slide.unet.device import multiplies_in_bfloat16
from segment_slide.unet.errors import TrainingDataError
from segment_slide.unet.file_checksum import with_checksum
from segment_slide.unet.train import build_model, train
from segment_slide.unet.train_settings import TrainSettings
from segment_slide.unet.training_state import read_identity
from tests.unet.training_support import training

CPU = torch.device("cpu")
NETWORK = Architecture(base_channels=2, depth=1)


class _InterruptedError(Exception):
    pass


def run(path: Path, until: int | None = None, **changes: Any) -> None:
    def interrupt(step: int, _loss: float) -> None:
        if step == until:
            raise _InterruptedError

    wanted = training(steps=6, save_every=2, validate_every=0, state_path=path, **changes)
    try:
        train(build_model(NETWORK, 0), wanted, on_step=interrupt)
    except _InterruptedError:
        assert until is not None


def claim(path: Path, **values: Any) -> None:
    """Change what a state says of itself."""
    from safetensors import safe_open
    from safetensors.torch import load_file, save

    tensors = load_file(path)
    with safe_open(path, framework="numpy") as file:
        header = json.loads(file.metadata()["state"])
    header["identity"] |= {name: value for name, value in values.items() if name != "precision"}
    if "precision" in values:
        header["identity"]["settings"]["precision"] = values["precision"]
    header["file_sha256"] = "0" * 64
    path.write_bytes(with_checksum(save(tensors, metadata={"state": json.dumps(header, sort_keys=True)})))


@pytest.mark.parametrize(("has", "expected"), [(True, "bfloat16"), (False, "float32")])
def test_auto_is_bfloat16_only_where_the_processor_has_instructions_for_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, has: bool, expected: str
) -> None:
    monkeypatch.setattr(device, "multiplies_in_bfloat16", lambda device: has)
    path = tmp_path / "state.safetensors"
    for state_path in (None, path):
        settled = train_elsewhere.settle_precision(TrainSettings(precision="auto"), CPU, state_path)
        assert settled == TrainSettings(precision=expected)
    run(path, until=3, precision="auto")
    assert read_identity(path)["settings"]["precision"] == expected
    # on a machine of the other kind it goes on as it was begun, and says what that costs
    monkeypatch.setattr(device, "multiplies_in_bfloat16", lambda device: not has)
    run(path, precision="auto")
    assert read_identity(path)["settings"]["precision"] == expected


def test_bfloat16_is_warned_of_where_it_is_emulated(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for has, expected in ((True, 0), (False, 1)):
        monkeypatch.setattr(train_elsewhere, "multiplies_in_bfloat16", lambda device, has=has: has)
        with caplog.at_level(logging.WARNING):
            train_elsewhere.warn_of_emulation("bfloat16", CPU)
            train_elsewhere.warn_of_emulation("float32", CPU)
        assert len(caplog.records) == expected


def test_what_this_processor_has_is_what_linux_says() -> None:
    flags = Path("/proc/cpuinfo")
    if not flags.exists() or "flags" not in (text := flags.read_text()):
        pytest.skip("not Linux on x86")
    assert multiplies_in_bfloat16(CPU) == ("avx512_bf16" in text)


def test_another_torch_is_refused_or_accepted_and_listed_with_its_first_step(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    run(path, until=3)
    assert "processors" not in read_identity(path)
    claim(path, torch="2.0.0")
    with pytest.raises(TrainingDataError, match=r"torch: begun with '2.0.0', now .* add `accept_processor`"):
        run(path)
    with pytest.raises(TrainingDataError, match=r"settings.momentum: begun with .*delete it\.$"):
        run(path, momentum=0.5)
    run(path, until=5, accept_processor=True)
    here = torch.__version__.partition("+")[0]
    first, second = read_identity(path)["processors"]
    assert first == {"from_step": 0, "device": "cpu", "torch": "2.0.0"}
    assert {**second, "processor": ""} == {"from_step": 2, "device": "cpu", "torch": here, "processor": ""}
    assert read_identity(path)["torch"] == "2.0.0"
    run(path)  # accepted once is enough
    assert [use["from_step"] for use in read_identity(path)["processors"]] == [0, 2]


def test_a_processor_that_saved_no_step_is_not_listed(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    run(path, until=3)
    claim(
        path,
        processors=[{"from_step": 0, "device": "cpu", "torch": "1"}, {"from_step": 2, "device": "cpu", "torch": "2"}],
    )
    identity = {"device": "cpu", "torch": "3"}
    settled = train_elsewhere.settle_processor(identity, CPU, path, accept=True)
    assert [(use["from_step"], use["torch"]) for use in settled["processors"]] == [(0, "1"), (2, "3")]
    assert train_elsewhere.settle_processor(identity, CPU, path, accept=False) == identity
    back = train_elsewhere.settle_processor({"device": "cpu", "torch": "1"}, CPU, path, accept=False)
    assert [(use["from_step"], use["torch"]) for use in back["processors"]] == [(0, "1")]
