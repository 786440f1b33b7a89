"""Where all text for people leaves a command: a console and log records that no name in a file can command."""

import logging
from collections.abc import Iterable
from typing import IO, Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from segment_slide.pipeline.plain_text import has_commands, neutralise


class SafeConsole(Console):
    """A console that shows control characters of what it prints as visible escapes. Its own colours and bars work."""

    def __init__(self, **options: Any) -> None:
        super().__init__(emoji=False, **options)  # a path with ":dog:" in it is no picture

    def render_str(self, text: str, **options: Any) -> Text:
        """See `rich.console.Console.render_str`; mended before it is measured."""
        return super().render_str(neutralise(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """See `rich.console.Console.render`; all that is printed comes through here."""
        for segment in super().render(renderable, options):
            if segment.control is None and has_commands(segment.text):
                yield Segment(neutralise(segment.text), segment.style)
            else:
                yield segment

    @property
    def file(self) -> IO[str]:
        """Where to write; of a stream of ours, its way for what is rendered already."""
        stream: IO[str] = Console.file.fget(self)  # type: ignore[attr-defined]
        return getattr(stream, "rendered", stream)

    @file.setter
    def file(self, stream: IO[str]) -> None:
        Console.file.fset(self, stream)  # type: ignore[attr-defined]


class SafeRecord(logging.LogRecord):
    """A log record whose text holds no control characters, whichever logger, handler and formatter it passes.

    Lines after the first are indented, so that a name with a new line in it cannot pass for a message of its own.
    """

    _exc_text: str | None = None

    def getMessage(self) -> str:  # noqa: N802, the name in logging
        """See `logging.LogRecord.getMessage`."""
        return on_own_lines(super().getMessage())

    @property
    def exc_text(self) -> str | None:
        """The traceback, as the formatter has made it."""
        return self._exc_text

    @exc_text.setter
    def exc_text(self, text: str | None) -> None:
        self._exc_text = None if text is None else neutralise(text)


def on_own_lines(message: str) -> str:
    r"""A message without control characters; lines after the first are indented.

    >>> on_own_lines("channel a\nERROR: b\x1b[2J")
    'channel a\n  ERROR: b\\x1b[2J'
    """
    return neutralise(message).replace("\n", "\n  ")


def make_logs_safe() -> None:
    """Let all loggers of this process make records of `SafeRecord`."""
    logging.setLogRecordFactory(SafeRecord)
