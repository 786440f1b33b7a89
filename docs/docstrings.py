"""What the Python reference does to docstrings before Markdown sees them: examples and drawings become code.

A docstring is plain text: a paragraph of ``>>>`` is an example, and ``::`` says that indented lines follow as they are.
"""

import re
from typing import Any

import griffe


class PlainDocstrings(griffe.Extension):  # type: ignore[misc]  # griffe's class has no type here
    """Fences examples that are in no Examples section, and takes the colons of ``::`` away."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called by griffe with each module, class, function and attribute."""
        if obj.docstring is not None:
            obj.docstring.value = to_markdown(obj.docstring.value)


def to_markdown(text: str) -> str:
    r"""A docstring with its examples fenced and its literal blocks announced as Markdown does.

    >>> print(to_markdown("Twice.\n\n>>> 2 * 2\n4\n\nDrawn::\n\n    |hh|w|"))
    Twice.
    <BLANKLINE>
    ```pycon
    >>> 2 * 2
    4
    ```
    <BLANKLINE>
    Drawn:
    <BLANKLINE>
        |hh|w|
    """
    text = re.sub(r"(?m)^::\n", "", text)
    text = re.sub(r"(?m)::$", ":", text)
    if re.search(r"(?m)^Examples\n-+$", text):
        return text
    return "\n\n".join(
        f"```pycon\n{part}\n```" if part.startswith(">>> ") else part for part in re.split(r"\n\n", text)
    )
