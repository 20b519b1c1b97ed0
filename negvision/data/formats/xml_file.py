"""Read XML files that strangers wrote."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from negvision.data.formats.reading import unreadable
from negvision.errors import DatasetError

# The largest file of VOC 2012 has 20 kB.
_MOST_BYTES = 1 << 22
_HEAD = 1 << 12
_FIRST_TAG = re.compile(rb"<([A-Za-z_][\w.-]*)")


def parse_xml(data: bytes, name: str, most_bytes: int = _MOST_BYTES) -> Element:
    """The root element of an XML file without a document type.

    Document types are refused because they declare entities: a few lines of them can stand for
    gigabytes, or for other files of this machine. Annotations have none.

    Raises:
        DatasetError: The data is no XML, too large, or has a document type.
    """
    if len(data) > most_bytes:
        raise DatasetError(f"{name}: {len(data):,} bytes; an annotation has at most {most_bytes:,}")
    try:
        return fromstring(data, forbid_dtd=True)
    except DefusedXmlException:
        raise DatasetError(
            f"{name}: declares a document type, which is not read; remove <!DOCTYPE"
        ) from None
    except (ParseError, ValueError, LookupError) as error:  # the last two for unknown encodings
        raise DatasetError(f"{name}: not XML: {error}") from None


def read_xml(path: Path, most_bytes: int = _MOST_BYTES) -> Element:
    """As :func:`parse_xml`, of a file.

    Raises:
        DatasetError: As there, or the file cannot be read.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from None
    return parse_xml(data, str(path), most_bytes)


def root_tag(path: Path) -> str:
    """The name of the root element, from the first bytes of a file; "" if there is none."""
    try:
        with open(path, "rb") as file:
            head = file.read(_HEAD)
    except OSError:
        return ""
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        head = head.decode("utf-16", errors="ignore").encode()
    found = _FIRST_TAG.search(re.sub(rb"<!--.*?-->", b"", head, flags=re.DOTALL))
    return found[1].decode() if found else ""
