"""What part of a file a browser asks for: the Range header of RFC 9110, as far as viewers use it."""

import re

_ONE_RANGE = re.compile(r"\s*bytes\s*=\s*([0-9]{0,4000})\s*-\s*([0-9]{0,4000})\s*", re.ASCII | re.IGNORECASE)


class UnsatisfiableRangeError(ValueError):
    """The range lies wholly behind the end of the file: status 416."""


def parse_range(header: str | None, size: int) -> tuple[int, int] | None:
    """First byte and the one behind the last that a Range header asks for, or None for the whole file.

    Several ranges at once, other units and what is not a range are answered by the whole file, as the RFC allows.

    Parameters
    ----------
    header : str or None
        As ``bytes=0-99``, ``bytes=100-``, or ``bytes=-16`` for the last 16, where Zarr keeps a shard's index.
    size : int
        Bytes of the file.

    Raises
    ------
    UnsatisfiableRangeError
        If none of the bytes are there.

    Examples
    --------
    >>> parse_range("bytes=2-5", 10), parse_range("bytes=8-99", 10), parse_range("bytes=-3", 10)
    ((2, 6), (8, 10), (7, 10))
    >>> parse_range("bytes=0-1,4-5", 10) is None
    True
    """
    match = _ONE_RANGE.fullmatch(header or "")
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:
        start, stop = max(0, size - int(last)), size
    else:
        start, stop = int(first), min(size, int(last) + 1) if last else size
        if last and int(last) < int(first):
            return None
    if start >= stop:
        raise UnsatisfiableRangeError(f"{header} of {size} bytes")
    return start, stop
