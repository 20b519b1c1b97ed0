"""Data sets of label images: classes by name, held-out classes, and clear errors."""

import copy

import cv2
import numpy as np
import pytest
from mmengine.registry import DATASETS, TRANSFORMS, DefaultScope
from PIL import Image

from negvision.data.images.bad_samples import collected_findings
from negvision.errors import ConfigError, DatasetError

LOAD = [
    {"type": "negvision.LoadImageFromFile"},
    {"type": "mmseg.Resize", "scale": (20, 16)},
    {"type": "negvision.LoadSegAnnotations"},
    {"type": "negvision.LoadOODMap", "ood_classes": ["cow"]},
    {"type": "negvision.PackSegInputs"},
]


def build(config):
    with DefaultScope.overwrite_default_scope("mmseg"):
        return DATASETS.build(copy.deepcopy(config))


def test_unchosen_classes_become_void(seg_folder):
    dataset = build(seg_folder.config(LOAD))
    assert len(dataset) == 4 and dataset.metainfo["classes"] == seg_folder.classes
    for index, name in enumerate(seg_folder.names):
        ids = seg_folder.ids[name]
        sample = dataset[index]["data_samples"]
        expected = np.full(ids.shape, 255)
        for label, class_id in enumerate((0, 1, 2)):
            expected[ids == class_id] = label
        assert np.array_equal(sample.gt_sem_seg.data[0], expected)
        assert np.array_equal(
            sample.gt_ood_map.data[0],
            np.where(ids == 5, 1, np.where(ids == 7, 255, 0)),
        )
        assert sample.img_path.endswith(f"{name}.jpg")
        # The map is that of the original image, the input is smaller.
        assert sample.gt_ood_map.data.shape == (1, 32, 40) and sample.img_shape == (16, 20)


def test_classes_without_a_file_are_the_ids_in_order(seg_folder):
    names = ("sky", "road", "car", "x", "y", "cow", "z", "thing")
    dataset = build(seg_folder.config(classes_file=None, metainfo={"classes": names}))
    assert dataset.label_map == {number: number for number in range(8)}
    with pytest.raises(DatasetError, match="the ids of the label images have no names"):
        build(seg_folder.config(classes_file=None, metainfo=None))


def test_palette_images_are_read_by_index(seg_folder):
    picture = Image.fromarray(seg_folder.ids["a"], mode="P")
    picture.putpalette([7 * value % 256 for value in range(768)])
    picture.save(seg_folder.root / "ann" / "a.png")
    labels = build(seg_folder.config(LOAD))[0]["data_samples"].gt_sem_seg.data[0]
    assert np.array_equal(labels == 2, seg_folder.ids["a"] == 2)


def test_unknown_class(seg_folder):
    with pytest.raises(DatasetError, match=r"metainfo\['classes'\]: 1 of 2 are no class") as error:
        build(seg_folder.config(metainfo={"classes": ["sky", "rod"]}))
    assert "'rod'; nearest: 'road'" in str(error.value)
    assert "The 5 classes: 'sky', 'road', 'car', 'cow', 'unknown thing'" in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 sky\nroad\n", 'line that is not "id name"'),
        ("0 sky\n0 road\n", "id that occurs twice"),
        ("0 sky\n1 sky\n", "name that occurs twice"),
        ("300 sky\n", "id that is not in 0 ... 254"),
        ("\n# nothing\n", "there is no class in it"),
    ],
)
def test_bad_class_lists(seg_folder, text, message):
    (seg_folder.root / "classes.txt").write_text(text)
    with pytest.raises(DatasetError, match=message):
        build(seg_folder.config())


@pytest.mark.parametrize("text", ["\ufeff0 sky\r\n1 road\r\n", "0\tsky\n1 \t road\t\n"])
def test_class_lists_of_other_tools(seg_folder, text):
    (seg_folder.root / "classes.txt").write_text(text, encoding="utf-8", newline="")
    dataset = build(seg_folder.config(metainfo={"classes": ["road", "sky"]}))
    assert dataset.class_ids == {"sky": 0, "road": 1}


def test_classes_compare_in_composed_form(seg_folder):
    (seg_folder.root / "classes.txt").write_text("0 ciel\n1 che\u0302ne\n")
    dataset = build(seg_folder.config(metainfo={"classes": ["ch\u00eane"]}))
    assert dataset.label_map == {0: 255, 1: 0}


