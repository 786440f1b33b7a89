"""Values of options as people write them: "DAPI,2", "0.5,0.75", "32,128,128", "2:10"."""

from segment_slide.pipeline.errors import InputError


def split(text: str | None) -> tuple[str, ...]:
    """Parts between commas.

    >>> split("DAPI, 2")
    ('DAPI', '2')
    """
    return tuple(part.strip() for part in text.split(",")) if text else ()


def numbers(text: str | None, name: str) -> tuple[float, ...]:
    """Numbers given as "0.5,0.75"."""
    try:
        return tuple(float(part) for part in split(text))
    except ValueError as error:
        raise InputError(f"--{name}={text!r}, expected numbers like 0.5,0.75.") from error


def sizes(text: str | None, name: str) -> tuple[int, ...]:
    """Sizes given as "256" or "32,128,128"."""
    parts = split(text)
    if not all(part.isdecimal() for part in parts):
        raise InputError(f"--{name}={text!r}, expected a size in pixels like 256, or one per axis like 32,128,128.")
    return tuple(map(int, parts))


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
