"""What commands print: plans, what lies at a path, help; and the exit codes that belong to them."""

import re
import shutil
from pathlib import Path

import pytest
import zarr
from typer.main import get_command

from segment_slide.flows.commands import main
from segment_slide.unet.checkpoint import open_checkpoint
from tests.flows.support import noise, run_here, run_installed, shards, write_array, write_group, write_model, write_ome

COMMANDS = get_command(main.app).commands  # by name


@pytest.fixture(autouse=True)
def _wide(monkeypatch):
    """A terminal that wraps nothing."""
    monkeypatch.setenv("COLUMNS", "300")


def words(text: str) -> str:
    return " ".join(text.split())


# -- plan ------------------------------------------------------------------------------------------------------


def test_the_plan_of_a_huge_image_is_printed_without_reading_or_creating_anything(model, tmp_path):
    slide = tmp_path / "slide.zarr"
    zarr.create_array(slide, shape=(100_000, 100_000), chunks=(4096, 4096), dtype="uint8")
    before = sorted(tmp_path.rglob("*"))
    outcome = run_here("plan", slide, "-m", model, "--axes", "yx", "--block", 2048, "--tile", 512)
    assert outcome.exit_code == 0, outcome
    said = words(outcome.out)
    for text in (
        "100,000 x 100,000 px (yx), uint8, 1 channel(s)",
        "depth 1",
        "8 px per side; tiles start at multiples of 2 px",
        "tile 512 x 512 px",
        "2,048 x 2,048 px, one task and one file; 2,401 blocks",  # 49 x 49
        "scheduling 38.4 s of one core",
        "TFLOP",
        "GiB per worker",
    ):
        assert text in said
    assert sorted(tmp_path.rglob("*")) == before


def test_the_plan_and_the_run_agree_on_blocks_and_files(model, tmp_path, warm):
    slide = write_array(tmp_path / "slide.zarr", noise(544, 200))
    options = [slide, "-m", model, "--axes", "yx", "--block", 96, "--probabilities", "uint8"]
    planned = words(run_here("plan", *options).out)
    assert run_here("segment", *options, "-o", tmp_path / "out.ome.zarr").exit_code == 0
    files = [path for path in (tmp_path / "out.ome.zarr").rglob("*") if path.is_file()]
    assert "18 blocks" in planned
    assert f"files {len(files)}, at most" in planned


def test_a_plan_needs_a_model(tmp_path):
    outcome = run_here("plan", write_array(tmp_path / "slide.zarr", noise(40, 50)))
    assert outcome.exit_code == 2
    assert "Missing option '--model'" in outcome.err


