"""Folders of boxes in every format, in several variants: the same content is read from all."""

import json
import posixpath

import cv2
import numpy as np
import pytest
from helpers import folders
from helpers.folders import CLASSES, OBJECTS, SPLITS, picture, pictures, text
from PIL import Image

from negvision.data.formats.folder import read_folder
from negvision.data.images.decoding import decode_image
from negvision.errors import DatasetError, MissingDataError


def stem(name: str) -> str:
    return posixpath.splitext(posixpath.basename(name))[0][-1]


def objects(data) -> dict:
    """Image -> class names and boxes."""
    return {
        stem(image.name): sorted(
            (data.classes[item.label], tuple(round(v, 3) for v in item.box))
            for item in image.instances
        )
        for image in data.images
    }


EXPECTED = {
    name: sorted((CLASSES[label], tuple(map(float, box))) for label, box in items)
    for name, items in OBJECTS.items()
}


def assert_is_the_set(data, splits=True, background=True) -> None:
    found = objects(data)
    if not background:
        found.setdefault("e", [])
    assert found == EXPECTED
    assert sorted(data.classes) == list(CLASSES) and data.task == "detection"
    if splits:
        read = {split: {stem(image.name) for image in data.split(split)} for split in data.splits}
        assert read == {s: set(names) - ({"e"} if not background else set())
                        for s, names in SPLITS.items()}  # fmt: skip
    else:
        assert data.splits == {}


MACHINE = "path: /home/me/datasets/pets\n"
ROBOFLOW = "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n"
YOLO = {
    "ultralytics": {},
    "no data.yaml": {"config": None},
    "images beside labels": {"images": "{split}/images/{name}.jpg",
                             "labels": "{split}/labels/{name}.txt", "config": None},
    "mixed": {"images": "{split}/{name}.jpg", "labels": "{split}/{name}.txt", "config": None},
    "labels of a flat folder": {"labels": "labels/{name}.txt"},
    "another machine": {"config": MACHINE + "train: images/train\nval: images/val\n"
                                            "test: images/test\n"},
    "absolute": {"config": "".join(f"{s}: C:\\data\\images\\{s}\n" for s in SPLITS)},
    "lists of folders": {"config": "train: [images/train]\nval: [images/val]\n"
                                   "test: [images/test]\n"},
    "polygons": {"shape": "polygon"},
    "oriented": {"shape": "quad"},
    "capital suffix": {"images": "images/{split}/{name}.JPG"},
}  # fmt: skip


@pytest.mark.parametrize("variant", YOLO)
def test_yolo(tmp_path, variant):
    data = read_folder(folders.yolo(tmp_path, **YOLO[variant]))
    if data.classes == ("0", "1"):  # no data.yaml names them
        assert "ids are names" in " ".join(data.assumptions)
        data.classes = CLASSES
    assert_is_the_set(data)
    assert data.format == "YOLO" and data.counts()[0] == ("train", 3, 1, 3, 0)
    assert data.has_masks == (variant == "polygons")
    assert data.notes.counts["image without a label file, kept as background"] == 1
    oriented = "oriented box, kept as the upright box around it"
    assert data.notes.counts[oriented] == (5 if variant == "oriented" else 0)
    moved = any("is not here" in line for line in data.assumptions)
    assert moved == (variant in ("another machine", "absolute"))


def test_roboflows_yolo(tmp_path):
    """Its data.yaml lies in the folder of the splits, but its paths lead out of it."""
    for name in OBJECTS:
        split = {"val": "valid"}.get(folders.split_of(name), folders.split_of(name))
        picture(tmp_path / split / "images" / f"{name}.jpg", ord(name))
        text(tmp_path / split / "labels" / f"{name}.txt", folders.yolo_rows(name))
    text(tmp_path / "data.yaml", f"{ROBOFLOW}nc: 2\nnames: ['cat', 'dog']\n")
    text(tmp_path / "README.dataset.txt", "1 2 3 4 5 pets, exported by hand")
    data = read_folder(tmp_path)
    assert_is_the_set(data)
    assert not data.notes
    assert_is_the_set(read_folder(tmp_path / "data.yaml"))


