"""Slides whose tiles overlap or lie in several files, read through OpenSlide; and what both readers read, compared."""

import os
import sys
from contextlib import closing
from pathlib import Path

import imagecodecs
import numpy as np
import openslide
import pytest
import tifffile
import zarr
from PIL import Image

from segment_slide.pipeline.errors import InputError, OutputMismatchError, UnreadableChunkError
from segment_slide.pipeline.ingest.formats import FORMATS, list_files, open_reader
from segment_slide.pipeline.ingest.options import IngestOptions
from segment_slide.pipeline.ingest.plan import IngestPlan, plan_ingest
from segment_slide.pipeline.ingest.run import run_ingest
from segment_slide.pipeline.nights.acquisitions import find_acquisitions
from tests.pipeline.ingest.test_ingest import write_ndpi
from tests.pipeline.readers import slides

DATA = Path(os.environ.get("SEGMENT_SLIDE_DATA", Path(__file__).parents[4] / "shared" / "data"))
SMALL = IngestOptions(chunk=32, shard=96)
PICTURE = slides.draw(2 * 58 + 6, 3 * 54 + 10)  # 2 x 3 tiles of 64 px that overlap by (6, 10) px


def ingest(source: Path, output: Path) -> tuple[IngestPlan, np.ndarray]:
    plan = plan_ingest(source, SMALL)
    run_ingest(plan, output)
    return plan, np.moveaxis(np.asarray(zarr.open_array(output / "0", mode="r")[...]), 0, -1)


WRITERS = [
    pytest.param(slides.write_ventana, "slide.bif", (0.465, 0.465), id="Ventana"),
    pytest.param(slides.write_ventana, "slide.tif", (0.465, 0.465), id="Ventana named .tif"),
    pytest.param(slides.write_trestle, "slide.tif", (0.33, 0.31), id="Trestle"),
    pytest.param(slides.write_mirax, "slide.mrxs", (0.26, 0.25), id="MIRAX"),
    pytest.param(slides.write_dicom, "slide.dcm", (0.25, 0.24), id="DICOM"),
    pytest.param(slides.write_dicom, "IM00001", (0.25, 0.24), id="DICOM without a suffix"),
]


@pytest.mark.parametrize(("write", "name", "pixel_size"), WRITERS)
def test_a_slide_is_joined_without_repeating_what_overlaps(tmp_path: Path, write, name: str, pixel_size) -> None:
    write(tmp_path / name, PICTURE)
    plan, pixels = ingest(tmp_path / name, tmp_path / "out.zarr")
    np.testing.assert_array_equal(pixels, PICTURE)
    assert plan.image.is_rgb
    np.testing.assert_allclose(plan.multiscale.levels[0].scale, (1, *pixel_size))
    assert any("read through OpenSlide" in note for note in plan.notes)
    assert plan.record.parameters.decoding.startswith("openslide ")


@pytest.mark.parametrize(("write", "name"), [(slides.write_ventana, "a.bif"), (slides.write_trestle, "a.tif")])
def test_a_plain_grid_of_its_tiles_would_repeat_strips(tmp_path: Path, write, name: str) -> None:
    """Negative control: what the files look like to a reader that knows nothing of overlaps."""
    write(tmp_path / name, PICTURE)
    with tifffile.TiffFile(tmp_path / name) as tif:
        plain = tif.pages[-1].asarray()
    assert plain.shape == (2 * 64, 3 * 64, 3)
    np.testing.assert_array_equal(plain[:, 54:64], plain[:, 64:74])


@pytest.mark.parametrize(("write", "name", "pixel_size"), WRITERS)
def test_without_openslide_a_slide_is_refused_naming_the_extra(
    tmp_path: Path, write, name: str, pixel_size, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / name, PICTURE)
    monkeypatch.setitem(sys.modules, "openslide", None)
    with pytest.raises(InputError, match=r"pip install '\.\[openslide\]'"):
        plan_ingest(tmp_path / name)


