"""HTML from trees of elements. Every text in a page passes `markup`, which escapes it, control characters too.

Names and paths may hold any character. Only the elements made in this file (and by `trusted`) are markup.
"""

import base64
import html
from collections.abc import Iterable, Sequence

from segment_slide.pipeline.plain_text import neutralise


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def markup(content: object) -> Markup:
    """Turn content into HTML: text is escaped, markup stays as it is.

    >>> markup("a < b"), markup(Markup("<b>"))
    ('a &lt; b', '<b>')
    """
    return content if isinstance(content, Markup) else Markup(html.escape(neutralise(str(content))))


def trusted(content: str) -> Markup:
    """Accept the output of a library as markup, because the library escapes its text: a plot as SVG."""
    return Markup(neutralise(content))


def join(*parts: object) -> Markup:
    """Join parts, one after the other."""
    return Markup("".join(markup(part) for part in parts))


def tag(name: str, /, *content: object, **attributes: object) -> Markup:
    """Make an element. ``class_`` becomes the attribute "class"; an attribute that is None is left out.

    >>> tag("p", "a & b", tag("br"), class_="x")
    '<p class="x">a &amp; b<br></p>'
    """
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{markup(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in ("br", "img", "meta"):
        return Markup(f"<{name}{given}>")
    return Markup(f"<{name}{given}>{join(*content)}</{name}>")


def picture(encoded: tuple[str, bytes], about: str, size: tuple[int, int]) -> Markup:
    """Embed a picture in the page, so that the page needs no other file and no other host.

    Parameters
    ----------
    encoded : (str, bytes)
        MIME type and content.
    about : str
        Text for readers who cannot see it.
    size : (int, int)
        Height and width (px).
    """
    kind, content = encoded
    source = f"data:{kind};base64,{base64.b64encode(content).decode()}"
    return tag("img", src=source, alt=about, height=size[0], width=size[1])


def table(
    heads: Sequence[object], rows: Iterable[Sequence[object]], *, n_words: int = 1, has_total: bool = False
) -> Markup:
    """Make a table: the first columns hold words, the others numbers; `has_total` sets off the last row."""
    content = list(rows)

    def cells(name: str, row: Sequence[object]) -> Markup:
        return join(*(tag(name, cell, class_=None if k < n_words else "n") for k, cell in enumerate(row)))

    body = [
        tag("tr", cells("td", row), class_="all" if has_total and k == len(content) - 1 else None)
        for k, row in enumerate(content)
    ]
    parts = [tag("thead", tag("tr", cells("th", heads)))] if heads else []
    return tag("div", tag("table", *parts, tag("tbody", *body)), class_="wide")


def facts(rows: Iterable[tuple[object, object]]) -> Markup:
    """List names with their values."""
    return tag("dl", *(join(tag("dt", name), tag("dd", value)) for name, value in rows))


def count(n: int, what: str) -> str:
    """Number and noun, in singular or plural.

    >>> count(1, "object"), count(2000, "object")
    ('1 object', '2,000 objects')
    """
    return f"{n:,} {what}" + ("" if n == 1 else "s")


def code(text: str) -> Markup:
    """Show a path, a command or a value without changes."""
    return tag("code", text)


def block(text: str) -> Markup:
    """Show lines that can be copied."""
    return tag("pre", tag("code", text))