def test_darknet_with_lists(tmp_path):
    folders.yolo(tmp_path, "obj/{name}.jpg", "obj/{name}.txt", config=None)
    text(tmp_path / "obj.names", "cat\ndog\n")
    for split, names in SPLITS.items():
        text(tmp_path / f"{split}.txt", "".join(f"data/obj/{name}.jpg\n" for name in names))
    assert_is_the_set(read_folder(tmp_path))


def test_one_folder_has_no_splits(tmp_path):
    folders.yolo(tmp_path, "images/{name}.jpg", "labels/{name}.txt", config="")
    assert_is_the_set(read_folder(tmp_path), splits=False)


def test_data_yaml_elsewhere_is_followed_if_it_is_named(tmp_path):
    root = folders.yolo(tmp_path / "pets", config=None)
    for path in (root, "pets"):
        config = f"path: {path}\ntrain: images/train\nval: images/val\ntest: images/test\n"
        text(tmp_path / "yaml/my.yaml" if path == root else tmp_path / "my.yaml",
             config + "names: {0: cat, 1: dog}\n")  # fmt: skip
    for path in ("yaml/my.yaml", "my.yaml"):
        data = read_folder(tmp_path / path)
        assert_is_the_set(data)
        assert data.root.resolve() == root.resolve()


def test_rows_with_confidences_and_keypoints(tmp_path):
    folders.yolo(tmp_path)
    label = tmp_path / "labels/val/c.txt"
    label.write_text(label.read_text().strip() + " 0.87\n")
    data = read_folder(tmp_path)
    assert_is_the_set(data)
    assert data.notes.counts["confidence of a box, left out"] == 1
    for path in (tmp_path / "labels").rglob("*.txt"):
        rows = path.read_text().splitlines()
        rows = [" ".join(row.split()[:5]) + " 0.5 0.5 2 0.1 0.1 0" for row in rows]
        path.write_text("\n".join(rows))
    config = (tmp_path / "data.yaml").read_text()
    text(tmp_path / "data.yaml", f"{config}kpt_shape: [2, 3]\n")
    data = read_folder(tmp_path)
    assert_is_the_set(data)
    assert data.notes.counts["keypoints of an object, left out: its box is kept"] == 5


def coco(root, form, files):
    pictures(root, form)
    for file, names in files.items():
        text(root / file, folders.coco_content(names, "{name}.jpg"))
    return root


def test_coco_files_of_splits(tmp_path):
    files = {f"annotations/instances_{split}2017.json": n for split, n in SPLITS.items()}
    data = read_folder(coco(tmp_path, "{split}2017/{name}.jpg", files))
    assert_is_the_set(data)
    assert data.format == "COCO"
    # Captions and a second opinion on the same images are other files of the split.
    text(tmp_path / "annotations/instances_train2017_v2.json", folders.coco_content("a"))
    captions = {"images": [], "annotations": [{"id": 1, "image_id": 0, "caption": "A cat."}]}
    text(tmp_path / "annotations/captions_train2017.json", captions)
    data = read_folder(tmp_path)
    assert_is_the_set(data)
    assert data.notes.counts["annotation file of images that another has, left out"] == 1


@pytest.mark.parametrize("form", ["{name}.jpg", "images/{name}.jpg", "a/b/{name}.jpg"])
def test_one_coco_file(tmp_path, form):
    data = read_folder(coco(tmp_path, form, {"annotations.json": OBJECTS}))
    assert_is_the_set(data, splits=False)
    assert_is_the_set(read_folder(tmp_path / "annotations.json"), splits=False)


