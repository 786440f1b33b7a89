"""`segment-slide train`: files, resuming, what is refused; on small stored samples."""

import csv
import json
import os
import shutil
import signal
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from segment_slide.flows.train import STATE_NAME, train_network
from segment_slide.flows.training_requests import TrainRequest
from segment_slide.pipeline.training.curves import smooth
from segment_slide.pipeline.training.records import SampleChoices, SetReference
from segment_slide.pipeline.training.sample_set import SampleSet, create_sample_set
from segment_slide.unet.checkpoint import Normalisation, open_checkpoint
from segment_slide.unet.errors import DivergedError
from segment_slide.unet.object_defaults import ObjectDefaults
from segment_slide.unet.train_settings import TrainSettings
from segment_slide.unet.training_state import count_steps
from tests.flows.support import (
    brake,
    can_mount,
    finish,
    mounted,
    run_here,
    run_installed,
    run_without_workers,
    start,
    tree,
    wait_until,
    write_ome,
)
from tests.unet.training_support import SMALL, TILE_PX, RoughSamples

# A picture is drawn with each save, which takes longer than the steps between them.
QUICK = TrainSettings(steps=8, optimiser="adamw", learning_rate=1e-2, validate_every=4, save_every=4)
ARGUMENTS = ["--base-channels", 4, "--optimiser", "adamw", "--learning-rate", 0.01, "--device", "cpu"]


def write_samples(location, *, bad=-1, missing=False):
    """A sample set of `RoughSamples`, 20 to learn from and 4 to judge by."""
    samples = SampleSet(
        location=str(location),
        n_spatial=2,
        n_channels=1,
        depth=SMALL.depth,
        tile_px=(TILE_PX, TILE_PX),
        n_training=20,
        n_validation=4,
        class_names=("background", "rough"),
        channel_names=("grey",),
        pixel_size_um=(0.5, 0.5),
        normalisation=Normalisation(offset=(10.0,), scale=(2.0,)),
        training_images=("first", "second"),
        validation_images=("third",),
        settings=SampleChoices(place_axes="yx", seed=3),
        training_set=SetReference(f"{location}-set", "abc"),
    )
    create_sample_set(samples)
    for part, drawn in (("training", RoughSamples(20, bad=bad)), ("validation", RoughSamples(4, seed=7))):
        numbers = range(min(len(drawn), 16) if missing else len(drawn))
        for name in ("image", "classes", "weights"):
            values = np.stack([getattr(drawn[number], name) for number in numbers])
            samples.array(part, {"image": "images"}.get(name, name), writable=True)[: len(values)] = values
        places = np.array([[number % 2, 5.0 * number, 7.0] for number in numbers])
        samples.array(part, "places", writable=True)[: len(places)] = places
    return location


def read_table(path):
    return list(csv.DictReader(path.read_text().splitlines()))


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    """Not to be written to."""
    return write_samples(tmp_path_factory.mktemp("samples") / "samples.zarr")


