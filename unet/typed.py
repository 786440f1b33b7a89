"""Dataclasses from the JSON header of a checkpoint: each value is checked against the type of its field."""

import json
import sys
import types
import typing
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

from segment_slide.unet.errors import CheckpointError

Kind = TypeVar("Kind")

MOST_BYTES = 64 << 20
_NAMES = {int: "a whole number", float: "a finite number", str: "a text", bool: "true or false", dict: "a JSON object"}


def parse_header(text: str) -> dict[str, Any]:
    """JSON object in the header of a safetensors file.

    Raises
    ------
    CheckpointError
        If it is no JSON object, or too large or too deeply nested to be one of ours.
    """
    if len(text) > MOST_BYTES:
        raise CheckpointError(f"the file's header has {len(text):,} letters, expected at most {MOST_BYTES:,}.")
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"the file's header is no JSON that can be read: {error!s:.200}") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"the file's header is {_show(content)}, expected a JSON object.")
    return content


def from_object(kind: type[Kind], content: object, name: str, *, is_finite: bool = True, others: bool = False) -> Kind:
    """A dataclass from a JSON object.

    Parameters
    ----------
    kind : type
        The dataclass, with plain fields and tuples of them.
    content : object
        The parsed JSON.
    name : str
        Name of the object, for the message.
    is_finite : bool
        Whether numbers must be finite.
    others : bool
        Whether other keys, of later versions, are left out; by default they are refused.

    Raises
    ------
    CheckpointError
        Naming key, value and what was expected.

    Examples
    --------
    >>> from segment_slide.unet.object_defaults import ObjectDefaults
    >>> from_object(ObjectDefaults, {"min_size": 5}, "objects")
    Traceback (most recent call last):
    segment_slide.unet.errors.CheckpointError: objects min_size=5, expected a text.
    """
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{name}={_show(content)}, expected a JSON object.")
    hints = typing.get_type_hints(kind)
    known = [item.name for item in fields(typing.cast(Any, kind)) if item.name in content]
    if not others and (unknown := sorted(map(str, set(content) - set(known)))):
        raise CheckpointError(f"{name} has the key {_show(unknown[0])}, which this version does not know.")
    try:
        return kind(**{key: convert(hints[key], content[key], f"{name} {key}", is_finite=is_finite) for key in known})
    except CheckpointError:
        raise
    except (TypeError, ValueError, ArithmeticError) as error:
        raise CheckpointError(f"{name}: {error!s:.300}") from error


def convert(kind: Any, value: object, name: str, *, is_finite: bool = True) -> Any:
    """A JSON value as a type: plain, optional, or a tuple of these; raises as `from_object`."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        (inner,) = (item for item in arguments if item is not types.NoneType)
        return None if value is None else convert(inner, value, name, is_finite=is_finite)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise CheckpointError(f"{name}={_show(value)}, expected a list.")
        is_any_length = arguments[-1] is Ellipsis
        if not is_any_length and len(value) != len(arguments):
            raise CheckpointError(f"{name}={_show(value)}, expected a list of {len(arguments)}.")
        kinds = arguments[:1] * len(value) if is_any_length else arguments
        return tuple(convert(of, item, name) for of, item in zip(kinds, value, strict=True))
    if is_dataclass(kind):
        return from_object(typing.cast(type[Any], kind), value, name)
    plain = origin or kind
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    fits = isinstance(value, plain)
    if plain is float:
        fits = is_number and (abs(value) <= sys.float_info.max or not (is_finite or isinstance(value, int)))  # type: ignore[arg-type]
    if not fits or (plain is int and isinstance(value, bool)):
        raise CheckpointError(f"{name}={_show(value)}, expected {_NAMES[plain]}.")
    return value


def _show(value: object) -> str:
    return f"{value[:100] if isinstance(value, str) else value!r:.60}"
