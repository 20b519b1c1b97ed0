"""Read annotations in the Pascal VOC format: one XML file per image."""

from math import isfinite
from pathlib import Path
from typing import NamedTuple
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from negvision.errors import DatasetError, Problems

# The largest file of VOC 2012 has 20 kB.
_MOST_BYTES = 1 << 22
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


class VOCObject(NamedTuple):
    """One ``object`` of an annotation.

    Attributes:
        name: Its class.
        box: x, y, width and height in pixels; the upper left corner of the image is (0, 0).
        difficult: Whether it is marked difficult, and therefore ignored in an evaluation.
    """

    name: str
    box: tuple[float, float, float, float]
    difficult: bool


class VOCImage(NamedTuple):
    """The content of an annotation file.

    Attributes:
        file_name: Of the image, as written; "" if the file has none.
        width: Of the image, in pixels; 0 if the file has none.
        height: Likewise.
        objects: In the order of the file.
    """

    file_name: str
    width: int
    height: int
    objects: list[VOCObject]


def read_voc_file(path: Path, problems: Problems, zero_based: bool = False) -> VOCImage:
    """Read an annotation. Objects without a class or four numbers are counted and left out.

    Args:
        path: The XML file.
        problems: Collects the problems of objects.
        zero_based: Coordinates count from 0, and ``xmax`` and ``ymax`` are the first pixel outside
            the box. In VOC they count from 1, and are the last pixel inside.

    Raises:
        DatasetError: The file cannot be read, or is no annotation.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read: {error.strerror or error}") from None
    root = parse_xml(data, str(path))
    if root.tag != "annotation":
        raise DatasetError(f"{path}: an annotation begins with <annotation>; found <{root.tag}>")
    objects = []
    for index, item in enumerate(root.findall("object"), 1):
        found = _read_object(item, f"{path}: object {index}", problems, zero_based)
        if found is not None:
            objects.append(found)
    width, height = (_number(root.findtext(f"size/{side}")) for side in ("width", "height"))
    return VOCImage((root.findtext("filename") or "").strip(), int(width), int(height), objects)


def parse_xml(data: bytes, name: str) -> Element:
    """The root element of an XML file without a document type.

    Document types are refused because they declare entities: a few lines of them can stand for
    gigabytes, or for other files of this machine. Annotations have none.

    Raises:
        DatasetError: The data is no XML, too large, or has a document type.
    """
    if len(data) > _MOST_BYTES:
        raise DatasetError(
            f"{name}: {len(data):,} bytes; an annotation has at most {_MOST_BYTES:,}"
        )
    try:
        return fromstring(data, forbid_dtd=True)
    except DefusedXmlException:
        raise DatasetError(
            f"{name}: declares a document type, which is not read; remove <!DOCTYPE"
        ) from None
    except (ParseError, ValueError, LookupError) as error:  # the last two for unknown encodings
        raise DatasetError(f"{name}: not XML: {error}") from None


def _read_object(
    item: Element, where: str, problems: Problems, zero_based: bool
) -> VOCObject | None:
    name = (item.findtext("name") or "").strip()
    if not name:
        problems.add("object without a name", where)
        return None
    texts = [item.findtext(f"bndbox/{corner}") for corner in _CORNERS]
    corners = [_number(text, float("nan")) for text in texts]
    if not all(map(isfinite, corners)):
        problems.add("box that is not four numbers", where, dict(zip(_CORNERS, texts, strict=True)))
        return None
    left, top, right, bottom = corners
    if not zero_based:
        if left < 1 or top < 1:
            problems.add("box that begins before pixel 1", where, corners)
            return None
        left, top = left - 1, top - 1
    difficult = _number(item.findtext("difficult")) == 1
    return VOCObject(name, (left, top, right - left, bottom - top), difficult)


def _number(text: str | None, otherwise: float = 0.0) -> float:
    try:
        number = float(text or "")
    except ValueError:
        return otherwise
    return number if isfinite(number) else otherwise
