"""Microscope files to OME-Zarr: exact pixels, calibration, crash and resume, memory, bad input."""

import io
import json
import math
import os
import signal
import struct
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import imagecodecs
import numpy as np
import ome_zarr_models
import pytest
import tifffile
import zarr
from ome_zarr_models.common.omero import Omero
from PIL import Image

from segment_slide.pipeline.errors import (
    BlockError,
    InputError,
    OutputError,
    OutputMismatchError,
    PipelineError,
    PlanError,
    UnreadableChunkError,
)
from segment_slide.pipeline.ingest import tiff
from segment_slide.pipeline.ingest.options import IngestOptions
from segment_slide.pipeline.ingest.plan import IngestPlan, plan_ingest
from segment_slide.pipeline.ingest.run import run_ingest
from segment_slide.pipeline.readers import png
from segment_slide.pipeline.readers.reader import SegmentCache
from segment_slide.pipeline.storage import ome, store
from segment_slide.pipeline.storage.image import describe_image
from segment_slide.pipeline.storage.record import Results
from segment_slide.pipeline.storage.sections import write_section
from tests.tiers import exhaustive

REPOSITORY = Path(__file__).parents[3]
DATA = Path(os.environ.get("SEGMENT_SLIDE_DATA", REPOSITORY.parent / "shared" / "data"))
SMALL = IngestOptions(chunk=64, shard=128)
SHAPE = (300, 421)  # divides by neither chunk nor tile


@pytest.fixture
def real_data() -> Path:
    if not DATA.is_dir():
        pytest.skip(f"real data are not at {DATA}; set SEGMENT_SLIDE_DATA")
    return DATA


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def ingest(source: object, output: Path, options: IngestOptions = SMALL, **kwargs: object) -> IngestPlan:
    plan = plan_ingest(source, options)
    assert run_ingest(plan, output, **kwargs) == plan.n_shards
    return plan


def level(output: Path, number: int = 0) -> np.ndarray:
    return np.asarray(zarr.open_array(output / str(number), mode="r")[...])


def contents(output: Path) -> dict[str, bytes]:
    return {str(file.relative_to(output)): file.read_bytes() for file in output.rglob("*") if file.is_file()}


def shard_times(output: Path) -> dict[str, int]:
    """Of what is stored; a kill in mid-write leaves a ``.partial``, which is not."""
    files = (file for file in output.rglob("*") if file.is_file() and file.suffix != ".partial")
    shards = (file for file in files if "c" in file.relative_to(output).parts)
    return {str(file.relative_to(output)): file.stat().st_mtime_ns for file in shards}


