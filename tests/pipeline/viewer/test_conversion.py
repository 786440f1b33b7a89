"""Data types that the browser cannot read are converted on the way: ids exactly, intensities to float32."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from numcodecs.lz4 import LZ4
from numcodecs.zstd import Zstd

from segment_slide.pipeline.errors import InputError
from segment_slide.pipeline.viewer.channels import limits_of
from segment_slide.pipeline.viewer.describe import describe_view
from segment_slide.pipeline.viewer.export import export
from segment_slide.pipeline.viewer.layers import ID_TYPES, SHOWN_TYPES
from segment_slide.pipeline.viewer.server import serve
from segment_slide.pipeline.viewer.site import Site
from tests.pipeline.viewer.site import ask, below
from tests.pipeline.viewer.support import list_labels, read_view, write_image

LARGE = [5, 1 << 31, (1 << 32) + 7, (1 << 53) + 1, (1 << 63) - 1]


@pytest.fixture(autouse=True)
def without_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """The viewer's own scripts are copied in other tests."""
    monkeypatch.setattr("segment_slide.pipeline.viewer.export_plan.client_files", dict)


def labelled(folder: Path, labels: np.ndarray, **more: Any) -> Site:
    image = write_image(folder / "a", np.ones(labels.shape, np.uint8), "yx")
    write_image(image / "labels/n", labels, "yx", label={}, **more)
    list_labels(image, "n")
    return describe_view(image)


def copied(site: Site, folder: Path, name: str) -> zarr.Array[Any]:
    """Level 0 of a store as the browser gets it, from an export, after the server was seen to send the same."""
    export(site, folder / "out")
    (path,) = [path for path, location in site.stores.items() if location.endswith(name)]
    level = folder / "out/v/view" / path / "0"
    with serve(site) as server:
        for file in (item for item in level.rglob("*") if item.is_file()):
            key = file.relative_to(level).as_posix()
            assert ask(server, below(server, f"{path}/0/{key}")).body == file.read_bytes(), key
    return zarr.open_array(level, mode="r")


@pytest.mark.parametrize("dtype", ["int64", ">i8", "uint64", "int32", "uint32", "int16", "uint16", "int8", "bool"])
def test_ids_of_any_integer_type_keep_their_value(dtype, tmp_path):
    labels = np.zeros((70, 80), dtype)
    for number, value in enumerate(LARGE):
        labels[10 * number : 10 * number + 5, 60:70] = min(value, 1 if dtype == "bool" else np.iinfo(dtype).max)
    site = labelled(tmp_path, labels, chunks=(32, 32))
    shown = copied(site, tmp_path, "/n")
    assert shown.dtype.name in ID_TYPES
    np.testing.assert_array_equal(shown[...].astype(np.uint64), labels.astype(np.uint64))
    assert [layer["name"] for layer in read_view(site)["state"]["layers"]] == ["image", "n"]


def test_ids_in_real_numbers_are_left_out_and_it_is_told(tmp_path):
    site = labelled(tmp_path, np.ones((20, 20), np.float32))
    assert [layer["name"] for layer in read_view(site)["state"]["layers"]] == ["image"]
    assert "labels/n is left out: labels have dtype float32, expected integers or bool." in site.notes


@pytest.mark.parametrize("dtype", ["float64", "float16", ">f8", "int64", "uint64", "bool", "float32", "int32"])
@pytest.mark.parametrize("version", ["0.5", "0.4"])
def test_intensities_are_within_the_precision_of_float32(dtype, version, tmp_path):
    values = np.random.default_rng(0).normal(100, 30, (70, 80))
    pixels = (values > 100 if dtype == "bool" else values).astype(dtype)
    image = write_image(tmp_path / "a", pixels, "yx", version=version, n_levels=2)
    site = describe_view(image)
    shown = copied(site, tmp_path, "a")
    assert shown.dtype.name in SHOWN_TYPES
    np.testing.assert_allclose(shown[...].astype(np.float64), pixels.astype(np.float64), rtol=1e-7)
    low, high = read_view(site)["state"]["layers"][0]["shaderControls"]["contrast"]["range"]
    assert low < high, "it is not all black"
    lost = dtype in ("float64", ">f8", "int64", "uint64")
    assert lost == any("7 digits" in note for note in site.notes)


