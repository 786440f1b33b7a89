"""Derive the forms of the flows, pydantic models, from the dataclasses that hold the options.

::

    @form_of(SegmentRequest, without=("output", "in_place"))
    class SegmentParameters(Form):
        "Which pixels are segmented, and how."

    make_options(SegmentRequest, parameters.chosen(), input=…, model=…)
"""

from collections.abc import Callable, Collection
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, create_model

from segment_slide.unet.options import OptionField, option_fields

F = TypeVar("F", bound="Form")


class Form(BaseModel):
    """A group of parameters. Unknown names are refused, not ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def chosen(self) -> dict[str, Any]:
        """Return the chosen values for `unet.options.make_options`."""
        return {name: getattr(self, name) for name in type(self).model_fields}


def form_of(owner: type, *, without: Collection[str] = (), only: Collection[str] = ()) -> Callable[[type[F]], type[F]]:
    """Give a form one field for each option of a dataclass.

    Parameters
    ----------
    owner : type
        The dataclass.
    without, only : collection of str
        Options to leave out, or the only ones to take.
    """

    def add_fields(form: type[F]) -> type[F]:
        options = [field for field in option_fields(owner, without) if not only or field.name in only]
        fields: dict[str, Any] = {field.name: (kind_of(field), field_of(field)) for field in options}
        return create_model(form.__name__, __base__=form, __module__=form.__module__, __doc__=form.__doc__, **fields)

    return add_fields


def option_named(owner: type, name: str) -> Any:
    """Make the form field of one option, for an option that is a flow's own parameter."""
    return next(field_of(field) for field in option_fields(owner) if field.name == name)


def kind_of(field: OptionField) -> Any:
    """The type of the form's field."""
    if field.is_list:
        return list[str]
    if field.option.choices:
        return Literal[field.option.choices]
    if field.option.read is None:
        return field.kind
    return str | field.kind if field.option.keys else str | None  # a number may be given as such, too


def field_of(field: OptionField) -> Any:
    """The form's field: its description, default and bounds."""
    option, default = field.option, field.default
    if field.is_list:
        default = []
    elif option.read is not None:
        default = None
    elif option.none:
        default = option.none
    bounds = {"gt": option.above, "ge": option.at_least, "lt": option.below, "le": option.at_most}
    given: dict[str, Any] = {name: value for name, value in bounds.items() if value is not None}
    return Field(default, description=option.help, **given)
