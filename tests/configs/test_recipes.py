"""The recipes hold the numbers of the papers, and both sides of a comparison differ as they say."""

from pathlib import Path

import mmdet
import pytest
import torch
from helpers import ROOT
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import DefaultScope

from negvision.engine.config.reading import load_config

CONFIGS = ROOT / "configs"
MMDET = Path(mmdet.__file__).parent / ".mim" / "configs"
ONE_STAGE = {
    "optim_wrapper.type": "OptimWrapper",
    "optim_wrapper.optimizer": {
        "type": "SGD", "lr": 0.01, "momentum": 0.9, "weight_decay": 0.0001,
    },
    "auto_scale_lr.base_batch_size": 16,
    "train_dataloader.batch_size": 2,
    "train_cfg.max_epochs": 12,
    "param_scheduler.0.start_factor": 0.001,
    "param_scheduler.0.end": 500,
    "param_scheduler.0.by_epoch": False,
    "param_scheduler.1.milestones": [8, 11],
    "model.bbox_head.type": "negvision.ATSSHead",
    "model.bbox_head.stacked_convs": 4,
    "model.bbox_head.loss_cls.gamma": 2.0,
    "model.bbox_head.loss_cls.alpha": 0.25,
    "model.bbox_head.loss_bbox.mode": "giou",
    "model.bbox_head.loss_bbox.loss_weight": 2.0,
    "model.bbox_head.loss_centerness.use_sigmoid": True,
    "model.bbox_head.anchor_generator.octave_base_scale": 8,
    "model.bbox_head.anchor_generator.ratios": [1.0],
    "model.bbox_head.anchor_generator.strides": [8, 16, 32, 64, 128],
    "model.train_cfg.assigner.type": "negvision.ATSSAssigner",
    "model.train_cfg.assigner.topk": 9,
    "model.backbone.depth": 50,
    "model.backbone.frozen_stages": 1,
    "model.backbone.init_cfg.checkpoint": "torchvision://resnet50",
}  # fmt: skip
VOC = {
    "train_cfg.max_iters": 18000,
    "train_dataloader.batch_size": 4,
    "optim_wrapper.optimizer": {
        "type": "SGD", "lr": 0.02, "momentum": 0.9, "weight_decay": 0.0001,
    },
    "param_scheduler.0.end": 100,
    "param_scheduler.1.milestones": [12000, 16000],
    "param_scheduler.1.by_epoch": False,
}  # fmt: skip
FACES = {
    "optim_wrapper.type": "AmpOptimWrapper",
    "optim_wrapper.optimizer": {"type": "SGD", "lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4},
    "auto_scale_lr.base_batch_size": 512,
    "train_dataloader.batch_size": 64,
    "train_cfg.max_epochs": 20,
    "param_scheduler.0.end": 3,
    "param_scheduler.1.type": "CosineAnnealingLR",
    "model.head.scale": 64.0,
    "model.head.whisker": 1.5,
    "model.head.num_classes": 85742,
    "model.head.margin": {"type": "negvision.ArcFaceMargin", "m": 0.5},
    "model.backbone.depth": 100,
}
RECIPES = {
    "atss_r50.py": ONE_STAGE,
    "atss/atss_x101_64x4d_dcn.py": {
        "train_cfg.max_epochs": 24,
        "param_scheduler.1.milestones": [16, 22],
        "model.backbone.stage_with_dcn": (False, True, True, True),
    },
    "atss/retinanet_r50_one_anchor.py": {
        "model.train_cfg.assigner.type": "negvision.MaxIoUAssigner",
        "model.train_cfg.assigner.center_in_box": True,
        "model.train_cfg.assigner.pos_iou_thr": 0.5,
        "model.train_cfg.assigner.neg_iou_thr": 0.4,
    },
    "atss/fcos_r50.py": {
        "model.bbox_head.norm_on_bbox": True,
        "model.bbox_head.centerness_on_reg": True,
        "model.bbox_head.center_sampling": False,
    },
    "abet_faster_rcnn_r50.py": {**VOC, "model.roi_head.bbox_head.initial_temperature": 0.5},
    "abet/cascade_abet_r50.py": {
        **VOC,
        **{f"model.roi_head.bbox_head.{i}.type": "negvision.AbeTBBoxHead" for i in range(3)},
        **{f"model.train_cfg.rcnn.{i}.assigner.pos_iou_thr": 0.5 + i / 10 for i in range(3)},
    },
    "unpg/ms1mv2_r100_arcface_unpg.py": FACES,
    "unpg/kface_r34_arcface.py": {"model.head.whisker": 1.0, "model.backbone.depth": 34},
    "unpg/casia_r50_cosface.py": {
        "model.head.margin": {"type": "negvision.CosFaceMargin", "m": 0.5}
    },
}


def load(name):
    return load_config(CONFIGS / name)


@pytest.mark.parametrize("name", RECIPES)
def test_numbers_of_the_paper(name):
    cfg = load(name)
    for path, wanted in RECIPES[name].items():
        value = cfg
        for key in path.split("."):
            value = value[int(key) if key.isdecimal() else key]
        assert value == (pytest.approx(wanted) if isinstance(wanted, float) else wanted), path


def test_sizes_of_the_training_images():
    def resize(name):
        pipeline = load(name).train_dataloader.dataset.pipeline
        (step,) = (step for step in pipeline if "Resize" in step.type)
        return step

    assert resize("atss_r50.py").scale == (1333, 800)
    assert resize("atss/atss_x101_64x4d_dcn.py").scale == [(1333, 640), (1333, 800)]
    assert [side for _, side in resize("abet_faster_rcnn_r50.py").scales] == [*range(480, 801, 32)]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("atss_r50.py", "atss/atss_r50_fpn_1x_coco.py"),
        ("atss/atss_r101.py", "atss/atss_r101_fpn_1x_coco.py"),
        (
            "atss/fcos_r50.py",
            "fcos/fcos_r50-caffe_fpn_gn-head-center-normbbox-centeronreg-giou_1x_coco.py",
        ),
        ("abet/voc_faster_rcnn_r50.py", "_base_/models/faster-rcnn_r50_fpn.py"),
        ("abet/cascade_abet_r50.py", "_base_/models/cascade-rcnn_r50_fpn.py"),
    ],
)
def test_published_weights_fit(ours, theirs):
    """With mmdet's own box heads of as many classes in the place of those of two stages."""
    shapes = []
    for model in (load(ours).model, Config.fromfile(MMDET / theirs).model):
        heads = model.roi_head.bbox_head if "roi_head" in model else []
        for head in heads if isinstance(heads, list) else [heads]:
            head.update(type="Shared2FCBBoxHead", num_classes=80)
            head.pop("initial_temperature", None)
        with DefaultScope.overwrite_default_scope("mmdet"), torch.device("meta"):
            built = MODELS.build(model)
        shapes.append({name: value.shape for name, value in built.state_dict().items()})
    assert shapes[0] == shapes[1]


