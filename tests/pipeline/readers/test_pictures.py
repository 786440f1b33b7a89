"""Alpha or a fourth channel, JPEG, palettes, inks, and which way is up: values against those of independent readers."""

import io
import logging
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image, ImageOps

from segment_slide.pipeline.errors import InputError, OutputMismatchError, UnreadableChunkError
from segment_slide.pipeline.ingest.formats import list_files, open_reader
from segment_slide.pipeline.ingest.labels import open_labels
from segment_slide.pipeline.ingest.options import IngestOptions
from segment_slide.pipeline.ingest.plan import plan_ingest
from segment_slide.pipeline.ingest.run import run_ingest
from segment_slide.pipeline.scoring.mask_files import read_masks
from segment_slide.pipeline.training.annotation import find_annotation
from segment_slide.pipeline.training.options import AnnotationInput

SAMPLES = np.random.default_rng(0).integers(0, 255, (30, 44, 4), dtype=np.uint8)
OPAQUE = np.dstack([SAMPLES[..., :3], np.full((30, 44), 255, np.uint8)])


def read(path: Path, axes: str | None = None) -> tuple[np.ndarray, tuple[str, ...]]:
    """Values with channels last, and notes."""
    reader = open_reader(list_files([path]), axes=axes)
    values = reader.read(tuple(slice(0, size) for size in reader.info.shape))
    reader.close()
    assert values.shape == reader.info.shape
    assert values.dtype == reader.info.dtype
    return np.moveaxis(values, 0, -1) if "c" in reader.info.axes else values, reader.info.notes


def write_tiff(path: Path, samples: np.ndarray, extra: str, *, planar: bool = False, **kwargs: object) -> None:
    photometric = "rgb" if samples.shape[-1] > 2 else "minisblack"
    tifffile.imwrite(
        path,
        np.moveaxis(samples, -1, 0) if planar else samples,
        photometric=photometric,
        planarconfig="separate" if planar else "contig",
        extrasamples=[extra],
        metadata=None,
        **kwargs,
    )


# -- alpha or data -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("planar", [False, True], ids=["interleaved", "planes"])
@pytest.mark.parametrize("n_samples", [2, 4])
@pytest.mark.parametrize(("extra", "value"), [("assocalpha", 1), ("unassalpha", 2)])
def test_only_8_bit_pictures_that_say_alpha_lose_it_and_axes_keep_it(
    tmp_path: Path, extra: str, value: int, n_samples: int, planar: bool
) -> None:
    samples, path = SAMPLES[..., :n_samples], tmp_path / "a.tif"
    write_tiff(path, samples, extra, planar=planar)
    values, notes = read(path)
    np.testing.assert_array_equal(values, samples[..., :3] if n_samples == 4 else samples[..., 0])
    axes = "cyx" if planar else "yxc"
    nth = "4th" if n_samples == 4 else "2nd"
    assert notes == (f"the {nth} channel is alpha (ExtraSamples {value}) and not used; `axes={axes}` keeps it",)
    values, notes = read(path, axes)
    np.testing.assert_array_equal(values, samples)
    assert not notes


@pytest.mark.parametrize("n_samples", [2, 4])
@pytest.mark.parametrize(
    ("extra", "dtype"),
    [("unspecified", "uint8"), ("unspecified", "uint16"), ("unassalpha", "uint16"), ("assocalpha", "float32")],
)
def test_a_last_channel_of_other_dtypes_or_meanings_is_data(
    tmp_path: Path, extra: str, dtype: str, n_samples: int
) -> None:
    samples = SAMPLES[..., :n_samples].astype(dtype)
    write_tiff(tmp_path / "a.tif", samples, extra, tile=(16, 16), compression="zlib")
    values, notes = read(tmp_path / "a.tif")
    np.testing.assert_array_equal(values, samples)
    assert any("is kept as data" in note for note in notes) == (extra != "unspecified")