def test_file_in_a_folder_of_its_own(tmp_path):
    coco(tmp_path, "images/{name}.jpg", {"annotations/all.json": OBJECTS})
    assert_is_the_set(read_folder(tmp_path / "annotations/all.json"), splits=False)


@pytest.mark.parametrize("parent", ["pets", "cat"])
def test_roboflows_coco(tmp_path, parent):
    """Each split has its file, and a parent category that no box uses."""
    for split, names in SPLITS.items():
        folder = tmp_path / {"val": "valid"}.get(split, split)
        content = folders.coco_content(names)
        parents = [{"id": 0, "name": parent, "supercategory": "none"}]
        children = [{**c, "supercategory": parent} for c in content["categories"]]
        content["categories"] = parents + children
        text(folder / "_annotations.coco.json", content)
        for name in names:
            picture(folder / f"{name}.jpg", ord(name))
    data = read_folder(tmp_path)
    assert_is_the_set(data)
    assert data.notes.counts["parent category that no box uses, left out"] == 3


def test_coco_files_with_other_classes_are_left_out(tmp_path):
    """Unknowns of an evaluation lie beside the test set."""
    files = {"train_id.json": "abe", "test_id.json": "c", "test_ood.json": "d"}
    coco(tmp_path, "images/{name}.jpg", files)
    content = folders.coco_content("d")
    content["categories"] = [{"id": 2, "name": "bird"}]
    text(tmp_path / "test_ood.json", content)
    data = read_folder(tmp_path)
    assert data.classes == CLASSES and [len(data.splits[s]) for s in data.splits] == [3, 1]
    assert data.notes.counts["annotation file with other classes, left out"] == 1


def test_masks_crowds_and_areas_of_coco(tmp_path):
    root = coco(tmp_path, "{name}.jpg", {"a.json": OBJECTS})
    content = json.loads((root / "a.json").read_text())
    first, second, third = content["annotations"][:3]
    first["segmentation"] = [[10, 20, 40, 20, 40, 30], [1, 1]]
    second |= {"iscrowd": 1, "segmentation": {"size": [60, 80], "counts": [0, 12, 4788]}}
    third |= {"ignore": 1, "keypoints": [1, 2, 2]}
    text(root / "a.json", content)
    data = read_folder(root)
    a, b = data.images[0].instances, data.images[1].instances
    assert a[0].polygons == [[10, 20, 40, 20, 40, 30]] and a[0].area == 1
    assert (a[1].ignore, a[1].rle["counts"], b[0].ignore) == (True, [0, 12, 4788], True)
    assert data.counts() == [("", 5, 2, 3, 2)]
    assert data.notes.counts["keypoints of an object, left out: its box is kept"] == 1
    assert data.notes.counts["part of an outline with too few points, left out"] == 1


@pytest.mark.parametrize("annotations", ["Annotations", "annotations", "annots"])
@pytest.mark.parametrize("lists", [True, False])
def test_voc(tmp_path, annotations, lists):
    data = read_folder(folders.voc(tmp_path, annotations, lists))
    assert_is_the_set(data, splits=lists)
    assert data.format == "Pascal VOC" and not data.notes


def test_voc_beside_its_images(tmp_path):
    for name in OBJECTS:
        folder = tmp_path / folders.split_of(name)
        picture(folder / f"{name}.jpg", ord(name))
        text(folder / f"{name}.xml", folders.voc_xml(name))
    assert_is_the_set(read_folder(tmp_path))


def test_voc_that_counts_from_zero(tmp_path):
    data = read_folder(folders.voc(tmp_path, first=0))
    assert_is_the_set(data)
    assert "1 boxes begin at 0" in data.assumptions[0]


