"""Pixel sizes and channel names of TIFF files: each dialect in its own units, and notes on what is not used.

The files are written by tifffile, with descriptions written by hand.
"""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from tifffile import TIFF

from segment_slide.pipeline.ingest.options import IngestOptions
from segment_slide.pipeline.ingest.plan import IngestPlan, plan_ingest
from segment_slide.pipeline.ingest.run import run_ingest
from segment_slide.pipeline.storage import store

STACK = np.arange(4 * 8 * 9, dtype=np.uint16).reshape(4, 8, 9)
SLIDE = np.zeros((64, 64, 3), np.uint8)


def write(path: Path, data: np.ndarray, **kwargs: Any) -> Path:
    kwargs.setdefault("photometric", "minisblack")
    tifffile.imwrite(path, data, metadata=None, **kwargs)
    return path


def sizes(plan: IngestPlan) -> dict[str, float | None]:
    """Pixel size by axis, in um and s."""
    return dict(zip(plan.axes, plan.image.pixel_size, strict=True))


# --- ImageJ ---------------------------------------------------------------------------------------------------------


def plan_imagej(
    tmp_path: Path, lines: str, *, resolution: Any = (4.0, 2.0), unit: str = "none", code: str = "utf-8"
) -> IngestPlan:
    text = f"ImageJ=1.54f\nimages=4\nslices=4\n{lines}\nloop=false\n".encode(code)
    path = write(tmp_path / "a.tif", STACK, resolution=resolution, resolutionunit=unit, description=text)
    return plan_ingest(path)


def test_an_imagej_file_written_by_tifffile_has_the_sizes_that_it_was_written_with(tmp_path: Path) -> None:
    metadata = {"axes": "ZYX", "unit": "um", "spacing": 0.7, "finterval": 3}
    tifffile.imwrite(tmp_path / "a.tif", STACK, imagej=True, resolution=(4.0, 2.0), metadata=metadata)
    assert sizes(plan_ingest(tmp_path / "a.tif")) == {"z": 0.7, "y": 0.5, "x": 0.25}


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("unit=mm\nzunit=um\nspacing=0.7", (0.7, 500.0, 250.0)),
        ("unit=um\nzunit=mm\nspacing=0.0007", (0.7, 0.5, 0.25)),
        ("unit=um\nyunit=nm\nzunit=nm\nspacing=700", (0.7, 0.0005, 0.25)),
        ("unit=um\nspacing=-0.7", (0.7, 0.5, 0.25)),  # ImageJ drops the sign
        ("unit=um\nspacing=0,7", (0.7, 0.5, 0.25)),
        ("unit=\\u00B5m\nspacing=0.7", (0.7, 0.5, 0.25)),
        ("unit=micrometers\nspacing=0.7", (0.7, 0.5, 0.25)),
        ("unit=microns\nspacing=0.7", (0.7, 0.5, 0.25)),
        ("unit=nm\nspacing=700", (0.7, 0.0005, 0.00025)),
        ("unit=angstrom\nspacing=7000", (0.7, 5e-5, 2.5e-5)),
    ],
)
def test_imagej_states_the_unit_of_each_axis(tmp_path: Path, lines: str, expected: tuple[float, ...]) -> None:
    plan = plan_imagej(tmp_path, lines)
    assert plan.image.pixel_size == pytest.approx(expected)
    assert plan.notes == ()


@pytest.mark.parametrize(("micro", "code"), [("\u00b5", "utf-8"), ("\u03bc", "utf-8"), ("\u00b5", "latin-1")])
def test_both_micro_signs_are_read_in_either_encoding(tmp_path: Path, micro: str, code: str) -> None:
    assert plan_imagej(tmp_path, f"unit={micro}m\nspacing=1.5", code=code).image.pixel_size == (1.5, 0.5, 0.25)


def test_imagejs_inches_are_sizes_unless_they_are_a_printers(tmp_path: Path) -> None:
    plan = plan_imagej(tmp_path, "unit=inch\nspacing=0.0001", resolution=(50800, 25400))
    assert plan.image.pixel_size == pytest.approx((2.54, 1.0, 0.5))
    plan = plan_imagej(tmp_path, "unit=inch", resolution=(72, 72))
    assert (plan.image.pixel_size, len(plan.notes)) == ((None, None, None), 1)


