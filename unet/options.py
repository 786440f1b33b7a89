"""The options of a stage: each is described once, at the field that holds its value.

The options of a stage are the fields of a frozen dataclass. A field that users may set is annotated with an `Option`:
its help text, choices and bounds. The command line's options, the form of a scheduled flow and the record of an output
are made from it. To add an option, add a field::

    @dataclass(frozen=True)
    class Sizes:
        block: Annotated[int | None, Option("Pixels per side of one task.", above=0)] = None

A field that is itself such a dataclass, and has a default, stands for all of its fields.
"""

import csv
import dataclasses
import functools
import io
import typing
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from segment_slide.unet.errors import OptionError

T = TypeVar("T")


@dataclass(frozen=True)
class Option:
    """What users are told of a field that they may set.

    Parameters
    ----------
    help : str
        Help text.
    choices : tuple of str
        All allowed values.
    above, at_least, below, at_most : float, optional
        Bounds of a number. A form refuses other numbers; the stage itself explains the reason in a sentence.
    metavar : str
        Placeholder for the value in the help of the command line.
    name : str
        Name outside of Python, if it differs from the field's.
    flags : tuple of str
        Names on the command line, if they differ from ``--name``.
    none : str
        The word that stands for None, such as "auto"; by default, leaving the option out means None.
    read : callable, optional
        Converts a text and the option's name to the value, for options that users write as text: "2:10", "12.5um2".
    is_repeated : bool
        Whether the option is given once for each value on the command line; by default, commas separate the values.
    keys : tuple of str
        For a field that is a mapping: the keys that this option sets.
    switch : tuple
        For a field with two values: the values for off and on, such as (2, 3) spatial axes for "volumes".
    """

    help: str
    choices: tuple[str, ...] = ()
    above: float | None = None
    at_least: float | None = None
    below: float | None = None
    at_most: float | None = None
    metavar: str = ""
    name: str = ""
    flags: tuple[str, ...] = ()
    none: str = ""
    read: Callable[[str, str], Any] | None = None
    is_repeated: bool = False
    keys: tuple[str, ...] = ()
    switch: tuple[Any, ...] = ()


@dataclass(frozen=True)
class OptionField:
    """A field that users may set.

    Attributes
    ----------
    name : str
        Name outside of Python.
    kind : type
        Type of the field as annotated; of a mapping, the type of its values; of a switch, bool.
    default : object
        Value if the user sets nothing.
    option : Option
        The field's option.
    """

    name: str
    kind: Any
    default: Any
    option: Option

    @property
    def is_list(self) -> bool:
        """Whether the value is a list of words."""
        return bool(self.kind == tuple[str, ...])


def option_fields(owner: type, without: Collection[str] = ()) -> Iterator[OptionField]:
    """Yield the fields of a dataclass that users may set, in order, including those of nested dataclasses.

    Parameters
    ----------
    owner : type
        A dataclass.
    without : collection of str
        Names to leave out.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class Sizes:
    ...     block: Annotated[int | None, Option("Pixels per side of one task.", above=0)] = None
    >>> [(field.name, field.default) for field in option_fields(Sizes)]
    [('block', None)]
    """
    for item, kind, options in _annotated_fields(owner):
        if item.name in without:
            continue
        for option in options:
            name = option.name or item.name
            if name not in without:
                yield _describe(name, kind, _default_of(item), option)
        if not options and _is_nested(item, kind):
            yield from option_fields(typing.cast(type, kind), without)


def make_options(owner: type[T], chosen: Mapping[str, Any], **given: Any) -> T:
    """Make a dataclass from the values that a user gave.

    Parameters
    ----------
    owner : type
        The dataclass.
    chosen : mapping
        Values by the names of `option_fields`, as the user gave them: texts if the option has a `read`, lists of words,
        None if nothing was given. Missing names keep their defaults.
    **given
        Fields that are set directly, without conversion.

    Raises
    ------
    OptionError
        If a text is no valid value.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class Planes:
    ...     z: Annotated[tuple[int, int] | None, Option("Planes.", read=read_range)] = None
    ...     work: str = ""
    >>> make_options(Planes, {"z": "2:10"}, work="draw")
    Planes(z=(2, 10), work='draw')
    """
    values = dict(given)
    for item, kind, options in _annotated_fields(typing.cast(Any, owner)):
        if item.name in values:
            continue
        names = [option.name or item.name for option in options]
        if any(option.keys for option in options):
            set_by = {n: option for n, option in zip(names, options, strict=True) if chosen.get(n) is not None}
            found = {n: _read(n, chosen[n], kind, option) for n, option in set_by.items()}
            values[item.name] = {key: found[n] for n, option in set_by.items() for key in option.keys}
        elif options and chosen.get(names[0]) is not None:
            values[item.name] = _read(names[0], chosen[names[0]], kind, options[0])
        elif not options and _is_nested(item, kind):
            values[item.name] = make_options(typing.cast(type, kind), chosen)
    return owner(**values)