def test_four_or_five_channels_of_data_are_kept(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", SAMPLES, photometric="minisblack", planarconfig="contig")
    np.testing.assert_array_equal(read(tmp_path / "a.tif")[0], SAMPLES)
    five = np.dstack([SAMPLES, SAMPLES[..., 0]])
    tifffile.imwrite(tmp_path / "b.tif", five, photometric="rgb", extrasamples=["unspecified", "unassalpha"])
    np.testing.assert_array_equal(read(tmp_path / "b.tif")[0], five)
    names = open_named(tmp_path / "b.tif")
    assert names == ("R", "G", "B", "channel 3", "alpha")


def open_named(path: Path) -> tuple[str, ...]:
    reader = open_reader([str(path)])
    reader.close()
    return reader.info.channel_names


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("n_samples", [2, 4])
def test_the_alpha_of_png_is_left_out_and_axes_keep_it(tmp_path: Path, n_samples: int, dtype: str) -> None:
    samples = SAMPLES[..., :n_samples].astype(dtype)
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(samples))
    values, notes = read(tmp_path / "a.png")
    np.testing.assert_array_equal(values, samples[..., :3] if n_samples == 4 else samples[..., 0])
    assert any("is alpha and not used; `axes=yxc` keeps it" in note for note in notes)
    np.testing.assert_array_equal(read(tmp_path / "a.png", "yxc")[0], samples)


def test_a_stack_of_pages_keeps_alpha_too_when_axes_ask_for_it(tmp_path: Path) -> None:
    folder = tmp_path / "pages"
    folder.mkdir()
    for number in range(2):
        (folder / f"{number}.png").write_bytes(imagecodecs.png_encode(SAMPLES + number))
    assert plan_ingest(folder).shape == (3, 2, 30, 44)
    assert plan_ingest(folder, IngestOptions(axes="zyxc")).shape == (4, 2, 30, 44)
    with pytest.raises(InputError, match="axes='yx', expected 'yxc'"):
        plan_ingest(folder, IngestOptions(axes="zyx"))


@pytest.mark.parametrize("name", ["a.png", "a.tif", "planes.tif"])
def test_alpha_that_is_not_opaque_is_warned_of_once(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    for folder, samples in (("says", SAMPLES), ("opaque", OPAQUE)):
        path = tmp_path / folder / name
        path.parent.mkdir()
        if name.endswith("png"):
            path.write_bytes(imagecodecs.png_encode(samples))
        else:
            write_tiff(path, samples, "unassalpha", planar=name.startswith("planes"), rowsperstrip=7)
        with caplog.at_level(logging.WARNING):
            run_ingest(plan_ingest(path, IngestOptions(chunk=16, shard=16)), tmp_path / folder / "out.zarr")
    (warning,) = caplog.messages  # of the file whose alpha says something; opaque alpha is the negative control
    assert "says" in warning
    assert "not opaque everywhere" in warning


# -- JPEG --------------------------------------------------------------------------------------------------------


def write_jpeg(path: Path, mode: str = "RGB", orientation: int | None = None, **kwargs: object) -> np.ndarray:
    """A JPEG of a smooth picture; returns what Pillow decodes, as it is stored."""
    y, x = np.mgrid[:30, :44]
    picture = Image.fromarray(np.dstack([5 * x, 8 * y, 100 + x + y]).astype(np.uint8)).convert(mode)
    if orientation is not None:
        exif = Image.Exif()
        exif[274] = orientation
        kwargs["exif"] = exif
    picture.save(path, "JPEG", quality=95, **kwargs)
    return np.asarray(Image.open(path))


@pytest.mark.parametrize(
    ("mode", "kwargs"),
    [("L", {}), ("RGB", {}), ("RGB", {"progressive": True}), ("RGB", {"subsampling": 2}), ("RGB", {"keep_rgb": True})],
)
def test_a_jpeg_has_the_values_that_pillow_decodes(tmp_path: Path, mode: str, kwargs: dict) -> None:
    expected = write_jpeg(tmp_path / "a.jpg", mode, **kwargs)
    values, notes = read(tmp_path / "a.jpg")
    assert np.abs(values.astype(int) - expected).max() <= 1
    assert any("JPEG changes values" in note for note in notes)
    run_ingest(plan_ingest(tmp_path / "a.jpg", IngestOptions(chunk=16, shard=16)), tmp_path / "out.zarr")
    stored = np.asarray(zarr.open_array(tmp_path / "out.zarr/0", mode="r")[...])
    np.testing.assert_array_equal(stored if mode == "L" else np.moveaxis(stored, 0, -1), values)


def test_the_density_of_a_jpeg_is_its_pixel_size_unless_it_is_a_printers(tmp_path: Path) -> None:
    for dpi, size in ((25400, 1.0), (300, None)):
        write_jpeg(tmp_path / "a.jpg", dpi=(dpi, dpi))
        assert plan_ingest(tmp_path / "a.jpg").image.pixel_size == (None, size, size)


def test_a_folder_of_jpegs_is_a_stack_and_overviews_beside_other_pages_are_left_out(tmp_path: Path) -> None:
    for number in (10, 9):
        write_jpeg(tmp_path / f"page{number}.jpg")
    assert [Path(file).name for file in plan_ingest(tmp_path).files] == ["page9.jpg", "page10.jpg"]
    assert plan_ingest(tmp_path).shape == (3, 2, 30, 44)
    tifffile.imwrite(tmp_path / "slice.tif", SAMPLES[..., 0])
    plan = plan_ingest(tmp_path)
    assert plan.shape == (30, 44)
    assert "2 JPEG file(s) of the folder are left out: its other images are taken for pages" in plan.notes


def jpeg_of_12_bits() -> bytes:
    return imagecodecs.jpeg_encode(SAMPLES[..., 0].astype(np.uint16), bitspersample=12)


def jpeg_of_inks() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(SAMPLES, "CMYK").save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (jpeg_of_inks, r"4 inks \(CMYK\).*Convert it to RGB"),
        (jpeg_of_12_bits, "12 bits.*expected 8 bits"),
        (lambda: imagecodecs.ljpeg_encode(SAMPLES[..., 0]), "SOF3 is not read"),
        (lambda: jpeg_of_inks()[:30], "header is damaged or cut short"),
        (lambda: b"\xff\xd8\xff\xe0", "header is damaged or cut short"),
    ],
    ids=["inks", "12 bits", "lossless", "cut", "empty"],
)
def test_other_jpegs_are_refused(tmp_path: Path, content, message: str) -> None:
    (tmp_path / "a.jpg").write_bytes(content())
    with pytest.raises(InputError, match=message):
        plan_ingest(tmp_path / "a.jpg")