def half_mean(image: np.ndarray) -> np.ndarray:
    """2x2 means along the last two axes, one pixel at a time: the slow, obvious way."""
    *lead, height, width = image.shape
    out = np.empty((*lead, -(-height // 2), -(-width // 2)), image.dtype)
    for row, column in np.ndindex(out.shape[-2:]):
        square = image[..., 2 * row : 2 * row + 2, 2 * column : 2 * column + 2].astype(np.float64)
        mean = square.mean(axis=(-2, -1))
        out[..., row, column] = np.floor(mean + 0.5) if image.dtype.kind in "ui" else mean
    return out


# --- pixels -----------------------------------------------------------------------------------------------------


FILES = [
    {},
    {"rowsperstrip": 7},
    {"rowsperstrip": 7, "compression": "zlib", "predictor": True},
    {"rowsperstrip": 300, "compression": "zstd"},
    {"tile": (64, 80)},
    {"tile": (64, 80), "compression": "lzw"},
    {"tile": (512, 512), "compression": "zlib"},
    {"bigtiff": True, "tile": (64, 64), "compression": "deflate"},
    {"byteorder": ">"},
    {"byteorder": ">", "tile": (64, 64), "compression": "zlib", "predictor": True},
]
DTYPES = ["uint8", "uint16", "float32"]
# the quick tests see each way to write a file with one dtype
FILES_AND_DTYPES = [
    (pytest.param if (file + dtype) % 3 == 1 else exhaustive)(
        DTYPES[dtype], FILES[file], id=f"{DTYPES[dtype]}-{FILES[file]}"
    )
    for dtype in range(3)
    for file in range(10)
]


@pytest.mark.parametrize(("dtype", "kwargs"), FILES_AND_DTYPES)
def test_pixels_of_a_plane_are_those_that_tifffile_reads(
    tmp_path: Path, rng: np.random.Generator, dtype: str, kwargs: dict
) -> None:
    image = (rng.random(SHAPE) * 250).astype(dtype)
    tifffile.imwrite(
        tmp_path / "image.tif", image.astype(image.dtype.newbyteorder(kwargs.get("byteorder", "="))), **kwargs
    )
    plan = ingest(tmp_path / "image.tif", tmp_path / "out.zarr")
    assert (plan.axes, plan.shape, plan.dtype) == ("yx", SHAPE, dtype)
    np.testing.assert_array_equal(level(tmp_path / "out.zarr"), image)
    assert zarr.open_array(tmp_path / "out.zarr/0").dtype == np.dtype(dtype)


@pytest.mark.parametrize(
    "kwargs",
    [{}, {"tile": (64, 64), "compression": "zlib"}, {"compression": "jpeg", "tile": (64, 64)}],
    ids=["strips", "zlib tiles", "jpeg tiles"],
)
def test_interleaved_rgb_becomes_one_chunk_of_three_named_channels(
    tmp_path: Path, rng: np.random.Generator, kwargs: dict
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", rng.integers(0, 255, (*SHAPE, 3), dtype=np.uint8), photometric="rgb", **kwargs)
    plan = ingest(tmp_path / "a.tif", tmp_path / "out.zarr")
    assert (plan.axes, plan.image.channel_names) == ("cyx", ("R", "G", "B"))
    array = zarr.open_array(tmp_path / "out.zarr/0")
    assert (array.chunks, array.shards) == ((3, 64, 64), (3, 128, 128))
    np.testing.assert_array_equal(array[...], np.moveaxis(tifffile.imread(tmp_path / "a.tif"), -1, 0))


@pytest.mark.parametrize("kwargs", [{}, {"tile": (64, 64), "compression": "zstd"}], ids=["raw", "tiles"])
def test_rgb_in_separate_planes_is_read_like_interleaved(
    tmp_path: Path, rng: np.random.Generator, kwargs: dict
) -> None:
    image = rng.integers(0, 255, (3, *SHAPE), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", image, planarconfig="separate", photometric="rgb", **kwargs)
    assert ingest(tmp_path / "a.tif", tmp_path / "out.zarr").image.is_rgb
    np.testing.assert_array_equal(level(tmp_path / "out.zarr"), image)


def test_an_alpha_channel_is_left_out_and_the_plan_says_so(tmp_path: Path, rng: np.random.Generator) -> None:
    image = rng.integers(0, 255, (50, 60, 4), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="rgb", extrasamples=["unassalpha"])
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(image))
    for name in ("a.tif", "a.png"):
        plan = ingest(tmp_path / name, tmp_path / f"{name}.zarr")
        assert any("is alpha" in note and "not used" in note for note in plan.notes)
        np.testing.assert_array_equal(level(tmp_path / f"{name}.zarr"), np.moveaxis(image[..., :3], -1, 0))


@pytest.mark.parametrize(
    ("axes", "kwargs"),
    [("TCZYX", {}), ("TZCYX", {"compression": "zlib"}), ("ZTCYX", {"tile": (64, 64)})],
    ids=str,
)
def test_ome_tiff_of_any_order_is_stored_as_tczyx_with_calibration(
    tmp_path: Path, rng: np.random.Generator, axes: str, kwargs: dict
) -> None:
    sizes = {"T": 2, "C": 3, "Z": 4, "Y": 71, "X": 93}
    image = rng.integers(0, 65535, [sizes[axis] for axis in axes], dtype=np.uint16)
    metadata = {
        "axes": axes,
        "PhysicalSizeX": 0.25,
        "PhysicalSizeY": 300,
        "PhysicalSizeYUnit": "nm",
        "PhysicalSizeZ": 1.5,
        "TimeIncrement": 2000,
        "TimeIncrementUnit": "ms",
        "Channel": {"Name": ["DAPI", "GFP", "Cy5"]},
    }
    tifffile.imwrite(tmp_path / "a.ome.tif", image, metadata=metadata, photometric="minisblack", **kwargs)
    plan = ingest(tmp_path / "a.ome.tif", tmp_path / "out.zarr")
    assert (plan.axes, plan.image.channel_names) == ("tczyx", ("DAPI", "GFP", "Cy5"))
    np.testing.assert_array_equal(level(tmp_path / "out.zarr"), image.transpose([axes.index(a) for a in "TCZYX"]))
    found = describe_image(tmp_path / "out.zarr").multiscale
    assert found.units == ("second", None, "micrometer", "micrometer", "micrometer")
    np.testing.assert_allclose(found.levels[0].scale, (2.0, 1.0, 1.5, 0.3, 0.25))
    assert found.channel_names == ("DAPI", "GFP", "Cy5")


def write_ome_set(folder: Path, image: np.ndarray, **kwargs: object) -> list[Path]:
    """One OME-TIFF file per channel, each with the whole set's metadata."""
    height, width = image.shape[1:]
    names = [f"c{channel}.ome.tif" for channel in range(len(image))]
    uuids = [f"urn:uuid:{channel:08}-1111-1111-1111-111111111111" for channel in range(len(image))]
    planes = "".join(
        f'<TiffData FirstC="{channel}" IFD="0" PlaneCount="1"><UUID FileName="{name}">{uuid}</UUID></TiffData>'
        for channel, (name, uuid) in enumerate(zip(names, uuids, strict=True))
    )
    for plane, name, uuid in zip(image, names, uuids, strict=True):
        xml = (
            f'<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="{uuid}">'
            f'<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="{image.dtype}" SizeX="{width}" '
            f'SizeY="{height}" SizeZ="1" SizeC="{len(image)}" SizeT="1">{planes}</Pixels></Image></OME>'
        )
        tifffile.imwrite(folder / name, plane, description=xml, metadata=None, **kwargs)
    return [folder / name for name in names]


@pytest.mark.parametrize("kwargs", [{}, {"tile": (32, 32), "compression": "zlib"}], ids=["raw", "tiles"])
def test_an_ome_tiff_of_several_files_is_one_image_and_refused_when_one_is_missing(
    tmp_path: Path, rng: np.random.Generator, kwargs: dict
) -> None:
    image = rng.integers(0, 65535, (3, 90, 80), dtype=np.uint16)
    paths = write_ome_set(tmp_path, image, **kwargs)
    plan = ingest(paths[0], tmp_path / "out.zarr")
    assert plan.record.ingested_from.n_files == 3
    np.testing.assert_array_equal(level(tmp_path / "out.zarr"), image)
    paths[2].unlink()
    with pytest.raises(InputError, match="1 of 3 planes are missing"):
        plan_ingest(paths[0])


def test_an_imagej_stack_with_one_directory_for_all_its_planes_is_read_whole(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    """How ImageJ writes stacks of more than 4 GB."""
    image = rng.integers(0, 65535, (7, 50, 61), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", image, imagej=True)
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+b") as tif:
        file, offset = tif.filehandle, tif.pages[0].offset
        file.seek(offset)
        n_tags = struct.unpack(f"{tif.byteorder}H", file.read(2))[0]
        file.seek(offset + 2 + 12 * n_tags)
        file.write(bytes(4))  # no next directory
    ingest(tmp_path / "a.tif", tmp_path / "out.zarr")
    np.testing.assert_array_equal(level(tmp_path / "out.zarr"), image)
    os.truncate(tmp_path / "a.tif", (tmp_path / "a.tif").stat().st_size - 10_000)
    with pytest.raises(InputError, match="cut short"):
        plan_ingest(tmp_path / "a.tif")


def test_channels_that_are_no_colours_and_planes_have_chunks_of_their_own(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.ome.tif", np.zeros((2, 3, 70, 80), np.uint16), metadata={"axes": "CZYX"})
    plan = plan_ingest(tmp_path / "a.ome.tif")
    assert plan.levels[0].chunk == (1, 1, 512, 512)
    assert plan.levels[0].shard == (1, 1, 2048, 2048)


def test_imagej_hyperstack_keeps_its_micrometres_and_seconds(tmp_path: Path, rng: np.random.Generator) -> None:
    image = rng.integers(0, 65535, (2, 4, 3, 50, 61), dtype=np.uint16)
    metadata = {"axes": "TZCYX", "unit": "um", "spacing": 0.7, "finterval": 3}
    tifffile.imwrite(tmp_path / "a.tif", image, imagej=True, resolution=(4.0, 2.0), metadata=metadata)
    plan = ingest(tmp_path / "a.tif", tmp_path / "out.zarr")
    assert plan.multiscale.levels[0].scale == (3.0, 1.0, 0.7, 0.5, 0.25)
    np.testing.assert_array_equal(level(tmp_path / "out.zarr"), image.swapaxes(1, 2))


def test_pages_without_names_are_z_unless_the_user_says_otherwise(tmp_path: Path, rng: np.random.Generator) -> None:
    image = rng.integers(0, 255, (5, 70, 80), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="minisblack", compression="zlib", metadata=None)
    assert any("taken as z" in note for note in plan_ingest(tmp_path / "a.tif").notes)
    for axes in ("zyx", "cyx", "tyx"):
        plan = ingest(tmp_path / "a.tif", tmp_path / axes, IngestOptions(chunk=64, shard=64, axes=axes))
        assert plan.axes == axes
        np.testing.assert_array_equal(level(tmp_path / axes), image)


@pytest.mark.parametrize(
    ("dtype", "stored"),
    [(name, name) for name in ("int8", "int16", "int32", "uint32", "uint64", "int64")]
    + [("bool", "uint8"), ("float16", "float32"), ("float64", "float32")],
)
def test_integers_are_kept_exactly_and_other_dtypes_become_what_viewers_show(
    tmp_path: Path, rng: np.random.Generator, dtype: str, stored: str
) -> None:
    limits = np.iinfo(dtype) if np.dtype(dtype).kind in "iu" else None
    image = (
        rng.integers(limits.min, limits.max, (40, 50), dtype) if limits else (rng.random((40, 50)) * 2).astype(dtype)
    )
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="minisblack")
    plan = ingest(tmp_path / "a.tif", tmp_path / "out.zarr")
    assert plan.dtype == stored
    assert (f"{dtype} is stored as {stored}" in plan.notes) == (dtype != stored)
    np.testing.assert_array_equal(level(tmp_path / "out.zarr"), image.astype(stored))


def test_one_pixel_is_an_image(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.array([[7]], np.uint8))
    plan = ingest(tmp_path / "a.tif", tmp_path / "out.zarr", IngestOptions())
    assert len(plan.levels) == 1
    assert level(tmp_path / "out.zarr").tolist() == [[7]]


def test_a_slide_is_read_at_full_resolution_with_its_microns_per_pixel(tmp_path: Path, real_data: Path) -> None:
    path = real_data / "wsi" / "CMU-1-Small-Region.svs"
    plan = ingest(path, tmp_path / "out.zarr", IngestOptions())
    assert (plan.shape, plan.image.channel_names) == ((3, 2967, 2220), ("R", "G", "B"))
    assert plan.multiscale.levels[0].scale == (1.0, 0.499, 0.499)
    assert "series 0 of 4 (Baseline)" in plan.notes
    np.testing.assert_array_equal(level(tmp_path / "out.zarr"), np.moveaxis(tifffile.imread(path), -1, 0))
    assert plan_ingest(path, IngestOptions(series=3)).shape == (3, 431, 1280)


def test_aperio_jpeg_2000_in_rgb_is_read_and_in_ycbcr_refused(tmp_path: Path, rng: np.random.Generator) -> None:
    image = rng.integers(0, 255, (100, 110, 3), dtype=np.uint8)
    path = tmp_path / "a.svs"
    tifffile.imwrite(path, image, compression="APERIO_JP2000_RGB", tile=(64, 64), photometric="rgb")
    ingest(path, tmp_path / "out.zarr")
    np.testing.assert_array_equal(level(tmp_path / "out.zarr"), np.moveaxis(image, -1, 0))
    with tifffile.TiffFile(path, mode="r+b") as tif:
        tif.pages[0].tags["Compression"].overwrite(33003)
    with pytest.raises(InputError, match=r"YCbCr.*wrong colours"):
        plan_ingest(path)


def write_ndpi(path: Path, images: list[np.ndarray], magnifications: list[float]) -> None:
    """A minimal Hamamatsu NDPI: 64-bit offsets in a classic TIFF, each page one JPEG whose restart markers are indexed.

    Layout as tifffile reads it: after an IFD's 12-byte entries come the next IFD's offset (8 bytes) and, for each
    entry, the high 4 bytes of its value.
    """
    out = io.BytesIO(b"II*\0" + bytes(8))
    out.seek(0, io.SEEK_END)
    link = 4
    for image, magnification in zip(images, magnifications, strict=True):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=90, subsampling=0, restart_marker_blocks=16)
        jpeg = buffer.getvalue()
        scan = jpeg.index(b"\xff\xda")
        first = scan + 2 + struct.unpack(">H", jpeg[scan + 2 : scan + 4])[0]
        starts = [
            first,
            *(i + 2 for i in range(first, len(jpeg) - 1) if jpeg[i] == 0xFF and 0xD0 <= jpeg[i + 1] <= 0xD7),
        ]
        data = {273: jpeg, 258: struct.pack("<3H", 8, 8, 8), 282: struct.pack("<2I", 40000, 1)}
        data[65426] = struct.pack(f"<{len(starts)}I", *starts)
        offsets = {}
        for tag, payload in data.items():
            offsets[tag] = out.tell()
            out.write(payload)
        height, width = image.shape[:2]
        entries = [
            (256, 4, 1, width), (257, 4, 1, height), (258, 3, 3, offsets[258]), (259, 3, 1, 7), (262, 3, 1, 6),
            (271, 2, 4, int.from_bytes(b"Ham\0", "little")), (273, 4, 1, offsets[273]), (277, 3, 1, 3),
            (278, 4, 1, height), (279, 4, 1, len(jpeg)), (282, 5, 1, offsets[282]), (283, 5, 1, offsets[282]),
            (296, 3, 1, 3), (65420, 4, 1, 1),
            (65421, 11, 1, struct.unpack("<I", struct.pack("<f", magnification))[0]),
            (65424, 9, 1, 0), (65426, 4, len(starts), offsets[65426]),
        ]  # fmt: skip
        ifd = out.tell()
        out.write(struct.pack("<H", len(entries)))
        for entry in entries:
            out.write(struct.pack("<HHII", *entry))
        next_link = out.tell()
        out.write(bytes(8 + 4 * len(entries)))
        out.seek(link)
        out.write(struct.pack("<Q", ifd))
        out.seek(0, io.SEEK_END)
        link = next_link
    path.write_bytes(out.getvalue())


def test_an_ndpi_slide_is_read_tile_by_tile_of_its_restart_markers(tmp_path: Path, rng: np.random.Generator) -> None:
    path = tmp_path / "a.ndpi"
    coarse = rng.integers(0, 255, (22, 32, 3), dtype=np.uint8)
    slide, macro = coarse.repeat(16, 0).repeat(16, 1), coarse.repeat(8, 0).repeat(8, 1)
    write_ndpi(path, [macro, slide], [-1.0, 20.0])
    plan = ingest(path, tmp_path / "out.zarr")
    assert plan.shape == (3, 352, 512)
    assert plan.image.segment == (8, 128)
    assert plan.multiscale.levels[0].scale == (1.0, 0.25, 0.25)
    expected = tifffile.imread(path, series=1)
    assert expected.shape == slide.shape
    assert np.abs(expected.astype(int) - slide).mean() < 5  # the file that is written here is a true JPEG
    np.testing.assert_array_equal(level(tmp_path / "out.zarr"), np.moveaxis(expected, -1, 0))


def test_a_files_own_coarser_levels_are_ignored(tmp_path: Path, rng: np.random.Generator) -> None:
    image = rng.integers(0, 255, (256, 256), dtype=np.uint8)
    with tifffile.TiffWriter(tmp_path / "a.tif") as tif:
        tif.write(image, tile=(64, 64), subifds=1)
        tif.write(np.zeros((128, 128), np.uint8), tile=(64, 64), subfiletype=1)
    ingest(tmp_path / "a.tif", tmp_path / "out.zarr")
    np.testing.assert_array_equal(level(tmp_path / "out.zarr", 1), half_mean(image))


def test_tiles_that_a_sparse_file_leaves_out_are_its_no_data_value(tmp_path: Path, rng: np.random.Generator) -> None:
    image = rng.integers(0, 255, (128, 128), dtype=np.uint8)
    tiles = (image[:64, :64].tobytes(), b"", b"", image[64:, 64:].tobytes())
    tifffile.imwrite(
        tmp_path / "a.tif", iter(tiles), shape=image.shape, dtype=np.uint8, tile=(64, 64), compression=None
    )
    ingest(tmp_path / "a.tif", tmp_path / "out.zarr")
    np.testing.assert_array_equal(level(tmp_path / "out.zarr"), tifffile.imread(tmp_path / "a.tif"))


# --- stacks of pages ----------------------------------------------------------------------------------------------


def test_a_folder_of_slices_is_one_z_stack(tmp_path: Path, real_data: Path) -> None:
    folder = real_data / "isbi2012" / "image"
    options = IngestOptions(chunk=256, shard=512, pixel_size={"z": 0.05, "y": 0.004, "x": 0.004})
    plan = ingest(folder, tmp_path / "out.zarr", options)
    assert (plan.axes, plan.shape, plan.levels[0].chunk) == ("zyx", (30, 512, 512), (1, 256, 256))
    assert plan.multiscale.levels[1].scale == (0.05, 0.008, 0.008)
    expected = np.stack([imagecodecs.imread(str(folder / f"{number:02}.png")) for number in range(30)])
    np.testing.assert_array_equal(level(tmp_path / "out.zarr"), expected)


@pytest.mark.parametrize("as_folder", [True, False], ids=["folder", "files in shell order"])
def test_pages_are_in_natural_order(tmp_path: Path, as_folder: bool) -> None:
    folder = tmp_path / "pages"
    folder.mkdir()
    for number in (1, 2, 10):
        tifffile.imwrite(folder / f"img{number}.tif", np.full((40, 50), number, np.uint8))
    (folder / "README.txt").write_text("not a page")
    (folder / "._img1.tif").write_text("a file manager's leftover")
    plan = ingest(folder if as_folder else sorted(folder.glob("img*")), tmp_path / "out.zarr")
    assert [Path(file).name for file in plan.files] == ["img1.tif", "img2.tif", "img10.tif"]
    assert level(tmp_path / "out.zarr")[:, 0, 0].tolist() == [1, 2, 10]


def test_pages_in_colour_or_as_channels_are_stacked_on_the_right_axis(tmp_path: Path, rng: np.random.Generator) -> None:
    colour, grey = rng.integers(0, 255, (4, 40, 50, 3), dtype=np.uint8), rng.integers(0, 60000, (2, 40, 50), np.uint16)
    for number, page in enumerate(colour):
        (tmp_path / f"rgb{number}.png").write_bytes(imagecodecs.png_encode(page))
    for number, page in enumerate(grey):
        (tmp_path / f"c{number}.png").write_bytes(imagecodecs.png_encode(page))
    ingest(list(tmp_path.glob("rgb*")), tmp_path / "z.zarr")
    np.testing.assert_array_equal(level(tmp_path / "z.zarr"), colour.transpose(3, 0, 1, 2))
    channels = IngestOptions(chunk=64, shard=64, stack_axis="c")
    assert ingest(list(tmp_path.glob("c*.png")), tmp_path / "c.zarr", channels).image.channel_names == ("c0", "c1")
    np.testing.assert_array_equal(level(tmp_path / "c.zarr"), grey)


# --- pyramid, calibration, metadata -------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
def test_each_level_is_the_local_mean_of_the_one_before_on_odd_sizes(
    tmp_path: Path, rng: np.random.Generator, dtype: str
) -> None:
    image = (rng.random((2, 131, 203)) * 250 - (100 if dtype == "int16" else 0)).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="minisblack")
    plan = ingest(tmp_path / "a.tif", tmp_path / "out.zarr", IngestOptions(chunk=16, shard=32))
    assert [spec.shape[1:] for spec in plan.levels] == [(131, 203), (66, 102), (33, 51), (17, 26), (9, 13)]
    for number in range(1, 5):
        expected = image = half_mean(image)
        np.testing.assert_array_equal(level(tmp_path / "out.zarr", number), expected)


def test_a_levels_voxels_have_their_centres_in_the_middle_of_what_they_average(tmp_path: Path) -> None:
    tifffile.imwrite(
        tmp_path / "a.tif", np.zeros((600, 700), np.uint8), resolution=(20000, 40000), resolutionunit="centimeter"
    )
    plan = ingest(tmp_path / "a.tif", tmp_path / "out.zarr", IngestOptions(chunk=128, shard=256))
    found = describe_image(tmp_path / "out.zarr").multiscale
    assert found.units == ("micrometer", "micrometer")
    for number, one in enumerate(found.levels):
        np.testing.assert_allclose(one.scale, (0.25 * 2**number, 0.5 * 2**number))
        np.testing.assert_allclose(one.translation, (0.125 * (2**number - 1), 0.25 * (2**number - 1)))
    assert len(plan.levels) == 4


@pytest.mark.parametrize("unit", ["inch", "none"])
def test_a_printers_resolution_is_no_pixel_size(tmp_path: Path, unit: str) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((8, 8), np.uint8), resolution=(72, 72), resolutionunit=unit)
    plan = plan_ingest(tmp_path / "a.tif")
    assert plan.multiscale.units == (None, None)
    assert any("printer" in note for note in plan.notes) == (unit == "inch")


def test_the_pixel_size_of_a_png_is_read(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((8, 9), np.uint8)).save(tmp_path / "a.png", dpi=(50800, 50800))
    assert plan_ingest(tmp_path / "a.png").multiscale.levels[0].scale == pytest.approx((0.5, 0.5))


@pytest.mark.parametrize(("dtype", "window"), [("uint8", (0, 255)), ("uint16", (100, 4095)), ("float32", (100, 4095))])
def test_the_output_is_valid_ome_zarr_with_channels_a_viewer_shows_bright(
    tmp_path: Path, dtype: str, window: tuple[int, int]
) -> None:
    image = np.full((2, 60, 50), 100).astype(dtype)
    image[:, 7, 7] = 200 if dtype == "uint8" else 4095
    tifffile.imwrite(tmp_path / "cells 1.ome.tif", image, metadata={"axes": "CYX", "PhysicalSizeX": 0.5})
    ingest(tmp_path / "cells 1.ome.tif", tmp_path / "out.zarr")
    group = ome_zarr_models.open_ome_zarr(zarr.open_group(tmp_path / "out.zarr", mode="r"))
    channels = Omero.model_validate(group.attributes.ome.omero).channels
    assert [channel.label for channel in channels] == ["channel 0", "channel 1"]
    assert (channels[0].window.start, channels[0].window.end) == window
    assert group.attributes.ome.multiscales[0].name == "cells 1"


def test_the_record_says_where_the_pixels_came_from_and_no_time(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((8, 8), np.uint8))
    ingest(tmp_path / "a.tif", tmp_path / "out.zarr")
    record = store.read_attributes(str(tmp_path / "out.zarr"))["segment_slide"]
    assert set(record) == {"ingested_from", "parameters", "code_version", "results"}
    assert record["ingested_from"]["name"] == "a.tif"
    assert record["ingested_from"]["size_bytes"] == (tmp_path / "a.tif").stat().st_size
    ingest(tmp_path / "a.tif", tmp_path / "again.zarr", threads=1)
    assert contents(tmp_path / "out.zarr") == contents(tmp_path / "again.zarr")


# --- plan, memory, reads ------------------------------------------------------------------------------------------


def test_planning_reads_no_pixel_and_creates_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((256, 256), np.uint8), tile=(64, 64), compression="zlib")
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(np.zeros((30, 30), np.uint8)))
    for reader in (tiff.TiffReader, png.PngReader):
        monkeypatch.setattr(reader, "read", lambda *_: pytest.fail("a pixel was read"))
        monkeypatch.setattr(reader, "_decode", lambda *_: pytest.fail("a pixel was read"))
    plan_ingest(tmp_path / "a.tif")
    plan_ingest(tmp_path / "a.png")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.png", "a.tif"]


@pytest.mark.parametrize("threads", [1, 3])
def test_a_strip_as_wide_as_the_image_is_decoded_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((512, 1024), np.uint8), rowsperstrip=32, compression="zlib")
    decoded = []
    decode = tiff.TiffReader._decode
    monkeypatch.setattr(tiff.TiffReader, "_decode", lambda *a: decoded.append(a[-1]) or decode(*a))
    ingest(tmp_path / "a.tif", tmp_path / "out.zarr", threads=threads)
    assert set(decoded) == set(range(16))
    # a thread that the system holds up for long comes back to strips that were forgotten meanwhile
    assert len(decoded) == 16 if threads == 1 else len(decoded) < 2 * 16


