"""What cannot be carried out is refused: exit code 2, a sentence, no traceback, and not a byte anywhere changed."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr
from safetensors.numpy import save_file

from tests.flows.support import (
    CONSTANTS,
    can_mount,
    mounted,
    noise,
    remount,
    run_here,
    run_installed,
    snapshot,
    write_array,
    write_group,
    write_model,
    write_ome,
)


@dataclass
class Request:
    """A command that would work, but for what a case changes."""

    folder: Path
    model: Path
    input: Path | None = None
    output: Path | str | None = None
    options: list[object] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.output = self.output or self.folder / "out.ome.zarr"

    def image(self, *shape: int) -> Path:
        return write_array(self.folder / "slide.zarr", noise(*shape or (40, 50)))

    def arguments(self) -> list[object]:
        return ["segment", *self._input_and_model(), "--output", self.output]

    def plan_arguments(self) -> list[object]:
        return ["plan", *self._input_and_model()]

    def _input_and_model(self) -> list[object]:
        slide = self.input or self.image()
        axes = ["--axes", "yx"] if slide.name == "slide.zarr" and "--axes" not in self.options else []
        return [slide, "--model", self.model, *axes, *self.options]


Prepare = Callable[[Request], None]
CASES: dict[str, tuple[Prepare, tuple[str, ...]]] = {}


def refused(*says: str) -> Callable[[Prepare], Prepare]:
    """Register a case: what makes the request a bad one, and what the sentence must say."""

    def register(prepare: Prepare) -> Prepare:
        CASES[prepare.__name__] = (prepare, says)
        return prepare

    return register


# -- the input -------------------------------------------------------------------------------------------------


@refused("input=", "nowhere.zarr", "no such file or directory")
def input_is_missing(request):
    request.input = request.folder / "nowhere.zarr"


@refused("input=", "is a file, expected a Zarr directory", "segment-slide ingest")
def input_is_a_file(request):
    request.input = request.folder / "slide.tif"
    request.input.write_bytes(b"II*\0")


@refused("is not Zarr", "segment-slide ingest")
def input_is_a_directory_without_zarr(request):
    request.input = request.folder / "photos"
    request.input.mkdir()
    (request.input / "holiday.jpg").write_bytes(b"\xff\xd8")


@refused("Zarr metadata cannot be read")
def input_has_metadata_cut_off(request):
    request.input = request.image()
    (request.input / "zarr.json").write_text('{"zarr_format": 3, "node_type": "arr')


@refused("Zarr group without OME-Zarr 'multiscales'", "name the array inside it and its --axes")
def input_is_a_group_without_multiscales(request):
    request.input = write_group(request.folder / "group.zarr", {"author": "somebody"})
    write_array(request.input / "0", noise(40, 50))


@refused("is a collection of images", "name one of them", "collection.zarr/0")
def input_is_a_bioformats2raw_collection(request):
    request.input = write_group(request.folder / "collection.zarr", {"ome": {"bioformats2raw.layout": 3}})
    for name in ("0", "1"):
        write_ome(request.input / name, noise(40, 50), "yx")


@refused("is a plate", "name one field of view")
def input_is_a_plate(request):
    request.input = write_group(request.folder / "plate.zarr", {"ome": {"version": "0.5", "plate": {"wells": []}}})


@refused("OME-Zarr version 0.9", "expected one of", "0.4", "0.5")
def input_is_ome_zarr_of_an_unknown_version(request):
    request.input = write_ome(request.folder / "image.zarr", noise(40, 50), "yx", version="0.9")


@refused("OME-Zarr metadata", "damaged", "axes")
def input_has_ome_metadata_without_axes(request):
    request.input = write_ome(request.folder / "image.zarr", noise(40, 50), "yx")
    edit_ome(request.input, lambda ome: ome["multiscales"][0].pop("axes"))


@refused("level 0 names the array 'elsewhere'", "missing")
def input_names_an_array_that_is_not_there(request):
    request.input = write_ome(request.folder / "image.zarr", noise(40, 50), "yx")
    edit_ome(request.input, lambda ome: ome["multiscales"][0]["datasets"][0].update(path="elsewhere"))


@refused("has 2 channel(s) (DAPI, GFP)", "the model takes 1", "--channels DAPI")
def input_has_more_channels_than_the_model(request):
    request.input = write_ome(request.folder / "image.zarr", noise(2, 40, 50), "cyx", channels=["DAPI", "GFP"])


@refused("channel 'RFP' is not in", "expected one of: DAPI, GFP")
def channel_name_is_unknown(request):
    request.input = write_ome(request.folder / "image.zarr", noise(2, 40, 50), "cyx", channels=["DAPI", "GFP"])
    request.options = ["--channels", "RFP"]


@refused("channel '1' of", "number 0 (named '1') or number 1 (named '2')", "'name:1' or 'number:1'")
def channel_may_be_a_name_or_a_number(request):
    request.input = write_ome(request.folder / "image.zarr", noise(3, 40, 50), "cyx", channels=["1", "2", "3"])
    request.options = ["--channels", "1"]


@refused("channel 'DAPI'", "is given twice", "Name each channel once")
def channel_is_given_twice(request):
    request.input = write_ome(request.folder / "image.zarr", noise(2, 40, 50), "cyx", channels=["DAPI", "GFP"])
    request.options = ["--channels", "0,DAPI"]


@refused("the model takes 1", """--channels '"Alexa, 488"'""")
def channel_names_have_commas(request):
    names = ["Alexa, 488", "Alexa, 568"]
    request.input = write_ome(request.folder / "image.zarr", noise(2, 40, 50), "cyx", channels=names)


@refused("channel '2' is not in", "0 to 1")
def channel_number_is_out_of_range(request):
    request.input = write_ome(request.folder / "image.zarr", noise(2, 40, 50), "cyx")
    request.options = ["--channels", "2"]


@refused("bare Zarr array of shape (40, 50) without axes", "--axes", "yx")
def axes_of_a_bare_array_are_not_given(request):
    request.input = write_array(request.folder / "bare.zarr", noise(40, 50))


@refused("axes='ab'", "expected distinct letters of 'tczyx' with y and x")
def axes_are_unknown_letters(request):
    request.options = ["--axes", "ab"]


@refused("axes='zyx' names 3 dimensions", "shape (40, 50)")
def axes_are_too_many(request):
    request.options = ["--axes", "zyx"]


@refused("--axes='yx' was given", "says axes='yx' itself", "leave --axes out")
def axes_are_given_for_ome_zarr(request):
    request.input = write_ome(request.folder / "image.zarr", noise(40, 50), "yx")
    request.options = ["--axes", "yx"]


@refused("level=2, expected 0 to 1")
def level_does_not_exist(request):
    request.input = write_ome(request.folder / "image.zarr", noise(40, 50), "yx", n_levels=2)
    request.options = ["--level", "2"]


@refused("level=-1, expected 0 to 0")
def level_is_negative(request):
    request.input = write_ome(request.folder / "image.zarr", noise(40, 50), "yx")
    request.options = ["--level", "-1"]


@refused("--t='three'", "expected a number like 3 or a range like 2:10")
def time_is_no_number(request):
    request.options = ["--t", "three"]


@refused("--z='²'", "expected a number like 3 or a range like 2:10")
def plane_is_a_digit_that_is_no_number(request):
    request.options = ["--z", "²"]


@refused("--z='1:'", "a range like 2:10")
def range_has_no_end(request):
    request.options = ["--z", "1:"]


@refused("z=1:5, expected a range within 0:3")
def range_ends_beyond_the_image(request):
    request.input = write_ome(request.folder / "image.zarr", noise(3, 40, 50), "zyx")
    request.options = ["--z", "1:5"]


@refused("z=2:1, expected a range within 0:3")
def range_is_reversed(request):
    request.input = write_ome(request.folder / "image.zarr", noise(3, 40, 50), "zyx")
    request.options = ["--z", "2:1"]


@refused("--t was given, but 't' is not a plane axis")
def time_is_chosen_where_there_is_none(request):
    request.options = ["--t", "0"]


# -- sizes -----------------------------------------------------------------------------------------------------


@refused("block=501 px", "multiple of the network's stride 2", "500, 502")
def block_is_not_a_multiple_of_the_stride(request):
    request.options = ["--block", "501"]


@refused("tile=48 px does not divide block=64 px")
def tile_does_not_divide_the_block(request):
    request.options = ["--block", "64", "--tile", "48"]


@refused("tile=3 px", "stride 2", "2, 4")
def tile_is_not_a_multiple_of_the_stride(request):
    request.options = ["--block", "64", "--tile", "3"]


@refused("block=6 px is smaller than the halo of 8 px")
def block_is_smaller_than_the_halo(request):
    request.options = ["--block", "6"]


@refused("block=0 px")
def block_is_zero(request):
    request.options = ["--block", "0"]


@refused("a worker needs", "GiB", "but has", "--block", "131072")
def block_does_not_fit_the_memory(request):
    request.input = request.folder / "slide.zarr"
    zarr.create_array(request.input, shape=(200_000, 200_000), chunks=(4096, 4096), dtype="uint8")  # no chunk stored
    request.options = ["--block", "131072"]


# -- the model -------------------------------------------------------------------------------------------------


@refused("model=", "none.safetensors: no such file", "expected a checkpoint")
def model_is_missing(request):
    request.model = request.folder / "none.safetensors"


@refused("is not a whole safetensors file", "truncated: copy it again")
def model_is_truncated(request):
    whole = request.model.read_bytes()
    request.model = request.folder / "half.safetensors"
    request.model.write_bytes(whole[: len(whole) // 2])


@refused("is a pickle", "foreign code", "refused")
def model_is_a_pickle(request):
    request.model = request.folder / "model.pt"
    torch.save({"weight": torch.zeros(2)}, request.model)


@refused("no segment-slide configuration in its header", "save_checkpoint")
def model_is_somebody_elses(request):
    request.model = request.folder / "other.safetensors"
    save_file({"weight": np.zeros(2, np.float32)}, request.model)


@refused("axes 'yx'", "the model is 3D and needs z, y, x")
def model_is_3d_and_the_image_is_not(request):
    request.model = write_model(request.folder / "3d.safetensors", ndim=3)


# -- the output ------------------------------------------------------------------------------------------------


@refused("output=", "photos", "exists and is not an output of segment-slide")
def output_is_a_folder_of_photos(request):
    request.output = request.folder / "photos"
    request.output.mkdir()
    (request.output / "holiday.jpg").write_bytes(b"\xff\xd8")


@refused("exists and is not an output of segment-slide")
def output_holds_a_folder_called_labels(request):
    request.output = request.folder / "cupboard"
    (request.output / "labels").mkdir(parents=True)
    (request.output / "labels" / "jam.txt").write_text("plum")


@refused("exists and is not an output of segment-slide")
def output_is_an_image_of_somebody_else(request):
    request.output = write_ome(request.folder / "image.zarr", noise(40, 50), "yx")


@refused("exists and is not an output of segment-slide")
def output_is_an_ingested_image(request):
    request.output = write_ome(request.folder / "image.zarr", noise(40, 50), "yx")
    edit_attributes(request.output, lambda attributes: attributes.update(segment_slide={"ingested_from": {}}))


@refused("holds labels/cells that segment-slide did not write", "choose another --name")
def label_image_of_that_name_is_somebody_elses(request):
    request.input = write_ome(request.folder / "image.zarr", noise(40, 50), "yx")
    write_group(request.input / "labels", {"ome": {"labels": ["cells"]}})
    write_ome(request.input / "labels" / "cells", noise(40, 50), "yx")
    request.options = ["--in-place", "--name", "cells"]


@refused("holds labels/cells that segment-slide did not write")
def label_array_of_that_name_has_no_metadata(request):
    request.input = write_ome(request.folder / "image.zarr", noise(40, 50), "yx")
    write_array(request.input / "labels" / "cells" / "0", noise(40, 50))
    request.options = ["--in-place", "--name", "cells"]


@refused("is a file; expected a new directory")
def output_is_a_file(request):
    request.output = request.folder / "out.ome.zarr"
    request.output.write_text("notes")


@refused("cannot be written", "Not a directory")
def output_lies_under_a_file(request):
    (request.folder / "notes.txt").write_text("notes")
    request.output = request.folder / "notes.txt" / "out.ome.zarr"


@refused("lie in each other", "inputs are read-only", "--in-place")
def output_lies_in_the_input(request):
    request.input = request.image()
    request.output = request.input / "out.ome.zarr"


@refused("lie in each other", "inputs are read-only")
def output_is_the_input(request):
    request.input = write_ome(request.folder / "image.zarr", noise(40, 50), "yx")
    request.output = request.input


@refused("lie in each other")
def output_is_the_input_by_another_name(request):
    request.input = request.image()
    request.output = request.folder / "alias.zarr"
    request.output.symlink_to(request.input)


@refused("lie in each other", "inputs are read-only")
def input_lies_in_the_output(request):
    request.output = request.folder / "out.ome.zarr"
    request.input = write_array(request.output / "slide.zarr", noise(40, 50))


@refused("an output is needed", "--output", "--in-place")
def output_is_not_given(request):
    request.output = ""


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "__zarr", "zarr.json", "with space"])
def test_a_name_that_zarr_cannot_hold_is_refused(name, tmp_path, model):
    def prepare(request):
        request.options = ["--name", name]

    check_refused(Request(tmp_path, model), prepare, (f"name={name!r}", "expected letters, digits"))


@refused("--in-place needs an OME-Zarr 0.5 input", "format 2")
def in_place_into_zarr_format_2(request):
    request.input = request.folder / "old.zarr"
    zarr.create_array(request.input / "0", shape=(40, 50), chunks=(20, 20), dtype="uint8", zarr_format=2)
    axes = [{"name": axis, "type": "space"} for axis in "yx"]
    scale = [{"type": "scale", "scale": [1.0, 1.0]}]
    image = {"version": "0.4", "axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scale}]}
    (request.input / ".zgroup").write_text('{"zarr_format": 2}')
    (request.input / ".zattrs").write_text(json.dumps({"multiscales": [image]}))
    request.options = ["--in-place"]


@refused("--in-place needs an OME-Zarr 0.5 input")
def in_place_into_a_bare_array(request):
    request.options = ["--in-place"]


# -- choices ---------------------------------------------------------------------------------------------------


@refused("precision='float64'", "expected one of", "float32", "bfloat16")
def precision_is_unknown(request):
    request.options = ["--precision", "float64"]


@refused("tta='rotations'", "expected one of", "flips")
def tta_is_unknown(request):
    request.options = ["--tta", "rotations"]


@refused("probabilities='float16'", "expected one of", "uint8", "float32")
def dtype_of_probabilities_is_unknown(request):
    request.options = ["--probabilities", "float16"]


@refused("device='cuda'", "no CUDA GPU", "cpu")
def device_is_not_in_this_machine(request):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    request.options = ["--device", "cuda"]


@refused("device='abacus'", "expected 'auto', 'cpu' or 'cuda'")
def device_is_unknown(request):
    request.options = ["--device", "abacus"]


@refused("workers=0, expected 1 or more")
def there_are_no_workers(request):
    request.options = ["--workers", "0"]


@refused("workers=100000, expected 1 to", "core(s)")
def there_are_more_workers_than_cores(request):
    request.options = ["--workers", "100000"]


# -- running the cases -----------------------------------------------------------------------------------------


def check_refused(request: Request, prepare: Prepare, says: tuple[str, ...]) -> None:
    """Nothing below the request's folder changes, bytes, names and times; one sentence on standard error."""
    prepare(request)
    arguments = request.arguments()
    before = snapshot(request.folder)
    outcome = run_here(*arguments)
    check_sentence(outcome, says)
    assert snapshot(request.folder) == before


