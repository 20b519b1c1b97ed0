"""The assigners as used by configs: built by name, swapped into mmdet's detectors, errors."""

import copy

import pytest
import torch
from mmdet.registry import MODELS, TASK_UTILS
from mmdet.structures import DetDataSample
from mmengine.logging import MessageHub
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData

from negvision.detection.assigners import ATSSAssigner, MaxIoUAssigner


@pytest.fixture(autouse=True)
def mmdet_scope():
    init_default_scope("mmdet")


def grid(stride=8, side=8, scale=4):
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    center = torch.stack([x, y], -1).reshape(-1, 2) * float(stride)
    half = scale * stride / 2
    return torch.cat([center - half, center + half], 1)


def truth(*boxes, labels=None):
    bboxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    labels = torch.arange(len(boxes)) if labels is None else torch.tensor(labels)
    return InstanceData(bboxes=bboxes, labels=labels)


def test_built_by_name_from_mmdets_registry():
    assigner = TASK_UTILS.build(
        {
            "type": "negvision.ATSSAssigner",
            "topk": 5,
            "iou_calculator": {"type": "BboxOverlaps2D"},
            "ignore_iof_thr": -1,
        }
    )
    assert isinstance(assigner, ATSSAssigner) and assigner.topk == 5 and assigner.alpha is None
    assert isinstance(
        TASK_UTILS.build(
            {"type": "negvision.MaxIoUAssigner", "pos_iou_thr": 0.5, "neg_iou_thr": 0.4}
        ),
        MaxIoUAssigner,
    )