def test_the_segment_cache_stays_within_its_bytes_and_decodes_again_what_it_forgot() -> None:
    cache, decoded = SegmentCache(250), []

    def get(key: int) -> None:
        cache.get(key, lambda: decoded.append(key) or np.zeros(100, np.uint8))

    for key in (1, 2, 1, 3, 1, 2):  # 3 evicts 2, the longest unused
        get(key)
    assert decoded == [1, 2, 3, 2]
    assert cache._held_bytes == 200


def test_an_error_of_a_segment_is_not_remembered() -> None:
    cache = SegmentCache(10)
    with pytest.raises(OSError, match="gone"):
        cache.get("a", lambda: (_ for _ in ()).throw(OSError("gone")))
    assert cache.get("a", lambda: np.zeros(1)).shape == (1,)


def test_a_plan_that_does_not_fit_names_what_to_change(tmp_path: Path) -> None:
    image = np.zeros((3000, 3000), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", image, rowsperstrip=3000, compression="zlib")
    plan = plan_ingest(tmp_path / "a.tif")
    assert plan.cache_bytes == image.nbytes
    with pytest.raises(PlanError, match=r"needs \d+ MiB .* shard below 2048 px"):
        plan_ingest(tmp_path / "a.tif", memory_bytes=10 << 20)


@pytest.mark.parametrize(("chunk", "shard"), [(512, 1000), (0, 512), (512, 256)])
def test_a_shard_that_is_no_multiple_of_the_chunk_is_refused(tmp_path: Path, chunk: int, shard: int) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((8, 8), np.uint8))
    with pytest.raises(PlanError, match="not a multiple of chunk"):
        plan_ingest(tmp_path / "a.tif", IngestOptions(chunk=chunk, shard=shard))


