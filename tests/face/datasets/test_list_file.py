"""Lists and folders of images: labels, dropped identities, and every kind of problem."""

import re

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from negvision.errors import DatasetError, is_user_error

NAMES = ["ann/1.jpg", "ann/2.jpg", "bob/1.jpg", "bob/2.jpg", "cy/1 x.jpg"]


@pytest.fixture
def listed(faces):
    """Five images of three people in train.txt."""
    for number, name in enumerate(NAMES):
        faces.image(name, number)
    faces.lines = [f"{name} {label}" for name, label in zip(NAMES, [0, 0, 1, 1, 2], strict=True)]
    faces.text("train.txt", *faces.lines)
    return faces


def build(faces, **kwargs):
    return faces.dataset("FaceListDataset", ann_file="train.txt", **kwargs)


def test_samples_of_a_list(listed, log):
    dataset = build(listed)
    assert dataset.labels.tolist() == [0, 0, 1, 1, 2]
    assert dataset.metainfo["num_classes"] == 3
    sample = dataset[4]
    assert sample["inputs"].shape == (3, 24, 24) and sample["inputs"].dtype == torch.uint8
    assert (sample["data_samples"].label, sample["data_samples"].sample_idx) == (2, 4)
    assert sample["data_samples"].img_path == str(listed.root / "cy/1 x.jpg")
    (line,) = log
    assert "1 of 3 identities have one image" in line
    listed.text("train.txt", "1.jpg 0", "2.jpg 0")
    assert build(listed, data_prefix={"img": "ann/"})[1]["data_samples"].label == 0


@pytest.mark.parametrize("labels", [[5, 5, 9, 9, 7], [1, 1, 2, 2, 3]])
def test_labels_with_gaps_are_renumbered_and_logged(listed, log, labels):
    listed.text("train.txt", *(f"{n} {label}" for n, label in zip(NAMES, labels, strict=True)))
    dataset = build(listed)
    assert dataset.labels.tolist() == np.unique(labels, return_inverse=True)[1].tolist()
    assert any("become 0 ... 2" in line for line in log)


def test_identities_with_few_images_are_dropped(listed, log):
    dataset = build(listed, min_images=2)
    assert dataset.labels.tolist() == [0, 0, 1, 1]
    assert dataset.metainfo["num_classes"] == 2
    (line,) = log
    assert "dropped 1 of 3 identities" in line and "(1 of 5 images)" in line
    with pytest.raises(DatasetError, match=r"min_images = 3 .* the largest has 2"):
        build(listed, min_images=3)
    # In the middle, the gap is closed.
    lines = ["ann/1.jpg 0", "ann/2.jpg 0", "cy/1 x.jpg 1", "bob/1.jpg 2", "bob/2.jpg 2"]
    listed.text("train.txt", *lines)
    dataset = build(listed, min_images=2)
    assert dataset.labels.tolist() == [0, 0, 1, 1]
    assert dataset.get_data_info(2)["img_path"].endswith("bob/1.jpg")


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("bob/1.jpg", "line that is not 'path label'"),
        ("bob/1.jpg one", "label that is not an integer"),
        ("bob/1.jpg 1.5", "label that is not an integer"),
        ("bob/1.jpg -1", "negative label"),
        ("bob/1.jpg 3", "label out of range: num_classes is 3"),
        ("bob/9.jpg 1", "missing image file"),
        ("eve/1.jpg 1", "missing image file"),
    ],
)
def test_bad_line(listed, in_both_modes, line, kind):
    listed.lines[2] = line
    listed.text("train.txt", *listed.lines)
    expected = (f"{listed.root}/train.txt:3", line.split()[0], "in 5 images")
    dataset = in_both_modes(lambda **kw: build(listed, num_classes=3, **kw), kind, *expected)
    assert dataset.labels.tolist() == [0, 0, 1, 2]


@pytest.mark.parametrize("mode", ["error", "skip"])
@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "train.txt: lists no image"),
        (b"\n  \n", "train.txt: lists no image"),
        (b"a.jpg 0\n\xff\xd8\xff", "train.txt: not UTF-8 text"),
        (b"elsewhere/a.jpg 0\n", r"No image is left.*data_prefix"),
    ],
)
def test_unusable_list(listed, content, says, mode):
    (listed.root / "train.txt").write_bytes(content)
    if mode == "skip" or "left" not in says:
        with pytest.raises(DatasetError, match=says) as caught:
            build(listed, on_bad_sample=mode)
        assert is_user_error(caught.value)


def test_missing_list_and_bad_arguments(listed):
    with pytest.raises(DatasetError, match=r"(?s)Missing: ann_file .*/none.txt.*--data-root DIR"):
        listed.dataset("FaceListDataset", ann_file="none.txt")
    with pytest.raises(DatasetError, match="ann_file is empty"):
        listed.dataset("FaceListDataset")
    for arguments in ({"min_images": 0}, {"num_classes": 0}):
        with pytest.raises(ValueError, match="is 0; it must be 1 or more"):
            build(listed, **arguments)


