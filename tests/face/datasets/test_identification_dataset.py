"""Gallery and probes."""

import numpy as np
import pytest

from negvision.errors import DatasetError


@pytest.fixture
def lists(faces):
    for number in range(5):
        faces.image(f"{number}.jpg", number)
    faces.gallery = ["0.jpg 4", "1.jpg 9"]
    faces.probes = ["2.jpg 9", "3.jpg 4", "4.jpg 77"]
    return faces


def build(faces, **kwargs):
    return faces.dataset(
        "FaceIdentificationDataset",
        ann_file=faces.text("gallery.txt", *faces.gallery),
        probe_file=faces.text("probes.txt", *faces.probes),
        **kwargs,
    )


def test_labels_are_shared_and_stay(lists, log):
    dataset = build(lists)
    assert dataset.labels.tolist() == [4, 9, 9, 4, 77]
    assert dataset.metainfo["gallery"].tolist() == [0, 1]
    assert dataset.metainfo["probes"].tolist() == [2, 3, 4]
    assert dataset.metainfo["probes"].dtype == np.int64
    assert dataset[4]["data_samples"].label == 77
    assert log == []


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("3.jpg", "line that is not 'path label'"),
        ("3.jpg four", "label that is not an integer"),
        ("3.jpg -4", "negative label"),
        ("9.jpg 4", "missing image file"),
        ("0.jpg 4", "image listed twice"),
    ],
)
def test_probe_at_fault(lists, log, line, kind):
    lists.probes[1] = line
    with pytest.raises(DatasetError) as caught:
        build(lists)
    assert f"1 x {kind}" in str(caught.value) and "probes.txt:2: " in str(caught.value)
    dataset = build(lists, on_bad_sample="skip")
    assert dataset.labels.tolist() == [4, 9, 9, 77]
    assert dataset.metainfo["probes"].tolist() == [2, 3]
    assert [entry for entry in log if f"1 x {kind}" in entry]


@pytest.mark.parametrize("mode", ["error", "skip"])
@pytest.mark.parametrize("which", ["gallery", "probes"])
@pytest.mark.parametrize("lines", [[], ["9.jpg 1"]])
def test_nothing_left(lists, which, mode, lines):
    setattr(lists, which, lines)
    with pytest.raises(DatasetError, match="gallery image or no probe"):
        build(lists, on_bad_sample=mode)


def test_landmarks(lists, log):
    points = "1 2 3 4 5 6 7 8 9 10"
    lists.text("points.txt", *(f"{number}.jpg {points}" for number in range(4)))
    with pytest.raises(DatasetError, match="1 x image without landmarks"):
        build(lists, landmarks_file="points.txt")
    dataset = build(lists, landmarks_file="points.txt", on_bad_sample="skip")
    assert dataset.get_data_info(3)["landmarks"].shape == (5, 2)