def check_sentence(outcome, says) -> None:
    assert outcome.exit_code == 2, outcome
    assert outcome.err.startswith("Error: "), outcome
    assert "Traceback" not in outcome.err + outcome.out
    for text in says:
        assert text in outcome.err


@pytest.mark.parametrize("case", CASES)
def test_a_request_that_cannot_be_carried_out_is_refused_with_a_sentence(case, tmp_path, model):
    prepare, says = CASES[case]
    check_refused(Request(tmp_path, model), prepare, says)


def test_the_request_that_all_cases_spoil_is_carried_out(tmp_path, model, warm):
    """Negative control: without this, a runner that refuses everything would pass all cases above."""
    outcome = run_here(*Request(tmp_path, model).arguments())
    assert outcome.exit_code == 0, outcome
    assert (tmp_path / "out.ome.zarr" / "labels" / "segmentation" / "0" / "c" / "0" / "0").is_file()


@pytest.mark.parametrize("case", ["input_is_missing", "block_is_not_a_multiple_of_the_stride", "model_is_a_pickle"])
def test_the_plan_refuses_what_the_run_refuses(case, tmp_path, model):
    request = Request(tmp_path, model)
    prepare, says = CASES[case]
    prepare(request)
    check_sentence(run_here(*request.plan_arguments()), says)


