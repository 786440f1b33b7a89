"""Settings of a training: learning rates, when to validate and to save, what is refused."""

import numpy as np
import pytest

from segment_slide.unet.errors import TrainingDataError
from segment_slide.unet.train_settings import SCHEDULES, TrainSettings


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("steps", [1, 2, 7, 100])
def test_the_learning_rate_rises_falls_and_never_is_zero(schedule, steps):
    settings = TrainSettings(steps=steps, learning_rate=0.5, schedule=schedule)
    rates = [settings.rate(step) for step in range(steps)]
    assert 0 < min(rates) <= max(rates) == 0.5
    assert np.all(np.diff(rates[rates.index(0.5) :]) <= 0)


def test_the_schedules_differ_after_the_rise_only():
    rates = {
        s: [TrainSettings(steps=100, learning_rate=1.0, schedule=s).rate(i) for i in (2, 52, 99)] for s in SCHEDULES
    }
    assert len({tuple(rate[:1]) for rate in rates.values()}) == 1
    assert [round(rates[s][1], 2) for s in ("constant", "linear", "cosine")] == [1.0, 0.51, 0.51]
    assert rates["constant"][2] == 1 > rates["linear"][2] > rates["cosine"][2] > 0


def test_the_last_step_is_validated_and_each_validation_is_saved():
    settings = TrainSettings(steps=10, validate_every=4, save_every=3)
    assert [step for step in range(10) if settings.is_validated(step)] == [3, 7, 9]
    assert [step for step in range(10) if settings.is_saved(step)] == [2, 3, 5, 7, 8, 9]
    never = TrainSettings(steps=10, validate_every=0, save_every=0)
    assert [step for step in range(10) if never.is_saved(step)] == [9]


@pytest.mark.parametrize(
    "settings",
    [
        {"steps": 0},
        {"batch": 0},
        {"seed": -1},
        {"seed": 1 << 32},
        {"optimiser": "adam"},
        {"schedule": "step"},
        {"precision": "float16"},
        {"monitor": "f1"},
        {"learning_rate": 0},
        {"learning_rate": float("nan")},
        {"momentum": 1.0},
        {"weight_decay": -1.0},
        {"clip_norm": float("inf")},
        {"patience": -1},
        {"validate_every": -1},
        {"save_every": -1},
    ],
    ids=str,
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(TrainingDataError, match=next(iter(settings))):
        TrainSettings(**settings)
