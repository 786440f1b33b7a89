"""`verify` on outputs that need a look of their own: nights, labels in place, unfinished runs, older versions."""

import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest

from segment_slide.pipeline.integrity.finding import Fault
from segment_slide.pipeline.integrity.levels import check_levels
from segment_slide.pipeline.integrity.pyramids import converted_pyramid
from segment_slide.pipeline.manifest.manifest import FOLDER
from segment_slide.pipeline.storage import store
from tests.flows.support import noise, run_here, write_model, write_ome
from tests.integrity.support import SEGMENTED, check, files_of, flip_bit, named, no_workers

pytestmark = pytest.mark.slow

OLD = Path(__file__).parents[1] / "previous_version" / "v0.1.0.tar.xz"


def without_manifests(folder):
    """As a version wrote it that had none."""
    for found in list(folder.glob(f"**/{FOLDER}")):
        shutil.rmtree(found)
    return folder


def test_without_a_manifest_a_sound_output_is_sound_and_it_is_said_what_is_not_known(slide):
    report = check(without_manifests(slide) / "out.ome.zarr")
    assert report.is_sound, report.findings
    (note,) = report.notes
    assert "decoded instead" in note.sentence
    assert report.n_unsealed == report.n_files


def test_without_a_manifest_damaged_files_are_found_by_their_content(slide):
    out = without_manifests(slide) / "out.ome.zarr"
    shard, part = files_of(slide, SEGMENTED["labels"])[0], files_of(slide, SEGMENTED["table"])[0]
    flip_bit(shard, 8 * 40)
    flip_bit(part, 8 * (part.stat().st_size - 20))
    lost = files_of(slide, SEGMENTED["ids"])[1]
    lost.unlink()
    assert {shard, part, lost} <= named(check(out))


@pytest.mark.parametrize("level", [0, 1])
def test_without_a_manifest_a_level_that_does_not_show_the_other_is_found(slide, level):
    image = without_manifests(slide) / "slide.ome.zarr"
    assert not list(check_levels(converted_pyramid(str(image))))
    store.open_array(str(image), str(level), writable=True)[..., :40, :40] = 7
    found = list(check_levels(converted_pyramid(str(image))))
    assert [finding.fault for finding in found] == [Fault.CONTRADICTION]
    assert found[0].key.startswith("1/c/")


def edit(file, change):
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