def run_python(code: str, *arguments: object) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=280)


@pytest.mark.slow
def test_memory_stays_far_below_the_image_and_within_the_plan(tmp_path: Path) -> None:
    shape = (9000, 12000, 3)
    tile = np.random.default_rng(0).integers(0, 255, (256, 256, 3), dtype=np.uint8).repeat(4, 0)[:256]
    n_tiles = -(-shape[0] // 256) * -(-shape[1] // 256)
    tiles = (np.roll(tile, number, 0) for number in range(n_tiles))
    tifffile.imwrite(
        tmp_path / "a.tif", tiles, shape=shape, dtype=np.uint8, tile=(256, 256), photometric="rgb", compression="zstd"
    )
    code = """
        import sys, threading, psutil
        from segment_slide.pipeline.ingest.options import IngestOptions
        from segment_slide.pipeline.ingest.plan import plan_ingest
        from segment_slide.pipeline.ingest.run import run_ingest
        options = IngestOptions(chunk=512, shard=1024)
        tiny, image, out = sys.argv[1:]
        run_ingest(plan_ingest(tiny), out + "-tiny")  # libraries are loaded
        plan = plan_ingest(image, options)
        process, rss, done = psutil.Process(), [], threading.Event()
        before = process.memory_info().rss
        def watch():
            while not done.wait(0.005):
                rss.append(process.memory_info().rss)
        thread = threading.Thread(target=watch)
        thread.start()
        run_ingest(plan, out, threads=1)
        done.set()
        thread.join()
        print(max(rss) - before, plan.peak_bytes(1))
    """
    tifffile.imwrite(tmp_path / "tiny.tif", np.zeros((600, 600), np.uint8), compression="zlib")
    result = run_python(code, tmp_path / "tiny.tif", tmp_path / "a.tif", tmp_path / "out.zarr")
    assert result.returncode == 0, result.stderr
    growth, planned = map(int, result.stdout.split())
    assert growth <= planned, (growth, planned)
    assert growth < math.prod(shape) / 2, f"{growth} of {planned} bytes"


# --- crash, resume, other outputs ---------------------------------------------------------------------------------

INTERRUPTED = """
    import os, signal, sys
    from segment_slide.pipeline.ingest.options import IngestOptions
    from segment_slide.pipeline.ingest.plan import plan_ingest
    from segment_slide.pipeline.ingest.run import run_ingest
    source, output, kill_at = sys.argv[1], sys.argv[2], int(sys.argv[3])
    def on_progress(done, total):
        if done == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
    plan = plan_ingest(source, IngestOptions(chunk=64, shard=128))
    run_ingest(plan, output, threads=2, on_progress=on_progress)
"""


@pytest.fixture
def slide(tmp_path: Path, rng: np.random.Generator) -> Path:
    image = rng.integers(0, 255, (500, 421, 3), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "slide.tif", image, tile=(48, 80), compression="zlib", photometric="rgb")
    return tmp_path / "slide.tif"


@pytest.mark.slow
@pytest.mark.parametrize("kill_at", [0, 5, 16, 19], ids=["just created", "level 0", "end of level 0", "pyramid"])
def test_a_killed_ingest_goes_on_and_ends_with_the_bytes_of_an_undisturbed_one(
    tmp_path: Path, slide: Path, kill_at: int
) -> None:
    plan = ingest(slide, tmp_path / "whole.zarr")
    killed = run_python(INTERRUPTED, slide, tmp_path / "out.zarr", kill_at)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    before = shard_times(tmp_path / "out.zarr")
    assert kill_at <= len(before) < plan.n_shards
    (tmp_path / "out.zarr/0/zarr.json.0123456789abcdef0123456789abcdef.partial").write_bytes(
        b"what a kill in mid-write leaves"
    )
    calls = []
    written = run_ingest(plan, tmp_path / "out.zarr", on_progress=lambda *call: calls.append(call))
    assert written == plan.n_shards - len(before)
    assert calls == [(done, plan.n_shards) for done in range(len(before), plan.n_shards + 1)]
    after = shard_times(tmp_path / "out.zarr")
    assert {name: after[name] for name in before} == before
    assert contents(tmp_path / "out.zarr") == contents(tmp_path / "whole.zarr")


def test_a_kill_while_the_arrays_are_created_is_recovered_from(tmp_path: Path, slide: Path) -> None:
    plan = ingest(slide, tmp_path / "whole.zarr")
    store.create_group(str(tmp_path / "out.zarr"), "", plan.levels[:2], {})
    (tmp_path / "out.zarr/zarr.json").unlink()  # the group's metadata come last
    assert run_ingest(plan, tmp_path / "out.zarr") == plan.n_shards
    assert contents(tmp_path / "out.zarr") == contents(tmp_path / "whole.zarr")


def left_by_an_earlier_version(plan: IngestPlan, out: Path, *names: str, n_levels: int = 2) -> None:
    """What 0.1.0 left if it was killed while it wrote a group's attributes one by one: arrays, and some attributes."""
    attributes = {"ome": ome.multiscale_attributes(plan.multiscale)}
    store.create_group(str(out), "", plan.levels[:n_levels], {name: attributes[name] for name in names})


@pytest.mark.parametrize("names", [(), ("ome",)], ids=["no attribute", "half of them"])
@pytest.mark.parametrize("n_levels", [0, 2])
def test_a_group_that_an_earlier_version_left_without_its_record_is_gone_on_with(
    tmp_path: Path, slide: Path, names: tuple[str, ...], n_levels: int
) -> None:
    plan = ingest(slide, tmp_path / "whole.zarr")
    left_by_an_earlier_version(plan, tmp_path / "out.zarr", *names, n_levels=n_levels)
    assert run_ingest(plan, tmp_path / "out.zarr") == plan.n_shards
    assert contents(tmp_path / "out.zarr") == contents(tmp_path / "whole.zarr")


@pytest.mark.parametrize("what", ["pixels", "a file", "an attribute", "other metadata", "another array"])
def test_a_group_without_our_record_that_holds_anything_else_stays_as_it_is(
    tmp_path: Path, slide: Path, what: str
) -> None:
    plan, out = plan_ingest(slide, SMALL), tmp_path / "out.zarr"
    left_by_an_earlier_version(plan, out, "ome")
    if what == "pixels":
        store.open_array(str(out), "0", writable=True)[:, :8, :8] = 1
    elif what == "a file":
        (out / "notes.txt").write_text("mine")
    elif what == "an attribute":
        store.update_attributes(str(out), "", {"mine": 1})
    elif what == "other metadata":
        store.update_attributes(str(out), "", {"ome": {"version": "0.5"}})
    else:
        store.create_group(str(out), "", [replace(plan.levels[1], shape=(3, 9, 9))], {})
    before = contents(out)
    with pytest.raises(OutputError, match="is a Zarr group that ingest did not write"):
        run_ingest(plan, out)
    assert contents(out) == before


def test_a_kill_before_the_channels_are_described_is_recovered_from(tmp_path: Path, slide: Path) -> None:
    plan = ingest(slide, tmp_path / "out.zarr")
    whole = contents(tmp_path / "out.zarr")
    attributes = store.read_attributes(str(tmp_path / "out.zarr"))
    del attributes["ome"]["omero"]
    store.update_attributes(str(tmp_path / "out.zarr"), "", {"ome": attributes["ome"]})
    assert run_ingest(plan, tmp_path / "out.zarr") == 0
    assert contents(tmp_path / "out.zarr") == whole


def test_a_complete_output_is_left_alone(tmp_path: Path, slide: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = ingest(slide, tmp_path / "out.zarr")
    before, calls = shard_times(tmp_path / "out.zarr"), []
    monkeypatch.setattr("segment_slide.pipeline.ingest.run.open_source", lambda *_: pytest.fail("the input was opened"))
    assert run_ingest(plan, tmp_path / "out.zarr", on_progress=lambda *call: calls.append(call)) == 0
    assert calls == [(plan.n_shards, plan.n_shards)]
    assert shard_times(tmp_path / "out.zarr") == before


@pytest.mark.parametrize(
    ("change", "named"),
    [("pixels", "ingested_from.fingerprint"), ("chunk", "parameters.chunk"), ("calibration", "parameters.pixel_size")],
)
def test_an_output_of_another_input_or_other_choices_is_refused_naming_what_differs(
    tmp_path: Path, slide: Path, change: str, named: str
) -> None:
    ingest(slide, tmp_path / "out.zarr")
    before = contents(tmp_path / "out.zarr")
    options = {
        "pixels": SMALL,
        "chunk": IngestOptions(chunk=32, shard=128),
        "calibration": IngestOptions(chunk=64, shard=128, pixel_size={"x": 0.5}),
    }
    if change == "pixels":
        image = tifffile.imread(slide)
        image[0, 0] ^= 1
        tifffile.imwrite(slide, image, tile=(48, 80), compression="zlib", photometric="rgb")
    with pytest.raises(OutputMismatchError, match=named):
        run_ingest(plan_ingest(slide, options[change]), tmp_path / "out.zarr")
    assert contents(tmp_path / "out.zarr") == before


def test_another_version_goes_on_and_leaves_the_record_as_it_was(
    tmp_path: Path, slide: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest(slide, tmp_path / "out.zarr")
    before = contents(tmp_path / "out.zarr")
    (tmp_path / "out.zarr/0/c/0/0/0").unlink()
    monkeypatch.setattr("segment_slide.pipeline.ingest.plan.code_version", lambda: "99")
    assert run_ingest(plan_ingest(slide, SMALL), tmp_path / "out.zarr") == 1
    assert contents(tmp_path / "out.zarr") == before


def test_code_with_other_results_may_find_an_output_complete_but_not_go_on_with_it(
    tmp_path: Path, slide: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest(slide, tmp_path / "out.zarr")
    monkeypatch.setattr(Results, "INGEST", 2)
    plan = plan_ingest(slide, SMALL)
    assert run_ingest(plan, tmp_path / "out.zarr") == 0
    (tmp_path / "out.zarr/0/c/0/0/0").unlink()
    with pytest.raises(
        OutputMismatchError, match=r"results: begun with 1 \(segment-slide .*\), now 2 .*go on with the version"
    ):
        run_ingest(plan, tmp_path / "out.zarr")


@pytest.mark.parametrize("kind", ["file", "folder", "other zarr group", "zarr array"])
def test_an_output_that_is_something_else_is_refused_and_untouched(tmp_path: Path, slide: Path, kind: str) -> None:
    output = tmp_path / "out"
    if kind == "file":
        output.write_text("precious")
    elif kind == "folder":
        output.mkdir()
        (output / "notes.txt").write_text("precious")
    elif kind == "other zarr group":
        zarr.open_group(output, mode="w", attributes={"precious": True})
    else:
        zarr.save_array(output, np.ones(3))
    before = output.read_text() if kind == "file" else contents(output)
    with pytest.raises(OutputError, match="output="):
        run_ingest(plan_ingest(slide, SMALL), output)
    assert (output.read_text() if kind == "file" else contents(output)) == before


def test_an_output_that_another_process_writes_is_refused(tmp_path: Path, slide: Path) -> None:
    plan = plan_ingest(slide, SMALL)

    def run_a_second(done: int, _total: int) -> None:
        if done == 1:
            with pytest.raises(OutputError, match="being written by another run"):
                run_ingest(plan, tmp_path / "out.zarr")

    assert run_ingest(plan, tmp_path / "out.zarr", on_progress=run_a_second) == plan.n_shards
    assert not list(tmp_path.glob("out.zarr/.*"))


def test_an_empty_folder_may_be_the_output(tmp_path: Path, slide: Path) -> None:
    (tmp_path / "out.zarr").mkdir()
    ingest(slide, tmp_path / "out.zarr")


@pytest.mark.filterwarnings("ignore")  # the in-memory file system of fsspec warns at exit
def test_a_url_may_be_the_output(slide: Path) -> None:
    plan = plan_ingest(slide, SMALL)
    assert run_ingest(plan, "memory://ingest.zarr") == plan.n_shards
    assert run_ingest(plan, "memory://ingest.zarr") == 0
    pixels = store.open_array("memory://ingest.zarr", "0")[...]
    np.testing.assert_array_equal(pixels, np.moveaxis(tifffile.imread(slide), -1, 0))


# --- bad input ----------------------------------------------------------------------------------------------------


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.tif: no such file"):
        plan_ingest(tmp_path / "nowhere.tif")


@pytest.mark.parametrize(
    "content", [b"", b"hello, I am a text", b"II*\0\x08", b"II*\0" + bytes(4), b"\x89PNG\r\n\x1a\nxx"]
)
def test_what_is_no_image_is_refused(tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bioio", None)
    (tmp_path / "a.bin").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.bin"):
        plan_ingest(tmp_path / "a.bin")


def test_an_empty_folder_a_zarr_a_repeated_file_and_two_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="folder has no image"):
        plan_ingest(tmp_path / "empty")
    zarr.open_group(tmp_path / "image.zarr", mode="w")
    with pytest.raises(InputError, match="Zarr already"):
        plan_ingest(tmp_path / "image.zarr")
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((8, 8), np.uint8))
    with pytest.raises(InputError, match="named twice"):
        plan_ingest([tmp_path / "a.tif", tmp_path / "a.tif"])
    with pytest.raises(InputError, match="one folder"):
        plan_ingest([tmp_path / "empty", tmp_path / "image.zarr"])
    with pytest.raises(InputError, match="one folder"):
        plan_ingest([])


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (np.zeros((8, 9), np.uint8), r"shape=\(8, 9\)"),
        (np.zeros((8, 8), np.uint16), "dtype=uint16"),
        (np.zeros((8, 8, 3), np.uint8), "axes=cyx"),
    ],
    ids=["shape", "dtype", "colour"],
)
def test_pages_that_differ_are_named_with_what_differs(tmp_path: Path, other: np.ndarray, named: str) -> None:
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(np.zeros((8, 8), np.uint8)))
    (tmp_path / "b.png").write_bytes(imagecodecs.png_encode(other))
    with pytest.raises(InputError, match=rf"a\.png .* b\.png has {named}"):
        plan_ingest(tmp_path)