def test_names_that_the_disk_spells_otherwise(seg_folder):
    (seg_folder.root / "img/a.jpg").rename(seg_folder.root / "img/a b.jpg")
    (seg_folder.root / "ann/a.png").rename(seg_folder.root / "ann/a b.png")
    (seg_folder.root / "list.txt").write_text("\ufeffa%20b\nb\n", encoding="utf-8")
    dataset = build(seg_folder.config(ann_file="list.txt"))
    assert [info["seg_map_path"][-7:] for info in dataset] == ["a b.png", "ann/b.png"[-7:]]


def test_hidden_files_are_no_images(seg_folder):
    copies = seg_folder.root / "img/.ipynb_checkpoints"
    copies.mkdir()
    (copies / "a-checkpoint.jpg").write_bytes((seg_folder.root / "img/a.jpg").read_bytes())
    assert len(build(seg_folder.config())) == 4


def test_files_of_other_suffixes_are_counted(seg_folder):
    (seg_folder.root / "img/e.bmp").write_bytes(b"")
    with collected_findings() as found:
        assert len(build(seg_folder.config())) == 4
    assert found.notes.counts == {"file passed over: .bmp": 1}


def test_missing_folders_and_files(seg_folder):
    with pytest.raises(DatasetError, match=r"classes_file .*none\.txt does not exist"):
        build(seg_folder.config(classes_file="none.txt"))
    with pytest.raises(DatasetError, match=r"Missing: data_prefix\['seg_map_path'\] .*/nowhere"):
        build(seg_folder.config(data_prefix={"img_path": "img", "seg_map_path": "nowhere"}))
    with pytest.raises(DatasetError, match=r"no image \*\.bmp found"):
        build(seg_folder.config(img_suffix=".bmp"))
    with pytest.raises(DatasetError, match="reduce_zero_label"):
        build(seg_folder.config(reduce_zero_label=True))


def test_missing_labels_are_counted_or_left_out(seg_folder, capsys):
    for name in "bd":
        (seg_folder.root / "ann" / f"{name}.png").unlink()
    with pytest.raises(DatasetError, match="2 problems in 4 images:\n  2 x missing label\n"):
        build(seg_folder.config())
    dataset = build(seg_folder.config(on_bad_sample="skip"))
    assert [info["img_path"][-5:] for info in dataset] == ["a.jpg", "c.jpg"]
    with pytest.raises(DatasetError, match=r"No image is left. .*'_labels.png' for '.jpg'"):
        build(seg_folder.config(seg_map_suffix="_labels.png", on_bad_sample="skip"))


def _wrong_size(folder):
    folder.write("a", np.zeros((40, 32), np.uint8))


def _unknown_id(folder):
    ids = folder.ids["a"].copy()
    ids[0, :3] = 9
    ids[1, 0] = 200
    folder.write("a", ids)


def _colors(folder):
    cv2.imwrite(str(folder.root / "ann" / "a.png"), np.zeros((32, 40, 3), np.uint8))


def _truncated(folder):
    path = folder.root / "ann" / "a.png"
    path.write_bytes(path.read_bytes()[:60])


def _deep(folder):
    cv2.imwrite(str(folder.root / "ann" / "a.png"), np.full((32, 40), 7000, np.uint16))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_wrong_size, r"a.png: the label image is 32 x 40 pixels \(width x height\), its image 40"),
        (
            _unknown_id,
            r"a.png: 4 of 1,280 pixels have an id without a class: 9 \(3 x\), 200 \(1 x\). "
            "Classes have the ids 0, 1, 2, 5, 7; void is 255",
        ),
        (_colors, "a.png: a label image has one channel of ids, this one has 3"),
        (_truncated, "a.png: not a complete label image"),
        (_deep, r"a.png: ids are 0 \.\.\. 255, this label image holds 7000 \.\.\. 7000"),
    ],
)
def test_bad_label_images(seg_folder, damage, message):
    damage(seg_folder)
    with pytest.raises(DatasetError, match=message):
        build(seg_folder.config(LOAD))[0]
    skipping = build(seg_folder.config(LOAD, on_bad_sample="skip"))
    assert skipping[0]["data_samples"].img_path[-5:] != "a.jpg"
    assert len(skipping.skipped_images) == 1
    with pytest.raises(DatasetError, match=message):
        build(seg_folder.config(LOAD, on_bad_sample="skip", test_mode=True))[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ood_classes": ["cows"]}, "LoadOODMap: ood_classes: 1 of 1 .*\n  'cows'; nearest: 'cow'"),
        ({"ood_classes": ["cow"], "void": ["thing"]}, "LoadOODMap: void: 1 of 1 are no class"),
        ({"ood_classes": ["cow"], "void": [5]}, "ood_classes has 'cow', which is void too"),
        ({"ood_classes": ["cow", "car"]}, "ood_classes has 'car', which is a trained class"),
    ],
)
def test_wrong_classes_of_the_map(seg_folder, options, message):
    pipeline = [{"type": "negvision.LoadOODMap", **options}]
    with pytest.raises(DatasetError, match=message):
        build(seg_folder.config(pipeline))[0]


