"""Annotation files of all tasks stay inside the data root."""

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from negvision.classification.datasets import ImageListDataset
from negvision.data.formats.paths import LEAVES_ROOT, leaves_root
from negvision.detection.datasets import CocoDataset
from negvision.errors import DatasetError
from negvision.face.datasets import (
    FaceIdentificationDataset,
    FaceListDataset,
    FacePairDataset,
    FaceTemplateDataset,
)

LEAVING = [
    "../../secret.jpg", "a/../../../secret.jpg", "/etc/passwd", "..\\..\\secret.jpg",
    "C:\\secret.jpg", "c:secret.jpg", "a.jpg\0.png", "..", "../..",
]  # fmt: skip
STAYING = ["a.jpg", "b/a.jpg", "b/../a.jpg", "./a.jpg", "..a.jpg", "a..jpg", "b/..a", "10:30.jpg"]


@pytest.mark.parametrize("folder", ["data/img", "", "s3://bucket/img"])
def test_paths_that_leave_and_stay(folder):
    assert [name for name in LEAVING if not leaves_root(name, folder)] == []
    assert [name for name in STAYING if leaves_root(name, folder)] == []


def test_root_is_wider_than_the_image_folder():
    assert leaves_root("../val/a.jpg", "data/img")
    assert not leaves_root("../val/a.jpg", "data/img", "data")
    assert leaves_root("../../val/a.jpg", "data/img", "data")
    assert not leaves_root(os.path.abspath("data/a.jpg"), "data/img", "data/")
    assert leaves_root(os.path.abspath("data2/a.jpg"), "data/img", "data")
    # A config may name a folder elsewhere; what lies in it is inside.
    assert not leaves_root("../b/a.jpg", "/elsewhere/img/a", "/elsewhere/img")
    assert not leaves_root("b/../a.jpg", "/elsewhere/img", "data")
    assert not leaves_root("/etc/passwd", "", "/")


@given(st.text(alphabet="ab./\\:", max_size=12))
def test_paths_that_stay_are_inside(name):
    """The quick look passes nothing that Python's own join and normalization lead outside."""
    if not leaves_root(name, "/data/img", "/data"):
        path = os.path.normpath(os.path.join("/data/img", name))
        assert path == "/data" or path.startswith("/data/")


def _coco(root, names):
    content = {
        "images": [
            {"id": i, "file_name": name, "width": 30, "height": 20} for i, name in enumerate(names)
        ],
        "annotations": [],
        "categories": [{"id": 1, "name": "a"}],
    }
    (root / "list").write_text(json.dumps(content))
    return CocoDataset


def labeled(kind):
    def write(root, names):
        (root / "list").write_text("".join(f"{name} 0\n" for name in names))
        return kind

    return write


def _pairs(root, names):
    (root / "list").write_text("".join(f"a.jpg {name} 0\n" for name in names))
    return FacePairDataset


def _lfw(root, names):
    (root / "list").write_text("1 1\n" + "".join(f"{name}\t1\ta\t1\n" for name in names))
    return FacePairDataset


def _identification(root, names):
    (root / "gallery").write_text("a.jpg 0\n")
    labeled(None)(root, ["c.jpg", *names[1:]])
    return lambda **kwargs: FaceIdentificationDataset(
        probe_file="list", **kwargs | {"ann_file": "gallery"}
    )


def _templates(root, names):
    points = " ".join(map(str, range(10)))
    (root / "list").write_text("".join(f"{name} {points}\n" for name in names))
    (root / "templates").write_text("".join(f"{name} 1 1\n" for name in names))
    (root / "pairs").write_text("1 1 1\n")
    return lambda **kwargs: FaceTemplateDataset(
        template_file="templates", pairs_file="pairs", **kwargs
    )


def _segmentation(root, names):
    folder = pytest.importorskip("negvision.segmentation.datasets.folder")
    (root / "list").write_text("".join(f"{name}\n" for name in names))

    def make(data_prefix, **kwargs):
        prefix = {"img_path": data_prefix["img"], "seg_map_path": data_prefix["img"]}
        return folder.SegDataset(
            data_prefix=prefix, metainfo={"classes": ["a"]}, seg_map_suffix=".jpg", **kwargs
        )

    return make


WRITERS = {
    "coco": _coco,
    "images": labeled(ImageListDataset),
    "faces": labeled(FaceListDataset),
    "pairs": _pairs,
    "identification": _identification,
    "templates": _templates,
    "segmentation": _segmentation,
}


@pytest.mark.parametrize("writer", WRITERS.values(), ids=WRITERS)
@pytest.mark.parametrize("name", ["../../secret.jpg", "ABSOLUTE", "..\\..\\secret.jpg"])
def test_datasets_do_not_follow_paths_that_leave(tmp_path, writer, name):
    root = tmp_path / "data"
    (root / "img").mkdir(parents=True)
    secret = tmp_path / "secret.jpg"
    for path in (secret, root / "img/a.jpg", root / "img/c.jpg", root / "img/..\\..\\secret.jpg"):
        path.write_bytes(b"")
    make = writer(root, ["a.jpg", str(secret) if name == "ABSOLUTE" else name])
    options = {"data_root": str(root), "ann_file": "list", "data_prefix": {"img": "img/"}}
    with pytest.raises(DatasetError, match=f"1 x {LEAVES_ROOT}") as caught:
        make(**options)
    assert "secret" in str(caught.value) and str(root) in str(caught.value)
    if writer is not _pairs:  # nothing is left of a single pair
        dataset = make(**options, on_bad_sample="skip")
        paths = [dataset.get_data_info(i)["img_path"] for i in range(len(dataset))]
        assert {os.path.basename(path) for path in paths} <= {"a.jpg", "c.jpg"}


def test_names_of_lfw(tmp_path):
    (tmp_path / "img").mkdir()
    (tmp_path / "x").mkdir()
    (tmp_path / "x/x_0001.jpg").write_bytes(b"")
    make = _lfw(tmp_path / "img", ["../x"])
    with pytest.raises(DatasetError, match=LEAVES_ROOT):
        make(data_root=str(tmp_path / "img"), ann_file="list")
