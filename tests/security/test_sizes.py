"""What files claim is compared with limits before memory is asked for: a sentence, and exit code 2, or 3 in a run."""

import json
import resource
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numcodecs
import numpy as np
import pyarrow as pa
import pytest
import tifffile
import zarr

from segment_slide.pipeline.limits.bounded import TooLargeError
from segment_slide.pipeline.metadata import json_text
from segment_slide.pipeline.metadata.json_text import JsonError, parse_json
from segment_slide.pipeline.storage.store import open_array
from tests.flows.support import Outcome, noise, write_model, write_ome
from tests.security.world import run

CLAIM = 200_000_000
MOST_MIB = 60


def largest_mib() -> float:
    """The largest memory that this process has had so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def zstd_claim(n_bytes: int) -> bytes:
    """A frame of a few bytes that says how many it becomes, and has them: runs of one byte (RFC 8878)."""
    block = 1 << 17
    runs = [(min(block, n_bytes - at) << 3 | 1 << 1 | (at + block >= n_bytes)) for at in range(0, n_bytes, block)]
    head = b"\x28\xb5\x2f\xfd\xa0" + struct.pack("<I", n_bytes)
    return head + b"".join(struct.pack("<I", run)[:3] + b"\x07" for run in runs)


def streamed(n_bytes: int) -> bytes:
    """A frame that does not say how many bytes it becomes."""
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(bytes(n_bytes))
    return sink.getvalue().to_pybytes()


def compressed(name: str, n_bytes: int) -> bytes:
    codecs = {"zlib": numcodecs.Zlib(9), "gzip": numcodecs.GZip(9), "bz2": numcodecs.BZ2(), "lz4": numcodecs.LZ4()}
    codec = codecs.get(name) or {"lzma": numcodecs.LZMA(), "blosc": numcodecs.Blosc()}[name]
    return bytes(codec.encode(np.zeros(n_bytes, np.uint8)))


# by name: the compressor of the array, and a chunk of it that becomes far more than its 50 x 50 pixels
BOMBS = {
    "zstd": (numcodecs.Zstd(), zstd_claim(CLAIM)),
    "zstd without a size": (numcodecs.Zstd(), streamed(5_000_000)),
    **{
        name: (kind(), compressed(name, 5_000_000))
        for name, kind in (
            ("zlib", numcodecs.Zlib),
            ("gzip", numcodecs.GZip),
            ("bz2", numcodecs.BZ2),
            ("lzma", numcodecs.LZMA),
            ("lz4", numcodecs.LZ4),
            ("blosc", numcodecs.Blosc),
        )
    },
}


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("name", sorted(BOMBS))
def test_a_chunk_cannot_become_more_than_its_shape_allows(tmp_path, name, zarr_format):
    compressor, bomb = BOMBS[name]
    if zarr_format == 3:
        inside = {"zstd": zarr.codecs.ZstdCodec(), "gzip": zarr.codecs.GzipCodec(), "blosc": zarr.codecs.BloscCodec()}
        compressor = inside.get(name.split()[0])
        if compressor is None:
            pytest.skip("zarr has no such codec in format 3")
    array = zarr.create_array(
        tmp_path / "a", shape=(100, 100), chunks=(50, 50), dtype="u1", compressors=compressor, zarr_format=zarr_format
    )
    array[...] = pixels = noise(100, 100)
    np.testing.assert_array_equal(open_array(str(tmp_path / "a"))[...], pixels, "the control: sound chunks are read")
    (tmp_path / "a" / ("1.0" if zarr_format == 2 else "c/1/0")).write_bytes(bomb)
    opened = open_array(str(tmp_path / "a"))
    np.testing.assert_array_equal(opened[:50], pixels[:50])
    before = largest_mib()
    with pytest.raises(TooLargeError, match="its shape allows"):
        opened[50:]
    assert largest_mib() - before < MOST_MIB


def test_a_frame_that_does_not_say_its_size_is_decoded_as_before(tmp_path):
    array = zarr.create_array(
        tmp_path / "a", shape=(50, 50), chunks=(50, 50), dtype="u1", compressors=numcodecs.Zstd(), zarr_format=2
    )
    array[...] = 1
    (tmp_path / "a" / "0.0").write_bytes(streamed(2500))
    assert not open_array(str(tmp_path / "a"))[...].any()


def test_shards_are_read_as_before_and_a_bomb_in_one_is_found(tmp_path):
    array = zarr.create_array(tmp_path / "a", shape=(96, 96), chunks=(32, 32), shards=(96, 96), dtype="u2")
    array[...] = pixels = noise(96, 96).astype("u2")
    opened = open_array(str(tmp_path / "a"))
    np.testing.assert_array_equal(opened[...], pixels)
    np.testing.assert_array_equal(opened[10:40, 3:70], pixels[10:40, 3:70])
    path = tmp_path / "a" / "c" / "0" / "0"
    stored = path.read_bytes()
    bomb = zstd_claim(CLAIM)
    n_index = 9 * 16
    index = np.frombuffer(stored[-n_index - 4 : -4], "<u8").reshape(9, 2).copy()
    index[4] = (len(stored) - n_index - 4, len(bomb))
    new = index.astype("<u8").tobytes()
    import google_crc32c

    path.write_bytes(stored[: -n_index - 4] + bomb + new + struct.pack("<I", google_crc32c.value(new)))
    np.testing.assert_array_equal(open_array(str(tmp_path / "a"))[:32], pixels[:32])
    with pytest.raises(TooLargeError):
        open_array(str(tmp_path / "a"))[32:64]


def test_a_bomb_in_a_slide_ends_the_run_with_the_block_s_name(tmp_path):
    slide = write_ome(tmp_path / "slide.ome.zarr", noise(40, 130), "yx", scale=(0.5, 0.5))
    model = write_model(tmp_path / "cells.safetensors")
    (slide / "0" / "c" / "0" / "1").write_bytes(zstd_claim(CLAIM))
    outcome = run("segment", slide, "-m", model, "-o", tmp_path / "out.ome.zarr", "--block", 64, "--tile", 64)
    assert isinstance(outcome, Outcome), outcome
    assert outcome.exit_code == 3
    assert "block (0, 1)" in outcome.err
    assert "200,000,000 bytes" in outcome.err
    assert "mend it first" in outcome.err


def edited(slide: Path, change: Callable[[dict], None]) -> Outcome:
    content = json.loads((slide / "zarr.json").read_text())
    change(content["attributes"]["ome"])
    (slide / "zarr.json").write_text(json.dumps(content))
    outcome = run("info", slide)
    assert isinstance(outcome, Outcome), outcome
    return outcome


def test_lists_in_metadata_have_limits(tmp_path):
    slide = write_ome(tmp_path / "slide.ome.zarr", noise(1, 40, 50), "cyx", channels=["a"])

    def many_levels(ome: dict) -> None:
        ome["multiscales"][0]["datasets"] *= 1_000

    def many_channels(ome: dict) -> None:
        ome["multiscales"][0]["datasets"] = ome["multiscales"][0]["datasets"][:1]
        ome["omero"]["channels"] *= 11_000

    outcome = edited(slide, many_levels)
    assert (outcome.exit_code, "datasets is a list of 1,000" in outcome.err) == (2, True), outcome
    outcome = edited(slide, many_channels)
    assert (outcome.exit_code, "channels is a list of 11,000" in outcome.err) == (2, True), outcome


@pytest.mark.slow
def test_a_hundred_thousand_levels_and_a_million_channels_are_refused(tmp_path):
    for name, at, number in (("datasets", ("multiscales", 0), 100_000), ("channels", ("omero",), 1_000_000)):
        slide = write_ome(tmp_path / name / "slide.ome.zarr", noise(1, 40, 50), "cyx", channels=["a"])

        def lengthen(ome: dict, name: str = name, at: tuple = at, number: int = number) -> None:
            for step in at:
                ome = ome[step]
            ome[name] *= number

        outcome = edited(slide, lengthen)
        assert outcome.exit_code == 2, outcome
        assert "a list of 100,000" in outcome.err or "bytes, expected at most" in outcome.err


@pytest.mark.parametrize("shape", [(1 << 40, 1 << 40), (1 << 62, 50), (10**30, 1)])
def test_shapes_have_limits(tmp_path, shape):
    slide = write_ome(tmp_path / "slide.ome.zarr", noise(40, 50), "yx")
    content = json.loads((slide / "0" / "zarr.json").read_text())
    (slide / "0" / "zarr.json").write_text(json.dumps({**content, "shape": shape}))
    outcome = run("info", slide)
    assert isinstance(outcome, Outcome), outcome
    assert outcome.exit_code == 2
    assert "shape is [" in outcome.err


def test_json_has_limits_of_size_and_depth(monkeypatch):
    monkeypatch.setattr(json_text, "MOST_BYTES", 1000)
    with pytest.raises(JsonError, match="it has 2,002 bytes, expected at most 1,000"):
        parse_json('"' + "x" * 2000 + '"')
    with pytest.raises(JsonError, match="nested more than 100 deep"):
        parse_json("[" * 101 + "]" * 101)
    assert parse_json("[" * 99 + "]" * 99)


def png(width: int, height: int) -> bytes:
    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def claiming_tiff(path: Path) -> None:
    """A TIFF of 64 x 64 px whose header says 2^30 x 2^30 in one strip."""
    tifffile.imwrite(path, noise(64, 64), compression="zlib", rowsperstrip=64)
    content = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        tags = {tag.code: tag for tag in file.pages[0].tags.values()}
    for code in (256, 257, 278):
        place = tags[code].valueoffset - 8  # of the whole entry: code, type, count, value
        struct.pack_into("<HHII", content, place, code, 4, 1, 1 << 30)
    path.write_bytes(content)


def test_pictures_that_claim_more_than_they_have_are_refused(tmp_path):
    (tmp_path / "huge.png").write_bytes(png(2**31 - 1, 2**31 - 1))
    claiming_tiff(tmp_path / "huge.tif")
    for name in ("huge.png", "huge.tif"):
        words = ("ingest", tmp_path / name, tmp_path / f"{name}.zarr", "--pixel-size", 1)
        before = largest_mib()
        outcome = run(*words)
        assert largest_mib() - before < MOST_MIB
        assert isinstance(outcome, Outcome), outcome
        assert outcome.exit_code == 2, outcome
        assert name in outcome.err
        assert not (tmp_path / f"{name}.zarr").exists()
