"""HTML from trees of elements; every word that goes into a page passes `markup`, which escapes it.

Names and paths may hold anything: only what this file (and `trusted`) made is markup.
"""

import base64
import html
from collections.abc import Iterable, Sequence


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def markup(content: object) -> Markup:
    """Content as HTML: escaped, unless it is markup.

    >>> markup("a < b"), markup(Markup("<b>"))
    ('a &lt; b', '<b>')
    """
    return content if isinstance(content, Markup) else Markup(html.escape(str(content)))


def trusted(content: str) -> Markup:
    """What a library wrote as markup, with its own escaping: a plot as SVG."""
    return Markup(content)


def join(*parts: object) -> Markup:
    """One after the other."""
    return Markup("".join(markup(part) for part in parts))


def tag(name: str, /, *content: object, **attributes: object) -> Markup:
    """An element; ``class_`` is the attribute "class", one that is None is left out.

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
    """A picture inside the page: no other file, no other host.

    Parameters
    ----------
    encoded : (str, bytes)
        MIME type and content.
    about : str
        For those who do not see it.
    size : (int, int)
        Height and width (px).
    """
    kind, content = encoded
    source = f"data:{kind};base64,{base64.b64encode(content).decode()}"
    return tag("img", src=source, alt=about, height=size[0], width=size[1])


def table(
    heads: Sequence[object], rows: Iterable[Sequence[object]], *, n_words: int = 1, has_total: bool = False
) -> Markup:
    """A table whose first columns are words and all others numbers; `has_total` sets the last row off."""
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
    """Names with what they are."""
    return tag("dl", *(join(tag("dt", name), tag("dd", value)) for name, value in rows))


def count(n: int, what: str) -> str:
    """So many of something.

    >>> count(1, "object"), count(2000, "object")
    ('1 object', '2,000 objects')
    """
    return f"{n:,} {what}" + ("" if n == 1 else "s")


def code(text: str) -> Markup:
    """A path, a command, a value: as it is."""
    return tag("code", text)


def block(text: str) -> Markup:
    """Lines to be copied."""
    return tag("pre", tag("code", text))