def test_map_of_a_dataset_without_names_of_ids(seg_folder):
    """mmseg's own datasets, whose classes need not match the ids of the label images."""
    config = seg_folder.config(
        [
            {"type": "negvision.LoadOODMap", "ood_classes": [5], "void": [7]},
            {"type": "negvision.PackSegInputs"},
        ],
        type="BaseSegDataset",
    )
    del config["classes_file"]
    sample = build(config)[0]["data_samples"]
    ids = seg_folder.ids["a"]
    expected = np.where(ids == 5, 1, np.where(ids == 7, 255, 0))
    assert np.array_equal(sample.gt_ood_map.data[0], expected)
    assert "gt_sem_seg" not in sample
    config["pipeline"][0]["ood_classes"] = ["cow"]
    with pytest.raises(DatasetError, match="'cow', but this dataset does not name the ids"):
        build(config)[0]
    config["reduce_zero_label"] = True
    with pytest.raises(ConfigError, match="reduce_zero_label shifts"):
        build(config)[0]


def test_is_ood_is_packed():
    pack = TRANSFORMS.build({"type": "negvision.PackSegInputs"})
    packed = pack({"img": np.zeros((4, 4, 3), np.uint8), "is_ood": True, "img_path": "a"})
    assert packed["data_samples"].is_ood is True
    assert "is_ood" not in pack({"img_path": "a"})["data_samples"]


def test_digits(digits):
    parameters = {"train": 24, "val": 12, "test": 12, "test_ood": 6}
    config = {
        "type": "negvision.DigitsSegDataset",
        "data_root": str(digits),
        "digits": parameters,
        "pipeline": [
            {"type": "negvision.LoadImageFromFile"},
            {"type": "negvision.LoadSegAnnotations"},
            {"type": "negvision.LoadOODMap", "ood_classes": ["seven", "nine"]},
            {"type": "negvision.PackSegInputs"},
        ],
    }
    for split in ("train", "test", "test_ood"):
        dataset = build({**config, "split": split})
        assert len(dataset) == parameters[split]
        assert dataset.metainfo["classes"][:2] == ("background", "zero")
        assert len(dataset.metainfo["classes"]) == 9 and "seven" not in dataset.metainfo["classes"]
        ood = 0
        for sample in dataset:
            labels, truth = (
                sample["data_samples"].get(key).data for key in ("gt_sem_seg", "gt_ood_map")
            )
            ood += int((truth == 1).sum())
            assert (labels[truth == 1] == 255).all() and (labels[truth == 0] != 255).all()
        # Twelve test images may show none of the held-out digits.
        assert ood > 0 or split == "test"
    with pytest.raises(ConfigError, match=r"split must be one of .*got 'tests'; nearest: 'test'"):
        build({**config, "split": "tests"})


@pytest.mark.parametrize(
    "label_map",
    [
        {0: 0, 1: 1, 2: 2},
        {0: 0},
        {1: 0, 0: 1},
        {0: 0, 2: 1, 7: 255},
        {7: 255},
        {254: 0, 0: 254},
        {i: i for i in range(255)},
        {i: 254 - i for i in range(255)},
    ],
)
def test_each_id(tmp_path, label_map):
    """Every id is that of a class, void, or reported by its number."""
    path = str(tmp_path / "a.png")
    load = TRANSFORMS.build({"type": "negvision.LoadSegAnnotations"})
    for number in range(256):
        ids = np.full((3, 5), min(label_map), np.uint8)
        ids[1, 2] = number
        cv2.imwrite(path, ids)
        results = {
            "seg_map_path": path, "label_map": label_map, "ori_shape": (3, 5), "seg_fields": [],
        }  # fmt: skip
        if number != 255 and number not in label_map:
            with pytest.raises(DatasetError, match=rf"without a class: {number} \(1 x\)"):
                load(results)
        else:
            labels = load(results)["gt_seg_map"]
            assert labels[1, 2] == label_map.get(number, 255) and labels.dtype == np.uint8
            assert labels[0, 0] == label_map[min(label_map)]
