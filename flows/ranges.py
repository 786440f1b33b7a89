"""Ranges of planes and time points as people write them."""

from segment_slide.pipeline.errors import InputError


def parse_ranges(**texts: str | None) -> dict[str, tuple[int, int]]:
    """Start and stop of each axis that was given as "3" or "2:10".

    Raises
    ------
    InputError
        If a text is neither.

    Examples
    --------
    >>> parse_ranges(t="3", z="2:10")
    {'t': (3, 4), 'z': (2, 10)}
    """
    ranges = {}
    for axis, text in texts.items():
        if text is None:
            continue
        first, colon, last = text.partition(":")
        if not first.isdecimal() or (colon and not last.isdecimal()):
            raise InputError(f"--{axis}={text!r}, expected a number like 3 or a range like 2:10.")
        ranges[axis] = (int(first), int(last) if colon else int(first) + 1)
    return ranges
