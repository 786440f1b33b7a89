"""The table of units: lengths in um and times in s, by every name that files use for them.

The names are those of OME-Zarr (NGFF), of the OME-XML schema, and what ImageJ and microscopes write. What we write has
OME-Zarr's names; what we compute with is um and s. A file's own spelling counts only here.
"""

import contextlib
import re
import unicodedata
from collections.abc import Mapping
from typing import Literal

Kind = Literal["space", "time"]

_PREFIXES = {
    "Y": ("yotta", 24), "Z": ("zetta", 21), "E": ("exa", 18), "P": ("peta", 15), "T": ("tera", 12), "G": ("giga", 9),
    "M": ("mega", 6), "k": ("kilo", 3), "h": ("hecto", 2), "da": ("deca", 1), "d": ("deci", -1), "c": ("centi", -2),
    "m": ("milli", -3), "μ": ("micro", -6), "u": ("micro", -6), "n": ("nano", -9), "p": ("pico", -12),
    "f": ("femto", -15), "a": ("atto", -18), "z": ("zepto", -21), "y": ("yocto", -24),
}  # fmt: skip
_INCH = 25400.0  # um

# Units without a prefix: OME-Zarr's name, or "" if it has none; size in um or s; other names.
_LENGTHS = (
    ("meter", 1e6, ("m", "metre")),
    ("angstrom", 1e-4, ("Å", "ångström", "ångstrom", "angström")),
    ("micrometer", 1.0, ("micron", "mikron", "mic")),
    ("inch", _INCH, ("in", "inches", '"')),
    ("foot", 12 * _INCH, ("ft", "feet")),
    ("yard", 36 * _INCH, ("yd",)),
    ("mile", 63360 * _INCH, ("mi",)),
    ("parsec", 3.0856775814913674e22, ("pc",)),
    ("", _INCH / 1000, ("thou", "mil")),
    ("", _INCH / 12, ("li", "line")),
    ("", _INCH / 72, ("pt", "point")),
    ("", 1.495978707e17, ("ua", "au", "astronomical unit")),
    ("", 9.4607304725808e21, ("ly", "light year", "lightyear")),
)
_TIMES = (
    ("second", 1.0, ("s", "sec")),
    ("minute", 60.0, ("min",)),
    ("hour", 3600.0, ("h", "hr")),
    ("day", 86400.0, ("d",)),
)
_NO_NGFF_NAME = {"decameter", "decasecond"}
_NOT_UNITS = ("", "pixel", "pixels", "px", "voxel", "voxels", "none", "null", "undefined", "unknown", "n/a")


def _spell(kind: Kind) -> dict[str, tuple[str, float]]:
    """(OME-Zarr's name or "", size in um or s) by spelling; spellings of one or two letters keep their case."""
    base, symbol, british = ("meter", "m", "metre") if kind == "space" else ("second", "s", "second")
    exponent = 6 if kind == "space" else 0
    table: dict[str, tuple[str, float]] = {}
    for prefix, (name, power) in _PREFIXES.items():
        full = f"{name}{base}"
        entry = ("" if full in _NO_NGFF_NAME else full, float(f"1e{power + exponent}"))
        spellings = [prefix + symbol, full, f"{name}{british}", f"{full}s", f"{name}{british}s"]
        spellings += [f"{prefix}sec", f"{prefix}secs"] if kind == "time" else []
        table |= dict.fromkeys(spellings, entry)
    for name, size, others in _LENGTHS if kind == "space" else _TIMES:
        for spelling in (name, *others):
            plural = f"{spelling}s" if len(spelling) > 2 else spelling
            table |= dict.fromkeys((spelling, plural) if spelling else (), (name, size))
    return {unicodedata.normalize("NFKC", spelling): entry for spelling, entry in table.items()}


_TABLES: Mapping[Kind, Mapping[str, tuple[str, float]]] = {"space": _spell("space"), "time": _spell("time")}
NGFF_UNITS: Mapping[Kind, frozenset[str]] = {
    kind: frozenset(name for name, _ in table.values() if name) for kind, table in _TABLES.items()
}
_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")
_PER_PIXEL = re.compile(r"(\s*/\s*|\s+per\s+)(pixel|px|pix|voxel|vx)$", re.IGNORECASE)


def normalise_unit(unit: object) -> str:
    r"""A unit's text with escapes of ImageJ, both micro signs and a wrong decoding of UTF-8 made one.

    Brackets around it, and "per pixel" after it, are left out.

    >>> normalise_unit("\\u00B5m") == normalise_unit(" \u03bcm ") == normalise_unit("\u00c2\u00b5m")
    True
    >>> normalise_unit("[um]"), normalise_unit("um/pixel"), normalise_unit("microns per px")
    ('um', 'um', 'microns')
    """
    text = _ESCAPE.sub(lambda match: chr(int(match.group(1), 16)), str(unit or "")).strip().strip("\0")
    if set(text) & set("ÂÃÎ"):  # UTF-8 that was read as Windows' code page
        with contextlib.suppress(UnicodeError):
            text = text.encode("cp1252").decode("utf-8")
    text = unicodedata.normalize("NFKC", text).strip()
    bare = text[1:-1] if text[:1] + text[-1:] in ("()", "[]", "''", "<>") else text
    return _PER_PIXEL.sub("", bare.strip()).rstrip(".")


def _find(unit: object, kind: Kind) -> tuple[str, float] | None:
    text, table = normalise_unit(unit), _TABLES[kind]
    found = table.get(text)
    # mm and Mm are two units, so symbols keep their case; words, and what has one meaning in capitals, do not
    is_word = len(text) > 3 or text in ("UM", "NM", "CM", "SEC", "MIN", "IN")
    return found or (table.get(text.lower()) if is_word else None)


def um_per(unit: object) -> float | None:
    """How many um a unit of length has; None if it is not known, or no length.

    >>> um_per("nm"), um_per("Mm"), um_per("microns"), um_per("pixel")
    (0.001, 1000000000000.0, 1.0, None)
    """
    found = _find(unit, "space")
    return found[1] if found else None


def seconds_per(unit: object) -> float | None:
    """How many seconds a unit of time has; None if it is not known, or no time.

    >>> seconds_per("ms"), seconds_per("hour"), seconds_per("nm")
    (0.001, 3600.0, None)
    """
    found = _find(unit, "time")
    return found[1] if found else None


def is_no_unit(unit: object) -> bool:
    """Whether a text says that there is no unit: nothing, or pixels.

    >>> is_no_unit("pixels"), is_no_unit("furlong")
    (True, False)
    """
    return normalise_unit(unit).lower() in _NOT_UNITS


def to_ngff(unit: object, kind: Kind) -> tuple[str, float] | None:
    """OME-Zarr's name for a unit, and the factor for values: 1 unless OME-Zarr has no such unit; None if not known.

    >>> to_ngff("nm", "space"), to_ngff("thou", "space"), to_ngff("pixel", "space")
    (('nanometer', 1.0), ('micrometer', 25.4), None)
    """
    found = _find(unit, kind)
    if found is None:
        return None
    name, size = found
    return (name, 1.0) if name else ("micrometer" if kind == "space" else "second", size)
