"""Reports read back: words, pictures, and everything in them that a browser would fetch."""

import base64
import io
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser

import numpy as np
from PIL import Image

FETCHING = ("src", "href", "xlink:href", "srcset", "poster", "data", "action", "background")
VOID = ("meta", "img", "br")


@dataclass
class Report(HTMLParser):
    """A page taken apart.

    Attributes
    ----------
    tags : list of str
        Names of elements, in order.
    links : list of str
        Values of attributes that a browser may fetch.
    words : list of str
        Texts between tags.
    images : list of str
        Sources of pictures.
    """

    tags: list = field(default_factory=list)
    links: list = field(default_factory=list)
    words: list = field(default_factory=list)
    images: list = field(default_factory=list)
    handlers: list = field(default_factory=list)
    blocks: list = field(default_factory=list)
    stack: list = field(default_factory=list)

    def __post_init__(self):
        super().__init__(convert_charrefs=True)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in VOID:
            self.stack.append(tag)
        if tag == "pre":
            self.blocks.append("")
        for name, value in attrs:
            if name in FETCHING:
                self.links.append(value)
            if name.startswith("on"):
                self.handlers.append((tag, name))
            if (tag, name) == ("img", "src"):
                self.images.append(value)

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag, f"</{tag}> closes another element"

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.stack.pop()

    def handle_data(self, data):
        if self.stack and self.stack[-1] == "style":
            return
        self.words.append(data)
        if "pre" in self.stack:
            self.blocks[-1] += data

    @property
    def text(self):
        """All words, in one line."""
        return " ".join(" ".join(self.words).split())


def parse(page: str) -> Report:
    """Take a page apart; its elements must be closed as they were opened."""
    report = Report()
    report.feed(page)
    report.close()
    assert not report.stack, f"never closed: {report.stack}"
    return report


def outside_links(page: str) -> list[str]:
    """What a page would fetch from anywhere but itself."""
    report = parse(page)
    found = [link for link in report.links if not link.startswith(("data:", "#"))]
    plain = re.sub(r"data:image/\w+;base64,[A-Za-z0-9+/=]+", "", page)
    found += re.findall(r"(?:https?:)?//[\w.-]+\.\w+|@import[^;]*|url\((?!#)[^)]*\)", plain)
    return found + [tag for tag in report.tags if tag in ("script", "link", "iframe", "object", "embed", "base")]


def pixels_of(source: str) -> np.ndarray:
    """A picture's pixels (y, x, 3) as integers."""
    return decode(base64.b64decode(source.partition(",")[2]))


def decode(content: bytes) -> np.ndarray:
    """A PNG's or JPEG's pixels (y, x, 3) as integers."""
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)
