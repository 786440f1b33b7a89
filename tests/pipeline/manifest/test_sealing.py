"""A stage takes its files out of the manifest, and puts them back at the end; damaged files are made again."""

import contextlib
import logging
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from segment_slide.pipeline.blocks.array_spec import ArraySpec
from segment_slide.pipeline.blocks.progress import QuietStages
from segment_slide.pipeline.errors import IncompleteError
from segment_slide.pipeline.manifest.compare import compare_files, find_manifests, is_intact
from segment_slide.pipeline.manifest.homes import Made, is_sealed
from segment_slide.pipeline.manifest.manifest import FILE, read_manifest
from segment_slide.pipeline.manifest.sealing import begin_sealing, seal, sealing
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.record import ATTRIBUTE
from segment_slide.pipeline.zarr_stores.written import NOTES_NAME, read_notes

SPEC = ArraySpec("0", (8, 8), (4, 4), (2, 2), "uint8", "yx")
GROUP = "labels/a"
QUIET = QuietStages()


class Killed(BaseException):
    """Stands for a signal."""


def begin(location: str, group: str = GROUP, *, mark: bool = True) -> None:
    store.create_group(location, "", [], {ATTRIBUTE: {}} if mark else {"of": "others"})
    store.create_group(location, group, [SPEC], {ATTRIBUTE: {}})


def write(location: str, group: str = GROUP, stop: int = 4) -> list[int]:
    """Write shards that are missing; each has other pixels, compressed to the same size."""
    done = store.stored_shards(location, f"{group}/0")
    made = []
    for index in range(stop):
        y, x = divmod(index, 2)
        if (y, x) not in done:
            values = np.full((4, 4), index + 1, np.uint8)
            array = store.open_array(location, f"{group}/0", writable=True)
            store.write_box(array, (slice(4 * y, 4 * y + 4), slice(4 * x, 4 * x + 4)), values)
            made.append(index)
    return made


def shard(location: str, index: int) -> Path:
    return Path(location, GROUP, "0", "c", *map(str, divmod(index, 2)))


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return Made(str(tmp_path / "out"), (GROUP,), ("zarr.json", "labels/zarr.json"))


@pytest.fixture
def sealed(made: Made) -> Made:
    with sealing(made, None, QUIET):
        begin(made.location)
        write(made.location)
    return made


def test_the_manifest_lists_every_file_and_nothing_else_is_left(sealed: Made) -> None:
    location = Path(sealed.location)
    manifest = read_manifest(sealed.location)
    assert manifest is not None
    files = {path.relative_to(location).as_posix() for path in location.rglob("*") if path.is_file()}
    assert set(manifest.files) == files - {FILE}
    assert is_sealed(sealed.location, GROUP)
    assert not is_sealed(sealed.location, "labels/b")
    assert is_intact(sealed.location, sealed.folders, sealed.files)
    assert not compare_files(sealed.location, manifest)
    assert not (location / NOTES_NAME).exists()


def test_equal_runs_have_equal_manifests_interrupted_or_not(sealed: Made, tmp_path: Path) -> None:
    other = Made(str(tmp_path / "other"), sealed.folders, sealed.files)
    with contextlib.suppress(Killed), sealing(other, None, QUIET):
        begin(other.location)
        write(other.location, stop=2)
        raise Killed
    assert not is_sealed(other.location, GROUP)
    assert len(read_notes(Path(other.location))) >= 2
    with sealing(other, None, QUIET):
        assert write(other.location) == [2, 3]
    read = [Path(made.location, FILE).read_bytes() for made in (sealed, other)]
    assert read[0] == read[1]


def test_while_a_stage_works_its_files_are_in_no_manifest(sealed: Made) -> None:
    with contextlib.suppress(Killed), sealing(sealed, None, QUIET):
        assert not is_sealed(sealed.location, GROUP)
        raise Killed
    assert not is_sealed(sealed.location, GROUP)
    assert is_intact(sealed.location, sealed.folders)  # nothing was changed
    shard(sealed.location, 0).unlink()
    with contextlib.suppress(Killed), sealing(sealed, None, QUIET):
        raise Killed
    assert not is_intact(sealed.location, sealed.folders)


