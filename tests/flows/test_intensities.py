"""Intensities from the training images to the report: chosen, kept with the network, compared, said, recorded."""

import json
import logging
from dataclasses import replace

import numpy as np
import pytest

from segment_slide.flows.show.training import training_data_rows
from segment_slide.flows.train import train_network
from segment_slide.flows.training_data import make_training_data
from segment_slide.flows.training_requests import TrainingDataRequest
from segment_slide.pipeline.errors import OutputMismatchError
from segment_slide.pipeline.report.run import make_report
from segment_slide.pipeline.statistics.apply import measure_levels, measured_scaling
from segment_slide.pipeline.statistics.levels import describe_intensities
from segment_slide.pipeline.storage.record import ATTRIBUTE
from segment_slide.pipeline.training.sample_set import create_sample_set, read_sample_set
from segment_slide.unet.checkpoint import open_checkpoint
from segment_slide.unet.normalisation import Normalisation, WantedNormalisation
from segment_slide.unet.train_settings import TrainSettings
from tests.flows.support import run_here, run_without_workers, write_array, write_model, write_ome
from tests.flows.test_train import request as train_request
from tests.flows.test_training_data import GENTLE, here  # noqa: F401 - a fixture
from tests.pipeline.statistics.support import draw_cells, source_of
from tests.pipeline.training.support import write_training_set

GREY = Normalisation("constants", (18.0,), (25.0,))


def intensities(folder, normalisation=GREY):
    """Of three images of 8 bits with bright cells on a dark background."""
    measured = [
        measure_levels(source_of(folder / f"{i}", draw_cells(128, 12, 100, 10, 1.5, seed=i)[0])) for i in range(3)
    ]
    scalings = [
        (normalisation.offset, normalisation.scale) if normalisation.offset else measured_scaling(found, normalisation)
        for found, _ in measured
    ]
    return describe_intensities([levels for _, levels in measured], scalings)


def segment(folder, pixels, model, *options):
    image = folder / "slide.zarr"
    if not image.exists():
        write_array(image, pixels)
    output = folder / "out.ome.zarr"
    outcome = run_without_workers(
        "segment", image, "--model", model, "-o", output, "--axes", "yx", "--device", "cpu", "--block", 64, *options
    )
    assert outcome.exit_code == 0, outcome
    return output, outcome


def normalisation_of(output):
    group = json.loads((output / "labels/segmentation/zarr.json").read_text())
    return group["attributes"][ATTRIBUTE]["normalisation"]


# -- a segmentation -------------------------------------------------------------------------------------------------


def test_constants_of_8_bits_on_16_are_warned_of_recorded_and_shown_again(tmp_path, caplog):
    model = write_model(tmp_path / "cells.safetensors", normalisation=GREY, intensities=intensities(tmp_path / "known"))
    pixels, _ = draw_cells(100, 6, 25_000, 2_500, 300, "uint16")
    output, _ = segment(tmp_path, pixels, model)
    record = normalisation_of(output)
    assert (record["offset"], record["scale"]) == ([18.0], [25.0])
    (note,) = record["notes"]
    assert note.startswith("channel 0 has intensities from 1")
    assert note in caplog.messages
    assert "channel 0 has intensities from 1" in " ".join(run_here("info", output).out.split())
    assert note.split("`")[0] in make_page(output)
    caplog.clear()
    segment(tmp_path, pixels, model)  # nothing is left to do, but a person looks at this run
    assert note in caplog.messages
    assert normalisation_of(output) == record


def test_an_image_like_those_of_the_training_has_no_note_and_the_record_of_before(tmp_path, caplog):
    model = write_model(tmp_path / "cells.safetensors", normalisation=GREY, intensities=intensities(tmp_path / "known"))
    output, _ = segment(tmp_path, draw_cells(100, 8, 90, 10, 1.5, seed=9)[0], model)
    assert normalisation_of(output) == {"kind": "constants", "offset": [18.0], "scale": [25.0]}
    assert not [message for message in caplog.messages if "channel 0" in message]
    assert "Compared with the training images" not in make_page(output)


