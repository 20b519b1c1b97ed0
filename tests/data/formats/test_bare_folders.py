"""Folders without annotation files: a class or person each, and masks beside images."""

import os

import cv2
import numpy as np
import pytest
from helpers.folders import picture, text
from PIL import Image

from negvision.data.formats.datasets import dataset_configs
from negvision.data.formats.folder import read_folder
from negvision.data.splits.content import complete_splits
from negvision.errors import DatasetError
from negvision.registry import DATASETS


def classes(root, form: str = "{split}/{name}/{number}.jpg", size=(60, 80)) -> None:
    for seed, (split, name) in enumerate((s, n) for s in ("train", "val") for n in ("cat", "dog")):
        for number in range(3):
            name_ = form.format(split=split, name=name, number=number + 3 * (split == "val"))
            picture(root / name_, 10 * seed + number, size)


@pytest.mark.parametrize(
    "form",
    ["{split}/{name}/{number}.jpg", "pets/{split}/{name}/{number}.jpg",
     "{split}/{name}/more/{number}.jpg"],
)  # fmt: skip
def test_a_folder_for_each_class(tmp_path, form):
    classes(tmp_path, form)
    data = read_folder(tmp_path)
    assert (data.task, data.classes) == ("classification", ("cat", "dog"))
    assert {split: len(part) for split, part in data.splits.items()} == {"train": 6, "val": 6}
    assert all(data.classes[i.labels[0]] in i.name for i in data.images)
    configs = dataset_configs(data, tmp_path / "work")
    dataset = DATASETS.build(dict(configs["val"], pipeline=[]))
    assert len(dataset) == 6 and dataset.metainfo["classes"] == ("cat", "dog")
    labels = [dataset.get_data_info(i)["label"] for i in range(6)]
    assert labels == [i.labels[0] for i in data.split("val")]


def test_classes_without_splits_and_with_names_of_splits(tmp_path):
    classes(tmp_path / "a", "{name}/{number}.jpg")
    data = read_folder(tmp_path / "a")
    assert data.splits == {} and len(data.images) == 12
    for name in ("train", "car"):  # vehicles
        picture(tmp_path / "b" / name / "1.jpg", ord(name[0]))
    data = read_folder(tmp_path / "b")
    assert data.classes == ("car", "train") and data.splits == {}


def test_a_folder_for_each_person(tmp_path):
    """People of val are others than those of train."""
    for person in range(6):
        split = "train" if person < 4 else "val"
        for number in range(3):
            picture(tmp_path / split / f"p{person}" / f"{number}.jpg", 10 * person + number)
    data = read_folder(tmp_path)
    assert data.task == "faces" and "no class is in two splits" in data.assumptions[0]
    assert read_folder(tmp_path, task="classification").task == "classification"
    configs = dataset_configs(data, tmp_path / "work")
    train = DATASETS.build(dict(configs["train"], pipeline=[]))
    train.full_init()
    assert (len(train), train.metainfo["num_classes"]) == (12, 4)
    val = DATASETS.build(dict(configs["val"], pipeline=[]))
    val.full_init()
    assert len(val) == 6
    lines = [line.split() for line in open(configs["val"]["ann_file"])]  # noqa: SIM115
    assert [line[2] for line in lines] == ["1"] * 6 + ["0"] * 6
    same = [a.split("/")[1] == b.split("/")[1] for a, b, _ in lines]
    assert same == [True] * 6 + [False] * 6


def test_people_stay_on_one_side(tmp_path):
    for person in range(10):
        for number in range(3):
            picture(tmp_path / f"p{person}" / f"{number}.jpg", 10 * person + number, (112, 112))
    data = read_folder(tmp_path)
    assert data.task == "faces" and "112 x 112" in data.assumptions[0]
    data = complete_splits(data)
    people = [{i.labels for i in data.split(split)} for split in ("train", "val")]
    assert [len(p) for p in people] == [8, 2] and not people[0] & people[1]


def test_one_person_has_no_pairs(tmp_path):
    for name in ("train/a/1.jpg", "train/b/1.jpg", "val/c/1.jpg", "val/c/2.jpg"):
        picture(tmp_path / name, len(name) + ord(name[-5]) + ord(name[-7]))
    with pytest.raises(DatasetError, match="need two people"):
        dataset_configs(read_folder(tmp_path), tmp_path / "work")


def label_image(path, values, mode="L") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((60, 80), np.uint8)
    for place, value in enumerate(values):
        pixels[:, place * 8 : place * 8 + 8] = value
    image = Image.fromarray(pixels)
    if mode == "P":
        image.putpalette(list(range(256)) * 3)
    elif mode != "L":
        image = image.convert(mode)
    image.save(path)


MASKS = {
    "folders": ("images/{}.jpg", "masks/{}.png"),
    "splits inside": ("img/{split}/{}.jpg", "ann/{split}/{}.png"),
    "splits outside": ("{split}/images/{}.jpg", "{split}/masks/{}.png"),
    "VOC's names": ("JPEGImages/{}.jpg", "SegmentationClass/{}.png"),
    "endings": ("imgs/{}.jpg", "gts/{}_mask.png"),
    "one folder": ("{split}/{}.jpg", "{split}/{}_mask.png"),
    "suffix": ("data/{}.jpg", "data/{}.png"),
    "one split": ("train/{}.jpg", "train_masks/{}_mask.png"),
}