def test_cvat(tmp_path):
    runs = '<mask label="dog" rle="2, 3, 5" left="4" top="2" width="5" height="2"/>'
    polygon = '<polygon label="cat" points="1.5,2;11.5,2;1.5,12"/>'
    others = '<polyline label="cat" points="1,2;3,4"/><tag label="dog"/>'
    turned = '<box label="cat" xtl="20" ytl="20" xbr="40" ybr="30" rotation="90"/>'
    data = read_folder(folders.cvat(tmp_path))
    assert_is_the_set(data)
    assert data.format == "CVAT for images" and not data.notes
    data = read_folder(folders.cvat(tmp_path, runs + polygon + others + turned))
    items = next(i for i in data.images if i.name.endswith("b.jpg")).instances
    assert [round(v) for v in items[3].box] == [25, 15, 10, 20]
    assert items[2].polygons == [[1.5, 2, 11.5, 2, 1.5, 12]] and items[1].area == 3
    assert items[1].box == (4, 2, 5, 2)
    assert data.notes.counts.total() == 3


@pytest.mark.parametrize("minimal", [False, True])
@pytest.mark.parametrize(
    "address", ["/data/upload/1/{}", "s3://bucket/x/{}", "/data/local-files/?d=images/{}"]
)
def test_label_studio(tmp_path, minimal, address):
    data = read_folder(folders.label_studio(tmp_path, minimal, address))
    assert_is_the_set(data, splits=False)
    assert data.format == "Label Studio"


def test_regions_of_label_studio(tmp_path):
    root = folders.label_studio(tmp_path)
    tasks = json.loads((root / "project.json").read_text())
    points = [[10, 10], [50, 10], [10, 50]]
    tasks[4]["annotations"][0]["result"] = [
        {"type": "polygonlabels", "value": {"points": points, "polygonlabels": ["cat"]}},
        # <Rectangle> with <Labels>: two results with one id.
        {"type": "rectangle", "id": "7", "value": folders.studio_value((8, 6, 16, 12))},
        {"type": "labels", "id": "7",
         "value": {**folders.studio_value((8, 6, 16, 12)), "labels": ["dog"]}},
        {"type": "rectanglelabels", "value": {**folders.studio_value((40, 30, 20, 10)),
                                              "rotation": 90, "rectanglelabels": ["dog"]}},
        {"type": "choices", "value": {"choices": ["sharp"]}},
        {"type": "brushlabels", "value": {"rle": [1, 2], "brushlabels": ["cat"]}},
    ]  # fmt: skip
    tasks[3]["annotations"] = []
    text(root / "project.json", tasks)
    data = read_folder(root)
    items = next(i for i in data.images if i.name.endswith("e.jpg")).instances
    assert len(items) == 3
    assert items[0].polygons == [[8, 6, 40, 6, 8, 30]]
    assert items[1].box == pytest.approx((8, 6, 16, 12)) and items[1].label == 1
    assert items[2].box == pytest.approx((30, 30, 10, 20))
    assert data.notes.counts["task without an annotation, left out"] == 1
    assert data.notes.counts["oriented box, kept as the upright box around it"] == 1


@pytest.mark.parametrize("form", ["{split}/{name}", "{name}"])
def test_labelme(tmp_path, form):
    data = read_folder(folders.labelme(tmp_path, form))
    assert_is_the_set(data, splits="split" in form)
    assert data.format == "LabelMe"


def test_shapes_of_labelme(tmp_path):
    root = folders.labelme(tmp_path, "{name}")
    mask = cv2.imencode(".png", np.array([[0, 255], [255, 255]], np.uint8))[1].tobytes()
    import base64

    shape = {"label": "cat", "shape_type": "polygon", "group_id": 1}
    shapes = [
        {**shape, "points": [[0, 0], [8, 0], [0, 8]]},
        {**shape, "points": [[20, 20], [30, 20], [20, 30]]},
        {**shape, "shape_type": "circle", "group_id": None, "points": [[40, 30], [40, 40]]},
        {**shape, "shape_type": "line", "points": [[1, 1], [2, 2]]},
        {**shape, "shape_type": "mask", "points": [[3, 4], [5, 6]],
         "mask": base64.b64encode(mask).decode()},
    ]  # fmt: skip
    content = {"shapes": shapes, "imagePath": "e.jpg", "imageHeight": 60, "imageWidth": 80}
    text(root / "e.json", content)
    data = read_folder(root)
    circle, masked, grouped = data.images[4].instances
    assert grouped.box == (0, 0, 30, 30) and len(grouped.polygons) == 2
    assert circle.box == (30, 20, 20, 20) and masked.rle["size"] == [60, 80]
    assert data.notes.counts.total() == 2


