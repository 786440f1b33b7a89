"""Training: it learns, it can be repeated, stopped and gone on with, alone or in company."""

import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from segment_slide.unet.architecture import Architecture
from segment_slide.unet.errors import DivergedError, GeometryError, TrainingDataError
from segment_slide.unet.model import whole_image_logits
from segment_slide.unet.sample import IGNORE, Sample
from segment_slide.unet.train import build_model, train
from segment_slide.unet.train_settings import TrainSettings, sample_number, step_seed
from segment_slide.unet.training_state import History, Validation, count_steps, load_state
from tests.processes import spawned_below
from tests.tiers import exhaustive
from tests.unet.training_support import SMALL, RoughSamples, rough_and_smooth, training

ROOT = Path(__file__).parents[2]


def accuracy(model, image, classes):
    return float((whole_image_logits(model, image).argmax(axis=0) == classes).mean())


def majority_share(classes):
    return float(np.bincount(classes.ravel()).max() / classes.size)


def weights_of(model):
    return torch.cat([tensor.ravel() for tensor in model.state_dict().values()])


def trained(architecture=SMALL, model_seed=0, **changes):
    model = build_model(architecture, model_seed)
    return model, train(model, training(**changes))


# -- learning ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def learnt():
    return trained(steps=80, validate_every=20, validation=RoughSamples(6, seed=7))


def test_the_loss_falls(learnt):
    losses = learnt[1].losses
    assert len(losses) == 80
    assert np.mean(losses[-10:]) < 0.65 * np.mean(losses[:10])


def test_a_trained_network_beats_the_majority_class_on_an_image_it_has_not_seen(learnt):
    image, classes = rough_and_smooth(seed=99)
    assert accuracy(learnt[0], image, classes) > majority_share(classes) + 0.1


class _Shuffled(RoughSamples):
    """Classes that have nothing to do with the image."""

    def __getitem__(self, number, /):
        sample = super().__getitem__(number)
        classes = np.random.default_rng(number).integers(0, 2, sample.classes.shape, np.uint8)
        return replace(sample, classes=classes, weights=np.ones_like(sample.weights))


def test_labels_that_have_nothing_to_do_with_the_image_teach_nothing():
    model, history = trained(samples=_Shuffled(), steps=60)
    assert np.mean(history.losses[-10:]) > 0.67  # ln 2 is guessing
    image, classes = rough_and_smooth(seed=99)
    assert accuracy(model, image, classes) < majority_share(classes) + 0.1


def test_the_momentum_of_the_paper_learns_too():
    losses = trained(steps=120, optimiser="sgd", momentum=0.99, learning_rate=2e-3)[1].losses
    assert np.mean(losses[-10:]) < 0.65 * np.mean(losses[:10])


def test_mixed_precision_learns_the_same():
    full, mixed = (trained(steps=40, precision=precision)[1].losses for precision in ("float32", "bfloat16"))
    assert full != mixed
    np.testing.assert_allclose(full[:5], mixed[:5], rtol=0.05)
    assert np.mean(mixed[-10:]) < 0.8 * np.mean(mixed[:10])


class _Volumes:
    """The right half is rougher."""

    def __len__(self):
        return 5

    def __getitem__(self, number, /):
        classes = np.zeros((8, 16, 16), np.uint8)
        classes[:, :, 8:] = 1
        wide = np.pad(classes, 8, mode="edge")
        noise = np.random.default_rng(number).standard_normal(wide.shape)
        image = (noise * (0.1 + wide)).astype(np.float32)[None]
        return Sample(image, classes, np.ones(classes.shape, np.float32))


def test_volumes_are_learnt_from_as_planes_are():
    architecture = Architecture(base_channels=2, depth=1, ndim=3, dropout=0.0)
    losses = trained(architecture, samples=_Volumes(), steps=25)[1].losses
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])


# -- repeatability -------------------------------------------------------------------------------------------

DROPPING = Architecture(base_channels=2, depth=1, dropout=0.5)


def test_equal_seeds_give_equal_weights_whatever_was_drawn_before():
    model, history = trained(DROPPING, steps=4)
    torch.rand(7)
    again, history_again = trained(DROPPING, steps=4)
    assert history == history_again
    assert torch.equal(weights_of(model), weights_of(again))