def test_a_jpeg_that_is_cut_short_is_not_filled_with_grey(tmp_path: Path) -> None:
    write_jpeg(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:-50])
    with pytest.raises(UnreadableChunkError, match=r"a\.jpg.*cut short"):
        read(tmp_path / "a.jpg")


@pytest.mark.parametrize("name", ["mask.jpg", "mask.tif"])
def test_a_mask_that_is_jpeg_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    mask = np.zeros((64, 64), np.uint8)
    mask[20:40, 20:40] = 3
    if name.endswith("jpg"):
        Image.fromarray(mask).save(tmp_path / "labels" / name)
    else:
        tifffile.imwrite(tmp_path / "labels" / name, mask, compression="jpeg", tile=(64, 64))
    tifffile.imwrite(tmp_path / "images" / "mask.tif", mask)
    for path in (tmp_path / "labels" / name, tmp_path / "labels"):
        with pytest.raises(InputError, match="compressed as JPEG.*PNG"):
            read_masks(path)
        with pytest.raises(InputError, match="compressed as JPEG.*PNG"):
            find_annotation(AnnotationInput(images=(str(tmp_path / "images"),), labels=(str(path),)))
    tifffile.imwrite(tmp_path / "plain.tif", mask)  # negative control
    np.testing.assert_array_equal(read_masks(tmp_path / "plain.tif").pixels, mask)


