"""Problems in lists and folders of images."""

import pytest

from negvision.classification.datasets import ImageFolderDataset
from negvision.data.images.bad_samples import collected_findings
from negvision.errors import DatasetError

CLASSES = {"classes": ("a", "b", "c")}


@pytest.fixture
def folders(images):
    """Options of a set with an image in each of three folders."""
    for number, name in enumerate(["a/1.png", "c/1.png", "b/1.png"]):
        images.image(f"x/{name}", number)
    return {"kind": "ImageFolderDataset", "data_prefix": {"img": "x"}}


def test_problems_of_a_list(images, log):
    for number in range(3):
        images.image(f"{number}.png", number)
    lines = ["0.png 0", "1.png", "1.png one", "none.png 1", "1.png 3", "2.png -1", "2.png 2"]
    options = {"ann_file": images.text("set.txt", *lines), "metainfo": CLASSES}
    with pytest.raises(DatasetError) as caught:
        images.dataset("ImageListDataset", **options)
    text = str(caught.value)
    assert text.startswith(f"{images.root}/set.txt: 5 problems in 7 images:")
    for kind, place in {
        "line that is not 'path label'": "set.txt:2: '1.png'",
        "label that is not an integer": "set.txt:3: '1.png one'",
        "missing image file": f"set.txt:4: '{images.root}/none.png'",
        "label out of range: there are 3 classes": "set.txt:5: '1.png 3'",
        "negative label": "set.txt:6: '2.png -1'",
    }.items():
        assert f"1 x {kind}" in text and place in text
    dataset = images.dataset("ImageListDataset", **options, on_bad_sample="skip")
    assert [dataset.get_data_info(i)["label"] for i in range(len(dataset))] == [0, 2]
    assert len(log) == 1 and "left out of 7 images" in log[0] and "1 x missing image" in log[0]


def test_a_list_without_usable_images(images):
    images.image("x/0.png")
    images.text("set.txt", "0.png 0")
    with pytest.raises(
        DatasetError, match=r"No image is left. Do data_root and data_prefix\['img'\]"
    ):
        images.dataset("ImageListDataset", ann_file="set.txt", on_bad_sample="skip")
    images.text("set.txt", "", " ")
    with pytest.raises(DatasetError, match=r"set.txt: no image is in it; it is empty"):
        images.dataset("ImageListDataset", ann_file="set.txt")


def test_classes_of_folders(images, folders):
    assert images.dataset(**folders).metainfo["classes"] == ("a", "b", "c")
    turned = images.dataset(**folders, metainfo={"classes": ("c", "b", "a")})
    assert [turned.get_data_info(i)["label"] for i in range(3)] == [2, 1, 0]


def test_problems_of_folders(images, folders, log):
    (images.root / "x/empty").mkdir()
    some = {"metainfo": {"classes": ("a", "b")}}
    with pytest.raises(DatasetError) as caught:
        images.dataset(**folders, **some)
    text = str(caught.value)
    assert "1 x class folder without an image" in text and f"{images.root}/x/empty" in text
    assert "1 x folder of no class" in text and f"{images.root}/x/c: 'c'" in text
    dataset = images.dataset(**folders, **some, on_bad_sample="skip")
    assert len(dataset) == 2 and "1 x folder of no class" in log[0]
    # Folders of unknown images are of no class anyway.
    (images.root / "x/empty").rmdir()
    assert len(images.dataset(**folders, **some, is_ood=True, test_mode=True)) == 3


def test_missing_folders(images):
    with pytest.raises(
        DatasetError, match=rf"Missing: data_prefix\['img'\] {images.root}/none(.|\n)*--data-root"
    ):
        images.dataset("ImageFolderDataset", data_prefix={"img": "none"})
    images.image("beside.png")
    with pytest.raises(DatasetError, match="no image is in it; it is empty"):
        images.dataset("ImageFolderDataset")
    (images.root / "a").mkdir()
    with pytest.raises(
        DatasetError, match=r"1 x class folder without an image(.|\n)*No image is left"
    ):
        images.dataset("ImageFolderDataset", on_bad_sample="skip")


def test_a_class_without_a_folder(tmp_path):
    (tmp_path / "cats").mkdir()
    (tmp_path / "cats" / "1.jpg").write_bytes(b"")
    options = {"data_root": str(tmp_path), "metainfo": {"classes": ("cats", "dogs")}}
    with pytest.raises(DatasetError, match=r"1 x class without a folder\n.*'dogs'"):
        ImageFolderDataset(**options)
    assert len(ImageFolderDataset(**options, on_bad_sample="skip")) == 1


def test_what_systems_leave_in_folders_is_no_class(images, folders):
    for name in (".ipynb_checkpoints/1-checkpoint.png", "__MACOSX/1.png", "@eaDir/1.png"):
        images.image(f"x/{name}")
    (images.root / "x/a/._1.png").write_bytes(b"\0\5\x16\7")
    images.image("x/a/.ipynb_checkpoints/1.png")
    dataset = images.dataset(**folders)
    assert dataset.metainfo["classes"] == ("a", "b", "c") and len(dataset) == 3


def test_names_that_the_disk_spells_otherwise(images):
    for number, name in enumerate(["my a.png", "cafe\u0301.png", "x/b.png"]):
        images.image(name, number)
    lines = ["my%20a.png 0", "caf\u00e9.png 1", "x\\b.png 2"]
    dataset = images.dataset("ImageListDataset", ann_file=images.text("set.txt", *lines))
    assert [dataset[i]["data_samples"].label for i in range(3)] == [0, 1, 2]


def test_folders_match_classes_in_composed_form(images):
    images.image("x/cafe\u0301/1.png")
    options = {"kind": "ImageFolderDataset", "data_prefix": {"img": "x"}}
    dataset = images.dataset(**options, metainfo={"classes": ("caf\u00e9",)})
    assert len(dataset) == 1 == len(images.dataset(**options))


def test_files_of_other_suffixes_are_counted(tmp_path):
    (tmp_path / "cat").mkdir()
    for name in ("1.jpg", "2.heic", "._1.jpg"):
        (tmp_path / "cat" / name).write_bytes(b"")
    with collected_findings() as found:
        assert len(ImageFolderDataset(data_root=str(tmp_path))) == 1
    kinds = {"file passed over: .heic": 1, "file passed over: hidden": 1}
    assert found.notes.counts == kinds