CORNERS = "{split}/{name}.jpg,{x},{y},{r},{b},{label}"
TABLES = {
    "keras": ("", CORNERS),
    "tensorflow": ("filename,width,height,class,xmin,ymin,xmax,ymax",
                   "{name}.jpg,80,60,{label},{x},{y},{r},{b}"),
    "sides": ("label;image;x;y;w;h", "{label};{name}.jpg;{x};{y};{w};{h}"),
    "list": ("image_id,width,height,bbox,class", '{name},80,60,"[{x}, {y}, {w}, {h}]",{label}'),
    "fractions": ("ImageID,Source,LabelName,XMin,XMax,YMin,YMax",
                  "{name},xclick,{label},{X},{R},{Y},{B}"),
    "split": ("img_path,x1,y1,x2,y2,class_name,split", "C:\\a\\" + CORNERS + ",{split}"),
}  # fmt: skip


@pytest.mark.parametrize("variant", TABLES)
def test_csv(tmp_path, variant):
    data = read_folder(folders.table(tmp_path, *TABLES[variant]))
    assert_is_the_set(data, background=False)
    (note,) = data.notes.counts
    assert note.startswith("image in no row")
    if variant == "keras":
        path = tmp_path / "boxes.csv"
        path.write_text(path.read_text() + "train/e.jpg,,,,,\n")
        assert_is_the_set(read_folder(tmp_path))


# What is wrong, and what the message says.


def change(path, old, new):
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def without_images(root):
    folders.yolo(root)
    for path in root.rglob("*.jpg"):
        path.unlink()


def without_labels(root):
    folders.yolo(root)
    for path in (root / "labels").rglob("*.txt"):
        path.unlink()


def one_stem(root):
    folders.yolo(root)
    picture(root / "images/train/a.png", 9)


def beyond_names(root):
    folders.yolo(root)
    change(root / "data.yaml", "[cat, dog]", "[cat]")


def box_outside(root):
    folders.yolo(root)
    (root / "labels/val/c.txt").write_text("0 1.4 0.5 0.2 0.2\n")


def in_pixels(root):
    folders.yolo(root)
    (root / "labels/val/c.txt").write_text("0 40 30 20 10\n")


def another_machine(root):
    folders.yolo(root)
    (root / "data.yaml").write_text("path: D:/me\ntrain: a/one\nval: a/two\nnames: [cat, dog]\n")


def val_elsewhere(root):
    folders.yolo(root, config="train: images/train\nval: /data/v\n")


def phone_images(root):
    (root / "a.heic").write_bytes(b"")


def empty_tables(root):
    folders.table(root, *TABLES["keras"])
    (root / "boxes.csv").write_text("")


def masks_of_one_stem(root):
    pictures(root)
    for name in OBJECTS:
        (root / "masks").mkdir(exist_ok=True)
        cv2.imwrite(str(root / f"masks/{name}.png"), np.eye(60, 80, dtype=np.uint8))
    picture(root / "images/a.webp", 9)


def two_formats(root):
    folders.yolo(root)
    text(root / "train.json", folders.coco_content("abe", "images/train/{name}.jpg"))


def cut_json(root):
    coco(root, "{name}.jpg", {"a.json": OBJECTS})
    path = root / "a.json"
    path.write_text(path.read_text()[:200])


