"""What MkDocs does while it builds: the reference of the command line, written from the commands themselves.

A page that holds ``<!-- commands -->`` gets a section for each command in its place, so that it cannot be out of date.
"""

import inspect
import re
import typing
from collections.abc import Iterator
from typing import Any

MARK = "<!-- commands -->"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by MkDocs with each page before it is rendered."""
    return markdown.replace(MARK, describe_commands()) if MARK in markdown else markdown


def describe_commands() -> str:
    """A section of Markdown for each command."""
    return "\n".join(_section(name, command) for name, command in walk_commands())


def walk_commands() -> Iterator[tuple[str, Any]]:
    """Every command with its full name, as "segment-slide cluster check", in the order of the help."""
    from typer.main import get_command

    from segment_slide.flows.commands.main import app

    def walk(name: str, command: Any) -> Iterator[tuple[str, Any]]:
        below = getattr(command, "commands", None)
        if below is None:
            yield name, command
            return
        for word, part in below.items():
            yield from walk(f"{name} {word}", part)

    return walk("segment-slide", get_command(app))


def parameters_of(command: Any) -> tuple[list[Any], list[Any]]:
    """Arguments and options of a command."""
    arguments = [parameter for parameter in command.params if parameter.param_type_name == "argument"]
    return arguments, [parameter for parameter in command.params if parameter not in arguments]


def _section(name: str, command: Any) -> str:
    arguments, options = parameters_of(command)
    types = typing.get_type_hints(inspect.unwrap(command.callback))
    usage = " ".join([name, *(_metavar(argument) for argument in arguments), "[OPTIONS]"])
    lines = [f"## {name}", "", inspect.cleandoc(command.help or ""), "", "```", usage, "```", ""]
    lines += _table(("argument", "is"), [(f"`{_metavar(part)}`", _cell(part.help)) for part in arguments])
    lines += _table(("option", "takes", "default", "is"), [_option(option, types) for option in options])
    return "\n".join(lines)


def _option(option: Any, types: dict[str, Any]) -> tuple[str, str, str, str]:
    names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
    takes = "" if option.is_flag else _cell(option.metavar or _type(types[option.name]))
    if option.required:
        return names, takes, "required", _cell(option.help)
    # a path or text of nothing is decided later, as the help says
    default = option.default
    shown = "" if default in (None, "", ()) or option.is_flag else f"`{default}`"
    return names, takes, shown, _cell(option.help)


def _type(annotation: Any) -> str:
    """What a value is: "int" for ``int | None`` and ``list[int]``."""
    parts = [part for part in typing.get_args(annotation) if part is not type(None)]
    return _type(parts[0]) if parts else str(annotation.__name__).lower()


def _metavar(argument: Any) -> str:
    return str(argument.metavar or argument.name.upper())


def _cell(text: str | None) -> str:
    return re.sub(r"\s+", " ", text or "").replace("|", "\\|").replace("<", "&lt;")


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    if not rows:
        return []
    return [*(f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *rows)), ""]
