"""Splits by content: alike on every machine, look-alikes together, classes spread evenly."""

import json
from collections import Counter

import cv2
import numpy as np
import pytest
from helpers import folders
from helpers.folders import picture, text
from hypothesis import given, settings
from hypothesis import strategies as st

from negvision.data.formats.folder import read_folder
from negvision.data.splits.content import complete_splits, fingerprints, look_alikes, write_split
from negvision.errors import DatasetError


def yolo(root, count, label=lambda number: "01"[number % 2], seed=0):
    for number in range(count):
        picture(root / f"images/{number:03d}.jpg", number + seed)
        text(root / f"labels/{number:03d}.txt", f"{label(number)} 0.5 0.5 0.5 0.5\n")
    text(root / "data.yaml", "names: [a, b, c]\n")
    return root


def names(data):
    return {split: {i.name for i in data.split(split)} for split in data.splits}


def test_the_same_images_are_split_alike(tmp_path):
    """Neither names nor other folders matter."""
    yolo(tmp_path / "one", 40)
    first = complete_splits(read_folder(tmp_path / "one"), val=0.25, test=0.1)
    assert {s: len(p) for s, p in first.splits.items()} == {"train": 26, "val": 10, "test": 4}
    by_content = {
        (first.root / image.name).read_bytes(): split
        for split in first.splits
        for image in first.split(split)
    }
    for number in range(40):
        for kind, suffix in (("images", "jpg"), ("labels", "txt")):
            source = tmp_path / f"one/{kind}/{number:03d}.{suffix}"
            target = tmp_path / f"two/{kind}/x{(7 * number) % 40}.{suffix}"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
    second = complete_splits(read_folder(tmp_path / "two"), val=0.25, test=0.1)
    for split in second.splits:
        for image in second.split(split):
            assert by_content[(second.root / image.name).read_bytes()] == split


def test_classes_are_spread_evenly(tmp_path):
    labels = [0] * 80 + [1] * 15 + [2] * 5
    yolo(tmp_path, 100, lambda number: labels[number])
    data = complete_splits(read_folder(tmp_path))
    counts = Counter(label for i in data.split("val") for label in i.shown())
    assert counts == {0: 16, 1: 3, 2: 1}


def test_copies_that_look_alike_stay_together(tmp_path):
    """Smaller, compressed and brighter copies of an image are on its side."""
    yolo(tmp_path, 20)
    for number in range(20):
        image = cv2.imread(str(tmp_path / f"images/{number:03d}.jpg"))
        copies = {
            "small": cv2.resize(image, (64, 48), interpolation=cv2.INTER_AREA),
            "light": cv2.convertScaleAbs(image, alpha=0.9, beta=20),
        }
        for word, copy in copies.items():
            cv2.imwrite(str(tmp_path / f"images/{word}{number:03d}.jpg"), copy, [1, 60])
            text(tmp_path / f"labels/{word}{number:03d}.txt", "1 0.5 0.5 0.5 0.5\n")
    data = complete_splits(read_folder(tmp_path))
    sides = {}
    for split in data.splits:
        for image in data.split(split):
            sides.setdefault(image.name[-7:], set()).add(split)
    assert len(sides) == 20 and all(len(found) == 1 for found in sides.values())
    assert data.notes.counts["image that looks like another, kept in one split with it"] == 60


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, (1 << 64) - 1), min_size=1, max_size=40), st.integers(0, 6),
       st.randoms(use_true_random=False))  # fmt: skip
def test_groups_equal_their_definition(looks, distance, random):
    for look in list(looks):  # neighbors, which drawn numbers never are
        bits = random.sample(range(64), random.randint(0, 8))
        looks.append(look ^ sum(1 << bit for bit in bits))
    groups = [{n} for n in range(len(looks))]
    for a in range(len(looks)):
        for b in range(a):
            if (looks[a] ^ looks[b]).bit_count() <= distance:
                one, two = (next(g for g in groups if n in g) for n in (a, b))
                if one is not two:
                    groups.remove(two)
                    one |= two
    assert sorted(map(sorted, look_alikes(looks, distance))) == sorted(map(sorted, groups))


