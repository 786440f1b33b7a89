"""What a file says of its pixels, after units and numbers were read."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from segment_slide.pipeline.metadata.numbers import Size


@dataclass(frozen=True)
class Calibration:
    """Sizes of pixels and names of channels that a file states.

    Attributes
    ----------
    pixel_size : mapping of str to float
        By axis, in um (t: in s); axes whose size is not known are left out.
    channel_names : tuple of str
        One per channel, or empty.
    notes : tuple of str
        What the file says and is not used.
    """

    pixel_size: Mapping[str, float] = field(default_factory=dict)
    channel_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def calibration_of(sizes: Mapping[str, Size], names: Iterable[str] = (), notes: Iterable[str] = ()) -> Calibration:
    """Sizes that were read, with their notes.

    >>> calibration_of({"x": Size(0.5), "y": Size(None, "no number")}, ["DAPI", ""])
    Calibration(pixel_size={'x': 0.5}, channel_names=('DAPI', 'channel 1'), notes=('no number',))
    """
    known = {axis: size.value for axis, size in sizes.items() if size.value is not None}
    said = [size.note for size in sizes.values() if size.note]
    return Calibration(known, fill_names(names), tuple(dict.fromkeys([*said, *notes])))


def fill_names(names: Iterable[str]) -> tuple[str, ...]:
    """Names of channels, with a number where one has none; empty if none has a name.

    >>> fill_names(["", "GFP"]), fill_names(["", ""])
    (('channel 0', 'GFP'), ())
    >>> fill_names(["", "channel 0"])
    ('channel 0 (no name)', 'channel 0')
    """
    cleaned = [" ".join(str(name or "").strip("\0").split()) for name in names]
    return tuple(name or _number(at, cleaned) for at, name in enumerate(cleaned)) if any(cleaned) else ()


def _number(position: int, names: Iterable[str]) -> str:
    """A name that no other channel has."""
    name = f"channel {position}"
    while name in names:
        name += " (no name)"
    return name