def test_an_unknown_unit_is_noted_and_its_counts_are_not_taken_for_counts_per_inch(tmp_path: Path) -> None:
    plan = plan_imagej(tmp_path, "unit=furlong\nspacing=2", resolution=(50800, 50800), unit="inch")
    assert plan.image.pixel_size == (None, None, None)
    assert sum("'furlong' is not known" in note for note in plan.notes) == 3


def test_a_spacing_without_a_unit_or_that_is_no_number_is_noted(tmp_path: Path) -> None:
    assert "spacing=2" in "".join(plan_imagej(tmp_path, "spacing=2").notes)
    assert "spacing=nan um; not used" in "".join(plan_imagej(tmp_path, "unit=um\nspacing=NaN").notes)
    assert plan_imagej(tmp_path, "unit=pixel\nspacing=1").notes == ()


# --- OME-TIFF -------------------------------------------------------------------------------------------------------


def plan_ome(path: Path, said: str, unit: str | None = None) -> IngestPlan:
    """A stack whose sizes along y and x are these texts."""
    metadata = {"axes": "ZYX", "PhysicalSizeX": 7.25, "PhysicalSizeY": 7.25, "PhysicalSizeXUnit": "nm"}
    tifffile.imwrite(path, STACK, metadata=metadata)
    with tifffile.TiffFile(path) as tif:
        text = tif.ome_metadata or ""
    units = "" if unit is None else f'PhysicalSizeXUnit="{unit}" PhysicalSizeYUnit="{unit}"'
    tifffile.tiffcomment(path, text.replace("7.25", said).replace('PhysicalSizeXUnit="nm"', units).encode())
    return plan_ingest(path)


@pytest.mark.parametrize(
    ("said", "unit", "um"),
    [("2", "dm", 2e5), ("2", "Å", 2e-4), ("2", "thou", 50.8), ("2", "in", 50800.0), ("2", "pt", 25400 / 36),
     ("0,25", None, 0.25), ("4.99e-1", "µm", 0.499), ("250", "nm", 0.25), ("0.5", "\u03bcm", 0.5),
     ("250 nm", "nm", 0.25), ("0.25 µm", None, 0.25), ("0.25", "[um]", 0.25), ("0.25", "µm/pixel", 0.25)],
)  # fmt: skip
def test_ome_xml_states_units_and_numbers(tmp_path: Path, said: str, unit: str | None, um: float) -> None:
    plan = plan_ome(tmp_path / "a.ome.tif", said, unit)
    assert plan.image.pixel_size == pytest.approx((None, um, um))
    assert plan.multiscale.units == (None, "micrometer", "micrometer")


@pytest.mark.parametrize(
    ("said", "unit"),
    [("NaN", None), ("INF", "µm"), ("-INF", None), ("-0.5", None), ("0", "nm"), ("1", "pixel"),
     ("1", "reference frame"), ("abc", None), ("1e400", None),
     ("1e308", "µm"), ("1e-300", "m"), ("0.25 nm", "µm"), ("0.25 µm", "pixel")],
)  # fmt: skip
def test_what_is_no_size_is_noted_and_stored_as_unknown(tmp_path: Path, said: str, unit: str | None) -> None:
    plan = plan_ome(tmp_path / "a.ome.tif", said, unit)
    assert plan.image.pixel_size == (None, None, None)
    assert sum(f"PhysicalSizeX={said}" in note and "not used" in note for note in plan.notes) == 1
    run_ingest(plan, tmp_path / "out.zarr")  # the second opening says the same as the first, whatever the file says
    content = json.loads((tmp_path / "out.zarr" / "zarr.json").read_text(), parse_constant=pytest.fail)
    assert content["attributes"]["segment_slide"]["notes"] == list(plan.notes)


def test_a_size_along_one_axis_alone_is_noted_unless_the_user_gives_the_other(tmp_path: Path) -> None:
    text = '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0"><Pixels ID="Pixels:0" '
    text += 'DimensionOrder="XYZCT" Type="uint16" SizeX="9" SizeY="8" SizeZ="3" SizeC="1" SizeT="1" '
    path = write(tmp_path / "a.ome.tif", STACK[:3])
    for axis, other in ("XY", "YX"):
        tifffile.tiffcomment(path, f'{text}PhysicalSize{axis}="0.25"><TiffData/></Pixels></Image></OME>'.encode())
        said = f"the pixel size along {other.lower()} is not known, and along {axis.lower()} it is 0.25 um"
        assert any(note.startswith(said) for note in plan_ingest(path).notes)
        assert plan_ingest(path, IngestOptions(pixel_size={"y": 0.5, "x": 0.5})).notes == ()
    tifffile.tiffcomment(path, f'{text}PhysicalSizeX="1" PhysicalSizeY="2"><TiffData/></Pixels></Image></OME>'.encode())
    assert plan_ingest(path).notes == ()