def damage(what: str, location: str) -> None:
    first, second = shard(location, 0), shard(location, 1)
    content = first.read_bytes()
    match what:
        case "flipped":
            first.write_bytes(content[:5] + bytes([content[5] ^ 4]) + content[6:])
        case "truncated":
            os.truncate(first, len(content) // 2)
        case "empty":
            os.truncate(first, 0)
        case "swapped":
            assert len(second.read_bytes()) == len(content)
            first.write_bytes(second.read_bytes())
            second.write_bytes(content)
        case "copied":
            shutil.copyfile(first, second)


@pytest.mark.parametrize(
    ("what", "again"),
    [("flipped", [0]), ("truncated", [0]), ("empty", [0]), ("swapped", [0, 1]), ("copied", [1]), ("nothing", [])],
)
@pytest.mark.parametrize("is_finished", [True, False])
def test_damaged_shards_are_made_again_byte_for_byte(
    what: str, again: list[int], is_finished: bool, sealed: Made, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    before = {path: path.read_bytes() for path in Path(sealed.location).rglob("*") if path.is_file()}
    if not is_finished:  # killed after all was written: only the notes know the checksums
        with contextlib.suppress(Killed), sealing(sealed, None, QUIET):
            raise Killed
    damage(what, sealed.location)
    with sealing(sealed, None, QUIET):
        assert write(sealed.location) == again
    assert {path: path.read_bytes() for path in Path(sealed.location).rglob("*") if path.is_file()} == before
    assert len(caplog.messages) == len(again)
    assert all("is damaged" in text and "made again" in text and "block (0, " in text for text in caplog.messages)


def test_shards_that_no_note_knows_are_decoded(sealed: Made, caplog: pytest.LogCaptureFixture) -> None:
    """As after a kill of an older version; a swap cannot be told then, a flip can."""
    shutil.rmtree(Path(sealed.location, "_manifest"))
    damage("flipped", sealed.location)
    with sealing(sealed, None, QUIET):
        assert write(sealed.location) == [0]
    assert "0/c/0/0, block (0, 0) is damaged (RuntimeError: " in caplog.text
    assert is_sealed(sealed.location, GROUP)


def test_lost_notes_only_cost_a_second_reading(made: Made, sealed: Made, tmp_path: Path) -> None:
    other = Made(str(tmp_path / "other"), sealed.folders, sealed.files)
    kept = begin_sealing(other, None, QUIET)
    begin(other.location)
    write(other.location)
    for file in Path(other.location, NOTES_NAME).iterdir():
        file.write_bytes(file.read_bytes()[:-90])
    seal(other, None, QUIET, kept)
    assert Path(other.location, FILE).read_bytes() == Path(sealed.location, FILE).read_bytes()


def test_a_shard_that_is_cut_off_after_it_was_written_is_not_sealed(made: Made) -> None:
    kept = begin_sealing(made, None, QUIET)
    begin(made.location)
    write(made.location)
    damage("truncated", made.location)
    with pytest.raises(IncompleteError, match="is not as it was written"):
        seal(made, None, QUIET, kept)
    with sealing(made, None, QUIET):
        assert write(made.location) == [0]
    assert is_intact(made.location, made.folders)


def test_in_a_store_of_another_tool_each_folder_of_ours_has_its_own_manifest(tmp_path: Path) -> None:
    location = str(tmp_path)
    begin(location, mark=False)
    made = Made(location, (GROUP, "labels/b"), ("zarr.json", "labels/zarr.json", f"{GROUP}/zarr.json"))
    with sealing(made, None, QUIET):
        begin(location, "labels/b", mark=False)
        write(location)
        write(location, "labels/b")
    assert not (tmp_path / "_manifest").exists()
    assert is_sealed(location, GROUP)
    found = find_manifests(location)
    assert list(found) == [GROUP, "labels/b"]
    assert "0/c/1/1" in found[GROUP].files
    assert not compare_files(str(tmp_path / GROUP), found[GROUP])


def test_another_stage_s_files_stay_in_the_manifest_and_its_notes_are_kept(sealed: Made) -> None:
    other = Made(sealed.location, ("labels/b",), ("zarr.json",))
    with contextlib.suppress(Killed), sealing(other, None, QUIET):
        begin(other.location, "labels/b")
        write(other.location, "labels/b", 2)
        raise Killed
    assert is_sealed(sealed.location, GROUP)
    noted = len(read_notes(Path(other.location)))
    assert noted
    with sealing(Made(sealed.location, (GROUP,)), None, QUIET):
        pass
    assert is_sealed(sealed.location, GROUP)
    left = read_notes(Path(other.location))
    assert {key for key in left if "/c/" in key} == {"labels/b/0/c/0/0", "labels/b/0/c/0/1"}
    with sealing(other, None, QUIET):
        assert write(other.location, "labels/b") == [2, 3]
    assert is_intact(other.location, (GROUP, "labels/b"), ("zarr.json",))


def test_a_run_that_makes_nothing_leaves_nothing(tmp_path: Path) -> None:
    with contextlib.suppress(Killed), sealing(Made(str(tmp_path), (GROUP,)), None, QUIET):
        raise Killed
    assert not list(tmp_path.iterdir())


def test_a_damaged_manifest_is_said_and_all_files_are_read(sealed: Made, caplog: pytest.LogCaptureFixture) -> None:
    file = Path(sealed.location, FILE)
    content = file.read_bytes()
    file.write_bytes(content.replace(b'"size"', b'"sise"').replace(b"[1", b"[2"))
    with sealing(sealed, None, QUIET):
        assert write(sealed.location) == []
    assert "is damaged or not a manifest" in caplog.text
    assert file.read_bytes() == content


@pytest.mark.parametrize("kind", ["missing", "surplus", "changed"])
def test_the_comparison_names_each_difference(kind: str, sealed: Made) -> None:
    manifest = read_manifest(sealed.location)
    assert manifest is not None
    target = shard(sealed.location, 3)
    if kind == "missing":
        target.unlink()
    elif kind == "surplus":
        target = target.with_name("7")
        target.write_bytes(b"x")
    else:
        damage("flipped", sealed.location)
        target = shard(sealed.location, 0)
    found = compare_files(sealed.location, manifest)
    assert [(one.key, one.kind) for one in found] == [(target.relative_to(sealed.location).as_posix(), kind)]


def test_an_object_store_is_read_once_at_the_end() -> None:
    import fsspec

    made = Made("memory://sealed", (GROUP,), ("zarr.json", "labels/zarr.json"))
    try:
        with sealing(made, None, QUIET):
            begin(made.location)
            write(made.location, stop=2)
        assert is_sealed(made.location, GROUP)
        with sealing(made, None, QUIET):
            assert write(made.location) == [2, 3]
        assert is_intact(made.location, made.folders, made.files)
    finally:
        fsspec.filesystem("memory").rm("/sealed", recursive=True)
