"""XML that somebody else wrote: read by defusedxml, within bounds, with the place of everything that is refused."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any
from xml.sax.handler import ContentHandler, feature_namespaces
from xml.sax.xmlreader import InputSource

from spear_spec.errors import SpearSpecError

DEEPEST = 50
LONGEST_ATTRIBUTE = 2000
MOST_ATTRIBUTES = 30


class Bounded(ContentHandler):
    """A handler that knows where it is and refuses what no honest document has.

    Args:
        refused: makes the error: of a message that begins with line and column.
    """

    def __init__(self, refused: Callable[[str], SpearSpecError]) -> None:
        super().__init__()
        self._refused, self._locator, self._depth = refused, None, 0

    def setDocumentLocator(self, locator: Any) -> None:
        self._locator = locator

    def wrong(self, message: str) -> SpearSpecError:
        """The error, to be raised, of what stands here."""
        locator = self._locator
        if locator is None:
            return self._refused(message)
        return self._refused(f"line {locator.getLineNumber()}, column {locator.getColumnNumber() + 1}: {message}")

    def startElement(self, name: str, attrs: Any) -> None:
        self._depth += 1
        if self._depth > DEEPEST:
            raise self.wrong(f"elements are nested more than {DEEPEST} deep")
        if len(attrs) > MOST_ATTRIBUTES or any(len(key) + len(attrs[key]) > LONGEST_ATTRIBUTE for key in attrs.keys()):  # noqa: SIM118
            raise self.wrong(f"<{name:.40}> has more, or longer, attributes than any use of it needs")
        self.start(bare(name), {bare(key): attrs[key] for key in attrs.keys()}, name)  # noqa: SIM118

    def endElement(self, name: str) -> None:
        self._depth -= 1
        self.end(bare(name))

    def start(self, name: str, attributes: dict[str, str], qualified: str) -> None:
        """An element begins: its name without a prefix, and as written."""

    def end(self, name: str) -> None:
        """It ends."""


def bare(name: str) -> str:
    """A name without its prefix; those of `xml` keep theirs."""
    return name if name.startswith("xml:") else name.rpartition(":")[2]


def parse(text: str, handler: Bounded) -> None:
    """Run the handler over a document.

    Raises:
        SpearSpecError: the handler's error, for what it refuses, for malformed XML, and for declarations of documents
            and entities: nothing of this needs them.
    """
    from xml.sax import SAXParseException

    from defusedxml.common import DefusedXmlException
    from defusedxml.expatreader import create_parser

    parser = create_parser(forbid_dtd=True)
    parser.setFeature(feature_namespaces, False)
    parser.setContentHandler(handler)
    source = InputSource()
    try:
        source.setByteStream(io.BytesIO(text.encode()))
    except UnicodeEncodeError as error:
        raise handler._refused(f"half a character (place {error.start}), which is no UTF-8") from None
    source.setEncoding("utf-8")
    try:
        parser.parse(source)
    except SAXParseException as error:
        place = f"line {error.getLineNumber()}, column {(error.getColumnNumber() or 0) + 1}"
        raise handler._refused(f"{place}: {error.getMessage()}") from None
    except DefusedXmlException:
        raise handler.wrong("declarations of documents and entities are not allowed") from None
