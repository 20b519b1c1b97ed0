"""Drawn assignments equal those of the assigner in training."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from mmengine.registry import DATASETS, MODELS, init_default_scope
from mmengine.structures import InstanceData

from negvision.detection.assignment_view import (
    assignment_legend,
    assignment_views,
    draw_assignment,
    find_head,
)
from negvision.errors import ConfigError
from negvision.visualization import UNMATCHED_COLOR, level_color
from negvision.visualization.looking import seeded

ATSS = {"type": "negvision.ATSSAssigner", "topk": 9}
MAX_IOU = {
    "type": "MaxIoUAssigner",
    "pos_iou_thr": 0.5,
    "neg_iou_thr": 0.4,
    "min_pos_iou": 0.5,
    "gt_max_assign_all": False,
}


def built(cfg):
    init_default_scope("mmdet")
    return MODELS.build(cfg.model), DATASETS.build(cfg.train_dataloader.dataset)


def views_of(cfg, indices=range(6)):
    model, dataset = built(cfg)
    with seeded(0):
        return model, list(assignment_views(model, dataset, indices))


@pytest.mark.parametrize(
    ("head", "assigner"),
    [
        ("ATSSHead", {"type": "ATSSAssigner", "topk": 9}),
        ("negvision.ATSSHead", ATSS),
        ("negvision.ATSSRetinaHead", ATSS),
        ("RetinaHead", MAX_IOU),
    ],
)
def test_counts_equal_a_direct_call_of_the_assigner(tiny_detector, head, assigner):
    model, views = views_of(tiny_detector(head, assigner))
    found = 0
    for view in views:
        # 160 pixels are a multiple of 32: no padding, and maps of 20, 10 and 5 squares a side.
        assert view.image.shape == (160, 160, 3) and view.image_shape == (160, 160)
        assert [len(level) for level in view.priors] == [400, 100, 25]
        assert view.valid.all()
        arguments = {"gt_instances": InstanceData(bboxes=view.boxes, labels=view.labels)}
        if "ATSS" in assigner["type"]:
            arguments["num_level_priors"] = [400, 100, 25]
        if len(view.ignored):
            arguments["gt_instances_ignore"] = InstanceData(bboxes=view.ignored)
        priors = InstanceData(priors=torch.cat(view.priors))
        expected = model.bbox_head.assigner.assign(priors, **arguments).gt_inds
        assert torch.equal(view.gt_inds, expected)
        assert view.positives_per_box.sum() == (expected > 0).sum()
        assert view.counts.by_level.sum() == (expected > 0).sum()
        assert view.unmatched == [
            box for box in range(len(view.boxes)) if not (expected == box + 1).any()
        ]
        found += int(view.positives_per_box.sum())
    assert found > 20


def test_image_is_shown_as_loaded_with_gray_padding(tiny_detector):
    cfg = tiny_detector()
    pipeline = cfg.train_dataloader.dataset.pipeline
    pipeline[2] = {"type": "Resize", "scale": (150, 140), "keep_ratio": False}
    pipeline[3].prob = 0.0
    model, dataset = built(cfg)
    (view,) = assignment_views(model, dataset, [2])
    loaded = dataset[2]["inputs"].flip(0).permute(1, 2, 0).numpy()
    assert view.image.shape == (160, 160, 3) and view.image_shape == (140, 150)
    assert np.abs(view.image[:140, :150].astype(int) - loaded).max() <= 1
    assert (view.image[140:] == 40).all() and (view.image[:, 150:] == 40).all()


def test_anchors_outside_do_not_take_part(tiny_detector):
    cfg = tiny_detector("RetinaHead", {**MAX_IOU, "min_pos_iou": 0.1, "gt_max_assign_all": True})
    cfg.model.train_cfg.allowed_border = 0
    _, (view,) = views_of(cfg, [2])
    priors = torch.cat(view.priors)
    inside = ((priors >= 0) & (priors < 160)).all(1)
    assert torch.equal(view.valid, inside) and 0 < inside.sum() < len(priors)
    assert (view.gt_inds[~inside] == 0).all() and (view.gt_inds > 0).any()


def test_model_is_unchanged(tiny_detector):
    model, dataset = built(tiny_detector())
    model.train()
    model.backbone.bn1.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    list(assignment_views(model, dataset, [0, 1]))
    assert [module.training for module in model.modules()] == modes
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_heads_that_cannot_be_shown(tiny_detector):
    init_default_scope("mmdet")
    fcos = MODELS.build(tiny_detector("FCOSHead").model)
    with pytest.raises(ConfigError, match="FCOS has no head with an assigner"):
        find_head(fcos)
    ddod = MODELS.build(tiny_detector("ATSSHead", {**ATSS, "alpha": 0.8}).model)
    with pytest.raises(ConfigError, match="needs the predictions of a trained network"):
        find_head(ddod)
    tal = {"type": "TaskAlignedAssigner", "topk": 13}
    model, dataset = built(tiny_detector("RetinaHead", tal))
    with pytest.raises(ConfigError, match="TaskAlignedAssigner needs the predictions"):
        list(assignment_views(model, dataset, [1]))


def view_with_boxes(tiny_detector):
    _, views = views_of(tiny_detector())
    return max(views, key=lambda view: len(view.boxes))


def test_positives_have_the_color_of_their_level(tiny_detector):
    view = view_with_boxes(tiny_detector)
    picture = draw_assignment(view, longest=640)
    shown = [
        bool((picture == level_color(level)).all(-1).any()) for level in range(len(view.priors))
    ]
    assert shown == [count > 0 for count in view.counts.by_level.tolist()]


def test_box_without_a_positive_is_red(tiny_detector):
    _, views = views_of(tiny_detector())
    matched = next(view for view in views if len(view.boxes) and not view.unmatched)
    assert not (draw_assignment(matched, 640) == UNMATCHED_COLOR).all(-1).any()
    missed = replace(matched, gt_inds=torch.where(matched.gt_inds == 1, 0, matched.gt_inds))
    assert missed.unmatched == [0]
    red = (draw_assignment(missed, 640) == UNMATCHED_COLOR).all(-1)
    rows, columns = np.nonzero(red)
    x1, y1, _, y2 = (missed.boxes[0] * 4).tolist()
    assert red.sum() > 100
    # The box, and its tag above it or below.
    assert (columns >= x1 - 3).all() and (rows >= y1 - 30).all() and (rows <= y2 + 30).all()
    on_edge = red[round((y1 + y2) / 2), max(round(x1) - 2, 0) : round(x1) + 3]
    assert on_edge.any()


def test_image_without_boxes(tiny_detector):
    view = view_with_boxes(tiny_detector)
    empty = replace(
        view,
        boxes=torch.zeros(0, 4),
        labels=torch.zeros(0, dtype=torch.long),
        ignored=torch.zeros(0, 4),
        gt_inds=torch.zeros_like(view.gt_inds),
    )
    assert empty.unmatched == [] and empty.counts.by_level.tolist() == [0, 0, 0]
    assert draw_assignment(empty, 160).shape == (160, 160, 3)
    assert (draw_assignment(empty, 160) == view.image).all()
    texts = [entry.text for entry in assignment_legend([empty])]
    assert texts[2:] == [
        "level 0: anchors 32 px",
        "level 1: anchors 64 px",
        "level 2: anchors 128 px",
    ]
