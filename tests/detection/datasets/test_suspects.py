"""Training that does not believe what an audit suspects."""

import random

import numpy as np
import pytest
import torch
from mmengine.config import Config

from negvision.classification.datasets import ImageListDataset
from negvision.data.suspects import Suspect, Suspects
from negvision.engine.config.options import use_suspects
from negvision.errors import ConfigError, DatasetError

CLASSES = ["cat", "dog"]
BOX = (60.0, 40.0, 80.0, 30.0)  # reaches beyond its image


def suspects(coco, *found: Suspect, classes=CLASSES) -> str:
    if not coco.ann_file.exists():
        coco.write()
    path = coco.root / "suspects.json"
    Suspects.of(found, coco.ann_file, classes, "model").save(path)
    return str(path)


def test_suspects_are_ignored_as_often_as_they_are_wrong(coco):
    coco.content["annotations"][1]["iscrowd"] = 1
    file = suspects(
        coco,
        Suspect("missing", "a.jpg", 1, bbox=BOX, proposed="dog", probability=0.7),
        Suspect("class", "a.jpg", 1, 10, probability=0.2),
        Suspect("location", "a.jpg", 1, 10, probability=0.1),
        Suspect("duplicate", "c.jpg", 3, 31, probability=1.0),
        Suspect("class", "a.jpg", 1, 11, probability=1.0),  # a crowd stays what it is
        Suspect("missing", "b.jpg", 2, bbox=BOX, proposed="dog", probability=1.0),
        Suspect("missing", "d.png", 4, bbox=BOX, proposed="dog"),  # a half without a number
        Suspect("missing", "c.jpg", 3, bbox=(200.0, 0.0, 9.0, 9.0), proposed="cat"),
    )
    random.seed(0)
    dataset = coco.dataset(suspects=file)
    draws = [dataset[0]["data_samples"] for _ in range(400)]
    wrong = sum(len(draw.gt_instances) == 0 for draw in draws)
    missing = [
        draw.ignored_instances.bboxes.tensor[-1].tolist() == [60.0, 40.0, 100.0, 70.0]
        for draw in draws
    ]
    assert 0.12 < wrong / 400 < 0.28 and 0.6 < sum(missing) / 400 < 0.8
    assert all(len(dataset[1]["data_samples"].ignored_instances) == 1 for _ in range(9))
    second = dataset[2]["data_samples"]  # taken away: ignored, it would hide the first box
    assert len(second.ignored_instances) == 0 and len(second.gt_instances) == 1
    unknown = [len(dataset[3]["data_samples"].ignored_instances) for _ in range(100)]
    assert 35 < sum(unknown) < 65


def test_without_suspects_nothing_is_drawn(coco):
    file = suspects(coco)
    random.seed(0)
    before, plain = random.getstate(), coco.dataset()
    samples = [one[0]["data_samples"] for one in (plain, coco.dataset(suspects=file))]
    assert random.getstate() == before
    boxes = [sample.gt_instances.bboxes.tensor for sample in samples]
    assert torch.equal(*boxes) and not len(samples[1].ignored_instances)


def test_suspects_of_other_annotations_or_classes_or_in_a_test_are_refused(coco):
    file = suspects(coco, classes=["dog", "cat"])
    with pytest.raises(DatasetError, match="these suspects are for the classes dog, cat"):
        coco.dataset(suspects=file)
    with pytest.raises(ConfigError, match="Suspects change what is trained"):
        coco.dataset(suspects=suspects(coco), test_mode=True)
    coco.content["annotations"].pop()
    coco.write()
    with pytest.raises(DatasetError, match="run negvision audit on it again"):
        coco.dataset(suspects=file)


def config(assigner: str, dataset: str = "negvision.CocoDataset", **model) -> Config:
    rcnn = {"assigner": {"type": assigner}}
    part = {"rpn": {"assigner": {"type": "MaxIoUAssigner", "ignore_iof_thr": 0.3}}, "rcnn": [rcnn]}
    data = {"dataset": {"type": "RepeatDataset", "dataset": {"type": dataset, "ann_file": "a"}}}
    return Config({"train_dataloader": data, "model": {"train_cfg": part, "type": "Net", **model}})


def test_the_option_reaches_data_set_and_every_assigner():
    cfg = config("negvision.ATSSAssigner")
    for _ in range(2):  # the config of a run that is resumed has it already
        use_suspects(cfg, "/s.json")
        assert cfg.train_dataloader.dataset.dataset.suspects == "/s.json"
        rpn, rcnn = cfg.model.train_cfg.rpn.assigner, cfg.model.train_cfg.rcnn[0].assigner
        assert rpn.type == rcnn.type == "negvision.IgnoringAssigner"
        assert rpn.assigner.ignore_iof_thr == 0.3 and list(rcnn.assigner) == ["type"]


@pytest.mark.parametrize(
    "cfg,message",
    [
        (config("HungarianAssigner"), "has HungarianAssigner"),
        (config("MaxIoUAssigner", roi_head={"type": "DynamicRoIHead"}), "cannot ignore boxes"),
        (config("MaxIoUAssigner", train_cfg={}), "cannot ignore boxes"),
        (config("MaxIoUAssigner", dataset="CocoDataset"), "this is CocoDataset"),
    ],
    ids=["another assigner", "assigner that is changed", "no assigner", "mmdet's data set"],
)
def test_what_would_have_no_effect_is_refused(cfg, message):
    with pytest.raises(ConfigError, match=message):
        use_suspects(cfg, "s.json")


def test_images_whose_label_is_wrong_give_their_place_to_others(tmp_path):
    for name in "abc":
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "train.txt").write_text("a 0\nb 1\nc 1\n")

    def dataset(*chances, kind="image"):
        found = [Suspect(kind, n, probability=p) for n, p in zip("abc", chances, strict=False)]
        Suspects.of(found, tmp_path / "train.txt", CLASSES, "model").save(tmp_path / "s.json")
        options = {"metainfo": {"classes": CLASSES}, "suspects": str(tmp_path / "s.json")}
        return ImageListDataset("train.txt", str(tmp_path), **options)

    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    doubted, certain = dataset(0.3), dataset(1.0)
    others = sum(doubted[0]["img_path"][-1] != "a" for _ in range(400))
    assert 0.12 < others / 400 < 0.28  # a third of the others is the image itself
    assert {certain[0]["img_path"][-1] for _ in range(40)} == {"b", "c"}
    assert {certain[1]["img_path"][-1] for _ in range(9)} == {"b"}
    assert dataset(1.0, kind="class")[0]["img_path"][-1] == "a"
    with pytest.raises(DatasetError, match="none is left to train"):
        dataset(1.0, 1.0, 1.0)