def test_notes_do_not_decide_whether_an_ingest_is_continued(tmp_path: Path) -> None:
    plan = plan_ome(tmp_path / "a.ome.tif", "NaN")
    run_ingest(plan, tmp_path / "out.zarr")
    mark = store.read_attributes(str(tmp_path / "out.zarr"))["segment_slide"]
    del mark["notes"]  # as an earlier version wrote it
    store.update_attributes(str(tmp_path / "out.zarr"), "", {"segment_slide": mark})
    (tmp_path / "out.zarr" / "0" / "c" / "0" / "0" / "0").unlink()
    assert run_ingest(plan, tmp_path / "out.zarr") == 1


# --- slides ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("said", ["0,4990", "4.99e-1", "0.499", "0.4990 ", "0.4990 um"])
def test_aperios_microns_per_pixel_may_have_a_comma_or_an_exponent(tmp_path: Path, said: str) -> None:
    text = f"Aperio Image Library v1|AppMag = 20|MPP = {said}|Left = 1"
    path = write(tmp_path / "a.svs", SLIDE, tile=(32, 32), photometric="rgb", description=text)
    assert plan_ingest(path).image.pixel_size == (None, 0.499, 0.499)


@pytest.mark.parametrize("said", ["-1", "NaN", "abc", "0"])
def test_aperios_size_that_is_none_is_noted(tmp_path: Path, said: str) -> None:
    text = f"Aperio Image Library v1|MPP = {said}"
    plan = plan_ingest(write(tmp_path / "a.svs", SLIDE, tile=(32, 32), photometric="rgb", description=text))
    assert plan.image.pixel_size == (None, None, None)
    assert plan.notes == (f"the file says MPP={said} um; not used, because a size is a number above 0",)


def philips(spacing: str, kind: str = "WSI") -> str:
    return (
        f'<DataObject ObjectType="DPScannedImage"><Attribute Name="PIM_DP_IMAGE_TYPE">{kind}</Attribute>'
        f'<Attribute Name="DICOM_PIXEL_SPACING" PMSVR="IDoubleArray">{spacing}</Attribute></DataObject>'
    )


def plan_philips(folder: Path, *scanned: str) -> IngestPlan:
    text = f'<?xml version="1.0"?><DataObject ObjectType="DPUfsImport"><Array>{"".join(scanned)}</Array></DataObject>'
    return plan_ingest(
        write(folder / "a.tiff", SLIDE, tile=(32, 32), photometric="rgb", description=text, software="Philips DP v1.0")
    )


def test_philips_states_rows_and_columns_in_mm_for_the_slide_and_its_overview(tmp_path: Path) -> None:
    overview = philips('"0.05" "0.05"', "MACROIMAGE")
    plan = plan_philips(tmp_path, overview, philips('"0.00025" "0,0005"'))
    assert plan.image.pixel_size == (None, 0.25, 0.5)
    plan = plan_philips(tmp_path, philips("0.00025\\0.0005"))  # as DICOM itself separates values
    assert plan.image.pixel_size == (None, 0.25, 0.5)
    plan = plan_philips(tmp_path, philips('"0.00025"'))
    assert plan.image.pixel_size == (None, None, None)
    assert "DICOM_PIXEL_SPACING" in "".join(plan.notes)


def test_a_qptiff_names_the_channel_of_each_page(tmp_path: Path) -> None:
    names = ["<Name>DAPI</Name>", "<Biomarker>CD8</Biomarker>", "<Name></Name>", "<Name>Opal 520</Name>"]
    with tifffile.TiffWriter(tmp_path / "a.qptiff") as file:
        for name in names:
            root = "PerkinElmer-QPI-ImageDescription"
            text = f'<?xml version="1.0" encoding="utf-16"?><{root}>{name}</{root}>'
            file.write(
                SLIDE[..., 0], tile=(32, 32), software="PerkinElmer-QPI", metadata=None, description=text,
                resolution=(20000, 20000), resolutionunit="CENTIMETER",
            )  # fmt: skip
    plan = plan_ingest(tmp_path / "a.qptiff")
    assert plan.image.channel_names == ("DAPI", "CD8", "channel 2", "Opal 520")
    assert plan.image.pixel_size == (None, 0.5, 0.5)


