"""Tiny protocol files in the format of IJB-B and IJB-C."""

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
    ijb.files["names.txt"] = [line.rsplit(" ", 1)[0] for line in ijb.files["names.txt"]]
    assert "detection_scores" not in build(ijb).metainfo


@pytest.mark.parametrize(
    ("file", "line", "kind"),
    [
        ("names.txt", "4.jpg 1 2 3", "line that is not a name, ten numbers"),
        ("names.txt", f"4.jpg {POINTS} x", "line that is not a name, ten numbers"),
        ("names.txt", f"4.jpg {POINTS} 1 2", "line that is not a name, ten numbers"),
        ("names.txt", f"4.jpg {POINTS.replace('10', 'nan')} 1", "line that is not a name, ten"),
        ("names.txt", f"9.jpg {POINTS} 1", "missing image file"),
        ("tid_mid.txt", "4.jpg 12", "line that is not 'name template medium'"),
        ("tid_mid.txt", "4.jpg 12 -1", "line that is not 'name template medium'"),
    ],
)
def test_bad_image(ijb, in_both_modes, file, line, kind):
    ijb.files[file][3] = line
    if "9.jpg" in line:
        ijb.files["tid_mid.txt"][3] = "9.jpg 12 7"
    # Template 12 has no image left, so two pairs lack a template.
    expected = (f"{ijb.root}/{file}:4", "2 x pair of a template without images")
    dataset = in_both_modes(lambda **kw: build(ijb, **kw), kind, *expected)
    assert dataset.metainfo["template_ids"].tolist() == [10, 10, 10, 15]
    assert dataset.metainfo["template_pairs"].tolist() == [[10, 10]]


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("12 15", "line that is not 3 integers"),
        ("12 x 0", "line that is not 3 integers"),
        ("12 15 2", "pair whose third number is not 0 or 1"),
        ("12 99 0", "pair of a template without images"),
    ],
)
def test_bad_pair(ijb, in_both_modes, line, kind):
    ijb.files["pairs.txt"][1] = line
    dataset = in_both_modes(lambda **kw: build(ijb, **kw), kind, f"{ijb.root}/pairs.txt:2")
    assert dataset.metainfo["template_pairs"].tolist() == [[10, 12], [10, 10]]


@pytest.mark.parametrize("mode", ["error", "skip"])
def test_lists_that_do_not_match(ijb, mode):
    ijb.files["tid_mid.txt"][1] = "9.jpg 10 1"
    says = r"names.txt:2 names '2.jpg' and .*tid_mid.txt:2 '9.jpg'"
    with pytest.raises(DatasetError, match=says):
        build(ijb, on_bad_sample=mode)
    del ijb.files["tid_mid.txt"][1]
    with pytest.raises(DatasetError, match=r"lists 5 images and .* 4; both must list the same"):
        build(ijb, on_bad_sample=mode)
    ijb.files = {**FILES, "pairs.txt": []}
    with pytest.raises(DatasetError, match="lists no pair"):
        build(ijb, on_bad_sample=mode)
    (ijb.root / "tid_mid.txt").unlink()
    del ijb.files["tid_mid.txt"]
    with pytest.raises(DatasetError, match=r"Missing: template_file .*/tid_mid.txt"):
        build(ijb, on_bad_sample=mode)