def test_images_that_all_look_alike_are_split_regardless(tmp_path):
    yolo(tmp_path, 10)
    for number in range(10):
        image = np.full((60, 80, 3), 100, np.uint8)
        image[number, 0] = 110
        cv2.imwrite(str(tmp_path / f"images/{number:03d}.png"), image)
        (tmp_path / f"images/{number:03d}.jpg").unlink()
    data = complete_splits(read_folder(tmp_path))
    assert {s: len(p) for s, p in data.splits.items()} == {"train": 8, "val": 2}
    assert data.notes.counts["image that looks like most others, split regardless"] == 10


def test_too_few_images(tmp_path):
    with pytest.raises(DatasetError, match="1 images are too few"):
        complete_splits(read_folder(yolo(tmp_path, 1)))
    data = complete_splits(read_folder(yolo(tmp_path, 2)))
    assert [len(part) for part in data.splits.values()] == [1, 1]


def test_a_written_split_stays_when_images_are_added(tmp_path):
    first = complete_splits(read_folder(yolo(tmp_path, 20)))
    write_split(first, tmp_path / "split.json")
    yolo(tmp_path, 30)
    image = cv2.imread(str(tmp_path / next(iter(first.split("val"))).name))
    cv2.imwrite(str(tmp_path / "images/twin.jpg"), image, [1, 70])
    text(tmp_path / "labels/twin.txt", "0 0.5 0.5 0.5 0.5\n")
    second = complete_splits(read_folder(tmp_path))
    for split, members in names(first).items():
        assert members <= names(second)[split]
    assert "images/twin.jpg" in names(second)["val"]
    assert sum(map(len, names(second).values())) == 31
    for bad in ("[1]", '{"validation": []}', '{"train": 3}'):
        text(tmp_path / "split.json", bad)
        with pytest.raises(DatasetError, match=r"split\.json: a split is"):
            complete_splits(read_folder(tmp_path))


@pytest.mark.parametrize("given", ["train", "train test", "val", "train val test"])
def test_missing_splits_are_added(tmp_path, given):
    given = given.split()
    for number in range(20):
        split = given[number % len(given)]
        picture(tmp_path / f"images/{split}/{number}.jpg", number)
        text(tmp_path / f"labels/{split}/{number}.txt", "0 0.5 0.5 0.5 0.5\n")
    before = read_folder(tmp_path)
    data = complete_splits(before)
    assert set(data.splits) == {"train", "val", *given[1:]}
    if "test" in given:
        assert names(data)["test"] == names(before)["test"]
    if given == ["train", "val", "test"]:
        assert data.splits == before.splits
    assert sum(map(len, data.splits.values())) == 20


def test_overlaps_of_given_splits_are_reported(tmp_path):
    root = folders.voc(tmp_path)
    (root / "ImageSets/Main/val.txt").write_text("c\nb\n")
    (root / "JPEGImages/d.jpg").write_bytes((root / "JPEGImages/c.jpg").read_bytes())
    image = cv2.imread(str(root / "JPEGImages/a.jpg"))
    cv2.imwrite(str(root / "JPEGImages/c.jpg"), image, [1, 70])
    (root / "JPEGImages/e.jpg").write_bytes((root / "JPEGImages/d.jpg").read_bytes())
    data = complete_splits(read_folder(root))
    found = {kind: count for kind, count in data.notes.counts.items() if " train " in kind}
    assert found == {
        "image that is listed in both train and val": 1,
        "image with the same content in train and test": 2,
        "image that looks like another of train and val": 2,
    }
    assert "JPEGImages/b.jpg" in data.notes.report()


def test_images_that_cannot_be_decoded_have_no_fingerprint(tmp_path):
    good = picture(tmp_path / "a.jpg", 0)
    (tmp_path / "b.jpg").write_bytes(b"")
    (tmp_path / "c.jpg").write_bytes(b"nothing")
    found = fingerprints([good, tmp_path / "b.jpg", tmp_path / "c.jpg", tmp_path / "d.jpg"])
    assert found[0] is not None and found[1:] == [None, None, None]


def test_a_split_file_is_plain(tmp_path):
    data = complete_splits(read_folder(yolo(tmp_path / "set", 10)))
    write_split(data, tmp_path / "split.json")
    content = json.loads((tmp_path / "split.json").read_text())
    assert {s: set(n) for s, n in content.items()} == names(data)
