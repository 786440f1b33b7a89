"""Standard input, output and error of a command: whatever becomes of them, the work goes on.

A stream may be closed from the start (``>&-``), its reader may leave (``| head -1``), its disk may be full, or its
encoding may lack a character. None of this is a reason to lose the work of a night. A stream that can no longer be
written is silent from then on.
"""

import codecs
import errno
import io
import os
import select
import sys
from typing import Any, TextIO

from segment_slide.pipeline.plain_text import neutralise_print

_ERRORS = "segment_slide"

# Signs in our sentences for which every terminal knows others.
_PLAIN = str.maketrans({"–": "-", "—": "-", "×": "x", "…": "...", "µ": "u", "→": "->", "≤": "<=", "≥": ">=", "²": "2"})


class LossyFile(io.FileIO):
    """A file for writing that accepts everything, also once nothing can be written any more.

    Attributes
    ----------
    fault : OSError, optional
        Why what was written since is lost.
    """

    fault: OSError | None = None

    def write(self, data: Any) -> int:
        """Write some of the bytes; after a fault, none."""
        try:
            while (written := super().write(data)) is None:  # a pipe that does not block is full
                select.select([], [self], [])
            return written
        except OSError as error:
            self.fault = error
            _open_nothing(self.fileno())
            return len(memoryview(data))


class SafeText(io.TextIOWrapper):
    """A stream of text in which libraries, warnings and tracebacks write colours, but no other control characters.

    Attributes
    ----------
    rendered : object
        Writes to this stream what a console of ours has rendered (`flows.show.safe_output`), bars included, unchanged.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.rendered = _Rendered(self)

    def write(self, text: str) -> int:
        """See `io.TextIOBase.write`."""
        super().write(neutralise_print(text))
        return len(text)

    def write_rendered(self, text: str) -> int:
        """Write a text as it is."""
        return super().write(text)


class _Rendered:
    def __init__(self, stream: SafeText) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return self._stream.write_rendered(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def mend_streams() -> None:
    """Open the streams that are closed, and replace those that could raise an error. For the start of a command."""
    codecs.register_error(_ERRORS, _replace)
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            _open_nothing(descriptor)  # otherwise the next file that is opened would get this number
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115, open as long as the process
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is getattr(sys, f"__{name}__"):  # not one that somebody else has put there
            setattr(sys, name, _make_stream(stream, descriptor))


def find_fault(stream: TextIO) -> OSError | None:
    """Why a stream lost what was written to it; None if it did not."""
    stream.flush()
    raw = getattr(getattr(stream, "buffer", None), "raw", None)
    return raw.fault if isinstance(raw, LossyFile) else None


def is_reader_gone(fault: OSError) -> bool:
    """Whether the process at the other end of the pipe has left, which is no fault."""
    return fault.errno == errno.EPIPE


def _make_stream(stream: TextIO | None, descriptor: int) -> TextIO:
    is_closed = stream is None
    file = LossyFile(os.open(os.devnull, os.O_WRONLY) if is_closed else descriptor, "wb", closefd=False)
    return SafeText(
        io.BufferedWriter(file),
        encoding=getattr(stream, "encoding", "utf-8"),
        errors=_ERRORS,
        line_buffering=descriptor == 2 or bool(getattr(stream, "line_buffering", False)),
        write_through=bool(getattr(stream, "write_through", False)),
    )


def _open_nothing(descriptor: int) -> None:
    """Let a descriptor lead to ``/dev/null``, in processes that are started later too."""
    nothing = os.open(os.devnull, os.O_RDWR)
    if nothing == descriptor:
        os.set_inheritable(descriptor, True)
    else:
        os.dup2(nothing, descriptor)
        os.close(nothing)


def _replace(error: UnicodeError) -> tuple[str | bytes, int]:
    r"""What is written for characters that an encoding lacks. Bytes of a file's name that are no text stay as they are.

    Examples
    --------
    >>> codecs.register_error(_ERRORS, _replace)
    >>> "4 × 2 µm – \N{GREEK SMALL LETTER ALPHA} \udce9".encode("ascii", _ERRORS)
    b'4 x 2 um - ? \xe9'
    """
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    parts = [
        bytes([ord(character) & 0xFF])
        if 0xDC80 <= ord(character) <= 0xDCFF
        else character.translate(_PLAIN).encode("ascii", "replace")
        for character in lacking
    ]
    return b"".join(parts), error.end