def test_a_blank_field_is_not_stretched_and_the_record_says_so(tmp_path, caplog):
    wanted = Normalisation("percentiles")
    known = intensities(tmp_path / "known", wanted)
    model = write_model(tmp_path / "cells.safetensors", normalisation=wanted, intensities=known)
    pixels = np.random.default_rng(0).normal(12, 2, (100, 130)).round().astype(np.uint8)
    output, _ = segment(tmp_path, pixels, model)
    record = normalisation_of(output)
    assert record["scale"][0] > 5 * np.ptp(np.percentile(pixels, (1, 99.8)))
    assert record["notes"][0].startswith("channel 0 is nearly flat")
    assert record["notes"][0] in caplog.messages


def test_channels_whose_names_stand_in_another_order_are_warned_of(tmp_path, caplog):
    model = write_model(tmp_path / "two.safetensors", in_channels=2, channel_names=("DAPI", "actin"))
    image = tmp_path / "image.zarr"
    write_ome(image, np.random.default_rng(0).integers(0, 255, (2, 70, 80), np.uint8), "cyx")
    ome = json.loads((image / "zarr.json").read_text())
    ome["attributes"]["ome"]["omero"] = {"channels": [{"label": "actin"}, {"label": "DAPI"}]}
    (image / "zarr.json").write_text(json.dumps(ome))
    arguments = ("segment", image, "--model", model, "--device", "cpu", "--block", 64)
    run_without_workers(*arguments, "-o", tmp_path / "a.ome.zarr")
    said = "the chosen channels are actin, DAPI, the model was trained on DAPI, actin"
    assert any(said in message for message in caplog.messages)
    caplog.clear()
    outcome = run_without_workers(*arguments, "-o", tmp_path / "b.ome.zarr", "--channels", "DAPI,actin")
    assert outcome.exit_code == 0
    assert not any("chosen channels" in message for message in caplog.messages)


def make_page(output):
    return make_report(str(output), "segmentation")


# -- a training -----------------------------------------------------------------------------------------------------


def cells_set(folder, exposures=(20, 60, 200)):
    images = {}
    for number, exposure in enumerate(exposures):
        pixels, cells = draw_cells(70, 6, exposure, 10, 1.0, seed=number)
        images[f"image-{number}"] = (pixels[None], cells.astype(np.uint8))
    return write_training_set(folder, images).location


def samples_request(folder, **options):
    chosen = {"n": 8, "tile_px": (16,), "depth": 1, "augment": GENTLE, "validation_share": 0.0, **options}
    return TrainingDataRequest(cells_set(folder), str(folder / "samples.zarr"), **chosen)


@pytest.mark.usefixtures("here")
def test_what_is_chosen_is_said_logged_recorded_and_kept_with_the_network(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    report = make_training_data(samples_request(tmp_path))
    samples = read_sample_set(str(tmp_path / "samples.zarr"))
    assert samples.normalisation == Normalisation("percentiles")
    assert samples.settings.normalisation == WantedNormalisation("auto")
    because = f"exposures differ between the 3 images: {samples.reason.partition(': ')[2]}"
    assert training_data_rows(report)["normalised"] == f"each image by its own percentiles; chosen because {because}"
    assert f"normalisation by percentiles: {because}" in caplog.messages
    short = TrainSettings(steps=1, optimiser="adamw", validate_every=1, save_every=1)
    trained = train_network(train_request(tmp_path / "samples.zarr", tmp_path / "cells.safetensors", settings=short))
    config = open_checkpoint(trained.checkpoint.path).config
    assert config.intensities == samples.intensities
    assert config.training["normalisation"] == f"percentiles: {because}"
    shown = " ".join(run_here("info", trained.checkpoint.path).out.split())
    assert "uint8, intensities " in shown


@pytest.mark.usefixtures("here")
def test_a_set_begun_before_auto_existed_goes_on_with_its_constants(tmp_path):
    request = samples_request(tmp_path, normalisation=WantedNormalisation("constants"))
    made = make_training_data(request).samples
    older = replace(made, intensities=None, location=str(tmp_path / "older.zarr"), read_from=None)
    create_sample_set(older)
    report = make_training_data(replace(request, output=older.location, normalisation=WantedNormalisation()))
    assert (report.samples.normalisation, report.n_files_before) == (made.normalisation, 0)
    record = read_sample_set(older.location)
    assert (record.intensities, record.settings.normalisation.kind) == (None, "constants")
    # negative control: a user who asked for constants in this version is not given another choice silently
    with pytest.raises(OutputMismatchError, match="normalisation"):
        make_training_data(replace(request, normalisation=WantedNormalisation()))