@pytest.mark.parametrize("changes", [{"seed": 4}, {"model_seed": 1}], ids=str)
def test_another_seed_gives_other_weights(changes):
    assert not torch.equal(
        weights_of(trained(DROPPING, steps=4)[0]), weights_of(trained(DROPPING, **{"steps": 4, **changes})[0])
    )


def test_torchs_global_generator_is_left_as_it_was():
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    trained(DROPPING, steps=2)
    assert torch.equal(torch.rand(3), expected)


def test_each_sample_comes_once_before_any_comes_again():
    settings = TrainSettings(seed=5)
    order = [sample_number(settings, 7, position) for position in range(28)]
    epochs = [order[start : start + 7] for start in range(0, 28, 7)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_dropout_differs_between_steps_and_processes():
    seeds = {step_seed(TrainSettings(), step, rank) for step in range(50) for rank in range(4)}
    assert len(seeds) == 200


# -- validation ----------------------------------------------------------------------------------------------


def test_the_best_validation_keeps_its_weights(learnt):
    history = learnt[1]
    assert [validation.step for validation in history.validations] == [20, 40, 60, 80]
    assert history.best == min(history.validations, key=lambda validation: validation.loss)
    again = trained(steps=80, validate_every=80, validation=RoughSamples(6, seed=7))[1].validations[-1]
    assert again == history.validations[-1]


def test_iou_and_pixel_error_are_those_of_the_tiles(learnt):
    model, history = learnt
    halo = SMALL.geometry.halo
    both = either = wrong = total = 0
    for number in range(6):
        sample = RoughSamples(6, seed=7)[number]
        found = whole_image_logits(model, sample.image).argmax(0)[halo:-halo, halo:-halo]
        known = sample.classes != IGNORE
        both += np.sum((found == 1) & (sample.classes == 1) & known)
        either += np.sum(((found == 1) | (sample.classes == 1)) & known)
        wrong += np.sum((found != sample.classes) & known)
        total += known.sum()
    assert history.best.iou == pytest.approx(both / either, abs=1e-3)
    assert history.best.pixel_error == pytest.approx(wrong / total, abs=1e-3)


def test_training_stops_when_no_validation_is_better():
    stuck = {"learning_rate": 1e-12, "validate_every": 2, "patience": 3, "steps": 100}
    history = trained(**stuck, monitor="iou", validation=RoughSamples(3, seed=7))[1]
    assert history.stopped
    assert history.steps == history.best.step + 2 * 3 < 100
    assert not trained(**{**stuck, "patience": 0, "steps": 20}, validation=RoughSamples(3, seed=7))[1].stopped


def test_a_training_that_stopped_early_does_not_go_on(tmp_path):
    stuck = {"learning_rate": 1e-12, "validate_every": 2, "patience": 2, "steps": 50, "monitor": "iou"}
    changes = {**stuck, "validation": RoughSamples(3, seed=7), "state_path": tmp_path / "state"}
    first = trained(**changes)[1]
    steps = []
    model = build_model(SMALL, 0)
    again = train(model, training(**changes), on_step=lambda step, loss: steps.append(step))
    assert (again, steps) == (first, [])


# -- going on ------------------------------------------------------------------------------------------------


class _InterruptedError(Exception):
    pass


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
@pytest.mark.parametrize("last", [1, 4, 7, 11])
def test_an_interrupted_training_ends_with_the_weights_of_an_undisturbed_one(tmp_path, optimiser, last):
    changes = {"optimiser": optimiser, "learning_rate": 1e-3, "validation": RoughSamples(3, seed=7)}
    undisturbed, history = trained(DROPPING, **changes)

    def interrupt(step, loss):
        if step == last:
            raise _InterruptedError

    changes["state_path"] = tmp_path / "state.safetensors"
    with pytest.raises(_InterruptedError):
        train(build_model(DROPPING, 0), training(**changes), on_step=interrupt)
    steps = []
    model = build_model(DROPPING, 0)
    again = train(model, training(**changes), on_step=lambda step, loss: steps.append(step))
    assert again == history
    assert torch.equal(weights_of(model), weights_of(undisturbed))
    assert len(steps) < 12 or last < 3  # it did not begin anew


def test_a_training_without_its_optimisers_sums_would_end_elsewhere(tmp_path):
    """Negative control: the test above would notice a state that forgets something."""
    from segment_slide.unet.training_state import save_state

    path = tmp_path / "state.safetensors"
    undisturbed, _ = trained(DROPPING, optimiser="sgd", learning_rate=1e-3)

    def interrupt(step, loss):
        if step == 7:
            raise _InterruptedError

    changes = {"optimiser": "sgd", "learning_rate": 1e-3, "state_path": path}
    with pytest.raises(_InterruptedError):
        train(build_model(DROPPING, 0), training(**changes), on_step=interrupt)
    state = load_state(path, _identity(path))
    save_state(path, replace(state, optimiser={}))
    model = build_model(DROPPING, 0)
    train(model, training(**changes))
    assert not torch.equal(weights_of(model), weights_of(undisturbed))


def _identity(path):
    import json

    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        return json.loads(file.metadata()["state"])["identity"]


_KILLED = """
import sys, time
from pathlib import Path
from tests.unet.training_support import training, RoughSamples
from segment_slide.unet.architecture import Architecture
from segment_slide.unet.train import build_model, train
def slow(step, loss):
    print(step, flush=True)
    time.sleep(3 if step >= int(sys.argv[3]) else 0)  # in which it is killed
if __name__ == "__main__":
    model = build_model(Architecture(base_channels=2, depth=1, dropout=0.5), 0)
    train(model, training(steps=30, save_every=2, validation=RoughSamples(3, seed=7), processes=int(sys.argv[2]),
                          state_path=Path(sys.argv[1])), on_step=slow)
"""


@pytest.mark.parametrize("killed_at", [(10,), exhaustive((10, 25))], ids=str)
def test_a_killed_training_ends_with_the_weights_of_an_undisturbed_one(killed_at, tmp_path):
    path = tmp_path / "state.safetensors"
    for steps in killed_at:
        process = _start(tmp_path, path, slow_from=steps)
        while process.stdout.readline() != f"{steps}\n".encode():
            assert process.poll() is None, process.stderr.read()
        process.kill()
        assert process.wait() == -signal.SIGKILL
        process.stdout.close(), process.stderr.close()
        assert steps - 3 <= count_steps(path) <= steps + 3
    changes = {"steps": 30, "save_every": 2, "validation": RoughSamples(3, seed=7)}
    model, history = trained(DROPPING, **changes, state_path=path)
    undisturbed, expected = trained(DROPPING, **changes)
    assert history == expected
    assert torch.equal(weights_of(model), weights_of(undisturbed))


def _start(folder, path, processes=1, slow_from=10):
    script = folder / "killed.py"
    script.write_text(_KILLED)
    command = [sys.executable, str(script), str(path), str(processes), str(slow_from)]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT, env=environment)


