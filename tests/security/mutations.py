"""Ways to damage JSON: values of each wrong kind at any place, keys gone or doubled, bytes without meaning."""

import json
import math
from collections.abc import Callable, Iterator
from typing import Any

Path = tuple[str | int, ...]

DEEP = 100_000
# By name, so that a failure says which one it was.
VALUES: dict[str, Any] = {
    "null": None,
    "true": True,
    "zero": 0,
    "minus one": -1,
    "one": 1,
    "large": 10**9,
    "beyond 64 bits": 1 << 70,
    "400 digits": 10**400,
    "half": 0.5,
    "minus half": -0.5,
    "1e308": 1e308,
    "1e-320": 1e-320,
    "nan": math.nan,
    "infinity": math.inf,
    "minus infinity": -math.inf,
    "empty text": "",
    "text": "nothing of the kind",
    "number as text": "7",
    "a million letters": "x" * 1_000_000,
    "escape": "a\x1b]0;owned\x07\x9b2J\u202eb",
    "nul": "a\0b",
    "lone surrogate": "\ud800",
    "path upwards": "../../../etc/passwd",
    "absolute path": "/etc/passwd",
    "address": "http://127.0.0.1:9/x",
    "empty list": [],
    "list of null": [None],
    "nested list": [[[[1]]]],
    "list of texts": ["a", "b"],
    "list of negatives": [-1, -1, -1],
    "list of nan": [math.nan, math.nan],
    "list of large": [10**12, 10**12],
    "a thousand ones": [1] * 1000,
    "empty object": {},
    "object": {"a": {"b": [1, {"c": None}]}},
}
_MARK = "\u0000here\u0000"


def places(content: Any, before: Path = ()) -> Iterator[Path]:
    """The place of each value, the whole first."""
    yield before
    if isinstance(content, dict):
        for key, value in content.items():
            yield from places(value, (*before, key))
    elif isinstance(content, list):
        for at, value in enumerate(content):
            yield from places(value, (*before, at))


def put(content: Any, place: Path, value: Any) -> Any:
    """The same content with another value at a place."""
    if not place:
        return value
    copy = dict(content) if isinstance(content, dict) else list(content)
    copy[place[0]] = put(copy[place[0]], place[1:], value)
    return copy


def remove(content: Any, place: Path) -> Any:
    """The same content without a place."""
    copy = dict(content) if isinstance(content, dict) else list(content)
    if len(place) == 1:
        del copy[place[0]]
    else:
        copy[place[0]] = remove(copy[place[0]], place[1:])
    return copy


def change(name: str, content: Any, place: Path) -> str:
    """JSON text of the content with one value replaced, or with the damage of that name at the place."""
    if name == "removed":
        return json.dumps(remove(content, place) if place else {})
    if name == "deep":
        return json.dumps(put(content, place, _MARK)).replace(json.dumps(_MARK), "[" * DEEP + "]" * DEEP)
    if name == "twice":
        inner = content
        for step in place:
            inner = inner[step]
        if not isinstance(inner, list):
            return json.dumps(put(content, place, [inner, inner]))
        return json.dumps(put(content, place, inner + inner))
    return json.dumps(put(content, place, VALUES[name]))


CHANGES = (*VALUES, "removed", "deep", "twice")

WHOLE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "cut off": lambda text: text[: len(text) // 2],
    "invalid UTF-8": lambda text: text[:-1] + b"\xff\xfe" + text[-1:],
    "invalid UTF-8 in a text": lambda text: text.replace(b'": "', b'": "\xff', 1),
    "UTF-16": lambda text: text.decode().encode("utf-16"),
    "byte order mark": lambda text: b"\xef\xbb\xbf" + text,
    "zeros": lambda text: bytes(len(text)),
    "garbage behind": lambda text: text + b"}",
    "keys twice": lambda text: text.rstrip()[:-1] + b"," + text.lstrip()[1:],
    "deep": lambda _: b"[" * DEEP + b"]" * DEEP,
    "deep objects": lambda _: b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    "no JSON": lambda _: b"import os",
}
