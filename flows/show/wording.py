"""Translate the pipeline's messages for the command line: names of Python parameters become options.

In a message, a parameter stands in backquotes, alone or with a value: "choose fewer `workers`", "for example
`channels=(0, 1)`". Only commands replace it by the option; notebooks and Prefect show the parameter.
"""

import ast
import logging
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

from segment_slide.unet.options import write_words

_PARAMETER = re.compile(r"`([a-z_]+)(?:=([^`]+))?`")

#: Returns the options of the running command, by the names of their parameters; empty outside of a command.
find_options: ContextVar[Callable[[], Mapping[str, str]]] = ContextVar("find_options", default=dict)


def in_options(sentence: str) -> str:
    """Translate a sentence for the running command; a parameter without an option stays as it is."""
    return name_options(sentence, find_options.get()()) if "`" in sentence else sentence


def list_options(command: Any, words: Sequence[str]) -> dict[str, str]:
    """List the options of the running command, by the names of their parameters.

    Parameters
    ----------
    command : click's Group
        The whole command line.
    words : sequence of str
        The words typed after the program's name; names of groups and of the command come first.
    """
    for word in words:
        command = getattr(command, "commands", {}).get(word, command)
    spelled = {parameter.name: max(parameter.opts, key=len) for parameter in command.params}
    return {name: option for name, option in spelled.items() if name and option.startswith("--")}


def make_log_handler() -> logging.Handler:
    """Make a handler that prints warnings on standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter("%(levelname)s: %(message)s"))
    return handler


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        """See `in_options`."""
        return in_options(super().format(record))


def name_options(sentence: str, options: Mapping[str, str]) -> str:
    """Replace the parameters in a sentence by options.

    Parameters
    ----------
    sentence : str
        Text of an error or a note.
    options : mapping of str to str
        Options by the names of their parameters.

    Examples
    --------
    >>> name_options("choose fewer `workers`, or `axes='yx'`", {"workers": "--workers", "axes": "--axes"})
    'choose fewer --workers, or --axes yx'
    >>> name_options("for example `channels=(0, 1)`; see `axes`", {"channels": "--channels"})
    'for example --channels 0,1; see `axes`'
    """

    def put(found: "re.Match[str]") -> str:
        name, value = found.groups()
        option = options.get(name)
        return found[0] if option is None else " ".join([option, *_as_argument(value)])

    return _PARAMETER.sub(put, sentence)


def _as_argument(value: str | None) -> list[str]:
    """Words after an option: none, one word, or values between commas."""
    if value is None:
        return []
    try:
        given = ast.literal_eval(value)
    except (SyntaxError, ValueError):  # not Python, so there is nothing to translate
        return [value]
    return [shlex.quote(write_words(given) if isinstance(given, tuple) else str(given))]
