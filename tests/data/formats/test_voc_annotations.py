"""Reading Pascal VOC's XML files and converting them to COCO."""

import xml.etree.ElementTree as ET

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from negvision.data.formats.voc import parse_xml, read_voc_file
from negvision.data.formats.voc_to_coco import find_splits, voc_to_coco
from negvision.errors import DatasetError, MissingDataError, Problems

BOX = {"xmin": 10, "ymin": 20, "xmax": 30, "ymax": 60}


def voc_xml(objects=(), file_name="a.jpg", size=(64, 80)) -> str:
    """An annotation; objects are dicts of a name, corners and perhaps ``difficult``."""
    root = ET.Element("annotation")
    ET.SubElement(root, "filename").text = file_name
    if size:
        for key, side in zip(("width", "height"), (size[1], size[0]), strict=True):
            child = root.find("size")
            child = ET.SubElement(root, "size") if child is None else child
            ET.SubElement(child, key).text = str(side)
    for item in objects:
        node = ET.SubElement(root, "object")
        for key in ("name", "difficult"):
            if key in item:
                ET.SubElement(node, key).text = str(item[key])
        box = ET.SubElement(node, "bndbox")
        for key in ("ymax", "xmin", "xmax", "ymin"):  # the order of the corners is free
            if key in item:
                ET.SubElement(box, key).text = str(item[key])
    return ET.tostring(root, encoding="unicode")


@pytest.fixture
def voc(tmp_path):
    """A set of three images: two to train on, one to evaluate on."""
    root = tmp_path / "voc"
    for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / name).mkdir(parents=True)
    objects = [{"name": "cat", **BOX}, {"name": "ant", **BOX, "difficult": 1}]
    for name, items in (("a", objects), ("b", []), ("c", objects[:1])):
        (root / "Annotations" / f"{name}.xml").write_text(voc_xml(items, f"{name}.jpg"))
        cv2.imwrite(str(root / "JPEGImages" / f"{name}.jpg"), np.zeros((64, 80, 3), np.uint8))
    (root / "ImageSets/Main/train.txt").write_text("a\nb\n")
    (root / "ImageSets/Main/val.txt").write_text("c\n")
    return root


def test_converted_set(voc):
    contents = voc_to_coco(voc, find_splits(voc))
    assert list(contents) == ["train", "val"]
    train = contents["train"]
    assert [i["file_name"] for i in train["images"]] == ["a.jpg", "b.jpg"]
    assert train["images"][0] == {"id": 1, "file_name": "a.jpg", "width": 80, "height": 64}
    # Of all splits, so that ids mean the same in each file.
    assert train["categories"] == contents["val"]["categories"]
    assert train["categories"] == [{"id": 1, "name": "ant"}, {"id": 2, "name": "cat"}]
    cat, ant = train["annotations"]
    # Pixels 10 ... 30 and 20 ... 60 counted from 1.
    assert cat["bbox"] == [9, 19, 21, 41] and cat["area"] == 21 * 41
    assert (cat["category_id"], cat["iscrowd"], cat.get("ignore")) == (2, 0, None)
    assert (ant["category_id"], ant["iscrowd"], ant["ignore"]) == (1, 1, 1)
    assert [a["id"] for a in train["annotations"]] == [1, 2]


def test_the_set_trains_as_a_coco_set(voc):
    import json

    from negvision.detection.datasets import CocoDataset

    path = voc / "train.json"
    path.write_text(json.dumps(voc_to_coco(voc, ["train"])["train"]))
    dataset = CocoDataset(
        data_root=str(voc), ann_file="train.json", data_prefix={"img": "JPEGImages/"}, pipeline=[]
    )
    instances = dataset.get_data_info(0)["instances"]
    assert [(i["bbox"], i["ignore_flag"]) for i in instances] == [
        ([9, 19, 30, 60], 0),
        ([9, 19, 30, 60], 1),
    ]


whole = st.integers(1, 500)


@settings(max_examples=50, deadline=None)
@given(left=whole, top=whole, right=whole, bottom=whole, zero_based=st.booleans())
def test_boxes_cover_the_annotated_pixels(tmp_path_factory, left, top, right, bottom, zero_based):
    right, bottom = left + right, top + bottom
    corners = {"xmin": left, "ymin": top, "xmax": right, "ymax": bottom}
    path = tmp_path_factory.getbasetemp() / "one.xml"
    path.write_text(voc_xml([{"name": "x", **corners}]))
    x, y, w, h = read_voc_file(path, Problems(), zero_based).objects[0].box
    shown = np.zeros((1100, 1100), bool)
    shown[int(y) : int(y + h), int(x) : int(x + w)] = True
    # The oracle counts pixels as the two conventions are worded.
    first, beyond = (0, 0) if zero_based else (1, 1)
    expected = np.zeros_like(shown)
    expected[top - first : bottom - first + beyond, left - first : right - first + beyond] = True
    assert np.array_equal(shown, expected)


def _message(voc, name: str, text: str, **options) -> str:
    (voc / "Annotations" / f"{name}.xml").write_text(text)
    with pytest.raises(DatasetError) as error:
        voc_to_coco(voc, ["train", "val"], **options)
    return str(error.value)


@pytest.mark.parametrize(
    ("item", "kind"),
    [
        ({"name": " ", **BOX}, "object without a name"),
        ({"name": "x", **BOX, "xmin": "ten"}, "box that is not four numbers"),
        ({"name": "x", **BOX, "xmin": "nan"}, "box that is not four numbers"),
        ({"name": "x", **BOX, "ymax": "1e999"}, "box that is not four numbers"),
        ({"name": "x", "xmin": 1}, "box that is not four numbers"),
    ],
)
def test_bad_objects_are_counted_and_named(voc, item, kind):
    message = _message(voc, "a", voc_xml([{"name": "ok", **BOX}, item]))
    assert f"1 x {kind}" in message and f"{voc / 'Annotations' / 'a.xml'}: object 2" in message