def test_volumes_cannot_be_stacked_along_an_axis_they_have(tmp_path: Path) -> None:
    for name in ("a.tif", "b.tif"):
        tifffile.imwrite(tmp_path / name, np.zeros((5, 8, 8), np.uint8), photometric="minisblack")
    with pytest.raises(InputError, match="axes 'zyx'"):
        plan_ingest(tmp_path)


def test_complex_pixels_are_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((8, 8), np.complex64))
    with pytest.raises(InputError, match="complex64"):
        plan_ingest(tmp_path / "a.tif")


def test_an_image_of_no_pixels_is_refused(tmp_path: Path) -> None:
    header = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sIIBBBBB", 13, b"IHDR", 0, 5, 8, 0, 0, 0, 0)
    (tmp_path / "a.png").write_bytes(header)
    with pytest.raises(InputError, match="no pixels"):
        plan_ingest(tmp_path / "a.png")
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((8, 8), np.uint8))
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+b") as tif:
        tif.pages[0].tags["ImageWidth"].overwrite(0)
    with pytest.raises(InputError, match=r"a\.tif"):
        plan_ingest(tmp_path / "a.tif")


@pytest.mark.parametrize("kwargs", [{}, {"tile": (64, 64), "compression": "zlib"}], ids=["raw", "tiles"])
def test_a_file_that_is_cut_short_is_refused_before_anything_is_created(
    tmp_path: Path, rng: np.random.Generator, kwargs: dict
) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, rng.integers(0, 255, SHAPE, dtype=np.uint8), **kwargs)
    os.truncate(path, path.stat().st_size * 2 // 3)
    with pytest.raises(InputError, match="cut short"):
        plan_ingest(path)


@pytest.mark.parametrize("part", [0.3, 0.5, 0.9, 0.999])
@pytest.mark.parametrize(
    "kwargs",
    [
        {"metadata": None},
        {"metadata": None, "compression": "zlib"},
        {"metadata": None, "compression": "zlib", "bigtiff": True},
        {"compression": "zlib"},
        {"ome": True, "metadata": {"axes": "ZYX"}},
        {"ome": True, "metadata": {"axes": "ZYX"}, "compression": "zlib"},
        {"imagej": True},
    ],
    ids=["plain raw", "plain", "bigtiff", "tifffile", "ome raw", "ome", "imagej"],
)
def test_a_stack_that_is_cut_short_is_not_taken_for_a_shorter_one(
    tmp_path: Path, rng: np.random.Generator, kwargs: dict, part: float
) -> None:
    """Negative control: tifffile itself opens most of these, as fewer planes or without their calibration."""
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, rng.integers(0, 255, (9, 100, 80), dtype=np.uint8), photometric="minisblack", **kwargs)
    assert plan_ingest(path).shape == (9, 100, 80)
    os.truncate(path, int(path.stat().st_size * part))
    with pytest.raises(InputError, match="cut short"):
        plan_ingest(path)