@pytest.mark.parametrize(
    "arguments,message",
    [
        ({"topk": 0}, "topk and anchors_per_location must be at least 1, got 0 and 1"),
        ({"anchors_per_location": 0}, "must be at least 1, got 9 and 0"),
        ({"alpha": 1.5}, r"alpha must lie in \[0, 1\] or be None, got 1.5"),
        ({"iou_calculator": {"type": "RBboxOverlaps2D"}}, "iou_calculator is 'RBboxOverlaps2D'"),
        ({"similarity": "giou"}, "similarity is 'giou'; it must be one of iou, nwd, simd"),
        ({"similarity_scale": 2}, "similarity_scale is 2; iou takes no scale"),
        ({"similarity": "nwd", "similarity_scale": 0}, r"is 0; nwd takes one scale \(C, in pix"),
        ({"similarity": "simd", "similarity_scale": 3}, r"is 3; simd takes two scales \(m and n"),
        ({"min_size": -1}, "min_size must be at least 0 pixels, got -1"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        ATSSAssigner(**arguments)


def test_labels_and_columns_beyond_the_box():
    priors = InstanceData(priors=torch.cat([grid(), torch.rand(64, 3)], 1))
    gt = truth([10, 9, 41, 44], [30, 30, 60, 62], labels=[7, 3])
    result = ATSSAssigner().assign(priors, [64], gt)
    assert result.num_gts == 2 and set(result.labels.tolist()) == {-1, 3, 7}
    positive = result.gt_inds > 0
    assert torch.equal(result.labels[positive], gt.labels[result.gt_inds[positive] - 1])
    assert (result.labels[~positive] == -1).all()


def test_images_without_crowds_among_others_with_some():
    assigner = ATSSAssigner(ignore_iof_thr=0.5)
    gts = [truth([10, 9, 41, 44])] * 2
    crowd = InstanceData(bboxes=torch.tensor([[-500.0, -500.0, 500.0, 500.0]]))
    inds, *_ = assigner.assign_batch(grid(), [64], gts, [None, crowd])
    assert (inds[0] >= 0).all() and (inds[1] == -1).all()
    inds, *_ = assigner.assign_batch(grid(), [64], gts, [None, None])
    assert (inds >= 0).all() and inds.any()


def test_alpha_needs_predictions():
    priors = InstanceData(priors=grid())
    with pytest.raises(ValueError, match=r"alpha is 0\.8, so the assigner needs predictions"):
        ATSSAssigner(alpha=0.8).assign(priors, [64], truth([10, 9, 41, 44]))
    priors.bboxes = grid()
    with pytest.raises(ValueError, match="needs predictions"):
        ATSSAssigner(alpha=0.8).assign(priors, [64], truth([10, 9, 41, 44]))


def test_max_iou_with_centers_in_boxes():
    kwargs = {"pos_iou_thr": 0.3, "neg_iou_thr": 0.2, "min_pos_iou": 0}
    # The second box is half a prior: the center of its best prior is outside.
    priors = InstanceData(priors=torch.tensor([[0.0, 0, 16, 16], [40, 0, 56, 16]]))
    gt = truth([1, 1, 15, 15], [49, 0, 56, 16], labels=[4, 6])
    anywhere = MaxIoUAssigner(**kwargs).assign(priors, [2], gt)
    inside = MaxIoUAssigner(center_in_box=True, **kwargs).assign(priors, [2], gt)
    assert anywhere.gt_inds.tolist() == [1, 2] and anywhere.labels.tolist() == [4, 6]
    assert inside.gt_inds.tolist() == [1, 0] and inside.labels.tolist() == [4, -1]
    nothing = MaxIoUAssigner(center_in_box=True, **kwargs).assign(priors, [2], truth())
    assert not nothing.gt_inds.any()


def detector(head: dict, train_cfg: dict):
    model = {
        "type": "SingleStageDetector",
        "backbone": {
            "type": "ResNet",
            "depth": 18,
            "base_channels": 8,
            "num_stages": 4,
            "out_indices": (1, 2, 3),
            "norm_cfg": {"type": "BN"},
            "norm_eval": False,
        },
        "neck": {
            "type": "FPN",
            "in_channels": [16, 32, 64],
            "out_channels": 16,
            "num_outs": 3,
        },
        "bbox_head": {
            "num_classes": 3,
            "in_channels": 16,
            "feat_channels": 16,
            "anchor_generator": ANCHORS,
            "norm_cfg": NORM,
            "loss_bbox": {"type": "GIoULoss", "loss_weight": 2.0},
            **head,
        },
        "train_cfg": train_cfg,
    }
    return MODELS.build(model)


ANCHORS = {
    "type": "AnchorGenerator",
    "ratios": [1.0],
    "octave_base_scale": 8,
    "scales_per_octave": 1,
    "strides": [8, 16, 32],
}
NORM = {"type": "GN", "num_groups": 4, "requires_grad": True}
HEADS = {
    "ATSSHead": {},
    "GFLHead": {
        "loss_cls": {"type": "QualityFocalLoss", "use_sigmoid": True},
        "loss_dfl": {"type": "DistributionFocalLoss"},
        "loss_bbox": {"type": "GIoULoss"},
        "reg_max": 8,
    },
    "DDODHead": {},
    "TOODHead": {
        "num_dcn": 0,
        "initial_loss_cls": {"type": "FocalLoss", "use_sigmoid": True, "activated": True},
        "loss_cls": {"type": "QualityFocalLoss", "use_sigmoid": True, "activated": True},
    },
}


@pytest.mark.parametrize("name", HEADS)
def test_changing_one_type_swaps_it_into_mmdets_detectors(name):
    """mmdet's heads have the same loss with mmdet's assigner and ours."""
    kind = {"type": "ATSSAssigner", "topk": 9}
    train_cfg = {"assigner": kind, "allowed_border": -1, "pos_weight": -1, "debug": False}
    if name == "DDODHead":
        train_cfg = {
            "assigner": {**kind, "alpha": 0.8},
            "reg_assigner": {**kind, "alpha": 0.5},
            "allowed_border": -1,
            "pos_weight": -1,
        }
    if name == "TOODHead":
        # TOODHead reads the epoch from there.
        MessageHub.get_current_instance().update_info("epoch", 0)
        train_cfg |= {
            "initial_epoch": 4,
            "initial_assigner": kind,
            "assigner": {"type": "TaskAlignedAssigner", "topk": 13},
            "alpha": 1,
            "beta": 6,
        }
    g = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, 96, 128, generator=g)
    samples = []
    for boxes in ([[10.3, 9.1, 41.7, 44.9], [60.2, 20.5, 110.8, 90.1]], [[5.6, 30.2, 60.9, 70.4]]):
        sample = DetDataSample(metainfo={"img_shape": (96, 128), "pad_shape": (96, 128)})
        sample.gt_instances = truth(*boxes)
        samples.append(sample)
    losses = []
    for swapped in (False, True):
        cfg = copy.deepcopy(train_cfg)
        for value in cfg.values():
            if swapped and isinstance(value, dict) and value["type"] == "ATSSAssigner":
                value["type"] = "negvision.ATSSAssigner"
        torch.manual_seed(1)
        model = detector({"type": name, **copy.deepcopy(HEADS[name])}, cfg)
        got = model.loss(images, copy.deepcopy(samples))
        losses.append({k: sum(v) if isinstance(v, list) else v for k, v in got.items()})
    assert losses[0].keys() == losses[1].keys() and len(losses[0]) > 1
    for key, want in losses[0].items():
        torch.testing.assert_close(losses[1][key], want, rtol=1e-5, atol=1e-6, msg=key)
