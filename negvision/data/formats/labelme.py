"""Read LabelMe's format: a JSON file for each image."""

from __future__ import annotations

import base64
import binascii
import posixpath
from typing import Any

import numpy as np

from negvision.data.formats.contents import ImageRecord, Instance, bounds
from negvision.data.formats.reading import Reading, number
from negvision.data.formats.tree import FileTree, split_of_path

NAME = "LabelMe"


def claim(tree: FileTree) -> list[str]:
    """The JSON files with ``shapes``."""
    return [name for name in tree.files(".json") if _is_labelme(tree.json(name))]


def read(reading: Reading, files: list[str]) -> None:
    """Read all files."""
    seen: dict[str, str] = {}
    for file in files:
        content = reading.tree.json(file)
        where = reading.where(file)
        stem = posixpath.splitext(file)[0]
        # `imagePath` may be of another machine, or out of date after renaming both files.
        beside = [name for name in reading.tree.find_images(stem) if name.startswith(f"{stem}.")]
        written = content.get("imagePath") or posixpath.basename(stem)
        near = posixpath.dirname(file)
        if len(beside) == 1 and beside != reading.tree.find_images(str(written), near):
            name = beside[0]
        else:
            name = reading.find_image(written, where, near, split_of_path(file))
        if not name:
            continue
        if name in seen:
            reading.problems.add(
                "image with two label files", f"{reading.where(name)}: {seen[name]} and {file}"
            )
            continue
        seen[name] = file
        sides = content.get("imageWidth"), content.get("imageHeight")
        split = split_of_path(name) or split_of_path(file)
        image = reading.image(name, where, split, sides)
        if image is not None:
            _read_shapes(reading, image, content["shapes"], where)
    for name in reading.tree.images:
        if name not in seen:
            reading.notes.add("image without a label file, left out", reading.where(name))
    reading.sort_classes()


def _is_labelme(content: Any) -> bool:
    return (
        isinstance(content, dict)
        and isinstance(content.get("shapes"), list)
        and ("imagePath" in content or "imageData" in content or "imageHeight" in content)
    )


def _read_shapes(reading: Reading, image: ImageRecord, shapes: list, where: str) -> None:
    groups: dict[tuple, Instance] = {}
    for index, shape in enumerate(shapes, 1):
        place = f"{where}: shape {index}"
        item = _read_shape(reading, image, shape, place)
        if item is None:
            continue
        # Parts of one object, such as the two halves of a hidden one, share a group.
        group = shape.get("group_id"), item.label
        if isinstance(group[0], int | str) and item.polygons and group in groups:
            first = groups[group]
            first.polygons += item.polygons
            first.box = bounds([p for part in first.polygons for p in part])
            continue
        if isinstance(group[0], int | str) and item.polygons:
            groups[group] = item
            continue
        reading.add(image, item, place)
    for item in groups.values():
        reading.add(image, item, where)


def _read_shape(reading: Reading, image: ImageRecord, shape: Any, where: str) -> Instance | None:
    if not isinstance(shape, dict):
        reading.problems.add("shape that is no object", where, shape)
        return None
    name = shape.get("label")
    if not isinstance(name, str) or not name.strip():
        reading.problems.add("object without a name", where)
        return None
    kind = shape.get("shape_type") or "polygon"
    points = _points(shape.get("points"))
    if kind not in ("rectangle", "polygon", "circle", "mask"):
        reading.notes.add(f"{kind}, which is neither a box nor a mask: left out", where)
        return None
    least = 6 if kind == "polygon" else 4
    if len(points) < least:
        reading.problems.add(f"{kind} of too few points", where, shape.get("points"))
        return None
    label = reading.label(name.strip())
    if kind == "polygon":
        return Instance(label, bounds(points), [points])
    if kind == "circle":
        (x, y), radius = points[:2], float(np.hypot(points[2] - points[0], points[3] - points[1]))
        reading.notes.add("circle, kept as the box around it", where)
        return Instance(label, (x - radius, y - radius, 2 * radius, 2 * radius))
    item = Instance(label, bounds(points))
    if kind == "mask":
        item.rle = _read_mask(shape.get("mask"), item.box, image)
        if item.rle is None:
            reading.problems.add("mask that does not fit its box", where)
            return None
    return item


def _points(points: Any) -> list[float]:
    try:
        return [number(point[i]) for point in points for i in (0, 1)]
    except (TypeError, IndexError, KeyError):
        return []


def _read_mask(data: Any, box: tuple, image: ImageRecord) -> dict | None:
    from negvision.data.formats.coco_masks import to_run_lengths
    from negvision.data.formats.label_files import decode_labels
    from negvision.errors import DatasetError

    try:
        inside = decode_labels(base64.b64decode(data, validate=True), "mask")
    except (TypeError, ValueError, binascii.Error, DatasetError):
        return None
    left, top = (round(value) for value in box[:2])
    height, width = inside.shape[:2]
    if left < 0 or top < 0 or left + width > image.width or top + height > image.height:
        return None
    mask = np.zeros((image.height, image.width), np.uint8)
    mask[top : top + height, left : left + width] = inside
    return to_run_lengths(mask[None])[0]
