"""What a worker is asked before the first block."""

import os
from pathlib import Path

import pytest

from segment_slide.flows.workers import check_readable
from segment_slide.pipeline.errors import InputError
from segment_slide.pipeline.storage.image import describe_image
from tests.flows.support import noise, write_array


def test_a_damaged_chunk_does_not_make_a_worker_unable(tmp_path: Path) -> None:
    path = write_array(tmp_path / "slide.zarr", noise(100, 100))
    image = describe_image(str(path), axes="yx")
    check_readable(image)
    (path / "c/0/0").write_bytes(b"damaged")
    check_readable(image)


@pytest.mark.parametrize("what", ["folder", "metadata"])
def test_an_input_that_is_not_there_does(tmp_path: Path, what: str) -> None:
    path = write_array(tmp_path / "slide.zarr", noise(100, 100))
    image = describe_image(str(path), axes="yx")
    if what == "folder":
        os.rename(path, tmp_path / "elsewhere.zarr")
    else:
        (path / "zarr.json").unlink()
    with pytest.raises(InputError, match="shared with this node"):
        check_readable(image)


def test_another_input_at_the_same_place_does(tmp_path: Path) -> None:
    image = describe_image(str(write_array(tmp_path / "slide.zarr", noise(100, 100))), axes="yx")
    os.rename(tmp_path / "slide.zarr", tmp_path / "old.zarr")
    write_array(tmp_path / "slide.zarr", noise(90, 100))
    with pytest.raises(InputError, match="shape"):
        check_readable(image)
