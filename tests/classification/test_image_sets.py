"""Classification sets in packs, lists and folders: their samples, and bad data."""

import copy

import numpy as np
import pytest
import torch
from mmengine.dataset import ConcatDataset

from negvision.errors import ConfigError, DatasetError


def pictures_of(dataset):
    """All packed images, (H, W, 3), BGR."""
    return [sample["inputs"].permute(1, 2, 0).numpy() for sample in dataset]


def as_list(images):
    images.image("x/a 1.png", 0)
    images.image("x/b.jpg.png", 1)
    images.image("x/c.png", 2)
    images.text("set.txt", "a 1.png 0", "", "b.jpg.png 2", "c.png 1")
    return {"kind": "ImageListDataset", "ann_file": "set.txt", "data_prefix": {"img": "x"}}


def as_folders(images):
    for number, name in enumerate(["a/1.png", "c/1.PNG", "b/z.bmp"]):
        images.image(f"x/{name}", number)
    (images.root / "x/b/notes.txt").write_text("no image")
    images.image("x/beside.png")
    images.image("x/a/deeper/2.png")
    return {"kind": "ImageFolderDataset", "data_prefix": {"img": "x"}, "source": "set"}


def as_pack(images):
    images.pack("set.npz", labels=(0, 2, 1))
    return {"kind": "PackedImageDataset", "ann_file": "set.npz"}


KINDS = [as_pack, as_list, as_folders]
CLASSES = {"classes": ("a", "b", "c")}


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize("is_ood", [False, True])
def test_samples(images, make, is_ood):
    options = make(images)
    dataset = images.dataset(**options, metainfo=CLASSES, is_ood=is_ood, test_mode=is_ood)
    assert len(dataset) == 3 and dataset.metainfo["classes"] == ("a", "b", "c")
    # Folders are in the order of their names.
    numbers, labels = ([0, 2, 1], [0, 1, 2]) if make is as_folders else ([0, 1, 2], [0, 2, 1])
    reference = images.pack("reference.npz", labels=(0, 0, 0))
    expected = pictures_of(images.dataset("PackedImageDataset", ann_file=reference))
    for index, sample in enumerate(dataset):
        info, packed = dataset.get_data_info(index), sample["data_samples"]
        assert info["label"] == packed.label.item() == (-1 if is_ood else labels[index])
        assert info["is_ood"] is packed.is_ood is is_ood
        assert info["source"] == packed.source == "set"
        assert info["img_path"] == packed.img_path
        assert packed.sample_idx == index and packed.ori_shape == (8, 8)
        assert sample["inputs"].dtype == torch.uint8
        picture = sample["inputs"].permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(picture, expected[numbers[index]])


def test_concatenation_of_id_and_ood_sets(images):
    images.pack("in.npz", labels=(0, 1))
    images.pack("out.npz", labels=(5, 6, 7), classes=["others"])
    images.image("far/q/1.png")
    common = {"data_root": str(images.root), "test_mode": True, "pipeline": []}
    out = {**common, "is_ood": True}
    packed = "negvision.PackedImageDataset"
    sets = [
        {"type": packed, "ann_file": "in.npz", **common},
        {"type": packed, "ann_file": "out.npz", "source": "near", **out},
        {
            "type": "negvision.ImageFolderDataset",
            "data_prefix": {"img": "far"},
            "source": "far",
            **out,
        },
    ]
    joined = ConcatDataset(copy.deepcopy(sets), ignore_keys=["classes"])
    assert joined.metainfo["classes"] == ("a", "b", "c")
    kinds = [(info["source"], info["is_ood"], info["label"]) for info in joined]
    assert kinds == [
        ("in", False, 0),
        ("in", False, 1),
        *[("near", True, -1)] * 3,
        ("far", True, -1),
    ]
    with pytest.raises(ValueError, match="does not match meta information of the first"):
        ConcatDataset(copy.deepcopy(sets))


@pytest.mark.parametrize("make", KINDS)
def test_ood_sets_are_for_evaluation_only(images, make):
    options = make(images)
    message = rf"^{options['kind']} with is_ood=True .*set test_mode=True as well, or remove it"
    with pytest.raises(ConfigError, match=message):
        images.dataset(**options, is_ood=True)


