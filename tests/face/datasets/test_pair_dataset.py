"""Pair files in both formats, and pairs that cannot be compared."""

import numpy as np
import pytest

from negvision.errors import ConfigError, DatasetError
from negvision.face.datasets import FaceVerificationSets


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
    assert meta["same"].tolist() == [True, False, False, True]
    assert (meta["pairs"].dtype, meta["same"].dtype) == (np.int64, bool)
    assert "folds" not in meta
    sample = dataset[1]["data_samples"]
    assert (sample.sample_idx, int(sample.label)) == (1, -1)
    assert sample.img_path == str(paired.root / "images/b.jpg")
    assert log == []
    with pytest.raises(ValueError, match="read-only"):
        meta["pairs"][0] = 0


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("b.jpg c.jpg", "line that is not a pair"),
        ("b.jpg c.jpg 2", "line that is not a pair"),
        ("b.jpg c.jpg x 0", "line that is not a pair"),
        ("b.jpg none.jpg 0", "missing image file"),
        ("none.jpg b.jpg 0", "missing image file"),
    ],
)
def test_bad_pair(paired, in_both_modes, log, line, kind):
    paired.lines[1] = line
    paired.text("pairs.txt", *paired.lines)
    shown = "images/none.jpg" if "none" in line else line
    expected = (f"{paired.root}/pairs.txt:2: ", shown)
    dataset = in_both_modes(lambda **kw: build(paired, **kw), kind, *expected)
    # Image c is still used by the third pair.
    assert dataset.metainfo["pairs"].tolist() == [[0, 1], [2, 0], [0, 1]]
    assert dataset.metainfo["same"].tolist() == [True, False, True]
    assert len(dataset) == 3 and len(log) == 1


def test_truncated_image(paired, log):
    paired.truncate("images/c.jpg")
    with pytest.raises(DatasetError, match=r"images/c.jpg: truncated JPEG"):
        build(paired)[2]
    dataset = build(paired, on_bad_sample="skip")
    assert dataset.metainfo["pairs"].tolist() == [[0, 1], [0, 1]]
    (entry,) = log
    assert "4 pairs: 2 x unreadable image" in entry


@pytest.mark.parametrize("mode", ["error", "skip"])
def test_nothing_to_compare(paired, mode):
    paired.text("pairs.txt")
    with pytest.raises(DatasetError, match="lists no pair"):
        build(paired, on_bad_sample=mode)
    paired.text("pairs.txt", "x.jpg y.jpg 1")
    with pytest.raises(DatasetError, match="No pair is left"):
        build(paired, on_bad_sample=mode)


def test_evaluation_only_and_complete(paired):
    with pytest.raises(ValueError, match="for evaluation only"):
        build(paired, test_mode=False)
    with pytest.raises(DatasetError, match="has no subsets"):
        build(paired, indices=2)


# LFW's own format.

LFW = ["2\t1", "Ann_Lee\t1\t2", "Ann_Lee\t1\tBob\t1", "Bob\t1\t3", "Ann_Lee\t2\tBob\t3"]
LFW_NAMES = ["Ann_Lee_0001.jpg", "Ann_Lee_0002.jpg", "Bob_0001.jpg", "Bob_0003.jpg"]


@pytest.fixture
def lfw(faces):
    for number, name in enumerate(LFW_NAMES):
        faces.image(f"images/{name[:-9]}/{name}", number)
    faces.text("pairs.txt", *LFW)
    return faces


@pytest.mark.parametrize("tabs", [True, False])
def test_lfw_format(lfw, log, tabs):
    lfw.text("pairs.txt", *(line if tabs else line.replace("\t", "  ") for line in LFW))
    dataset = build(lfw)
    names = [dataset.get_data_info(i)["img_path"].rsplit("/", 1)[1] for i in range(4)]
    assert names == LFW_NAMES
    assert dataset.metainfo["pairs"].tolist() == [[0, 1], [0, 2], [2, 3], [1, 3]]
    assert dataset.metainfo["same"].tolist() == [True, False, True, False]
    assert dataset.metainfo["folds"].tolist() == [0, 0, 1, 1]
    assert log == []


def test_lfw_format_of_one_fold_and_other_suffix(lfw):
    for path in list((lfw.root / "images").rglob("*.jpg")):
        path.rename(path.with_suffix(".png"))
    lfw.text("pairs.txt", "1", *LFW[1:3])
    assert build(lfw, suffix=".png").metainfo["folds"].tolist() == [0, 0]