def test_a_real_process_ends_with_the_same_code_and_sentence(tmp_path, model):
    """The cases above run in this process; this one is the installed command."""
    request = Request(tmp_path, model, input=tmp_path / "a very long name that a terminal would wrap" / "nowhere.zarr")
    outcome = run_installed(*request.arguments(), COLUMNS="40")
    check_sentence(outcome, (f"input={request.input}: no such file",))
    assert os.listdir(tmp_path) == []


# -- an output that was begun ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def begun(tmp_path_factory, model, workers):
    """A folder with an image, its finished segmentation and the arguments that made it."""
    folder = tmp_path_factory.mktemp("begun")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("segment_slide.flows.segment.open_cluster", workers)
        outcome = run_here(*begun_arguments(folder, model))
    assert outcome.exit_code == 0, outcome
    return folder


def begun_arguments(folder: Path, model: Path) -> list[object]:
    slide = folder / "slide.zarr"
    if not slide.exists():
        write_array(slide, noise(100, 130))
    return Request(folder, model, input=slide, options=["--block", "64", "--precision", "float32"]).arguments()


@pytest.fixture
def copied(begun, tmp_path):
    """A copy of it, times included: where a file lies does not matter, when it changed does."""
    return shutil.copytree(begun, tmp_path / "copy")


