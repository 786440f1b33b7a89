"""Units and numbers against independent sources: OME-Zarr's list, the OME schema, another library."""

import math

import ome_zarr.axes
import pytest

from segment_slide.pipeline.metadata.numbers import parse_length_um, parse_number, read_size
from segment_slide.pipeline.metadata.units import NGFF_UNITS, is_no_unit, seconds_per, to_ngff, um_per

# UnitsLength and UnitsTime of http://www.openmicroscopy.org/Schemas/OME/2016-06/ome.xsd, in um and s
OME_LENGTHS = {
    "Ym": 1e30, "Zm": 1e27, "Em": 1e24, "Pm": 1e21, "Tm": 1e18, "Gm": 1e15, "Mm": 1e12, "km": 1e9, "hm": 1e8,
    "dam": 1e7, "m": 1e6, "dm": 1e5, "cm": 1e4, "mm": 1e3, "µm": 1.0, "nm": 1e-3, "pm": 1e-6, "fm": 1e-9, "am": 1e-12,
    "zm": 1e-15, "ym": 1e-18, "Å": 1e-4, "thou": 25.4, "li": 25400 / 12, "in": 25400.0, "ft": 304800.0, "yd": 914400.0,
    "mi": 1609344000.0, "ua": 1.495978707e17, "ly": 9.4607304725808e21, "pc": 3.0856775814913673e22, "pt": 25400 / 72,
}  # fmt: skip
OME_TIMES = {
    "Ys": 1e24, "Zs": 1e21, "Es": 1e18, "Ps": 1e15, "Ts": 1e12, "Gs": 1e9, "Ms": 1e6, "ks": 1e3, "hs": 100.0,
    "das": 10.0, "s": 1.0, "ds": 0.1, "cs": 0.01, "ms": 1e-3, "µs": 1e-6, "ns": 1e-9, "ps": 1e-12, "fs": 1e-15,
    "as": 1e-18, "zs": 1e-21, "ys": 1e-24, "min": 60.0, "h": 3600.0, "d": 86400.0,
}  # fmt: skip


@pytest.mark.parametrize(("unit", "um"), OME_LENGTHS.items())
def test_every_length_of_the_ome_schema_has_its_size(unit: str, um: float) -> None:
    assert um_per(unit) == pytest.approx(um, rel=1e-12)
    assert seconds_per(unit) is None or unit in ("m", "h", "d")
    name, factor = to_ngff(unit, "space") or ("", 0.0)
    assert um_per(name) * factor == pytest.approx(um, rel=1e-12)
    assert name in ome_zarr.axes.KNOWN_SPATIAL_UNITS


@pytest.mark.parametrize(("unit", "seconds"), OME_TIMES.items())
def test_every_time_of_the_ome_schema_has_its_size(unit: str, seconds: float) -> None:
    assert seconds_per(unit) == pytest.approx(seconds, rel=1e-12)
    assert um_per(unit) is None
    name, factor = to_ngff(unit, "time") or ("", 0.0)
    assert seconds_per(name) * factor == pytest.approx(seconds, rel=1e-12)
    assert name in ome_zarr.axes.KNOWN_TEMPORAL_UNITS


def test_the_names_we_write_are_those_of_ome_zarr() -> None:
    assert set(NGFF_UNITS["space"]) == set(ome_zarr.axes.KNOWN_SPATIAL_UNITS)
    assert set(NGFF_UNITS["time"]) == set(ome_zarr.axes.KNOWN_TEMPORAL_UNITS)
    assert all(to_ngff(name, "space") == (name, 1.0) for name in NGFF_UNITS["space"])
    assert all(to_ngff(name, "time") == (name, 1.0) for name in NGFF_UNITS["time"])


def test_sizes_of_ome_zarr_s_units_are_those_of_another_library() -> None:
    pint = pytest.importorskip("pint", reason="the extra 'napari' is not installed")
    registry = pint.UnitRegistry()
    for name in NGFF_UNITS["space"]:
        assert um_per(name) == pytest.approx(registry.Quantity(1, name).to("micrometer").magnitude, rel=1e-9)
    for name in NGFF_UNITS["time"]:
        assert seconds_per(name) == pytest.approx(registry.Quantity(1, name).to("second").magnitude, rel=1e-9)