def swapped_corners(root):
    folders.voc(root)
    change(root / "Annotations/c.xml", "<xmax>80</xmax>", "<xmax>3</xmax>")


def other_size(root):
    folders.voc(root)
    change(root / "Annotations/c.xml", "<width>80</width>", "<width>90</width>")


def lost_image(root):
    folders.labelme(root)
    (root / "train/a.jpg").unlink()


def damaged_image(root):
    folders.cvat(root)
    (root / "images/a.jpg").write_bytes(b"not an image")


def ambiguous(root):
    folders.table(root, *TABLES["tensorflow"], images="{split}/{name}.jpg")
    picture(root / "test/a.jpg", 7)


def word_in_csv(root):
    folders.table(root, *TABLES["sides"])
    change(root / "boxes.csv", "40;30;40;30", "40;thirty;40;30")


def repeated_name(root):
    folders.yolo(root)
    change(root / "data.yaml", "[cat, dog]", "[cat, cat]")


BAD = {
    "empty": (lambda root: None, ["no image is in it", "Name the folder"]),
    "unreadable images": (phone_images, ["no image is in it", "but 1 .heic. Name the folder"]),
    "empty annotations": (empty_tables, ["5 images, but no annotations", "format in boxes.csv"]),
    "only images": (pictures, ["5 images, but no annotations", "labels/1.txt for images/1.jpg"]),
    "labels without images": (without_images, ["4 x label file without an image", "a.txt",
                                               "Put the images beside"]),
    "images without labels": (without_labels, ["5 images and no object", "5 x image without a",
                                               "Put the annotations of these images into"]),
    "two images of one stem": (one_stem, ["1 x label file of several images of one stem",
                                          "train/a.jpg", "train/a.png", "rename"]),
    "class ids beyond names": (beyond_names, ["3 x class id that is none of the 1 names",
                                              "a.txt:2: 1", "names of data.yaml"]),
    "box outside": (box_outside, ["1 x box outside its image of 80 x 60", "c.txt:1"]),
    "pixels": (in_pixels, ["1 x coordinate that is no fraction", "c.txt:1", "divided by"]),
    "another machine": (another_machine, ["split of data.yaml whose images are not here",
                                          "D:/me/a/one", "correct its path"]),
    "val elsewhere": (val_elsewhere, ["1 x split of data.yaml whose", "/data/v", "without val"]),
    "masks of one stem": (masks_of_one_stem, ["2 x image whose mask has another", "rename"]),
    "two formats": (two_formats, ["annotations in 2 formats", "--format yolo", "--format coco",
                                  "train.json"]),
    "truncated": (cut_json, ["a.json: the annotation file is not JSON", "may be truncated"]),
    "swapped corners": (swapped_corners, ["1 x box of negative size", "c.xml: object 1"]),
    "another size": (other_size, ["1 x image of another size than annotated", "c.jpg is 80 x 60",
                                  "90 x 60"]),
    "lost image": (lost_image, ["1 x missing image file", "a.json"]),
    "damaged image": (damaged_image, ["1 x image that cannot be read", "a.jpg: not an image"]),
    "ambiguous": (ambiguous, ["2 x name that several images have", "boxes.csv:2", "test/a.jpg"]),
    "word": (word_in_csv, ["1 x box that is not four numbers", "boxes.csv:5", "thirty"]),
    "repeated name": (repeated_name, ["repeated class", "data.yaml", "cat"]),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_named_with_what_to_do(tmp_path, name):
    make, says = BAD[name]
    make(tmp_path)
    with pytest.raises(DatasetError) as error:
        read_folder(tmp_path)
    message = str(error.value)
    assert [part for part in says if part not in message] == [], message
    assert str(tmp_path) in message
    # There must be something to leave out, and something to keep.
    assert ("--skip-bad" in message) <= (" in 0 images" not in message)


def test_what_is_bad_can_be_left_out(tmp_path):
    box_outside(tmp_path)
    data = read_folder(tmp_path, skip_bad=True)
    assert objects(data) == {**EXPECTED, "c": []}
    assert data.notes.counts["left out: box outside its image of 80 x 60"] == 1
    assert "c.txt:1" in data.notes.report()


def test_masks_beside_boxes_are_mentioned(tmp_path):
    masks_of_one_stem(tmp_path)
    (tmp_path / "images/a.webp").unlink()
    for name in OBJECTS:
        text(tmp_path / "labels" / f"{name}.txt", folders.yolo_rows(name))
    assert any("5 masks, such as" in line for line in read_folder(tmp_path).assumptions)
    assert read_folder(tmp_path, format="masks").task == "segmentation"


def test_a_format_can_be_named(tmp_path):
    two_formats(tmp_path)
    assert_is_the_set(read_folder(tmp_path, format="yolo"))
    assert read_folder(tmp_path / "train.json").format == "COCO"
    with pytest.raises(DatasetError, match="nothing of the format Pascal VOC"):
        read_folder(tmp_path, format="voc")


def test_missing_folders_and_other_files(tmp_path):
    with pytest.raises(MissingDataError, match="nowhere does not exist"):
        read_folder(tmp_path / "nowhere")
    with pytest.raises(DatasetError, match="not a file that describes"):
        read_folder(picture(tmp_path / "a.jpg", 0))


def test_boxes_are_clipped_to_their_image(tmp_path):
    folders.yolo(tmp_path)
    (tmp_path / "labels/val/c.txt").write_text("0 0.9 0.5 0.4 0.2\n")
    data = read_folder(tmp_path)
    assert objects(data)["c"] == [("cat", (56, 24, 24, 12))]
    assert data.notes.counts["box clipped that reaches beyond its image"] == 1


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_are_where_the_image_is_shown(tmp_path, orientation, suffix):
    """A box marks the same pixels, whether the tool measured them as stored or as shown."""
    pixels = np.zeros((60, 80), np.uint8)
    pixels[10:20, 30:70] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a{suffix}"
    Image.fromarray(pixels).convert("RGB").save(path, exif=exif, quality=100)
    shown = decode_image(path.read_bytes(), "a", "grayscale")
    content = {
        "images": [{"id": 1, "file_name": path.name, "width": 80, "height": 60}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [30, 10, 40, 10]}],
        "categories": [{"id": 1, "name": "bar"}],
    }
    text(tmp_path / "a.json", content)
    (image,) = read_folder(tmp_path).images
    assert (image.height, image.width) == shown.shape
    if orientation > 4:  # the sizes tell that the tool measured as stored
        x, y, w, h = map(int, image.instances[0].box)
        inside = np.zeros_like(shown, bool)
        inside[y : y + h, x : x + w] = True
        assert np.array_equal(inside, shown > 127)


