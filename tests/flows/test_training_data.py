"""From a training set to samples, as a person runs it: checked first, killed and resumed, looked at."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segment_slide.flows.requests import Workers
from segment_slide.flows.training_data import make_training_data
from segment_slide.flows.training_requests import TrainingDataRequest
from segment_slide.pipeline.errors import InputError, OutputError, OutputMismatchError, PlanError
from segment_slide.pipeline.metadata.colours import class_colour
from segment_slide.pipeline.training.sample_set import read_sample_set
from segment_slide.pipeline.training.stored_samples import StoredSamples
from segment_slide.unet.augment_settings import AugmentSettings
from segment_slide.unet.checkpoint import Normalisation
from segment_slide.unet.errors import GeometryError, TrainingDataError
from segment_slide.unet.sample import IGNORE
from tests.flows.support import brake, tree
from tests.pipeline.training.support import write_training_set

ROOT = Path(__file__).parents[2]
GENTLE = AugmentSettings(elastic_std_px=2)
OPTIONS = {"n": 112, "tile_px": (64,), "depth": 2, "augment": AugmentSettings(4.0), "workers": Workers(1)}
RUN = f"""
import sys
from segment_slide.flows.requests import Workers
from segment_slide.flows.training_requests import TrainingDataRequest
from segment_slide.flows.training_data import make_training_data
from segment_slide.unet.augment_settings import AugmentSettings
if __name__ == "__main__":
    make_training_data(TrainingDataRequest(*sys.argv[1:], **{OPTIONS}))
