"""Pairs files in both formats, and what cannot be compared."""

import re

import numpy as np
import pytest

from negvision.errors import DatasetError


@pytest.fixture
def paired(faces):
    for number, name in enumerate(["a.jpg", "b.jpg", "c.jpg"]):
        faces.image(f"images/{name}", number)
    faces.lines = ["a.jpg b.jpg 1", "b.jpg c.jpg 0", "c.jpg a.jpg 0", "a.jpg b.jpg 1"]
    faces.text("pairs.txt", *faces.lines)
    return faces


def build(faces, **kwargs):
    config = {"ann_file": "pairs.txt", "data_prefix": {"img": "images/"}, **kwargs}
    return faces.dataset("FacePairDataset", **config)


def test_every_distinct_image_once(paired, log):
    dataset = build(paired)
    assert len(dataset) == 3
    meta = dataset.metainfo
    assert meta["pairs"].tolist() == [[0, 1], [1, 2], [2, 0], [0, 1]]
    assert meta["pairs"].dtype == np.int64
    assert meta["same"].tolist() == [True, False, False, True]
    assert meta["same"].dtype == bool
    assert "folds" not in meta
    sample = dataset[1]["data_samples"]
    assert (sample.sample_idx, int(sample.label)) == (1, -1)
    assert sample.img_path == str(paired.root / "images/b.jpg")
    assert log == []


def test_metainfo_cannot_be_written(paired):
    with pytest.raises(ValueError, match="read-only"):
        build(paired).metainfo["pairs"][0] = 0


FAULTS = [
    ("b.jpg c.jpg", "line that is not a pair"),
    ("b.jpg c.jpg 2", "line that is not a pair"),
    ("b.jpg c.jpg x 0", "line that is not a pair"),
    ("b.jpg none.jpg 0", "missing image file"),
    ("none.jpg b.jpg 0", "missing image file"),
]


@pytest.mark.parametrize(("line", "kind"), FAULTS)
def test_pair_at_fault(paired, log, line, kind):
    paired.lines[1] = line
    paired.text("pairs.txt", *paired.lines)
    with pytest.raises(DatasetError) as caught:
        build(paired)
    message = str(caught.value)
    assert f"1 x {kind}" in message
    assert f"{paired.root}/pairs.txt:2: " in message
    assert ("images/none.jpg" if "none" in line else line) in message

    dataset = build(paired, on_bad_sample="skip")
    # Image c still takes part, in the third pair.
    assert dataset.metainfo["pairs"].tolist() == [[0, 1], [2, 0], [0, 1]]
    assert dataset.metainfo["same"].tolist() == [True, False, True]
    assert len(dataset) == 3
    (entry,) = log
    assert f"1 x {kind}" in entry


def test_truncated_image(paired, log):
    paired.truncate("images/c.jpg")
    with pytest.raises(DatasetError, match=r"images/c.jpg: truncated JPEG"):
        build(paired)[2]
    dataset = build(paired, on_bad_sample="skip")
    assert dataset.metainfo["pairs"].tolist() == [[0, 1], [0, 1]]
    (entry,) = log
    assert "left out of 4 pairs: 2 x unreadable image" in entry


@pytest.mark.parametrize("mode", ["error", "skip"])
def test_nothing_to_compare(paired, mode):
    paired.text("pairs.txt")
    with pytest.raises(DatasetError, match="lists no pair"):
        build(paired, on_bad_sample=mode)
    paired.text("pairs.txt", "x.jpg y.jpg 1")
    with pytest.raises(DatasetError, match="No pair is left"):
        build(paired, on_bad_sample=mode)


def test_evaluation_only_and_whole(paired):
    with pytest.raises(ValueError, match="for evaluation only"):
        build(paired, test_mode=False)
    with pytest.raises(DatasetError, match="has no subsets"):
        build(paired, indices=2)


# LFW's own format.

LFW = [
    "2\t1",
    "Ann_Lee\t1\t2",
    "Ann_Lee\t1\tBob\t1",
    "Bob\t1\t3",
    "Ann_Lee\t2\tBob\t3",
]