def test_a_zero_hints_at_a_tool_that_counts_from_zero(voc):
    text = voc_xml([{"name": "x", **BOX, "xmin": 0}])
    message = _message(voc, "a", text)
    assert "1 x box that begins before pixel 1" in message and "--zero-based" in message
    box = voc_to_coco(voc, ["train"], zero_based=True)["train"]["annotations"][0]["bbox"]
    assert box == [0, 20, 30, 40]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not XML: no element found"),
        ("<annotation><object>", "not XML"),
        ("\x89PNG\r\n", "not XML"),
        ("<root/>", "an annotation begins with <annotation>; found <root>"),
        ('<?xml version="1.0" encoding="klingon"?><annotation/>', "not XML"),
        ('<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation>&x;</annotation>',
         "declares a document type"),
        ('<!DOCTYPE a [<!ENTITY x "lol">]><annotation>&x;&x;</annotation>',
         "declares a document type"),
        ("<annotation>&x;</annotation>", "undefined entity"),
        ("<annotation>" + " " * (1 << 22) + "</annotation>", "at most"),
    ],
)  # fmt: skip
def test_files_that_are_not_annotations(voc, text, reason):
    message = _message(voc, "a", text)
    assert "1 x annotation file that cannot be read" in message and reason in message


def test_damaged_files_never_raise_anything_else(tmp_path):
    good = voc_xml([{"name": "cat", **BOX}]).encode()
    random = np.random.default_rng(0)
    unreadable = 0
    for _ in range(300):
        data = bytearray(good)
        for place in random.integers(0, len(data), random.integers(1, 6)):
            data[place] = random.integers(0, 256)
        try:
            parse_xml(bytes(data[: random.integers(1, len(data) + 1)]), "x.xml")
        except DatasetError:
            unreadable += 1
    assert unreadable > 100


def test_names_that_leave_the_dataset_are_not_followed(voc, tmp_path):
    (tmp_path / "secret.xml").write_text(voc_xml([{"name": "x", **BOX}]))
    for line in ("../../secret", str(tmp_path / "secret"), "a\\..\\..\\..\\secret"):
        (voc / "ImageSets/Main/train.txt").write_text(f"a\n{line}\n")
        with pytest.raises(DatasetError, match="1 x path that leaves the data root"):
            voc_to_coco(voc, ["train"])
    # `filename` is looked up among the images alone.
    (voc / "ImageSets/Main/train.txt").write_text("a\n")
    (voc / "Annotations/a.xml").write_text(voc_xml([{"name": "x", **BOX}], "../../b.jpg"))
    assert voc_to_coco(voc, ["train"])["train"]["images"][0]["file_name"] == "a.jpg"


def test_an_image_is_found_by_its_annotations_name_or_filename(voc):
    images = voc / "JPEGImages"
    (images / "a.jpg").rename(images / "photo 1.JPG")
    (voc / "Annotations/a.xml").write_text(voc_xml([{"name": "x", **BOX}], r"C:\me\photo 1.JPG"))
    assert voc_to_coco(voc, ["train"])["train"]["images"][0]["file_name"] == "photo 1.JPG"
    (images / "photo 1.JPG").unlink()
    with pytest.raises(DatasetError, match="1 x missing image file"):
        voc_to_coco(voc, ["train"])
    for suffix in (".png", ".bmp"):
        cv2.imwrite(str(images / f"a{suffix}"), np.zeros((64, 80, 3), np.uint8))
    with pytest.raises(DatasetError, match="1 x annotation with several images"):
        voc_to_coco(voc, ["train"])


@pytest.mark.parametrize("size", [None, (0, 0), ("x", 80)])
def test_a_missing_size_is_read_from_the_image(voc, size):
    (voc / "Annotations/a.xml").write_text(voc_xml([{"name": "x", **BOX}], size=size))
    image = voc_to_coco(voc, ["train"])["train"]["images"][0]
    assert (image["width"], image["height"]) == (80, 64)
    (voc / "JPEGImages/a.jpg").write_bytes(b"nothing")
    with pytest.raises(DatasetError, match="1 x size that neither annotation nor image has"):
        voc_to_coco(voc, ["train"])


def test_all_problems_of_all_splits_are_reported_at_once(voc):
    (voc / "ImageSets/Main/train.txt").write_text("a\na\nnone\n")
    (voc / "ImageSets/Main/val.txt").write_text("c\nlost\n")
    with pytest.raises(DatasetError) as error:
        voc_to_coco(voc, ["train", "val"])
    message = str(error.value)
    assert "3 problems, so nothing was written" in message
    assert "2 x missing annotation file" in message and "val.txt:2" in message
    assert "1 x name that is in its list twice" in message


def test_missing_files_are_named(voc, tmp_path):
    with pytest.raises(MissingDataError, match=r"ImageSets/Main/test\.txt does not exist"):
        voc_to_coco(voc, ["test"])
    with pytest.raises(MissingDataError, match=r"train\.txt, val\.txt or test\.txt"):
        find_splits(tmp_path)
    (voc / "ImageSets/Main/val.txt").write_text("b\n")
    with pytest.raises(DatasetError, match="there is no object in val"):
        voc_to_coco(voc, ["val"])