"""


@pytest.fixture
def here(monkeypatch):
    """Tasks run in this process: worker processes take seconds to start."""
    monkeypatch.setattr("segment_slide.flows.training_data.open_cluster", lambda *_, **__: contextlib.nullcontext(None))


def pixels(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 255, shape, np.uint8)


def classes_of(*shape, seed=0):
    return np.random.default_rng(seed + 9).choice(np.array([0, 1, IGNORE], np.uint8), shape)


def write_set(folder, n_images=3, shape=(60, 70), n_channels=1, **options):
    images = {f"image-{i}": (pixels(n_channels, *shape, seed=i), classes_of(*shape, seed=i)) for i in range(n_images)}
    return write_training_set(folder, images, **options).location


def request_for(training_set, folder, **options):
    options = {"n": 20, "tile_px": (16,), "depth": 1, "augment": GENTLE, **options}
    return TrainingDataRequest(training_set, str(folder / "samples.zarr"), **options)


def test_samples_are_made_and_made_only_once(tmp_path, here):
    request = request_for(write_set(tmp_path), tmp_path)
    report = make_training_data(request)
    samples = report.samples
    assert (report.n_files, report.n_files_before) == (3 + 2 - 1, 0)  # 20 and 20 samples
    assert [note for note in report.notes if "frames of one movie" not in note] == []
    assert samples == read_sample_set(request.output)
    assert len(samples.training_images) == 2
    assert len(samples.validation_images) == 1
    assert samples.n_validation == 4 * 5
    training, validation = (StoredSamples(samples, part) for part in ("training", "validation"))
    for stored in (training, validation):
        for number in range(len(stored)):
            sample = stored[number]
            assert (sample.classes != IGNORE).any()
            np.testing.assert_array_equal(sample.weights > 0, sample.classes != IGNORE)
    assert {training.place(number)[0] for number in range(20)} == {0.0, 1.0}
    images = np.stack([training[number].image for number in range(20)])
    assert abs(images.mean()) < 0.2
    assert 0.5 < images.std() < 1.2
    before = tree(tmp_path / "samples.zarr")
    again = make_training_data(request)
    assert (again.n_files, again.n_files_before) == (4, 4)
    assert tree(tmp_path / "samples.zarr") == before


@pytest.mark.slow
def test_a_killed_run_goes_on_and_ends_with_the_bytes_of_an_undisturbed_one(tmp_path, here):
    training_set = write_set(tmp_path, n_images=2, shape=(200, 220))
    slowly = brake(tmp_path / "brake", "samples.zarr/training/images/c", 2)
    paths = os.pathsep.join((slowly["PYTHONPATH"], str(ROOT)))
    environment = {**os.environ, **slowly, "PYTHONPATH": paths}
    script = tmp_path / "run.py"
    script.write_text(RUN)
    command = [sys.executable, str(script), training_set]
    killed, whole = tmp_path / "killed/samples.zarr", tmp_path / "whole/samples.zarr"
    process = subprocess.Popen([*command, str(killed)], env=environment, start_new_session=True)
    deadline = time.monotonic() + 240
    while len(list(killed.glob("training/images/c/*"))) < 2:
        assert process.poll() is None, "ended before it was killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    samples = read_sample_set(killed)
    with pytest.raises(InputError, match="files of training samples are missing, .*`segment-slide training-data`"):
        StoredSamples(samples, "training")
    for output in (killed, whole):
        make_training_data(TrainingDataRequest(training_set, str(output), **OPTIONS))
    assert tree(killed) == tree(whole)
    assert not list(killed.rglob("*.partial"))


def test_the_preview_shows_the_first_samples(tmp_path, here):
    report = make_training_data(request_for(write_set(tmp_path, n_channels=2), tmp_path, n=4))
    page = Image.open(report.preview)
    assert report.preview == tmp_path / "samples.zarr/preview.png"
    assert page.size[0] > page.size[1] > 300
    colours = {colour for _, colour in page.getcolors(1 << 24)}
    for colour in ((255, 196, 0), class_colour(1), (38, 38, 44)):  # the tile's frame, foreground, background
        assert colour in colours


def test_a_volume_has_samples_with_displacements_after_its_voxels(tmp_path, here):
    training_set = write_set(
        tmp_path, 2, (20, 30, 40), axes="czyx", block_px=16, chunk_px=8, pixel_size_um=(2.0, 0.5, 0.5)
    )
    report = make_training_data(request_for(training_set, tmp_path, n=5, tile_px=(8, 8, 16)))
    assert report.samples.settings.augment.anisotropy == 4
    assert StoredSamples(report.samples, "training")[0].image.shape == (1, 24, 24, 32)
    assert report.samples.settings.place_axes == "zyx"
    assert report.preview.is_file()


def test_planes_of_one_stack_are_not_split_and_a_single_image_does_not_validate(tmp_path, here):
    images = {"stack": (pixels(5, 40, 40), classes_of(5, 40, 40))}
    training_set = write_training_set(tmp_path, images, axes="tyx").location
    report = make_training_data(request_for(training_set, tmp_path))
    assert report.samples.n_validation == 0
    assert report.notes[0].startswith("no image validates (1 annotated image)")
    planes = {StoredSamples(report.samples, "training").place(number)[1] for number in range(20)}
    assert len(planes) >= 4


def test_images_with_and_without_planes_make_one_set(tmp_path, here):
    images = {
        "stack": (pixels(3, 1, 40, 40), classes_of(3, 40, 40)),
        "time": (pixels(2, 1, 40, 40), classes_of(2, 40, 40)),
    }
    training_set = write_training_set(tmp_path, images, axes="tcyx").location
    report = make_training_data(request_for(training_set, tmp_path, validation_names=("time",)))
    assert report.samples.validation_images == ("time",)
    assert report.samples.n_validation == 2 * 9
    stored = StoredSamples(report.samples, "validation")
    assert [stored.place(number)[1] for number in (0, 17)] == [0, 1]


def test_each_image_is_normalised_by_its_own_statistics_if_asked_for(tmp_path, here):
    report = make_training_data(request_for(write_set(tmp_path), tmp_path, normalisation=Normalisation("mean-std")))
    assert report.samples.normalisation == Normalisation("mean-std")
    for number in range(3):
        image = pixels(1, 60, 70, seed=number)
        np.testing.assert_allclose(
            report.samples.image_scales[f"image-{number}"], [[image.mean()], [image.std()]], rtol=1e-12
        )


def test_control_points_too_near_to_each_other_are_worth_a_note(tmp_path, here):
    report = make_training_data(request_for(write_set(tmp_path), tmp_path, augment=AugmentSettings()))
    assert "may fold the image; choose a larger --tile" in report.notes[-1]


def test_samples_begun_otherwise_are_refused(tmp_path, here):
    training_set = write_set(tmp_path)
    make_training_data(request_for(training_set, tmp_path))
    before = tree(tmp_path / "samples.zarr")
    with pytest.raises(OutputMismatchError, match=r"settings.seed: begun with 0, now 1"):
        make_training_data(request_for(training_set, tmp_path, seed=1))
    with pytest.raises(OutputMismatchError, match=r"n_training: begun with 20, now 21"):
        make_training_data(request_for(training_set, tmp_path, n=21))
    assert tree(tmp_path / "samples.zarr") == before


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"n": 0}, InputError, "n=0 samples, expected at least 1"),
        ({"tile_px": (17,)}, GeometryError, "tile=17 px is not a positive multiple"),
        ({"tile_px": (16, 16, 16)}, InputError, "expected 1 or 2 sizes: the training set is 2D"),
        ({"depth": 0}, GeometryError, "depth=0"),
        ({"seed": -1}, TrainingDataError, "seed=-1"),
        ({"validation_names": ("nobody",)}, InputError, "'nobody' is not among"),
        ({"validation_share": -0.1}, InputError, "validation share=-0.1"),
        ({"tile_px": (1 << 16,), "depth": 4}, PlanError, "choose a smaller `tile`"),
        ({"output": "set.zarr"}, OutputError, "lie in each other"),
        ({"output": "image-0.zarr/samples"}, OutputError, "lie in each other"),
        ({"training_set": "nothing.zarr"}, InputError, "is not a training set"),
        (
            {"normalisation": Normalisation(offset=(1.0, 2.0), scale=(1.0, 1.0))},
            InputError,
            "one value each per channel",
        ),
    ],
)
def test_bad_input_is_refused_before_anything_is_created(tmp_path, here, options, error, message):
    training_set = write_set(tmp_path)
    before = tree(tmp_path)
    values = {"training_set": training_set, "output": "samples.zarr", **options}
    paths = {key: str(tmp_path / values.pop(key)) for key in ("training_set", "output")}
    request = TrainingDataRequest(**paths, **{"n": 20, "tile_px": (16,), "depth": 1, "augment": GENTLE, **values})
    with pytest.raises(error, match=message):
        make_training_data(request)
    assert tree(tmp_path) == before


def test_weight_maps_that_are_not_complete_and_images_that_changed_are_refused(tmp_path, here):
    training_set = write_set(tmp_path)
    (tmp_path / "set.zarr/image-1/weights/c/0/0").unlink()
    with pytest.raises(InputError, match=r"1 of \d+ blocks of weight maps are missing"):
        make_training_data(request_for(training_set, tmp_path))
    other = tmp_path / "other"
    training_set = write_set(other)
    (other / "image-2.zarr/c/0/0/0").write_bytes(b"shorter")
    with pytest.raises(InputError, match="image-2 .* has changed"):
        make_training_data(request_for(training_set, other))
    assert not (tmp_path / "samples.zarr").exists()


def test_two_runs_at_a_time_are_refused(tmp_path, here):
    from segment_slide.pipeline.storage.lock import hold

    request = request_for(write_set(tmp_path), tmp_path)
    with hold(request.output, lambda: None), pytest.raises(OutputError, match="is being written by another run"):
        make_training_data(request)


@pytest.mark.usefixtures("here")
def test_validation_tiles_are_spread_evenly_up_to_their_number(tmp_path):
    where = write_set(tmp_path)
    few = make_training_data(request_for(where, tmp_path, validation_tiles=3))
    assert few.samples.n_validation == 3
    (tmp_path / "all").mkdir()
    assert make_training_data(request_for(where, tmp_path / "all")).samples.n_validation == 20
    with pytest.raises(InputError, match="validation_tiles=0"):
        make_training_data(request_for(where, tmp_path / "none", validation_tiles=0))