def test_links_are_followed_once(tmp_path):
    root = folders.yolo(tmp_path / "real")
    (root / "images/train/loop").symlink_to(root)
    (tmp_path / "set").mkdir()
    for name in ("images", "labels", "data.yaml"):
        (tmp_path / "set" / name).symlink_to(root / name)
    assert_is_the_set(read_folder(tmp_path / "set"))


def test_nothing_outside_the_folder_is_read(tmp_path):
    picture(tmp_path / "secret.jpg", 1)
    coco(tmp_path / "set", "{name}.jpg", {"a.json": OBJECTS})
    content = json.loads((tmp_path / "set/a.json").read_text())
    for name in ("../secret.jpg", str(tmp_path / "secret.jpg"), "..\\secret.jpg"):
        content["images"][0]["file_name"] = name
        text(tmp_path / "set/a.json", content)
        with pytest.raises(DatasetError, match="1 x missing image file"):
            read_folder(tmp_path / "set")


def test_voc_devkit_of_two_years(tmp_path):
    """Names may repeat; lists of classes, layouts and segmentation are other tasks."""
    for year in ("VOC2007", "VOC2012"):
        folders.voc(tmp_path / "VOCdevkit" / year)
        for name in ("Main/cat_train.txt", "Segmentation/train.txt", "Layout/val.txt"):
            text(tmp_path / "VOCdevkit" / year / "ImageSets" / name, "a  1\n")
        text(tmp_path / "VOCdevkit" / year / "ImageSets/Main/trainval.txt", "a\nb\nc\ne\n")
    data = read_folder(tmp_path)
    assert {s: len(p) for s, p in data.splits.items()} == {"train": 6, "val": 2, "test": 2}
    assert not data.notes