def test_a_hamamatsu_vms_is_read_from_the_jpeg_files_that_it_names(tmp_path: Path) -> None:
    expected = slides.write_vms(tmp_path / "slide.vms", slides.draw(96, 256))
    plan, pixels = ingest(tmp_path / "slide.vms", tmp_path / "out.zarr")
    np.testing.assert_array_equal(pixels, expected)
    assert plan.multiscale.levels[0].scale == pytest.approx((1, 0.24, 0.23))
    assert [Path(file).name for file in plan.image.files] == ["map.jpg", "part0.jpg", "part1.jpg", "slide.vms"]


def test_what_the_scanner_left_out_has_the_colour_of_the_files_background(tmp_path: Path) -> None:
    slides.write_mirax(tmp_path / "slide.mrxs", PICTURE, hole=1)
    _, pixels = ingest(tmp_path / "slide.mrxs", tmp_path / "out.zarr")
    assert (pixels[:58, 64:108] == (0x20, 0x14, 0x0A)).all()  # the tile without the strips that its neighbours share
    np.testing.assert_array_equal(pixels[64:], PICTURE[64:])


@pytest.mark.parametrize("changed", ["Data0000.dat", "Slidedat.ini"])
def test_all_files_of_a_slide_are_its_identity(tmp_path: Path, changed: str) -> None:
    slides.write_mirax(tmp_path / "slide.mrxs", PICTURE)
    plan, _ = ingest(tmp_path / "slide.mrxs", tmp_path / "out.zarr")
    assert len(plan.image.files) == 4
    (tmp_path / "slide" / "Thumbs.db").write_bytes(b"of a file manager")  # negative control: not of the slide
    assert run_ingest(plan_ingest(tmp_path / "slide.mrxs", SMALL), tmp_path / "out.zarr") == 0
    with open(tmp_path / "slide" / changed, "ab") as file:
        file.write(b"\n")
    with pytest.raises(OutputMismatchError, match="fingerprint"):
        run_ingest(plan_ingest(tmp_path / "slide.mrxs", SMALL), tmp_path / "out.zarr")


def test_a_mirax_slide_is_not_taken_for_the_jpeg_of_its_overview(tmp_path: Path) -> None:
    slides.write_mirax(tmp_path / "slide.mrxs", PICTURE)
    (tmp_path / "slide").rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=r"slide\.mrxs: this is a MIRAX slide.*Files of the slide may be missing"):
        plan_ingest(tmp_path / "slide.mrxs")


def test_a_slide_that_loses_pixels_is_named(tmp_path: Path) -> None:
    slides.write_mirax(tmp_path / "slide.mrxs", PICTURE)
    plan = plan_ingest(tmp_path / "slide.mrxs", SMALL)
    data = tmp_path / "slide" / "Data0000.dat"
    data.write_bytes(data.read_bytes()[:100])
    with pytest.raises((UnreadableChunkError, InputError), match=r"slide\.mrxs"):
        run_ingest(plan, tmp_path / "out.zarr")


def test_a_folder_of_dicom_files_is_one_slide_at_its_finest_level(tmp_path: Path) -> None:
    folder = tmp_path / "series"
    folder.mkdir()
    slides.write_dicom(folder / "b.dcm", PICTURE)
    slides.write_dicom(folder / "a.dcm", PICTURE[::2, ::2], number=2)
    plan, pixels = ingest(folder, tmp_path / "out.zarr")
    np.testing.assert_array_equal(pixels, PICTURE)
    assert [Path(file).name for file in plan.image.files] == ["a.dcm", "b.dcm"]


def test_two_slides_in_a_folder_of_dicom_files_are_refused_and_each_is_read_alone(tmp_path: Path) -> None:
    folder = tmp_path / "series"
    folder.mkdir()
    slides.write_dicom(folder / "a.dcm", PICTURE)
    slides.write_dicom(folder / "other.dcm", PICTURE[:64, :64], number=3, series="1.2.3.77")
    with pytest.raises(InputError, match=r"2 slides \(series\).*a\.dcm"):
        plan_ingest(folder)
    assert [Path(file).name for file in plan_ingest(folder / "a.dcm").image.files] == ["a.dcm"]
    assert plan_ingest(folder / "other.dcm").shape == (3, 64, 64)