DIFFERENT_OPTIONS = {
    "block": (["--block", "128"], ("parameters.block", "64", "128")),
    "tile": (["--tile", "32"], ("parameters.tile", "64", "32")),
    "tta": (["--tta", "flips"], ("parameters.tta", "'none'", "'flips'")),
    "precision": (["--precision", "bfloat16"], ("parameters.precision", "'float32'", "'bfloat16'")),
    "probabilities": (["--probabilities", "uint8"], ("parameters.probabilities", "'none'", "'uint8'")),
    "background": (["--skip-background"], ("parameters.skip_background", "False", "True")),
}


@pytest.mark.parametrize(("options", "says"), DIFFERENT_OPTIONS.values(), ids=DIFFERENT_OPTIONS)
def test_an_output_begun_with_other_parameters_is_refused_naming_both_values(options, says, copied, model):
    before = snapshot(copied)
    outcome = run_here(*begun_arguments(copied, model), *options)
    check_sentence(outcome, ("was begun by a run that differs", *says, "choose another output"))
    assert snapshot(copied) == before


def test_an_output_begun_with_another_model_is_refused(copied, tmp_path):
    other = write_model(tmp_path / "cells.safetensors", seed=1)
    before = snapshot(copied)
    check_sentence(run_here(*begun_arguments(copied, other)), ("was begun by a run that differs", "model.sha256"))
    assert snapshot(copied) == before