def test_images_to_learn_from_may_be_jpeg(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    for name in ("a", "b"):
        write_jpeg(tmp_path / "images" / f"{name}.jpg")
        tifffile.imwrite(tmp_path / "labels" / f"{name}.tif", SAMPLES[..., 0])
    write_jpeg(tmp_path / "images" / "c.jpg")  # a preview of an image that is there
    tifffile.imwrite(tmp_path / "images" / "c.tif", SAMPLES[..., :3], photometric="rgb")
    tifffile.imwrite(tmp_path / "labels" / "c.tif", SAMPLES[..., 0])
    found = find_annotation(AnnotationInput(images=(str(tmp_path / "images"),), labels=(str(tmp_path / "labels"),)))
    assert [Path(pair.image.path).name for pair in found.pairs] == ["a.jpg", "b.jpg", "c.tif"]


# -- which way is up ---------------------------------------------------------------------------------------------


def write_turned_tiff(path: Path, orientation: int, planes: np.ndarray) -> None:
    tifffile.imwrite(
        path,
        planes,
        tile=(16, 16),
        compression="zlib",
        photometric="rgb" if planes.shape[-1] == 3 else "minisblack",
        resolution=(40000, 20000),
        resolutionunit="CENTIMETER",
        extratags=[(274, 3, 1, orientation, True)],
        metadata=None,
    )


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_turned_as_viewers_show_it(tmp_path: Path, orientation: int) -> None:
    write_turned_tiff(tmp_path / "a.tif", orientation, SAMPLES[..., :3])
    expected = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "a.tif")))
    plan = plan_ingest(tmp_path / "a.tif", IngestOptions(chunk=16, shard=16))
    run_ingest(plan, tmp_path / "out.zarr")
    stored = np.asarray(zarr.open_array(tmp_path / "out.zarr/0", mode="r")[...])
    np.testing.assert_array_equal(np.moveaxis(stored, 0, -1), expected)
    assert any(f"Orientation {orientation} is applied" in note for note in plan.notes) == (orientation > 1)
    assert plan.image.pixel_size[1:] == ((0.5, 0.25) if orientation < 5 else (0.25, 0.5))
    stored_jpeg = write_jpeg(tmp_path / "a.jpg", orientation=orientation)
    assert stored_jpeg.shape == (30, 44, 3)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "a.jpg")))
    values, _ = read(tmp_path / "a.jpg")
    assert values.shape == expected.shape
    assert np.abs(values.astype(int) - expected).max() <= 1
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(SAMPLES[..., :3]).save(tmp_path / "a.png", exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "a.png")))
    np.testing.assert_array_equal(read(tmp_path / "a.png")[0], expected)


def test_the_pages_of_a_stack_are_turned_too(tmp_path: Path) -> None:
    planes = np.stack([SAMPLES[..., 0], SAMPLES[..., 1]])
    write_turned_tiff(tmp_path / "a.tif", 6, planes)
    np.testing.assert_array_equal(read(tmp_path / "a.tif")[0], np.rot90(planes, -1, (1, 2)))


def test_each_page_of_a_folder_is_turned_as_it_says(tmp_path: Path) -> None:
    """As photographs of one camera, which was held in different ways."""
    pages = [SAMPLES[:30, :30, number] for number in range(3)]
    for number, (orientation, page) in enumerate(zip((1, 6, 3), pages, strict=True)):
        exif = Image.Exif()
        exif[274] = orientation
        Image.fromarray(page).save(tmp_path / f"{number}.png", exif=exif)
    values, notes = read(tmp_path)
    expected = [np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / f"{number}.png"))) for number in range(3)]
    np.testing.assert_array_equal(values, expected)
    assert any("in different ways (as it is seen, orientation 6, orientation 3)" in note for note in notes)
    assert plan_ingest(tmp_path).record.parameters.decoding == "orientation 6; orientation 3"


def test_a_stack_is_no_mask_if_any_of_its_pages_is_compressed_as_jpeg(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "0.tif", SAMPLES[:, :, 0])
    tifffile.imwrite(tmp_path / "1.tif", SAMPLES[:, :, 0])
    assert not plan_ingest(tmp_path).image.is_lossy
    tifffile.imwrite(tmp_path / "1.tif", SAMPLES[:, :, 0], compression="jpeg")
    assert plan_ingest(tmp_path).image.is_lossy


def test_an_orientation_that_is_none_is_noted(tmp_path: Path) -> None:
    write_turned_tiff(tmp_path / "a.tif", 9, SAMPLES[..., 0])
    values, notes = read(tmp_path / "a.tif")
    np.testing.assert_array_equal(values, SAMPLES[..., 0])
    assert any("Orientation 9" in note for note in notes)


