"""Read a CSV file with one box per row.

Columns are known by their names, in any order; a file without names has
``path, xmin, ymin, xmax, ymax, class``.
"""

from __future__ import annotations

import csv
import itertools
import posixpath
from collections.abc import Iterator, Sequence
from pathlib import Path

from negvision.data.formats.contents import Instance
from negvision.data.formats.reading import Reading, attempt, number, unreadable
from negvision.data.formats.tree import FileTree, split_name, split_of_path
from negvision.data.images import IMAGE_SUFFIXES
from negvision.errors import DatasetError

NAME = "CSV of boxes"
_COLUMNS = {
    "image": ("image", "filename", "file_name", "file", "path", "img", "image_path", "img_path",
              "image_name", "image_id", "imageid", "filepath", "file_path"),
    "class": ("class", "label", "name", "category", "class_name", "labelname", "label_name",
              "category_name", "object", "classname"),
    "left": ("xmin", "x_min", "x1", "left", "bbox_x1", "x0"),
    "top": ("ymin", "y_min", "y1", "top", "bbox_y1", "y0"),
    "right": ("xmax", "x_max", "x2", "right", "bbox_x2"),
    "bottom": ("ymax", "y_max", "y2", "bottom", "bbox_y2"),
    "x": ("x", "bbox_x", "box_x"),
    "y": ("y", "bbox_y", "box_y"),
    "w": ("w", "width", "bbox_width", "bbox_w", "box_width"),
    "h": ("h", "height", "bbox_height", "bbox_h", "box_height"),
    "box": ("bbox", "box"),
    "split": ("split", "set", "subset", "partition"),
}  # fmt: skip
_CORNERS, _SIDES = ("left", "top", "right", "bottom"), ("x", "y", "w", "h")
_HEADLESS = ("image", *_CORNERS, "class")
_DELIMITERS = ",;\t"


def claim(tree: FileTree) -> list[str]:
    """The CSV files with columns of boxes."""
    return [name for name in tree.files(".csv") if _columns(tree.root / name)[1]]


def read(reading: Reading, files: list[str]) -> None:
    """Read all rows."""
    rows = [row for name in files for row in _read_file(reading, name)]
    numbers = [v for _, _, _, _, values, _ in rows for v in values]
    # Pixels are whole numbers above 1; fractions of the image lie between 0 and 1.
    fractions = bool(numbers) and all(0 <= v <= 1 for v in numbers)
    if fractions:
        reading.assumptions.append("no coordinate is above 1: they are fractions of the image")
    for name in sorted({name for _, _, _, name, values, _ in rows if values and name}):
        reading.label(name)
    seen = set()
    for where, written, near, label, values, split in rows:
        name = reading.find_image(written, where, near, split)
        split = split or (split_of_path(name) if name else "")
        image = reading.image(name, where, split) if name else None
        seen.add(name)
        if image is None or not values:  # a row without a box lists a background image
            continue
        if not label:
            reading.problems.add("object without a name", where)
            continue
        if fractions:
            values = [value * (image.width, image.height)[i % 2] for i, value in enumerate(values)]
        reading.add(image, Instance(reading.label(label), _box(values)), where)
    for name in reading.tree.images:
        if name not in seen:
            reading.notes.add(
                "image in no row, left out (a row with empty numbers makes it background)",
                reading.where(name),
            )


def _box(values: Sequence[float]) -> tuple[float, float, float, float]:
    x, y, w, h = values
    return x, y, w, h


def _read_file(reading: Reading, file: str) -> Iterator[tuple]:
    """(place, image, folder, class, x y w h or nothing, split) of each row."""
    path = reading.tree.root / file
    columns, _, with_names = _columns(path)
    lines = attempt(reading, lambda: list(_lines(path)), "CSV file that cannot be read")
    near = posixpath.dirname(file)
    for place, cells in itertools.islice(lines or (), int(with_names), None):
        where = f"{path}:{place}"
        if not any(cell.strip() for cell in cells):
            continue
        row = {key: cells[i].strip() if i < len(cells) else "" for key, i in columns.items()}
        texts = _box_texts(row)
        values = [number(text) for text in texts]
        if "left" in columns and len(values) == 4:
            values = [*values[:2], values[2] - values[0], values[3] - values[1]]
        if not any(texts):
            values = []
        elif len(values) != 4 or any(v != v for v in values):
            reading.problems.add("box that is not four numbers", where, texts)
            continue
        split = split_name(row.get("split", ""))
        yield where, row["image"], near, row.get("class", "object"), values, split


def _box_texts(row: dict[str, str]) -> list[str]:
    if "box" in row:
        text = row["box"].strip("[]() ")
        return [part.strip() for part in text.replace(",", " ").split()]
    return [row[key] for key in (_CORNERS if "left" in row else _SIDES)]


def _columns(path: Path) -> tuple[dict[str, int], bool, bool]:
    """Meaning -> column, whether there are boxes, and whether the first row has names."""
    try:
        head = [cells for _, cells in itertools.islice(_lines(path), 2)]
    except DatasetError:
        return {}, False, False
    if not head:
        return {}, False, False
    first = [cell.strip().strip('"').lower().replace(" ", "_") for cell in head[0]]
    if len(first) == 6 and posixpath.splitext(first[0])[1] in IMAGE_SUFFIXES:
        known = all(not c or number(c) == number(c) for c in first[1:5])
        return {key: i for i, key in enumerate(_HEADLESS)}, known, False
    columns: dict[str, int] = {}
    for key, words in _COLUMNS.items():
        place = next((first.index(word) for word in words if word in first), None)
        if place is not None:
            columns[key] = place
    has_boxes = any(all(k in columns for k in keys) for keys in (_CORNERS, _SIDES, ("box",)))
    return columns, has_boxes and "image" in columns, True


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            file.seek(0)
            delimiter = max(_DELIMITERS, key=first.count)
            reader = csv.reader(file, delimiter=delimiter)
            for cells in reader:
                yield reader.line_num, cells
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path}: not UTF-8 text ({error.reason})") from None
    except csv.Error as error:
        raise DatasetError(f"{path}: not CSV: {error}") from None
    except OSError as error:
        raise unreadable(path, error) from None