def test_dicom_of_another_kind_is_refused(tmp_path: Path) -> None:
    slides.write_dicom(tmp_path / "ct.dcm", PICTURE, whole_slide=False)
    with pytest.raises(InputError, match=r"ct\.dcm.*no whole slide.*convert"):
        plan_ingest(tmp_path / "ct.dcm")


@pytest.mark.parametrize("options", [{"series": 1}, {"axes": "zyx"}])
def test_a_series_or_axes_that_a_slide_lacks_are_refused(tmp_path: Path, options: dict) -> None:
    slides.write_ventana(tmp_path / "a.bif", PICTURE)
    with pytest.raises(InputError, match="one colour image"):
        plan_ingest(tmp_path / "a.bif", IngestOptions(**options))


def test_a_vsi_is_not_taken_for_its_overview(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.vsi", PICTURE, photometric="rgb")
    with pytest.raises(InputError, match=r"\.ets files.*Export"):
        plan_ingest(tmp_path / "a.vsi")


def test_a_watched_folder_takes_slides_that_this_machine_reads(tmp_path: Path) -> None:
    slides.write_mirax(tmp_path / "a.mrxs", PICTURE)
    slides.write_ventana(tmp_path / "b.bif", PICTURE)
    slides.write_dicom(tmp_path / "c.dcm", PICTURE)  # one of several files of a slide: not an acquisition of its own
    assert [found.name for found in find_acquisitions(str(tmp_path))] == ["a.mrxs", "b.bif"]


def test_every_row_of_openslide_names_it_as_plugin() -> None:
    rows = [row for row in FORMATS if row.plugin == "openslide"]
    assert {suffix for row in rows for suffix in row.suffixes} == {".bif", ".mrxs", ".vms", ".vmu", ".svslide"}


# -- what both read ----------------------------------------------------------------------------------------------


def read_by_openslide(path: Path) -> np.ndarray:
    with openslide.OpenSlide(path) as slide:
        return np.asarray(slide.read_region((0, 0), 0, slide.dimensions))[..., :3]


def compare(path: Path, *, decoders: int = 0) -> None:
    """Pixels and pixel size of our reader against OpenSlide's; two JPEG decoders may differ by `decoders`."""
    with openslide.OpenSlide(path) as slide:
        expected = tuple(float(slide.properties[f"openslide.mpp-{axis}"]) for axis in "yx")
    reader = open_reader(list_files([path]))
    assert reader.info.kind == "tiff"
    ours = np.moveaxis(reader.read(tuple(slice(0, size) for size in reader.info.shape)), 0, -1).astype(int)
    theirs = read_by_openslide(path)
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= decoders
    assert reader.info.pixel_size[1:] == pytest.approx(expected)
    reader.close()


def smooth(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([(y + x) % 200, (2 * y) % 180 + 20, (3 * x) % 150 + 50], -1).astype(np.uint8)


def test_a_real_slide_is_read_as_openslide_reads_it() -> None:
    path = DATA / "wsi" / "CMU-1-Small-Region.svs"
    if not path.is_file():
        pytest.skip(f"real data are not at {DATA}; set SEGMENT_SLIDE_DATA")
    compare(path)


def test_an_ndpi_slide_is_read_as_openslide_reads_it(tmp_path: Path) -> None:
    write_ndpi(tmp_path / "a.ndpi", [smooth(96, 256)], [20.0])
    compare(tmp_path / "a.ndpi")


@pytest.mark.parametrize("compression", ["none", "lzw", "jpeg"])
def test_an_aperio_slide_is_read_as_openslide_reads_it(tmp_path: Path, compression: str) -> None:
    path = tmp_path / "a.svs"
    tifffile.imwrite(
        path,
        smooth(200, 250),
        tile=(64, 64),
        photometric="rgb",
        compression=compression,
        description="Aperio Image Library v1\n250x200 (64x64) Q=70|AppMag = 20|MPP = 0.4990",
        metadata=None,
    )
    compare(path, decoders=2)


def test_a_generic_tiled_tiff_is_read_as_openslide_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path,
        smooth(200, 250),
        tile=(64, 64),
        photometric="rgb",
        compression="lzw",
        resolution=(40000, 38000),
        resolutionunit="CENTIMETER",
        metadata=None,
    )
    compare(path)


def write_philips(path: Path, picture: np.ndarray, tile: int = 64) -> None:
    """A Philips TIFF of two levels, of which one tile is left out, as between two scanned regions."""
    spacing = '"0.00025" "0.00024"'  # mm, of rows and of columns
    attribute = '<Attribute Name="{}" Group="0x0028" Element="0x0030" PMSVR="IDoubleArray">{}</Attribute>'
    level = '<DataObject ObjectType="PixelDataRepresentation">{}</DataObject>'
    description = (
        '<?xml version="1.0" encoding="UTF-8" ?><DataObject ObjectType="DPUfsImport">'
        '<Attribute Name="PIM_DP_SCANNED_IMAGES"><Array><DataObject ObjectType="DPScannedImage">'
        '<Attribute Name="PIM_DP_IMAGE_TYPE">WSI</Attribute>'
        + attribute.format("DICOM_PIXEL_SPACING", spacing)
        + '<Attribute Name="PIIM_PIXEL_DATA_REPRESENTATION_SEQUENCE"><Array>'
        + "".join(level.format(attribute.format("DICOM_PIXEL_SPACING", one)) for one in (spacing, '"0.0005" "0.00048"'))
        + "</Array></Attribute></DataObject></Array></Attribute></DataObject>"
    )
    height, width = picture.shape[:2]
    tiles = [picture[y : y + tile, x : x + tile] for y in range(0, height, tile) for x in range(0, width, tile)]
    tiles[1] = None
    kind = {"dtype": np.uint8, "tile": (tile, tile), "photometric": "rgb", "compression": "lzw", "metadata": None}
    with tifffile.TiffWriter(path) as tif:
        tif.write(iter(tiles), shape=picture.shape, software="Philips DP v1.0", description=description, **kind)
        tif.write(picture[::2, ::2], subfiletype=1, **kind)


def test_a_philips_tiff_is_read_as_openslide_reads_it(tmp_path: Path) -> None:
    """What was not scanned is white glass, not black."""
    write_philips(tmp_path / "a.tiff", smooth(128, 192))
    with openslide.OpenSlide(tmp_path / "a.tiff") as slide:
        assert slide.properties["openslide.vendor"] == "philips"
        region = np.asarray(slide.read_region((64, 0), 0, (64, 64)))
    assert (region[..., 3] == 0).all()  # OpenSlide: nothing is there
    with closing(open_reader([str(tmp_path / "a.tiff")])) as reader:
        assert "1 of 6 tiles are not in the file: read as 255" in reader.info.notes
        ours = np.moveaxis(reader.read((slice(0, 3), slice(0, 128), slice(0, 192))), 0, -1)
    expected = smooth(128, 192)
    expected[:64, 64:128] = 255
    np.testing.assert_array_equal(ours, expected)


def test_aperio_jpeg_2000_in_ycbcr_is_read_through_openslide(tmp_path: Path) -> None:
    picture = smooth(64, 64)
    path = tmp_path / "a.svs"
    # colours as Aperio's compression 33003 holds them: YCbCr in JPEG 2000 without a colour transform of its own
    ycbcr = np.asarray(Image.fromarray(picture).convert("YCbCr"))
    encoded = imagecodecs.jpeg2k_encode(ycbcr, codecformat="j2k", mct=False, reversible=True)
    tifffile.imwrite(
        path,
        iter([encoded]),
        shape=picture.shape,
        dtype=np.uint8,
        tile=(64, 64),
        photometric="rgb",
        compression="APERIO_JP2000_YCBC",
        description="Aperio Image Library v1\n64x64 (64x64) Q=70|AppMag = 20|MPP = 0.4990",
        metadata=None,
    )
    plan, pixels = ingest(path, tmp_path / "out.zarr")
    assert plan.image.kind == "openslide"
    assert np.abs(pixels.astype(int) - picture).max() <= 4  # to YCbCr and back, rounded
