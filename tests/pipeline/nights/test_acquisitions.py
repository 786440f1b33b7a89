"""What is found in a watched folder, when it is complete, and what tells a changed acquisition: real files."""

import os
import time
from dataclasses import replace
from pathlib import Path

import fsspec
import numpy as np
import pytest
import tifffile

import segment_slide.pipeline.nights.acquisitions
import segment_slide.pipeline.nights.watched_files
from segment_slide.pipeline.errors import InputError
from segment_slide.pipeline.nights.acquisitions import (
    Acquisition,
    find_acquisitions,
    marker_path,
    read_again,
    why_incomplete,
)
from segment_slide.pipeline.storage.lock import LOCK_NAME
from tests.flows.support import noise, write_array, write_group, write_ome, write_segmentation

HOUR_S = 3600


def write_tiff(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, noise(20, 24, seed=seed))
    return path


def names(watch: object, *patterns: str, skip: tuple[str, ...] = ()) -> list[str]:
    return [acquisition.name for acquisition in find_acquisitions(str(watch), patterns, skip)]


def only(watch: object) -> Acquisition:
    (acquisition,) = find_acquisitions(str(watch))
    return acquisition


# -- what is one ---------------------------------------------------------------------------------------------------


def test_images_of_all_depths_are_found_by_name_and_nothing_else(tmp_path):
    write_ome(tmp_path / "b.ome.zarr", noise(40, 40), "yx", n_levels=2)
    write_array(tmp_path / "a/without suffix", noise(10, 10))
    for name in ("slide.svs", "deep/er/SLIDE.NDPI", "c.OME.tiff", "page.png", "z.zarr/0/inside.tif"):
        write_tiff(tmp_path / name)
    for name in (
        "notes.txt",
        "thumb.jpg",
        ".hidden.tif",
        ".snapshot/old.tif",
        "x.tif.partial",
        LOCK_NAME,
        "noextension",
    ):
        write_tiff(tmp_path / name)
    (tmp_path / "empty.zarr").mkdir()
    expected = ["a/without suffix", "b.ome.zarr", "c.OME.tiff", "deep/er/SLIDE.NDPI", "page.png", "slide.svs", "z.zarr"]
    assert names(tmp_path) == expected
    found = {a.name: a for a in find_acquisitions(str(tmp_path))}
    assert [name for name, a in found.items() if a.is_zarr] == ["a/without suffix", "b.ome.zarr", "z.zarr"]
    zarr = found["b.ome.zarr"]
    files = [path for path in (tmp_path / "b.ome.zarr").rglob("*") if path.is_file()]
    assert (zarr.n_files, zarr.size_bytes) == (len(files), sum(path.stat().st_size for path in files))
    assert zarr.path == str(tmp_path / "b.ome.zarr")


def test_a_store_whose_metadata_come_last_is_one_acquisition_and_not_its_arrays(tmp_path):
    write_array(tmp_path / "slide.ome.zarr/0", noise(10, 10))
    write_array(tmp_path / "slide.ome.zarr/1", noise(5, 5))
    assert names(tmp_path) == ["slide.ome.zarr"]


def test_patterns_choose_by_the_relative_name(tmp_path):
    for name in ("a/x.svs", "b/x.svs", "b/y.tif"):
        write_tiff(tmp_path / name)
    assert names(tmp_path, "*.svs") == ["a/x.svs", "b/x.svs"]
    assert names(tmp_path, "b/*") == ["b/x.svs", "b/y.tif"]
    assert names(tmp_path, "a/*", "*.tif") == ["a/x.svs", "b/y.tif"]
    assert names(tmp_path, "*.SVS") == []


def test_what_this_package_made_of_an_image_is_no_acquisition_but_a_converted_image_is(tmp_path):
    write_segmentation(tmp_path / "out.ome.zarr", np.ones((20, 20), np.uint8))
    write_group(tmp_path / "samples.zarr", {"segment_slide": {"kind": "samples"}})
    write_group(tmp_path / "converted.zarr", {"segment_slide": {"ingested_from": {}}})
    assert names(tmp_path) == ["converted.zarr"]