def test_whatever_byte_of_a_header_is_wrong_the_error_is_one_of_ours(tmp_path: Path, rng: np.random.Generator) -> None:
    image = rng.integers(0, 255, (3, 60, 50), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="minisblack", tile=(16, 16), compression="zlib")
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(image[0]))
    outcomes = set()
    for number in range(120):
        content = bytearray((tmp_path / ("a.tif", "a.png")[number % 4 == 0]).read_bytes())
        content[rng.integers(8, 300)] = rng.integers(256)
        (tmp_path / "bad").write_bytes(content)
        try:
            plan = plan_ingest(tmp_path / "bad", SMALL)
            if math.prod(plan.shape) < 100_000:
                run_ingest(plan, tmp_path / f"{number}.zarr", threads=1)
            outcomes.add("read")
        except PipelineError as error:
            outcomes.add(type(error).__name__)
    assert outcomes == {"read", "InputError", "UnreadableChunkError"}


@pytest.mark.parametrize("series", [4, -1])
def test_a_series_that_is_not_there_is_refused(tmp_path: Path, series: int) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((8, 8), np.uint8))
    with pytest.raises(InputError, match=rf"series={series}, expected one of \[0\]"):
        plan_ingest(tmp_path / "a.tif", IngestOptions(series=series))


@pytest.mark.parametrize("axes", ["yx", "czyx", "yxz", "zzx", "qyx"])
def test_axes_that_do_not_fit_the_file_are_refused(tmp_path: Path, axes: str) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((5, 8, 9), np.uint8), photometric="minisblack")
    with pytest.raises(InputError, match=f"axes='{axes}'.* for example `axes=zyx`"):
        plan_ingest(tmp_path / "a.tif", IngestOptions(axes=axes))


