"""Derive the options of a command from a dataclass: the command names the class, not each option.

::

    @commands.command()
    @with_options
    def segment(input: Input, model: Model, chosen: Chosen[SegmentRequest]) -> None:
        request = chosen.make(input=input, model=model)

In place of `chosen` Typer sees one option for each field that people may choose (`unet.options`).
"""

import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar

import typer

from segment_slide.pipeline.errors import InputError
from segment_slide.unet.errors import OptionError
from segment_slide.unet.options import OptionField, make_options, option_fields

T = TypeVar("T")


@dataclass(frozen=True)
class Group:
    """How the options of a class appear in a command: the title above them in the help, and options to leave out."""

    title: str = ""
    without: tuple[str, ...] = ()


@dataclass(frozen=True)
class Chosen(Generic[T]):
    """The options of a class that a user chose.

    Parameters
    ----------
    owner : type
        The dataclass.
    values : mapping
        Value of each option by its name, as the user gave it.
    defaults : mapping
        Default of each option by its name.
    """

    owner: type[T]
    values: Mapping[str, Any]
    defaults: Mapping[str, Any]

    def make(self, **given: Any) -> T:
        """Make the dataclass; `given` sets further fields.

        Raises
        ------
        InputError
            If a text is not a valid value of its option.
        """
        try:
            return make_options(self.owner, self.values, **given)
        except OptionError as error:
            raise InputError(f"--{error.name.replace('_', '-')}={error.sentence}") from error

    @property
    def given(self) -> tuple[str, ...]:
        """Options whose value is not the default, as they are typed on the command line."""
        names = (name for name, value in self.values.items() if value != self.defaults[name])
        return tuple(f"--{name.replace('_', '-')}" for name in names)


def with_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Make a command for Typer: replace each parameter that is annotated as `Chosen` by the options of its class."""
    hints = typing.get_type_hints(command, include_extras=True)
    parameters: list[inspect.Parameter] = []
    groups: dict[str, tuple[type, dict[str, Any]]] = {}
    for parameter in inspect.signature(command).parameters.values():
        hint, group = _split(hints[parameter.name])
        if typing.get_origin(hint) is not Chosen:
            shown = hints[parameter.name]
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=shown))
            continue
        owner = typing.get_args(hint)[0]
        options = [_as_parameter(field, group) for field in option_fields(owner, group.without)]
        groups[parameter.name] = owner, {option.name: option.default for option in options}
        parameters += options

    def run(**values: Any) -> Any:
        for name, (owner, defaults) in groups.items():
            values[name] = Chosen(owner, {option: values.pop(option) for option in defaults}, defaults)
        return command(**values)

    # Typer reads these attributes
    run.__name__, run.__doc__, run.__module__ = command.__name__, command.__doc__, command.__module__
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # inspect looks for it
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _split(hint: Any) -> tuple[Any, Group]:
    """Split an annotation into its type and its `Group`."""
    if typing.get_origin(hint) is not Annotated:
        return hint, Group()
    kind, *extras = typing.get_args(hint)
    return kind, next((extra for extra in extras if isinstance(extra, Group)), Group())


def _as_parameter(field: OptionField, group: Group) -> inspect.Parameter:
    """Turn an option into a parameter that Typer understands."""
    kind, default = field.kind, field.default
    if field.is_list:
        kind, default = (list[str] | None if field.option.is_repeated else str | None), None
    elif field.option.read is not None:
        kind, default = str | None, None
    elif field.option.none:
        kind, default = str, field.option.none
    elif typing.get_origin(kind) is typing.Literal:
        kind = str  # the stage itself refuses other words, and lists the valid ones
    option = typer.Option(
        *_flags(field),
        help=_sentence(field),
        metavar=field.option.metavar or None,
        rich_help_panel=group.title or None,
    )
    annotation: Any = Annotated.__class_getitem__((kind, option))  # type: ignore[attr-defined]  # of a type made here
    return inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _flags(field: OptionField) -> tuple[str, ...]:
    if field.option.flags:
        return field.option.flags
    flag = f"--{field.name.replace('_', '-')}"
    can_be_turned_off = field.kind is bool and field.default is True
    return (f"{flag}/--no-{flag[2:]}",) if can_be_turned_off else (flag,)


def _sentence(field: OptionField) -> str:
    return f"{field.option.help.removesuffix('.')}; may be repeated." if field.option.is_repeated else field.option.help