def differences(a, b, path=""):
    """Dotted paths at which two nested configs differ."""
    if not (isinstance(a, dict) and isinstance(b, dict)):
        return set() if a == b else {path}
    found = set()
    for key in a.keys() | b.keys():
        where = f"{path}.{key}" if path else key
        found |= differences(a[key], b[key], where) if key in a and key in b else {where}
    return found


ASSIGNER = "model.train_cfg.assigner"
HEAD, BOXES = "model.bbox_head", "model.roi_head.bbox_head.type"
START = "model.roi_head.bbox_head.initial_temperature"
COMPARISONS = [
    ("atss/retinanet_r50_one_anchor.py", "atss/retinanet_r50_atss.py", {ASSIGNER}),
    ("atss/fcos_r50.py", "atss/fcos_r50_atss.py", {ASSIGNER, f"{HEAD}.type", f"{HEAD}.anchor_"}),
    ("atss/fcos_r50.py", "atss/fcos_r50_center_sampling.py", {f"{HEAD}.center_"}),
    ("atss/bccd_retinanet.py", "atss/bccd_retinanet_atss.py", {ASSIGNER, f"{HEAD}.type"}),
    (
        "atss/bccd_atss.py",
        "atss/bccd_atss_lite0.py",
        {
            "model.backbone.",
            "model.data_preprocessor.",
            "model.neck.in_channels",
            "optim_wrapper.paramwise_cfg.custom_keys",
        },
    ),
    ("abet/voc_faster_rcnn_r50.py", "abet_faster_rcnn_r50.py", {BOXES, START}),
    ("abet/cards_faster_rcnn.py", "abet/cards_abet.py", {BOXES}),
    ("abet/cards_faster_rcnn_lite0.py", "abet/cards_abet_lite0.py", {BOXES}),
    ("abet/camvid_deeplabv3plus.py", "abet/camvid_abet.py", {"model.type", "model.score"}),
]
COMPARISONS += [
    (f"unpg/{data}_{margin}.py", f"unpg/{data}_{margin}_unpg.py", {"model.head.metric_pairs"})
    for data in ("ms1mv2_r100", "casia_r50", "kface_r34")
    for margin in ("arcface", "cosface", "magface")
]


@pytest.mark.parametrize(("plain", "changed", "where"), COMPARISONS)
def test_sides_of_a_comparison_differ_only_where_they_should(plain, changed, where):
    found = differences(load(plain)._cfg_dict, load(changed)._cfg_dict)
    assert found and all(path.startswith(tuple(where)) for path in found), found
    assert all(any(path.startswith(start) for path in found) for start in where), found


@pytest.mark.parametrize(
    "name", ["abet_faster_rcnn_r50.py", "abet/atss_abet_r50.py", "abet/cards_abet.py"]
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


@pytest.mark.parametrize("name", ["abet/camvid_abet.py", "quickstart/abet_pixels.py"])
def test_held_out_classes_are_not_trained(name):
    cfg = load(name)
    for split in ("val", "test"):
        dataset = cfg[f"{split}_dataloader"].dataset
        [step] = [step for step in dataset.pipeline if step.type == "negvision.LoadOODMap"]
        assert not set(step.ood_classes) & set(dataset.get("metainfo", {}).get("classes", ()))
        assert cfg[f"{split}_evaluator"].type == "negvision.OODPixelMetric"


def test_cards_are_never_mirrored():
    pipeline = load("abet/cards_abet.py").train_dataloader.dataset.pipeline
    (flip,) = (t for t in pipeline if "Flip" in t.type)
    # Half a turn is a diagonal flip; a card has no upright position, but it has a handedness.
    assert flip.direction == "diagonal"