CONTRADICTIONS = {
    "shape": ("labels/segmentation/0/zarr.json", lambda c: c["shape"].__setitem__(1, 599)),
    "fill value": ("labels/segmentation/0/zarr.json", lambda c: c.update(fill_value=1)),
    "classes": (
        "labels/segmentation/zarr.json",
        lambda c: c["attributes"]["ome"]["image-label"]["properties"][1].update({"class": "x"}),
    ),
    "list": ("labels/zarr.json", lambda c: c["attributes"]["ome"].update(labels=["segmentation"])),
    "copy of the record": (
        "probability/segmentation/zarr.json",
        lambda c: c["attributes"]["segment_slide"]["model"].update(sha256="0" * 64),
    ),
    "objects": (
        "labels/segmentation-instances/zarr.json",
        lambda c: c["attributes"]["segment_slide"].update(n_objects=3),
    ),
    "rows": (
        "tables/zarr.json",
        lambda c: c["attributes"]["segment_slide"]["segmentation-instances"]["input"].update(n_objects=3),
    ),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_without_a_manifest_what_contradicts_the_records_is_found(slide, name):
    out = without_manifests(slide) / "out.ome.zarr"
    key, change = CONTRADICTIONS[name]
    edit(out / key, change)
    report = check(out)
    assert not report.is_sound
    assert Fault.CONTRADICTION in {finding.fault for finding in report.findings}


def test_ids_that_are_not_the_tables_are_found(slide):
    out = without_manifests(slide) / "out.ome.zarr"
    ids = store.open_array(str(out), "labels/segmentation-instances/0", writable=True)
    ids[...] = np.where(np.asarray(ids[...]) > 0, 1, 0)
    assert any("object" in finding.problem for finding in check(out).findings)


def test_another_input_is_found(slide):
    image = store.open_array(str(slide / "slide.ome.zarr"), "0", writable=True)
    image[..., :40, :40] = 7
    found = [finding for finding in check(slide / "out.ome.zarr").findings if finding.fault is Fault.INPUT]
    assert len(found) == 1
    assert str(slide / "slide.ome.zarr") in found[0].problem


def test_a_copy_of_an_output_without_its_input_is_sound(slide, tmp_path):
    copy = shutil.copytree(slide / "out.ome.zarr", tmp_path / "elsewhere" / "out.ome.zarr")
    report = check(copy)
    assert report.is_sound, report.findings
    assert any("not compared" in note.sentence for note in report.notes)


def test_labels_in_the_store_of_another_tool_are_verified_and_nothing_else(tmp_path):
    image = write_ome(tmp_path / "image.ome.zarr", noise(64, 96), "yx")
    model = write_model(tmp_path / "cells.safetensors")
    with no_workers():
        told = run_here("segment", image, "-m", model, "--in-place", "--block", 32, "--precision", "float32")
    assert told.exit_code == 0, told.err
    assert check(image).is_sound
    chunk = next(file for file in sorted((image / "0" / "c").rglob("*")) if file.is_file())
    chunk.write_bytes(b"no chunk")
    assert not {chunk} & named(check(image))
    shard = files_of(image, "labels/segmentation/0/c/**/*")[2]
    flip_bit(shard, 100)
    assert shard in named(check(image))


def test_an_unfinished_segmentation_is_not_sound_and_repair_completes_it(tmp_path):
    image = write_ome(tmp_path / "image.ome.zarr", noise(64, 96), "yx")
    model = write_model(tmp_path / "cells.safetensors")
    out = tmp_path / "out.ome.zarr"
    with no_workers():
        run_here("segment", image, "-m", model, "-o", out, "--block", 32, "--precision", "float32")
    shutil.rmtree(out / FOLDER)
    lost = files_of(out, "labels/segmentation/0/c/**/*")[:2]
    for file in lost:
        file.unlink()
    with no_workers():
        told = run_here("verify", out)
        assert told.exit_code == 3
        assert all(str(file) in told.out for file in lost)
        assert run_here("verify", out, "--repair").exit_code == 0
    assert check(out).is_sound


@pytest.fixture
def night(slide, tmp_path):
    """A folder of outputs, as a night leaves it."""
    from segment_slide.pipeline.nights import notes
    from segment_slide.pipeline.nights.notes import Done, write_begun, write_failure, write_question

    outputs = tmp_path / "outputs"
    folder = outputs / "cells-0123"
    out = shutil.copytree(slide / "out.ome.zarr", folder / "a.ome.zarr")
    record = json.loads((out / "labels/segmentation/zarr.json").read_text())["attributes"]["segment_slide"]
    ids = json.loads((out / "labels/segmentation-instances/zarr.json").read_text())["attributes"]["segment_slide"]
    done = Done("a", "f", 1, 1, record["model"]["sha256"], ids["n_objects"], 96 * 600, {"segment": 1.0}, "1")
    notes._write_json(str(out / notes.DONE_FILE), notes.write_section(done))
    write_begun(str(folder / "b.ome.zarr"), "f")
    write_failure(str(folder / "b.ome.zarr"), notes.Failure(1, "disk", "f", "0" * 64, "now"))
    write_question(str(folder / "c.ome.zarr"), "c", "which?")
    return outputs


def test_info_says_how_much_of_a_night_is_there(night):
    assert "not complete 1 of 2 outputs" in " ".join(run_here("info", night).out.split())


def test_a_night_is_sound(night):
    report = check(night)
    assert report.is_sound, report.findings
    assert len(report.contents) == 4


@pytest.mark.parametrize("pattern", ["*/*.json", "*/a.ome.zarr/segment-slide.done.json"])
def test_flips_in_notes_of_a_night_are_named(night, pattern):
    files, chance = sorted(night.glob(pattern)), np.random.default_rng(0)
    for _ in range(5):
        bits = {file: int(chance.integers(8 * file.stat().st_size)) for file in files}
        for file, bit in bits.items():
            flip_bit(file, bit)
        assert set(bits) - named(check(night)) == set()
        for file, bit in bits.items():
            flip_bit(file, bit)


def test_outputs_of_the_previous_version_are_verified_as_far_as_that_is_possible(tmp_path):
    with tarfile.open(OLD) as archive:
        archive.extractall(tmp_path, filter="data")
    report = check(tmp_path)
    assert report.contents
    unfinished = {"half", "begun", "killed"}
    wrong = [f for f in report.findings if not unfinished & set(Path(f.path).parts)]
    assert report.notes
    assert wrong == [], wrong