@pytest.fixture(scope="module")
def finished(samples, tmp_path_factory):
    """What a training says, and the folder that it leaves."""
    folder = tmp_path_factory.mktemp("finished")
    return train_network(request(samples, folder / "cells.safetensors")), folder


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of that folder."""
    return shutil.copytree(finished[1], tmp_path / "copy")


def request(samples, output, **changes):
    return TrainRequest(str(samples), str(output), base_channels=4, device="cpu", **{"settings": QUICK, **changes})


def test_a_training_leaves_a_checkpoint_and_curves(finished):
    report, where = finished
    config = open_checkpoint(where / "cells.safetensors").config
    assert config == report.checkpoint.config
    assert (config.classes, config.channel_names, config.pixel_size_um) == (
        ("background", "rough"),
        ("grey",),
        (0.5, 0.5),
    )
    assert config.normalisation.offset == (10.0,)
    assert config.architecture.depth == SMALL.depth
    assert config.training["images"] == {"training": ["first", "second"], "validation": ["third"]}
    assert config.training["results"]["steps"] == 8
    folder = where / "cells.training"
    assert sorted(path.name for path in folder.iterdir()) == [
        "_manifest",
        "curves.png",
        "losses.csv",
        "scores.csv",
        STATE_NAME,
    ]
    losses = read_table(folder / "losses.csv")
    assert [int(row["step"]) for row in losses] == list(range(1, 9))
    np.testing.assert_allclose([float(row["loss"]) for row in losses], report.history.losses, rtol=1e-5)
    assert [row["step"] for row in read_table(folder / "scores.csv")] == ["4", "8"]
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_equal_trainings_leave_equal_bytes_and_another_seed_others(samples, finished, tmp_path):
    paths = [tmp_path / name / "cells.safetensors" for name in ("b", "c")]
    for path, seed in zip(paths, (0, 1), strict=True):
        train_network(request(samples, path, settings=replace(QUICK, seed=seed)))
    first, second, other = (path.read_bytes() for path in (finished[1] / "cells.safetensors", *paths))
    assert first == second != other


def test_a_trained_network_recommends_options_that_its_segmentations_use(samples, tmp_path):
    """From `train` to the record of the objects, by the commands alone."""
    model = tmp_path / "cells.safetensors"
    steps = ["--steps", 2, "--validate-every", 2]
    assert run_here("train", samples, "-o", model, *ARGUMENTS, *steps, "--min-size", "12um2").exit_code == 0
    assert open_checkpoint(model).config.objects == ObjectDefaults("12um2")
    assert "min_size 12um2" in run_here("info", model).out
    image, out = tmp_path / "image.ome.zarr", tmp_path / "out.ome.zarr"
    pixels = np.random.default_rng(0).normal(10, 4, (1, 64, 64)).astype(np.float32)
    write_ome(image, pixels, "cyx", scale=(1.0, 0.5, 0.5))
    run = run_without_workers("segment", image, "-m", model, "-o", out, "--device", "cpu", "--instances")
    assert run.exit_code == 0, run
    assert "From the model: min_size 12um2" in run.out
    labels = [
        json.loads((out / "labels" / name / "zarr.json").read_text())
        for name in os.listdir(out / "labels")
        if (out / "labels" / name).is_dir()
    ]
    records = [content["attributes"]["segment_slide"] for content in labels]
    assert {"min_size": "12um2", "split": None, "ndim": 2} in [record.get("objects") for record in records]
    assert [record["parameters"]["min_size_px"] for record in records if "from_model" in record] == [48]


def test_a_trained_network_segments(samples, tmp_path):
    run = run_here("train", samples, "-o", tmp_path / "cells.safetensors", "--steps", 8, *ARGUMENTS)
    assert run.exit_code == 0, run.err
    assert "cells.safetensors" in run.out
    image = write_ome(tmp_path / "image.ome.zarr", np.full((1, 40, 50), 10, np.uint8), "cyx")
    model, output = tmp_path / "cells.safetensors", tmp_path / "out.ome.zarr"
    segmented = run_without_workers("segment", image, "-m", model, "-o", output)
    assert segmented.exit_code == 0, segmented.err


def test_the_same_command_again_says_that_it_is_done(samples, finished):
    report, folder = finished
    path = folder / "cells.safetensors"
    before = path.read_bytes()
    again = train_network(request(samples, path))
    assert (again.steps_before, again.history) == (8, report.history)
    assert path.read_bytes() == before


def test_a_training_goes_on_with_samples_that_were_moved(finished, copied, tmp_path):
    moved = write_samples(tmp_path / "elsewhere.zarr")
    again = train_network(request(moved, copied / "cells.safetensors"))
    assert (again.steps_before, again.history) == (8, finished[0].history)


@pytest.mark.slow
def test_a_killed_training_goes_on_to_the_same_bytes(samples, tmp_path):
    options = ["--steps", 150, "--save-every", 5, "--validate-every", 50, *ARGUMENTS]
    undisturbed = run_installed("train", samples, "-o", tmp_path / "whole.safetensors", *options)
    assert undisturbed.exit_code == 0, undisturbed.err
    state = tmp_path / "cut.training" / STATE_NAME
    slowly = brake(tmp_path / "brake", state, 1)
    process = start("train", samples, "-o", tmp_path / "cut.safetensors", *options, **slowly)
    wait_until(lambda: count_steps(state) >= 15, process)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    process.communicate()
    assert 15 <= count_steps(state) < 150
    assert not (tmp_path / "cut.safetensors").exists()
    again = run_installed("train", samples, "-o", tmp_path / "cut.safetensors", *options)
    assert again.exit_code == 0, again.err
    assert (tmp_path / "cut.safetensors").read_bytes() == (tmp_path / "whole.safetensors").read_bytes()
    for name in ("losses.csv", "scores.csv"):
        assert (tmp_path / "cut.training" / name).read_bytes() == (tmp_path / "whole.training" / name).read_bytes()


@pytest.mark.slow
def test_a_second_training_into_one_output_is_refused_and_sigterm_ends_one_that_can_go_on(samples, tmp_path):
    options = ["-o", tmp_path / "cut.safetensors", "--steps", 100_000, "--save-every", 5, *ARGUMENTS]
    process = start("train", samples, *options)
    state = tmp_path / "cut.training" / STATE_NAME
    wait_until(lambda: count_steps(state) >= 5, process)
    second = run_here("train", samples, *options)
    os.kill(process.pid, signal.SIGTERM)
    run = finish(process)
    assert second.exit_code == 2
    assert "being written by another run" in second.err
    assert run.exit_code == 143
    assert "run the same command again" in run.err
    assert "Traceback" not in run.err
    assert count_steps(state) >= 5


def test_a_sample_that_is_not_finite_is_named_with_its_place(tmp_path):
    samples = write_samples(tmp_path / "samples.zarr", bad=13)
    with pytest.raises(DivergedError, match=r"sample 13 is nan.* image second around y=65, x=7"):
        train_network(
            request(samples, tmp_path / "cells.safetensors", settings=TrainSettings(**{**vars(QUICK), "steps": 20}))
        )
    run = run_here("train", samples, "-o", tmp_path / "b.safetensors", "--steps", 20, *ARGUMENTS)
    assert run.exit_code == 2
    assert "sample 13" in run.err
    assert not (tmp_path / "b.safetensors").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", 0], "steps=0"),
        (["--optimiser", "adam"], "optimiser='adam', expected one of sgd, adamw"),
        (["--learning-rate", -1], "learning_rate=-1.0"),
        (["--precision", "half"], "precision='half'"),
        (["--base-channels", 0], "base_channels=0"),
        (["--dropout", 1], "dropout=1.0"),
        (["--device", "tpu"], "device='tpu'"),
        (["--processes", 0], "processes=0"),
        (["-o", "cells.pt"], "expected the name of a checkpoint, NAME.safetensors"),
        (["--min-size", "large"], "min_size='large', expected a number of pixels"),
        (["--min-size", "5um3"], "min_size=5um3, but objects have 2 axes"),
        (["--split", 0], "split=0.0, expected a number of pixels above 0"),
    ],
)
def test_bad_options_are_refused_and_leave_nothing(samples, tmp_path, arguments, message):
    before = sorted(tmp_path.rglob("*"))
    run = run_here("train", samples, "-o", tmp_path / "cells.safetensors", *arguments)
    assert run.exit_code == 2
    assert message in run.err
    assert "Traceback" not in run.err
    assert sorted(tmp_path.rglob("*")) == before


def test_what_is_no_sample_set_is_refused(tmp_path):
    run = run_here("train", tmp_path / "nothing.zarr", "-o", tmp_path / "cells.safetensors")
    assert run.exit_code == 2
    assert "segment-slide training-data" in run.err


def test_samples_that_are_not_all_there_are_refused(tmp_path):
    samples = write_samples(tmp_path / "samples.zarr", missing=True)
    run = run_here("train", samples, "-o", tmp_path / "cells.safetensors", *ARGUMENTS)
    assert run.exit_code == 2
    assert "missing" in run.err
    assert not (tmp_path / "cells.training").exists()


@pytest.mark.parametrize("damage", ["cut off", "gone"])
def test_a_damaged_sample_ends_the_training_with_a_sentence(samples, tmp_path, damage):
    mine = shutil.copytree(samples, tmp_path / "samples.zarr")
    file = mine / "training" / "classes" / "c" / "0" / "0" / "0"
    state = tmp_path / "cells.training" / STATE_NAME

    def spoil_after_the_first_save():
        ends = time.monotonic() + 120
        while count_steps(state) < 5 and time.monotonic() < ends:
            time.sleep(0.01)
        if damage == "cut off":
            file.write_bytes(file.read_bytes()[:200])
        else:
            shutil.rmtree(mine)

    spoiler = threading.Thread(target=spoil_after_the_first_save)
    spoiler.start()
    options = ["-o", tmp_path / "cells.safetensors", "--steps", 100_000, "--save-every", 5, *ARGUMENTS]
    run = run_here("train", mine, *options)
    spoiler.join()
    assert run.exit_code == 2
    assert "cannot be read" in run.err
    assert "Traceback" not in run.err
    assert count_steps(state) >= 5


def test_a_checkpoint_of_another_training_is_not_replaced(samples, tmp_path):
    path = tmp_path / "cells.safetensors"
    path.write_bytes(b"precious")
    run = run_here("train", samples, "-o", path, *ARGUMENTS)
    assert run.exit_code == 2
    assert "exists" in run.err
    assert path.read_bytes() == b"precious"


def test_a_folder_that_no_training_made_is_left_alone(samples, tmp_path):
    folder = tmp_path / "cells.training"
    folder.mkdir()
    (folder / "notes.partial").write_text("precious")
    (folder / "losses.csv").write_text("mine")
    before = tree(tmp_path)
    run = run_here("train", samples, "-o", tmp_path / "cells.safetensors", *ARGUMENTS)
    assert run.exit_code == 2
    assert "no training made" in run.err
    assert tree(tmp_path) == before


def test_an_output_in_the_samples_is_refused(samples):
    run = run_here("train", samples, "-o", samples / "cells.safetensors", *ARGUMENTS)
    assert run.exit_code == 2
    assert "read-only" in run.err


def test_a_damaged_state_is_named(samples, copied):
    state = copied / "cells.training" / STATE_NAME
    state.write_bytes(state.read_bytes()[:3000])
    run = run_here("train", samples, "-o", copied / "cells.safetensors", "--steps", 8, *ARGUMENTS)
    assert run.exit_code == 2
    assert "not a whole training state" in run.err


@pytest.mark.skipif(not can_mount(), reason="needs to mount a memory file system")
def test_a_full_disk_ends_a_training_that_can_go_on(samples, tmp_path):
    with mounted(tmp_path / "full", "size=60k") as full:
        run = run_here("train", samples, "-o", full / "cells.safetensors", "--steps", 8, *ARGUMENTS)
        assert run.exit_code == 3
        assert "cannot be written" in run.err
        assert "Traceback" not in run.err
        assert not list(full.rglob("*.partial"))


def test_other_settings_than_those_it_was_begun_with_are_refused(samples, copied):
    run = run_here("train", samples, "-o", copied / "cells.safetensors", "--steps", 9, *ARGUMENTS)
    assert run.exit_code == 2
    assert "settings.steps: begun with 8, now 9" in run.err


def test_the_smooth_curve_is_a_running_mean():
    values = np.random.default_rng(0).random(50)
    expected = [values[max(0, end - 7) : end].mean() for end in range(1, 51)]
    np.testing.assert_allclose(smooth(values, 7), expected)
