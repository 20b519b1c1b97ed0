"""Read annotations in the format of Pascal VOC: one XML file an image, and lists of their names."""

from math import isfinite
from pathlib import Path
from typing import NamedTuple
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from negvision.errors import DatasetError, Problems

# The largest of VOC 2012 has 20 kB and is four deep.
_MOST_BYTES = 1 << 22
_DEEPEST = 32
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


class VOCObject(NamedTuple):
    """One ``object`` of an annotation.

    Attributes:
        name: Its class.
        box: x, y, width and height in pixels; the left upper corner of the image is (0, 0).
        difficult: Whether it is marked so, and left out of account in an evaluation.
    """

    name: str
    box: tuple[float, float, float, float]
    difficult: bool


class VOCImage(NamedTuple):
    """What an annotation file says.

    Attributes:
        file_name: Of the image, as the file has it; "" where it has none.
        width: Of the image, in pixels; 0 where the file does not say.
        height: The same.
        objects: In the order of the file.
    """

    file_name: str
    width: int
    height: int
    objects: list[VOCObject]


def read_voc_file(path: Path, problems: Problems, zero_based: bool = False) -> VOCImage:
    """Read an annotation; objects without a class or four numbers are counted and left out.

    Args:
        path: The XML file.
        problems: Takes what is wrong with objects.
        zero_based: Coordinates count from 0, and ``xmax`` and ``ymax`` are the first pixel that is
            not in the box. VOC's own count from 1, and they are the last one that is.

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
    """The root element of an XML file that declares nothing.

    A document type, with which entities are declared, is refused: a few lines of them can stand
    for gigabytes, or for other files of this machine. Annotations have none.

    Raises:
        DatasetError: No XML, too large, nested too deeply, or with a document type.
    """
    if len(data) > _MOST_BYTES:
        raise DatasetError(
            f"{name}: {len(data):,} bytes; an annotation has {_MOST_BYTES:,} at most"
        )
    builder, parser, depth = TreeBuilder(), expat.ParserCreate(), 0

    def start(tag: str, attributes: dict) -> None:
        nonlocal depth
        depth += 1
        if depth > _DEEPEST:
            raise DatasetError(f"{name}: elements are nested more than {_DEEPEST} deep")
        builder.start(tag, attributes)

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(tag)

    def refuse(*_: object) -> None:
        raise DatasetError(f"{name}: declares a document type, which is not read; remove <!DOCTYPE")

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        raise DatasetError(f"{name}: not XML: {error}") from None
    except (ValueError, LookupError) as error:  # an encoding that there is not
        raise DatasetError(f"{name}: not XML that can be read: {error}") from None
    return builder.close()


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
