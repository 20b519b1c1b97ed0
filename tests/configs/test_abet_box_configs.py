"""Both sides of the comparisons with AbeT hold the recipe, and differ in their head alone."""

from pathlib import Path

import mmdet
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import DefaultScope

from negvision.engine.config.reading import load_config

CONFIGS = Path(__file__).parents[2] / "configs"
MMDET = Path(mmdet.__file__).parent / ".mim" / "configs"


def load(name):
    return load_config(CONFIGS / name)


@pytest.mark.parametrize(
    ("plain", "abet"),
    [
        ("abet/voc_faster_rcnn_r50.py", "abet_faster_rcnn_r50.py"),
        ("abet/cards_faster_rcnn.py", "abet/cards_abet.py"),
    ],
)
def test_sides_differ_only_in_the_type_of_the_box_head(plain, abet):
    a, b = load(plain), load(abet)
    types = [cfg.model.roi_head.bbox_head.pop("type") for cfg in (a, b)]
    assert types == ["negvision.OODBBoxHead", "negvision.AbeTBBoxHead"]
    assert a._cfg_dict == b._cfg_dict


@pytest.mark.parametrize("name", ["abet_faster_rcnn_r50.py", "abet/cascade_abet_r50.py"])
def test_voc_recipe(name):
    cfg = load(name)
    assert cfg.train_cfg.max_iters == 18000 and cfg.train_dataloader.batch_size == 4
    sgd = cfg.optim_wrapper.optimizer
    assert (sgd.type, sgd.lr, sgd.momentum, sgd.weight_decay) == ("SGD", 0.02, 0.9, 0.0001)
    warmup, steps = cfg.param_scheduler
    assert (warmup.end, warmup.by_epoch) == (100, False)
    assert (steps.milestones, steps.gamma, steps.by_epoch) == ([12000, 16000], 0.1, False)
    (resize,) = (t for t in cfg.train_dataloader.dataset.pipeline if "Resize" in t.type)
    assert [side for _, side in resize.scales] == list(range(480, 801, 32))
    assert len(cfg.train_dataloader.dataset.metainfo.classes) == 20


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("abet/voc_faster_rcnn_r50.py", "_base_/models/faster-rcnn_r50_fpn.py"),
        ("abet/cascade_abet_r50.py", "_base_/models/cascade-rcnn_r50_fpn.py"),
    ],
)
def test_networks_are_those_of_mmdet(ours, theirs):
    """With the box head of mmdet in its place, published weights of COCO fit."""
    shapes = []
    for model in (load(ours).model, Config.fromfile(MMDET / theirs).model):
        heads = model.roi_head.bbox_head
        for head in heads if isinstance(heads, list) else [heads]:
            head.update(type="Shared2FCBBoxHead", num_classes=80)
        with DefaultScope.overwrite_default_scope("mmdet"), torch.device("meta"):
            built = MODELS.build(model)
        shapes.append({name: value.shape for name, value in built.state_dict().items()})
    assert shapes[0] == shapes[1]


def test_a_cascade_asks_for_more_overlap_at_each_stage():
    model = load("abet/cascade_abet_r50.py").model
    assert {head.type for head in model.roi_head.bbox_head} == {"negvision.AbeTBBoxHead"}
    assert [stage.assigner.pos_iou_thr for stage in model.train_cfg.rcnn] == [0.5, 0.6, 0.7]
    first, *_, last = (head.bbox_coder.target_stds for head in model.roi_head.bbox_head)
    assert first == [0.1, 0.1, 0.2, 0.2]
    assert last == pytest.approx([0.1 / 3, 0.1 / 3, 0.2 / 3, 0.2 / 3])


@pytest.mark.parametrize(
    "name",
    ["abet_faster_rcnn_r50.py", "abet/atss_abet_r50.py", "abet/cards_abet.py"],
)
def test_both_kinds_of_images_are_evaluated(name):
    cfg = load(name)
    known, unknown = cfg.val_dataloader.dataset.datasets
    assert (known.type, unknown.type) == ("negvision.CocoDataset", "negvision.OODCocoDataset")
    assert known.metainfo == unknown.metainfo == cfg.train_dataloader.dataset.metainfo
    assert cfg.val_evaluator.type == "negvision.OODBoxMetric"
    assert cfg.val_evaluator.ann_file == known.data_root + known.ann_file
    for dataset in (known, unknown):
        assert {"img_id", "img_path", "is_ood"} <= set(dataset.pipeline[-1].meta_keys)
    head = cfg.model.get("bbox_head") or cfg.model.roi_head.bbox_head
    assert head.num_classes == len(known.metainfo.classes)


def test_cards_are_never_mirrored():
    pipeline = load("abet/cards_abet.py").train_dataloader.dataset.pipeline
    (flip,) = (t for t in pipeline if "Flip" in t.type)
    # Half a turn is a diagonal flip; a card has no upright position, but it has a handedness.
    assert flip.direction == "diagonal"
