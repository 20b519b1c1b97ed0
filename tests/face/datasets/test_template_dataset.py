"""IJB-B and IJB-C protocol files, made tiny."""

import numpy as np
import pytest

from negvision.errors import DatasetError

POINTS = "1.5 2 3 4 5 6 7 8 9 10"
FILES = {
    "names.txt": [f"{i}.jpg {POINTS} 0.9{i}" for i in range(1, 6)],
    "tid_mid.txt": ["1.jpg 10 1", "2.jpg 10 1", "3.jpg 10 2", "4.jpg 12 7", "5.jpg 15 7"],
    "pairs.txt": ["10 12 1", "12 15 0", "10 10 1"],
}


@pytest.fixture
def ijb(faces):
    faces.files = {name: list(lines) for name, lines in FILES.items()}
    for number in range(1, 6):
        faces.image(f"loose_crop/{number}.jpg", number)
    return faces


def build(ijb, **kwargs):
    for name, lines in ijb.files.items():
        ijb.text(name, *lines)
    return ijb.dataset(
        "FaceTemplateDataset",
        ann_file="names.txt",
        template_file="tid_mid.txt",
        pairs_file="pairs.txt",
        data_prefix={"img": "loose_crop/"},
        **kwargs,
    )


def test_protocol(ijb, log):
    dataset = build(ijb)
    assert len(dataset) == 5
    meta = dataset.metainfo
    assert meta["template_ids"].tolist() == [10, 10, 10, 12, 15]
    assert meta["media_ids"].tolist() == [1, 1, 2, 7, 7]
    assert meta["template_pairs"].tolist() == [[10, 12], [12, 15], [10, 10]]
    assert meta["template_same"].tolist() == [True, False, True]
    assert (meta["template_ids"].dtype, meta["template_same"].dtype) == (np.int64, bool)
    np.testing.assert_allclose(meta["detection_scores"], [0.91, 0.92, 0.93, 0.94, 0.95])
    info = dataset.get_data_info(3)
    assert info["landmarks"].tolist() == [[1.5, 2], [3, 4], [5, 6], [7, 8], [9, 10]]
    assert dataset[3]["data_samples"].img_path == f"{ijb.root}/loose_crop/4.jpg"
    assert log == []


def test_scores_are_optional(ijb):
    ijb.files["names.txt"] = [line.rsplit(" ", 1)[0] for line in ijb.files["names.txt"]]
    assert "detection_scores" not in build(ijb).metainfo


FAULTS = [
    ("names.txt", "4.jpg 1 2 3", "line that is not a name, ten numbers"),
    ("names.txt", f"4.jpg {POINTS} x", "line that is not a name, ten numbers"),
    ("names.txt", f"4.jpg {POINTS} 1 2", "line that is not a name, ten numbers"),
    ("names.txt", f"4.jpg {POINTS.replace('10', 'nan')} 1", "line that is not a name, ten"),
    ("tid_mid.txt", "4.jpg 12", "line that is not 'name template medium'"),
    ("tid_mid.txt", "4.jpg 12 -1", "line that is not 'name template medium'"),
]


@pytest.mark.parametrize(("file", "line", "kind"), FAULTS)
def test_image_at_fault(ijb, log, file, line, kind):
    ijb.files[file][3] = line
    with pytest.raises(DatasetError) as caught:
        build(ijb)
    message = str(caught.value)
    assert f"1 x {kind}" in message and f"{ijb.root}/{file}:4" in message
    # Template 12 is left without an image, and two pairs without a template.
    assert "2 x pair of a template without images" in message
    dataset = build(ijb, on_bad_sample="skip")
    assert dataset.metainfo["template_ids"].tolist() == [10, 10, 10, 15]
    assert dataset.metainfo["template_pairs"].tolist() == [[10, 10]]
    assert [entry for entry in log if kind in entry and "2 x pair of a template" in entry]


def test_missing_image(ijb, log):
    (ijb.root / "loose_crop/2.jpg").unlink()
    with pytest.raises(DatasetError, match=r"(?s)1 x missing image file.*names.txt:2.*/2.jpg"):
        build(ijb)
    dataset = build(ijb, on_bad_sample="skip")
    assert dataset.metainfo["media_ids"].tolist() == [1, 2, 7, 7]
    assert len(dataset.metainfo["template_pairs"]) == 3


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("12 15", "line that is not 3 whole numbers"),
        ("12 x 0", "line that is not 3 whole numbers"),
        ("12 15 2", "pair whose third number is not 0 or 1"),
        ("12 99 0", "pair of a template without images"),
    ],
)
def test_pair_at_fault(ijb, log, line, kind):
    ijb.files["pairs.txt"][1] = line
    with pytest.raises(DatasetError) as caught:
        build(ijb)
    assert f"1 x {kind}" in str(caught.value) and f"{ijb.root}/pairs.txt:2" in str(caught.value)
    dataset = build(ijb, on_bad_sample="skip")
    assert dataset.metainfo["template_pairs"].tolist() == [[10, 12], [10, 10]]


@pytest.mark.parametrize("mode", ["error", "skip"])
def test_lists_that_do_not_belong_together(ijb, mode):
    ijb.files["tid_mid.txt"][1] = "9.jpg 10 1"
    with pytest.raises(
        DatasetError, match=r"names.txt:2 names '2.jpg' and .*tid_mid.txt:2 '9.jpg'"
    ):
        build(ijb, on_bad_sample=mode)
    del ijb.files["tid_mid.txt"][1]
    with pytest.raises(DatasetError, match=r"lists 5 images and .* 4; both must list the same"):
        build(ijb, on_bad_sample=mode)


@pytest.mark.parametrize("mode", ["error", "skip"])
def test_empty_files(ijb, mode):
    ijb.files["pairs.txt"] = []
    with pytest.raises(DatasetError, match=r"names.txt: lists no pair"):
        build(ijb, on_bad_sample=mode)
    ijb.files = {name: [] for name in FILES}
    with pytest.raises(DatasetError, match=r"lists no pair"):
        build(ijb, on_bad_sample=mode)


def test_missing_protocol_file(ijb):
    del ijb.files["tid_mid.txt"]
    with pytest.raises(DatasetError, match=r"Missing: template_file .*/tid_mid.txt"):
        build(ijb)