def test_truncated_jpeg(listed, log):
    """An error, or in a worker replaced, counted and logged once."""
    dataset, tolerant = build(listed), build(listed, on_bad_sample="skip")
    listed.truncate("bob/1.jpg")
    with pytest.raises(DatasetError, match=r"bob/1.jpg: truncated JPEG"):
        dataset[2]
    (batch,) = DataLoader(tolerant, batch_size=5, num_workers=1, collate_fn=list)
    assert len(batch) == 5
    assert 2 not in [sample["data_samples"].sample_idx for sample in batch]
    for _ in range(3):
        assert tolerant[2]["data_samples"].sample_idx != 2
    assert tolerant.skipped_images[str(listed.root / "bob/1.jpg")] >= 3
    assert len([line for line in log if "truncated JPEG" in line]) == 1


def test_landmarks(listed, log):
    points = " ".join(str(i) for i in range(10))
    listed.text("points.txt", *(f"{name} {points}" for name in NAMES))
    dataset = build(listed, landmarks_file="points.txt")
    landmarks = dataset.get_data_info(4)["landmarks"]
    np.testing.assert_array_equal(landmarks, np.arange(10).reshape(5, 2))
    landmarks[:] = 0  # is a copy
    assert dataset.get_data_info(4)["landmarks"].sum() == 45

    listed.text("points.txt", *(f"{name} {points}" for name in NAMES[:3]), f"{NAMES[3]} 1 2 nan")
    with pytest.raises(DatasetError) as caught:
        build(listed, landmarks_file="points.txt")
    assert "1 x line that is not a path and ten finite numbers" in str(caught.value)
    assert "2 x image without landmarks" in str(caught.value)
    assert len(build(listed, landmarks_file="points.txt", on_bad_sample="skip")) == 3


def test_subsets_keep_labels_and_indices_in_step(listed):
    dataset = build(listed, indices=[3, 0])
    assert dataset.labels.tolist() == [1, 0]
    assert dataset.get_data_info(0)["img_path"].endswith("bob/2.jpg")
    full = build(listed)
    assert len(full.get_subset(2)) == 2 and len(full) == 5
    assert full.get_subset(-2).labels.tolist() == [1, 2]
    assert full.get_data_info(-1)["sample_idx"] == 4
    with pytest.raises(IndexError):
        full.get_data_info(5)


# Folders.


def test_folders_in_sorted_order(faces, log):
    for name in ("zoe/a.jpg", "ann/b.JPG", "ann/a.png", "bob/1.jpg"):
        faces.image(name)
    faces.text("ann/readme.txt", "no image")
    faces.text("list.txt", "not a folder")
    dataset = faces.dataset("FaceFolderDataset")
    assert dataset.identities == ["ann", "bob", "zoe"]
    assert dataset.labels.tolist() == [0, 0, 1, 2]
    assert dataset.get_data_info(0)["img_path"] == str(faces.root / "ann/a.png")
    assert any("1 x file passed over: .txt" in line for line in log)
    few = faces.dataset("FaceFolderDataset", min_images=2)
    assert (few.identities, few.labels.tolist()) == (["ann"], [0, 0])


def test_other_people_change_the_metainfo(faces):
    """By which a checkpoint of another training is told."""
    for name in ("ann/a.jpg", "bob/1.jpg"):
        faces.image(name)
    before = faces.dataset("FaceFolderDataset").metainfo
    faces.image("ann/b.jpg")
    assert faces.dataset("FaceFolderDataset").metainfo == before
    (faces.root / "bob").rename(faces.root / "eve")
    after = faces.dataset("FaceFolderDataset").metainfo
    assert after["num_classes"] == before["num_classes"]
    assert after["identities"] != before["identities"]


def test_folder_without_an_image(faces, in_both_modes):
    faces.image("ann/a.jpg")
    (faces.root / "bob").mkdir()
    faces.image("cy/a.jpg")
    kind = "identity folder without an image"
    dataset = in_both_modes(lambda **kw: faces.dataset("FaceFolderDataset", **kw), kind, "/bob")
    assert (dataset.identities, dataset.labels.tolist()) == (["ann", "cy"], [0, 1])
    with pytest.raises(DatasetError, match=r"(?s)label out of range: num_classes is 1.*cy: 1"):
        faces.dataset("FaceFolderDataset", num_classes=1)


@pytest.mark.parametrize("mode", ["error", "skip"])
def test_no_folder_at_all(faces, mode):
    with pytest.raises(DatasetError, match="lists no image"):
        faces.dataset("FaceFolderDataset", on_bad_sample=mode)
    missing = re.escape(f"{faces.root}/none")
    with pytest.raises(DatasetError, match=f"Missing: image folder {missing}"):
        faces.dataset("FaceFolderDataset", data_prefix={"img": "none"}, on_bad_sample=mode)


def test_what_systems_leave_in_folders_is_no_identity(faces, log):
    for number, name in enumerate(["ann/1.jpg", "bob/1.jpg", ".ipynb_checkpoints/1.jpg"]):
        faces.image(name, number)
    faces.image("__MACOSX/ann/._1.jpg")
    (faces.root / "ann/._1.jpg").write_bytes(b"\0\5\x16\7")
    dataset = faces.dataset("FaceFolderDataset")
    assert dataset.identities == ["ann", "bob"] and dataset.labels.tolist() == [0, 1]
    assert "1 x file passed over: hidden" in log[0]
