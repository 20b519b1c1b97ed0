"""Reading Pascal VOC's XML files."""

import xml.etree.ElementTree as ET

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from negvision.data.formats.folder import read_folder
from negvision.data.formats.xml_file import parse_xml
from negvision.errors import DatasetError

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


def boxes(data, split="train"):
    return [item.box for image in data.split(split) for item in image.instances]


def test_a_set_with_lists(voc):
    data = read_folder(voc)
    assert list(data.splits) == ["train", "val"]
    assert [i.name for i in data.split("train")] == ["JPEGImages/a.jpg", "JPEGImages/b.jpg"]
    assert data.classes == ("ant", "cat")
    cat, ant = data.images[0].instances
    # Pixels 10 ... 30 and 20 ... 60 counted from 1.
    assert cat.box == (9, 19, 21, 41) and (cat.label, cat.ignore) == (1, False)
    assert (ant.label, ant.ignore) == (0, True)


whole = st.integers(1, 500)


@settings(max_examples=30, deadline=None)
@given(left=whole, top=whole, right=whole, bottom=whole, zero_based=st.booleans())
def test_boxes_cover_the_annotated_pixels(tmp_path_factory, left, top, right, bottom, zero_based):
    right, bottom = left + right, top + bottom
    corners = {"xmin": left, "ymin": top, "xmax": right, "ymax": bottom}
    root = tmp_path_factory.getbasetemp() / "one"
    root.mkdir(exist_ok=True)
    if not (root / "a.png").exists():
        cv2.imwrite(str(root / "a.png"), np.zeros((1001, 1001), np.uint8))
    (root / "a.xml").write_text(voc_xml([{"name": "x", **corners}], size=None))
    (image,) = read_folder(root, zero_based=zero_based).images
    x, y, w, h = image.instances[0].box
    shown = np.zeros((1001, 1001), bool)
    shown[int(y) : int(y + h), int(x) : int(x + w)] = True
    # The oracle counts pixels as the two conventions are worded.
    first, beyond = (0, 0) if zero_based else (1, 1)
    expected = np.zeros_like(shown)
    expected[top - first : bottom - first + beyond, left - first : right - first + beyond] = True
    assert np.array_equal(shown, expected)


def _message(voc, name: str, text: str) -> str:
    (voc / "Annotations" / f"{name}.xml").write_text(text)
    with pytest.raises(DatasetError) as error:
        read_folder(voc)
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


def test_a_zero_shows_that_a_tool_counts_from_zero(voc):
    (voc / "Annotations/a.xml").write_text(voc_xml([{"name": "x", **BOX, "xmin": 0}]))
    data = read_folder(voc)
    assert boxes(data) == [(0, 20, 30, 40)] and boxes(data, "val") == [(10, 20, 20, 40)]
    assert "1 boxes begin at 0" in data.assumptions[0]


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
    for line in ("../../../secret", str(tmp_path / "secret"), "a\\..\\..\\..\\..\\secret"):
        (voc / "ImageSets/Main/train.txt").write_text(f"a\n{line}\n")
        with pytest.raises(DatasetError, match="1 x missing annotation file"):
            read_folder(voc)
    # `filename` is looked up among the images alone.
    (voc / "ImageSets/Main/train.txt").write_text("a\n")
    (voc / "Annotations/a.xml").write_text(voc_xml([{"name": "x", **BOX}], "../../b.jpg"))
    assert read_folder(voc).images[0].name == "JPEGImages/a.jpg"


def test_an_image_is_found_by_its_annotations_name_or_filename(voc):
    images = voc / "JPEGImages"
    (images / "a.jpg").rename(images / "photo 1.JPG")
    (voc / "Annotations/a.xml").write_text(voc_xml([{"name": "x", **BOX}], r"C:\me\photo 1.JPG"))
    assert "JPEGImages/photo 1.JPG" in {i.name for i in read_folder(voc).images}
    (images / "photo 1.JPG").unlink()
    with pytest.raises(DatasetError, match="1 x missing image file"):
        read_folder(voc)
    for suffix in (".png", ".bmp"):
        cv2.imwrite(str(images / f"a{suffix}"), np.zeros((64, 80, 3), np.uint8))
    with pytest.raises(DatasetError, match="1 x name that several images have"):
        read_folder(voc)
    (voc / "Annotations/a.xml").write_text(voc_xml([{"name": "x", **BOX}], "a.bmp"))
    assert "JPEGImages/a.bmp" in {i.name for i in read_folder(voc).images}


@pytest.mark.parametrize("size", [None, (0, 0), ("x", 80)])
def test_a_missing_size_is_read_from_the_image(voc, size):
    (voc / "Annotations/a.xml").write_text(voc_xml([{"name": "x", **BOX}], size=size))
    image = read_folder(voc).images[0]
    assert (image.width, image.height) == (80, 64)
    (voc / "JPEGImages/a.jpg").write_bytes(b"nothing")
    with pytest.raises(DatasetError, match="1 x image that cannot be read"):
        read_folder(voc)


def test_all_problems_of_all_splits_are_reported_at_once(voc):
    (voc / "ImageSets/Main/train.txt").write_text("a\na\nnone\n")
    (voc / "ImageSets/Main/val.txt").write_text("c\nlost\n")
    with pytest.raises(DatasetError) as error:
        read_folder(voc)
    message = str(error.value)
    assert "3 problems" in message
    assert "2 x missing annotation file" in message and "val.txt:2" in message
    assert "1 x name that is in its list twice" in message


def test_oriented_boxes_and_outlines(voc):
    turned = "<robndbox><cx>40</cx><cy>30</cy><w>20</w><h>10</h>"
    turned += "<angle>1.5707963</angle></robndbox>"
    points = enumerate([(11, 21), (30, 21), (11, 60)], 1)
    outline = "".join(f"<x{i}>{x}</x{i}><y{i}>{y}</y{i}>" for i, (x, y) in points)
    outline = f"<polygon>{outline}</polygon>"
    text = voc_xml([{"name": "cat", **BOX}]).replace("</bndbox>", f"</bndbox>{outline}")
    text = text.replace("</annotation>", f"<object><name>cat</name>{turned}</object></annotation>")
    (voc / "Annotations/a.xml").write_text(text)
    flat, upright = read_folder(voc).images[0].instances
    assert flat.polygons == [[10, 20, 29, 20, 10, 59]]
    assert [round(v) for v in upright.box] == [34, 19, 11, 21]


def test_images_that_no_list_names_are_left_out(voc):
    (voc / "ImageSets/Main/val.txt").unlink()
    data = read_folder(voc)
    assert [i.name for i in data.images] == ["JPEGImages/a.jpg", "JPEGImages/b.jpg"]
    assert data.notes.counts["image in no split, left out"] == 1
    # Lists of single classes are no splits.
    (voc / "ImageSets/Main/cat_val.txt").write_text("c 1\n")
    assert list(read_folder(voc).splits) == ["train"]