def test_a_leica_slide_states_views_in_nm(tmp_path: Path) -> None:
    text = (
        '<?xml version="1.0"?><scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01"><collection><image>'
        '<pixels sizeX="64" sizeY="64"><dimension sizeX="64" sizeY="64" r="0" ifd="0"/></pixels>'
        '<view sizeX="32000" sizeY="16000"/></image></collection></scn>'
    )
    path = write(tmp_path / "a.scn", SLIDE[..., 0], tile=(32, 32), description=text)
    assert plan_ingest(path).image.pixel_size == (0.25, 0.5)


# --- resolution tags ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("unit", "count", "um"), [("inch", 50800, 0.5), ("centimeter", 20000, 0.5), (4, 2000, 0.5)])
def test_resolution_tags_count_pixels_per_unit(tmp_path: Path, unit: object, count: int, um: float) -> None:
    path = write(tmp_path / "a.tif", STACK[0], resolution=(count, count), resolutionunit=unit)
    assert plan_ingest(path).image.pixel_size == pytest.approx((um, um))


def test_counts_without_a_unit_are_noted_if_they_are_meant(tmp_path: Path) -> None:
    plan = plan_ingest(write(tmp_path / "a.tif", STACK[0], resolution=(20000, 20000), resolutionunit="none"))
    assert plan.image.pixel_size == (None, None)
    assert "ResolutionUnit=1; not used" in "".join(plan.notes)
    assert plan_ingest(write(tmp_path / "b.tif", STACK[0], resolution=(1, 1), resolutionunit="none")).notes == ()


def test_resolution_tags_stand_in_for_a_size_that_is_none_and_the_plan_says_so(tmp_path: Path) -> None:
    text = "Aperio Image Library v1|MPP = NaN"
    kwargs = {"resolution": (20000, 20000), "resolutionunit": "centimeter"}
    path = write(tmp_path / "a.svs", SLIDE, tile=(32, 32), photometric="rgb", description=text, **kwargs)
    plan = plan_ingest(path)
    assert plan.image.pixel_size == (None, 0.5, 0.5)
    assert plan.notes[-1] == "the pixel size is taken from the resolution tags"


# --- microscopes ----------------------------------------------------------------------------------------------------


def write_lsm(path: Path) -> None:
    info = np.zeros(1, np.dtype(TIFF.CZ_LSMINFO))
    info["MagicNumber"], info["StructureSize"] = 67127628, info.nbytes
    for axis, size, voxel in (("X", 64, 2e-7), ("Y", 64, 2.5e-7), ("Z", 3, 1e-6)):
        info[f"Dimension{axis}"], info[f"VoxelSize{axis}"] = size, voxel
    info["DimensionChannels"] = info["DimensionTime"] = 1
    tag = (34412, 1, info.nbytes, info.tobytes(), True)
    with tifffile.TiffWriter(path) as file:
        for number in range(3):
            kwargs: dict[str, Any] = {"photometric": "minisblack", "metadata": None, "software": False}
            file.write(SLIDE[..., 0], extratags=[tag] if number == 0 else [], **kwargs)
            file.write(SLIDE[::4, ::4, 0], subfiletype=1, **kwargs)


def write_stk(path: Path) -> None:
    """Three planes in one page, with MetaMorph's tags, whose values lie anywhere in the file."""
    tags = [(33628, 4, 8, [0] * 8, True), (33629, 5, 9, [1] * 18, True)]
    write(path, SLIDE[..., 0], software=False, extratags=tags)
    content = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as tif:
        uic1, uic2, strips = (tif.pages.first.tags[code] for code in (33628, 33629, 273))
    pixels, x = len(content), len(content) + 3 * 64 * 64
    content += bytes(3 * 64 * 64) + struct.pack("<4I", 65, 100, 32, 100) + struct.pack("<I", 3) + b"um\0\0"
    struct.pack_into("<8I", content, uic1.valueoffset, 0, 1, 4, x, 5, x + 8, 6, x + 16)
    for plane in range(3):
        struct.pack_into("<6I", content, uic2.valueoffset + 24 * plane, 3, 2, 2451545, 1000 * plane, 2451545, 0)
    struct.pack_into("<I", content, uic1.offset + 4, 4)
    struct.pack_into("<I", content, uic2.offset + 4, 3)
    struct.pack_into("<I", content, strips.valueoffset, pixels)
    path.write_bytes(content)


