"""Images in a zip archive, against the same image in a folder."""

import pickle
import re
import threading
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from zarr.storage import ZipStore

from segment_slide.pipeline.errors import InputError, OutputError, PipelineError, UnreadableChunkError
from segment_slide.pipeline.served_files.open import open_files
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.files import exists, read_file
from segment_slide.pipeline.storage.fingerprint import fingerprint
from segment_slide.pipeline.storage.image import describe_image
from segment_slide.pipeline.storage.place import read_label_names
from segment_slide.pipeline.storage.source import ImageSource, select_source
from segment_slide.pipeline.viewer.describe import describe_view
from segment_slide.pipeline.zarr_stores.archive import refuse_unwritable
from tests.flows.support import noise, run_here, snapshot, write_group, write_model, write_ome
from tests.pipeline.viewer.web import web_server

PIXELS = noise(3, 100, 130)
BOX = (slice(-20, 90), slice(10, 140))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = write_ome(tmp_path / "image.zarr", PIXELS, "cyx", scale=(1, 0.5, 0.5), channels="abc", n_levels=2)
    write_group(path / "labels", {"ome": {"version": "0.5", "labels": ["cells"]}})
    write_ome(path / "labels" / "cells", (PIXELS[0] > 128).astype(np.uint8), "yx")
    return path


def pack(folder: Path, name: str, inside: str = "", compression: int = zipfile.ZIP_STORED) -> Path:
    """Pack a folder as zip programs do; with `inside`, the folder itself is in the archive."""
    target = folder.parent / name
    with zipfile.ZipFile(target, "w", compression) as archive:
        if inside:
            archive.mkdir(inside)
            archive.writestr("__MACOSX/._image.zarr", b"junk")
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, inside + str(file.relative_to(folder)))
    return target


def source_of(location: object) -> ImageSource:
    image = describe_image(str(location))
    return select_source(image, n_spatial=2, n_channels=image.size("c"))