def test_a_state_of_another_training_is_refused_naming_what_differs(tmp_path):
    path = tmp_path / "state"
    trained(state_path=path)
    with pytest.raises(TrainingDataError, match=r"differs: settings.steps: begun with 12, now 13\."):
        trained(state_path=path, steps=13)
    with pytest.raises(TrainingDataError, match="architecture"):
        trained(DROPPING, state_path=path)


# -- several processes ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_processes_learn_what_one_does_with_twice_the_batch():
    together, shared = trained(processes=2, validation=RoughSamples(5, seed=7), steps=8)
    alone, history = trained(batch=2, validation=RoughSamples(5, seed=7), steps=8)
    np.testing.assert_allclose(shared.losses, history.losses, rtol=1e-4)
    torch.testing.assert_close(weights_of(together), weights_of(alone), rtol=1e-3, atol=1e-4)
    assert shared.best.iou == pytest.approx(history.best.iou, abs=1e-3)
    single = trained(steps=8)[1]
    assert np.abs(np.subtract(shared.losses, single.losses)).max() > 1e-3  # negative control: it is not a batch of 1


@pytest.mark.slow
def test_processes_that_train_together_end_together_and_go_on(tmp_path):
    path = tmp_path / "state.safetensors"
    process = _start(tmp_path, path, processes=2)
    while process.stdout.readline() != b"10\n":
        assert process.poll() is None, process.stderr.read()
    others = psutil.Process(process.pid).children(recursive=True)
    assert others
    process.kill()
    process.wait()
    process.stdout.close(), process.stderr.close()
    _, alive = psutil.wait_procs(others, timeout=120)
    assert not alive
    changes = {"steps": 30, "save_every": 2, "validation": RoughSamples(3, seed=7), "processes": 2}
    model, history = trained(DROPPING, **changes, state_path=path)
    undisturbed, expected = trained(DROPPING, **changes)
    assert history == expected
    assert torch.equal(weights_of(model), weights_of(undisturbed))


