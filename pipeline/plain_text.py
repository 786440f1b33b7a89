r"""Names from files as text that commands nothing: control characters become visible escapes such as ``\x1b``.

A terminal obeys control characters, and every program that shows text obeys those that turn its direction. A channel,
a file or an acquisition may be called anything. So whatever writes for people (consoles, logs, pages, artifacts) passes
its text through `neutralise` once, at the place where it writes.
"""

import re

# C0 without tab and new line, DEL, C1; marks that turn or isolate the direction of text; line and paragraph separators;
# deprecated format characters; tags. The last range are bytes of C1 in the names of files that are no UTF-8.
_COMMANDS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u206f\ufff9-\ufffb\U000e0000-\U000e007f"
    "\udc80-\udc9f]"
)
_COLOUR = r"\x1b\[[0-9;]*m"
_COMMANDS_OR_COLOUR = re.compile(f"(?P<colour>{_COLOUR})|\r\n|{_COMMANDS.pattern}")


def neutralise(text: str) -> str:
    r"""Replace control characters by visible escapes; tabs and new lines stay.

    >>> print(neutralise("DAPI\x1b]0;owned\x07 \u202egpj.tif"))
    DAPI\x1b]0;owned\x07 \u202egpj.tif
    """
    return _COMMANDS.sub(_escape, text)


def neutralise_print(text: str) -> str:
    r"""The same for text that others have made ready to be printed: their colours and ends of lines stay.

    >>> neutralise_print("\x1b[1mUsage\x1b[0m \x1b[2J")
    '\x1b[1mUsage\x1b[0m \\x1b[2J'
    """
    return _COMMANDS_OR_COLOUR.sub(lambda found: found[0] if len(found[0]) > 1 else _escape(found), text)


def has_commands(text: str) -> bool:
    """Whether a text holds characters that `neutralise` replaces."""
    return _COMMANDS.search(text) is not None


def _escape(found: "re.Match[str]") -> str:
    code = ord(found[0])
    code = code - 0xDC00 if 0xDC80 <= code <= 0xDC9F else code
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