@pytest.mark.parametrize("layout", MASKS)
def test_masks(tmp_path, layout):
    image, mask = MASKS[layout]
    for number in range(4):
        split = {"split": "val" if number == 3 else "train"}
        picture(tmp_path / image.format(number, **split), number)
        label_image(tmp_path / mask.format(number, **split), [0, 1, 2, 255])
    text(tmp_path / "classes.txt", "0 road\n1 car\n2 tree\n")
    data = read_folder(tmp_path)
    assert (data.task, data.classes) == ("segmentation", ("road", "car", "tree"))
    assert len(data.images) == 4 and data.images[0].labels == (0, 1, 2)
    if not data.splits or len(data.splits) == 1:
        data = complete_splits(data, val=0.25)
    assert {s: len(p) for s, p in data.splits.items()} == {"train": 3, "val": 1}
    configs = dataset_configs(data, tmp_path / "work")
    dataset = DATASETS.build(dict(configs["train"], pipeline=[]))
    assert len(dataset) == 3 and dataset.metainfo["classes"] == data.classes
    info = dataset.get_data_info(0)
    assert os.path.isfile(info["img_path"]) and os.path.isfile(info["seg_map_path"])
    assert not (tmp_path / "work/masks").exists()  # nothing had to be rewritten


@pytest.mark.parametrize("mode", ["L", "RGB", "P", "1", "jpg", "gif"])
def test_binary_masks(tmp_path, mode):
    suffix = mode if len(mode) == 3 and mode != "RGB" else "png"
    for number in range(4):
        picture(tmp_path / f"images/{number}.jpg", number)
        label_image(
            tmp_path / f"masks/{number}.{suffix}",
            [0, 255, 0, 255],
            "L" if suffix != "png" else mode,
        )
    data = read_folder(tmp_path)
    assert data.classes == ("background", "foreground")
    data = complete_splits(data, val=0.25)
    configs = dataset_configs(data, tmp_path / "work")
    dataset = DATASETS.build(dict(configs["train"], pipeline=[]))
    info = dataset.get_data_info(0)
    labels = np.array(Image.open(info["seg_map_path"]))
    assert sorted(np.unique(labels)) == [0, 1]
    assert labels[:, 9:15].all() and not labels[:, 33:].any()


def test_values_without_names_and_void_classes(tmp_path):
    for number in range(3):
        picture(tmp_path / f"images/{number}.jpg", number)
        label_image(tmp_path / f"masks/{number}.png", [0, 3, 7, 255])
    data = read_folder(tmp_path)
    assert data.classes == ("0", "3", "7")
    assert "no classes.txt names the 3 values" in " ".join(data.assumptions)
    text(tmp_path / "_classes.csv", "Pixel Value,Class\n0,road\n3,car\n7,unlabeled\n")
    data = read_folder(tmp_path)
    assert data.classes == ("road", "car") and data.mask_values.void == {7}
    text(tmp_path / "classes.txt", "0 road\n3 car\n")
    with pytest.raises(DatasetError, match="3 x value of a mask that no class has"):
        read_folder(tmp_path)


def colored(root):
    for number in range(3):
        picture(root / f"masks/{number}.png", number)


def smaller(root):
    label_image(root / "masks/1.png", [0, 1])
    cv2.imwrite(str(root / "masks/1.png"), np.zeros((30, 40), np.uint8))


def damaged(root):
    (root / "masks/1.png").write_bytes((root / "masks/1.png").read_bytes()[:60])


BAD = {
    "colors": (colored, "3 x label image of several channels"),
    "size": (smaller, "1 x image of another size than annotated"),
    "damaged": (damaged, "1 x damaged label image"),
}


@pytest.mark.parametrize("name", BAD)
def test_masks_that_cannot_be_used(tmp_path, name):
    for number in range(3):
        picture(tmp_path / f"images/{number}.jpg", number)
        label_image(tmp_path / f"masks/{number}.png", [0, 1])
    make, says = BAD[name]
    make(tmp_path)
    with pytest.raises(DatasetError, match=says):
        read_folder(tmp_path)
    if name != "colors":
        assert len(read_folder(tmp_path, skip_bad=True).images) == 2


def test_images_of_classes_of_the_same_names_are_no_masks(tmp_path):
    for name in ("cat", "dog"):
        for number in range(3):
            picture(tmp_path / name / f"{number}.png", ord(name[0]) + number)
    assert read_folder(tmp_path).task == "classification"


def test_an_image_without_a_mask_is_counted(tmp_path):
    for number in range(3):
        picture(tmp_path / f"images/{number}.jpg", number)
        label_image(tmp_path / f"masks/{number}.png", [0, 1])
    (tmp_path / "masks/2.png").unlink()
    data = read_folder(tmp_path)
    assert len(data.images) == 2
    assert data.notes.counts["image without a mask, left out"] == 1


def test_images_beside_the_folders_of_classes_are_counted(tmp_path):
    classes(tmp_path)
    picture(tmp_path / "test/1.jpg", 99)
    data = read_folder(tmp_path)
    assert data.task == "classification" and len(data.images) == 12
    assert data.notes.counts["image outside of the folders of classes, left out"] == 1
