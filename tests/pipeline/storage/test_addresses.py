"""Addresses of web servers as people type and copy them, and commands that would write to one."""

from pathlib import Path

import numpy as np
import pytest

from segment_slide.pipeline.errors import InputError
from segment_slide.pipeline.storage.image import describe_image
from tests.flows.support import noise, run_here, write_model, write_ome, write_segmentation
from tests.pipeline.viewer.web import Web, web_server

PIXELS = noise(50, 70)


@pytest.fixture
def web(tmp_path):
    write_ome(tmp_path / "a b ü%.zarr", PIXELS, "yx")
    write_ome(tmp_path / "i.zarr", PIXELS, "yx")
    write_segmentation(tmp_path / "o.zarr", (PIXELS > 128).astype(np.uint8))
    with web_server(tmp_path) as server:
        yield server


@pytest.mark.parametrize(
    "change",
    [
        lambda address: address.replace("http:", "HTTP:") + "/i.zarr",
        lambda address: address + "/i.zarr/",
        lambda address: address.replace("//", "//user:password@") + "/i.zarr",
        lambda address: address + "/a b ü%.zarr",
        lambda address: address + "/a%20b%20%C3%BC%25.zarr",
    ],
)
def test_addresses_that_browsers_accept_are_read(web: Web, change) -> None:
    np.testing.assert_array_equal(describe_image(change(web.address)).array()[...], PIXELS)


@pytest.mark.parametrize("end", ["?key=secret", "#tab"])
@pytest.mark.parametrize("command", [("info",), ("plan", "-m", "MODEL")])
def test_what_names_cannot_follow_is_refused(web: Web, tmp_path: Path, end: str, command: tuple[str, ...]) -> None:
    model = write_model(tmp_path / "model.safetensors")
    words = [model if word == "MODEL" else word for word in command]
    outcome = run_here(words[0], f"{web.address}/i.zarr{end}", *words[1:])
    assert (outcome.exit_code, f"ends with {end!r}" in outcome.err) == (2, True), outcome
    assert not any(end in asked for asked in web.asked)


def test_a_protocol_that_nobody_knows_is_named() -> None:
    with pytest.raises(InputError, match=r"Protocol not known: foo\. Expected a path, or an address"):
        describe_image("foo://bucket/i.zarr")


@pytest.mark.parametrize(
    "words",
    [
        ("segment", "LOCAL/i.zarr", "-m", "LOCAL/model.safetensors", "-o", "WEB/new.zarr"),
        ("segment", "WEB/i.zarr", "-m", "LOCAL/model.safetensors", "--in-place"),
        ("instances", "WEB/o.zarr"),
        ("measure", "WEB/i.zarr", "--labels", "LOCAL/o.zarr/labels/segmentation/0"),
        ("report", "WEB/o.zarr"),
    ],
)
def test_commands_that_would_write_to_a_web_server_say_so(web: Web, tmp_path: Path, words: tuple[str, ...]) -> None:
    write_model(tmp_path / "model.safetensors")
    given = [word.replace("LOCAL", str(tmp_path)).replace("WEB", web.address) for word in words]
    outcome = run_here(*given)
    assert (outcome.exit_code, "is on a web server, which cannot be written" in outcome.err) == (2, True), outcome
    assert "as --output" in outcome.err
    assert {asked.split()[0] for asked in web.asked} <= {"GET", "HEAD"}


def test_files_to_convert_are_not_taken_from_an_address(web: Web, tmp_path: Path) -> None:
    outcome = run_here("ingest", f"{web.address}/a.tif", tmp_path / "new.zarr")
    assert outcome.exit_code == 2
    assert "is an address; files are read from disks only" in " ".join(outcome.err.split())