def test_classes_of_a_pack_must_equal_metainfo(images):
    images.pack("set.npz")
    message = r"its classes are \('a', 'b', 'c'\), but metainfo has \('b', 'a', 'c'\)"
    wrong = {"classes": ("b", "a", "c")}
    with pytest.raises(DatasetError, match=message):
        images.dataset("PackedImageDataset", ann_file="set.npz", metainfo=wrong)
    # OOD images have no class.
    options = {"metainfo": wrong, "is_ood": True, "test_mode": True}
    assert len(images.dataset("PackedImageDataset", ann_file="set.npz", **options)) == 4


def test_labels_of_a_pack_out_of_range(images, log):
    images.pack("set.npz", labels=(0, 3, 1, -1, 9, 2))
    with pytest.raises(DatasetError) as caught:
        images.dataset("PackedImageDataset", ann_file="set.npz")
    text = str(caught.value)
    assert text.startswith(f"{images.root}/set.npz: 3 problems in 6 images:")
    assert "2 x label out of range: there are 3 classes" in text and "set.npz:1: 3" in text
    assert "1 x negative label" in text and "set.npz:3: -1" in text
    assert 'on_bad_sample="skip"' in text
    dataset = images.dataset("PackedImageDataset", ann_file="set.npz", on_bad_sample="skip")
    (message,) = log
    assert "left out of 6 images: 2 x label out of range" in message
    assert "1 x negative label" in message
    assert [dataset.get_data_info(i)["label"] for i in range(len(dataset))] == [0, 1, 2]
    # Each label belongs to its image.
    whole = images.pack("whole.npz", labels=(0,) * 6)
    expected = pictures_of(images.dataset("PackedImageDataset", ann_file=whole))
    for found, place in zip(pictures_of(dataset), (0, 2, 5), strict=True):
        np.testing.assert_array_equal(found, expected[place])
    # Labels of OOD images are not checked.
    dataset = images.dataset("PackedImageDataset", ann_file="set.npz", is_ood=True, test_mode=True)
    assert len(dataset) == 6


def test_a_pack_without_usable_images(images):
    images.pack("set.npz", labels=(3, 4))
    with pytest.raises(DatasetError, match=r"2 problems in 2 images(.|\n)*No image is left"):
        images.dataset("PackedImageDataset", ann_file="set.npz", on_bad_sample="skip")
    images.pack("set.npz", labels=())
    with pytest.raises(DatasetError, match=r"set.npz: no image is in it; it is empty"):
        images.dataset("PackedImageDataset", ann_file="set.npz", on_bad_sample="skip")


def test_damaged_images_of_a_pack(images, log):
    images.pack("set.npz", damaged=[1, 3])
    dataset = images.dataset("PackedImageDataset", ann_file="set.npz")
    with pytest.raises(DatasetError, match=r"set\.npz:1: truncated PNG"):
        dataset[1]
    assert not log
    options = {"ann_file": "set.npz", "on_bad_sample": "skip"}
    dataset = images.dataset("PackedImageDataset", **options)
    for _ in range(3):
        # Another image replaces it.
        assert dataset[1]["data_samples"].sample_idx in (0, 2)
        assert dataset[0]["data_samples"].sample_idx == 0
    assert dataset.skipped_images[f"{images.root}/set.npz:1"] >= 3
    assert sum("set.npz:1: truncated PNG" in message for message in log) == 1
    assert log[0].startswith("image skipped (1 in this process so far): ")
    # Metrics over fewer images would be misleading.
    dataset = images.dataset("PackedImageDataset", **options, test_mode=True)
    with pytest.raises(DatasetError, match=r"set\.npz:3: truncated PNG"):
        dataset[3]


@pytest.mark.parametrize("kind", ["PackedImageDataset", "ImageListDataset"])
def test_missing_files(images, kind):
    with pytest.raises(
        DatasetError, match=rf"Missing: ann_file {images.root}/none.x(.|\n)*--data-root"
    ):
        images.dataset(kind, ann_file="none.x")
    with pytest.raises(DatasetError, match=f"set it to the file that {kind} reads"):
        images.dataset(kind)