def test_values_that_are_not_finite_do_not_change_the_contrast(tmp_path):
    pixels = np.random.default_rng(0).normal(100, 30, (70, 80))
    contrast = []
    for name, worst in (("a", 100.0), ("b", np.nan), ("c", np.inf), ("d", -np.inf)):
        pixels[:10, :10] = worst
        site = describe_view(write_image(tmp_path / name, pixels, "yx"))
        contrast.append(read_view(site)["state"]["layers"][0]["shaderControls"]["contrast"]["range"])
    np.testing.assert_allclose(contrast, [contrast[0]] * 4, rtol=0.05)
    shown = copied(site, tmp_path, "d")[...]
    np.testing.assert_array_equal(shown, pixels.astype(np.float32))


def test_what_is_larger_than_float32_is_infinite_and_the_contrast_is_of_the_rest(tmp_path):
    pixels = np.random.default_rng(0).normal(100, 30, (70, 80))
    pixels[0, 0] = 1e300
    site = describe_view(write_image(tmp_path / "a", pixels, "yx"))
    assert copied(site, tmp_path, "a")[0, 0] == np.inf
    assert read_view(site)["state"]["layers"][0]["shaderControls"]["contrast"]["range"][1] < limits_of("float32")[1]


@pytest.mark.parametrize("codec", ["lz4", "unsupported filter"])
def test_codecs_that_the_browser_does_not_know_are_decoded_by_the_server(codec, tmp_path):
    from numcodecs.delta import Delta

    pixels = np.random.default_rng(0).integers(0, 255, (70, 80)).astype(np.uint16)
    image = write_image(tmp_path / "a", pixels, "yx", version="0.4")
    options = {"compressors": LZ4()} if codec == "lz4" else {"filters": [Delta(dtype="<u2")], "compressors": Zstd()}
    zarr.create_array(image / "0", data=pixels, chunks=(32, 32), zarr_format=2, overwrite=True, **options)
    np.testing.assert_array_equal(copied(describe_view(image), tmp_path, "a")[...], pixels)


def test_chunks_are_found_in_shards_and_levels_and_other_files_are_not_given_away(tmp_path):
    labels = np.arange(70 * 80).reshape(70, 80)
    site = labelled(tmp_path, labels)
    store = tmp_path / "a/labels/n"
    zarr.create_array(store / "0", data=labels, chunks=(16, 16), shards=(32, 32), overwrite=True)
    (store / "0/secret").write_text("x")
    with serve(site) as server:
        (path,) = site.types
        described = json.loads(ask(server, below(server, f"{path}/0/zarr.json")).body)
        assert described["chunk_grid"]["configuration"]["chunk_shape"] == [16, 16], "what a browser fetches is small"
        chunk = Zstd().decode(ask(server, below(server, f"{path}/0/c/4/4")).body)
        shown = np.frombuffer(chunk, "<u8").reshape(16, 16)
        np.testing.assert_array_equal(shown[:6, :16], labels[64:70, 64:80])
        assert not shown[6:].any()
        for key in ("0/secret", "0/c/5/0", "0/c/0", "0/c/00/0", "zarr.json", "../a/0/zarr.json", "1/zarr.json"):
            assert ask(server, below(server, f"{path}/{key}")).status == 404, key
        (store / "0/c/0/0").write_bytes(b"damaged")
        assert ask(server, below(server, f"{path}/0/c/0/0")).status == 500
    with pytest.raises(InputError, match="0/c/0/0 cannot be read"):
        export(site, tmp_path / "out")
    assert not (tmp_path / "out").exists()
