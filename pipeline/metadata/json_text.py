"""JSON from strangers: read with limits, so that a damaged or hostile file is an error in words and not a crash.

Everything that reads JSON reads it here, but for `unet`, which imports nothing of ours.
"""

import json
from collections.abc import Sequence
from typing import Any

# Consolidated metadata of a plate of 1,536 wells with nine fields each have about 60 MB; ours have some kilobytes.
MOST_BYTES = 64 << 20
MOST_DEPTH = 100  # ours and OME-Zarr's have less than 15; Python itself gives up at about 1,000


class JsonError(ValueError):
    """A text is not JSON that can be read."""


def parse_json(content: bytes | str) -> Any:
    """Value of a JSON text.

    Parameters
    ----------
    content : bytes or str
        UTF-8, with or without byte order mark.

    Raises
    ------
    JsonError
        If it is damaged, larger than `MOST_BYTES`, nested more than `MOST_DEPTH` deep, or says a key twice, which
        every reader would understand in its own way.

    Examples
    --------
    >>> parse_json(b'{"a": [1]}')
    {'a': [1]}
    >>> parse_json('{"a": 1, "a": 2}')
    Traceback (most recent call last):
    ...
    segment_slide.pipeline.metadata.json_text.JsonError: the key 'a' is there twice
    """
    expect_short(len(content))
    try:
        value = json.loads(content, object_pairs_hook=_without_doubles)
    except RecursionError:
        raise JsonError(f"it is nested more than {MOST_DEPTH} deep") from None
    except JsonError:
        raise
    except ValueError as error:  # of its own class, UnicodeDecodeError, and numbers of thousands of digits
        raise JsonError(f"it is no JSON in UTF-8: {error!s:.200}") from None
    _check_depth(value)
    return value


def expect_short(n_bytes: int) -> None:
    """Refuse a text that is longer than `MOST_BYTES`; call it before the text is read, where its length is known."""
    if n_bytes > MOST_BYTES:
        raise JsonError(f"it has {n_bytes:,} bytes, expected at most {MOST_BYTES:,}")


def parse_object(content: bytes | str) -> dict[str, Any]:
    """The same; refuses everything but an object."""
    value = parse_json(content)
    if not isinstance(value, dict):
        raise JsonError(f"it is {describe(value)}, expected a JSON object")
    return value


def describe(value: object) -> str:
    """A value as messages show it: whole if it is short.

    >>> describe("a" * 100)
    "'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
    """
    return f"{value if not isinstance(value, str | bytes) else value[:100]!r:.60}"


def _without_doubles(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        double = next(key for at, key in enumerate(keys) if key in keys[:at])
        raise JsonError(f"the key {double!r:.60} is there twice")
    return found


def _check_depth(value: Any) -> None:
    level, depth = [value], 1
    while level := [inner for outer in level for inner in _inside(outer)]:
        depth += 1
        if depth > MOST_DEPTH:
            raise JsonError(f"it is nested more than {MOST_DEPTH} deep")


def _inside(value: Any) -> Sequence[Any]:
    """Lists and objects directly in one."""
    content = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [inner for inner in content if isinstance(inner, dict | list)]