@pytest.mark.parametrize("size", [{"x": 0.0}, {"y": float("nan")}, {"c": 1.0}])
def test_a_pixel_size_that_makes_no_sense_is_refused(tmp_path: Path, size: dict) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((8, 9), np.uint8))
    with pytest.raises(InputError, match="pixel_size="):
        plan_ingest(tmp_path / "a.tif", IngestOptions(pixel_size=size))


def test_a_damaged_tile_is_named_with_its_region_and_what_is_done_stays(tmp_path: Path, slide: Path) -> None:
    with tifffile.TiffFile(slide) as tif:
        page = tif.pages[0]
        bad = page.chunked[1] * 8 + 3  # rows 384.., columns 240..
        offset, count = page.dataoffsets[bad], page.databytecounts[bad]
    with slide.open("r+b") as file:
        file.seek(offset)
        file.write(bytes(count))
    plan = plan_ingest(slide, SMALL)
    with pytest.raises(BlockError, match=r"y 384:500.*slide\.tif.*tile 51 cannot be decoded") as caught:
        run_ingest(plan, tmp_path / "out.zarr", threads=1)
    assert isinstance(caught.value, UnreadableChunkError)
    done = shard_times(tmp_path / "out.zarr")
    finest = {name for name in done if name.startswith("0/")}
    assert finest == {f"0/c/0/{y}/{x}" for y in range(4) for x in range(4)} - {"0/c/0/3/1", "0/c/0/3/2"}
    with pytest.raises(BlockError, match="tile 51"):
        run_ingest(plan, tmp_path / "out.zarr")
    assert done.items() <= shard_times(tmp_path / "out.zarr").items()


