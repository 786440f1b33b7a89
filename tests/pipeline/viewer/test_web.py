"""Stores on a web server, which lists nothing: an export holds all pixels, and a server that fails is an error."""

import pickle
from pathlib import Path

import cloudpickle
import numpy as np
import pytest
import zarr

from segment_slide.pipeline.errors import ChunkAccessError, InputError, PipelineError
from segment_slide.pipeline.measurement.standing import Standing, judge_objects
from segment_slide.pipeline.served_files.open import open_files
from segment_slide.pipeline.storage.fingerprint import fingerprint
from segment_slide.pipeline.storage.image import describe_image
from segment_slide.pipeline.storage.source import ImageSource
from segment_slide.pipeline.viewer.describe import describe_view
from segment_slide.pipeline.viewer.export import export
from segment_slide.pipeline.viewer.server import serve
from segment_slide.pipeline.viewer.site import Site
from segment_slide.pipeline.zarr_stores import checked
from tests.pipeline.measurement.support import NO_IMAGE, draw_objects, measure, write_store
from tests.pipeline.viewer.site import ask, below
from tests.pipeline.viewer.support import list_labels, write_image
from tests.pipeline.viewer.web import web_server

DATA = "v/view/data"


@pytest.fixture(autouse=True)
def without_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """The viewer's own scripts are copied in other tests."""
    monkeypatch.setattr("segment_slide.pipeline.viewer.export_plan.client_files", dict)


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(1, 60000, shape).astype(np.uint16)


def exported(site: Site, folder: Path) -> dict[str, Path]:
    """Where the copies of the stores lie, by the last part of their addresses."""
    return {location.rpartition("/")[2]: folder / "v/view" / path for path, location in site.stores.items()}


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    """An image with two levels, one chunk of it never written, and labels."""
    path = write_image(tmp_path / "web/slide.ome.zarr", noise(130, 150), "yx", n_levels=2)
    (path / "0/c/1/1").unlink()
    write_image(path / "labels/cells", noise(130, 150) // 1000, "yx", label={})
    list_labels(path, "cells")
    return path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("version", "server"), [("0.5", {}), ("0.4", {"answers_ranges": False}), ("0.5", {"answers_head": False})]
)
def test_an_export_of_an_address_holds_all_levels_and_labels(version, server, tmp_path):
    path = write_image(tmp_path / "web/slide.ome.zarr", noise(130, 150), "yx", n_levels=3, version=version)
    write_image(path / "labels/cells", noise(130, 150) // 1000, "yx", version=version, label={})
    list_labels(path, "cells", version=version)
    with web_server(tmp_path / "web", **server) as web:
        site = describe_view(f"{web.address}/slide.ome.zarr")
        report = export(site, tmp_path / "out")
    places = exported(site, tmp_path / "out")
    for name, source in {"slide.ome.zarr": path, "cells": path / "labels/cells"}.items():
        for level in sorted(item.name for item in source.iterdir() if item.name.isdecimal()):
            copied = zarr.open_array(places[name] / level, mode="r")[...]
            np.testing.assert_array_equal(copied, zarr.open_array(source / level, mode="r")[...])
            assert copied.any()
    assert report.n_files == sum(file.is_file() for file in (tmp_path / "out").rglob("*")) - 1, "all but the mark"
    assert not report.empty


@pytest.mark.parametrize(
    ("form", "answers_ranges"),
    [
        ({"shards": (64, 64)}, True),
        ({"shards": (64, 64)}, False),
        ({"zarr_format": 2}, True),
        ({"chunk_key_encoding": {"name": "v2", "separator": "."}}, True),
    ],
)
def test_names_of_chunks_follow_from_the_metadata_of_any_form(form, answers_ranges, tmp_path):
    pixels = noise(100, 130)
    path = write_image(tmp_path / "web/a.zarr", pixels, "yx", version="0.4" if "zarr_format" in form else "0.5")
    zarr.create_array(path / "0", shape=pixels.shape, dtype="u2", chunks=(32, 32), overwrite=True, **form)[...] = pixels
    with web_server(tmp_path / "web", answers_ranges=answers_ranges) as web:
        location = f"{web.address}/a.zarr"
        np.testing.assert_array_equal(describe_image(location).array()[...], pixels)
        export(describe_view(location), tmp_path / "out")
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "out" / DATA / "0/0", mode="r")[...], pixels)


def test_a_chunk_that_was_never_written_is_background(slide, tmp_path):
    with web_server(tmp_path / "web") as web:
        site = describe_view(f"{web.address}/slide.ome.zarr")
        export(site, tmp_path / "out")
    copied = zarr.open_array(exported(site, tmp_path / "out")["slide.ome.zarr"] / "0", mode="r")[...]
    np.testing.assert_array_equal(copied, zarr.open_array(slide / "0", mode="r")[...])
    assert not copied[64:128, 64:128].any()
    assert copied[:64].all()


def test_a_store_without_any_chunk_is_told(tmp_path):
    path = write_image(tmp_path / "web/a.zarr", noise(100, 130), "yx")
    for chunk in (path / "0/c").rglob("*"):
        if chunk.is_file():
            chunk.unlink()
    with web_server(tmp_path / "web") as web:
        report = export(describe_view(f"{web.address}/a.zarr"), tmp_path / "out")
        assert report.empty == (f"{web.address}/a.zarr",)


