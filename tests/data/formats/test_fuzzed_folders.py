"""Damaged folders of every format are read, or raise an error that names them."""

import json
import time

import pytest
from helpers import folders
from helpers.mutations import mutations

from negvision.data.formats.folder import read_folder
from negvision.errors import UserError

CORNERS = ("filename,class,xmin,ymin,xmax,ymax", "{name}.jpg,{label},{x},{y},{r},{b}")
# File that is damaged, and what writes it.
FORMATS = {
    "yolo": ("labels/train/a.txt", folders.yolo),
    "polygons": ("labels/train/a.txt", lambda root: folders.yolo(root, shape="polygon")),
    "data.yaml": ("data.yaml", folders.yolo),
    "coco": ("all.json", lambda root: coco(root)),
    "voc": ("Annotations/a.xml", folders.voc),
    "lists": ("ImageSets/Main/train.txt", folders.voc),
    "cvat": ("annotations.xml", folders.cvat),
    "label-studio": ("project.json", folders.label_studio),
    "minimal": ("project.json", lambda root: folders.label_studio(root, minimal=True)),
    "labelme": ("train/a.json", folders.labelme),
    "csv": ("boxes.csv", lambda root: folders.table(root, *CORNERS)),
}
VALUES = [
    None, True, -1, 0, 1.5, 1 << 70, 1e308, float("nan"), float("inf"), "", "x", "1", "\0",
    "\ud800", "../x", [], [1], [[]], {}, {"id": 1}, "9" * 5000, "a" * 3000,
]  # fmt: skip


def coco(root):
    folders.pictures(root)
    content = folders.coco_content(folders.OBJECTS)
    for annotation in content["annotations"][:2]:
        annotation |= {"segmentation": [[1, 1, 9, 1, 9, 9]], "iscrowd": 0}
    content["annotations"][2]["segmentation"] = {"size": [60, 80], "counts": [4790, 10]}
    folders.text(root / "all.json", content)
    return root


def outcome(root) -> bool:
    """Whether the folder was read; only errors of the user that name it may be raised."""
    for skip_bad in (False, True):
        try:
            data = read_folder(root, skip_bad=skip_bad)
        except UserError as error:
            assert str(root) in str(error)
            continue
        for image in data.images:
            for item in image.instances:
                x, y, w, h = item.box
                assert 0 <= x < x + w <= image.width and 0 <= y < y + h <= image.height
                assert 0 <= item.label < len(data.classes)
        return not skip_bad
    return False


@pytest.mark.parametrize("name", FORMATS)
def test_damaged_files(tmp_path, name):
    file, make = FORMATS[name]
    root = make(tmp_path)
    whole = (root / file).read_bytes()
    assert outcome(root)
    start, read = time.process_time(), 0
    for data in mutations(whole, whole[::-1], 40, seed=len(whole)):
        (root / file).write_bytes(data)
        read += outcome(root)
    assert time.process_time() - start < 60
    assert read < 40


@pytest.mark.parametrize("name", ["coco", "label-studio", "minimal", "labelme"])
def test_values_of_wrong_types(tmp_path, name):
    """Every kind of value at every kind of place."""
    file, make = FORMATS[name]
    root = make(tmp_path)
    content = json.loads((root / file).read_text())
    places = [p for p in _places(content) if all(k in (0, 1) for k in p if isinstance(k, int))]
    for number, path in enumerate(places):
        for value in VALUES[number % 4 :: 4]:
            changed = json.loads(json.dumps(content))
            node = changed
            for key in path[:-1]:
                node = node[key]
            node[path[-1]] = value
            (root / file).write_text(json.dumps(changed))
            outcome(root)


def _places(node, path=()):
    if path:
        yield path
    if isinstance(node, list):
        node = dict(enumerate(node))
    for key, value in node.items() if isinstance(node, dict) else ():
        yield from _places(value, (*path, key))


NUMBERS = ["9" * 5000, "9" * 30, "-1", "²", "٣", "1e5", "1e999", "0x1", "1_000", "nan", "inf", ""]


@pytest.mark.parametrize("number", NUMBERS, ids=range(len(NUMBERS)))
@pytest.mark.parametrize("place", range(3))
def test_numbers_in_text(tmp_path, number, place):
    writers = {
        "yolo": (folders.yolo, "labels/train/b.txt", folders.yolo_rows("b").split()[2 * place]),
        "voc": (folders.voc, "Annotations/a.xml", ["<xmin>11<", "<ymax>30<", "<width>80<"][place]),
        "csv": (FORMATS["csv"][1], "boxes.csv", ["8,6,48,36", "8,6,48,36", "10,20,40,30"][place]),
        "yaml": (folders.yolo, "data.yaml", ["cat", "dog", "images/train"][place]),
    }
    for name, (make, file, old) in writers.items():
        root = make(tmp_path / name)
        text = (root / file).read_text()
        new = f"{old.split('>')[0]}>{number}<" if name == "voc" else number
        (root / file).write_text(text.replace(old, new))
        outcome(root)
