"""Whether an image is complete, in a folder, in an object store, on a web server and in a zip archive."""

import functools
import http.server
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest

from segment_slide.pipeline.errors import InputError
from segment_slide.pipeline.storage import complete, files
from segment_slide.pipeline.storage.complete import judge_image, require_complete
from segment_slide.pipeline.storage.image import describe_image
from tests.flows.support import write_ome, write_segmentation

GROUP = "labels/segmentation"


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """Labels of 2 x 3 files, and 2 and 1 in the coarser levels."""
    return write_segmentation(
        tmp_path / "out.ome.zarr", np.ones((60, 90), np.uint8), files=(32, 32), scale=(1.0, 1.0), n_levels=3
    )


def test_all_levels_count_and_an_empty_file_is_none(output):
    group = output / GROUP
    assert judge_image(describe_image(group)).text == "9 of 9 files"
    (group / "1/c/0/0").unlink()
    (group / "0/c/1/2").write_bytes(b"")
    for place, level in ((group, 0), (group, 1), (output, 0)):
        found = judge_image(describe_image(place, level=level))
        assert (found.n_files, found.n_missing) == (9, 2)
        with pytest.raises(InputError, match=r"2 of 9 files are missing.*`segment-slide segment` again"):
            require_complete(describe_image(place, level=level))


def test_an_array_belongs_to_the_group_around_it(output):
    (output / GROUP / "0/c/0/0").unlink()
    assert judge_image(describe_image(output / GROUP / "0", axes="yx")).n_missing == 1


def test_images_of_others_are_complete(tmp_path):
    image = write_ome(tmp_path / "image.zarr", np.ones((80, 80), np.uint8), "yx")
    (image / "0/c/0/0").unlink()
    assert judge_image(describe_image(image)).is_complete
    assert judge_image(describe_image(image / "0", axes="yx")).is_complete
    require_complete(describe_image(image), None)


def test_an_object_store_is_asked_for_one_listing(output, monkeypatch):
    memory = fsspec.filesystem("memory")
    memory.put(str(output), "/complete-out.ome.zarr", recursive=True)
    listings = []

    def list_files(folder: str) -> Iterator[str]:
        listings.append(folder)
        return files.list_files(folder)

    monkeypatch.setattr(complete, "list_files", list_files)
    monkeypatch.setattr(complete.store, "stored_shards", lambda *_: pytest.fail("a second listing"))
    try:
        address = f"memory://complete-out.ome.zarr/{GROUP}"
        assert judge_image(describe_image(address)).text == "9 of 9 files"
        assert listings == [address]
        memory.rm(f"/complete-out.ome.zarr/{GROUP}/1/c/0/1")
        assert judge_image(describe_image(address)).text == "8 of 9 files"
    finally:
        memory.rm("/complete-out.ome.zarr", recursive=True)


def test_a_web_server_is_asked_for_files_of_the_coarsest_level(output):
    quiet = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(quiet, directory=str(output.parent))
    ) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/out.ome.zarr/{GROUP}"
        assert judge_image(describe_image(address)).is_complete
        (output / GROUP / "2/c/0/0").unlink()
        with pytest.raises(InputError, match="is not complete"):
            require_complete(describe_image(address))
        server.shutdown()


def test_a_zip_archive_is_looked_into(output, tmp_path):
    (output / GROUP / "0/c/0/1").unlink()
    shutil.make_archive(str(tmp_path / "out.zarr"), "zip", output)
    assert judge_image(describe_image(tmp_path / "out.zarr.zip")).text == "8 of 9 files"
