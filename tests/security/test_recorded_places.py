"""Records that somebody else wrote: no address is asked that the user did not name, and no other image is used."""

import contextlib
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segment_slide.pipeline.errors import NotNamedError, OtherImageError
from segment_slide.pipeline.measurement.open import open_input
from segment_slide.pipeline.measurement.options import ImageChoice
from segment_slide.pipeline.pictures.thumbnail import draw_thumbnail
from segment_slide.pipeline.recorded.addresses import may_open, naming
from segment_slide.pipeline.recorded.images import open_recorded
from segment_slide.pipeline.report.run import write_report
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.image import describe_image
from segment_slide.pipeline.storage.label_records import SegmentedInput
from segment_slide.pipeline.storage.record import ATTRIBUTE
from segment_slide.pipeline.viewer.describe import describe_view
from tests.flows.support import mark_of, noise, run_here, run_without_workers, write_ome, write_segmentation


class Web:
    """A web server on this machine that notes what it is asked for."""

    def __init__(self, folder: Path) -> None:
        self.asked: list[str] = []

        class Handler(SimpleHTTPRequestHandler):
            def __init__(self, *args: Any) -> None:
                super().__init__(*args, directory=str(folder))

            def log_request(inner, *_: object) -> None:  # noqa: N805  the server is meant by self
                self.asked.append(inner.path)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("recorded")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Web]:
    found = Web(folder)
    thread = threading.Thread(target=found.server.serve_forever)
    thread.start()
    with contextlib.closing(found.server.socket):
        yield found
        found.server.shutdown()
        thread.join()


@pytest.fixture
def web(server: Web) -> Web:
    server.asked.clear()
    return server


@pytest.fixture(scope="module")
def output(server: Web, folder: Path) -> Path:
    """A segmentation with objects, whose records say that its image lies on the web server. It does."""
    classes = np.zeros((96, 96), np.uint8)
    classes[10:30, 10:30] = 1
    write_ome(folder / "slide.ome.zarr", noise(96, 96), "yx")
    path = write_segmentation(folder / "out.ome.zarr", classes)
    record_input(path, f"{server.url}/slide.ome.zarr", folder / "slide.ome.zarr")
    assert run_without_workers("instances", path).exit_code == 0
    return path


def record_input(path: Path, place: str, image: Path) -> None:
    attributes = store.read_attributes(str(path), "labels/segmentation") or {}
    described = describe_image(image)
    about = {"location": place, "level": 0, "array": "0", "axes": "yx", "shape": [96, 96], "dtype": described.dtype}
    web_mark = {"fingerprint": mark_of(place if "://" not in place else image, {})}
    record = {**attributes[ATTRIBUTE], "input": {**about, "channels": [0], **web_mark}}
    store.update_attributes(str(path), "labels/segmentation", {ATTRIBUTE: record})


USES = {
    "view": describe_view,
    "thumbnail": lambda path: draw_thumbnail(str(path)),
    "report": lambda path: write_report(str(path), path=str(path.parent / "page.html")),
    "info": lambda path: run_here("info", path),
    "measure": lambda path: run_here("measure", path),
    "evaluate": lambda path: run_here("evaluate", path / "labels/segmentation", path / "labels/segmentation"),
}


@pytest.mark.parametrize("use", USES)
def test_no_command_asks_an_address_that_a_record_names(use, output, web):
    USES[use](output)
    assert web.asked == []


@pytest.mark.parametrize("use", ["view", "thumbnail", "report"])
def test_an_address_that_the_user_names_is_asked(use, output, web):
    """The control: the records lead there, and the server notes it."""
    with naming(f"{web.url}/slide.ome.zarr"):
        USES[use](output)
    assert any("slide.ome.zarr" in path for path in web.asked)


def test_what_is_not_opened_is_said_with_what_allows_it(output, web, tmp_path):
    url = f"{web.url}/slide.ome.zarr"
    (note,) = [note for note in describe_view(output).notes if url in note]
    assert f"name it: `image={url!r}`" in note
    measured = run_here("measure", output)
    assert (measured.exit_code, measured.out) == (2, "")
    assert f"name it: --image {url}" in measured.err
    run_here("report", output, "--output", tmp_path / "page.html")
    assert "was not opened" in (tmp_path / "page.html").read_text()
    assert web.asked == []
    run_here("report", output, "--output", tmp_path / "page.html", "--image", output.with_name("slide.ome.zarr"))
    assert "was not opened" not in (tmp_path / "page.html").read_text()
    with pytest.raises(NotNamedError):
        open_input(str(output), "segmentation", ImageChoice())


def test_a_store_and_its_image_on_one_server_belong_together(output, web):
    describe_view(f"{web.url}/out.ome.zarr")
    assert any("slide.ome.zarr" in path for path in web.asked)


def test_an_origin_is_compared_whole():
    given = "https://host/out.zarr"
    assert may_open("https://HOST/slide.zarr", given)
    assert may_open("/data/slide.zarr", given)
    assert may_open("s3://bucket/a", "s3://bucket/b")
    for other in (
        "http://host/slide.zarr",
        "https://host:8443/slide.zarr",
        "https://host.evil/slide.zarr",
        "https://host@evil/slide.zarr",
        "https://host\\@evil/slide.zarr",
        "https://ho\tst/slide.zarr",
        "simplecache::https://host/slide.zarr",
        "https://host/a::https://evil/b",
        "/data/a::https://evil/b",
        "s3://host/slide.zarr",
    ):
        assert not may_open(other, given), other


def test_another_image_at_the_recorded_place_is_not_used(output, tmp_path):
    image, other = output.with_name("slide.ome.zarr"), tmp_path / "other.ome.zarr"
    write_ome(other, noise(96, 96, seed=1), "yx")
    record = SegmentedInput(location=str(image), level=0, fingerprint=mark_of(image, {}))
    assert open_recorded(record, str(output)).location == str(image)
    for changed in (
        SegmentedInput(location=str(other), level=0, fingerprint=record.fingerprint),
        SegmentedInput(location=str(image), level=0),
    ):
        with pytest.raises(OtherImageError, match="is not the image that was segmented"):
            open_recorded(changed, str(output))


@pytest.mark.parametrize("path", ["../slide.ome.zarr/0", "a/../../slide.ome.zarr/0", "http://127.0.0.1/0", "a::b"])
def test_metadata_name_nothing_outside_of_their_group(path, output, tmp_path):
    content = {"multiscales": [{"axes": [{"name": a, "type": "space"} for a in "yx"], "datasets": [{"path": path}]}]}
    store.create_group(str(tmp_path / "points-out.ome.zarr"), "", [], {"ome": {"version": "0.5", **content}})
    outcome = run_here("info", tmp_path / "points-out.ome.zarr")
    assert outcome.exit_code == 2
    assert "leads out of the image" in outcome.err