@pytest.fixture
def lfw(faces):
    names = ["Ann_Lee_0001", "Ann_Lee_0002", "Bob_0001", "Bob_0003"]
    for number, name in enumerate(names):
        faces.image(f"images/{name[:-5]}/{name}.jpg", number)
    faces.text("pairs.txt", *LFW)
    return faces


@pytest.mark.parametrize("tabs", [True, False])
def test_lfw_format(lfw, log, tabs):
    lfw.text("pairs.txt", *(line if tabs else line.replace("\t", "  ") for line in LFW))
    dataset = build(lfw)
    assert [dataset.get_data_info(i)["img_path"].rsplit("/", 1)[1] for i in range(4)] == [
        "Ann_Lee_0001.jpg",
        "Ann_Lee_0002.jpg",
        "Bob_0001.jpg",
        "Bob_0003.jpg",
    ]
    assert dataset.metainfo["pairs"].tolist() == [[0, 1], [0, 2], [2, 3], [1, 3]]
    assert dataset.metainfo["same"].tolist() == [True, False, True, False]
    assert dataset.metainfo["folds"].tolist() == [0, 0, 1, 1]
    assert log == []


def test_lfw_format_of_one_fold_and_other_suffix(lfw):
    for path in list((lfw.root / "images").rglob("*.jpg")):
        path.rename(path.with_suffix(".png"))
    lfw.text("pairs.txt", "1", *LFW[1:3])
    dataset = build(lfw, suffix=".png")
    assert dataset.metainfo["folds"].tolist() == [0, 0]


def test_lfw_line_at_fault_leaves_the_others_in_their_folds(lfw, log):
    lines = list(LFW)
    lines[2] = "Ann_Lee\tone\tBob\t1"
    lfw.text("pairs.txt", *lines)
    with pytest.raises(DatasetError, match=r"1 x line that is not a pair\n *.*pairs.txt:3"):
        build(lfw)
    dataset = build(lfw, on_bad_sample="skip")
    assert dataset.metainfo["folds"].tolist() == [0, 1, 1]


def test_truncated_lfw_file(lfw, log):
    lfw.text("pairs.txt", *LFW[:4])
    says = "file with 3 pairs whose first line announces 4"
    with pytest.raises(DatasetError, match=says):
        build(lfw)
    assert len(build(lfw, on_bad_sample="skip").metainfo["same"]) == 3
    assert says in log[0]


def test_landmarks(paired):
    points = " ".join(str(i) for i in range(10))
    paired.text("points.txt", f"a.jpg {points}", f"b.jpg {points}")
    with pytest.raises(DatasetError, match="2 x image without landmarks"):
        build(paired, landmarks_file="points.txt")
    dataset = build(paired, landmarks_file="points.txt", on_bad_sample="skip")
    assert dataset.get_data_info(1)["landmarks"].shape == (5, 2)


def test_real_pairs(shared_data, log):
    from negvision.registry import DATASETS

    config = {
        "type": "negvision.FacePairDataset",
        "data_root": str(shared_data / "lfw112"),
        "ann_file": "pairs_fold1.txt",
        "pipeline": [
            {"type": "negvision.LoadImageFromFile"},
            {"type": "negvision.PackFaceInputs"},
        ],
        "on_bad_sample": "skip",
    }
    dataset = DATASETS.build(config)
    assert len(dataset) == 807
    assert dataset.metainfo["pairs"].shape == (600, 2) and dataset.metainfo["same"].sum() == 300
    # The very lines of the file, read another way.
    lines = (shared_data / "lfw112/pairs_fold1.txt").read_text().split("\n")
    for row in (0, 299, 300, 599):
        first, second, same = lines[row].split()
        i, j = dataset.metainfo["pairs"][row]
        assert dataset.get_data_info(i)["img_path"].endswith(first)
        assert dataset.get_data_info(j)["img_path"].endswith(second)
        assert dataset.metainfo["same"][row] == bool(int(same))
    assert re.search(r"Abel_Pacheco_0001.jpg$", dataset[0]["data_samples"].img_path)
    assert log == []
