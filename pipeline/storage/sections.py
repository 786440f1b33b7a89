"""Records as dataclasses: read from JSON and checked once, written as the same JSON again.

A record is a JSON object of sections; a section is a JSON object of fields. Each is a frozen dataclass that extends
`Section`. A record is written again as it was read: keys that were absent stay absent, and keys that this version does
not know are kept. So a record of another version can be rewritten, and its identity does not change.

We use plain dataclasses and this file, because the libraries for this take longer to import than a command may take.
"""

import functools
import sys
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from typing import Any, TypeVar

from segment_slide.pipeline.errors import OutputError
from segment_slide.pipeline.metadata.json_text import describe

Kind = TypeVar("Kind")

# Metadata of fields.
OPTIONAL = {"is_optional": True}  # not written while it has its default
NOT_STORED = {"is_stored": False}  # not in the JSON: the caller of `read_section` gives it
# How records are compared (`list_differences`). A key that is absent stands for the default of its field: an option
# that did not exist when the record was written had the effect that its default has.
UNKNOWN = {"is_unknown": True}  # the default only says that nothing was recorded: an absent key is not compared
NOT_COMPARED = {"is_compared": False}  # a result, or where something lies

SIGNED = {"is_signed": True}  # a whole number that may be below 0; others are counts, sizes, places

_LARGEST = 1 << 63  # counts and sizes stay below this; JSON has no limit
_NAMES = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}


@dataclass(frozen=True, kw_only=True)
class Section:
    """A JSON object with known fields.

    Parameters
    ----------
    read_from : mapping, optional
        The JSON object that it was read from; None if it was made here.
    """

    read_from: Mapping[str, Any] | None = field(default=None, repr=False, compare=False, metadata=NOT_STORED)


@dataclass(frozen=True)
class Difference:
    """A field that differs between two records.

    Attributes
    ----------
    names : tuple of str
        Of the sections, from outside, and of the field.
    before, now : Any
        The two values, as JSON.
    begun, wanted : dataclass
        The two sections that hold the field.
    """

    names: tuple[str, ...]
    before: Any
    now: Any
    begun: Any
    wanted: Any


class _WrongValueError(ValueError):
    """A value that a field cannot have."""

    def __init__(self, key: str, value: object, expected: str) -> None:
        super().__init__(f"{key or 'the whole'} is {describe(value)}, expected {expected}")


def read_section(kind: type[Kind], content: object, file: str, **given: object) -> Kind:
    """A section with its inner sections from JSON.

    Parameters
    ----------
    kind : type
        A dataclass. If it extends `Section`, keys that it does not know are kept.
    content : object
        The parsed JSON.
    file : str
        The file that it was read from, for the message.
    **given : object
        Fields that are not in the JSON.

    Raises
    ------
    OutputError
        If a value is not of its field's type, or one without a default is missing; naming file and key.
    """
    try:
        return _read(kind, content, "", given)
    except _WrongValueError as error:
        version = _find_version(content)
        wrote = f" (segment-slide {version} wrote it)" if version else ""
        raise OutputError(
            f"{file}: its record cannot be read{wrote}: {error}. It is damaged, was edited, or is of a later version. "
            f"Restore the file, or use the version that wrote it."
        ) from error


def write_section(section: Any) -> dict[str, Any]:
    """A section as JSON; keys are in the order in which they were read, or else in the order of the fields."""
    before: Mapping[str, Any] | None = getattr(section, "read_from", None)
    now: dict[str, Any] = {}
    dropped = set()
    for item in _stored_fields(type(section)):
        value = getattr(section, item.name)
        if value == _default(item):
            if before is not None and before.get(item.name) is None:  # it was absent, or null, and stays so
                continue
            if item.metadata.get("is_optional"):
                dropped.add(item.name)
                continue
        now[item.name] = _to_json(value)
    kept = {name: now.get(name, old) for name, old in (before or {}).items() if name not in dropped}
    return kept | now


