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


def test_labels_are_shared_and_kept(lists, log):
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
        ("3.jpg -4", "negative label"),
        ("9.jpg 4", "missing image file"),
        ("0.jpg 4", "image listed twice"),
    ],
)
def test_bad_probe(lists, in_both_modes, line, kind):
    lists.probes[1] = line
    dataset = in_both_modes(lambda **kw: build(lists, **kw), kind, "probes.txt:2: ")
    assert dataset.labels.tolist() == [4, 9, 9, 77]
    assert dataset.metainfo["probes"].tolist() == [2, 3]


@pytest.mark.parametrize("mode", ["error", "skip"])
@pytest.mark.parametrize("which", ["gallery", "probes"])
@pytest.mark.parametrize("lines", [[], ["9.jpg 1"]])
def test_nothing_left(lists, which, mode, lines):
    setattr(lists, which, lines)
    with pytest.raises(DatasetError, match="gallery image or no probe"):
        build(lists, on_bad_sample=mode)


def test_landmarks(lists, in_both_modes):
    points = "1 2 3 4 5 6 7 8 9 10"
    lists.text("points.txt", *(f"{number}.jpg {points}" for number in range(4)))
    kind, arguments = "image without landmarks", {"landmarks_file": "points.txt"}
    dataset = in_both_modes(lambda **kw: build(lists, **kw, **arguments), kind)
    assert dataset.get_data_info(3)["landmarks"].shape == (5, 2)
