"""`verify` names every file that was damaged, whatever the damage; what is sound it calls sound."""

import shutil

import numpy as np
import pytest

from segment_slide.pipeline.integrity.finding import Fault
from tests.flows.support import run_here, write_ome
from tests.integrity.support import DAMAGES, SEGMENTED, TRAINED, add, check, files_of, flip_bit, named
from tests.tiers import exhaustive

FLIPS = 300


def damage_all(folder, kinds, damage, seed=0):
    """Damage a file of each kind; returns the files that must be named."""
    chance, damaged = np.random.default_rng(seed), set()
    for pattern in kinds.values():
        files = [file for file in files_of(folder, pattern) if file not in damaged]
        damaged |= set(damage(files, chance))
    return damaged


def test_what_is_sound_is_called_sound(segmented):
    report = check(segmented)
    assert report.is_sound, report.findings
    assert not report.notes
    assert report.n_files > 40
    assert not report.n_unsealed


@pytest.mark.parametrize(
    "name", [name if name == "flipped" else pytest.param(name, marks=pytest.mark.slow) for name in DAMAGES]
)
def test_each_damage_of_a_segmentation_is_named(slide, name):
    kinds = {kind: pattern for kind, pattern in SEGMENTED.items() if kind != "manifest"}
    if name == "surplus":
        del kinds["metadata"]
    damaged = damage_all(slide, kinds, DAMAGES[name])
    assert len(damaged) >= len(kinds)
    assert damaged - named(check(slide)) == set()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["flipped", "truncated", "missing"])
def test_a_damaged_manifest_is_named(slide, name):
    for file in files_of(slide, SEGMENTED["manifest"]):
        DAMAGES[name]([file], np.random.default_rng(1))
        assert file in named(check(file.parents[1]))


@pytest.mark.slow
@pytest.mark.parametrize("name", DAMAGES)
def test_each_damage_of_training_data_is_named(trained, tmp_path, name):
    folder = shutil.copytree(trained, tmp_path / "data")
    no_such = {"surplus": ("training metadata", "model", "state"), "missing": ("model",)}  # nothing lists a model
    left_out = ("training manifest", *no_such.get(name, ()))
    kinds = {kind: pattern for kind, pattern in TRAINED.items() if kind not in left_out}
    damaged = damage_all(folder, kinds, DAMAGES[name])
    assert damaged - named(check(folder)) == set()


@pytest.mark.slow
def test_sound_training_data_are_called_sound(trained):
    report = check(trained)
    assert report.is_sound, report.findings
    assert all("not compared" in note.sentence for note in report.notes)  # the files that were converted into the set


@pytest.mark.parametrize("kind", [exhaustive(kind) for kind in SEGMENTED])
def test_all_flips_of_a_segmentation_are_named(slide, kind):
    check_flips(slide, SEGMENTED[kind])


@pytest.mark.parametrize("kind", [exhaustive(kind) for kind in TRAINED])
def test_all_flips_of_training_data_are_named(trained, tmp_path, kind):
    check_flips(shutil.copytree(trained, tmp_path / "data"), TRAINED[kind])


def check_flips(folder, pattern):
    """Flip one bit in some files at a time, and back again."""
    files, chance = files_of(folder, pattern), np.random.default_rng(0)
    n_done = 0
    while n_done < FLIPS:
        bits = {file: int(chance.integers(8 * file.stat().st_size)) for file in files[: FLIPS - n_done]}
        for file, bit in bits.items():
            flip_bit(file, bit)
        stores = {folder / file.relative_to(folder).parts[0] for file in bits}
        assert set(bits) - set().union(*(named(check(store)) for store in sorted(stores))) == set()
        for file, bit in bits.items():
            flip_bit(file, bit)
        n_done += len(bits)
    assert check(folder).is_sound


def test_one_broken_file_hides_no_other(slide):
    record = slide / "out.ome.zarr/labels/segmentation/zarr.json"
    record.write_text("{")
    shard = files_of(slide, SEGMENTED["labels"])[0]
    shard.write_bytes(b"")
    part = files_of(slide, SEGMENTED["table"])[0]
    flip_bit(part, 800)
    assert {record, shard, part} <= named(check(slide / "out.ome.zarr"))


def test_a_finding_says_what_made_the_file(slide):
    flip_bit(files_of(slide, SEGMENTED["ids"])[0], 80)
    (found, *_) = check(slide / "out.ome.zarr").findings
    assert (found.fault, found.made.stage, found.made.name) == (Fault.CHANGED, "instances", "segmentation")


def test_the_command_ends_with_3_and_names_the_file_and_the_command(slide):
    shard = files_of(slide, SEGMENTED["labels"])[0]
    flip_bit(shard, 80)
    told = run_here("verify", slide / "out.ome.zarr")
    assert told.exit_code == 3
    assert str(shard) in told.out
    assert f"segment-slide verify {slide / 'out.ome.zarr'} --repair" in told.out


def test_the_command_ends_with_0_for_what_is_sound(segmented):
    told = run_here("verify", segmented / "slide.ome.zarr")
    assert told.exit_code == 0
    assert "Sound" in told.out


@pytest.mark.parametrize("what", ["nothing", "file", "foreign"])
def test_what_is_not_ours_is_refused(tmp_path, what):
    path = tmp_path / what
    if what == "file":
        path.write_text("text")
    if what == "foreign":
        write_ome(path, np.zeros((8, 8), np.uint8), "yx")
    told = run_here("verify", path)
    assert told.exit_code == 2
    assert str(path) in told.err
    assert "Traceback" not in told.err


def test_nothing_is_changed(slide):
    from tests.flows.support import snapshot

    add(files_of(slide, SEGMENTED["ids"]), np.random.default_rng(0))
    before = snapshot(slide)
    check(slide)
    assert snapshot(slide) == before