def test_bad_lfw_line_leaves_the_others_in_their_folds(lfw, in_both_modes):
    lfw.text("pairs.txt", *LFW[:2], "Ann_Lee\tone\tBob\t1", *LFW[3:])
    kind = "line that is not a pair"
    dataset = in_both_modes(lambda **kw: build(lfw, **kw), kind, "pairs.txt:3")
    assert dataset.metainfo["folds"].tolist() == [0, 1, 1]


def test_truncated_lfw_file(lfw, in_both_modes):
    lfw.text("pairs.txt", *LFW[:4])
    kind = "file with 3 pairs whose first line announces 4"
    assert len(in_both_modes(lambda **kw: build(lfw, **kw), kind).metainfo["same"]) == 3


@pytest.mark.parametrize("separator", ["\t", " ", ",", ", "])
def test_lfw_format_without_its_first_line_has_no_folds(lfw, log, separator):
    lfw.text("pairs.txt", *(line.replace("\t", separator) for line in LFW[1:]))
    meta = build(lfw).metainfo
    assert meta["pairs"].tolist() == [[0, 1], [0, 2], [2, 3], [1, 3]]
    assert meta["same"].tolist() == [True, False, True, False]
    assert "folds" not in meta and log == []


def test_lfw_format_with_commas_and_titles_of_columns(lfw):
    rows = [line.replace("\t", ",") + "," * (3 - line.count("\t")) for line in LFW]
    lfw.text("pairs.txt", "name,imagenum1,imagenum2,", *rows[1:])
    assert build(lfw).metainfo["same"].tolist() == [True, False, True, False]
    lfw.text("pairs.txt", *rows)
    assert build(lfw).metainfo["folds"].tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("separator", [",", ", ", ";"])
def test_paths_with_commas(paired, separator, log):
    lines = [line.replace(" ", separator) for line in paired.lines]
    paired.text("pairs.txt", "first,second,same", *lines)
    if separator == ";":
        with pytest.raises(DatasetError, match="4 x line that is not a pair"):
            build(paired)
    else:
        assert build(paired).metainfo["pairs"].tolist() == [[0, 1], [1, 2], [2, 0], [0, 1]]


def test_commas_in_names(paired):
    paired.image("images/a,1.jpg")
    paired.text("pairs.txt", "a,1.jpg b.jpg 1", *paired.lines)
    assert build(paired).metainfo["pairs"].tolist()[0] == [0, 1]


def test_a_bad_first_line_is_not_taken_for_titles(paired):
    paired.text("pairs.txt", "a.jpg b.jpg", *paired.lines)
    with pytest.raises(DatasetError, match=r"1 x line that is not a pair.*path 0.*name i j"):
        build(paired)


def test_names_that_the_disk_spells_otherwise(paired):
    paired.image("images/caf\u00e9/my d.jpg", 7)
    paired.text("pairs.txt", "cafe\u0301\\my%20d.jpg b.jpg 1", *paired.lines)
    sample = build(paired)[0]["data_samples"]
    assert sample.img_path == str(paired.root / "images/caf\u00e9/my d.jpg")


def test_sets_side_by_side_keep_their_pairs(paired):
    sets = [build(paired), build(paired)]
    both = FaceVerificationSets(sets, ["lfw", "agedb"])
    assert len(both) == 2 * len(sets[0])
    first, second = both.metainfo["sets"].values()
    offset = len(sets[0])
    assert (second["pairs"] - first["pairs"]).tolist() == [[offset] * 2] * len(first["pairs"])
    for index in (0, offset, 2 * offset - 1):
        sample = both[index]["data_samples"]
        assert sample.sample_idx == index
        assert sample.img_path == sets[0][index % offset]["data_samples"].img_path
    for names in (["lfw"], ["lfw", "lfw"]):
        with pytest.raises(ConfigError, match="another name for each"):
            FaceVerificationSets(sets, names)
    paired.text("train.txt", "a.jpg 0")
    people = paired.dataset("FaceListDataset", ann_file="train.txt", data_prefix={"img": "images/"})
    with pytest.raises(ConfigError, match="has no pairs"):
        FaceVerificationSets([people], ["people"])