def change_a_pixel(slide: Path) -> None:
    zarr.open_array(slide, mode="r+")[3, 4] = 7


def delete_a_chunk(slide: Path) -> None:
    (slide / "c" / "1" / "1").unlink()


@pytest.mark.parametrize("change", [change_a_pixel, delete_a_chunk], ids=lambda change: change.__name__)
def test_an_output_whose_input_has_changed_is_refused(change, copied, model):
    change(copied / "slide.zarr")
    before = snapshot(copied)
    check_sentence(run_here(*begun_arguments(copied, model)), ("input.fingerprint: begun with", ", now "))
    assert snapshot(copied) == before


def test_times_of_files_are_no_identity(copied, model):
    os.utime(copied / "slide.zarr/c/0/1")
    outcome = run_here(*begun_arguments(copied, model))
    assert outcome.exit_code == 0, outcome


def test_an_output_of_another_input_is_refused(copied, model):
    shutil.rmtree(copied / "slide.zarr")
    write_array(copied / "slide.zarr", noise(100, 120))
    check_sentence(run_here(*begun_arguments(copied, model)), ("input.shape: begun with [100, 130], now [100, 120]",))


def test_a_moved_input_output_and_model_are_still_the_same(copied, model, tmp_path, warm):
    """Negative control: the copy lies elsewhere, its model too, and is accepted as finished."""
    moved = shutil.copy2(model, tmp_path / "moved.safetensors")
    outcome = run_here(*begun_arguments(copied, moved))
    assert outcome.exit_code == 0, outcome
    assert "Went on: 6 of 6 blocks were already done." in outcome.out


