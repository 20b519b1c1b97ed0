"""Small two-stage detectors, and inputs and outputs of their box heads."""

import copy
from pathlib import Path

import torch
from mmdet.registry import MODELS
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config, ConfigDict

BASE = Path(__file__).parents[2] / "configs" / "_base_" / "models" / "faster_rcnn_r18_slim.py"
CLASSES = 4
TEST = ConfigDict(score_thr=0.0, nms={"type": "nms", "iou_threshold": 0.5}, max_per_img=30)
META = {"img_shape": (100, 120), "scale_factor": (2.0, 2.0)}


def box_head(kind: str, **options):
    config = {
        "type": kind,
        "in_channels": 4,
        "fc_out_channels": 16,
        "roi_feat_size": 2,
        "num_classes": CLASSES,
        **options,
    }
    return MODELS.build(config)


def rois(count: int, seed: int = 0) -> torch.Tensor:
    """Boxes in an image of 100 x 120 pixels, (count, 5)."""
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand(count, 2, generator=generator) * torch.tensor([80.0, 60.0])
    size = torch.rand(count, 2, generator=generator) * 36 + 4
    return torch.cat([torch.zeros(count, 1), low, low + size], 1)


def features(count: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(count, 4, 2, 2, generator=torch.Generator().manual_seed(seed))


def predict(head, boxes, output, deltas, config=TEST, rescale=False):
    with torch.no_grad():
        (found,) = head.predict_by_feat((boxes,), (output,), (deltas,), [META], config, rescale)
    return found


def detector(head: dict, kind: str = "FasterRCNN"):
    """A FasterRCNN, MaskRCNN or CascadeRCNN with the box head ``head``."""
    model = copy.deepcopy(Config.fromfile(BASE).model)
    model.type = kind
    model.backbone.update(base_channels=8, stem_channels=8)
    model.neck.update(in_channels=[8, 16, 32], out_channels=8)
    model.rpn_head.update(in_channels=8, feat_channels=8)
    roi_head = model.roi_head
    roi_head.bbox_roi_extractor.out_channels = 8
    box = {**roi_head.bbox_head, "in_channels": 8, "fc_out_channels": 16, "num_classes": CLASSES}
    roi_head.bbox_head = {**box, **head}
    model.test_cfg.rcnn.score_thr = 0.0
    if kind == "CascadeRCNN":
        roi_head.update(type="CascadeRoIHead", num_stages=3, stage_loss_weights=[1, 0.5, 0.25])
        roi_head.bbox_head = [copy.deepcopy(roi_head.bbox_head) for _ in range(3)]
        model.train_cfg.rcnn = [copy.deepcopy(model.train_cfg.rcnn) for _ in range(3)]
    if kind == "MaskRCNN":
        roi_head.mask_head = {
            "type": "FCNMaskHead",
            "num_convs": 1,
            "in_channels": 8,
            "conv_out_channels": 8,
            "num_classes": CLASSES,
        }
        roi_head.mask_roi_extractor = copy.deepcopy(roi_head.bbox_roi_extractor)
        model.train_cfg.rcnn.mask_size = 14
        model.test_cfg.rcnn.mask_thr_binary = 0.5
    built = MODELS.build(model)
    built.init_weights()
    return built


def batch(model, training: bool, objects=(3, 0), masks: bool = False) -> dict:
    packed = demo_mm_inputs(
        batch_size=len(objects),
        image_shapes=(3, 64, 64),
        num_items=list(objects),
        num_classes=CLASSES,
        with_mask=masks,
    )
    return model.data_preprocessor(packed, training)


def losses_of(model, data: dict) -> dict[str, torch.Tensor]:
    return {
        name: sum(value) if isinstance(value, list) else value
        for name, value in model(**data, mode="loss").items()
        if "loss" in name
    }
