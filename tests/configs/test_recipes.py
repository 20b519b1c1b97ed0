"""The recipes hold the numbers that the paper and the published models were made with."""

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


def differences(a, b, path=""):
    """Dotted paths at which two nested configs differ."""
    if isinstance(a, dict) and isinstance(b, dict):
        found = set()
        for key in a.keys() | b.keys():
            where = f"{path}.{key}" if path else key
            if key not in a or key not in b:
                found.add(where)
            else:
                found |= differences(a[key], b[key], where)
        return found
    return set() if a == b else {path}


def outer(paths, depth):
    return {".".join(path.split(".")[:depth]) for path in paths}


def parameter_shapes(model):
    with DefaultScope.overwrite_default_scope("mmdet"), torch.device("meta"):
        return {name: p.shape for name, p in MODELS.build(model).state_dict().items()}


def test_atss_r50_is_the_recipe_of_the_paper():
    cfg = load("atss_r50.py")
    sgd = cfg.optim_wrapper.optimizer
    assert (sgd.type, sgd.lr, sgd.momentum, sgd.weight_decay) == ("SGD", 0.01, 0.9, 0.0001)
    assert cfg.optim_wrapper.get("clip_grad") is None
    assert cfg.auto_scale_lr.base_batch_size == 16
    assert cfg.train_dataloader.batch_size == 2
    assert cfg.train_cfg.max_epochs == 12
    warmup, steps = cfg.param_scheduler
    assert (warmup.type, warmup.start_factor, warmup.end) == ("LinearLR", 0.001, 500)
    assert not warmup.by_epoch
    assert (steps.type, steps.milestones, steps.gamma) == ("MultiStepLR", [8, 11], 0.1)

    head = cfg.model.bbox_head
    assert head.type == "negvision.ATSSHead" and head.stacked_convs == 4
    assert head.loss_cls.type == "FocalLoss"
    assert (head.loss_cls.gamma, head.loss_cls.alpha, head.loss_cls.loss_weight) == (2, 0.25, 1)
    assert (head.loss_bbox.mode, head.loss_bbox.loss_weight) == ("giou", 2.0)
    assert head.loss_centerness.type == "CrossEntropyLoss"
    assert head.loss_centerness.use_sigmoid and head.loss_centerness.loss_weight == 1.0
    anchors = head.anchor_generator
    assert (anchors.octave_base_scale, anchors.scales_per_octave) == (8, 1)
    assert (anchors.ratios, anchors.strides) == ([1.0], [8, 16, 32, 64, 128])
    assigner = cfg.model.train_cfg.assigner
    assert (assigner.type, assigner.topk) == ("negvision.ATSSAssigner", 9)

    backbone = cfg.model.backbone
    assert (backbone.depth, backbone.frozen_stages, backbone.norm_eval) == (50, 1, True)
    assert backbone.init_cfg.checkpoint == "torchvision://resnet50"
    sizes = [t.scale for t in cfg.train_dataloader.dataset.pipeline if t.type == "Resize"]
    assert sizes == [(1333, 800)]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("atss_r50.py", "atss/atss_r50_fpn_1x_coco.py"),
        ("atss/atss_r101.py", "atss/atss_r101_fpn_1x_coco.py"),
        (
            "atss/fcos_r50.py",
            "fcos/fcos_r50-caffe_fpn_gn-head-center-normbbox-centeronreg-giou_1x_coco.py",
        ),
    ],
)
def test_published_weights_fit(ours, theirs):
    published = parameter_shapes(Config.fromfile(MMDET / theirs).model)
    assert parameter_shapes(load(ours).model) == published


@pytest.mark.parametrize(
    ("plain", "changed", "where"),
    [
        ("retinanet_r50_one_anchor.py", "retinanet_r50_atss.py", {"train_cfg.assigner"}),
        (
            "fcos_r50.py",
            "fcos_r50_atss.py",
            {"train_cfg.assigner", "bbox_head.type", "bbox_head.anchor_scale"},
        ),
        (
            "fcos_r50.py",
            "fcos_r50_center_sampling.py",
            {"bbox_head.center_sampling", "bbox_head.center_sample_radius"},
        ),
        (
            "bccd_retinanet.py",
            "bccd_retinanet_atss.py",
            {"train_cfg.assigner", "bbox_head.type"},
        ),
    ],
)
def test_sides_of_a_comparison_differ_only_in_the_positives(plain, changed, where):
    a, b = load(f"atss/{plain}"), load(f"atss/{changed}")
    assert outer(differences(a.model, b.model), 2) == where
    rest = differences(a._cfg_dict, b._cfg_dict)
    assert outer(rest, 1) <= {"model"}


def test_table_3_has_the_rows_of_the_paper():
    baseline = load("atss/retinanet_r50_one_anchor.py").model.train_cfg.assigner
    assert baseline.type == "negvision.MaxIoUAssigner" and baseline.center_in_box
    assert (baseline.pos_iou_thr, baseline.neg_iou_thr) == (0.5, 0.4)
    assert load("atss/retinanet_r50_atss.py").model == load("atss_r50.py").model
    fcos = load("atss/fcos_r50.py").model
    assert fcos.bbox_head.norm_on_bbox and fcos.bbox_head.centerness_on_reg
    assert not fcos.bbox_head.center_sampling


def test_x101_trains_twice_as_long_at_several_sizes():
    cfg = load("atss/atss_x101_64x4d_dcn.py")
    assert cfg.train_cfg.max_epochs == 24
    assert cfg.param_scheduler[1].milestones == [16, 22]
    assert cfg.param_scheduler[1].end == 24
    (resize,) = (t for t in cfg.train_dataloader.dataset.pipeline if "Resize" in t.type)
    assert (resize.type, resize.scale) == ("RandomResize", [(1333, 640), (1333, 800)])
    assert cfg.model.backbone.stage_with_dcn == (False, True, True, True)