def test_what_was_begun_the_other_way_round_is_not_gone_on_with(tmp_path: Path) -> None:
    write_turned_tiff(tmp_path / "a.tif", 3, SAMPLES[..., 0])
    write_turned_tiff(tmp_path / "b.tif", 1, SAMPLES[..., 0])
    turned, plain = (plan_ingest(tmp_path / name) for name in ("a.tif", "b.tif"))
    assert turned.record.parameters.decoding == "orientation 3"
    assert plain.record.parameters.decoding == ""
    run_ingest(plain, tmp_path / "out.zarr")
    with pytest.raises(OutputMismatchError, match="decoding"):
        run_ingest(turned, tmp_path / "out.zarr")


# -- brightness and colours --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["bool", "uint8"])
def test_values_that_count_from_white_are_inverted_as_pillow_does(tmp_path: Path, dtype: str) -> None:
    image = (SAMPLES[..., 0] > 99) if dtype == "bool" else SAMPLES[..., 0]
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="miniswhite", software="a scanner")
    values, notes = read(tmp_path / "a.tif")
    np.testing.assert_array_equal(values, np.asarray(Image.open(tmp_path / "a.tif")))
    assert not (values == image).all()
    assert any("MinIsWhite" in note for note in notes)


def test_an_array_of_bool_that_tifffile_wrote_is_read_as_it_was(tmp_path: Path) -> None:
    image = SAMPLES[..., 0] > 99
    tifffile.imwrite(tmp_path / "a.tif", image)  # counts from white, without turning the values
    values, notes = read(tmp_path / "a.tif")
    np.testing.assert_array_equal(values, image)
    np.testing.assert_array_equal(read_masks(tmp_path / "a.tif").pixels, image)
    assert any("kept as they are stored" in note for note in notes)


def test_16_bits_from_white_are_inverted_and_negative_numbers_are_not(tmp_path: Path) -> None:
    image = SAMPLES[..., 0].astype(np.uint16) * 100
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="miniswhite")
    np.testing.assert_array_equal(read(tmp_path / "a.tif")[0], 65535 - image)
    tifffile.imwrite(tmp_path / "b.tif", image.astype(np.float32), photometric="miniswhite")
    values, notes = read(tmp_path / "b.tif")
    np.testing.assert_array_equal(values, image)
    assert any("kept as they are stored" in note for note in notes)


def test_only_brightness_is_inverted_not_channels(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", SAMPLES, photometric="miniswhite", planarconfig="contig")
    values, notes = read(tmp_path / "a.tif")
    np.testing.assert_array_equal(values, SAMPLES)
    assert any("kept as they are stored" in note for note in notes)


def as_imagej(path: Path) -> None:
    """A file of ImageJ with an inverted lookup table, or with one of colours: its values are what ImageJ measures."""
    with tifffile.TiffFile(path, mode="r+") as tif:
        tif.pages[0].tags["ImageDescription"].overwrite("ImageJ=1.54f\nimages=1\n")


def test_lookup_tables_of_imagej_change_no_value(tmp_path: Path) -> None:
    tables = {"miniswhite": {}, "palette": {"colormap": np.arange(768, dtype=np.uint16).reshape(3, 256)}}
    for name, kwargs in tables.items():
        path = tmp_path / f"{name}.tif"
        photometric = {} if kwargs else {"photometric": name}
        tifffile.imwrite(path, SAMPLES[..., 0], description="x" * 40, metadata=None, **photometric, **kwargs)
        as_imagej(path)
        values, notes = read(path)
        np.testing.assert_array_equal(values, SAMPLES[..., 0])
        assert any("kept" in note for note in notes)


def test_a_palette_is_read_as_its_colours_and_of_a_mask_as_its_numbers(tmp_path: Path) -> None:
    picture = Image.fromarray(SAMPLES[..., :3]).quantize(20)
    picture.save(tmp_path / "a.tif")
    values, _ = read(tmp_path / "a.tif")
    np.testing.assert_array_equal(values, np.asarray(picture.convert("RGB")))
    numbers = np.asarray(picture)
    np.testing.assert_array_equal(read(tmp_path / "a.tif", "yx")[0], numbers)
    np.testing.assert_array_equal(read_masks(tmp_path / "a.tif").pixels, numbers)
    labels = open_labels(list_files([tmp_path / "a.tif"]))
    labels.close()
    assert labels.info.axes == "yx"
    tifffile.imwrite(tmp_path / "image.tif", SAMPLES[..., 0])
    wanted = AnnotationInput(images=(str(tmp_path / "image.tif"),), labels=(str(tmp_path / "a.tif"),))
    (pair,) = find_annotation(wanted).pairs
    assert pair.labels.size("c") == 1
    picture.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read(tmp_path / "a.png")[0], np.asarray(picture.convert("RGB")))


