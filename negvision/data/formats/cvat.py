"""Read "CVAT for images 1.1": one XML file with all images."""

from __future__ import annotations

import posixpath
from xml.etree.ElementTree import Element

import numpy as np

from negvision.data.formats.contents import ImageRecord, Instance, bounds
from negvision.data.formats.reading import Reading, attempt, number
from negvision.data.formats.tree import FileTree, split_name, split_of_path
from negvision.data.formats.turned import turned_bounds
from negvision.data.formats.xml_file import read_xml, root_tag

NAME = "CVAT for images"
# Outlines of 100,000 images take some hundred megabytes.
_MOST_BYTES = 1 << 30


def claim(tree: FileTree) -> list[str]:
    """The XML files that begin with ``<annotations>``."""
    return [name for name in tree.files(".xml") if root_tag(tree.root / name) == "annotations"]


def read(reading: Reading, files: list[str]) -> None:
    """Read all images of the files."""
    for name in files:
        path = reading.tree.root / name
        kind = "annotation file that cannot be read"
        root = attempt(reading, lambda path=path: read_xml(path, _MOST_BYTES), kind)
        if root is None:
            continue
        for element in root.findall("./meta//labels/label/name"):
            if element.text:
                reading.label(element.text.strip())
        tracks = len(root.findall("track"))
        if tracks:
            reading.problems.add(
                "track of a video: export as 'CVAT for images 1.1' instead", str(path), count=tracks
            )
        for element in root.findall("image"):
            _read_image(reading, element, name)


def _read_image(reading: Reading, element: Element, file: str) -> None:
    written = element.get("name", "")
    where = f"{reading.where(file)}: image {written!r}"
    split = split_name(element.get("subset", "")) or split_of_path(written.replace("\\", "/"))
    name = reading.find_image(written, where, posixpath.dirname(file), split)
    if not name:
        return
    sides = element.get("width"), element.get("height")
    is_new = reading.is_new(name, where)
    image = reading.image(name, where, split or split_of_path(name), sides)
    if image is None or not is_new:
        return
    for index, shape in enumerate(element, 1):
        _read_shape(reading, image, shape, f"{where}: {shape.tag} {index}")


def _read_shape(reading: Reading, image: ImageRecord, shape: Element, where: str) -> None:
    name = (shape.get("label") or "").strip()
    if not name:
        reading.problems.add("object without a name", where)
        return
    values = {key: number(text) for key, text in shape.items() if key not in ("label", "points")}
    angle = values.get("rotation", 0.0)
    item: Instance | None = None
    if shape.tag == "box":
        left, top, right, bottom = (values.get(k, np.nan) for k in ("xtl", "ytl", "xbr", "ybr"))
        item = Instance(reading.label(name), (left, top, right - left, bottom - top))
        if angle:
            center = ((left + right) / 2, (top + bottom) / 2)
            item.box = turned_bounds(item.box, angle, center)
            reading.notes.add("oriented box, kept as the upright box around it", where)
    elif shape.tag == "polygon":
        points = [number(t) for t in (shape.get("points") or "").replace(";", ",").split(",")]
        if len(points) < 6 or len(points) % 2:
            reading.problems.add("outline of fewer than three points", where, shape.get("points"))
            return
        item = Instance(reading.label(name), bounds(points), [points])
    elif shape.tag == "ellipse":
        x, y, rx, ry = (values.get(key, np.nan) for key in ("cx", "cy", "rx", "ry"))
        item = Instance(reading.label(name), (x - rx, y - ry, 2 * rx, 2 * ry))
        if angle:
            item.box = turned_bounds(item.box, angle, (x, y))
        reading.notes.add("ellipse, kept as the box around it", where)
    elif shape.tag == "mask":
        item = _read_mask(reading, image, shape, values, name, where)
    else:
        reading.notes.add(f"{shape.tag}, which is neither a box nor a mask: left out", where)
    if item is not None:
        reading.add(image, item, where)


def _read_mask(
    reading: Reading, image: ImageRecord, shape: Element, values: dict, name: str, where: str
) -> Instance | None:
    """A mask: run lengths by rows, of pixels outside and inside in turn, within its box."""
    from negvision.data.formats.coco_masks import to_run_lengths

    runs = [number(text) for text in (shape.get("rle") or "").split(",")]
    left, top, width, height = (values.get(k, np.nan) for k in ("left", "top", "width", "height"))
    whole = all(v % 1 == 0 and v >= 0 for v in (*runs, left, top, width, height))
    if (
        not whole
        or sum(runs) != width * height
        or left + width > image.width
        or top + height > image.height
    ):
        reading.problems.add("mask whose run lengths do not fit its box", where)
        return None
    left, top, width, height = int(left), int(top), int(width), int(height)
    inside = np.repeat(np.arange(len(runs)) % 2, np.array(runs, int)).reshape(height, width)
    mask = np.zeros((image.height, image.width), np.uint8)
    mask[top : top + height, left : left + width] = inside
    item = Instance(reading.label(name), (left, top, width, height), area=float(inside.sum()))
    (item.rle,) = to_run_lengths(mask[None])
    return item