# -- info ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def segmented(tmp_path_factory, model, workers) -> Path:
    folder = tmp_path_factory.mktemp("segmented")
    write_ome(folder / "image.zarr", noise(100, 130), "yx", scale=(0.5, 0.25), n_levels=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("segment_slide.flows.segment.open_cluster", workers)
        outcome = run_here(
            "segment",
            folder / "image.zarr",
            "-m",
            model,
            "-o",
            folder / "out.ome.zarr",
            "--block",
            64,
            "--name",
            "cells",
        )
    assert outcome.exit_code == 0, outcome
    return folder


def info(path: Path) -> str:
    outcome = run_here("info", path)
    assert outcome.exit_code == 0, outcome
    assert outcome.err == ""
    return words(outcome.out)


def test_info_tells_an_images_shape_levels_and_pixel_size(segmented):
    said = info(segmented / "image.zarr")
    for text in ("100 x 130 (yx), uint8", "levels 2", "y 0.5 micrometer, x 0.25 micrometer", "OME-Zarr, Zarr format 3"):
        assert text in said


def test_info_tells_an_images_channels(tmp_path):
    image = write_ome(tmp_path / "image.zarr", noise(2, 40, 50), "cyx", channels=["DAPI", "[red]GFP"])
    assert "channels DAPI, [red]GFP" in info(image)  # names are text, not markup


def test_info_describes_a_bare_array(tmp_path):
    said = info(write_array(tmp_path / "slide.zarr", noise(3, 40, 50)))
    assert "3 x 40 x 50 (zyx), uint8" in said
    assert "bare Zarr array, Zarr format 3" in said


def test_info_tells_of_a_segmentation_what_made_it_and_that_it_is_complete(segmented, model):
    said = info(segmented / "out.ome.zarr")
    for text in (
        "Labels cells",
        "blocks 6 of 6 done input",  # and nothing of going on
        f"{segmented / 'image.zarr'} level 0",
        f"{model.name} (sha256 {open_checkpoint(model).sha256[:12]}",
        "block 64",
        "segment-slide",
    ):
        assert text in said


def test_info_tells_how_far_a_partial_segmentation_is(segmented, tmp_path):
    output = shutil.copytree(segmented / "out.ome.zarr", tmp_path / "out.ome.zarr")
    for index in ((0, 1), (1, 2)):
        shards(output / "labels/cells/0")[index].unlink()
    assert "blocks 4 of 6 done; run the same command again to go on" in info(output)


def test_info_shows_labels_of_somebody_else_without_a_record(tmp_path):
    image = write_ome(tmp_path / "image.zarr", noise(40, 50), "yx")
    write_group(image / "labels", {"ome": {"version": "0.5", "labels": ["theirs"]}})
    write_ome(image / "labels" / "theirs", noise(40, 50), "yx")
    said = info(image)
    assert "Labels theirs shape 40 x 50 (yx), uint8" in said
    assert "blocks" not in said


def test_info_describes_a_checkpoint(tmp_path):
    model = write_model(tmp_path / "cells.safetensors", n_classes=3, pixel_size_um=(0.5, 0.25), training={"steps": 7})
    said = info(model)
    for text in (
        "U-Net 2D, depth 1, base 2",
        "0 background, 1 class 1, 2 class 2",
        "constants (100.0,) (50.0,)",
        "0.5 x 0.25 um",
        open_checkpoint(model).sha256,
        "training steps 7",
    ):
        assert text in said


def nothing(folder: Path) -> Path:
    return folder / "nowhere"


def photos(folder: Path) -> Path:
    (folder / "photos").mkdir()
    (folder / "photos" / "holiday.jpg").write_bytes(b"\xff\xd8")
    return folder / "photos"


def text_file(folder: Path) -> Path:
    (folder / "notes.txt").write_text("notes")
    return folder / "notes.txt"


def group_cut_off(folder: Path) -> Path:
    image = write_ome(folder / "image.zarr", noise(40, 50), "yx")
    (image / "zarr.json").write_text('{"zarr_format": 3')
    return image


def row_of_numbers(folder: Path) -> Path:
    zarr.create_array(folder / "row.zarr", shape=(5,), chunks=(5,), dtype="uint8")
    return folder / "row.zarr"


@pytest.mark.parametrize(
    "make",
    [nothing, photos, text_file, group_cut_off, row_of_numbers],
    ids=lambda make: make.__name__,
)
def test_info_on_nonsense_is_refused_with_a_sentence_that_names_it(make, tmp_path):
    path = make(tmp_path)
    outcome = run_here("info", path)
    assert outcome.exit_code == 2, outcome
    assert outcome.err.startswith("Error: ")
    assert "Traceback" not in outcome.err
    assert str(path) in outcome.err


# -- help ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name, command in COMMANDS.items() if not hasattr(command, "commands")])
def test_the_help_of_a_command_mentions_every_option_and_argument(name):
    outcome = run_here(name, "--help")
    assert outcome.exit_code == 0, outcome
    said = re.sub(r"\s+", " ", outcome.out)
    for parameter in COMMANDS[name].params:
        assert parameter.help, parameter.name
        assert parameter.help.split(".")[0][:30] in said
        is_option = parameter.param_type_name == "option"
        for flag in parameter.opts if is_option else [parameter.metavar]:
            assert flag in said


def test_help_lists_all_commands_and_no_command_shows_it_too():
    said = run_here("--help")
    assert said.exit_code == 0
    assert len(COMMANDS) > 10
    for name in COMMANDS:
        assert name in said.out
    bare = run_here()
    assert bare.exit_code == 2
    assert "Usage:" in bare.out + bare.err


def test_a_command_that_does_not_exist_is_refused():
    outcome = run_here("paint")
    assert outcome.exit_code == 2
    assert "No such command 'paint'" in outcome.err


def test_help_is_quick_because_nothing_heavy_is_imported():
    """torch alone takes seconds."""
    outcome = run_installed("--help", PYTHONPROFILEIMPORTTIME="1")
    assert outcome.exit_code == 0
    imported = {line.rsplit("|", 1)[-1].strip() for line in outcome.err.splitlines() if line.startswith("import time:")}
    assert "segment_slide.flows.commands.main" in imported
    assert not imported & {
        "numpy",
        "zarr",
        "torch",
        "distributed",
        "dask.array",
        "scipy",
        "skimage",
        "prefect",
        "ome_zarr",
    }
