"""Paths that metadata name: those of arrays and images lie below the group that names them."""


def stays_below(path: str) -> bool:
    """Whether a path names something below the group it is relative to, and is no address.

    >>> [stays_below(path) for path in ("0", "A/1/0", "./0", "../other", "a/../../b", "https://host/a", "a::b")]
    [True, True, True, False, False, False, False]
    """
    return ".." not in path.replace("\\\\", "/").split("/") and "://" not in path and "::" not in path
