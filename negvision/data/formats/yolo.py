"""Read and write YOLO's format: a text file of rows ``class x y width height`` for each image.

The layouts of Ultralytics, Roboflow, darknet and the exports of CVAT and Label Studio: with or
without ``data.yaml``, labels in ``labels`` beside ``images`` or next to the images.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from negvision.data.formats.contents import FolderData, ImageRecord, Instance, bounds
from negvision.data.formats.masks import polygons_of
from negvision.data.formats.reading import Reading, attempt, number, unreadable
from negvision.data.formats.text_files import numbered_lines
from negvision.data.formats.tree import FileTree, split_name, split_of_path
from negvision.data.images import IMAGE_SUFFIXES
from negvision.errors import DatasetError, Problems

NAME = "YOLO"
_ROW = re.compile(r"\s*\d+(\.0+)?(\s+[-+]?[\d.]+([eE][-+]?\d+)?){4,}\s*$")
_NAMES_FILES = ("classes.txt", "obj.names", "names.txt")
_NO_LABELS = re.compile(r"(^|/)(readme[^/]*|requirements|licen[sc]e[^/]*)\.txt$", re.IGNORECASE)
_SPLIT_KEYS = ("train", "val", "valid", "test")
_MOST_YAML = 1 << 20
# A pixel of rounding; more means that the numbers are no fractions of the image.
_MOST_FRACTION = 2


def claim(tree: FileTree) -> list[str]:
    """The files that show this format: ``data.yaml``, and text files of label rows."""
    found = [name for name in tree.files(".yaml", ".yml") if _is_data_yaml(_load_yaml(tree, name))]
    return found + [name for name in _label_files(tree) if _starts_with_a_row(tree.root / name)]


def read(reading: Reading, files: list[str]) -> None:
    """Read the labels of all images of the tree."""
    tree = reading.tree
    yamls = [name for name in files if name.endswith((".yaml", ".yml"))]
    yaml_name = min(yamls, key=lambda name: (name.count("/"), name), default="")
    config = _load_yaml(tree, yaml_name) if yaml_name else {}
    labels = _read_names(reading, yaml_name, config)
    splits = _read_splits(reading, yaml_name, config)
    pairs = _pair(reading, _label_files(tree))
    rows = _read_rows(reading, pairs)
    keypoints = "kpt_shape" in config
    if labels is None:
        ids = sorted({row.class_id for found in rows.values() for row in found or ()})
        labels = {class_id: reading.label(str(class_id)) for class_id in ids}
    quads = [row.values for found in rows.values() for row in found or ()]
    oriented = bool(quads) and all(len(q) == 8 for q in quads) and not keypoints
    for name in tree.images:
        found = rows.get(name)
        chosen = [split for split, members in splits.items() if name in members]
        if splits and not chosen:
            reading.notes.add("image in no split, left out", reading.where(name))
            continue
        where = reading.where(name)
        image = reading.image(name, where)
        for split in chosen:
            reading.image(name, where, split)
        if image is None:
            continue
        if found is None:
            reading.notes.add("image without a label file, kept as background", where)
        for row in found or ():
            _add_row(reading, image, row, labels, oriented, keypoints)


class _Row(NamedTuple):
    class_id: int
    values: list[float]
    where: str


def _add_row(
    reading: Reading,
    image: ImageRecord,
    row: _Row,
    labels: Mapping[int, int],
    oriented: bool,
    keypoints: bool,
) -> None:
    values, where = row.values, row.where
    label = labels.get(row.class_id)
    if label is None:
        kind = f"class id that is none of the {len(labels)} names"
        remedy = "Ids count from 0; add the missing classes to the names of data.yaml."
        reading.problem(kind, where, row.class_id, remedy)
        return
    if max(map(abs, values)) > _MOST_FRACTION and not keypoints:
        kind = "coordinate that is no fraction of the image side"
        remedy = "YOLO's x and width are divided by the image's width, y and height by its height."
        reading.problem(kind, where, values[:8], remedy)
        return
    sides = (image.width, image.height)
    if len(values) in (4, 5) or keypoints:
        if len(values) == 5:
            reading.notes.add("confidence of a box, left out", where)
        elif len(values) > 5:
            reading.notes.add("keypoints of an object, left out: its box is kept", where)
        x, y, w, h = (value * sides[i % 2] for i, value in enumerate(values[:4]))
        reading.add(image, Instance(label, (x - w / 2, y - h / 2, w, h)), where)
        return
    if len(values) % 2:
        reading.problems.add("row that is neither a box nor an outline", where, values[:8])
        return
    points = [value * sides[i % 2] for i, value in enumerate(values)]
    item = Instance(label, bounds(points))
    if oriented:
        reading.notes.add("oriented box, kept as the upright box around it", where)
    else:
        item.polygons = [points]
    reading.add(image, item, where)


def _read_rows(reading: Reading, pairs: Mapping[str, str]) -> dict[str, list[_Row] | None]:
    rows: dict[str, list[_Row] | None] = {}
    for image, label_file in pairs.items():
        path = reading.tree.root / label_file
        rows[image] = attempt(
            reading, lambda path=path: list(_rows(reading, path)), "label file that cannot be read"
        )
    return rows


def _rows(reading: Reading, path: Path) -> Iterator[_Row]:
    for where, line in _lines(path):
        first, *others = line.split()
        class_id, values = number(first), [number(text) for text in others]
        if class_id % 1 or not 0 <= class_id < 1 << 31 or len(values) < 4:
            reading.problems.add("row that is not 'class x y width height'", where, line)
        elif not all(-1e9 < value < 1e9 for value in values):
            reading.problems.add("row with a value that is no number", where, line)
        else:
            yield _Row(int(class_id), values, where)


def _lines(path: Path) -> list[tuple[str, str]]:
    try:
        return list(numbered_lines(str(path)))
    except OSError as error:
        raise unreadable(path, error) from None


def _label_files(tree: FileTree) -> list[str]:
    return [
        name
        for name in tree.files(".txt")
        if posixpath.basename(name) not in _NAMES_FILES and not _NO_LABELS.search(name)
    ]


def _starts_with_a_row(path: Path) -> bool:
    try:
        with open(path, encoding="utf-8-sig") as file:
            first = next((line for line in file if line.strip()), "")
    except (OSError, UnicodeDecodeError):
        return False
    return bool(_ROW.match(first))


def _pair(reading: Reading, names: Iterable[str]) -> dict[str, str]:
    """Image -> label file. Two images of one stem, and labels without an image, are counted."""
    tree = reading.tree
    by_place: dict[str, list[str]] = {}
    by_stem: dict[str, list[str]] = {}
    for image in tree.images:
        stem = os.path.splitext(image)[0]
        for place in {stem, _labels_place(stem)}:
            by_place.setdefault(place, []).append(image)
        by_stem.setdefault(posixpath.basename(stem), []).append(image)
    pairs: dict[str, str] = {}
    for name in names:
        stem = os.path.splitext(name)[0]
        found = by_place.get(stem)
        if found is None:
            found = by_stem.get(posixpath.basename(stem), [])
            split = split_of_path(name)
            found = [i for i in found if split_of_path(i) == split] or found
            if not _is_label_file(tree, name):
                continue
        if not found:
            remedy = "Put the images beside their labels, or in images beside labels."
            reading.problem("label file without an image", reading.where(name), None, remedy)
        elif len(found) > 1:
            shown = [reading.where(image) for image in found[:3]]
            kind = "label file of several images of one stem"
            remedy = "A label file belongs to the image of its name: rename one of them."
            reading.problem(kind, reading.where(name), shown, remedy)
        elif found[0] in pairs:
            both = f"{reading.where(found[0])}: {pairs[found[0]]} and {name}"
            reading.problems.add("image with two label files", both)
        else:
            pairs[found[0]] = name
    return pairs


def _labels_place(stem: str) -> str:
    """The stem with its last folder ``images`` replaced by ``labels``."""
    head, found, tail = f"/{stem}".rpartition("/images/")
    return f"{head}/labels/{tail}"[1:] if found else stem


def _is_label_file(tree: FileTree, name: str) -> bool:
    folders = name.split("/")[:-1]
    return "labels" in folders or _starts_with_a_row(tree.root / name)


def _load_yaml(tree: FileTree, name: str) -> dict:
    path = tree.root / name
    try:
        if path.stat().st_size > _MOST_YAML:
            return {}
        content = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        tree.unreadable[name] = DatasetError(f"{path}: not YAML: {reason}")
        return {}
    return content if isinstance(content, dict) else {}


def root_of(path: Path) -> Path | None:
    """The folder that ``path`` of a ``data.yaml`` names, if it exists."""
    content = _load_yaml(FileTree(path.parent, only=path), path.name)
    named = content.get("path")
    folder = path.parent / named if isinstance(named, str) else path.parent
    return folder if folder.is_dir() else None


def _is_data_yaml(content: Mapping) -> bool:
    return "names" in content or ("nc" in content and "train" in content)


def _read_names(reading: Reading, yaml_name: str, config: Mapping) -> dict[int, int] | None:
    """Class id -> label; None if the classes have no names."""
    tree, names = reading.tree, config.get("names")
    source = yaml_name
    if names is None:
        files = [n for n in tree.files(".txt", ".names") if _is_names_file(n)]
        source = min(files, key=lambda n: (n.count("/"), n), default="")
        if source:
            lines = attempt(
                reading, lambda: _lines(tree.root / source), "list of classes that cannot be read"
            )
            names = [line for _, line in lines or ()]
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict):
        if source:
            reading.problems.add("'names' that is no list of classes", reading.where(source), names)
        reading.assumptions.append("no data.yaml or classes.txt names the classes: ids are names")
        return None
    count = config.get("nc")
    if isinstance(count, int) and count != len(names):
        reading.notes.add(
            "'nc' that is not the number of names", reading.where(source), (count, len(names))
        )
    ids = {number(key): str(name).strip() for key, name in names.items()}
    twice = sorted({name for name in ids.values() if list(ids.values()).count(name) > 1})
    if twice or not all(key % 1 == 0 for key in ids):
        reading.problems.add("'names' with a repeated class or a key that is no id",
                             reading.where(source), twice or list(names))  # fmt: skip
        return None
    return {int(key): reading.label(ids[key]) for key in sorted(ids)}


def _is_names_file(name: str) -> bool:
    return posixpath.basename(name) in _NAMES_FILES or name.endswith(".names")


def _read_splits(reading: Reading, yaml_name: str, config: Mapping) -> dict[str, set[str]]:
    """Split -> names of its images: from data.yaml, lists of images, or folder names."""
    tree = reading.tree
    splits: dict[str, set[str]] = {}
    for key in _SPLIT_KEYS:
        entry = config.get(key)
        entries = entry if isinstance(entry, list) else [entry] if entry else []
        members: set[str] = set()
        for word in entries:
            members |= _resolve(reading, yaml_name, config.get("path"), key, word)
        if members:
            splits.setdefault(split_name(key), set()).update(members)
    if splits:
        if len(splits) > 1 and splits.get("train") == splits.get("val"):
            # data.yaml must name both.
            del splits["val"]
            name = posixpath.basename(yaml_name)
            reading.assumptions.append(f"train and val of {name} are the same images: no split")
        return splits
    for name in tree.files(".txt"):
        split = split_name(posixpath.splitext(posixpath.basename(name))[0])
        if split and not _starts_with_a_row(tree.root / name):
            splits.setdefault(split, set()).update(_listed(reading, name))
    if not splits:
        for image in tree.images:
            if split := split_of_path(image):
                splits.setdefault(split, set()).add(image)
    return {split: members for split, members in splits.items() if members}


def _resolve(reading: Reading, yaml_name: str, path: Any, key: str, word: Any) -> set[str]:
    """The images of an entry of data.yaml.

    Paths of other machines and the ``../train/images`` of Roboflow's exports do not exist here: the
    longest end that does is used.
    """
    tree = reading.tree
    where = f"{reading.where(yaml_name)}: {key}"
    if not isinstance(word, str):
        reading.problems.add("entry of data.yaml that is no path", where, word)
        return set()
    full = posixpath.join(str(path or "").replace("\\", "/"), word.replace("\\", "/"))
    folder = os.path.abspath((tree.root / yaml_name).parent)
    written = os.path.relpath(os.path.join(folder, full), os.path.abspath(tree.root))
    parts = [part for part in full.split("/") if part not in ("", ".", "..")]
    base = posixpath.dirname(yaml_name)
    ends = [posixpath.normpath(posixpath.join(base, *parts[i:])) for i in range(len(parts))]
    for end in [written, *ends]:
        if end in tree.files(".txt"):
            members = _listed(reading, end)
        else:
            inside = "" if end == "." else f"{end}/"
            members = {image for image in tree.images if image.startswith(inside)}
        if members:
            if end != written and end != "/".join(parts):
                name = posixpath.basename(yaml_name)
                reading.assumptions.append(f"{key}: {full!r} of {name} is not here; {end!r} is")
            return members
    text = f"split of {posixpath.basename(yaml_name)} whose images are not here"
    if key == "test":  # exports name it also where there is none
        reading.notes.add(text, where, full)
    else:
        remedy = (
            "Put the images into this folder, or correct its path, train and val; without val a "
            "part of train is taken."
        )
        reading.problem(text, where, full, remedy)
    return set()


def _listed(reading: Reading, name: str) -> set[str]:
    """The images of a list with one path per line."""
    members = set()
    base = posixpath.dirname(name)
    lines = attempt(
        reading, lambda: _lines(reading.tree.root / name), "list of images that cannot be read"
    )
    for where, line in lines or ():
        if os.path.splitext(line)[1].lower() not in IMAGE_SUFFIXES:
            continue
        if found := reading.find_image(line, where, base):
            members.add(found)
    return members


def write(
    data: FolderData, folder: Path, names: Mapping[str, Sequence[str]], notes: Problems
) -> None:
    """Write ``data.yaml`` and ``labels``; what YOLO does not hold is counted in ``notes``.

    Args:
        data: Of detection.
        folder: To write to.
        names: Image -> its names in ``images``, with the split first.
        notes: Collects what the format does not hold.
    """
    outlines = data.has_masks
    for image in data.images:
        rows = []
        for item in image.instances:
            if item.ignore:
                notes.add("object to ignore, which YOLO does not hold: left out", image.name)
                continue
            if item.has_mask and not outlines:
                kind = "mask, left out: YOLO holds masks only if every object has one"
                notes.add(kind, image.name)
            values = _outline(item, image, notes) if outlines else _centered(item)
            sides = (image.width, image.height)
            scaled = (value / sides[i % 2] for i, value in enumerate(values))
            rows.append(" ".join([str(item.label), *(f"{value:.9g}" for value in scaled)]))
        for name in names[image.name]:
            path = folder / "labels" / f"{os.path.splitext(name)[0]}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(f"{row}\n" for row in rows))
    splits = {split: f"images/{split}" for split in data.splits} or {"train": "images/train"}
    # Ultralytics requires both.
    splits = {"train": "images/train", "val": splits.get("test", "images/train"), **splits}
    config = {**splits, "names": dict(enumerate(data.classes))}
    (folder / "data.yaml").write_text(
        yaml.safe_dump(config, sort_keys=False, allow_unicode=True), encoding="utf-8"
    )


def _centered(item: Instance) -> list[float]:
    x, y, w, h = item.box
    return [x + w / 2, y + h / 2, w, h]


def _outline(item: Instance, image: ImageRecord, notes: Problems) -> list[float]:
    parts = polygons_of(item, image, notes)
    if not parts:
        x, y, w, h = item.box
        return [x, y, x + w, y, x + w, y + h, x, y + h]
    joined = [*parts[0], *parts[0][:2]]
    for part in parts[1:]:
        # To the next part and back: lines without width, so the area stays.
        joined += [*part, *part[:2], *joined[:2]]
    if len(parts) > 1:
        notes.add("mask of several parts, written as one outline that joins them", image.name)
    return joined
