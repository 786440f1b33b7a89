"""Which training a state is of: settings that did not exist when it was written stand for their defaults."""

from dataclasses import asdict
from pathlib import Path

import pytest

from segment_slide.unet.architecture import Architecture
from segment_slide.unet.errors import TrainingDataError
from segment_slide.unet.train_settings import TrainSettings
from segment_slide.unet.training_state import TrainingState, load_state, save_state


def identity(settings: TrainSettings, without: tuple[str, ...] = ()) -> dict[str, dict[str, object]]:
    kept = {name: value for name, value in asdict(settings).items() if name not in without}
    network = {name: value for name, value in asdict(Architecture()).items() if name not in without}
    return {"settings": kept, "architecture": network}


def test_a_state_that_lacks_a_setting_was_begun_with_its_default(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    save_state(path, TrainingState(identity(TrainSettings(steps=7), without=("clip_norm", "dropout"))))
    assert load_state(path, identity(TrainSettings(steps=7))) is not None
    with pytest.raises(TrainingDataError, match=r"differs: settings.clip_norm: begun with 0.0, now 1.0\."):
        load_state(path, identity(TrainSettings(steps=7, clip_norm=1.0)))
    with pytest.raises(TrainingDataError, match=r"differs: settings.steps: begun with 7, now 8\."):
        load_state(path, identity(TrainSettings(steps=8)))