# -- what is refused -----------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_ends_the_training_and_names_the_sample():
    with pytest.raises(DivergedError, match=r"loss of sample 4 is nan") as caught:
        trained(samples=RoughSamples(10, bad=4), steps=10)
    assert sample_number(TrainSettings(), 10, caught.value.step - 1) == caught.value.sample == 4


@pytest.mark.slow
def test_a_loss_of_another_process_that_is_not_finite_ends_both(capfd):
    with pytest.raises(DivergedError, match=r"loss of sample 4 is inf"):
        trained(samples=RoughSamples(10, bad=4), steps=10, processes=2)
    assert "Traceback" not in capfd.readouterr().err


def test_a_rate_that_is_too_high_is_named():
    with pytest.raises(DivergedError, match=r"step \d: .*lower learning rate \(now 1e\+30\)"):
        trained(optimiser="sgd", learning_rate=1e30, schedule="constant")


class _Fixed:
    def __init__(self, *samples):
        self.samples = samples

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, number, /):
        return self.samples[number]


GOOD = RoughSamples()[0]


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ((), "samples: there are none"),
        ((replace(GOOD, image=GOOD.image[:, :-1]),), r"image of shape \(1, 47, 48\); .* expects \(1, 48, 48\)"),
        ((replace(GOOD, image=GOOD.image.repeat(3, 0)),), r"shape \(3, 48, 48\)"),
        ((replace(GOOD, classes=GOOD.classes[None]),), "network is 2D"),
        ((replace(GOOD, weights=GOOD.weights[:-1]),), r"weights of shape \(31, 32\)"),
        ((replace(GOOD, classes=GOOD.classes | 2),), "class 3, but the network has 2"),
    ],
)
def test_samples_that_do_not_fit_are_refused_before_the_first_step(samples, message):
    steps = []
    with pytest.raises((TrainingDataError, GeometryError), match=message):
        train(build_model(SMALL, 0), training(samples=_Fixed(*samples)), on_step=lambda *step: steps.append(step))
    assert not steps


def test_validation_samples_are_checked_too():
    with pytest.raises(TrainingDataError, match="validation: weights"):
        trained(validation=_Fixed(replace(GOOD, weights=GOOD.weights[:-1])))


def test_each_step_is_reported():
    steps, saved = [], []
    history = train(
        build_model(SMALL, 0),
        training(steps=7),
        on_step=lambda *step: steps.append(step),
        on_save=lambda history: saved.append(history.steps),
    )
    assert steps == [*zip(range(1, 8), history.losses, strict=True)]
    assert saved == [3, 5, 6, 7]


def test_no_processes_are_refused():
    with pytest.raises(TrainingDataError, match="processes=0"):
        training(processes=0)


def test_a_validation_that_is_not_finite_is_never_the_best():
    nan, good, worse = (Validation(step, loss, 0.5, 0.1) for step, loss in ((1, float("nan")), (2, 0.5), (3, 0.7)))
    history = History().add(nan, "iou", 0)
    assert history.best is None
    assert history.add(good, "loss", 0).add(worse, "loss", 0).best == good


@pytest.mark.slow
def test_a_process_that_is_killed_ends_those_that_train_with_it(tmp_path):
    path = tmp_path / "state.safetensors"
    process = _start(tmp_path, path, processes=2)
    while process.stdout.readline() != b"10\n":
        assert process.poll() is None, process.stderr.read()
    other = spawned_below(psutil.Process(process.pid))[0]
    other.kill()
    _, said = process.communicate(timeout=240)
    assert process.returncode
    assert "RankError: process 1 of 2 ended with exit code -9" in said.decode()
    assert count_steps(path) >= 8
    assert [file.name for file in tmp_path.iterdir() if file.is_dir()] == []