def test_batches_of_coco_files_are_joined(tmp_path):
    files = {"batch1.json": "ab", "batch2.json": "cde"}
    coco(tmp_path, "images/{name}.jpg", files)
    content = json.loads((tmp_path / "batch2.json").read_text())
    content["categories"].append({"id": 9, "name": "bird"})
    content["annotations"][0]["category_id"] = 9
    text(tmp_path / "batch2.json", content)
    text(tmp_path / "image_info.json", {**content, "annotations": []})
    data = read_folder(tmp_path)
    assert len(data.images) == 5 and data.classes == (*CLASSES, "bird")
    assert data.images[2].instances[0].label == 2


def test_files_with_windows_line_ends_and_byte_order_marks(tmp_path):
    root = folders.yolo(tmp_path, config=None)
    (root / "labels/classes.txt").write_bytes(b"\xef\xbb\xbfcat\r\ndog\r\n")
    for path in (root / "labels").rglob("*.txt"):
        rows = path.read_text(encoding="utf-8-sig").splitlines()
        path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(r.replace(" ", "\t") for r in rows).encode())
    assert_is_the_set(read_folder(root))


def test_names_in_other_spellings_and_stray_files(tmp_path):
    """Percent signs, accents in two characters, and what systems leave between the images."""
    root = coco(tmp_path, "{name}.jpg", {"a.json": OBJECTS})
    for old, new in (("a", "caf\u00e9"), ("b", "b 1")):
        (root / f"{old}.jpg").rename(root / f"{new}.jpg")
    content = json.loads((root / "a.json").read_text())
    content["images"][0]["file_name"] = "cafe\u0301.jpg"
    content["images"][1]["file_name"] = "b%201.jpg"
    content["categories"][0]["name"] = "ca\u0301t"
    text(root / "a.json", content)
    text(root / "__MACOSX/._a.json", "{}")
    picture(root / ".ipynb_checkpoints/a.jpg", 0)
    for name in ("._a.jpg", "photo.heic", "labels.cache"):
        (root / name).write_bytes(b"")
    data = read_folder(root)
    assert len(data.images) == 5 and data.classes == ("c\u00e1t", "dog")
    kinds = ("hidden", ".heic", ".cache")
    assert data.notes.counts == {f"file passed over: {kind}": 1 for kind in kinds}


def test_one_folder_for_train_and_val_is_no_split(tmp_path):
    config = "path: ../datasets/pets\ntrain: images/train\nval: images/train\n"
    data = read_folder(folders.yolo(tmp_path, config=config))
    assert list(data.splits) == ["train"] and len(data.splits["train"]) == 3
    assert "train and val of data.yaml are the same images: no split" in data.assumptions


@pytest.mark.parametrize("first", ["broken.json", "data.yaml"])
def test_a_damaged_file_is_not_passed_over(tmp_path, first):
    if first == "data.yaml":
        folders.yolo(tmp_path)
        text(tmp_path / "data.yaml", "names: [cat, dog\ntrain: x")
    else:
        folders.labelme(tmp_path)
        text(tmp_path / "broken.json", '{"shapes": [')
    with pytest.raises(DatasetError, match="1 x annotation file that cannot be read") as error:
        read_folder(tmp_path)
    assert str(tmp_path / first) in str(error.value)