@pytest.mark.parametrize("fault", [500, 503, 403, 401, 429, "closed", "cut", "page"])
def test_a_file_that_a_server_does_not_give_is_not_missing(fault, slide, tmp_path):
    with web_server(tmp_path / "web", {"0/c/0/1": fault}) as web:
        files = open_files(f"{web.address}/slide.ome.zarr")
        with pytest.raises(OSError, match="slide.ome.zarr/0/c/0/1 cannot be read") as caught:
            files.open("0/c/0/1").read(0, 10)
        assert not isinstance(caught.value, FileNotFoundError)
        with pytest.raises(FileNotFoundError):
            files.open("0/c/1/1")


@pytest.mark.parametrize(("where", "fault"), [("slide.ome.zarr/0/c/0/1", "cut"), ("cells/0/c/1/0", 503)])
def test_a_server_that_fails_for_a_chunk_is_an_error_and_nothing_looks_whole(where, fault, slide, tmp_path):
    faults = {}
    with web_server(tmp_path / "web", faults) as web:
        site = describe_view(f"{web.address}/slide.ome.zarr")
        faults[where] = fault
        with pytest.raises(InputError, match=rf"{where} cannot be read: .*run the same command again"):
            export(site, tmp_path / "out")
        assert not (tmp_path / "out").exists()
        faults.clear()
        web.asked.clear()
        report = export(site, tmp_path / "out")
    assert report.n_kept > 0, "what was copied before is kept"
    path = exported(site, tmp_path / "out")["slide.ome.zarr"]
    np.testing.assert_array_equal(
        zarr.open_array(path / "0", mode="r")[...], zarr.open_array(slide / "0", mode="r")[...]
    )


def test_a_server_that_hangs_is_an_error(slide, tmp_path, monkeypatch):
    monkeypatch.setattr(checked, "SILENCE_S", 0.5)
    with web_server(tmp_path / "web", {"0/c/0/1": "hangs"}) as web:
        image = describe_image(f"{web.address}/slide.ome.zarr")
        with pytest.raises(ChunkAccessError, match="0/c/0/1: no answer in time"):
            ImageSource(image, 2, (0,), ()).read((slice(0, 20), slice(64, 80)))
        files = open_files(f"{web.address}/slide.ome.zarr")
        with pytest.raises(OSError, match=r"0/c/0/1 cannot be read: the server did not answer in time"):
            files.open("0/c/0/1")


@pytest.mark.parametrize(
    ("where", "fault"),
    [
        ("slide.ome.zarr/zarr.json", 503),
        ("0/zarr.json", "closed"),
        ("1/zarr.json", 500),
        ("labels/zarr.json", 403),
        ("cells/zarr.json", 503),
    ],
)
def test_metadata_that_a_server_does_not_give_are_an_error_and_not_left_out(where, fault, slide, tmp_path):
    with web_server(tmp_path / "web", {where: fault}) as web, pytest.raises(PipelineError):
        export(describe_view(f"{web.address}/slide.ome.zarr"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_server_of_the_viewer_tells_failure_from_background(slide, tmp_path):
    with web_server(tmp_path / "web", {"0/c/0/0": 503, "0/c/0/1": "cut"}) as web:
        site = Site("t", {}, {"data/0": f"{web.address}/slide.ome.zarr"})
        with serve(site) as server:
            there = ask(server, below(server, "data/0/0/c/0/2"), Range="bytes=2-9")
            assert there.body == (slide / "0/c/0/2").read_bytes()[2:10]
            assert ask(server, below(server, "data/0/0/c/1/1")).status == 404
            assert ask(server, below(server, "data/0/0/c/0/0")).status == 500
            assert ask(server, below(server, "data/0/0/c/0/1")).status == 500


@pytest.mark.slow
def test_tables_are_found_by_their_record(tmp_path):
    (tmp_path / "web").mkdir()
    location = write_store(tmp_path / "web", draw_objects((60, 70)), (32, 32))
    measure(location, NO_IMAGE)
    name = location.rpartition("/")[2]
    local = judge_objects(location, "cells")
    faults = {}
    with web_server(tmp_path / "web", faults) as web:
        state = judge_objects(f"{web.address}/{name}", "cells")
        assert (state.table, state.n_parts) == (Standing.GOOD, local.n_parts)
        shown = describe_view(f"{web.address}/{name}", name="cells")
        assert any(path.startswith("objects/") for path in shown.files)
        faults["part-00000.parquet"] = 503
        with pytest.raises(PipelineError, match="cannot be reached"):
            describe_view(f"{web.address}/{name}", name="cells")


def test_the_fingerprint_of_an_address_needs_no_listing(slide, tmp_path):
    with web_server(tmp_path / "web") as web:
        one = fingerprint(describe_image(f"{web.address}/slide.ome.zarr"))
        assert one == fingerprint(describe_image(f"{web.address}/slide.ome.zarr"))
        assert one != fingerprint(describe_image(f"{web.address}/slide.ome.zarr", level=1))
        assert not [line for line in web.asked if line.endswith("/0")], "no folder was asked for"


@pytest.mark.parametrize("fault", [503, "cut", "closed"])
def test_a_chunk_that_cannot_be_fetched_is_an_error_that_another_process_can_be_sent(fault, slide, tmp_path):
    with web_server(tmp_path / "web", {"0/c/0/0": fault}) as web:
        image = describe_image(f"{web.address}/slide.ome.zarr")
        with pytest.raises(ChunkAccessError, match="0/c/0/0") as caught:
            ImageSource(image, 2, (0,), ()).read((slice(0, 20), slice(0, 20)))
    assert str(pickle.loads(cloudpickle.dumps(caught.value.__cause__))) == str(caught.value.__cause__)
    assert caught.value.__cause__.__context__ is None
