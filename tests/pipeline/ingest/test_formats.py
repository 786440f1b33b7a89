"""One more row in the table of formats is one more format: of a file, of a folder of pages, of a watched folder."""

import sys
from pathlib import Path

import numpy as np
import pytest
import zarr

from segment_slide.pipeline.errors import InputError
from segment_slide.pipeline.ingest import formats
from segment_slide.pipeline.ingest.formats import FORMATS, Format, list_files, open_reader
from segment_slide.pipeline.ingest.plan import plan_ingest
from segment_slide.pipeline.ingest.run import run_ingest
from segment_slide.pipeline.nights.acquisitions import find_acquisitions
from segment_slide.pipeline.readers.reader import ImageInfo

PIXELS = np.arange(35, dtype=np.uint8).reshape(5, 7)


class GreyMapReader:
    """A plain PGM: "P5 width height 255" and the bytes."""

    def __init__(self, path):
        words = Path(path).read_bytes().split(b"\n", 1)
        width, height = map(int, words[0].split()[1:3])
        self._pixels = np.frombuffer(words[1], np.uint8).reshape(height, width)
        self.info = ImageInfo("pgm", "yx", self._pixels.shape, "uint8", (None, None), files=(path,))

    def read(self, box):
        return self._pixels[box]

    def close(self):
        pass


GREY_MAP = Format(
    "PGM",
    (".pgm",),
    lambda head, _: head.startswith(b"P5 "),
    lambda path, cache, series, axes: GreyMapReader(path),
    page_suffixes=(".pgm",),
)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "scans"
    folder.mkdir()
    for number in range(3):
        (folder / f"page{number}.pgm").write_bytes(b"P5 7 5 255\n" + (PIXELS + number).tobytes())
    return folder


def test_a_made_up_format_is_one_row(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "FORMATS", (*FORMATS, GREY_MAP))
    run_ingest(plan_ingest(folder / "page1.pgm"), tmp_path / "one.ome.zarr")
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "one.ome.zarr/0")[...], PIXELS + 1)
    run_ingest(plan_ingest(folder), tmp_path / "stack.ome.zarr")
    np.testing.assert_array_equal(
        zarr.open_array(tmp_path / "stack.ome.zarr/0")[...], np.stack([PIXELS, PIXELS + 1, PIXELS + 2])
    )
    assert [found.name for found in find_acquisitions(str(folder))] == ["page0.pgm", "page1.pgm", "page2.pgm"]


def test_without_its_row_it_is_no_image(folder, monkeypatch):
    """Negative control."""
    monkeypatch.setitem(sys.modules, "bioio", None)
    with pytest.raises(InputError, match=r"expected files ending in \.jpeg, \.jpg, \.png, \.tif, \.tiff\."):
        list_files([folder])
    with pytest.raises(
        InputError, match=r"is neither TIFF \(SVS, .*\) nor .*PNG nor JPEG\. Other .* \(CZI, ND2, LIF, …\)"
    ):
        open_reader([str(folder / "page0.pgm")])
    assert not find_acquisitions(str(folder))


def test_a_format_whose_plugin_is_missing_is_not_looked_for(folder, monkeypatch):
    (folder / "slide.odd").write_bytes(b"odd")
    odd = Format("ODD", (".odd",), lambda *_: True, GREY_MAP.open, plugin="no_such_plugin")
    monkeypatch.setattr(formats, "FORMATS", (*FORMATS, odd))
    assert not find_acquisitions(str(folder))
    monkeypatch.setattr(formats, "FORMATS", (*FORMATS, Format("ODD", (".odd",), odd.is_it, odd.open, plugin="json")))
    assert [found.name for found in find_acquisitions(str(folder))] == ["slide.odd"]
