"""The list of what was read: what it holds, and what it leaves out."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import zarr

from segment_slide.pipeline.inputs.pieces import find_differing
from segment_slide.pipeline.inputs.watch import watch
from segment_slide.pipeline.reads.noted import Piece, read_list, replace_list
from segment_slide.pipeline.storage.image import StoredImage, describe_image
from segment_slide.pipeline.storage.source import read_stored
from tests.flows.support import noise


def write(path: Path, zarr_format: int, shards: tuple[int, int] | None) -> StoredImage:
    layout = {"shape": (100, 100), "chunks": (32, 32), "shards": shards, "dtype": "uint8"}
    zarr.create_array(path, zarr_format=zarr_format, **layout)[...] = noise(100, 100)
    return describe_image(path, axes="yx")


@pytest.mark.parametrize(("zarr_format", "shards"), [(2, None), (3, None), (3, (64, 64))])
def test_a_list_holds_what_was_read_and_only_that(tmp_path: Path, zarr_format: int, shards) -> None:
    image = write(tmp_path / "image.zarr", zarr_format, shards)
    watched = watch({"image": image}, str(tmp_path / "lists"), {})
    box = (slice(0, 40), slice(0, 100))
    np.testing.assert_array_equal(read_stored(watched.images["image"], box), noise(100, 100)[box])
    noted = watched.list_of("image")
    chunks = {name for name in noted if "zarr" not in name and ".z" not in name}
    assert len(chunks) == (8 if shards is None else 2)
    files = {str(path.relative_to(tmp_path / "image.zarr")) for path in (tmp_path / "image.zarr").rglob("*")}
    assert chunks < files
    assert find_differing(image, noted) == set()
    for name in chunks:  # one byte, anywhere in what was read
        path = tmp_path / "image.zarr" / name
        content = path.read_bytes()
        path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
        assert find_differing(image, noted) == {name}
        path.write_bytes(content)
        assert find_differing(image, noted) == set()
    path.unlink()
    assert find_differing(image, noted) == {name}


def test_two_reads_of_different_content_are_a_difference_whatever_lies_there_now(tmp_path: Path) -> None:
    image = write(tmp_path / "image.zarr", 3, None)
    watched = watch({"image": image}, str(tmp_path / "lists"), {})
    chunk = tmp_path / "image.zarr/c/0/0"
    content = chunk.read_bytes()
    array = zarr.open_array(image.location)
    for value in (1, 2):
        array[0, 0] = value
        read_stored(watched.images["image"], (slice(0, 9), slice(0, 9)))
    assert find_differing(image, watched.list_of("image"), again=False) == {"c/0/0"}
    replace_list(watched.list_folder("image"), {})
    assert watched.list_of("image") == {}
    chunk.write_bytes(content)
    read_stored(watched.images["image"], (slice(0, 9), slice(0, 9)))
    assert set(watched.list_of("image")) == {"c/0/0"}  # metadata have been noted by this run before


@pytest.mark.parametrize(
    "line",
    ["[", "3", "{}", '["c/0"]', *(json.dumps([name, 0, None, 1, "", []]) for name in ("/etc/passwd", "../x", 3)),
     '["c/0/0", "a", null, 1, "", []]', '["c/0/0", 0, null, 1, "", 5]', '["c/0/0", 0, null, 1.5, "", []]'],
)  # fmt: skip
def test_lines_that_no_run_has_written_are_left_out(tmp_path: Path, line: str) -> None:
    kept = json.dumps(["c/0/1", 0, None, 3, "a", [1, 2, 3]])
    (tmp_path / "x.jsonl").write_text(f"{kept}\n{line}\n{kept[:9]}")
    os.mkfifo(tmp_path / "pipe")
    assert read_list(str(tmp_path)) == {"c/0/1": [Piece("c/0/1", 0, None, 3, "a", (1, 2, 3))]}