@pytest.mark.parametrize(
    "spelling",
    ["\u00b5m", "\u03bcm", "\\u00B5m", "\\u00b5m", "\u00c2\u00b5m", "\u00ce\u00bcm", "um", "UM", "micron", "Microns",
     "micrometer", "micrometers", "Micrometre", " um ", "um\0"],
)  # fmt: skip
def test_a_micrometre_has_many_spellings(spelling: str) -> None:
    assert um_per(spelling) == 1.0


def test_prefixes_that_differ_by_case_alone_are_told_apart() -> None:
    assert (um_per("mm"), um_per("Mm"), um_per("pm"), um_per("Pm")) == (1e3, 1e12, 1e-6, 1e21)
    assert um_per("MM") is None  # either
    assert (um_per("\u212b"), um_per("inches"), um_per("Inch"), um_per("feet")) == (1e-4, 25400, 25400, 304800)


@pytest.mark.parametrize("unit", ["pixel", "reference frame", "furlong", "", None, "s", "um2", "µ", 7])
def test_what_is_no_length_has_no_size(unit: object) -> None:
    assert um_per(unit) is None
    assert to_ngff(unit, "space") is None


def test_pixels_are_no_unit_and_an_unknown_unit_is_one() -> None:
    assert is_no_unit("Pixels")
    assert is_no_unit(None)
    assert not is_no_unit("reference frame")


@pytest.mark.parametrize(
    ("text", "number"),
    [("0,4990", 0.499), ("4.99e-1", 0.499), ("4,99E-1", 0.499), ("+.5", 0.5), ("5.", 5.0), (" 1 ", 1.0), (7, 7.0),
     (0.25, 0.25), ("1.234,5", 1234.5), ("1,234.5", 1234.5), ("1,234,567.5", 1234567.5), ("-3", -3.0), ("0", 0.0)],
)  # fmt: skip
def test_numbers_have_a_comma_or_a_point(text: object, number: float) -> None:
    assert parse_number(text) == number


@pytest.mark.parametrize(
    "text",
    ["", "nan", "NaN", "INF", "-inf", "Infinity", "1e999", "1_000", "0x10", "1,2,3", "1.2.3", "1,2.3,4", "12 px", "--1",
     "\u0661", "e5", ".", None, True, math.inf, math.nan],
)  # fmt: skip
def test_what_is_no_finite_number_is_none(text: object) -> None:
    assert parse_number(text) is None


@pytest.mark.parametrize("said", ["NaN", "INF", "-INF", "-0.5", "0", "0,0", "x", "1e999"])
def test_a_size_that_is_no_number_above_0_is_noted_as_the_file_says_it(said: str) -> None:
    found = read_size(said, "nm", "PhysicalSizeX")
    assert found.value is None
    assert f"PhysicalSizeX={said} nm; not used" in found.note


def test_what_is_absent_is_not_noted_and_what_overflows_is() -> None:
    assert read_size(None, "nm", "a") == read_size("  ", "nm", "a") == read_size("", None, "a")
    assert not read_size(None, "nm", "a").note
    assert "too small or too large" in read_size("1e300", "Ym", "a").note
    assert "too small or too large" in read_size("1e-320", "ym", "a").note
    assert "'furlong' is not known" in read_size("1", "furlong", "a").note
    assert "\n" not in read_size("1\n2\x1b[0m", "um", "a").note


@pytest.mark.parametrize(
    ("text", "um"), [("0.25", 0.25), ("0,25", 0.25), ("250nm", 0.25), ("2.5e-1 um", 0.25), ("1 thou", 25.4)]
)
def test_users_may_give_a_unit(text: str, um: float) -> None:
    assert parse_length_um(text) == pytest.approx(um)


@pytest.mark.parametrize("text", ["", "nm", "-1", "0", "nan", "1 furlong", "1 s", "1 um um", "1;2"])
def test_what_is_no_length_is_refused(text: str) -> None:
    assert parse_length_um(text) is None
