"""mmdet numbers its labels by the categories of the file; the classes must be in that order."""

import json

import pytest
from mmdet.datasets import CocoDataset
from pycocotools.coco import COCO

from negvision.compat.patches import replace_category_lookup
from negvision.data.formats.coco_file import check_order
from negvision.errors import DatasetError


def categories(*names):
    return [{"id": 10 - place, "name": name} for place, name in enumerate(names)]


FILE = categories("square", "disc", "bar")


@pytest.mark.parametrize(
    "classes", [("square", "disc", "bar"), ("square",), ["square", "disc"], ("disc", "bar")]
)
def test_classes_in_the_order_of_the_file(classes):
    assert check_order(FILE, classes) == ""


def test_a_last_class_without_a_category_shifts_no_label():
    assert check_order(FILE[:2], ("square", "disc", "bar")) == ""


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (
            ("person", "car"),
            r"none of the cat.*\n.*square, disc, bar\n.*person, car\n.*classes=\('s",
        ),
        (("square", "ring", "bar"), "1 of 3 classes are no category"),
        (("ring", "square"), "1 of 2 classes are no category"),
        (("Square",), "none of the categories"),
    ],
)
def test_missing_categories(classes, message):
    with pytest.raises(DatasetError, match=message):
        check_order(FILE, classes)


def test_another_order_is_a_warning():
    warning = check_order(FILE, ("disc", "square", "bar"))
    assert "labels belong to other classes" in warning and "negvision.CocoDataset" in warning


def test_mmdet_looks_categories_up_through_the_check(tmp_path, monkeypatch):
    # An earlier test may have run a command, which replaces it.
    plain = getattr(COCO.getCatIds, "__wrapped__", COCO.getCatIds)
    monkeypatch.setattr(COCO, "getCatIds", plain)
    image = {"id": 1, "file_name": "a.png", "width": 9, "height": 9}
    content = {"images": [image], "annotations": [], "categories": FILE}
    (tmp_path / "a.json").write_text(json.dumps(content))
    asked = []
    replace_category_lookup(lambda found, names: asked.append((found, names)))
    replace_category_lookup(asked.append)  # the second time changes nothing
    dataset = CocoDataset(
        ann_file=str(tmp_path / "a.json"),
        data_prefix={"img": ""},
        metainfo={"classes": ("disc",)},
    )
    assert dataset.cat_ids == [9]
    assert asked == [(FILE, ("disc",))]