@pytest.mark.parametrize("n_colours", [2, 4, 16, 200])
def test_a_png_with_a_palette_is_read_as_its_colours_and_of_a_mask_as_its_numbers(tmp_path: Path, n_colours) -> None:
    numbers = (np.arange(30 * 20).reshape(30, 20) % n_colours).astype(np.uint8)
    picture = Image.fromarray(numbers).convert("P")
    picture.putpalette(np.random.default_rng(0).permutation(768).astype(np.uint8)[: 3 * n_colours].tolist())
    picture.save(tmp_path / "a.png", transparency=0)  # 1, 2, 4 and 8 bits
    np.testing.assert_array_equal(read(tmp_path / "a.png", "yx")[0], numbers)
    np.testing.assert_array_equal(read_masks(tmp_path / "a.png").pixels, numbers)
    np.testing.assert_array_equal(read(tmp_path / "a.png")[0][..., :3], np.asarray(picture.convert("RGB")))
    tifffile.imwrite(tmp_path / "image.tif", numbers)
    wanted = AnnotationInput(images=(str(tmp_path / "image.tif"),), labels=(str(tmp_path / "a.png"),))
    (pair,) = find_annotation(wanted).pairs
    assert pair.labels.size("c") == 1


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_a_mask_whose_palette_begins_with_white_is_read_as_its_greys(tmp_path: Path, ending) -> None:
    numbers = (SAMPLES[..., 0] > 99).astype(np.uint8)
    picture = Image.fromarray(numbers).convert("P")
    picture.putpalette([255, 255, 255, 0, 0, 0])
    picture.save(tmp_path / f"a.{ending}")
    greys = np.asarray(picture.convert("L"))
    assert greys[numbers == 0].min() == 255
    np.testing.assert_array_equal(read_masks(tmp_path / f"a.{ending}").pixels, greys)


def test_a_palette_of_two_colours_is_read(tmp_path: Path) -> None:
    image = SAMPLES[..., 0] > 99
    colours = np.array([[10, 200], [20, 210], [30, 220]], np.uint16) * 257
    tifffile.imwrite(tmp_path / "a.tif", image, extratags=[(320, 3, 6, colours.ravel().tolist(), True)], metadata=None)
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as tif:
        tif.pages[0].tags["PhotometricInterpretation"].overwrite(3)
    expected = np.where(image[..., None], [200, 210, 220], [10, 20, 30])
    np.testing.assert_array_equal(read(tmp_path / "a.tif")[0], expected)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "a.tif").convert("RGB")), expected)


@pytest.mark.parametrize(("mode", "named"), [("CMYK", "CMYK"), ("LAB", "CIELAB"), ("YCbCr", "YCbCr")])
def test_colours_that_are_not_turned_into_rgb_are_refused(tmp_path: Path, mode: str, named: str) -> None:
    picture = Image.fromarray(SAMPLES[..., :3])
    (picture.convert(mode)).save(tmp_path / "a.tif")
    with pytest.raises(InputError, match=f"{named}.*wrong colours.*Convert it to RGB"):
        plan_ingest(tmp_path / "a.tif")
    if mode == "CMYK":
        np.testing.assert_array_equal(read(tmp_path / "a.tif", "yxc")[0], np.asarray(picture.convert(mode)))


def test_jpeg_colours_inside_a_tiff_become_rgb(tmp_path: Path) -> None:
    picture = Image.fromarray(write_jpeg(tmp_path / "a.jpg"))
    picture.save(tmp_path / "a.tif", compression="jpeg")
    values, _ = read(tmp_path / "a.tif")
    assert np.abs(values.astype(int) - np.asarray(Image.open(tmp_path / "a.tif"))).max() <= 1