def write_fluoview(path: Path) -> None:
    header = np.zeros(1, np.dtype(TIFF.MM_HEADER))
    for at, (name, size, step) in enumerate([(b"X", 64, 0.3), (b"Y", 64, 0.4), (b"Z", 3, 1.5)]):
        header["Dimensions"][0][at] = (name, size, 0.0, step, b"\xb5m")
    tags = [(34361, 1, header.nbytes, header.tobytes(), True), (34362, 1, 64, bytes(64), True)]
    write(path, np.zeros((3, 64, 64), np.uint8), extratags=tags)


def write_metaseries(path: Path) -> None:
    said = {"x": "0.65", "y": "0.5", "units": "um", "state": "on"}
    items = "".join(f'<prop id="spatial-calibration-{key}" type="string" value="{v}"/>' for key, v in said.items())
    text = f"<MetaData><PlaneInfo>{items}</PlaneInfo></MetaData>"
    write(path, SLIDE[..., 0], description=text, software="MetaSeries")


def write_sem(path: Path) -> None:
    text = "\r\nAP_PIXEL_SIZE\r\nPixel Size = 12.3 nm\r\n"
    write(path, SLIDE[..., 0], extratags=[(34118, 2, 0, text, True)])


def write_fei(path: Path) -> None:
    text = "[Scan]\r\nPixelWidth=2e-9\r\nPixelHeight=3e-9\r\n"
    write(path, SLIDE[..., 0], extratags=[(34682, 2, 0, text, True)])


@pytest.mark.parametrize(
    ("writer", "expected"),
    [
        (write_lsm, {"z": 1.0, "y": 0.25, "x": 0.2}),
        (write_stk, {"z": 1.5, "y": 0.32, "x": 0.65}),
        (write_fluoview, {"z": 1.5, "y": 0.4, "x": 0.3}),
        (write_metaseries, {"y": 0.5, "x": 0.65}),
        (write_sem, {"y": 0.0123, "x": 0.0123}),
        (write_fei, {"y": 0.003, "x": 0.002}),
    ],
)
def test_microscopes_state_sizes_in_tags_of_their_own(tmp_path: Path, writer: Any, expected: dict[str, float]) -> None:
    writer(tmp_path / "a.tif")
    assert sizes(plan_ingest(tmp_path / "a.tif")) == pytest.approx(expected)


def test_damaged_metadata_of_a_microscope_are_noted_and_the_pixels_are_read(tmp_path: Path) -> None:
    text = '<?xml version="1.0"?><DataObject ObjectType="DPUfsImport"><Array></DataObject>'
    path = write(tmp_path / "a.tif", SLIDE[..., 0], description=text, software="Philips DP v1.0")
    plan = plan_ingest(path)
    assert plan.shape == (64, 64)
    assert any("Philips metadata cannot be read" in note for note in plan.notes)


# --- PNG, stacks, users ---------------------------------------------------------------------------------------------


def test_the_two_sizes_of_a_png_may_differ_and_a_printers_is_noted(tmp_path: Path) -> None:
    from PIL import Image

    Image.fromarray(SLIDE[..., 0]).save(tmp_path / "a.png", dpi=(50800, 25400))
    assert plan_ingest(tmp_path / "a.png").image.pixel_size == pytest.approx((1.0, 0.5), rel=1e-4)
    Image.fromarray(SLIDE[..., 0]).save(tmp_path / "b.png", dpi=(72, 72))
    plan = plan_ingest(tmp_path / "b.png")
    assert plan.image.pixel_size == (None, None)
    assert "printer" in plan.notes[0]


def test_pages_of_different_sizes_are_noted(tmp_path: Path) -> None:
    for name, count in (("a1.tif", 20000), ("a2.tif", 10000)):
        write(tmp_path / name, STACK[0], resolution=(count, count), resolutionunit="centimeter")
    plan = plan_ingest(tmp_path)
    assert plan.image.pixel_size == (None, 0.5, 0.5)
    assert any("different pixel sizes" in note for note in plan.notes)


def test_the_users_size_comes_before_the_files(tmp_path: Path) -> None:
    plan_ome(tmp_path / "a.ome.tif", "NaN")
    plan = plan_ingest(tmp_path / "a.ome.tif", IngestOptions(pixel_size={"y": 0.5, "x": 0.25}))
    assert plan.multiscale.levels[0].scale == (1.0, 0.5, 0.25)
