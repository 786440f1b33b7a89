"""XML from strangers: parsed without a document type, which could define endless text or text that lies elsewhere."""

from collections.abc import Iterator
from xml.etree import ElementTree
from xml.etree.ElementTree import Element


class XmlError(ValueError):
    """A text is not XML that can be read."""


class _WithoutDoctype(ElementTree.TreeBuilder):
    def doctype(self, name: str, pubid: str, system: str) -> None:
        """Refuse it; the parser stops here."""
        raise XmlError("it declares a document type, which is not read")


def parse_xml(text: str) -> Element:
    """The root of a document.

    Raises
    ------
    XmlError
        If it is damaged or declares a document type.
    """
    parser = ElementTree.XMLParser(target=_WithoutDoctype())  # noqa: S314, no document type, so no entities
    try:
        parser.feed(text.lstrip("\ufeff").strip().strip("\0"))
        root: Element = parser.close()
    except (ElementTree.ParseError, UnicodeError, RecursionError) as error:
        raise XmlError(str(error)) from error
    return root


def tag(item: Element) -> str:
    """Name of an element without its namespace."""
    return str(item.tag).rpartition("}")[2]


def children(item: Element, name: str) -> Iterator[Element]:
    """Direct children of one name, of any namespace."""
    return (child for child in item if tag(child) == name)