def test_damaged_metadata_are_left_to_whoever_reads_the_image(tmp_path):
    write_ome(tmp_path / "a.zarr", noise(10, 10), "yx")
    (tmp_path / "a.zarr/zarr.json").write_text("{")
    assert names(tmp_path) == ["a.zarr"]


def test_links_that_lead_in_circles_end_and_each_folder_is_read_once_under_its_own_name(tmp_path):
    write_tiff(tmp_path / "m/slide.svs")
    (tmp_path / "m/up").symlink_to(tmp_path)
    (tmp_path / "m/self").symlink_to(tmp_path / "m")
    (tmp_path / "a").symlink_to(tmp_path / "m")
    (tmp_path / "nowhere.tif").symlink_to(tmp_path / "gone.tif")
    elsewhere = write_tiff(tmp_path.with_name("elsewhere") / "other.svs").parent
    (tmp_path / "linked").symlink_to(elsewhere)
    write_ome(tmp_path / "z.zarr", noise(10, 10), "yx")
    (tmp_path / "z.zarr/loop").symlink_to(tmp_path / "z.zarr")
    assert names(tmp_path) == ["linked/other.svs", "m/slide.svs", "z.zarr"]
    assert all(read_again(a) == a for a in find_acquisitions(str(tmp_path)))


def test_two_stores_that_share_a_linked_folder_both_have_its_files(tmp_path):
    chunks = write_array(tmp_path.with_name("chunks"), noise(10, 10))
    for name in ("a.zarr", "b.zarr"):
        write_group(tmp_path / name, {})
        (tmp_path / name / "0").symlink_to(chunks)
    first, second = find_acquisitions(str(tmp_path))
    assert first.n_files == second.n_files > 1
    assert (read_again(first), read_again(second)) == (first, second)


def test_hidden_folders_are_not_even_listed(tmp_path, monkeypatch):
    """A file server keeps its whole past in one."""
    write_tiff(tmp_path / ".snapshot/old.tif")
    write_tiff(tmp_path / "b.tif")
    listed, scandir = [], os.scandir
    monkeypatch.setattr(
        segment_slide.pipeline.nights.watched_files.os,
        "scandir",
        lambda path: listed.append(str(path)) or scandir(path),
    )
    assert names(tmp_path) == ["b.tif"]
    assert [path.rstrip("/") for path in listed] == [str(tmp_path)]


def test_skipped_folders_are_not_looked_into_whatever_they_are_called(tmp_path):
    write_tiff(tmp_path / "out/images/slide.tif")
    write_tiff(tmp_path / "slide.svs")
    (tmp_path / "link").symlink_to(tmp_path / "out")
    assert names(tmp_path) == ["out/images/slide.tif", "slide.svs"]
    assert names(tmp_path, skip=(str(tmp_path / "out"),)) == ["slide.svs"]


def test_a_folder_that_cannot_be_listed_is_left_out_with_a_warning(tmp_path, monkeypatch, caplog):
    """Tests may run as root, who may read everything."""
    write_tiff(tmp_path / "locked/a.tif")
    write_tiff(tmp_path / "b.tif")
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(segment_slide.pipeline.nights.watched_files.os, "scandir", refuse)
    assert names(tmp_path) == ["b.tif"]
    assert "locked cannot be listed and is left out" in caplog.text


@pytest.mark.parametrize("kind", ["missing", "file", "image"])
def test_a_folder_that_is_none_is_refused(tmp_path, kind):
    path = tmp_path / kind
    if kind == "file":
        path.write_bytes(b"")
    if kind == "image":
        write_ome(path, noise(10, 10), "yx")
    with pytest.raises(InputError, match="is an image itself" if kind == "image" else "no such folder"):
        find_acquisitions(str(path))


# -- what tells a changed one --------------------------------------------------------------------------------------


