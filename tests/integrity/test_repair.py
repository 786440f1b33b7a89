"""`verify --repair` makes again what is broken: afterwards, all files are equal byte for byte to the undamaged ones."""

import shutil

import numpy as np
import pytest

from segment_slide.flows.integrity.options import VerifyRequest
from segment_slide.flows.integrity.verify import verify_stored
from tests.flows.support import run_here, tree, write_model
from tests.integrity.support import DAMAGES, SEGMENTED, check, files_of, flip_bit, no_workers
from tests.tiers import exhaustive

pytestmark = pytest.mark.slow

DATA = {kind: pattern for kind, pattern in SEGMENTED.items() if kind not in ("metadata", "manifest")}


def repair(path, **chosen):
    with no_workers():
        return verify_stored(VerifyRequest(str(path), repair=True, **chosen))


@pytest.fixture
def in_place(segmented):
    """The outputs themselves, where their records say that their inputs are; put back afterwards."""
    kept = segmented.with_name(f"{segmented.name}.kept")
    shutil.copytree(segmented, kept, copy_function=shutil.copy2)
    yield segmented
    for file in kept.rglob("*"):
        if file.is_file():
            there = segmented / file.relative_to(kept)
            if not there.exists() or there.read_bytes() != file.read_bytes():
                shutil.copy2(file, there)
    shutil.rmtree(kept)


def test_one_damaged_file_of_every_kind_is_made_again(in_place):
    before = tree(in_place)
    chance = np.random.default_rng(3)
    for number, pattern in enumerate(DATA.values()):
        damage = [DAMAGES["flipped"], DAMAGES["truncated"], DAMAGES["missing"]][number % 3]
        damage(files_of(in_place, pattern), chance)
    verified = repair(in_place)
    assert verified.report.is_sound, (verified.report.findings, verified.refused)
    assert len(verified.before.findings) >= len(DATA)
    assert tree(in_place) == before


@pytest.mark.parametrize("name", DAMAGES)
@pytest.mark.parametrize("kind", DATA)
def test_each_damage_of_each_kind_is_made_again(in_place, kind, name):
    before = tree(in_place)
    DAMAGES[name](files_of(in_place, DATA[kind]), np.random.default_rng(3))
    verified = repair(in_place)
    assert verified.report.is_sound, (verified.report.findings, verified.refused)
    assert tree(in_place) == before


def test_metadata_with_one_flipped_bit_are_made_again(in_place):
    before = tree(in_place)
    for file in files_of(in_place, SEGMENTED["metadata"]):
        flip_bit(file, 8 * (file.stat().st_size // 2) + 1)
    verified = repair(in_place)
    assert verified.report.is_sound, (verified.report.findings, verified.refused)
    assert tree(in_place) == before


LOST = [
    "out.ome.zarr/zarr.json",
    "out.ome.zarr/labels/zarr.json",
    "out.ome.zarr/probability/zarr.json",
    "out.ome.zarr/labels/segmentation/zarr.json",
    "out.ome.zarr/probability/segmentation/zarr.json",
    "out.ome.zarr/labels/segmentation/0/zarr.json",
    "out.ome.zarr/labels/segmentation-instances/1/zarr.json",
    "out.ome.zarr/probability/segmentation/1/zarr.json",
    "slide.ome.zarr/1/zarr.json",
    "slide.ome.zarr/0/zarr.json",
    "out.ome.zarr/_manifest/zarr.json",
]


@pytest.mark.parametrize("file", [*LOST[:6], *map(exhaustive, LOST[6:])])
def test_metadata_that_are_lost_are_made_again(in_place, file):
    before = tree(in_place)
    (in_place / file).unlink()
    verified = repair(in_place / file.split("/")[0])
    assert verified.report.is_sound, (verified.report.findings, verified.refused)
    assert tree(in_place) == before


@pytest.mark.parametrize("at", [0.02, exhaustive(0.3), 0.6, exhaustive(0.9), 0.995])
def test_a_manifest_with_a_flipped_bit_is_made_again(in_place, at):
    before = tree(in_place)
    file = in_place / "out.ome.zarr/_manifest/files.json"
    flip_bit(file, int(8 * file.stat().st_size * at))
    assert not check(in_place / "out.ome.zarr").is_sound
    verified = repair(in_place / "out.ome.zarr")
    assert verified.report.is_sound, (verified.report.findings, verified.refused)
    assert tree(in_place) == before


def test_a_manifest_and_a_file_with_a_flipped_bit_each_are_made_again(in_place):
    before = tree(in_place)
    file = in_place / "out.ome.zarr/_manifest/files.json"
    flip_bit(file, 8 * file.stat().st_size // 2)
    flip_bit(files_of(in_place, SEGMENTED["labels"])[0], 100)
    verified = repair(in_place / "out.ome.zarr")
    assert verified.report.is_sound, (verified.report.findings, verified.refused)
    assert tree(in_place) == before


def test_nothing_is_believed_where_the_manifest_cannot_be_told(in_place):
    file = in_place / "out.ome.zarr/_manifest/files.json"
    file.write_bytes(file.read_bytes()[:-500])
    flip_bit(files_of(in_place, SEGMENTED["labels"])[0], 100)
    before = tree(in_place)
    verified = repair(in_place / "out.ome.zarr")
    assert not verified.report.is_sound
    assert tree(in_place) == before


@pytest.mark.parametrize("what", ["model gone", "model changed", "input gone"])
def test_nothing_is_deleted_where_input_or_model_are_not_what_they_were(in_place, what):
    shard = files_of(in_place, SEGMENTED["labels"])[0]
    model, image = in_place / "cells.safetensors", in_place / "slide.ome.zarr"
    flip_bit(shard, 100)
    aside = in_place.parent / "aside"
    moved = image if what == "input gone" else model
    shutil.move(moved, aside)
    if what == "model changed":
        write_model(model, seed=1)
    before = tree(in_place)
    try:
        verified = repair(in_place / "out.ome.zarr")
        assert not verified.report.is_sound
        assert tree(in_place) == before
        assert any("segmentation" in what for what in verified.refused)
    finally:
        if moved.exists():
            moved.unlink()
        shutil.move(aside, moved)


def test_the_model_may_be_named(in_place):
    before = tree(in_place / "out.ome.zarr")
    flip_bit(files_of(in_place, SEGMENTED["labels"])[1], 100)
    moved = shutil.move(in_place / "cells.safetensors", in_place / "elsewhere.safetensors")
    try:
        verified = repair(in_place / "out.ome.zarr", model=str(moved))
        assert verified.report.is_sound, verified.refused
        assert tree(in_place / "out.ome.zarr") == before
    finally:
        shutil.move(moved, in_place / "cells.safetensors")


def test_a_foreign_file_is_named_and_kept(in_place):
    foreign = in_place / "out.ome.zarr/labels/segmentation/notes.txt"
    foreign.write_text("mine")
    try:
        verified = repair(in_place / "out.ome.zarr")
        assert [finding.fault for finding in verified.report.findings] == ["surplus"]
        assert foreign.read_text() == "mine"
    finally:
        foreign.unlink()


def test_the_command_says_what_it_repaired(in_place):
    flip_bit(files_of(in_place, SEGMENTED["coarser ids"])[0], 100)
    with no_workers():
        told = run_here("verify", in_place / "out.ome.zarr", "--repair")
    assert told.exit_code == 0, told.err
    assert "Repaired: 1 of 1" in told.out
