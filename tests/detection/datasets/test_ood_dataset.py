"""OODCocoDataset: its samples, its checks, and concatenation with the ID set."""

import pytest

from negvision.errors import ConfigError, DatasetError
from negvision.registry import DATASETS

LOAD = [
    {"type": "negvision.LoadImageFromFile"},
    {"type": "mmdet.LoadAnnotations", "with_bbox": True},
]
KNOWN = {"classes": ("ace", "king")}
PACK = {
    "type": "mmdet.PackDetInputs",
    "meta_keys": ("img_id", "img_path", "ori_shape", "is_ood"),
}


def ood(coco, **kwargs):
    options = {"type": "negvision.OODCocoDataset", "metainfo": KNOWN, "test_mode": True}
    return coco.dataset(**{**options, **kwargs})


def test_objects_are_ignore_boxes(coco):
    dataset = ood(coco)
    assert len(dataset) == 4 and dataset.metainfo["classes"] == ("ace", "king")
    for index in range(4):
        info = dataset.get_data_info(index)
        assert info["is_ood"] is True
        assert [item["bbox"] for item in info["instances"]] == [[5, 10, 25, 40], [35, 10, 55, 40]]
        assert {item["ignore_flag"] for item in info["instances"]} == {1}
        assert {item["bbox_label"] for item in info["instances"]} == {-1}


def test_is_ood_is_packed_with_meta_keys(coco):
    sample = ood(coco, pipeline=[*LOAD, PACK])[0]["data_samples"]
    assert sample.is_ood is True
    assert len(sample.gt_instances) == 0 and len(sample.ignored_instances) == 2


def test_classes_are_required(coco):
    with pytest.raises(ConfigError, match=r"needs metainfo=dict\(classes=\(\.\.\.\)\).*trained on"):
        ood(coco, metainfo=None)


def test_an_object_of_a_known_class_is_an_error(coco):
    coco.content["categories"][1]["name"] = "king"
    with pytest.raises(DatasetError, match=r"'king' on 4 of its 4 images.*make-ood-split"):
        ood(coco)
    with pytest.raises(DatasetError, match="'king' on 4"):
        ood(coco, on_bad_sample="skip")


@pytest.mark.parametrize(
    ("name", "classes", "synonyms"),
    [
        ("King", ("king",), None),
        ("dining table", ("diningtable",), None),
        ("couch", ("sofa",), None),
        ("Rex", ("ace", "king"), {"rex": "King"}),
    ],
)
def test_a_known_class_under_another_name_is_an_error(coco, name, classes, synonyms):
    coco.content["categories"][1]["name"] = name
    with pytest.raises(DatasetError, match=f"'{name}' on 4 of its 4 images"):
        ood(coco, metainfo={"classes": classes}, synonyms=synonyms)


def known_config(folder, **kwargs) -> dict:
    return {
        "data_root": str(folder.root),
        "ann_file": "labels.json",
        "data_prefix": {"img": "images/"},
        "test_mode": True,
        "pipeline": [*LOAD, PACK],
        **kwargs,
    }


@pytest.fixture
def both(coco, tmp_path):
    """Configs of an ID set and of an OOD set with the same image ids."""
    (tmp_path / "id").mkdir()
    known = type(coco)(tmp_path / "id")
    for category, name in zip(known.content["categories"], KNOWN["classes"], strict=True):
        category["name"] = name
    known.write()
    coco.write()
    return [
        known_config(known, type="negvision.CocoDataset"),
        known_config(coco, type="negvision.OODCocoDataset", metainfo=KNOWN),
    ]


def test_concatenation_with_the_id_set(both):
    dataset = DATASETS.build({"type": "mmdet.ConcatDataset", "datasets": both})
    assert len(dataset) == 8 and dataset.metainfo["classes"] == ("ace", "king")
    samples = [dataset[index]["data_samples"] for index in range(8)]
    assert [sample.get("is_ood", False) for sample in samples] == [False] * 4 + [True] * 4
    assert [sample.img_id for sample in samples] == [1, 2, 3, 4] * 2
    assert len({sample.img_path for sample in samples}) == 8
    assert [len(sample.gt_instances) for sample in samples] == [2] * 4 + [0] * 4


def test_real_cards(shared_data):
    root = str(shared_data / "cards")
    options = {
        "type": "negvision.OODCocoDataset",
        "metainfo": {"classes": ("ace", "jack", "king", "nine")},
        "data_root": root,
        "data_prefix": {"img": "images/"},
        "test_mode": True,
    }
    dataset = DATASETS.build({**options, "ann_file": "annotations/test_ood.json"})
    assert len(dataset) == 75
    with pytest.raises(DatasetError, match=r"'ace' on \d+, .* of its 15 images"):
        DATASETS.build({**options, "ann_file": "annotations/test_mixed.json"})
