"""Read and write annotations in the Pascal VOC format: one XML file per image."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping, Sequence
from math import degrees, isfinite
from pathlib import Path
from typing import NamedTuple
from xml.etree.ElementTree import Element, ElementTree, SubElement, indent

from negvision.data.formats.contents import FolderData, Instance
from negvision.data.formats.reading import Reading, attempt, number
from negvision.data.formats.text_files import numbered_lines
from negvision.data.formats.tree import FileTree, split_name, split_of_path
from negvision.data.formats.turned import turned_bounds
from negvision.data.formats.xml_file import read_xml, root_tag
from negvision.errors import DatasetError, Problems

NAME = "Pascal VOC"
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_LISTS = "ImageSets"


class VOCObject(NamedTuple):
    """One ``object`` of an annotation.

    Attributes:
        name: Its class.
        corners: xmin, ymin, xmax and ymax as written.
        difficult: Whether it is marked difficult, and therefore ignored in an evaluation.
        outline: x1, y1, x2, y2, ... as written; empty without one.
    """

    name: str
    corners: tuple[float, ...]
    difficult: bool
    outline: tuple[float, ...] = ()


class VOCImage(NamedTuple):
    """The content of an annotation file.

    Attributes:
        file_name: Of the image, as written; "" if the file has none.
        size: Width and height of the image as written; None where the file has none.
        objects: In the order of the file.
    """

    file_name: str
    size: tuple[str | None, str | None]
    objects: list[VOCObject]


def claim(tree: FileTree) -> list[str]:
    """The XML files that begin with ``<annotation>``."""
    return [name for name in tree.files(".xml") if root_tag(tree.root / name) == "annotation"]


def read(reading: Reading, files: list[str], zero_based: bool = False) -> None:
    """Read the annotations that the lists in ``ImageSets`` name, or all without such lists.

    VOC counts pixels from 1, and ``xmax`` and ``ymax`` are the last pixels inside. Where a box
    begins at 0, all files are taken to count from 0 up to the first pixel outside.

    Args:
        reading: Collects.
        files: The XML files.
        zero_based: Count from 0 in any case.
    """
    tree = reading.tree
    # A damaged file does not show its root element, but lies beside files that do.
    folders = {posixpath.dirname(name) for name in files}
    files = [n for n in tree.files(".xml") if posixpath.dirname(n) in folders or n in files]
    lists = _read_lists(reading, files)
    found: dict[str, VOCImage] = {}
    for file in files:
        if lists is not None and file not in lists:
            reading.notes.add("image in no split, left out", reading.where(file))
            continue
        path = tree.root / file
        kind = "annotation file that cannot be read"
        content = attempt(reading, lambda path=path: read_voc_file(path, reading.problems), kind)
        if content is not None:
            found[file] = content
    zeros = sum(
        0 <= min(item.corners[:2]) < 1 for content in found.values() for item in content.objects
    )
    if zeros and not zero_based:
        reading.assumptions.append(
            f"{zeros:,} boxes begin at 0, so coordinates count from 0, not from 1 as VOC's do"
        )
    first = 0 if zero_based or zeros else 1
    for name in sorted({item.name for content in found.values() for item in content.objects}):
        reading.label(name)
    used: dict[str, str] = {}
    for file, content in found.items():
        name = _find_image(reading, file, content)
        if not name:
            continue
        if name in used:
            both = f"{reading.where(name)}: {used[name]} and {file}"
            reading.problems.add("image with two label files", both)
            continue
        used[name] = file
        _add_objects(reading, file, content, name, (lists or {}).get(file), first)
    for name in tree.images:
        if lists is None and name not in used:
            reading.notes.add("image without a label file, left out", reading.where(name))


def _add_objects(
    reading: Reading,
    file: str,
    content: VOCImage,
    name: str,
    splits: Iterable[str] | None,
    first: int,
) -> None:
    where = reading.where(file)
    image = reading.image(name, where, "", content.size)
    if splits is None:
        splits = [split_of_path(name) or split_of_path(file)]
    for split in splits:
        reading.image(name, where, split)
    if image is None:
        return
    for index, item in enumerate(content.objects, 1):
        left, top, right, bottom = item.corners
        box = (left - first, top - first, right - left + first, bottom - top + first)
        if right < left or bottom < top:
            box = (left, top, right - left, bottom - top)
        outline = [value - first for value in item.outline]
        instance = Instance(
            reading.label(item.name), box, [outline] if outline else [], ignore=item.difficult
        )
        reading.add(image, instance, f"{where}: object {index}")


def read_voc_file(path: Path, problems: Problems) -> VOCImage:
    """Read an annotation. Objects without a class or four numbers are counted and left out.

    Raises:
        DatasetError: The file cannot be read, or is no annotation.
    """
    root = read_xml(path)
    if root.tag != "annotation":
        raise DatasetError(f"{path}: an annotation begins with <annotation>; found <{root.tag}>")
    objects = []
    for index, item in enumerate(root.findall("object"), 1):
        found = _read_object(item, f"{path}: object {index}", problems)
        if found is not None:
            objects.append(found)
    size = root.findtext("size/width"), root.findtext("size/height")
    return VOCImage((root.findtext("filename") or "").strip(), size, objects)


def _read_object(item: Element, where: str, problems: Problems) -> VOCObject | None:
    name = (item.findtext("name") or "").strip()
    if not name:
        problems.add("object without a name", where)
        return None
    texts = {corner: item.findtext(f"bndbox/{corner}") for corner in _CORNERS}
    corners = tuple(number(text) for text in texts.values())
    turned = item.find("robndbox")
    if turned is not None and item.find("bndbox") is None:
        values = [number(turned.findtext(key)) for key in ("cx", "cy", "w", "h", "angle")]
        if all(map(isfinite, values)):
            x, y, w, h, angle = values
            box = turned_bounds((x - w / 2, y - h / 2, w, h), degrees(angle), (x, y))
            corners = (box[0], box[1], box[0] + box[2], box[1] + box[3])
    if not all(map(isfinite, corners)):
        problems.add("box that is not four numbers", where, texts)
        return None
    difficult = number(item.findtext("difficult")) == 1
    return VOCObject(name, corners, difficult, _read_outline(item))


def _read_outline(item: Element) -> tuple[float, ...]:
    """The points ``x1``, ``y1``, ``x2``, ... of a ``polygon``; empty if they are none."""
    outline = item.find("polygon")
    values = []
    while outline is not None:
        place = len(values) // 2 + 1
        point = [number(outline.findtext(f"{axis}{place}")) for axis in "xy"]
        if not all(map(isfinite, point)):
            break
        values += point
    return tuple(values) if len(values) >= 6 else ()


def _read_lists(reading: Reading, files: list[str]) -> dict[str, list[str]] | None:
    """XML file -> its splits; None if there are no lists."""
    tree = reading.tree
    by_stem: dict[str, list[str]] = {}
    for file in files:
        by_stem.setdefault(posixpath.splitext(posixpath.basename(file))[0], []).append(file)
    found_lists = _find_lists(tree)
    lists: dict[str, list[str]] = {}
    for base, split, name in found_lists:
        path = str(tree.root / name)
        lines = attempt(
            reading, lambda path=path: list(numbered_lines(path)), "list that cannot be read"
        )
        seen = set()
        for place, line in lines or ():
            found = by_stem.get(posixpath.basename(line).removesuffix(".xml"))
            found = [f for f in found or () if f.startswith(base)] or found
            if line in seen:
                reading.problems.add("name that is in its list twice", place, line)
            elif not found:
                reading.problems.add("missing annotation file", place, line)
            else:
                lists.setdefault(found[0], []).append(split)
            seen.add(line)
    return lists if found_lists else None


def _find_lists(tree: FileTree) -> list[tuple[str, str, str]]:
    """(folder of the set, split, list) of the lists; those for boxes are in ``Main``."""
    kinds: dict[str, dict[str, dict[str, str]]] = {}
    for name in tree.files(".txt"):
        base, found, rest = f"/{name}".rpartition(f"/{_LISTS}/")
        stem = posixpath.splitext(posixpath.basename(name))[0]
        if found and split_name(stem):
            by_kind = kinds.setdefault(f"{base}/"[1:], {})
            by_kind.setdefault(posixpath.dirname(rest), {})[stem] = name
    lists = []
    for base, by_kind in kinds.items():
        named = by_kind["Main"] if "Main" in by_kind else by_kind[min(by_kind)]
        if "train" in named:
            named.pop("trainval", None)
        lists += [(base, split_name(stem), name) for stem, name in named.items()]
    return lists


def _find_image(reading: Reading, file: str, content: VOCImage) -> str:
    # `filename` may include a folder of another machine, or be out of date.
    tree, near = reading.tree, posixpath.dirname(file)
    named = posixpath.basename(content.file_name.replace("\\", "/"))
    own = tree.find_images(posixpath.splitext(posixpath.basename(file))[0], near)
    chosen = [name for name in own if posixpath.basename(name) == named]
    if len(chosen) == 1 or len(own) == 1:
        return (chosen or own)[0]
    written = named if not own and named else posixpath.splitext(posixpath.basename(file))[0]
    return reading.find_image(written, reading.where(file), near, split_of_path(file))


def write(
    data: FolderData, folder: Path, names: Mapping[str, Sequence[str]], notes: Problems
) -> None:
    """Write ``Annotations`` and ``ImageSets/Main``; what VOC does not hold is counted in ``notes``.

    Args:
        data: Of detection.
        folder: To write to.
        names: Image -> one name in ``JPEGImages``.
        notes: Collects what the format does not hold.
    """
    (folder / "Annotations").mkdir()
    for image in data.images:
        root = Element("annotation")
        _texts(root, folder="JPEGImages", filename=names[image.name][0])
        _texts(SubElement(root, "size"), width=image.width, height=image.height, depth=3)
        for item in image.instances:
            if item.has_mask:
                notes.add("mask, which VOC's annotations do not hold: left out", image.name)
            node = SubElement(root, "object")
            difficult = int(item.ignore)
            _texts(node, name=data.classes[item.label], truncated=0, difficult=difficult)
            x, y, w, h = item.box
            corners = dict(zip(_CORNERS, (x + 1, y + 1, x + w, y + h), strict=True))
            _texts(SubElement(node, "bndbox"), **corners)
        indent(root)
        path = folder / "Annotations" / f"{posixpath.splitext(names[image.name][0])[0]}.xml"
        ElementTree(root).write(path, encoding="utf-8")
    if data.splits:
        (folder / "ImageSets/Main").mkdir(parents=True)
    for split in data.splits:
        stems = (posixpath.splitext(names[image.name][0])[0] for image in data.split(split))
        text = "".join(f"{stem}\n" for stem in stems)
        (folder / f"ImageSets/Main/{split}.txt").write_text(text, encoding="utf-8")


def _texts(node: Element, **values: object) -> None:
    for key, value in values.items():
        whole = isinstance(value, float) and value.is_integer()
        SubElement(node, key).text = str(int(value) if whole else value)