def test_the_fingerprint_tells_content_apart_and_not_when_it_was_looked_at(tmp_path):
    path = write_tiff(tmp_path / "a.tif")
    first = only(tmp_path)
    assert read_again(first) == first
    time.sleep(0.05)  # file systems take their time from a clock that ticks every few milliseconds
    os.chmod(path, 0o600)  # moves ctime alone
    assert only(tmp_path).fingerprint == first.fingerprint  # it is read here, and kept
    assert only(tmp_path).changed_s > first.changed_s

    status = path.stat()
    with path.open("ab") as file:
        file.write(b"x")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    longer = read_again(first)
    assert longer.fingerprint != first.fingerprint
    assert not longer.is_still(first)
    os.utime(path, ns=(0, 0))
    assert only(tmp_path).fingerprint == longer.fingerprint  # a copy is the same content
    assert only(tmp_path).times != longer.times
    assert only(tmp_path).is_still(longer)
    assert only(tmp_path).is_as(longer.fingerprint)
    assert not only(tmp_path).is_as(longer.times)  # what earlier versions noted
    assert not only(tmp_path).is_still(replace(longer))  # whose content nobody has read: it may be growing
    assert only(tmp_path).changed_s > time.time() - HOUR_S  # a time that was set back does not make it look stable
    path.unlink()
    assert read_again(first) is None


def test_a_file_added_to_a_store_changes_it_and_a_lock_or_an_unfinished_file_does_not(tmp_path):
    store = write_ome(tmp_path / "a.zarr", noise(10, 10), "yx")
    first = only(tmp_path)
    (store / LOCK_NAME).touch()
    (store / f"0/zarr.json.{'0' * 32}.partial").touch()
    assert read_again(first) == first == only(tmp_path)
    (store / ".hidden").mkdir()
    (store / ".hidden/chunk").touch()
    assert read_again(first) == only(tmp_path) != first


def test_files_of_one_store_are_held_at_a_time(tmp_path, monkeypatch):
    """Counted where files are listed: a store's files are asked for when all stores but the one before are hashed."""
    for name in ("a.zarr", "b/c.zarr", "d.zarr"):
        write_ome(tmp_path / name, noise(10, 10), "yx")
    write_tiff(tmp_path / "b/e.tif")
    made, list_files = list[str](), segment_slide.pipeline.nights.acquisitions.list_files
    begun = list[tuple[str, int]]()

    def listed(*args, **options):
        for file in list_files(*args, **options):
            if file.store and (not begun or begun[-1][0] != file.store):
                begun.append((file.store, len(made)))
            yield file

    make = segment_slide.pipeline.nights.acquisitions._make
    monkeypatch.setattr(segment_slide.pipeline.nights.acquisitions, "list_files", listed)
    monkeypatch.setattr(
        segment_slide.pipeline.nights.acquisitions, "_make", lambda *a, **k: made.append(a[1]) or make(*a, **k)
    )
    assert names(tmp_path) == ["a.zarr", "b/c.zarr", "b/e.tif", "d.zarr"]
    assert len(begun) == 3
    assert all(n_made >= n - 1 for n, (_, n_made) in enumerate(begun))


# -- completeness --------------------------------------------------------------------------------------------------


def test_an_acquisition_is_complete_when_it_has_not_changed_for_long_enough(tmp_path):
    write_tiff(tmp_path / "a.tif")
    acquisition = only(tmp_path)
    changed = acquisition.changed_s
    assert why_incomplete(acquisition, changed + 599, 10) == "changed 10.0 min ago, expected 10 or more"
    assert why_incomplete(acquisition, changed + 600, 10) == ""
    assert why_incomplete(acquisition, changed, 0) == ""
    assert "min in the future: its server's clock is ahead" in why_incomplete(acquisition, changed - 60, 10)


def test_a_time_of_modification_in_the_future_keeps_nothing_waiting(tmp_path):
    path = write_tiff(tmp_path / "a.tif")
    os.utime(path, (time.time() + 1000 * HOUR_S,) * 2)
    assert why_incomplete(only(tmp_path), time.time() + HOUR_S, 10) == ""