def test_a_file_that_shrinks_while_it_is_read_is_an_error_not_a_crash(tmp_path: Path, rng: np.random.Generator) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, rng.integers(0, 255, SHAPE, dtype=np.uint8))
    plan = plan_ingest(path, SMALL)

    def shrink(done: int, _total: int) -> None:
        if done == 1:
            os.truncate(path, 1000)

    with pytest.raises(BlockError, match="the file ends within row"):
        run_ingest(plan, tmp_path / "out.zarr", threads=1, on_progress=shrink)


def test_a_damaged_png_is_named(tmp_path: Path, rng: np.random.Generator) -> None:
    encoded = imagecodecs.png_encode(rng.integers(0, 255, (90, 80), dtype=np.uint8))
    (tmp_path / "a.png").write_bytes(encoded[: len(encoded) // 2])
    with pytest.raises(BlockError, match=r"region \(y 0:90, x 0:80\).*a\.png: the PNG cannot be decoded"):
        run_ingest(plan_ingest(tmp_path / "a.png", SMALL), tmp_path / "out.zarr")


def test_an_input_that_changes_between_plan_and_run_is_refused(tmp_path: Path, slide: Path) -> None:
    plan = plan_ingest(slide, SMALL)
    tifffile.imwrite(slide, np.zeros((50, 50), np.uint8))
    with pytest.raises(InputError, match="plan again"):
        run_ingest(plan, tmp_path / "out.zarr")


# --- other formats, through bioio ---------------------------------------------------------------------------------


def test_without_bioio_other_formats_name_the_extra_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bioio", None)
    (tmp_path / "a.czi").write_bytes(b"ZISRAWFILE" + bytes(100))
    with pytest.raises(InputError, match=r"pip install '\.\[bioio\]'"):
        plan_ingest(tmp_path / "a.czi")


@pytest.mark.filterwarnings("ignore")  # plugins warn of their own dependencies
def test_with_bioio_a_bitmap_is_read(tmp_path: Path, rng: np.random.Generator) -> None:
    pytest.importorskip("bioio", reason="the extra 'bioio' is not installed")
    pytest.importorskip("bioio_imageio", reason="the extra 'bioio' is not installed")
    picture = rng.integers(0, 255, (90, 150, 3), dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / "a.bmp")
    plan = ingest(tmp_path / "a.bmp", tmp_path / "out.zarr")
    assert (plan.axes, plan.image.channel_names) == ("cyx", ("R", "G", "B"))
    np.testing.assert_array_equal(level(tmp_path / "out.zarr"), np.moveaxis(picture, -1, 0))
    (tmp_path / "a.txt").write_text("not an image")
    with pytest.raises(InputError, match="bioio cannot open it"):
        plan_ingest(tmp_path / "a.txt")


@pytest.mark.filterwarnings("ignore")
def test_with_bioio_a_czi_is_read_with_its_channels_and_calibration(tmp_path: Path, rng: np.random.Generator) -> None:
    pytest.importorskip("bioio", reason="the extra 'bioio' is not installed")
    pytest.importorskip("bioio_czi", reason="bioio-czi is not installed")
    from pylibCZIrw import czi

    image = rng.integers(0, 65535, (2, 3, 300, 421), dtype=np.uint16)
    with czi.create_czi(str(tmp_path / "a.czi")) as document:
        for channel, z in np.ndindex(2, 3):
            document.write(data=image[channel, z][..., None], plane={"C": channel, "Z": z, "T": 0})
        document.write_metadata(
            "a", channel_names={0: "DAPI", 1: "GFP"}, scale_x=0.2e-6, scale_y=0.2e-6, scale_z=1.5e-6
        )
    plan = ingest(tmp_path / "a.czi", tmp_path / "out.zarr")
    assert (plan.axes, plan.image.channel_names) == ("czyx", ("DAPI", "GFP"))
    assert plan.multiscale.levels[0].scale == pytest.approx((1.0, 1.5, 0.2, 0.2))
    np.testing.assert_array_equal(level(tmp_path / "out.zarr"), image)


def test_the_plan_can_be_printed_and_is_json_but_for_its_classes(slide: Path) -> None:
    json.dumps(write_section(plan_ingest(slide).record))