# -- what only looking at the pixels tells -----------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", ["constants", "mean-std", "percentiles"])
def test_a_value_that_is_not_finite_is_refused_with_its_place_and_nothing_is_created(value, kind, tmp_path, warm):
    pixels = noise(100, 130).astype(np.float32)
    pixels[70, 101] = value
    normalisation = CONSTANTS if kind == "constants" else type(CONSTANTS)(kind)
    model = write_model(tmp_path / "cells.safetensors", normalisation=normalisation)
    request = Request(tmp_path, model, input=write_array(tmp_path / "slide.zarr", pixels))
    request.output = tmp_path / "new" / "folders" / "out.ome.zarr"
    before = snapshot(tmp_path)
    check_sentence(run_here(*request.arguments()), ("not finite", str(value), "y=70, x=101", "Replace such values"))
    assert snapshot(tmp_path) == before


@pytest.mark.skipif(not can_mount(), reason="needs the right to mount a file system")
def test_a_read_only_place_is_refused(tmp_path, model):
    with mounted(tmp_path / "archive", "ro,size=64k") as archive:
        request = Request(tmp_path, model, output=archive / "out.ome.zarr")
        check_refused(request, lambda _: None, ("cannot be written", "Read-only file system"))


@pytest.mark.skipif(not can_mount(), reason="needs the right to mount a file system")
def test_writing_in_place_into_a_read_only_input_is_refused(tmp_path, model):
    with mounted(tmp_path / "archive", "size=1m") as archive:
        image = write_ome(archive / "image.zarr", noise(40, 50), "yx")
        remount(archive, "ro")
        request = Request(tmp_path, model, input=image, options=["--in-place"])
        check_refused(request, lambda _: None, ("cannot be written", "Read-only file system"))


def test_an_option_that_does_not_exist_is_refused(tmp_path, model):
    outcome = run_here(*Request(tmp_path, model).arguments(), "--colour", "red")
    assert outcome.exit_code == 2
    assert "No such option" in outcome.err


# -- helpers ---------------------------------------------------------------------------------------------------


def edit_attributes(group: Path, change: Callable[[dict], object]) -> None:
    content = json.loads((group / "zarr.json").read_text())
    change(content["attributes"])
    (group / "zarr.json").write_text(json.dumps(content))


def edit_ome(group: Path, change: Callable[[dict], object]) -> None:
    edit_attributes(group, lambda attributes: change(attributes["ome"]))