@pytest.mark.parametrize(
    ("name", "inside", "compression"),
    [
        ("a.ozx", "", zipfile.ZIP_STORED),
        ("a.zarr.zip", "image.zarr/", zipfile.ZIP_DEFLATED),
        ("a.ZIP", "scans/day 1/image.zarr/", zipfile.ZIP_DEFLATED),
    ],
)
def test_an_archive_is_the_folder_that_was_packed(folder: Path, name: str, inside: str, compression: int) -> None:
    archive = pack(folder, name, inside, compression)
    for below in ("", "/labels/cells"):
        packed, unpacked = source_of(f"{archive}{below}"), source_of(f"{folder}{below}")
        assert packed.image.multiscale == unpacked.image.multiscale
        np.testing.assert_array_equal(packed.read(BOX), unpacked.read(BOX))
        again = pickle.loads(pickle.dumps(packed))  # as it travels to a worker
        np.testing.assert_array_equal(again.read(BOX), unpacked.read(BOX))
    assert store.list_names(str(archive)) == store.list_names(str(folder))
    assert store.stored_shards(str(archive), "0") == store.stored_shards(str(folder), "0")
    assert store.is_zarr(str(archive))
    assert store.is_zarr(f"{archive}/labels/cells/0")
    assert not store.is_zarr(f"{archive}/labels/gone")
    assert read_file(f"{archive}/zarr.json") == (folder / "zarr.json").read_bytes()
    assert [exists(f"{archive}{path}") for path in ("", "/labels", "/zarr.json", "/gone")] == [True, True, True, False]


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_an_archive_that_zarr_wrote_is_read_by_many_threads(tmp_path: Path, zarr_format: int) -> None:
    with ZipStore(tmp_path / "a.zarr.zip", mode="w") as target:
        zarr.create_array(target, data=PIXELS, chunks=(1, 32, 64), zarr_format=zarr_format)
    image = describe_image(tmp_path / "a.zarr.zip", axes="cyx")
    found = dict[int, np.ndarray]()
    threads = [threading.Thread(target=lambda k=k: found.update({k: image.array()[...]})) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert all(np.array_equal(pixels, PIXELS) for pixels in found.values())


def test_the_fingerprint_is_of_the_content_and_not_of_the_time_or_of_junk(folder: Path) -> None:
    archive = pack(folder, "a.ozx")
    before = fingerprint(describe_image(archive))
    (folder / "0" / ".DS_Store").write_bytes(b"junk")
    for file in folder.rglob("*"):
        file.touch()
    pack(folder, "a.ozx")
    assert fingerprint(describe_image(archive)) == before
    zarr.open_array(folder / "0")[0, 0, 0] ^= 1
    pack(folder, "a.ozx")
    assert fingerprint(describe_image(archive)) != before


def test_a_damaged_chunk_is_named(folder: Path) -> None:
    archive = pack(folder, "a.ozx")
    with zipfile.ZipFile(archive) as opened:
        entry = opened.getinfo("0/c/1/0/0")
    with archive.open("r+b") as file:
        file.seek(entry.header_offset + 30 + len(entry.filename) + 5)
        file.write(b"\xff\xff\xff")
    with pytest.raises(UnreadableChunkError, match="1/0/0"):
        source_of(archive).read(BOX)


@pytest.mark.parametrize("name", ["a.ozx", "a.zarr.zip"])
def test_an_archive_on_a_web_server_is_read_in_parts(folder: Path, name: str) -> None:
    archive = pack(folder, name, "image.zarr/", zipfile.ZIP_DEFLATED)
    with web_server(folder.parent) as web:
        address = f"{web.address}/{name}"
        np.testing.assert_array_equal(source_of(address).read(BOX), source_of(folder).read(BOX))
        np.testing.assert_array_equal(describe_image(f"{address}/labels/cells").array()[...], PIXELS[0] > 128)
        again = pickle.loads(pickle.dumps(store.open_array(address, "0")))
        np.testing.assert_array_equal(again[...], PIXELS)
        assert fingerprint(describe_image(address)) == fingerprint(describe_image(archive))
        assert read_label_names(address) == ["cells"]
        packed, unpacked = open_files(address), open_files(str(archive))
        assert [(file.key, file.size) for file in packed.walk("0")] == [
            (file.key, file.size) for file in unpacked.walk("0")
        ]
        assert packed.open("0/c/1/0/0").read(3, 50) == unpacked.open("0/c/1/0/0").read(3, 50)
        assert describe_view(address).stores
        assert all(asked.endswith(name) for asked in web.asked)


def test_an_archive_that_is_replaced_on_the_server_is_read_anew(folder: Path) -> None:
    pack(folder, "a.ozx")
    with web_server(folder.parent) as web:
        before = describe_image(f"{web.address}/a.ozx").array()[...]
        zarr.open_array(folder / "0")[...] = 255 - PIXELS
        write_group(folder / "more", {})  # the server tells seconds only, and the size
        pack(folder, "a.ozx")
        np.testing.assert_array_equal(describe_image(f"{web.address}/a.ozx").array()[...], 255 - before)


@pytest.mark.parametrize(
    ("fault", "ranges", "message"),
    [
        (404, True, "no such file"),
        (403, True, "cannot be reached: 403"),
        (503, True, "cannot be reached: 503"),
        ("closed", True, "cannot be reached: .*disconnected"),
        (None, False, "sends no parts of a file .* Download it"),
    ],
)
def test_a_server_that_gives_no_archive_is_told_in_one_sentence(
    folder: Path, fault: Any, ranges: bool, message: str
) -> None:
    pack(folder, "a.ozx")
    with web_server(folder.parent, {"a.ozx": fault} if fault else {}, answers_ranges=ranges) as web:
        outcome = run_here("info", f"{web.address}/a.ozx")
        assert outcome.exit_code == 2
        assert re.search(message, " ".join(outcome.err.split())), outcome.err


def test_names_with_backslashes_are_folders(folder: Path) -> None:
    with zipfile.ZipFile(folder.parent / "w.zip", "w") as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                entry = zipfile.ZipInfo()
                entry.filename = "image.zarr\\" + str(file.relative_to(folder)).replace("/", "\\")
                archive.writestr(entry, file.read_bytes())
    assert "\\" in zipfile.ZipFile(folder.parent / "w.zip").namelist()[0]
    np.testing.assert_array_equal(source_of(folder.parent / "w.zip").read(BOX), source_of(folder).read(BOX))
    assert read_label_names(str(folder.parent / "w.zip")) == ["cells"]


class TestRefused:
    @pytest.mark.parametrize("is_packed", [True, False])
    def test_several_stores_are_named(self, tmp_path, is_packed):
        for name in ("a.zarr", "b.zarr"):
            write_ome(tmp_path / "all" / name, PIXELS, "cyx")
        (tmp_path / "all" / "notes.zip").write_bytes(b"hello")
        location = pack(tmp_path / "all", "all.zip") if is_packed else tmp_path / "all"
        with pytest.raises(InputError, match="holds several Zarr stores; name one, for example ") as caught:
            describe_image(location)
        for path in str(caught.value).rpartition("for example ")[2].rstrip(".").split(", "):
            assert describe_image(path).shape == PIXELS.shape
        outcome = run_here("info", location)
        assert (outcome.exit_code, "holds several Zarr stores" in outcome.err) == (2, True)

    def test_an_archive_without_its_ending(self, folder):
        archive = pack(folder, "packed.zarr")
        with pytest.raises(InputError, match=r"is a file, .*; give it a name that ends with \.zarr\.zip"):
            describe_image(archive)

    def test_what_is_no_archive(self, tmp_path):
        (tmp_path / "a.ozx").write_bytes(b"PK\3\4 cut off")
        with pytest.raises(InputError, match=r"a\.ozx cannot be read as a zip archive"):
            describe_image(tmp_path / "a.ozx")
        with zipfile.ZipFile(tmp_path / "notes.zip", "w") as archive:
            archive.writestr("notes.txt", "hello")
        with pytest.raises(InputError, match=r"notes\.zip is not Zarr"):
            describe_image(tmp_path / "notes.zip")
        with pytest.raises(InputError, match="no such file"):
            describe_image(tmp_path / "gone.ozx")

    def test_what_needs_a_password(self, folder):
        archive = pack(folder, "a.ozx")
        content = archive.read_bytes()
        position = content.rindex(b"PK\1\2")
        archive.write_bytes(content[: position + 8] + b"\1" + content[position + 9 :])
        with pytest.raises(PipelineError, match="is encrypted; unpack it"):
            describe_image(archive)

    @pytest.mark.parametrize("name", ["new.ozx", "new.zarr.zip", "a.ozx", "a.ozx/labels"])
    def test_an_archive_as_an_output(self, folder, name):
        pack(folder, "a.ozx")
        location = str(folder.parent / name)
        with pytest.raises(OutputError, match="is a zip archive, which is only read, never written; name a folder"):
            refuse_unwritable(location)

    def test_a_folder_that_is_called_like_an_archive_is_a_folder(self, tmp_path):
        write_ome(tmp_path / "a.zip", PIXELS, "cyx")
        refuse_unwritable(str(tmp_path / "a.zip"))
        assert describe_image(tmp_path / "a.zip").shape == PIXELS.shape

    @pytest.mark.parametrize(
        "words",
        [
            ("segment", "image.zarr", "-o", "new.ozx", "--channels", "a"),
            ("segment", "a.ozx", "--in-place", "--channels", "a"),
            ("instances", "a.ozx", "--name", "cells", "--in-place"),
            ("instances", "image.zarr", "--name", "cells", "-o", "new.zip"),
            ("weight-maps", "image.zarr", "-o", "new.zip"),
        ],
    )
    def test_commands_that_would_write_into_one(self, folder, words):
        pack(folder, "a.ozx")
        model = write_model(folder.parent / "model.safetensors")
        before = snapshot(folder.parent)
        paths = [str(folder.parent / word) if word.endswith((".zarr", ".ozx", ".zip")) else word for word in words]
        outcome = run_here(*paths, *(["-m", model] if words[0] == "segment" else []))
        assert outcome.exit_code == 2, outcome
        assert "is a zip archive, which is only read, never written" in outcome.err
        assert snapshot(folder.parent) == before


def test_the_viewer_serves_the_files_of_an_archive(folder: Path) -> None:
    archive = pack(folder, "a.zarr.zip", "image.zarr/", zipfile.ZIP_DEFLATED)
    packed, unpacked = open_files(str(archive)), open_files(str(folder))
    assert [(file.key, file.size) for file in packed.walk("0")] == [
        (file.key, file.size) for file in unpacked.walk("0")
    ]
    file, twin = packed.open("0/c/1/0/0"), unpacked.open("0/c/1/0/0")
    assert file.read(3, 50) == twin.read(3, 50)
    for key in ("0/c/9/9/9", "../image.zarr/zarr.json", "0"):
        with pytest.raises(FileNotFoundError):
            packed.open(key)
    assert describe_view(str(archive)).stores