def test_a_file_that_is_being_appended_to_is_never_complete(tmp_path):
    """Asked each time for the moment at which it were complete, had it not grown since it was looked at before."""
    path = write_tiff(tmp_path / "a.tif")
    before = only(tmp_path)
    for _ in range(5):
        time.sleep(0.05)
        with path.open("ab") as file:
            file.write(b"more")
        os.utime(path, (0, 0))  # as a copy that keeps the source's times
        acquisition = only(tmp_path)
        assert not why_incomplete(before, before.changed_s + 60, 1)
        assert why_incomplete(acquisition, before.changed_s + 60, 1)
        before = acquisition
    assert not why_incomplete(only(tmp_path), before.changed_s + 60, 1)


@pytest.mark.parametrize(
    ("name", "marker", "expected"),
    [
        ("a/slide.svs", "{name}.done", "a/slide.svs.done"),
        ("a/slide.2.ome.tif", "{stem}.done", "a/slide.2.done"),
        ("a/slide.svs", "COMPLETE", "a/COMPLETE"),
        ("z.ome.zarr", "{name}.done", "z.ome.zarr.done"),
        ("z.ome.zarr", "COMPLETE", "z.ome.zarr/COMPLETE"),
    ],
)
def test_a_marker_says_when_it_is_complete_and_nothing_else_does(tmp_path, name, marker, expected):
    write_ome(tmp_path / "z.ome.zarr", noise(10, 10), "yx") if name[0] == "z" else write_tiff(tmp_path / name)
    acquisition = only(tmp_path)
    assert marker_path(acquisition, marker) == str(tmp_path / expected)
    long_after = acquisition.changed_s + HOUR_S
    assert why_incomplete(acquisition, long_after, 1, marker) == f"{tmp_path / expected} is not there yet"
    (tmp_path / expected).touch()
    assert why_incomplete(acquisition, acquisition.changed_s, 1, marker) == ""


@pytest.mark.parametrize("marker", ["", "../{name}.done", "{slide}.done", "{name", "{0}"])
def test_a_marker_that_is_no_file_name_is_refused(marker):
    with pytest.raises(InputError, match="marker="):
        marker_path(Acquisition("/a/b.tif", "b.tif", 1, 1, 0.0, "", is_zarr=False), marker)


# -- URLs ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def memory():
    filesystem = fsspec.filesystem("memory")
    yield filesystem
    filesystem.store.clear()
    filesystem.pseudo_dirs[:] = [""]


def test_stores_and_files_are_found_below_a_url(tmp_path, memory):
    write_ome(tmp_path / "a/slide.ome.zarr", noise(10, 10), "yx")
    write_tiff(tmp_path / "b.svs")
    write_tiff(tmp_path / "out/c.svs")
    memory.put(f"{tmp_path}/", "/scans", recursive=True)
    assert names("memory://scans", skip=("memory://scans/out",)) == ["a/slide.ome.zarr", "b.svs"]
    zarr, file, _ = find_acquisitions("memory://scans/")
    assert (zarr.path, zarr.is_zarr, file.is_zarr) == ("memory://scans/a/slide.ome.zarr", True, False)
    assert abs(zarr.changed_s - time.time()) < HOUR_S
    assert read_again(zarr) == zarr
    memory.pipe_file("/scans/a/slide.ome.zarr/0/c/0/0", b"other")
    assert read_again(zarr).fingerprint != zarr.fingerprint
    assert why_incomplete(zarr, zarr.changed_s, 1, "{name}.done")
    memory.touch("/scans/a/slide.ome.zarr.done")
    assert not why_incomplete(zarr, zarr.changed_s, 1, "{name}.done")


def test_an_object_store_that_tells_no_times_needs_a_marker():
    acquisition = Acquisition("http://a/b.zarr", "b.zarr", 1, 1, float("inf"), "", is_zarr=True)
    assert "use a marker" in why_incomplete(acquisition, 1e12, 0)


@pytest.mark.parametrize("url", ["memory://nothing-here", "no-such-protocol://a"])
def test_a_url_where_nothing_is_is_refused(url, memory):
    with pytest.raises(InputError, match="watch="):
        find_acquisitions(url)