def _describe(name: str, kind: Any, default: Any, option: Option) -> OptionField:
    if option.keys:
        return OptionField(name, typing.get_args(kind)[1] | None, None, option)
    if option.switch:
        return OptionField(name, bool, default == option.switch[True], option)
    return OptionField(name, kind, default, option)


def _read(name: str, value: Any, kind: Any, option: Option) -> Any:
    if option.none and value == option.none:
        return None
    if option.switch:
        return option.switch[bool(value)]
    if option.read is not None and isinstance(value, str):
        return option.read(value, name)
    if kind == tuple[str, ...]:
        return read_words(value, name) if isinstance(value, str) else tuple(value)
    return value


@functools.cache
def _annotated_fields(owner: Any) -> tuple[tuple[dataclasses.Field[Any], Any, tuple[Option, ...]], ...]:
    """List each field with its type (without annotations) and its options."""
    hints = typing.get_type_hints(owner, include_extras=True)
    found = []
    for item in dataclasses.fields(owner):
        hint = hints[item.name]
        kind, *extras = typing.get_args(hint) if typing.get_origin(hint) is Annotated else (hint,)
        found.append((item, kind, tuple(extra for extra in extras if isinstance(extra, Option))))
    return tuple(found)


def _is_nested(item: "dataclasses.Field[Any]", kind: Any) -> bool:
    """Whether a field stands for the options of its class; a field without a default does not."""
    has_default = item.default is not dataclasses.MISSING or item.default_factory is not dataclasses.MISSING
    return dataclasses.is_dataclass(kind) and has_default


def _default_of(item: "dataclasses.Field[Any]") -> Any:
    if item.default_factory is not dataclasses.MISSING:
        return item.default_factory()
    return item.default


def read_words(text: str, name: str = "") -> tuple[str, ...]:
    """Words between commas.

    A word with a comma in it stands in double quotes, as in CSV; see `write_words`.

    >>> read_words("DAPI, 2"), read_words('"Alexa, 488",DAPI')
    (('DAPI', '2'), ('Alexa, 488', 'DAPI'))
    """
    try:
        parts = next(csv.reader([text], skipinitialspace=True, strict=True)) if text else []
    except csv.Error:  # a quote that does not end, or has text after it, is an ordinary character
        parts = text.split(",")
    return tuple(part.strip() for part in parts)


def write_words(words: Sequence[object]) -> str:
    """Join words by commas, so that `read_words` reads the same.

    >>> write_words(["Alexa, 488", "DAPI", 2])
    '"Alexa, 488",DAPI,2'
    """
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(words)
    return line.getvalue()


def read_numbers(text: str, name: str) -> tuple[float, ...]:
    """Numbers given as "0.5,0.75".

    >>> read_numbers("0.5,0.75", "iou")
    (0.5, 0.75)
    """
    try:
        return tuple(float(part) for part in read_words(text))
    except ValueError as error:
        raise OptionError(name, f"{text!r}, expected numbers like 0.5,0.75.") from error


def read_sizes(text: str, name: str) -> tuple[int, ...]:
    """Sizes given as "256" or "32,128,128".

    >>> read_sizes("32,128,128", "tile")
    (32, 128, 128)
    """
    parts = read_words(text)
    if not all(part.isdecimal() for part in parts):
        raise OptionError(name, f"{text!r}, expected a size in pixels like 256, or one per axis like 32,128,128.")
    return tuple(map(int, parts))


def read_range(text: str, name: str) -> tuple[int, int]:
    """Start and stop of planes or time points given as "3" or "2:10".

    >>> read_range("3", "t"), read_range("2:10", "z")
    ((3, 4), (2, 10))
    """
    first, colon, last = text.partition(":")
    if not first.isdecimal() or (colon and not last.isdecimal()):
        raise OptionError(name, f"{text!r}, expected a number like 3 or a range like 2:10.")
    return int(first), int(last) if colon else int(first) + 1
