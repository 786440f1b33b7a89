"""The parser of numbers and sizes that files and users state: comma or point, exponents; no NaN, no infinity.

A size is a number and a unit. Each reader says what the file says through `read_size`, so that whatever is there but
cannot be used becomes a note.
"""

import math
import re
from dataclasses import dataclass

from segment_slide.pipeline.metadata.units import Kind, is_no_unit, normalise_unit, seconds_per, um_per

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,4})?", re.ASCII)
_QUANTITY = re.compile(r"\s*([+-]?[\d.,]+(?:[eE][+-]?\d+)?)\s*(\D*)", re.ASCII)
_SHOWN = 60  # characters of a value in a note
_SMALLEST, _LARGEST = 1e-60, 1e60  # um or s: powers of sizes, and those of coarser levels, stay finite


@dataclass(frozen=True)
class Size:
    """A size that a file states.

    Attributes
    ----------
    value : float or None
        In um or s, finite and above 0; None if the file does not state it, or not in a way that can be used.
    note : str
        What the file says and why it is not used; "" if there is nothing to say.
    """

    value: float | None = None
    note: str = ""


def parse_number(said: object) -> float | None:
    """The finite number that a value or text states; None if it states none.

    A comma is a decimal comma, unless a point follows it.

    >>> parse_number("0,4990"), parse_number("4.99e-1"), parse_number("1,234.5"), parse_number("1.234,5")
    (0.499, 0.499, 1234.5, 1234.5)
    >>> parse_number("nan"), parse_number("INF"), parse_number("1_000"), parse_number(float("inf")), parse_number(True)
    (None, None, None, None, None)
    """
    if isinstance(said, bool) or said is None:
        return None
    text = _use_points(str(said).strip().strip("\0").replace("\u2212", "-"))
    if not _NUMBER.fullmatch(text):
        return None
    number = float(text)
    return number if math.isfinite(number) else None


def _use_points(text: str) -> str:
    """A decimal comma as a point, without separators of thousands."""
    if "," not in text:
        return text
    if "." not in text:
        return text.replace(",", ".") if text.count(",") == 1 else text
    decimal, thousands = (",", ".") if text.rfind(",") > text.rfind(".") else (".", ",")
    whole, _, rest = text.rpartition(decimal)
    groups = whole.split(thousands)
    is_grouped = all(len(group) == 3 for group in groups[1:]) and decimal not in whole
    return f"{''.join(groups)}.{rest}" if is_grouped else text


def read_size(said: object, unit: object, name: str, kind: Kind = "space") -> Size:
    """What a file states of a size, in um or s.

    Parameters
    ----------
    said : object
        Number or text; None or "" if the file does not state it.
    unit : object
        The unit it is in, in any spelling; `said` may repeat it.
    name : str
        What the file calls it, for the note.
    kind : {"space", "time"}
        Whether it is a length or a time.

    >>> read_size("250", "nm", "PhysicalSizeX")
    Size(value=0.25, note='')
    >>> read_size("0.499 um", "micron", "MPP")
    Size(value=0.499, note='')
    >>> read_size("-0.5", "um", "PhysicalSizeX").note
    'the file says PhysicalSizeX=-0.5 um; not used, because a size is a number above 0'
    >>> read_size("1", "furlong", "PhysicalSizeX").note
    "the file says PhysicalSizeX=1 furlong; not used, because the unit 'furlong' is not known"
    """
    if said is None or not str(said).strip().strip("\0"):
        return Size()
    factor_of = um_per if kind == "space" else seconds_per
    shown, number, factor = normalise_unit(unit)[:_SHOWN], parse_number(said), factor_of(unit)
    repeats = _QUANTITY.fullmatch(str(said)) if number is None else None
    if repeats and factor is not None and factor_of(repeats.group(2)) == factor:
        number = parse_number(repeats.group(1))
    value = number * factor if number is not None and factor is not None else None
    if value is not None and _SMALLEST < value < _LARGEST:
        return Size(value)
    says = f"the file says {name}={_show(said)} {shown}".rstrip() + "; not used, because "
    if number is None or number <= 0:
        return Size(None, f"{says}a size is a number above 0")
    if value is not None:
        return Size(None, f"{says}it is too small or too large")
    if is_no_unit(unit):
        return Size(None, f"{says}it has no unit of {'length' if kind == 'space' else 'time'}")
    return Size(None, f"{says}the unit {shown!r} is not known")


def _show(said: object) -> str:
    text = " ".join(str(said).split())
    return "".join(letter if letter.isprintable() else "?" for letter in text)[:_SHOWN]


def parse_length_um(text: object) -> float | None:
    """A length in um that a user states: a number of um, or a number with its unit; None if it is none.

    >>> parse_length_um("0,25"), parse_length_um("250 nm"), parse_length_um("0.25um"), parse_length_um("-1")
    (0.25, 0.25, 0.25, None)
    """
    match = _QUANTITY.fullmatch(str(text))
    return read_size(match.group(1), match.group(2).strip() or "um", "").value if match else None