def list_differences(begun: Any, wanted: Any, names: tuple[str, ...] = ()) -> list[Difference]:
    """Fields of two sections of the same kind that differ.

    Parameters
    ----------
    begun, wanted : dataclass
        The section as it was read, and as it would be written now. A key that `begun` did not have counts as its
        default, or is not compared if its field is `UNKNOWN`.
    names : tuple of str
        Names of the sections around these.

    Returns
    -------
    list of Difference
        In the order of the fields.
    """
    found = []
    for item in _stored_fields(type(wanted)):
        if not item.metadata.get("is_compared", True):
            continue
        path, now, before = (*names, item.name), getattr(wanted, item.name), getattr(begun, item.name)
        if is_dataclass(now):
            absent = typing.cast(Any, type(now))
            found += list_differences(absent() if before is None else before, now, path)
        elif item.metadata.get("is_unknown") and before == _default(item):
            continue
        elif isinstance(now, Mapping) and not names:
            old, new = dict(before or {}), _to_json(now)
            found += [
                Difference((*path, key), _to_json(old.get(key)), value, begun, wanted)
                for key, value in new.items()
                if _to_json(old.get(key)) != value
            ]
        elif _to_json(before) != _to_json(now):
            found.append(Difference(path, _to_json(before), _to_json(now), begun, wanted))
    return found


def _read(kind: type[Kind], content: object, key: str, given: Mapping[str, object]) -> Kind:
    if not isinstance(content, Mapping):
        raise _WrongValueError(key, content, "a JSON object")
    hints, values = _hints(typing.cast(Any, kind)), dict(given)
    for item in _stored_fields(kind):
        where = f"{key}.{item.name}".lstrip(".")
        value = content.get(item.name)
        if value is None and _default(item) is not MISSING:
            continue
        if item.name not in content:
            raise _WrongValueError(where, None, "it to be there")
        values[item.name] = _from_json(hints[item.name], value, where)
        if not item.metadata.get("is_signed"):
            _expect_counts(values[item.name], where)
    if issubclass(kind, Section):
        values["read_from"] = dict(content)
    elif unknown := set(content) - set(hints):
        raise _WrongValueError(f"{key}.{min(unknown)}".lstrip("."), content[min(unknown)], "no such key")
    try:
        return kind(**values)
    except (ValueError, TypeError, ArithmeticError) as error:  # a dataclass that checks its values
        raise _WrongValueError(key, content, f"what fits together ({error!s:.200})") from error


def _expect_counts(value: object, key: str) -> None:
    if type(value) is int and value < 0:
        raise _WrongValueError(key, value, "a whole number from 0")
    if isinstance(value, tuple):
        for at, item in enumerate(value):
            _expect_counts(item, f"{key}[{at}]")


def _from_json(kind: Any, value: object, key: str) -> Any:
    """A JSON value, converted to the type of its field."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        (inner,) = (item for item in arguments if item is not types.NoneType)
        return None if value is None else _from_json(inner, value, key)
    if origin is tuple:
        return _read_tuple(arguments, value, key)
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise _WrongValueError(key, value, "a JSON object")
        return {name: _from_json(arguments[1], item, f"{key}.{name}") for name, item in value.items()}
    if is_dataclass(kind):
        return _read(typing.cast(type[Any], kind), value, key, {})
    if kind is not Any and not _is_plain(kind, value):
        raise _WrongValueError(key, value, _NAMES[kind])
    return value


def _read_tuple(kinds: tuple[Any, ...], value: object, key: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise _WrongValueError(key, value, "a list")
    is_any_length = kinds[-1] is Ellipsis
    if not is_any_length and len(value) != len(kinds):
        raise _WrongValueError(key, value, f"a list of {len(kinds)}")
    inner = kinds[:1] * len(value) if is_any_length else kinds
    return tuple(
        _from_json(kind, item, f"{key}[{at}]") for at, (kind, item) in enumerate(zip(inner, value, strict=True))
    )


def _is_plain(kind: type, value: object) -> bool:
    """Whether a JSON value is of a plain type; whole numbers count as numbers, true and false do not."""
    if kind in (int, float) and isinstance(value, bool):
        return False
    if kind is int:
        return isinstance(value, int) and abs(value) < _LARGEST
    if kind is float:
        return isinstance(value, int | float) and abs(value) <= sys.float_info.max  # not NaN either
    return isinstance(value, kind)


def _to_json(value: Any) -> Any:
    if is_dataclass(value):
        return write_section(value)
    if isinstance(value, Mapping):
        return {key: _to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_to_json(item) for item in value]
    return value


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _stored_fields(kind: Any) -> Iterator["Field[Any]"]:
    return (item for item in fields(kind) if item.metadata.get("is_stored", True))


def _default(item: "Field[Any]") -> Any:
    return item.default if item.default_factory is MISSING else item.default_factory()


def _find_version(content: object) -> str:
    """The version that wrote a record, as the record says; "" if it does not say so."""
    if not isinstance(content, Mapping):
        return ""
    sections = (content.get(name) for name in ("code", "settings"))
    found = [section.get("version") for section in sections if isinstance(section, Mapping)]
    return next((f"{version!s:.40}" for version in (content.get("code_version"), *found) if version), "")
