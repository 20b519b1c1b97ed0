"""Masks and crops of the digits compared with the images and annotations."""

import itertools
import json

import cv2
import numpy as np
import pytest
from pycocotools import mask as mask_api

from negvision.toy import digits as module
from negvision.toy.digits import class_mask, cut_digits, ensure_digits
from negvision.toy.scene import SceneObject

KNOWN = [0, 1, 2, 3, 4, 5, 6, 8]
NAMES = ["zero", "one", "two", "three", "four", "five", "six", "eight"]


def load(root, split: str) -> list[tuple[str, list[dict]]]:
    """Stem and annotations of each picture."""
    content = json.loads((root / "annotations" / f"instances_{split}.json").read_text())
    by_image = {image["id"]: (image["file_name"][:-4], []) for image in content["images"]}
    for annotation in content["annotations"]:
        by_image[annotation["image_id"]][1].append(annotation)
    return list(by_image.values())


def read_pack(path) -> tuple[list[np.ndarray], list[int], list[str]]:
    with np.load(path) as pack:
        data, offsets, labels, classes = (pack[k] for k in ("data", "offsets", "labels", "classes"))
    assert (data.dtype, offsets.dtype, labels.dtype) == (np.uint8, np.int64, np.int64)
    assert offsets[0] == 0 and offsets[-1] == len(data)
    files = [data[start:stop] for start, stop in itertools.pairwise(offsets)]
    return [cv2.imdecode(file, cv2.IMREAD_UNCHANGED) for file in files], list(labels), list(classes)


def placed(number: int, side: int = 64) -> np.ndarray:
    """A mask of 10 x 12 pixels at ``number``, ``number``."""
    mask = np.zeros((side, side), dtype=bool)
    mask[number : number + 10, number : number + 12] = True
    return mask


@pytest.mark.parametrize("split", ["train", "val", "test", "test_ood"])
def test_masks_equal_the_annotations(digits, split):
    pictures = load(digits, split)
    assert len(list((digits / "masks" / split).iterdir())) == len(pictures)
    for stem, annotations in pictures:
        expected = np.zeros((192, 192), dtype=int)
        for annotation in annotations:
            inside = mask_api.decode(annotation["segmentation"]) > 0
            # Category ids are digit + 1, too.
            expected[inside] = 255 if annotation["iscrowd"] else annotation["category_id"]
        mask = cv2.imread(str(digits / "masks" / split / f"{stem}.png"), cv2.IMREAD_UNCHANGED)
        assert mask.dtype == np.uint8
        assert np.array_equal(mask, expected)


def cut_by_hand(root, split: str) -> list[tuple[int, np.ndarray]]:
    """Digit and crop of every digit of a split, from its files alone."""
    crops = []
    for stem, annotations in load(root, split):
        image = cv2.imread(str(root / split / f"{stem}.jpg"))
        held_out = np.zeros((192, 192), dtype=bool)
        for annotation in annotations:
            if annotation["category_id"] in (8, 10):
                held_out |= mask_api.decode(annotation["segmentation"]) > 0
        for annotation in annotations:
            if annotation["iscrowd"]:
                continue
            x, y, w, h = map(int, annotation["bbox"])
            side = min(round(1.25 * max(w, h)), 192)
            left = np.clip(round(x + (w - side) / 2), 0, 192 - side)
            top = np.clip(round(y + (h - side) / 2), 0, 192 - side)
            digit = annotation["category_id"] - 1
            if digit in KNOWN and held_out[top : top + side, left : left + side].any():
                continue
            how = cv2.INTER_AREA if side > 32 else cv2.INTER_LINEAR
            crop = cv2.resize(
                image[top : top + side, left : left + side], (32, 32), interpolation=how
            )
            crops.append((digit, crop))
    return crops


@pytest.mark.parametrize("name", ["train_id", "val_id", "test_id", "test_ood"])
def test_crops_are_cut_from_the_images(digits, name):
    images, labels, classes = read_pack(digits / "crops" / f"{name}.npz")
    assert classes == NAMES
    if name == "test_ood":
        cut = cut_by_hand(digits, "test") + cut_by_hand(digits, "test_ood")
        expected = [(-1, crop) for digit, crop in cut if digit not in KNOWN]
    else:
        cut = cut_by_hand(digits, name.removesuffix("_id"))
        expected = [(KNOWN.index(digit), crop) for digit, crop in cut if digit in KNOWN]
    assert len(expected) > 5
    assert labels == [label for label, _ in expected]
    for image, (_, crop) in zip(images, expected, strict=True):
        assert np.array_equal(image, crop)


def test_train_crops_are_limited(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_TRAIN_CROPS", 3)
    root = ensure_digits(tmp_path / "digits", train=4, val=4, test=1, test_ood=1)
    assert len(read_pack(root / "crops" / "train_id.npz")[1]) == 3
    assert len(read_pack(root / "crops" / "val_id.npz")[1]) > 3


def test_crowds_and_hidden_digits_are_void_and_not_cut():
    objects = [
        SceneObject(3, placed(0)),
        SceneObject(4, placed(20), visible=0.4),
        SceneObject(5, placed(40), crowd=True),
    ]
    mask = class_mask(objects, 64, 64)
    assert [mask[5, 5], mask[25, 25], mask[45, 45], mask[63, 0]] == [4, 255, 255, 0]
    image = np.zeros((64, 64, 3), dtype=np.uint8)
    assert [digit for digit, _ in cut_digits(image, objects, held_out=(7,))] == [3]


@pytest.mark.parametrize(("where", "digits"), [(12, [9]), (40, [3, 9])])
def test_a_known_digit_beside_a_held_out_one_is_not_cut(where, digits):
    # The box of the digit ends at column 12, its crop of 15 pixels three further at the border.
    mask = np.zeros((64, 64), dtype=bool)
    mask[0:10, where : where + 10] = True
    objects = [SceneObject(3, placed(0)), SceneObject(9, mask)]
    image = np.zeros((64, 64, 3), dtype=np.uint8)
    assert [digit for digit, _ in cut_digits(image, objects, held_out=(7, 9))] == digits


def test_an_object_as_large_as_the_image():
    image = np.full((64, 48, 3), 9, dtype=np.uint8)
    ((digit, crop),) = cut_digits(image, [SceneObject(1, np.ones((64, 48), bool))], held_out=(7,))
    assert digit == 1
    assert crop.shape == (32, 32, 3) and (crop == 9).all()


def test_an_image_without_digits():
    assert not class_mask([], 5, 7).any()
    assert not list(cut_digits(np.zeros((64, 64, 3), np.uint8), [], held_out=(7,)))
